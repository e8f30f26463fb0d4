"""What a translation looked at, so that its result can be known to be stale without doing it again.

A name that was looked up is covered by its directory: making, removing or replacing an entry changes the directory's
times. So a few directories stand for hundreds of names, absent ones too. Files count where their content was read.
In directories that change for reasons of their own (below /dev, /proc and /sys; /run; sticky ones, such as /tmp) every
name stands for itself.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from dataclasses import dataclass
from typing import Literal, Union

from cdi_hpc.errors import CdiError, Problem

#: Directories whose own times say nothing about a name in them, or below them.
_RESTLESS = ("/dev", "/proc", "/sys")

#: Where daemons come and go.
_BUSY = ("/run", "/var/run")

#: Directories that every container has by their names, whatever is mounted there: a job may have ones of its own.
_BY_NAME = frozenset(("/proc", "/sys", "/dev", "/dev/shm", "/dev/mqueue", "/tmp"))  # noqa: S108

#: How long the kernel's clock for file times may stand still, in ns: a second change in this time could go unseen
#: (inode times have the granularity of a timer tick; 100 Hz is the slowest that is configured).
_TICK = 20_000_000

#: How often we wait for what was changed a moment ago before we take it for something that never rests.
_WAITS = 5


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
    """Notes states at the first look; :meth:`states` tells whether they still hold.

    A state is noted when it is older than a timer tick: a change after that can't leave it as it is.
    """

    def __init__(self) -> None:
        """Nothing was looked at yet."""
        self._states: dict[tuple[str, Aspect], State] = {}
        self._moving: set[str] = set()

    def saw(self, path: str, aspect: Aspect) -> None:
        """See :class:`Witness`."""
        if aspect == "name" and not _is_busy(posixpath.dirname(path)):
            path, aspect = posixpath.dirname(path), "names"
        if aspect == "node" and path in _BY_NAME and stat.S_ISDIR(_mode(path)):
            return  # a bind of what is not a directory fails
        key = (path, aspect)
        if key not in self._states:
            self._states[key] = self._settled(path, aspect)

    def _settled(self, path: str, aspect: Aspect) -> State:
        for _ in range(_WAITS):
            state = _state(path, aspect)
            wait = _age_wanted(state)
            if not wait:
                return state
            time.sleep(wait / 1e9)
        self._moving.add(path)
        return state

    def states(self) -> tuple[State, ...]:
        """Everything that was seen, if all of it still holds.

        Raises:
            ChangedError: something changed meanwhile, or never stops to.

        """
        for (path, aspect), state in self._states.items():
            if path in self._moving or _state(path, aspect) != state:
                raise ChangedError(Problem(path, "changed while it was being translated", "try again"))
        return tuple(dict.fromkeys(self._states.values()))


class ChangedError(CdiError):
    """What a plan is made from changed while it was made."""


def _age_wanted(state: State) -> int:
    """How many ns have to pass until no change can go unseen any more."""
    if not isinstance(state, (FileState, DirectoryState)):
        return 0
    wait = max(state.mtime, state.ctime) + _TICK - time.time_ns()
    return wait if 0 < wait <= _TICK else 0  # times in the future are somebody's clock, not a race


def _is_busy(directory: str) -> bool:
    if directory in _BUSY or f"{directory}/".startswith(tuple(f"{top}/" for top in _RESTLESS)):
        return True
    try:
        return bool(os.stat(directory).st_mode & stat.S_ISVTX)
    except OSError:
        return False


def _mode(path: str) -> int:
    """Of what is there, a link itself; 0 if nothing is."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _state(path: str, aspect: Aspect) -> State:
    try:
        if aspect in ("link", "name") and os.path.islink(path):
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
