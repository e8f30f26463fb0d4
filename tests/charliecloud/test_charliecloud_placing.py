"""Becoming a launcher by Python: the tree at its place, what is moved, and what the launcher finds of its caller's."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from releases import LATE, invocation

from cdi_hpc.backend import Dressing, Keep
from cdi_hpc.backends.charliecloud.dressing import dress
from cdi_hpc.backends.charliecloud.images import locate
from cdi_hpc.container.steps import BindHost, MakeDirectory, MakeFile, MountNew, Step
from cdi_hpc.errors import CdiError
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import runner, squashfs
from cdi_hpc.launch.placing import become_launcher
from cdi_hpc.plan import Plan, WriteFile
from cdi_hpc.spec.model import Origin
from cdi_hpc.witness import Witness

#: A tree of its own at ROOT, with a file in a directory that is a mount, too.
TREE: tuple[Step, ...] = (
    MakeDirectory("root"),
    MountNew("tmpfs", "tree", "root", ("nodev", "nosuid"), ("mode=755",)),
    MakeFile("root/own", b"the tree's\n"),
    MakeDirectory("root/part"),
    MountNew("tmpfs", "part", "root/part", (), ("mode=755",)),
    MakeFile("root/part/own", b"the part's\n"),
)


@dataclass(frozen=True)
class Ended:
    """A launcher's end: exit status, negative for a signal, and what it said on both streams."""

    status: int
    said: str


def launch(
    dressing: Dressing, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | Path = "/"
) -> Ended:
    """Become a program of the host in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)  # pytest's is a file
            os.chdir(cwd)
            program = shutil.which(argv[0]) or argv[0]
            status = become_launcher(program, argv, os.environ if env is None else env, dressing)
            os._exit(squashfs.leave_as(status))
        except CdiError as error:
            sys.stderr.write(f"refused: {error}\n")
        finally:
            sys.stderr.flush()
            os._exit(125)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as stream:
        said = stream.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said)


def shell(*lines: str) -> list[str]:
    return ["sh", "-c", "\n".join(lines)]


@pytest.fixture
def place(lab, tmp_path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    (place / "covered").touch()
    return place


def test_the_tree_is_at_its_place_and_the_rest_is_the_hosts(place):
    made = launch(
        Dressing((), steps=TREE, place=str(place)), shell(f"cat {place}/own {place}/part/own", f"ls {place}/..")
    )
    assert made == Ended(0, "the tree's\nthe part's\nplace\n")
    assert os.listdir(place) == ["covered"]


def test_what_is_moved_leaves_the_tree(place, tmp_path):
    (tmp_path / "target").mkdir()
    dressing = Dressing((), steps=TREE, place=str(place), moves=(("/part", str(tmp_path / "target")),))
    assert launch(dressing, shell(f"cat {tmp_path}/target/own", f"ls {place}/part")) == Ended(0, "the part's\n")


def test_a_place_may_be_in_what_was_moved(tmp_path):
    (tmp_path / "target").mkdir()
    steps = (*TREE, MakeDirectory("root/part/place"))
    dressing = Dressing((), steps=steps, place=f"{tmp_path}/target/place", moves=(("/part", f"{tmp_path}/target"),))
    # Nothing is there on the host.
    assert launch(dressing, shell(f"cat {tmp_path}/target/place/own")) == Ended(0, "the tree's\n")


def test_no_privilege_is_left_and_none_is_renounced_for_the_launcher(place):
    text = "grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status"
    found = dict(
        line.split() for line in launch(Dressing((), steps=TREE, place=str(place)), shell(text)).said.splitlines()
    )
    assert {value for name, value in found.items() if name.startswith("Cap")} == {"0" * 16}
    assert found["NoNewPrivs:"] == "0"


def test_the_working_directory_is_found_again_by_its_path(place, tmp_path):
    dressing = Dressing((), steps=TREE, place=str(place))
    assert launch(dressing, ["pwd"], cwd=tmp_path).said == f"{tmp_path}\n"
    assert launch(dressing, ["ls"], cwd=place).said == "own\npart\n"


def test_variables_signals_and_umask_are_the_callers(place):
    text = 'echo $# $A "$0"; umask; grep SigIgn /proc/self/status'
    umask = os.umask(0o027)
    try:
        made = launch(Dressing((), steps=TREE, place=str(place)), ["sh", "-c", text, "name", ""], {"A": "1"})
    finally:
        os.umask(umask)
    assert made.said.splitlines()[:2] == ["1 1 name", "0027"]
    assert int(made.said.split()[-1], 16) & 0x1001000 == 0  # SIGPIPE, SIGXFSZ


def test_without_steps_it_is_only_executed():
    assert launch(Dressing(()), ["readlink", "/proc/self/ns/mnt"]).said == os.readlink("/proc/self/ns/mnt") + "\n"


@pytest.mark.parametrize(("program", "status"), [("/nowhere/x", 127), ("/etc/passwd", 126), ("/etc", 126)])
def test_what_can_not_be_executed_is_said(program, status):
    made = launch(Dressing(()), [program])
    assert made.status == status
    assert made.said.startswith(f"cdi-hpc: {program}: ")


@pytest.mark.parametrize("kind", ["link", "missing"])
def test_a_place_that_has_become_something_else_is_refused(place, tmp_path, kind):
    if kind == "link":
        (tmp_path / "other").symlink_to(place)
    made = launch(Dressing((), steps=TREE, place=str(tmp_path / "other")), ["true"])
    assert made.status == 125
    assert "other: can't be covered by the container's tree" in made.said


@pytest.mark.parametrize(
    ("command", "status"), [("exit 7", 7), ("kill -TERM $$", -15), ("cat bin/busybox >/dev/null", 0)]
)
def test_a_file_is_served_as_long_as_the_launcher_runs(lab, place, command, status):
    steps = (MakeDirectory("root"), BindHost(str(place), "root"))
    file = lab.image("musl").with_name("musl.sqfs")
    made = launch(Dressing((), steps=steps, place=str(place), squashfs=str(file)), shell(f"cd {place}", command))
    assert made == Ended(status, "")
    assert os.listdir(place) == ["covered"]


# Files of the kernel's, through the installed ch-run ------------------------------------------------------------------


@pytest.mark.parametrize("refused", [False, True])
def test_files_of_the_kernels_are_covered_for_good(lab, monkeypatch, refused):
    """No driver's file is here to be covered, so others stand for it."""
    monkeypatch.setattr(runner, "overlay_is_refused", lambda steps: refused)
    origin = Origin("/etc/cdi/a.yaml", "", "hooks[0]")
    covers = [WriteFile(path, b"ours\n", 0o444, origin) for path in ("/proc/version", "/sys/kernel/uevent_seqnum")]
    image = str(lab.image("debian-root"))
    called = invocation(["--cdi=x.y/z", "--set-env=A=1", image, "--", "true"])
    located = locate(called, LATE, {}, "/nowhere")
    made = dress(Plan((), tuple(covers)), called, LATE, located, LiveHost(), {"USER": "me"}, Witness())
    words = [called.words[word.index] if isinstance(word, Keep) else str(word.text) for word in made.words]
    lines = (
        "cat /proc/version /sys/kernel/uevent_seqnum",
        "(echo x >/proc/version) 2>/dev/null || echo refused",
        "umount /proc/version 2>/dev/null || echo stays",
        "[ -d /proc/self/fd ] && [ -d /sys/class/net ] && echo $A",
    )
    assert launch(made, ["ch-run", *words, *shell(*lines)]) == Ended(0, "ours\nours\nrefused\nstays\n1\n")
