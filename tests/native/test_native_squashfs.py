"""An image that is a file: served by squashfuse, from outside of the command's namespaces, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from native_programs import QUIET_SANITIZERS, Launcher, state_of

from cdi_hpc.compiled import wire

#: Marks a server: it has the environment of the launch.
MARK = "CDI_HPC_TEST_MARK"

#: Seconds for a process to go away; nothing is measured by it.
PATIENCE = 30


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    (tree / "opt").mkdir()
    (tree / "opt" / "own").write_text("the image's\n")
    (tree / "big").write_bytes(os.urandom(4 << 20))
    path = tree.parent / "image.sqfs"
    subprocess.run(["mksquashfs", tree, path, "-quiet", "-no-progress", "-all-root"], check=True, capture_output=True)
    return path


@pytest.fixture
def place(tmp_path) -> Path:
    place = tmp_path / "image"
    place.mkdir(mode=0o700)
    return place


@pytest.fixture(autouse=True)
def mark(launcher: Launcher) -> Iterator[str]:
    """No test leaves a server behind."""
    launcher.env[MARK] = uuid.uuid4().hex
    yield launcher.env[MARK]
    wait_until_gone(launcher.env[MARK])


def servers(mark: str) -> list[int]:
    """Processes that are squashfuse, of launches with this mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                environ, argv = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
                if f"{MARK}={mark}".encode() in environ and b"squashfuse" in argv.split(b"\0")[0]:
                    found.append(int(entry.name))
    return found


