"""The command is the caller's own process in all but its file system: however it is launched."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from launchers import IMAGES, place_of, said, start

STAGES = ("overlay", "underlay")


@pytest.fixture(params=["debian-root", "/"])
def image(request, lab) -> str:
    return place_of(lab, request.param)


def shell(script: str, *arguments: str | bytes) -> list:
    return ["sh", "-c", script, "sh", *arguments]


# Exit status ------------------------------------------------------------------------------------------------------

STATUSES = [
    (shell("exit 0"), 0),
    (shell("exit 1"), 1),
    (shell("exit 125"), 125),
    (shell("exit 255"), 255),
    (shell("kill -TERM $$"), -signal.SIGTERM),
    (shell("kill -INT $$"), -signal.SIGINT),
    (shell("kill -KILL $$"), -signal.SIGKILL),
    (shell("kill -SEGV $$"), -signal.SIGSEGV),
    (["/etc/passwd"], 126),
    (["/etc"], 126),
    (["no-such-program"], 127),
    (["/no/such/program"], 127),
    (["/etc/passwd/program"], (126, 127)),  # bash says 126
    ([""], 127),
]


@pytest.mark.parametrize("command, status", STATUSES, ids=lambda value: repr(value)[-24:])
def test_the_exit_status_is_the_commands_or_says_why_it_did_not_run(launcher, small, image, command, status):
    done = start(launcher.argv(small, image, command))
    allowed = status if isinstance(status, tuple) else (status,)
    assert done.returncode in allowed, done.stderr
    # Our own statuses come with a line that says why (bash says some things twice), the command's with none.
    lines = done.stderr.decode().splitlines()
    assert len(lines) in ((1, 2) if {126, 127} & set(allowed) else (0,)), lines
    assert all(line.startswith("cdi-hpc: ") for line in lines), lines


def test_a_script_without_an_interpreter_line_is_run_by_the_shell(launcher, small, image, tmp_path):
    script = tmp_path / "script"
    script.write_text('echo "$0 has $#: $1"\n')
    script.chmod(0o755)
    assert said(start(launcher.argv(small, image, [script, "an argument"]))) == f"{script} has 1: an argument\n"


def test_a_script_whose_interpreter_is_not_in_the_image_says_so(launcher, small, image, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = start(launcher.argv(small, image, [script]))
    assert done.returncode in (126, 127)
    assert b"interpreter" in done.stderr or b"required file" in done.stderr


def test_the_path_of_the_container_decides_what_runs(launcher, small, lab, tmp_path):
    """A program that only the host has is not found; one that comes later on PATH is."""
    image = place_of(lab, "debian-root")
    for directory, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / directory).mkdir()
        program = tmp_path / directory / "lab-program"
        program.write_text(f"#!/bin/sh\necho {directory}\n")
        program.chmod(mode)
    path = f"{tmp_path}/first:{tmp_path}/second:{os.environ['PATH']}"
    assert said(start(launcher.argv(small, image, ["lab-program"]), env={"PATH": path})) == "second\n"
    assert start(launcher.argv(small, image, ["mksquashfs"])).returncode == 127


# Arguments, environment, streams ----------------------------------------------------------------------------------

ARGUMENTS = [
    b"",
    b" ",
    b"two words",
    b"new\nline",
    b"-n",
    b"--",
    b"--stage=underlay",
    b"$(touch /tmp/executed) `id` $HOME \\ \" '",
    b"*",
    b"\xff\xfe not utf-8",
    "Grüße \U0001f600".encode(),
    b"\t\r\x1b[31m\x7f",
    b"%s%n",
    b"a=b",
    b"x" * 100_000,
]


@pytest.mark.parametrize("name", IMAGES)
def test_arguments_arrive_byte_for_byte(lab, launcher, small, name):
    argv = launcher.argv(small, place_of(lab, name), ["printf", "%s\\0", *ARGUMENTS])
    done = start(argv)
    assert done.returncode == 0
    assert done.stdout.split(b"\0") == [*ARGUMENTS, b""]


def environment_of(argv: list, **options) -> dict[bytes, bytes]:
    """What the command was given: the block that the kernel keeps of the cat that prints it."""
    done = start(argv, **options)
    assert done.returncode == 0, done.stderr
    pairs = (entry.partition(b"=") for entry in done.stdout.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


#: Names that a shell or an interpreter on the way might set, take away or stumble over.
AWKWARD = {
    "EMPTY": "",
    "LINES_OF": "one\ntwo\n",
    "BYTES": "\udcff\udcfe",
    "QUOTED": "a 'b' \"c\" $(id) \\",
    "with-dash": "not a shell's name",
    "with space": "neither",
    "OLDPWD": "/nowhere",
    "PWD": "/not/where/we/are",
    "SHLVL": "7",
    "IFS": "x",
    "CDPATH": "/usr",
    "POSIXLY_CORRECT": "",
    "BASH_ENV": "/no/such/file",
    "ENV": "/no/such/file",
    "LD_PRELOAD": "",
    "LD_LIBRARY_PATH": "/opt/some/where",
    "TMPDIR": "/no/such/directory",
    "HOME": "/no/such/home",
    "stage": "overlay",
    "image": "x",
    "root": "/x",
    "environment": "x",
    "PYTHONHASHSEED": "7",
    "LAB_VARIABLE": "from the caller",
}


def test_the_environment_is_the_callers_with_the_plans_over_it(launcher, small, image):
    given = {**os.environ, **AWKWARD}
    found = environment_of(launcher.argv(small, image, ["cat", "/proc/self/environ"]), env=AWKWARD)
    wanted = {os.fsencode(name): os.fsencode(value) for name, value in given.items()}
    wanted[b"LAB_VARIABLE"] = b"from the spec"
    if launcher.name == "script":
        # bash takes no variable whose name is not one of a shell, and sets these itself.
        for name in (b"with-dash", b"with space", b"_", b"SHLVL", b"PWD", b"OLDPWD", b"IFS"):
            wanted.pop(name, None)
            found.pop(name, None)
    assert found == wanted


def test_an_empty_environment_gets_a_path_and_the_plans_variables_and_nothing_else(launcher, small, image):
    argv = launcher.argv(small, image, ["cat", "/proc/self/environ"])
    done = subprocess.run(argv, env=launcher.needs, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    names = {entry.partition(b"=")[0] for entry in done.stdout.split(b"\0") if entry}
    extra = {b"PWD", b"SHLVL", b"_", b"OLDPWD"} if launcher.name == "script" else set()
    assert names - extra == {b"PATH", b"LAB_VARIABLE"}


@pytest.mark.parametrize("name", IMAGES)
def test_standard_input_and_output_are_the_callers(lab, launcher, small, name):
    stream = bytes(range(256)) * 4096
    done = start(launcher.argv(small, place_of(lab, name), shell("cat; echo said >&2; exit 3")), stdin=stream)
    assert (done.returncode, done.stdout, done.stderr) == (3, stream, b"said\n")


def test_streams_that_are_closed_do_not_become_files_of_ours(launcher, small, image):
    command = shell("for n in 0 2; do readlink /proc/$$/fd/$n || echo closed; done")
    closing = ["bash", "-c", 'exec 0<&- 2>&-; exec "$@"', "bash"]
    done = subprocess.run([*closing, *launcher.argv(small, image, command)], stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0
    # Python and bash may put /dev/null there, which is as good.
    assert set(done.stdout.decode().split()) <= {"closed", "/dev/null"}
    assert len(done.stdout.decode().split()) == 2


# What the kernel says of the process ------------------------------------------------------------------------------

#: Prints what the kernel knows of the process, one "NAME VALUE" a line. Runs in any shell.
PORTRAIT = """
echo cwd "$(readlink /proc/$$/cwd)"
echo umask "$(umask)"
echo pid $$
for fd in /proc/$$/fd/*; do target=$(readlink "$fd") && echo "fd${fd##*/} $target"; done
echo ns-user "$(readlink /proc/$$/ns/user)"
echo ns-mnt "$(readlink /proc/$$/ns/mnt)"
echo ns-pid "$(readlink /proc/$$/ns/pid)"
echo ns-net "$(readlink /proc/$$/ns/net)"
echo uid_map "$(tr -s ' ' ' ' </proc/$$/uid_map)"
echo nice "$(cut -d' ' -f19 /proc/$$/stat)"
echo nofile "$(ulimit -n)"
"""


def portrait(wrap, **options) -> dict[str, str]:
    """What PORTRAIT says, and /proc/self/status of a program that nothing has touched: a shell blocks signals."""
    lines = said(start(wrap(shell(PORTRAIT)), **options)).splitlines()
    status = said(start(wrap(["cat", "/proc/self/status"]), **options)).replace(":\t", " ").splitlines()
    return dict(line.split(" ", 1) if " " in line else (line, "") for line in [*lines, *status])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["debian-root", "musl", "/"])
def test_the_process_is_the_callers_without_any_privilege(lab, launcher, small, tmp_path, name, stage):
    def prepare() -> None:
        os.umask(0o037)
        os.nice(3)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does

    reading, writing = os.pipe()
    options = {"pass_fds": (writing,), "preexec_fn": prepare, "cwd": tmp_path}
    bare = portrait(lambda command: command, **options)
    found = portrait(lambda command: launcher.argv(small, place_of(lab, name), command, stage=stage), **options)
    os.close(reading)
    os.close(writing)

    # Kept: who we are, what we may use, what we ignore, where we are.
    kept = ["Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "umask", "nice", "nofile", "cwd", "ns-net", "ns-pid"]
    assert {name: found[name] for name in kept} == {name: bare[name] for name in kept}
    fds = {name for name in bare if name.startswith("fd")}
    assert {name for name in found if name.startswith("fd")} == fds
    assert f"fd{writing}" in fds

    # Gone: every capability, now and later.
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[capabilities], 16) == 0, capabilities
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == bare["Seccomp"]
    assert found["ns-user"] != bare["ns-user"]
    assert found["ns-mnt"] != bare["ns-mnt"]
    # mount(8) wants to be user 0, so a script has a namespace between ours and the command's, in which he is that.
    outside = 0 if launcher.name == "script" else os.getuid()
    assert found["uid_map"].split() == [str(os.getuid()), str(outside), "1"]


def test_the_command_is_the_process_that_was_started(launcher, small, image):
    """Not a child of it: a batch system's signals, limits and accounting reach it as they are."""
    started = subprocess.Popen(launcher.argv(small, image, shell("echo $$")), stdout=subprocess.PIPE)
    out, _ = started.communicate(timeout=60)
    assert int(out) == started.pid


