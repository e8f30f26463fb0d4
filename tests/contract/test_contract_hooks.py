"""A hook that the site has run, where root is root and the user is not: the same view through each launcher."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

UID = 59999  # the lab's user, of whom launchers want to know
USER = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--")
DEVICE = "site.org/tool=one"

HOOK = """#!/bin/sh
bundle=$(sed 's/.*"bundle": "\\([^"]*\\)".*/\\1/')
root=$(sed 's/.*"path": "\\([^"]*\\)".*/\\1/' "$bundle/config.json")
mkdir -p "$root/opt/site/empty" "$root/usr/local/lib/site" || exit
chmod 750 "$root/opt/site/empty"
echo "as $(id -u), told $*" >"$root/opt/site/made"
ln -s ../../opt/site/made "$root/etc/link"
echo /usr/local/lib/site >"$root/etc/ld.so.conf.d/site.conf"
cp /usr/lib/x86_64-linux-gnu/libresolv.so.2 "$root/usr/local/lib/site/libsite.so.2"
ldconfig -r "$root"
"""

SHOW = "cat /etc/link; stat -c %a /opt/site/empty; ldconfig -p | grep -c /usr/local/lib/site"
SHOWN = f"as {UID}, told one two\n750\n1\n"

LAUNCHERS = {
    "native": ("cdi-hpc", "run", "-d", DEVICE),
    "python": ("cdi-hpc", "run", "--runner=python", "-d", DEVICE),
    "ch-run": ("cdi-hpc", "exec", "ch-run", "--device", DEVICE),
    "ch-run-python": ("cdi-hpc", "exec", "--runner=python", "ch-run", "--device", DEVICE),
    "apptainer": ("cdi-hpc", "exec", "apptainer", "exec", "--device", DEVICE),
    "apptainer-python": ("cdi-hpc", "exec", "--runner=python", "apptainer", "exec", "--device", DEVICE),
}

#: Of the launchers that somebody else made, those of this tree.
HERE = [name for name, words in LAUNCHERS.items() if words[1] == "run" or shutil.which(name.partition("-py")[0])]


@dataclass(frozen=True)
class Machine:
    """A machine with the hook in /srv/bin, a spec and a rule."""

    top: Path

    def root(self, *lines: str) -> subprocess.CompletedProcess[str]:
        """Run a script of root's there."""
        script = (
            "set -e",
            f"mount -t overlay -o lowerdir={self.top}/etc:/etc overlay /etc",
            f"mount --bind {self.top}/srv /srv",
            "mount -t tmpfs -o mode=755 cache /var/cache",
            *lines,
        )
        env = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(self.top / "runtime"),
            "HOME": str(self.top / "runtime"),
            "USER": "cdilab",
        }
        return subprocess.run(
            ["unshare", "--mount", "bash", "-c", "\n".join(script)],
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    def user(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command of the user's there."""
        return self.root(f"exec {shlex.join([*USER, *map(str, words)])}")


@pytest.fixture
def machine(lab) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for directory in ("etc/cdi-hpc", "etc/cdi", "srv/bin", "runtime"):
            (top / directory).mkdir(parents=True)
        for path in (top, *top.rglob("*")):
            path.chmod(0o755)
        hook = {"hookName": "createContainer", "path": "/srv/bin/setup", "args": ["setup", "one", "two"]}
        edits = {"env": ["TOOL=one"], "hooks": [hook]}
        spec = {"cdiVersion": "0.6.0", "kind": "site.org/tool", "devices": [{"name": "one", "containerEdits": edits}]}
        files = {
            "etc/cdi/tool.json": json.dumps(spec),
            "etc/cdi-hpc/config.yaml": "hooks: {rules: [{path: /srv/bin/*, action: run}]}\n",
            "srv/bin/setup": HOOK,
        }
        for path, text in files.items():
            (top / path).write_text(text)
            (top / path).chmod(0o755 if path.startswith("srv") else 0o644)
        (top / "runtime").chmod(0o700)
        os.chown(top / "runtime", UID, UID)
        yield Machine(top)


#: What each of them takes for an image; a SIF is none of ch-run's.
IMAGES = ("debian-root", "debian.sqfs", "debian.sif")
CASES = [(launch, image) for launch in HERE for image in IMAGES if not (launch.startswith("ch-") and "sif" in image)]


@pytest.mark.parametrize("launch, image", CASES)
def test_what_a_hook_wrote_is_seen_through_each_launcher_twice(machine, lab, launch, image):
    for _ in range(2):
        done = machine.user(
            *LAUNCHERS[launch], lab.image(image), *(["--"] if "ch-run" in launch else []), "sh", "-c", SHOW
        )
        assert (done.stdout, done.returncode) == (SHOWN, 0), done.stderr


def test_the_image_is_as_it_was_and_nothing_is_left_on_the_machine(machine, lab):
    before = sorted(os.listdir("/tmp"))
    assert machine.user(*LAUNCHERS["native"], lab.image("debian-root"), "true").returncode == 0
    assert sorted(os.listdir("/tmp")) == before
    assert not (lab.image("debian-root") / "opt/site").exists()


@pytest.mark.parametrize("image", ["debian-root", "debian.sqfs"])
@pytest.mark.parametrize("runner", ["native", "python"])
def test_root_runs_no_hook_for_itself(machine, lab, runner, image):
    """For an image in a file, the Python runner enters namespaces first, in which it is root as any user can be."""
    done = machine.root(f"exec {shlex.join([*LAUNCHERS[runner], str(lab.image(image)), 'true'])}")
    assert "not run: root runs no hooks for specs; ordinary users do" in done.stderr
    assert done.returncode == 125


def test_root_runs_no_hook_for_everybody(machine, lab):
    image = lab.image("debian-root")
    done = machine.root(f"cdi-hpc compile --system --image {image} {DEVICE}")
    assert "not run: this plan is for every user, and a hook is run by the user of a launch" in done.stderr
    assert done.returncode != 0


def test_a_program_of_the_users_own_is_not_run(machine, lab):
    os.chown(machine.top / "srv/bin/setup", UID, UID)
    done = machine.user(*LAUNCHERS["native"], lab.image("debian-root"), "true")
    assert f"not run: /srv/bin/setup belongs to user {UID}, not to root" in done.stderr
    assert done.returncode == 125
