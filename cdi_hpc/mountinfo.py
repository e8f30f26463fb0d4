"""/proc/self/mountinfo (proc_pid_mountinfo(5)), as far as it is needed: what is mounted where."""

from __future__ import annotations

import re

_OCTAL = re.compile(rb"\\([0-7]{3})")
_MOUNT_POINT = 4  # zero-based field number


def mount_points(path: str = "/proc/self/mountinfo") -> tuple[str, ...]:
    """Mount points of this process's namespace, sorted, each once."""
    with open(path, "rb") as stream:
        return parse(stream.read())


def mount_types(path: str = "/proc/self/mountinfo") -> dict[str, str]:
    """Mount point -> type of the file system on it; of several at one point the newest."""
    types = {}
    with open(path, "rb") as stream:
        for line in stream:
            before, separator, after = line.partition(b" - ")
            fields = before.split(b" ")
            if separator and len(fields) > _MOUNT_POINT:
                point = _unescape(fields[_MOUNT_POINT]).decode("utf-8", "surrogateescape")
                types[point] = after.split(b" ", 1)[0].decode("ascii", "replace")
    return types


def parse(text: bytes) -> tuple[str, ...]:
    """Mount points in the text of a mountinfo file; space, tab, newline and backslash are octal escapes there."""
    fields = (line.split(b" ") for line in text.split(b"\n"))
    points = {_unescape(parts[_MOUNT_POINT]) for parts in fields if len(parts) > _MOUNT_POINT}
    return tuple(sorted(point.decode("utf-8", "surrogateescape") for point in points))


def _unescape(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
