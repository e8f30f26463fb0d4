"""Launches that share one container: the first makes it, the others are let into it by the launcher itself.

A launcher lets a process into a container only from the user namespace that the container's own comes from (setns(2)
wants a capability there). So only the launch that makes the container may enter namespaces of ours; the others are
executed as they are, and see what the first one sees. Which is the first is known by a file that the launcher makes
when it begins the container, and takes away when all have joined.

What the first one sees is noted in the lock's file, with the launcher's file's device and inode: whoever wants anything
else is refused, and so is whoever finds a container that was begun without us.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
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


def is_first(peers: Peers, path: str, directory: str) -> bool:
    """Whether this launch makes the container. Then others wait until the launcher has made its file.

    Args:
        peers: what this launch asks for.
        path: of that file.
        directory: of ours, for a lock.

    Raises:
        OSError: the file system refuses a lock.
        CdiError: the container is there, and has other devices.

    """
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    fd = os.open(f"{directory}/{name}.peers.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        identity = _locked(fd, path)
        if identity:
            _refuse_others(peers, path, identity, os.pread(fd, _NOTE_LIMIT, 0))
        else:
            _hold_until_made(fd, peers, path)
    finally:
        os.close(fd)
    return not identity


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
        what = f"was begun without devices, and {peers.devices} was asked for"
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
