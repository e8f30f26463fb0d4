"""SquashFS files as images: what holds of a directory holds of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from launchers import Request, place_of, said, start
from test_run_process import WAITING, Terminal, ended
from test_run_views import is_excused
from views import view

STAGES = ("overlay", "underlay")


@pytest.fixture(params=STAGES)
def stage(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def squashed(lab, tmp_path_factory):
    """A SquashFS file of an image; its files belong to root, or with another option to whoever they did."""
    directory = tmp_path_factory.mktemp("squashfs")

    def squash(image: str, *options: str) -> Path:
        path = directory / f"{image}{''.join(options)}.squashfs"
        if not path.exists():
            argv = [
                "mksquashfs",
                place_of(lab, image),
                path,
                "-quiet",
                "-no-progress",
                "-noI",
                "-noD",
                "-noF",
                *options,
            ]
            # What this user can't read in the image is not in the file.
            subprocess.run(argv, check=True, capture_output=True)
        return path

    return squash


@pytest.fixture(params=["-all-root", "-no-xattrs"])
def image(request, squashed) -> Path:
    return squashed("musl", request.param)


@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_every_fact_of_the_reference_holds_of_a_file(run, image, case, stage):
    request = Request((case.device,), (str(case.directory),))
    argv = run.argv(request, image, ["sh", "-c", view.INSIDE, "sh", *case.questions()], stage=stage)
    raw = said(start(argv, env={"RESOLVE_LINKS": "yes"}))
    misses = view.compare(case.wanted, case.normalise(raw)).misses
    assert [miss for miss in misses if not is_excused(miss, "musl", case)] == []


@pytest.mark.parametrize(
    "script, status",
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -KILL $$", -signal.SIGKILL),
        ("kill -INT $$", -signal.SIGINT),
    ],
)
def test_the_exit_status_is_the_commands(run, small, image, script, status):
    done = start(run.argv(small, image, ["sh", "-c", script]))
    assert (done.returncode, done.stderr) == (status, b"")


def test_a_command_that_is_not_there_is_127_and_one_that_cannot_run_126(run, small, image):
    assert start(run.argv(small, image, ["no-such-program"])).returncode == 127
    assert start(run.argv(small, image, ["/etc/passwd"])).returncode == 126


def test_what_is_refused_is_refused_with_one_line_and_nothing_stays(run, small, image):
    done = start(run.argv(small, image, ["true"], options=["--workdir", "/no/such/directory"]))
    assert (done.returncode, done.stdout) == (125, b"")
    assert len(done.stderr.decode().splitlines()) == 1


def test_streams_arguments_and_environment_are_the_callers(run, small, image):
    script = 'printf "%s|" "$@" "$LAB_VARIABLE" "$CALLERS"; cat; echo error >&2'
    done = start(
        run.argv(small, image, ["sh", "-c", script, "sh", "a b", "", "\udcff"]),
        env={"CALLERS": "x\ny"},
        stdin=b"in\0put",
    )
    assert done.stdout == b"a b||\xff|from the spec|x\ny|in\0put"
    assert done.stderr == b"error\n"


def test_the_command_has_no_privilege(run, small, image):
    status = said(start(run.argv(small, image, ["cat", "/proc/self/status"])))
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Uid"].split() == [str(os.getuid())] * 4


def test_the_command_holds_no_file_of_ours(run, small, image):
    script = "for fd in /proc/$$/fd/*; do readlink $fd; done; true"
    targets = said(start(run.argv(small, image, ["sh", "-c", script]))).split()
    assert len(targets) == 3, targets


def test_the_terminals_signals_reach_the_command(run, small, squashed):
    terminal = Terminal(
        run.argv(
            small,
            squashed("musl", "-all-root"),
            ["sh", "-c", "trap 'echo trapped; exit 7' INT; echo ready; while :; do sleep 0.05; done"],
        )
    )
    terminal.wait_for(b"ready")
    terminal.type(b"\x03")
    assert terminal.status() == 7, terminal.seen
    assert b"trapped" in terminal.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_launcher_alone_reaches_the_command(run, small, squashed, number):
    """As a batch system sends them. Not SIGINT: who sends that sends it to all, and twice could mean more than once."""
    name = signal.Signals(number).name[3:]
    script = f"trap 'echo {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
    started = subprocess.Popen(
        run.argv(small, squashed("musl", "-all-root"), ["sh", "-c", script]), stdout=subprocess.PIPE
    )
    with ended(started):
        assert started.stdout.readline() == b"ready\n"
        started.send_signal(number)
        assert started.stdout.read() == f"{name}\n".encode()
        assert started.wait(timeout=20) == 9


def test_when_the_launcher_is_killed_no_process_of_it_stays(run, small, squashed):
    image = squashed("musl", "-all-root")
    script = "echo ready; while :; do sleep 0.05; done"
    # A directory for the mount is in a place of the test's own: who is killed can't take it away.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        started = subprocess.Popen(
            run.argv(small, image, ["sh", "-c", script]),
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": directory},
        )
        with ended(started):
            assert started.stdout.readline() == b"ready\n"
            assert processes_with(image)
            started.kill()
            started.wait()
            deadline = time.monotonic() + 20
            while processes_with(image) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert processes_with(image) == []


def processes_with(image: Path) -> list[bytes]:
    """Command lines of processes that have the file among their words, or open."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes()
            opened = (os.readlink(path) for path in (directory / "fd").iterdir())
            if os.fsencode(image) in words.split(b"\0") or str(image) in opened:
                found.append(words)
    return found


