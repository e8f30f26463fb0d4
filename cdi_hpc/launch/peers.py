"""Launches that share one container: the first makes it, the others are let into it by the launcher itself.

A launcher lets a process into a container only from the user namespace that the container's own comes from (setns(2)
wants a capability there). So only the launch that makes the container may enter namespaces of ours; the others are
executed as they are, and see what the first one sees. Which is the first is known by a file that the launcher makes
when it begins the container, and takes away when all have joined.

The lock, too, has to be one file for all of them, whatever is in the environment of each and wherever its plans are: an
ssh login has another ``XDG_RUNTIME_DIR`` than a step. So it lies beside the launcher's file, which all of them see or
else share nothing, in a directory ``cdi-hpc-UID`` that is the user's alone.

What the first one sees is noted in the lock's file, with the launcher's file's device and inode: whoever wants anything
else is refused, and so is whoever finds a container that was begun without us.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cdi_hpc.backend import Peers
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.launch import kernel
from cdi_hpc.plan import Action, Note, SetEnv, Unsupported
from cdi_hpc.spec.model import Origin

#: Seconds between two looks at the file, and how long the launcher has to make it.
_PAUSE = 0.001
PATIENCE = 30.0

_NOWHERE = Origin("", "", "")
_FIX = "ask for the same devices, or begin another container"

#: Seconds after which nobody looks for a note any more.
_DONE = 3600.0

_SUFFIX = ".peers.lock"

#: Bytes of a note that are read: more devices are not named.
_NOTE_LIMIT = 4096


def path_of(peers: Peers, environ: Mapping[str, str], parent: int) -> str:
    """The launcher's file.

    Args:
        peers: which launches belong together.
        environ: the launcher's environment.
        parent: process id of the launcher's parent.

    """
    return peers.prefix + (environ.get(peers.variable, str(parent)) if peers.variable else "")


def fingerprint(actions: Iterable[Action]) -> str:
    """Stands for what a container gets by a plan, 64 hexadecimal digits; variables are each process's own."""
    shared = (action for action in actions if not isinstance(action, (SetEnv, Note, Unsupported)))
    lines = sorted(repr(replace(action, origin=_NOWHERE)) for action in shared)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def is_first(peers: Peers, path: str) -> bool:
    """Whether this launch makes the container. Then others wait until the launcher has made its file.

    Args:
        peers: what this launch asks for.
        path: of that file.

    Raises:
        CdiError: the container is there, and has other devices; or there can be no lock.

    """
    try:
        fd, identity = _lock_container(path)
    except OSError as error:
        raise CdiError(_cant_wait(path, f"{error.strerror}")) from None
    try:
        if identity:
            _refuse_others(peers, path, identity, os.pread(fd, _NOTE_LIMIT, 0))
        else:
            _hold_until_made(fd, peers, path)
    finally:
        os.close(fd)
    return not identity


def _cant_wait(path: str, reason: str, fix: str = "") -> Problem:
    return Problem(path, f"launches that share a container can't wait for each other there: {reason}", fix)


def _directory_beside(path: str) -> str:
    return f"{os.path.dirname(path)}/cdi-hpc-{os.geteuid()}"


def _lock_container(path: str) -> tuple[int, str]:
    """The lock of the container with this file, and which file that is."""
    directory = _open_directory(_directory_beside(path))
    try:
        while True:
            fd = _open_lock(directory, path)
            try:
                identity = _locked(fd, path)
                if os.fstat(fd).st_nlink:  # else it was taken for an old one this moment
                    return os.dup(fd), identity
            finally:
                os.close(fd)
    finally:
        os.close(directory)


def _open_directory(path: str) -> int:
    """The directory of locks, made if it is not there. Anybody could have made it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)  # whatever the umask
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise CdiError(_cant_wait(path, "it is a link, or no directory")) from None
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        os.close(fd)
        fix = "ask him or the administrator to remove it"
        raise CdiError(_cant_wait(path, f"it belongs to user {found.st_uid}", fix))
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        os.close(fd)
        raise CdiError(_cant_wait(path, "others have access to it", "chmod 700 it"))
    return fd


def _open_lock(directory: int, path: str) -> int:
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32] + _SUFFIX
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    os.fchmod(fd, 0o600)  # whatever the umask
    return fd


def _remove_done(directory: str) -> None:
    """Take away locks of containers that are long there: their files may lie in memory."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(_SUFFIX) and time.time() - entry.stat(follow_symlinks=False).st_mtime > _DONE:
                _remove_idle(entry.path)


def _remove_idle(path: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(fd)


def _locked(fd: int, path: str) -> str:
    """Lock, together with others if the launcher's file is there and alone if not; returns which file it is, or ""."""
    while True:
        identity = _identity(path)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, (fcntl.LOCK_SH if identity else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _identity(path) == identity:
                return identity
            fcntl.flock(fd, fcntl.LOCK_UN)  # it came or went this moment
        time.sleep(_PAUSE)


def _identity(path: str) -> str:
    try:
        status = os.lstat(path)
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}"


def _refuse_others(peers: Peers, path: str, identity: str, note: bytes) -> None:
    whose, _, rest = note.decode("utf-8", "surrogateescape").partition(" ")
    edits, _, devices = rest.partition(" ")
    if whose != identity:
        what = f"was begun without devices, or has ended, and {peers.devices} was asked for"
    elif edits == peers.edits:
        return
    elif devices == peers.devices:
        what = f"has another {devices} than was asked for"
    else:
        what = f"has {devices}, and {peers.devices} was asked for"
    raise CdiError(Problem(path, f"the container that is shared {what}", _FIX))


def _hold_until_made(fd: int, peers: Peers, path: str) -> None:
    """Keep the lock in a process that nobody waits for, until the launcher, which we become, made its file or ended."""
    launcher = os.getpid()
    watch = _watch(os.path.dirname(path))
    child = os.fork()
    if child:
        os.close(watch)
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            lock, watch = _moved_to_front(fd, watch)
            _note(lock, peers, _made(path, launcher, watch))
            os.close(lock)
            _remove_done(_directory_beside(path))
    finally:
        os._exit(0)


def _watch(directory: str) -> int:
    """What tells of new files: looking now and then would miss one that is taken away again at once.

    That of a container for a single process is.
    """
    try:
        return kernel.watch_new_names(directory)
    except OSError:  # the user has too many of them (inotify(7))
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _moved_to_front(*descriptors: int) -> range:
    """Descriptors as the first ones, and no others: nobody is to wait for the end of a pipe because of us."""
    front = range(len(descriptors))
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, front.stop) for fd in descriptors]
    for number, fd in zip(front, moved):
        os.dup2(fd, number)
    os.closerange(front.stop, 1 << 16)
    return front


def _made(path: str, launcher: int, watch: int) -> str:
    """Which file the launcher made, "" for none: what is there once it has ended may be the next one's."""
    end = time.monotonic() + PATIENCE
    name = os.path.basename(path)
    while time.monotonic() < end:
        made = name in kernel.new_names(watch)
        identity = _identity(path)
        os.kill(launcher, 0)
        if made or identity:
            return identity
        time.sleep(_PAUSE)
    return ""


def _note(fd: int, peers: Peers, identity: str) -> None:
    """What who comes later has to ask for."""
    if identity:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{identity} {peers.edits} {peers.devices}".encode("utf-8", "surrogateescape"), 0)
