"""A SquashFS file as a directory: mounted by squashfuse in our own namespaces, or unpacked."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import BinaryIO

from cdi_hpc.errors import CdiError, Problem, printable
from cdi_hpc.launch import kernel, process, runner

#: FUSE servers, the faster one first.
_SERVERS = ("squashfuse_ll", "squashfuse")
_UNPACKER = "unsquashfs"

#: Its exit status when something could not be made (unsquashfs(1)). A user can't make device nodes, and the container
#: gets the machine's /dev anyway; anything else is told.
_UNPACKED_MOSTLY = 2
_IS_DEVICE = re.compile("could not create (character|block) device")

#: Seconds that a server has to mount: it reads a superblock and some tables, perhaps over a slow network.
_PATIENCE = 60.0


def server() -> str | None:
    """Path of the program that serves a SquashFS; the faster one first, as launchers and the native runner have it."""
    return next((found for found in map(shutil.which, _SERVERS) if found), None)


def places_of_server() -> Iterator[str]:
    """Where a server is looked for on the PATH, up to the one that is found: what :func:`server` depends on."""
    directories = [each for each in os.environ.get("PATH", os.defpath).split(":") if each.startswith("/")]
    for name in _SERVERS:
        for directory in directories:
            path = f"{directory}/{name}"
            yield path
            if os.access(path, os.X_OK):
                return


def shows_owner(program: str) -> bool:
    """Whether it can show files as the caller's, whatever the image says; launchers ask it in the same way."""
    if os.path.basename(program) != _SERVERS[0]:
        return True
    done = subprocess.run(
        [program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return b"-o uid=" in done.stdout


def server_for_owner() -> str | None:
    """The first server that can show files as the caller's."""
    return next((found for found in map(shutil.which, _SERVERS) if found and shows_owner(found)), None)


@contextlib.contextmanager
def mounted(path: str, offset: int = 0, *, owned: bool = False, program: str | None = None) -> Iterator[str]:
    """The root directory of a SquashFS, which begins at an offset in a file; enters a user and mount namespace.

    Args:
        path: of the file.
        offset: where in it.
        owned: files are shown as the caller's (:func:`shows_owner`).
        program: the server; default: :func:`server`.

    Raises:
        CdiError: neither program is there, or both failed.

    """
    found = program or server()
    unpacker = shutil.which(_UNPACKER)
    usable = found if os.access("/dev/fuse", os.R_OK | os.W_OK) else None
    if usable is None and unpacker is None:
        raise CdiError(_nothing_usable(path, found))
    runner.enter_namespaces()
    place = os.path.realpath(tempfile.mkdtemp(prefix="cdi-hpc-"))
    try:
        if usable is not None:
            with _served([usable, "-f", "-o", _options(offset, owned=owned)], path, place):
                yield place
        else:
            _unpack(unpacker or "", path, offset, place)
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=usable is None)


def _nothing_usable(path: str, server: str | None) -> Problem:
    if server is not None:
        return Problem(
            f"image {path}",
            "squashfuse needs /dev/fuse, which you can't open",
            "ask for chmod 666 /dev/fuse, or install squashfs-tools",
        )
    return Problem(f"image {path}", "neither squashfuse nor unsquashfs is on the PATH", "install one of them")


def _options(offset: int, *, owned: bool) -> str:
    return f"offset={offset}" + (f",uid={os.geteuid()},gid={os.getegid()}" if owned else "")


@contextlib.contextmanager
def _served(server: list[str], path: str, place: str) -> Iterator[None]:
    # A session of its own: the terminal's ^C is for the command, not for what its files come from.
    # In the foreground, so that it is ours to end, and with the capability to mount kept across exec.
    # What it says goes to a file: nobody reads a pipe once it has mounted.
    with tempfile.TemporaryFile() as said:
        process_ = subprocess.Popen(
            [*server, path, place],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            preexec_fn=_keep_mount_capability,  # noqa: PLW1509 - no threads here
        )
        with _ended(process_, place):
            _wait_until_mounted(process_, server[0], path, place, said)
            yield


@contextlib.contextmanager
def _ended(process_: subprocess.Popen[bytes], place: str) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            kernel.umount(place, kernel.MNT_DETACH)
        process_.terminate()
        process_.wait()


def _keep_mount_capability() -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    kernel.raise_ambient(kernel.CAP_SYS_ADMIN)


def _wait_until_mounted(server: subprocess.Popen[bytes], name: str, path: str, place: str, said_in: BinaryIO) -> None:
    before = os.stat(os.path.dirname(place)).st_dev
    deadline = time.monotonic() + _PATIENCE
    pause = 0.0005
    while time.monotonic() < deadline:
        try:
            if os.stat(place).st_dev != before:
                return
        except OSError as error:  # it is mounted, and has no root directory
            raise CdiError(Problem(f"image {path}", f"is damaged: {error.strerror}", "make or copy it again")) from None
        if server.poll() is not None:
            said_in.seek(0)
            said = said_in.read().decode("utf-8", "replace").strip()
            what = f"{name} failed: {said.splitlines()[-1] if said else f'exit status {server.returncode}'}"
            raise CdiError(Problem(f"image {path}", what, "check the file with unsquashfs -s"))
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    raise CdiError(Problem(f"image {path}", f"{name} has not mounted it in {_PATIENCE:.0f} s"))


def _unpack(unpacker: str, path: str, offset: int, place: str) -> None:
    sys.stderr.write(f"cdi-hpc: unpacking {path}: squashfuse or /dev/fuse is missing\n")
    quiet = [] if sys.stderr.isatty() else ["-no-progress"]
    command = [
        unpacker,
        *quiet,
        "-no-xattrs",
        "-force",
        *([] if not offset else ["-offset", str(offset)]),
        "-dest",
        place,
        path,
    ]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        stderr=subprocess.PIPE,
        errors="replace",
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if not _IS_DEVICE.search(line)]
    if done.returncode not in (0, _UNPACKED_MOSTLY):
        what = f"unsquashfs failed: {said[-1] if said else f'exit status {done.returncode}'}"
        raise CdiError(Problem(f"image {path}", what))
    sys.stderr.writelines(f"cdi-hpc: {printable(line)}\n" for line in said)


#: Signals that a batch system or a shell sends to the process it started, which is us, for the command.
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH)


def supervise(pid: int) -> int:
    """Wait for the command while its image is attended, and stay out of its way.

    Returns:
        Its exit status, or the negative number of the signal that ended it.

    """
    for number in (signal.SIGINT, signal.SIGQUIT):  # the terminal sends these to the command as well
        signal.signal(number, signal.SIG_IGN)
    for number in _FORWARDED:
        signal.signal(number, lambda received, _: _send(pid, received))
    # What stops the command (^Z, a batch system) goes to our process group and stops us as well. To stop ourselves when
    # we hear of it was tried: if both have been continued by then, nobody continues us again.
    _, status = os.waitpid(pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def leave_as(status: int) -> int:
    """An exit status to exit with; for a negative one, this process ends by that signal."""
    if status >= 0:
        return status
    with contextlib.suppress(OSError):  # SIGKILL has no other
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    return process.FAILED  # a signal that does not end a process does not end the command either
