"""Devices for launches through ch-run that ask for none: by the configuration, with the native program and without."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path

import pytest
from configured_user import NO_PYTHON, ONE, SAY, TWO, User, make_user

BY_PYTHON = ("cdi-hpc", "exec", "--runner=python", "ch-run")
WAYS = [("ch-run",), BY_PYTHON]


@pytest.fixture
def user(lab, tmp_path) -> User:
    return make_user(tmp_path, lab.image("debian-root"), "ch-run")


@pytest.fixture
def configured(user) -> User:
    user.configure(f"launchers: {{charliecloud: {{devices: {ONE}}}}}")
    return user


@pytest.mark.parametrize("way", WAYS)
def test_a_launch_that_asks_for_none_has_those_that_are_configured(way, configured):
    image = configured.image
    assert configured.said(*way, image, "--", *SAY) == "one"
    assert configured.said(*way, "--device", TWO, image, "--", *SAY) == "two"
    assert configured.said(*way, image, "--", *SAY, CDI_HPC_DEVICES=TWO) == "two"


@pytest.mark.parametrize("way", WAYS)
def test_none_is_asked_for_by_an_option_and_by_the_variable(way, configured):
    for option in ("--device=none", "--cdi=none"):
        for _ in range(2):
            assert configured.said(*way, option, configured.image, "--", *SAY) == "none"
    assert configured.said(*way, configured.image, "--", *SAY, CDI_HPC_DEVICES="none") == "none"


def test_a_later_launch_starts_no_python_until_the_configuration_changes(configured):
    line = ("ch-run", configured.image, "--", *SAY)
    assert configured.said(*line) == "one"
    assert configured.said(*line, **NO_PYTHON) == "one"
    for text, said in ((f"devices: {TWO}", "two"), ("devices: none", "none"), ("unsupported: warn", "none")):
        configured.configure(f"launchers: {{charliecloud: {{{text}}}}}")
        assert configured.do(*line, **NO_PYTHON).returncode == 1
        assert configured.said(*line) == said
        assert configured.said(*line, **NO_PYTHON) == said
    configured.file.unlink()
    configured.file.parent.rmdir()
    assert configured.said(*line, **NO_PYTHON) == "none"


def test_a_configuration_for_other_launchers_gives_this_one_nothing(user):
    user.configure(f"launchers: {{embedded: {{devices: {ONE}}}, singularity: {{devices: {ONE}}}}}")
    for env in ({}, NO_PYTHON):
        assert user.said("ch-run", user.image, "--", *SAY, **env) == "none"
    assert not list(user.cache.glob("*.plan"))


def test_without_files_nothing_is_looked_for(user):
    assert user.said("ch-run", user.image, "--", *SAY, **NO_PYTHON) == "none"
    assert not user.cache.exists()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("words", [["--version"], ["--nonsense", "IMAGE"], [], ["--bind"]])
def test_what_begins_no_container_is_the_launchers_alone(words, known, configured):
    if known:
        configured.said("ch-run", configured.image, "--", *SAY)
    bare = configured.do("ch-run", *words, XDG_CONFIG_HOME=str(configured.top))
    through = configured.do("ch-run", *words, **(NO_PYTHON if known else {}))
    assert (through.returncode, through.stdout, through.stderr) == (bare.returncode, bare.stdout, bare.stderr)


def test_a_wrong_configuration_stops_what_begins_a_container_and_nothing_else(configured):
    configured.configure("launchers: {charliecloud: {devices: {}}}")
    done = configured.do("ch-run", configured.image, "--", *SAY)
    assert (done.returncode, done.stdout) == (125, "")
    assert "launchers.charliecloud.devices: expected text or a list, found a mapping" in done.stderr
    assert configured.do("ch-run", "--version").returncode == 0


def test_several_devices_and_aliases_are_taken(user):
    user.configure(f"aliases: {{tool: {TWO}}}\nlaunchers: {{charliecloud: {{devices: [tool, {ONE}]}}}}")
    command = ("sh", "-c", "echo $TOOL")
    assert user.said("ch-run", user.image, "--", *command) in ("one", "two")
    user.configure("launchers: {charliecloud: {devices: [tool]}}")
    done = user.do("ch-run", user.image, "--", *command)
    assert (done.returncode, done.stdout) == (125, "")
    assert "'tool'" in done.stderr


def test_where_nothing_can_be_kept_it_is_found_out_each_time(configured):
    configured.cache.mkdir(mode=0o777)
    configured.cache.chmod(0o777)
    for _ in range(2):
        done = configured.do("ch-run", configured.image, "--", *SAY)
        assert (done.returncode, done.stdout) == (0, "one\n")
        assert "others have access to it" in done.stderr
    configured.configure(f"launchers: {{singularity: {{devices: {ONE}}}}}")
    for _ in range(2):
        assert configured.do("ch-run", configured.image, "--", *SAY).stdout == "none\n"


def test_a_damaged_extract_is_made_anew(configured):
    line = ("ch-run", configured.image, "--", *SAY)
    configured.said(*line)
    (extract,) = configured.cache.glob("*.extract")
    extract.write_bytes(extract.read_bytes()[:-1])
    done = configured.do(*line)
    assert (done.returncode, done.stdout) == (0, "one\n")
    assert "not used" in done.stderr
    assert configured.said(*line, **NO_PYTHON) == "one"


SITE = """\
set -e
umask 022
mkdir -p {top}/etc/cdi-hpc
mount -t overlay -o lowerdir={top}/etc:/etc overlay /etc
mount -t tmpfs -o mode=755 site /etc/cdi-hpc
echo 'launchers: {{charliecloud: {{devices: [{site}]}}}}' > /etc/cdi-hpc/config.yaml
as() {{ setpriv --reuid=12345 --regid=12345 --clear-groups -- "$@"; }}
"""


@pytest.mark.root
def test_the_sites_devices_are_for_everybody_until_a_user_says_otherwise(lab):
    with tempfile.TemporaryDirectory() as top:
        user = make_user(Path(top), lab.image("debian-root"), "ch-run")
        for path in (Path(top), *Path(top).iterdir()):
            os.chown(path, 12345, 12345)
            path.chmod(0o700 if path.name == "run" else 0o755)
        launch = shlex.join(["ch-run", str(user.image), "--", *SAY])
        own = f"{top}/home/cdi-hpc"
        lines = [f"as {launch}", f"CDI_HPC_PYTHON_FRONT=/bin/false as {launch}", f"as mkdir {own}"]
        for devices in (TWO, "none"):
            lines.append(
                f"echo 'launchers: {{charliecloud: {{devices: {devices}}}}}' | as tee {own}/config.yaml >{top}/out"
            )
            lines += [f"as {launch}", f"CDI_HPC_PYTHON_FRONT=/bin/false as {launch}"]
        script = SITE.format(top=top, site=ONE) + "\n".join(lines)
        assert user.said("unshare", "--mount", "bash", "-c", script).split() == [
            "one",
            "one",
            "two",
            "two",
            "none",
            "none",
        ]
