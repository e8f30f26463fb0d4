"""/proc/PID/mountinfo as the tests read it (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Mounted:
    """One mount.

    Attributes:
        root: the directory of the file system that is seen.
        point: where, in the container.
        flags: per-mount options.
        optional: ``shared:N``, ``master:N``, ...

    """

    root: str
    point: str
    flags: frozenset[str]
    optional: tuple[str, ...]
    fstype: str


def mount_list(mountinfo: str) -> list[Mounted]:
    """Every mount, in the order of the file."""
    return [parsed(line) for line in mountinfo.splitlines()]


def mounts_of(mountinfo: str) -> dict[str, Mounted]:
    """The uppermost mount at each mount point."""
    return {mount.point: mount for mount in mount_list(mountinfo)}


def parsed(line: str) -> Mounted:
    before, after = line.split(" - ", 1)
    _, _, _, root, point, options, *optional = before.split(" ")
    return Mounted(plain(root), plain(point), frozenset(options.split(",")), tuple(optional), after.split(" ")[0])


def plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
