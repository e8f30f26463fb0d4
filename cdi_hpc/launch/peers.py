"""Launches that share one container: the first makes it, the others are let into it by the launcher itself.

A launcher lets a process into a container only from the user namespace that the container's own comes from (setns(2)
wants a capability there). So only the launch that makes the container may enter namespaces of ours; the others are
executed as they are, and see what the first one sees. Which is the first is known by a file that the launcher makes
when it begins the container, and takes away when all have joined.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Mapping

from cdi_hpc.backend import Peers

#: Seconds between two looks at the file, and how long the launcher has to make it.
_PAUSE = 0.001
PATIENCE = 30.0


def path_of(peers: Peers, environ: Mapping[str, str], parent: int) -> str:
    """The launcher's file.

    Args:
        peers: which launches belong together.
        environ: the launcher's environment.
        parent: process id of the launcher's parent.

    """
    return peers.prefix + (environ.get(peers.variable, str(parent)) if peers.variable else "")


def is_first(path: str, directory: str) -> bool:
    """Whether this launch makes the container. Then others wait until the launcher has made its file.

    Args:
        path: of that file.
        directory: of ours, for a lock.

    Raises:
        OSError: the file system refuses a lock.

    """
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    fd = os.open(f"{directory}/{name}.peers.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while not os.path.lexists(path):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_PAUSE)
        if os.path.lexists(path):
            return False
        _hold_until_made(fd, path)
    finally:
        os.close(fd)
    return True


def _hold_until_made(fd: int, path: str) -> None:
    """Keep the lock in a process that nobody waits for, until the launcher, which we become, made its file or ended."""
    launcher = os.getpid()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            os.dup2(fd, 0)
            os.closerange(1, 1 << 16)  # nobody is to wait for the end of a pipe because of us
            _wait(path, launcher)
    finally:
        os._exit(0)


def _wait(path: str, launcher: int) -> None:
    end = time.monotonic() + PATIENCE
    while not os.path.lexists(path) and time.monotonic() < end:
        os.kill(launcher, 0)
        time.sleep(_PAUSE)
