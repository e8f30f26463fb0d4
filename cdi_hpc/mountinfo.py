"""/proc/self/mountinfo (proc_pid_mountinfo(5)), as far as it is needed: where something is mounted."""

from __future__ import annotations

import re

_OCTAL = re.compile(rb"\\([0-7]{3})")
_MOUNT_POINT = 4  # zero-based field number


def mount_points(path: str = "/proc/self/mountinfo") -> tuple[str, ...]:
    """Mount points of this process's namespace, sorted, each once."""
    with open(path, "rb") as stream:
        return parse(stream.read())


def parse(text: bytes) -> tuple[str, ...]:
    """Mount points in the text of a mountinfo file; space, tab, newline and backslash are octal escapes there."""
    fields = (line.split(b" ") for line in text.split(b"\n"))
    points = {_unescape(parts[_MOUNT_POINT]) for parts in fields if len(parts) > _MOUNT_POINT}
    return tuple(sorted(point.decode("utf-8", "surrogateescape") for point in points))


def _unescape(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
