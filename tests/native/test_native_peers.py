"""Launches that share a container: one has a namespace of ours, the others are executed as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from native_programs import HOST_ROOT, QUIET_SANITIZERS, Launcher

from cdi_hpc.backend import Peers
from cdi_hpc.compiled import wire
from cdi_hpc.errors import CdiError
from cdi_hpc.launch import peers
from cdi_hpc.plan import Bind, SetEnv, Symlink
from cdi_hpc.spec.model import Origin

#: A launcher: begins the container after a while, says in which namespace it is, and goes on.
BEGIN = 'sleep 0.1; [ -e "$1" ] || : >"$1"; readlink /proc/self/ns/mnt; sleep 0.3'

#: The same by Python's half.
BY_PYTHON = """
import os, sys
from cdi_hpc.backend import Peers
from cdi_hpc.launch import peers
asked = Peers(sys.argv[1], "", sys.argv[3], 64 * sys.argv[4])
print("first" if peers.is_first(asked, sys.argv[1]) else "other", flush=True)
os.execvp("sh", ["sh", "-c", sys.argv[2], "sh", sys.argv[1]])
"""


@pytest.fixture
def plan(launcher, tmp_path) -> list[wire.Record]:
    place = tmp_path / "place"
    place.mkdir()
    made = str(tmp_path / "made")
    words = [wire.Arg("-c"), wire.Arg(BEGIN), wire.Arg("sh"), wire.Arg(made)]
    return [
        wire.Program("/bin/sh"),
        *words,
        wire.Peers(made, "", "'a/b=c'", 64 * "1"),
        HOST_ROOT,
        wire.Place(str(place)),
    ]


def started(launcher: Launcher, plan: list[wire.Record], number: int) -> list[subprocess.Popen[str]]:
    launcher.env["PEERS"] = "1"
    argv = launcher.argv(*plan)
    env = {**os.environ, **QUIET_SANITIZERS, **launcher.env}
    return [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(number)]


def ended(processes: list[subprocess.Popen[str]]) -> list[str]:
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return said


def test_one_of_many_launches_makes_the_container(launcher, plan):
    said = ended(started(launcher, plan, 8))
    host = os.readlink("/proc/self/ns/mnt")
    assert (said.count(host), len(set(said))) == (7, 2)


def test_the_next_group_need_not_wait_for_the_container_of_the_last_to_end(launcher, plan):
    # The launcher takes its file away when all have joined.
    plan[2] = wire.Arg(': >"$1"; rm "$1"; echo begun; exec sleep 60')
    before = started(launcher, plan, 1)
    assert before[0].stdout is not None
    assert before[0].stdout.readline() == "begun\n"
    plan[2] = wire.Arg(BEGIN)
    (said,) = ended(started(launcher, plan, 1))
    assert said != os.readlink("/proc/self/ns/mnt")
    assert before[0].poll() is None
    before[0].kill()
    before[0].communicate(timeout=60)


def test_when_the_first_fails_the_next_one_is_the_first(launcher, plan):
    failing = [*plan[:2], wire.Arg("exit 3"), *plan[3:]]
    first = started(launcher, failing, 1)
    assert first[0].wait(60) == 3
    assert len(set(ended(started(launcher, plan, 3)))) == 2
    first[0].communicate(timeout=60)


def test_nobody_waits_for_the_end_of_a_pipe_because_of_the_lock(launcher, plan):
    # It closes its end of the pipe, goes on, and never makes its file: so the lock is held all the time.
    (process,) = started(launcher, [*plan[:2], wire.Arg("echo said; exec >&-; sleep 60"), *plan[3:]], 1)
    assert process.stdout is not None
    assert process.stdout.read() == "said\n"
    assert process.poll() is None
    process.kill()
    process.wait(60)


def test_by_python_it_is_the_same(tmp_path):
    argv = [sys.executable, "-c", BY_PYTHON, str(tmp_path / "made"), BEGIN, "'a/b=c'", "1"]
    said = ended([subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(5)])
    assert sorted(line.split()[0] for line in said) == ["first", *["other"] * 4]


@pytest.mark.parametrize("first", ["C", "Python"])
@pytest.mark.parametrize("second", ["C", "Python"])
@pytest.mark.parametrize(
    ("devices", "edits", "said"),
    [
        ("'a/b=c'", "1", None),
        ("'A/B=c'", "1", None),
        ("'a/b=d'", "2", "has 'a/b=c', and 'a/b=d' was asked for"),
        ("'a/b=c'", "2", "has another 'a/b=c' than was asked for"),
    ],
)
def test_only_who_asks_for_the_same_is_let_in(launcher, plan, tmp_path, first, second, devices, edits, said):
    made = tmp_path / "made"

    def launch(way: str, devices: str, edits: str, script: str) -> subprocess.Popen[str]:
        launcher.env["PEERS"] = "1"
        record = wire.Peers(str(made), "", devices, 64 * edits)
        by_python = [sys.executable, "-c", BY_PYTHON, str(made), script, devices, edits]
        argv = launcher.argv(*plan[:2], wire.Arg(script), *plan[3:5], record, *plan[6:])
        return subprocess.Popen(
            argv if way == "C" else by_python,
            env={**os.environ, **QUIET_SANITIZERS, **launcher.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with launch(first, "'a/b=c'", "1", ': >"$1"; read line') as begun:
        wait_for(made)
        output, errors = launch(second, devices, edits, "echo let in").communicate(timeout=60)
        begun.communicate("\n", timeout=60)
    assert ("let in" in output, f"the container that is shared {said} (" in errors) == (said is None, said is not None)


def test_who_goes_on_without_the_plan_does_not_wait_for_himself(launcher, plan, tmp_path):
    (launcher.stage / "1").mkdir()
    # overlayfs refuses a layer that has locked mounts below it.
    steps = [HOST_ROOT, wire.Overlay(str(tmp_path / "place"), "1", "/dev"), plan[-1]]
    launcher.env["PEERS"] = "1"
    free = ["sh", "-c", 'flock --nonblock "$1"/cdi-hpc-*/*.peers.lock echo nobody waits', "sh", str(launcher.directory)]
    assert launcher.run(*plan[:6], *steps, command=free).stdout == "nobody waits\n"


def test_what_a_container_gets_is_known_by_its_edits_whatever_spec_they_come_from():
    bind = Bind("/a", "/b", "file", Origin("x.yaml", "a/b=c", "mounts"))
    link = Symlink("/c", "b", Origin("x.yaml", "a/b=c", "hooks"))
    variable = SetEnv("A", "1", link.origin)
    known = peers.fingerprint([bind, link, variable])
    assert known == peers.fingerprint([link, replace(bind, origin=link.origin)])
    assert known != peers.fingerprint([link, replace(bind, flags=("ro",))])
    assert known != peers.fingerprint([bind])


def test_the_file_is_named_by_a_variable_or_by_the_parent():
    shared = Peers("/dev/shm/x-", "STEP")
    assert peers.path_of(shared, {"STEP": "7"}, 12) == "/dev/shm/x-7"
    assert peers.path_of(shared, {}, 12) == "/dev/shm/x-12"
    assert peers.path_of(Peers("/dev/shm/x"), {"": "7"}, 12) == "/dev/shm/x"


@pytest.mark.parametrize(("step", "end"), [({"STEP": "7"}, "7"), ({}, str(os.getpid()))])
def test_c_names_it_in_the_same_way(launcher, plan, tmp_path, step, end):
    plan[5] = wire.Peers(f"{tmp_path}/x-", "STEP", "'a/b=c'", 64 * "1")
    made = tmp_path / f"x-{end}"
    made.touch()
    launcher.env.update(step, PEERS="1")
    done = launcher.run(*plan)
    what = "the container that is shared was begun without devices, or has ended, and 'a/b=c' was asked for"
    assert done.stderr == f"peers: {made}: {what} (ask for the same devices, or begin another container)\n"


def by_link(directory: Path) -> None:
    (directory.parent / "elsewhere").mkdir(mode=0o700)
    directory.symlink_to("elsewhere")


def by_mode(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o770)


def by_file(directory: Path) -> None:
    directory.touch(0o700)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (by_link, "it is a link, or no directory"),
        (by_file, "it is a link, or no directory"),
        (by_mode, "others have access to it (chmod 700 it)"),
    ],
)
def test_a_directory_of_locks_that_is_not_ours_alone_is_not_used(launcher, plan, tmp_path, spoil, reason):
    directory = tmp_path / f"cdi-hpc-{os.geteuid()}"
    spoil(directory)
    launcher.env["PEERS"] = "1"
    said = f"{directory}: launches that share a container can't wait for each other there: {reason}"
    assert launcher.run(*plan).stderr == f"peers: {said}\n"
    with pytest.raises(CdiError) as raised:
        peers.is_first(Peers(str(tmp_path / "made"), "", "'a/b=c'", 64 * "1"), str(tmp_path / "made"))
    assert str(raised.value) == said


@pytest.mark.root
def test_nor_is_somebody_elses(launcher, plan, tmp_path):
    directory = tmp_path / "cdi-hpc-0"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, 12345)
    launcher.env["PEERS"] = "1"
    what = "it belongs to user 12345 (ask him or the administrator to remove it)"
    assert launcher.run(*plan).stderr.endswith(f"{what}\n")
    with pytest.raises(CdiError, match=re.escape(what)):
        peers.is_first(Peers(str(tmp_path / "made"), "", "'a/b=c'", 64 * "1"), str(tmp_path / "made"))


@pytest.mark.parametrize("way", ["C", "Python"])
def test_locks_of_containers_that_are_long_done_are_taken_away(launcher, plan, tmp_path, way):
    directory = tmp_path / f"cdi-hpc-{os.geteuid()}"
    directory.mkdir(mode=0o700)
    for name, age in (("old.peers.lock", 7200), ("new.peers.lock", 60), ("old.plan", 7200)):
        (directory / name).touch()
        os.utime(directory / name, (time.time() - age,) * 2)
    by_python = [sys.executable, "-c", BY_PYTHON, str(tmp_path / "made"), BEGIN, "'a/b=c'", "1"]
    launcher.env["PEERS"] = "1"
    argv = launcher.argv(*plan) if way == "C" else by_python
    subprocess.run(argv, env={**os.environ, **QUIET_SANITIZERS, **launcher.env}, check=True, timeout=60)
    while (directory / "old.peers.lock").exists():
        time.sleep(0.01)
    assert {path.name for path in directory.iterdir()} >= {"new.peers.lock", "old.plan"}
    assert len(list(directory.iterdir())) == 3


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)