def test_without_squashfuse_it_is_unpacked(run, small, squashed, tmp_path):
    """And the copy does not stay."""
    path = path_without(tmp_path, "squashfuse", "squashfuse_ll")
    argv = run.argv(small, squashed("musl", "-all-root"), ["/bin/cat", "/opt/lab/link"])
    done = start(argv, env={"PATH": path})
    assert said(done) == "from the host\n"
    assert b"unpacking" in done.stderr


@pytest.mark.parametrize("missing", [(), ("squashfuse", "squashfuse_ll")], ids=["mounted", "unpacked"])
def test_a_sif_is_an_image_like_the_file_system_in_it(run, small, lab, tmp_path, missing):
    argv = run.argv(
        small, lab.image("debian.sif"), ["/bin/sh", "-c", "cat /opt/lab/link; cat /etc/debian_version; exit 3"]
    )
    done = start(argv, env={"PATH": path_without(tmp_path, *missing)})
    assert (done.returncode, done.stdout) == (
        3,
        b"from the host\n" + (lab.image("debian-root") / "etc/debian_version").read_bytes(),
    )


def test_with_neither_program_it_says_which_to_install(run, small, squashed, tmp_path):
    path = path_without(tmp_path, "squashfuse", "squashfuse_ll", "unsquashfs")
    done = start(run.argv(small, squashed("musl", "-all-root"), ["true"]), env={"PATH": path})
    assert done.returncode == 125
    assert "squashfuse" in done.stderr.decode()
    assert "unsquashfs" in done.stderr.decode()


def path_without(tmp_path: Path, *programs: str) -> str:
    """A PATH on which everything is but these."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for place in ("/usr/sbin", "/usr/bin", "/usr/local/bin", "/opt/venv/bin"):
        for program in os.scandir(place) if os.path.isdir(place) else ():
            link = directory / program.name
            if program.name not in programs and not link.is_symlink():
                link.symlink_to(program.path)
    assert all(shutil.which(program, path=str(directory)) is None for program in programs)
    return str(directory)


@pytest.mark.parametrize("damage", ["cut", "tables", "noise", "superblock only", "sif"])
def test_a_damaged_file_is_named(run, small, squashed, tmp_path, damage):
    content = squashed("musl", "-all-root").read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "tables": content[: len(content) // 2] + bytes(len(content) // 2 - 200) + content[-200:],
        "noise": content[:4] + os.urandom(4096),
        "superblock only": content[:96],
        "sif": b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + bytes(100),
    }
    file = tmp_path / "image.squashfs"
    file.write_bytes(broken[damage])
    done = start(run.argv(small, file, ["true"]))
    assert done.returncode == 125
    assert done.stderr.startswith(f"cdi-hpc: error: image {file}: ".encode())
    assert b"Traceback" not in done.stderr


def test_two_launches_of_one_file_do_not_disturb_each_other(run, small, squashed):
    image = squashed("musl", "-all-root")
    first = subprocess.Popen(
        run.argv(small, image, ["sh", "-c", "echo ready; read line; cat /opt/lab/link"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with ended(first):
        assert first.stdout.readline() == b"ready\n"
        assert said(start(run.argv(small, image, ["cat", "/opt/lab/link"]))) == "from the host\n"
        out, _ = first.communicate(b"\n", timeout=30)
        assert out == b"from the host\n"


def test_a_debian_of_which_not_everything_could_be_read_is_an_image(run, small, squashed, stage):
    argv = run.argv(
        small, squashed("debian-user", "-no-xattrs"), ["cat", "/opt/lab/link", "/etc/debian_version"], stage=stage
    )
    assert said(start(argv)).startswith("from the host\n12")


def test_a_command_that_was_stopped_goes_on_and_so_does_its_launcher(run, small, squashed):
    """However close together the signals come."""
    argv = run.argv(small, squashed("debian-user", "-no-xattrs"), WAITING)
    started = subprocess.Popen(argv, stdout=subprocess.PIPE, preexec_fn=os.setpgrp)  # noqa: PLW1509 - no threads
    with ended(started):
        assert started.stdout.readline() == b"ready\n"
        for _ in range(20):
            os.killpg(started.pid, signal.SIGTSTP)
            _, status = os.waitpid(started.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            os.killpg(started.pid, signal.SIGCONT)
            assert started.stdout.readline() == b"again\n"
        os.killpg(started.pid, signal.SIGINT)
        assert started.stdout.read().endswith(b"interrupted\n")
        assert started.wait(timeout=20) == 7
