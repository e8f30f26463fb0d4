"""The command is what it is without us in all but the request: status, streams, arguments, terminal, folder."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from run.launchers import said, start


def shell(script: str, *arguments: str | bytes) -> list:
    return ["sh", "-c", script, "sh", *arguments]


# Exit status ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 2, 125, 126, 127, 255])
def test_the_exit_status_is_the_command_s(setting, small, status):
    done = start(setting.argv(small, shell(f"echo said; exit {status}")))
    assert (done.returncode, done.stdout) == (status, b"said\n"), done.stderr


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV"])
def test_a_command_that_dies_of_a_signal_looks_as_with_the_bare_launcher(through, small, name):
    command = shell(f"kill -{name} $$")
    status = start(through.argv(small, command)).returncode
    number = getattr(signal, f"SIG{name}").value
    # Charliecloud before 0.39 says 1 for any signal where it has mounted a SquashFS file; we mount it for it.
    assert status in {start(through.bare(command)).returncode, -number, 128 + number}
    assert status not in {0, 1}


@pytest.mark.parametrize("command", [["no-such-program"], ["/no/such/program"], ["/etc"], ["/etc/passwd"]], ids=str)
def test_a_command_that_cannot_be_run_is_reported_by_the_launcher_as_ever(through, small, command):
    ours, bare = start(through.argv(small, command)), start(through.bare(command))
    assert ours.returncode == bare.returncode != 0
    assert harmonised(ours.stderr) == harmonised(bare.stderr)


def harmonised(message: bytes) -> str:
    """Without the numbers of processes, and the notices of a helper that only some ways of mounting start."""
    lines = message.decode().splitlines()
    return "\n".join(line.partition("]: ")[2] or line for line in lines if not line.startswith("INFO:"))


# Streams and arguments --------------------------------------------------------------------------------------------

ARGUMENTS = [
    b" ",
    b"two words",
    b"new\nline",
    b"-n",
    b"--",
    b"--device",
    b"lab.example/thing=one",
    b"--cdi=x",
    b"-b",
    b"$(touch /tmp/executed) `id` $HOME \\ \" '",
    b"*",
    "Grüße \U0001f600".encode(),
    b"\t\r\x1b[31m\x7f",
    b"%s%n",
    b"a=b",
    b"x" * 50_000,
]


def test_arguments_arrive_byte_for_byte(setting, small):
    done = start(setting.argv(small, ["printf", "%s\\0", *ARGUMENTS]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(b"\0") == [*ARGUMENTS, b""]


@pytest.mark.parametrize("argument", [b"", b"\xff\xfe not utf-8"], ids=["empty", "not UTF-8"])
def test_odd_arguments_arrive_as_with_the_bare_launcher(through, small, argument):
    command = ["printf", "%s\\0", b"first", argument, b"last"]
    ours, bare = start(through.argv(small, command)), start(through.bare(command))
    assert (ours.returncode, ours.stdout) == (bare.returncode, bare.stdout)


def test_a_pipe_is_read_to_its_end(setting, small):
    stream = bytes(range(256)) * 8192
    done = start(setting.argv(small, shell("cat; echo said >&2; exit 3")), stdin=stream)
    assert (done.returncode, done.stdout) == (3, stream)
    assert done.stderr.endswith(b"said\n")


def test_nothing_is_said_by_us_where_all_is_well(through, small):
    ours, bare = start(through.argv(small, ["true"])), start(through.bare(["true"]))
    assert harmonised(ours.stderr) == harmonised(bare.stderr)


def test_a_descriptor_that_the_caller_opened_is_there(way, small, tmp_path):
    (tmp_path / "given").write_text("through descriptor 9\n")
    argv = way.argv(small, shell("cat <&9"))
    assert said(start(["bash", "-c", 'exec 9<"$1"; shift; exec "$@"', "bash", tmp_path / "given", *argv])) == (
        "through descriptor 9\n"
    )


# A terminal -------------------------------------------------------------------------------------------------------


class Terminal:
    """A command with a terminal of its own, as a user has at a login."""

    def __init__(self, argv: list) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(argv[0], argv)
        self.seen = b""

    def expect(self, text: bytes, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))
            assert ready, self.seen
            self.seen += os.read(self.fd, 4096)

    def end(self) -> int:
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while os.read(self.fd, 4096):
                pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_a_terminal_is_a_terminal(way, small):
    terminal = Terminal(
        way.argv(small, shell("test -t 0 && test -t 1 && echo ready; read word; echo got:$word; exit 5"))
    )
    terminal.expect(b"ready")
    os.write(terminal.fd, b"typed\n")
    terminal.expect(b"got:typed")
    assert terminal.end() == 5


def test_control_c_reaches_the_command(way, small):
    terminal = Terminal(
        way.argv(small, shell("trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.05; done"))
    )
    terminal.expect(b"ready")
    os.write(terminal.fd, b"\x03")
    terminal.expect(b"caught")
    assert terminal.end() in {6, -signal.SIGINT}


# Nothing stays ----------------------------------------------------------------------------------------------------

#: In the environment of everything that a launch starts.
MARK = "CDI_HPC_CONTRACT_MARK"


def marked(value: str) -> Iterator[str]:
    """Command lines of the processes that were started with the mark."""
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={value}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                yield (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def wait_for_none(value: str, seconds: float = 10) -> list[str]:
    """A process that serves a file system ends when that is gone, a moment after the command."""
    deadline = time.monotonic() + seconds
    while left := list(marked(value)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


def test_no_process_outlives_the_command(setting, small, tmp_path):
    said(start(setting.argv(small, ["true"]), env={MARK: str(tmp_path)}))
    assert wait_for_none(str(tmp_path)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_launch_that_is_killed_leaves_no_process(through, small, tmp_path, number):
    """The signal goes to the process group, as a batch system and a terminal send it."""
    argv = through.argv(small, shell("echo ready; while :; do sleep 0.05; done"))
    started = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, MARK: str(tmp_path)},
        start_new_session=True,
    )
    try:
        assert started.stdout.readline() == b"ready\n"
        os.killpg(started.pid, number)
        assert started.wait(timeout=20) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.stdout.close()
    assert wait_for_none(str(tmp_path)) == []


# Who calls, and from where ----------------------------------------------------------------------------------------


def test_the_folder_of_the_caller_is_treated_as_the_bare_launcher_does(through, small, tmp_path):
    ours, bare = (start(argv, cwd=tmp_path) for argv in (through.argv(small, ["pwd"]), through.bare(["pwd"])))
    assert (ours.returncode, ours.stdout) == (bare.returncode, bare.stdout)


def test_an_image_is_found_by_every_name_that_the_bare_launcher_finds_it_by(through, small):
    """From beside it and from within; Charliecloud takes a name without a slash for one in its storage."""
    beside, name = through.image.parent, through.image.name
    names = [(beside, name), (beside, f"./{name}"), (beside / "musl/usr", f"../../{name}")]
    if through.image.is_dir():
        names += [
            (through.image, "."),
            (through.image, "./"),
            (through.image / "usr", ".."),
            (beside, f"{name}/usr/.."),
        ]
    found = [(cwd, name) for cwd, name in names if not start(through.bare(["true"], image=name), cwd=cwd).returncode]
    assert len(found) >= len(names) - 2
    for cwd, named in found:
        argv = through.argv(small, ["cat", "/opt/lab/file"], image=named)
        assert said(start(argv, cwd=cwd)) == "from the host\n", (cwd, named)


def test_an_image_may_be_named_by_a_link(through, small, tmp_path):
    (tmp_path / "link").symlink_to(through.image)
    (tmp_path / "link-to-link").symlink_to("link")
    argv = through.argv(small, ["cat", "/opt/lab/file"], image="./link-to-link")
    assert said(start(argv, cwd=tmp_path)) == "from the host\n"


def test_a_folder_with_blanks_and_colons_in_its_name_is_none_of_our_business(through, small, tmp_path):
    """What the bare launcher takes, we take."""
    folder = tmp_path / "a folder, with: odd\\names"
    folder.mkdir()
    (folder / "link").symlink_to(through.image)
    if start(through.bare(["true"], image=folder / "link")).returncode == 0:
        assert said(start(through.argv(small, ["cat", "/opt/lab/file"], image=folder / "link"))) == "from the host\n"


ENVIRONMENTS = {
    "no TMPDIR": {"TMPDIR": None},
    "TMPDIR that is not there": {"TMPDIR": "/no/such/directory"},
    "no HOME": {"HOME": None},
    "no runtime directory": {"XDG_RUNTIME_DIR": None},
    "nothing of a login": {"HOME": None, "USER": None, "LOGNAME": None, "XDG_RUNTIME_DIR": None, "LANG": None},
}


@pytest.mark.parametrize("changes", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_many_a_user_s_environment_will_do(way, small, changes):
    env = {**os.environ, **way.needs, **{name: value for name, value in changes.items() if value is not None}}
    for name, value in changes.items():
        if value is None:
            env.pop(name, None)
    argv = way.argv(small, ["cat", "/opt/lab/file"])
    # ch-run wants a USER, and a TMPDIR that is there.
    bare = way.bare(["true"]) if way.is_through else ["true"]
    status = subprocess.run(bare, env=env, capture_output=True, check=False).returncode
    done = subprocess.run(argv, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (status, b"" if status else b"from the host\n"), done.stderr


def test_a_cache_that_cannot_be_written_only_costs_time(way, small, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for _ in range(2):
        argv = way.argv(small, ["cat", "/opt/lab/file"])
        assert said(start(argv, env={"XDG_RUNTIME_DIR": str(closed)})) == "from the host\n"
    assert list(closed.iterdir()) == []
