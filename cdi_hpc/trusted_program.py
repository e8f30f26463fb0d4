"""Whether a program of the host is the administrator's: only such a one is run for a spec.

It, and every directory on its path, has to be root's and writable by nobody else. So nobody but root can put another
program in its place, neither before it is looked at nor after.

Who root is depends on the user namespace: configuration files are believed by the same numbers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: Of files whose owner our user namespace has no number for (user_namespaces(7)).
_OVERFLOW_UID = 65534

_UID_MAP = "/proc/self/uid_map"

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def complaint(path: str) -> str:
    """Why a program is not believed, "" if it is.

    Args:
        path: absolute, without links (realpath(3)).

    """
    owners = roots()
    try:
        for directory in directories_of(path):
            found = os.lstat(directory)
            if not stat.S_ISDIR(found.st_mode):
                return f"{directory} is no directory"
            reason = not_roots(directory, found, owners)
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
    return not_roots(path, found, owners)


def directories_of(path: str) -> Iterator[str]:
    """Every directory that an absolute path goes through, the root first."""
    yield "/"
    for index, letter in enumerate(path):
        if letter == "/" and index:
            yield path[:index]


def not_roots(path: str, found: os.stat_result, owners: frozenset[int]) -> str:
    """Why something is not root's alone to write, "" if it is."""
    if found.st_uid not in owners:
        return f"{path} belongs to user {found.st_uid}, not to root"
    if found.st_mode & _OTHERS_WRITE:
        return f"others than root can write to {path} (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


# Who root is --------------------------------------------------------------------------------------------------------


def roots() -> frozenset[int]:
    """Numbers of root. Where the overflow user's has no other owner, the machine's root may be seen by it.

    So it is in a namespace that a user makes for himself. Whoever made that made its view of the files, too, and runs
    with his own rights. In a system container, 65534 is its own nobody.
    """
    ranges = _ranges()
    return frozenset({0} if not ranges or _covers(ranges, _OVERFLOW_UID) else {0, _OVERFLOW_UID})


def nobodies() -> frozenset[int]:
    """The number by which root is seen where the machine's root may have none of his own: in users' namespaces.

    Others are seen by it as well, and nothing tells them from him. Where one range has it and root's, somebody else
    than the user has made the namespace, for a whole system.
    """
    ranges = _ranges()
    has_system = any(each.first == 0 and each.number > _OVERFLOW_UID for each in ranges)
    return frozenset() if not ranges or has_system else frozenset({_OVERFLOW_UID})


def is_machines_root() -> bool:
    """Whether this process is the root of a machine or of a system container.

    What a user makes for himself with ``unshare -r`` has one number, and outside of it the number is his, not root's.
    """
    if os.geteuid() != 0:
        return False
    ranges = _ranges()
    return not (len(ranges) == 1 and ranges[0].number == 1 and ranges[0].outside != 0)


class _Range(NamedTuple):
    """Numbers that a user namespace has: from which on, here and outside, and how many (user_namespaces(7))."""

    first: int
    outside: int
    number: int


def _covers(ranges: Sequence[_Range], uid: int) -> bool:
    return any(each.first <= uid < each.first + each.number for each in ranges)


def _ranges() -> tuple[_Range, ...]:
    """Of this process's user namespace; empty if that can't be told."""
    try:
        with open(_UID_MAP, encoding="ascii") as stream:
            return tuple(_Range(*(int(word) for word in line.split())) for line in stream)
    except (OSError, ValueError, TypeError):
        return ()
