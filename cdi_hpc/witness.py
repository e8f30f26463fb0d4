"""What a translation looked at, so that its result can be known to be stale without doing it again.

A name that was looked up is covered by its directory: making, removing or replacing an entry changes the directory's
times. So a few directories stand for hundreds of names, absent ones too. Files count where their content was read.
Below /dev, /proc and /sys, whose directories change for reasons of their own, every name stands for itself.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from dataclasses import dataclass
from typing import Literal, Union

from cdi_hpc.errors import CdiError, Problem

#: Directories whose own times say nothing about a name in them.
_RESTLESS = ("/dev", "/proc", "/sys")

#: How long the kernel's clock for file times may stand still, in ns: a second change in this time could go unseen
#: (inode times have the granularity of a timer tick; 100 Hz is the slowest that is configured).
_TICK = 20_000_000


@dataclass(frozen=True)
class FileState:
    """A regular file whose content mattered (stat(2), links followed); times in ns."""

    path: str
    device: int
    inode: int
    size: int
    mtime: int
    ctime: int


@dataclass(frozen=True)
class DirectoryState:
    """A directory whose names mattered."""

    path: str
    device: int
    inode: int
    mtime: int
    ctime: int


@dataclass(frozen=True)
class NodeState:
    """A path whose object mattered, not its content: a device node, a socket, a directory that is bound."""

    path: str
    device: int
    inode: int
    rdev: int
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class AbsentState:
    """Nothing was there."""

    path: str


@dataclass(frozen=True)
class LinkState:
    """A symbolic link whose text mattered."""

    path: str
    text: str


State = Union[FileState, DirectoryState, NodeState, AbsentState, LinkState]
Aspect = Literal["name", "names", "content", "node", "link"]


class Witness:
    """Is told of every look at the host, and forgets it: for a launch that is not kept."""

    def saw(self, path: str, aspect: Aspect) -> None:
        """Call it before looking.

        Args:
            path: absolute path on the host.
            aspect: ``name`` what is at the path, or that nothing is; ``names`` of a directory's entries; ``content``
                of a file; ``node`` the object, links followed; ``link`` a link's text.

        """


class Recorder(Witness):
    """Notes states at the first look; :meth:`states` tells whether they still hold."""

    def __init__(self) -> None:
        """Nothing was looked at yet."""
        self._states: dict[tuple[str, Aspect], State] = {}

    def saw(self, path: str, aspect: Aspect) -> None:
        """See :class:`Witness`."""
        if aspect == "name" and not _is_restless(path):
            path, aspect = posixpath.dirname(path), "names"
        key = (path, aspect)
        if key not in self._states:
            self._states[key] = _state(path, aspect)

    def states(self) -> tuple[State, ...]:
        """Everything that was seen, if all of it still holds and no later change could go unseen.

        Waits for a timer tick where something has changed just now.

        Raises:
            ChangedError: something changed meanwhile.

        """
        newest = max((max(s.mtime, s.ctime) for s in self._states.values() if isinstance(s, _TIMED)), default=0)
        wait = newest + _TICK - time.time_ns()
        if 0 < wait <= _TICK:  # times in the future are somebody's clock, not a race
            time.sleep(wait / 1e9)
        for (path, aspect), state in self._states.items():
            if _state(path, aspect) != state:
                raise ChangedError(Problem(path, "changed while it was being translated", "try again"))
        return tuple(dict.fromkeys(self._states.values()))


class ChangedError(CdiError):
    """What a plan is made from changed while it was made."""


_TIMED = (FileState, DirectoryState)


def _is_restless(path: str) -> bool:
    return path.startswith(tuple(f"{top}/" for top in _RESTLESS))


def _state(path: str, aspect: Aspect) -> State:
    try:
        if aspect == "link" or (aspect == "name" and os.path.islink(path)):
            return LinkState(path, os.readlink(path))
        found = os.stat(path)
    except OSError:
        # Not there, or not to be seen: either way it has to stay so.
        return AbsentState(path)
    if aspect in ("content", "node") and stat.S_ISREG(found.st_mode):
        return FileState(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if aspect == "names" and stat.S_ISDIR(found.st_mode):
        return DirectoryState(path, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
    return NodeState(path, found.st_dev, found.st_ino, found.st_rdev, found.st_mode, found.st_uid, found.st_gid)
