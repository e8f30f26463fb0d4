"""A shim that nobody asks for a device is the launcher itself: byte for byte, in every order of options."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from itertools import permutations
from pathlib import Path

import pytest
from settings import THROUGH, installed

#: What Charliecloud's own tests and manual call ch-run with, whether this release knows the option or not. IMAGE
#: stands for one.
CH_RUN = [
    "--version",
    "-V",
    "--usage",
    "",
    "-v --version",
    "IMAGE",
    "IMAGE --",
    "--",
    "-- IMAGE",
    "IMAGE -- true",
    "IMAGE true",
    "IMAGE -- echo --version",
    "IMAGE -- echo --device x --cdi -d",
    "IMAGE -- sh -c exit\\ 3",
    "-- IMAGE echo a b",
    "-w IMAGE -- true",
    "-v IMAGE -- true",
    "-vv IMAGE -- true",
    "-t IMAGE -- ls -A /tmp",
    "--private-tmp IMAGE -- ls -A /tmp",
    "--private IMAGE -- ls -A /tmp",
    "-b /etc:/mnt IMAGE -- cat /mnt/hostname",
    "-b/etc:/mnt IMAGE -- cat /mnt/hostname",
    "--bind=/etc:/mnt IMAGE -- cat /mnt/hostname",
    "--bind /etc:/mnt IMAGE -- cat /mnt/hostname",
    "--bin /etc:/mnt IMAGE -- cat /mnt/hostname",
    "IMAGE -b /etc:/mnt -- cat /mnt/hostname",
    "-b /etc:/mnt -b /usr:/srv IMAGE -- ls /srv",
    "-b /no/such/source:/mnt IMAGE -- true",
    "-b /etc:/no/such/target IMAGE -- true",
    "-b",
    "IMAGE -b",
    "-c /etc IMAGE -- pwd",
    "-c/etc IMAGE -- pwd",
    "--cd=/etc IMAGE -- pwd",
    "--cd /no/such IMAGE -- pwd",
    "-tvc /etc IMAGE -- pwd",
    "-tc/etc IMAGE -- pwd",
    "-u 0 -g 0 IMAGE -- id -u",
    "-u0 -g0 IMAGE -- id -g",
    "--uid=0 --gid=0 IMAGE -- id",
    "-u nobody IMAGE -- id",
    "--set-env=A=b IMAGE -- sh -c echo\\ $A",
    "--set-env=A=b --unset-env=A IMAGE -- sh -c echo\\ $A",
    "--unset-env=* IMAGE -- env",
    "--unset-env * IMAGE -- env",
    "--set-env --unset-env=HOME IMAGE -- sh -c echo\\ $HOME",
    "--set-env=/no/such/file IMAGE -- true",
    "--env-no-expand --set-env=A=$HOME IMAGE -- sh -c echo\\ $A",
    "--no-passwd IMAGE -- cat /etc/passwd",
    "--home IMAGE -- true",
    "--write-fake IMAGE -- touch /new",
    "-W IMAGE -- touch /new",
    "-W8m IMAGE -- touch /new",
    "--feature=squash",
    "--feature=no-such",
    "--join --join-tag=lab --join-ct=1 IMAGE -- true",
    "--join-ct=1 IMAGE -- true",
    "--no-such-option IMAGE -- true",
    "-Z IMAGE -- true",
    "--ver",
    "--un IMAGE -- true",
    "-m /no/such IMAGE -- true",
    "--storage=/no/such IMAGE -- true",
    "-s /no/such no-such-image -- true",
    "no-such-image -- true",
    "/no/such/image -- true",
]

APPTAINER = [
    "--version",
    "version",
    "",
    "help",
    "help exec",
    "no-such-command",
    "--no-such-option",
    "exec",
    "exec IMAGE",
    "exec IMAGE true",
    "exec IMAGE echo --device x --version -h --help",
    "exec IMAGE sh -c exit\\ 3",
    "exec -- IMAGE echo a",
    "exec IMAGE -- echo a",
    "exec /no/such/image true",
    "exec --no-such-option IMAGE true",
    "exec -Z IMAGE true",
    "-q exec IMAGE true",
    "-s exec IMAGE no-such-program",
    "--quiet exec IMAGE pwd",
    "exec --pwd /etc IMAGE pwd",
    "exec --pwd=/etc IMAGE pwd",
    "exec --cwd /etc IMAGE pwd",
    "exec -B /etc:/mnt IMAGE cat /mnt/hostname",
    "exec -B/etc:/mnt IMAGE cat /mnt/hostname",
    "exec -B=/etc:/mnt IMAGE cat /mnt/hostname",
    "exec --bind /etc:/mnt:ro,/usr:/srv IMAGE ls /srv",
    "exec --bind=/etc:/mnt --contain IMAGE cat /mnt/hostname",
    "exec --bind /no/such/source IMAGE true",
    "exec --bind",
    "exec -c IMAGE ls /dev",
    "exec -C IMAGE ls /dev",
    "exec -ec IMAGE env",
    "exec -e --env A=b,B=c IMAGE sh -c echo\\ $A$B",
    "exec --env A=b IMAGE sh -c echo\\ $A",
    "exec --env=A=b IMAGE sh -c echo\\ $A",
    "exec --cleanenv=false IMAGE true",
    "exec --cleanenv=perhaps IMAGE true",
    "exec --no-home IMAGE ls /home",
    "exec --no-mount tmp IMAGE ls -A /tmp",
    "exec --writable-tmpfs IMAGE touch /new",
    "exec --writable IMAGE true",
    "exec -f IMAGE id -u",
    "exec --fakeroot IMAGE id -u",
    "exec -u IMAGE id -u",
    "exec --home /tmp IMAGE sh -c echo\\ $HOME",
    "run IMAGE true",
    "instance list",
    "instance stop no-such-instance",
    "inspect IMAGE",
    "cache list",
]

LINES = {"ch-run": CH_RUN, "apptainer": APPTAINER}

#: For orders: independent options of a launch, as lists of words.
ORDERS = {
    "ch-run": ([], ["-t"], ["--bind", "/etc:/mnt"], ["--set-env=A=b"], ["-c/mnt"]),
    "apptainer": (["exec"], ["--contain"], ["--bind", "/etc:/mnt"], ["--env=A=b"], ["--pwd=/mnt"]),
}


def cases() -> list:
    names = dict.fromkeys(case.launcher for case in installed(THROUGH))
    return [pytest.param(name, line, id=f"{name} {line}") for name in names for line in LINES[name]]


def outcome(words: list[str], path: str) -> tuple[int, str, str]:
    """Status and streams of a launcher that is found on this PATH, without the numbers of its processes."""
    done = subprocess.run(
        words, env={**os.environ, "PATH": path}, capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    return done.returncode, steady(done.stdout, path), steady(done.stderr, path)


def steady(stream: bytes, path: str) -> str:
    text = re.sub(r"\[[0-9]+\]", "[N]", stream.decode(errors="backslashreplace")).replace(path, "PATH")
    # What a shell sets, sizes and addresses of the process's own memory, the random part of a name.
    random = r"(?m)^(_=|ch-run\[N\]: (mem|gc|argv): ).*\n|\b[0-9]{5,}\b|(?<=ch-run_passwd\.)\w+|(?<=ch-run_group\.)\w+"
    return re.sub(random, "", text)


def assert_same(words: list[str], shims: Path) -> None:
    path = os.environ["PATH"]
    assert outcome(words, f"{shims}:{path}") == outcome(words, path)


@pytest.mark.parametrize("name, line", cases())
def test_without_a_device_all_is_as_without_us(lab, shims, tmp_path, monkeypatch, name, line):
    monkeypatch.chdir(tmp_path)
    image = str(lab.image("musl" if "true" in line else "debian-user"))
    assert_same([name, *(word.replace("IMAGE", image) for word in shlex.split(line))], shims)


@pytest.mark.parametrize("name", dict.fromkeys(case.launcher for case in installed(THROUGH)))
def test_the_order_of_options_is_none_of_our_business(lab, shims, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    image, first = str(lab.image("debian-user")), ORDERS[name][0]
    command = ["sh", "-c", "pwd; echo $A; ls; ls -A /tmp | wc -l"]
    for order in permutations(ORDERS[name][1:]):
        options = [word for words in order for word in words]
        assert_same([name, *first, *options, image, *(["--"] if name == "ch-run" else []), *command], shims)


@pytest.mark.parametrize("name", dict.fromkeys(case.launcher for case in installed(THROUGH)))
def test_help_is_the_launchers_with_ours_after_it(shims, name):
    path = os.environ["PATH"]
    for words in (
        ([name, "--help"], [name, "exec", "--help"]) if name == "apptainer" else ([name, "--help"], [name, "-?"])
    ):
        status, bare, error = outcome(words, path)
        shimmed = outcome(words, f"{shims}:{path}")
        assert (shimmed[0], shimmed[2]) == (status, error)
        assert shimmed[1].startswith(bare)
        added = shimmed[1][len(bare) :]
        if len(words) > 2 or name == "ch-run":
            assert "--device" in added
            assert "--cdi-dirs" in added
        assert all(len(row) <= 120 for row in added.splitlines())


@pytest.mark.parametrize("name", dict.fromkeys(case.launcher for case in installed(THROUGH)))
def test_a_shim_that_finds_itself_only_says_so(shims, name):
    """And starts nothing, least of all itself again."""
    done = subprocess.run(
        [shims / name, "--version"], env={"PATH": str(shims)}, capture_output=True, timeout=20, check=False
    )
    assert done.returncode in {125, 127}
    assert done.stderr.decode().startswith("cdi-hpc: ")
    assert len(done.stderr.splitlines()) == 1


def test_both_names_of_a_shims_directory_on_the_path_make_no_loop(shims, tmp_path):
    (tmp_path / "again").symlink_to(shims)
    name = next(case.launcher for case in installed(THROUGH))
    path = f"{shims}:{tmp_path / 'again'}:{os.environ['PATH']}"
    assert outcome([name, "--version"], path) == outcome([name, "--version"], os.environ["PATH"])
