"""Root's plans in /var/cache/cdi-hpc serve every user, and are no more trusted than a user's own."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from compiled_launch import Site, front, make_site, runner

pytestmark = pytest.mark.root

USER = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--")


@pytest.fixture
def everybodys(template) -> Iterator[Site]:
    """A site where every user can go."""
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)  # noqa: S103  # that is the point
        site = make_site(Path(top), template)
        os.chown(site.runtime, 12345, 12345)
        yield site


def session(site: Site, *lines: str) -> list[str]:
    """What a root shell printed, with a /var/cache of its own."""
    script = "\n".join(["set -e", "mount -t tmpfs -o mode=755 cache /var/cache", *lines])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], env=site.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def compile_for_all(site: Site) -> str:
    return shlex.join([front(), "compile", "--system", "--image", str(site.image), *site.devices])


def launch(site: Site, *command: str) -> str:
    return shlex.join([*USER, runner(), *site.argv(command)])


def test_roots_plan_serves_every_user_whatever_roots_umask_is(everybodys):
    site = everybodys
    plan, content = session(site, "umask 077", compile_for_all(site), "umask 022", launch(site, "cat", "/opt/lab/file"))
    assert plan.startswith("/var/cache/cdi-hpc/")
    assert content == "from the host"
    assert site.plans() == {}


def test_with_roots_plan_the_images_accounts_are_all_there_are(everybodys):
    """docs/administration.md says so: root does not know who will come."""
    site = everybodys
    _, shared = session(site, compile_for_all(site), launch(site, "sh", "-c", "md5sum </etc/passwd"))
    (image,) = session(site, f"md5sum <{shlex.quote(str(site.image))}/etc/passwd")
    (own,) = session(site, launch(site, "sh", "-c", "md5sum </etc/passwd"))
    assert shared == image != own


def test_a_stale_plan_of_roots_gives_way_to_the_users_own(everybodys):
    site = everybodys
    spec = shlex.quote(f"{site.specs}/lab.yaml")
    ask = ["sh", "-c", 'echo "$LAB_VARIABLE"']
    change = f"sed -i 's/from the spec/FROM THE SPEC/' {spec}"
    _, before, after = session(site, compile_for_all(site), launch(site, *ask), change, launch(site, *ask))
    assert (before, after) == ("from the spec", "FROM THE SPEC")
    assert len(site.plans()) == 1


@pytest.mark.parametrize(
    "spoil, said",
    [
        ("chown -R 12345 /var/cache/cdi-hpc", "belongs to user 12345"),
        ("chmod 777 /var/cache/cdi-hpc", "others have access to it"),
        ("chmod 666 /var/cache/cdi-hpc/*.plan", "others may write to it"),
        ("chown 12345 /var/cache/cdi-hpc/*.plan", "belongs to user 12345"),
    ],
)
def test_what_others_could_have_written_is_not_roots(everybodys, spoil, said):
    site = everybodys
    _, *lines = session(site, compile_for_all(site), spoil, f"{launch(site, 'cat', '/opt/lab/file')} 2>&1")
    assert lines[-1] == "from the host"
    assert any(said in line for line in lines[:-1])


SITE = (
    "mkdir -p /tmp/site/cdi-hpc /tmp/user",
    "mount -t overlay -o lowerdir=/tmp/site:/etc overlay /etc",
    "mount -t tmpfs -o mode=755 site /etc/cdi-hpc",
)


def test_roots_extract_tells_every_user_what_the_site_has_configured(everybodys):
    site = everybodys
    configure = f"echo 'cache: {{directory: {site.top}/plans}}' > /etc/cdi-hpc/config.yaml"
    place = f"mkdir -m 1777 {site.top}/all; echo 'cache: {{directory: {site.top}/all/mine}}' > /etc/cdi-hpc/config.yaml"
    extracts = "ls /var/cache/cdi-hpc | grep -c extract"
    found = session(site, "umask 022", *SITE, configure, compile_for_all(site), place, compile_for_all(site), extracts)
    assert found[-1] == "1"
    first = f"strace -qq -e trace=openat -e signal=none -o /tmp/trace {launch(site, 'true')}"
    shown = session(site, "umask 022", *SITE, place.partition("; ")[2], compile_for_all(site), first, "cat /tmp/trace")
    assert any(".extract" in line and "= -1" not in line for line in shown)