def test_no_process_of_ours_stays_beside_the_command(launcher, small, image):
    out = said(start(launcher.argv(small, image, shell("cat /proc/$$/task/$$/children; echo"))))
    assert len(out.split()) == 1, "the cat is the only child"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE])
def test_a_signal_that_the_command_would_die_of_has_its_default(launcher, small, image, number):
    done = start(launcher.argv(small, image, shell(f"kill -{number.value} $$; echo survived")))
    assert (done.returncode, done.stdout) == (-number, b"")


def test_a_writer_whose_reader_is_gone_dies_quietly(launcher, small, image):
    argv = launcher.argv(small, image, ["yes"])
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -1; exit ${PIPESTATUS[0]}', "bash", *argv], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGPIPE, b"y\n", b"")


# Job control ------------------------------------------------------------------------------------------------------

#: Waits for signals. Not a shell: one that is stopped between fork and exec of a command stays so.
WAITING = [
    "perl",
    "-e",
    """$| = 1; $SIG{INT} = sub { print "interrupted\\n"; exit 7 }; $SIG{CONT} = sub { print "again\\n" };
    print "ready\\n"; sleep 1 while 1""",
]


def test_a_process_group_is_stopped_continued_and_interrupted(launcher, small, image):
    argv = launcher.argv(small, image, WAITING)
    started = subprocess.Popen(argv, stdout=subprocess.PIPE, preexec_fn=os.setpgrp)  # noqa: PLW1509 - no threads
    with ended(started):
        assert started.stdout.readline() == b"ready\n"
        os.killpg(started.pid, signal.SIGTSTP)
        _, status = os.waitpid(started.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert os.WSTOPSIG(status) == signal.SIGTSTP
        os.killpg(started.pid, signal.SIGCONT)
        _, status = os.waitpid(started.pid, os.WCONTINUED)
        assert os.WIFCONTINUED(status)
        assert started.stdout.readline() == b"again\n"
        os.killpg(started.pid, signal.SIGINT)
        assert started.stdout.read() == b"interrupted\n"
        assert started.wait(timeout=20) == 7


@contextlib.contextmanager
def ended(started: subprocess.Popen):
    """Whatever a test does, its process does not stay."""
    try:
        yield
    finally:
        if started.poll() is None:
            os.kill(started.pid, signal.SIGKILL)
            started.wait()
        if started.stdout:
            started.stdout.close()


class Terminal:
    """A command with a terminal of its own, as a user has at a login."""

    def __init__(self, argv: list) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(argv[0], argv)
        self.seen = b""

    def wait_for(self, text: bytes, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while text not in self.seen:
            readable, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert readable, f"no {text!r} in {self.seen!r}"
            self.seen += self.read()

    def read(self) -> bytes:
        try:
            return os.read(self.fd, 65536)
        except OSError:  # EIO: everybody has closed the other side
            return b""

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def status(self, seconds: float = 30) -> int:
        """Exit status, as subprocess has it; a command that does not end is killed."""
        end = time.monotonic() + seconds
        while select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
            piece = self.read()
            if not piece:
                break
            self.seen += piece
        else:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        _, status = os.waitpid(self.pid, 0)
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


@pytest.mark.parametrize("name", IMAGES)
def test_the_command_has_the_callers_terminal(lab, launcher, small, name):
    script = """
    test -t 0 && test -t 1 && test -t 2 && echo three
    tty
    echo straight to the terminal >/dev/tty
    read -r line && echo "read: $line"
    """
    terminal = Terminal(launcher.argv(small, place_of(lab, name), shell(script)))
    terminal.wait_for(b"straight to the terminal")
    terminal.type(b"typed\n")
    assert terminal.status() == 0, terminal.seen
    assert b"three" in terminal.seen
    assert b"/dev/pts/" in terminal.seen
    assert b"read: typed" in terminal.seen


def test_control_c_reaches_the_command(launcher, small, image):
    terminal = Terminal(launcher.argv(small, image, WAITING))
    terminal.wait_for(b"ready")
    terminal.type(b"\x03")
    assert terminal.status() == 7
    assert b"interrupted" in terminal.seen


def test_an_interactive_shell_inside_has_job_control(launcher, small, image, tmp_path):
    job = tmp_path / "job"
    job.write_text(shlex.join(["exec", *WAITING]))
    terminal = Terminal(launcher.argv(small, image, ["env", "HISTFILE=/dev/null", "bash", "--norc", "-i"]))
    terminal.type(f"sh {job}\n".encode())
    terminal.wait_for(b"ready")
    terminal.type(b"\x1a")
    terminal.wait_for(b"Stopped")
    terminal.type(b"fg\n")
    terminal.wait_for(b"again")
    terminal.type(b"\x03")
    terminal.wait_for(b"interrupted")
    terminal.type(b"exit 5\n")
    assert terminal.status() == 5, terminal.seen
    assert b"no job control" not in terminal.seen


# Directory --------------------------------------------------------------------------------------------------------


def test_the_working_directory_is_kept_where_the_image_has_it_else_it_is_the_root(lab, launcher, small, tmp_path):
    image = place_of(lab, "debian-root")
    for directory, wanted in ((tmp_path, tmp_path), ("/usr/share", "/usr/share"), ("/opt/venv", "/"), ("/", "/")):
        argv = launcher.argv(small, image, ["readlink", "/proc/self/cwd"])
        assert said(start(argv, cwd=directory)) == f"{wanted}\n", directory


def test_a_working_directory_that_was_removed_does_not_stop_a_launch(launcher, small, image, tmp_path):
    argv = launcher.argv(small, image, ["readlink", "/proc/self/cwd"])
    script = 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"'
    assert said(start(["bash", "-c", script, tmp_path / "gone", *argv])) == "/\n"


# Nesting ----------------------------------------------------------------------------------------------------------

#: A root user without capabilities, as every command is: the kernel's rule, however he is launched.
ROOT_CAN_NOT_NEST = "user_namespaces(7): to map user 0 of the parent takes CAP_SETFCAP there, since Linux 5.12"


@pytest.mark.parametrize("stage", STAGES)
def test_user_namespaces_can_be_made_inside(launcher, small, image, stage):
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs t /mnt && id -u"]
    done = start(launcher.argv(small, image, command, stage=stage))
    if os.getuid() == 0:
        assert b"uid_map: Operation not permitted" in done.stderr, ROOT_CAN_NOT_NEST
    else:
        assert said(done) == "0\n"


@pytest.mark.parametrize("stage", STAGES)
def test_a_launch_works_inside_a_launch(launcher, run, small, lab, stage):
    """The host, in it the host again, in it an image: what the specs say is there in the innermost."""
    image = place_of(lab, "debian-root")
    innermost = launcher.argv(small, image, ["cat", "/opt/lab/link"], stage=stage)
    middle = launcher.argv(small, "/", innermost, stage=stage)
    done = start(run.argv(small, "/", middle, stage=stage))
    if os.getuid() == 0:
        assert (done.returncode, done.stdout) == (125, b""), ROOT_CAN_NOT_NEST
        assert b"namespace" in done.stderr
    else:
        assert said(done) == "from the host\n"


# Groups: only root can have a group that he gives to a test -----------------------------------------------------


@pytest.mark.root
def test_a_supplementary_group_still_opens_what_it_opens(launcher, small, image, tmp_path, tmp_path_factory):
    user, group = Path(os.environ["CDI_HPC_LAB"], "images", "debian-user").stat().st_uid, 54321
    secret = tmp_path / "secret"
    secret.write_text("for the group\n")
    os.chown(secret, 0, group)
    secret.chmod(0o640)
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={user},{group}", "--"]
    argv = launcher.argv(small, image, ["cat", secret])
    # pytest's directories are its user's alone.
    top = tmp_path_factory.getbasetemp()
    for directory in (top.parent, top, *(path for path in top.rglob("*") if path != secret)):
        if not directory.is_symlink():
            directory.chmod(directory.stat().st_mode | 0o555)
    assert said(start([*become, *argv])) == "for the group\n"