def wait_until_gone(mark: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while servers(mark):
        assert time.monotonic() < deadline, f"still there: {servers(mark)}"
        time.sleep(0.01)


def plan(file: Path, place: Path, *steps: wire.Record) -> list[wire.Record]:
    return [
        state_of(file),
        wire.Squashfs(str(file), str(place)),
        *(steps or (wire.Bind(str(place), "/", flags=("nodev", "nosuid", "ro")),)),
        wire.Place(str(place)),
    ]


def layered(launcher: Launcher, file: Path, place: Path) -> list[wire.Record]:
    (launcher.stage / "1" / "opt").mkdir(parents=True)
    (launcher.stage / "1" / "opt" / "staged").write_text("staged\n")
    return plan(file, place, wire.Overlay("/", "1", str(place), flags=("nodev", "nosuid", "ro")))


@contextlib.contextmanager
def started(launcher: Launcher, *records: wire.Record, command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A launch that has said its first line and waits for its standard input to end."""
    process = subprocess.Popen(
        launcher.argv(*records, command=command),
        env={**os.environ, **QUIET_SANITIZERS, **launcher.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout
        line = process.stdout.readline()
        assert line == "ready\n", line + process.stdout.read()
        yield process
        if process.poll() is None and process.stdin:
            process.stdin.close()


READY = "echo ready; read -r line"


def test_a_layer_lies_over_the_file(launcher, file, place):
    text = f"cat {place}/opt/own {place}/opt/staged; cksum <{place}/big; ls {place}"
    out = launcher.said(*layered(launcher, file, place), command=["sh", "-c", text]).splitlines()
    assert (out[:2], out[3:]) == (["the image's", "staged"], ["big", "opt"])
    whole = subprocess.run(["unsquashfs", "-cat", file, "big"], capture_output=True, check=True).stdout
    assert out[2] == subprocess.run(["cksum"], input=whole, capture_output=True, check=True).stdout.decode().strip()


def test_the_mount_is_read_only_and_says_what_it_is(launcher, file, place):
    lines = launcher.said(*plan(file, place), command=["cat", "/proc/self/mountinfo"]).splitlines()
    (mount, _) = [line.split() for line in lines if line.split()[4] == str(place)]
    assert {"ro", "nosuid", "nodev"} <= {*mount[5].split(",")}
    assert mount[mount.index("-") + 1 :][:2] == ["fuse.squashfuse", str(file)]


def test_the_tree_can_become_the_root_as_well(launcher, lab, place):
    file = lab.image("debian.sqfs")
    steps = [step for step in plan(file, place) if not isinstance(step, wire.Place)]
    text = "pwd; test -e /etc/debian_version && echo image; test -e /src/native || echo no host"
    assert launcher.said(*steps, command=["sh", "-c", text]).splitlines() == ["/", "image", "no host"]


def test_a_file_system_in_a_file_is_served_from_where_it_begins(launcher, file, place, tmp_path):
    """As in a SIF file."""
    shifted = tmp_path / "shifted"
    shifted.write_bytes(b"x" * 8192 + file.read_bytes())
    steps = [state_of(shifted), wire.Squashfs(str(shifted), str(place), 8192), wire.Bind(str(place), "/")]
    out = launcher.said(*steps, wire.Place(str(place)), command=["cat", f"{place}/opt/own"])
    assert out == "the image's\n"


def test_nothing_is_left_when_the_command_ends(launcher, file, place, mark):
    before = Path("/proc/self/mountinfo").read_text()
    with started(launcher, *plan(file, place), command=["sh", "-c", READY]):
        assert len(servers(mark)) == 1
        assert Path("/proc/self/mountinfo").read_text() == before
        assert os.listdir(place) == []
    wait_until_gone(mark)
    assert os.listdir(place) == []


def test_nothing_is_left_when_the_command_is_killed(launcher, file, place, mark):
    with started(launcher, *plan(file, place), command=["sh", "-c", READY]) as command:
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
    wait_until_gone(mark)


def test_the_image_stays_for_what_the_command_leaves_running(launcher, file, place, mark):
    text = f"exec 3<&0; (read -r line; cat {place}/opt/own) <&3 & echo ready"
    with started(launcher, *plan(file, place), command=["sh", "-c", text]) as command:
        assert command.stdin
        assert command.stdout
        command.wait()
        command.stdin.write("go\n")
        command.stdin.flush()
        assert command.stdout.readline() == "the image's\n"
    wait_until_gone(mark)


def test_a_killed_server_is_an_error_for_who_reads_and_for_nobody_else(launcher, file, place, mark):
    text = f"echo ready; read -r line; cat {place}/big >/dev/null; echo goes on; test -e /etc/passwd && echo host"
    with started(launcher, *plan(file, place), command=["sh", "-c", text]) as command:
        assert command.stdin
        (server,) = servers(mark)
        os.kill(server, signal.SIGKILL)
        wait_until_gone(mark)
        out, _ = command.communicate("go\n", timeout=PATIENCE)
    assert out.endswith("goes on\nhost\n")
    assert "Transport endpoint is not connected" in out or "Software caused connection abort" in out


def test_the_server_is_nobodys_child_and_has_nothing_of_the_launch_but_the_image(launcher, file, place, mark):
    with started(launcher, *plan(file, place), command=["sh", "-c", READY]) as command:
        (server,) = servers(mark)
        proc = Path(f"/proc/{server}")
        stat = (proc / "stat").read_text().rpartition(")")[2].split()
        parent, group, session, terminal = map(int, stat[1:5])
        assert parent not in (command.pid, os.getpid())
        assert session not in (os.getsid(command.pid), 0)
        assert (group, terminal) == (session, 0)
        found = {int(path.name): os.readlink(path) for path in (proc / "fd").iterdir()}
        assert [found[fd] for fd in (0, 1)] == ["/dev/null", "/dev/null"]
        assert found[3] == str(file)
        assert {name.partition(":")[0] for name in found.values()} <= {
            "/dev/null",
            "/memfd",
            "/dev/fuse",
            "anon_inode",
            str(file),
        }
        assert os.readlink(proc / "cwd") == "/"
        assert os.readlink(proc / "ns/mnt") == os.readlink("/proc/self/ns/mnt")
        assert os.readlink(proc / "ns/user") == os.readlink("/proc/self/ns/user")


def test_the_command_has_no_descriptor_of_the_mount(launcher, file, place):
    out = launcher.said(*plan(file, place), command=["sh", "-c", "ls -l /proc/self/fd"], stdin=subprocess.DEVNULL)
    assert "fuse" not in out
    assert "socket" not in out
    assert str(file) not in out


def test_signals_for_the_command_do_not_reach_the_server(launcher, file, place, mark):
    text = f"trap '' HUP INT QUIT TERM; {READY}; cat {place}/opt/own"
    with started(launcher, *plan(file, place), command=["sh", "-c", text]) as command:
        (server,) = servers(mark)
        status = dict(line.split(":\t") for line in Path(f"/proc/{server}/status").read_text().splitlines())
        assert int(status["SigBlk"], 16) == 0
        # What squashfuse does by itself: it ignores SIGPIPE and catches what should end it.
        assert int(status["SigIgn"], 16) in (0, 1 << (signal.SIGPIPE - 1))
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.kill(command.pid, number)
        out, _ = command.communicate("go\n", timeout=PATIENCE)
    assert out == "the image's\n"


def test_ignored_signals_and_descriptors_of_the_caller_are_not_the_servers(launcher, file, place, mark):
    read, write = os.pipe()
    text = "trap '' TERM USR1; exec \"$@\""
    argv = [
        "sh",
        "-c",
        text,
        "sh",
        *launcher.argv(*plan(file, place), command=["sh", "-c", "echo ready >&2; exec sleep 600"]),
    ]
    env = {**os.environ, **QUIET_SANITIZERS, **launcher.env}
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, pass_fds=[write], text=True) as command:
        os.close(write)
        assert command.stderr
        assert command.stderr.readline() == "ready\n"
        (server,) = servers(mark)
        assert not any("pipe" in os.readlink(path) for path in Path(f"/proc/{server}/fd").iterdir())
        command.kill()
    os.close(read)


def test_many_launches_of_one_file_do_not_get_into_each_others_way(launcher, file, place, mark):
    argv = launcher.argv(*plan(file, place), command=["cat", f"{place}/opt/own"])
    env = {**os.environ, **QUIET_SANITIZERS, **launcher.env}
    running = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(16)]
    assert [process.communicate(timeout=PATIENCE)[0] for process in running] == ["the image's\n"] * 16
    wait_until_gone(mark)


# What can be missing or wrong -------------------------------------------------------------------------------------


def test_without_squashfuse_nothing_is_begun(launcher, file, place):
    done = launcher.run(*plan(file, place), env={"PATH": f"relative::{place}"})
    assert (done.returncode, done.stderr) == (124, "serve: squashfuse: not on the PATH (install it)\n")


def test_the_slower_squashfuse_does_as_well(launcher, file, place, tmp_path):
    (tmp_path / "squashfuse").symlink_to("/usr/bin/squashfuse")
    (tmp_path / "cat").symlink_to("/bin/cat")
    out = launcher.said(*plan(file, place), command=["cat", f"{place}/opt/own"], env={"PATH": str(tmp_path)})
    assert out == "the image's\n"


def test_without_dev_fuse_nothing_is_begun(launcher, file, place):
    argv = launcher.argv(*plan(file, place))
    hide = 'mount -t tmpfs none /dev && exec "$@"'
    hidden = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hide, "sh", *argv]
    # In there the stage is another user's, which is not what this is about.
    env = {**os.environ, **QUIET_SANITIZERS, "NOT_FRESH": "1"}
    done = subprocess.run(hidden, env=env, capture_output=True, text=True, check=False)
    complaint = "/dev/fuse: squashfuse needs it: No such file or directory (ask for chmod 666 /dev/fuse)"
    assert (done.returncode, done.stderr) == (124, f"serve: {complaint}\n")


def mount_points(text: str) -> list[str]:
    return [line.split()[4] for line in text.splitlines()]


@pytest.mark.parametrize("content", [b"", b"no image\n" * 9999], ids=["empty", "text"])
def test_a_file_that_is_no_image_is_refused_in_squashfuses_words(content, launcher, place, tmp_path, mark):
    file = tmp_path / "broken.sqfs"
    file.write_bytes(content)
    done = launcher.run(*plan(file, place), command=["cat", "/proc/self/mountinfo"])
    assert done.stderr.startswith(f"image refused: {file}: can't mount it at {place} with squashfuse: ")
    assert "squashfs image" in done.stderr
    assert mount_points(done.stdout) == mount_points(Path("/proc/self/mountinfo").read_text())
    wait_until_gone(mark)


def test_a_server_that_ends_at_once_is_told_of(launcher, file, place, tmp_path, mark):
    program = tmp_path / "squashfuse_ll"
    program.write_text("#!/bin/sh\necho first >&2; echo 'squashfuse: out of sorts' >&2; exit 3\n")
    program.chmod(0o755)
    done = launcher.run(*plan(file, place), env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    complaint = f"{file}: can't mount it at {place} with squashfuse: squashfuse: out of sorts"
    assert (done.returncode, done.stderr) == (124, f"image refused: {complaint}\n")


def test_a_server_that_can_not_be_executed_is_told_of(launcher, file, place, tmp_path):
    program = tmp_path / "squashfuse_ll"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    done = launcher.run(*plan(file, place), env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode == 124
    assert done.stderr.endswith(f"with squashfuse: {program}: can't be executed: No such file or directory\n")


def test_a_talkative_server_is_no_trouble(launcher, file, place, tmp_path):
    program = tmp_path / "squashfuse_ll"
    program.write_text('#!/bin/sh\nseq 9999 >&2 2>/dev/null\nseq 9999 >&2\nexec /usr/bin/squashfuse_ll "$@"\n')
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert launcher.said(*plan(file, place), command=["cat", f"{place}/opt/own"], env=env) == "the image's\n"


def test_a_file_that_was_exchanged_a_moment_ago_is_not_served(launcher, file, place, tmp_path, mark):
    """After the plan was found fresh, that is."""
    mine = tmp_path / "mine.sqfs"
    mine.write_bytes(file.read_bytes())
    records = plan(mine, place)
    mine.with_suffix(".new").write_bytes(file.read_bytes())
    mine.with_suffix(".new").rename(mine)
    done = launcher.run(*records, command=["true"])
    assert (done.returncode, done.stderr) == (125, f"plan: {mine}: it has changed since the plan was made\n")
    done = launcher.run(*records, env={"NOT_FRESH": "1"})
    assert (done.returncode, done.stderr) == (124, f"serve: {mine}: it has changed since the plan was made\n")
    assert servers(mark) == []


def test_a_refused_overlay_ends_the_server_too(launcher, file, place, mark):
    (launcher.stage / "1").mkdir()
    steps = plan(file, place, wire.Bind("/", "/"), wire.Overlay("/mnt", "1", "/dev"))
    done = launcher.run(*steps, command=["cat", "/proc/self/mountinfo"])
    assert done.stderr.startswith("overlay refused: ")
    assert mount_points(done.stdout) == mount_points(Path("/proc/self/mountinfo").read_text())
    wait_until_gone(mark)


def test_a_step_that_fails_ends_the_server_too(launcher, file, place, mark):
    done = launcher.run(*plan(file, place, wire.Bind("/", "/"), wire.Bind("/no", "/mnt")), command=["true"])
    assert (done.returncode, done.stderr) == (125, "apply: /mnt: can't bind /no there: No such file or directory\n")
    wait_until_gone(mark)


@pytest.mark.parametrize(
    ("where", "error"), [("link", "Too many levels of symbolic links"), ("missing", "No such file or directory")]
)
def test_the_file_is_mounted_on_no_link(where, error, launcher, file, place, mark):
    (place.parent / "link").symlink_to(place)
    there = place.parent / where
    done = launcher.run(*plan(file, there), command=["true"], env={"PATH": os.environ["PATH"]})
    assert done.stderr == f"image refused: {file}: can't mount it at {there} with squashfuse: {error}\n"
    wait_until_gone(mark)
