"""Whether a program of the host is the administrator's: only such a one is run for a spec.

It, and every directory on its path, has to be root's and writable by nobody else. So nobody but root can put another
program in its place, neither before it is looked at nor after.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

#: Of files whose owner our user namespace has no number for (user_namespaces(7)).
_OVERFLOW_UID = 65534

#: A namespace with this many numbers has them all.
_ALL_IDS = (1 << 32) - 1

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def complaint(path: str) -> str:
    """Why a program is not believed, "" if it is.

    Args:
        path: absolute, without links (realpath(3)).

    """
    owners = roots()
    try:
        for directory in _directories(path):
            found = os.lstat(directory)
            if not stat.S_ISDIR(found.st_mode):
                return f"{directory} is no directory"
            reason = _not_roots(directory, found, owners)
            if reason:
                return reason
        found = os.lstat(path)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is no regular file"
    if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return f"{path} is a set-user-ID or set-group-ID program, which would have no such rights here"
    if not os.access(path, os.X_OK):
        return f"{path} is no program that you may execute"
    return _not_roots(path, found, owners)


def _directories(path: str) -> Iterator[str]:
    yield "/"
    for index, letter in enumerate(path):
        if letter == "/" and index:
            yield path[:index]


def _not_roots(path: str, found: os.stat_result, owners: frozenset[int]) -> str:
    if found.st_uid not in owners:
        return f"{path} belongs to user {found.st_uid}, not to root"
    if found.st_mode & _OTHERS_WRITE:
        return f"others than root can write to {path} (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


def roots() -> frozenset[int]:
    """Numbers of root. In a namespace that some users have no number in, the machine's root may be one of those.

    Whoever made that namespace made its view of the files, too, and runs with his own rights.
    """
    return frozenset({0}) if _has_all_numbers() else frozenset({0, _OVERFLOW_UID})


def is_machines_root() -> bool:
    """Whether this process is root outside of any user namespace of somebody's own."""
    return os.geteuid() == 0 and _has_all_numbers()


def _has_all_numbers() -> bool:
    try:
        with open("/proc/self/uid_map", encoding="ascii") as stream:
            return any([int(word) for word in line.split()] == [0, 0, _ALL_IDS] for line in stream)
    except (OSError, ValueError):
        return True
