"""Compiled plans as bytes: the one writer of the format that ``native/`` reads (appendix of docs/hpc.md).

A plan is a header, then records. A record is its name and a fixed number of fields, each ended by NUL, so nothing is
ever quoted, and a field holds any bytes that a path can. Numbers are decimal without a sign (times may have one) and
without leading zeros: a plan has exactly one encoding.

The native reader refuses whatever is not exactly so. This writer refuses the same beforehand, with the field's name,
so that a plan which nobody can read is never written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Callable, ClassVar, Union

from cdi_hpc.errors import CdiError, Problem, printable
from cdi_hpc.plan import MOUNT_FLAGS

HEADER = b"cdi-hpc-plan\x001\x00"
END = b"end\x00"

#: The reader's bound on a file.
MAX_BYTES = 64 << 20

#: PATH_MAX of Linux, the final NUL included.
_MAX_PATH = 4096

_FLAGS = frozenset(MOUNT_FLAGS)
_PROPAGATIONS = frozenset(
    ("", *(recursive + word for recursive in ("", "r") for word in ("private", "slave", "shared", "unbindable")))
)


# What a plan was made from ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SameFile:
    """A regular file, links followed, that must be as it was; times in nanoseconds."""

    name: ClassVar[str] = "file"
    path: str
    device: int
    inode: int
    size: int
    mtime: int
    ctime: int


@dataclass(frozen=True)
class SameDirectory:
    """A directory, links followed, in which no name may have come or gone."""

    name: ClassVar[str] = "dir"
    path: str
    device: int
    inode: int
    mtime: int
    ctime: int


@dataclass(frozen=True)
class SameNode:
    """A device node, socket or FIFO, or a directory whose times don't count; ``st_mode`` is whole, type included."""

    name: ClassVar[str] = "node"
    path: str
    device: int
    inode: int
    rdev: int
    st_mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Absent:
    """A path that leads to nothing (ENOENT or ENOTDIR)."""

    name: ClassVar[str] = "absent"
    path: str


@dataclass(frozen=True)
class SameLink:
    """A symbolic link with this text."""

    name: ClassVar[str] = "link"
    path: str
    points_to: str


# What a launch says and passes on ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Warn:
    """A warning that every launch repeats; written as one printable line, whatever is in it."""

    name: ClassVar[str] = "warn"
    text: str


@dataclass(frozen=True)
class Note:
    """A note for a launch with ``-v``; as a warning otherwise."""

    name: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Env:
    """``NAME=VALUE`` for the command's environment; one field, so that the reader passes it on as it lies."""

    name: ClassVar[str] = "env"
    assignment: str


# Steps ------------------------------------------------------------------------------------------------------------
# ``place`` is a real path in the container, ``path`` one of the host, ``staged`` one below the plan's stage.


@dataclass(frozen=True)
class Mkdir:
    """A directory in a file system that an earlier step mounted."""

    name: ClassVar[str] = "mkdir"
    place: str
    mode: int = 0o755


@dataclass(frozen=True)
class Mkfile:
    """An empty file: a mount point, mostly, of which an underlay has thousands."""

    name: ClassVar[str] = "mkfile"
    place: str
    mode: int = 0o644


@dataclass(frozen=True)
class Copy:
    """A file with the content of a staged one."""

    name: ClassVar[str] = "copy"
    staged: str
    place: str
    mode: int = 0o644


@dataclass(frozen=True)
class Symlink:
    """A symbolic link."""

    name: ClassVar[str] = "symlink"
    place: str
    points_to: str


@dataclass(frozen=True)
class Bind:
    """A bind of a host path. ``flags`` are added to those its mount has."""

    name: ClassVar[str] = "bind"
    path: str
    place: str
    recursive: bool = True
    flags: tuple[str, ...] = ()
    propagation: str = ""


@dataclass(frozen=True)
class BindStaged:
    """A bind of a staged file."""

    name: ClassVar[str] = "bindstaged"
    staged: str
    place: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overlay:
    """A staged directory laid over one of the host, both read-only; ``mode`` is that of a writable root."""

    name: ClassVar[str] = "overlay"
    place: str
    staged: str
    path: str
    writable: bool = False
    mode: int = 0o755
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A new file system instance; ``data`` as mount(2) takes it."""

    name: ClassVar[str] = "mount"
    fstype: str
    source: str
    place: str
    flags: tuple[str, ...] = ()
    data: str = ""


@dataclass(frozen=True)
class Restrict:
    """Flags added to the mount at a place."""

    name: ClassVar[str] = "restrict"
    place: str
    flags: tuple[str, ...]


Origin = Union[SameFile, SameDirectory, SameNode, Absent, SameLink]
Step = Union[Mkdir, Mkfile, Copy, Symlink, Bind, BindStaged, Overlay, Mount, Restrict]
Record = Union[Origin, Warn, Note, Env, Step]

_STEPS = (Mkdir, Mkfile, Copy, Symlink, Bind, BindStaged, Overlay, Mount, Restrict)
_ROOT_MAKERS = (Bind, Overlay, Mount)
_STAGE_USERS = (Copy, BindStaged, Overlay)


@dataclass(frozen=True)
class WirePlan:
    """Everything in a plan's file.

    Attributes:
        key: the launch's key (:mod:`cdi_hpc.cache_key`), which the file is named after.
        uid: whose plan it is; 0 for the system's.
        gid: the group that the user had; 0 for the system's.
        stage: absolute path of the directory that ``staged`` paths are below, or None. It must belong to ``uid``,
            and nobody else may write to it.
        records: origins, messages and variables in any order; steps in theirs, the first makes ``/``.

    """

    key: str
    uid: int
    gid: int
    stage: str | None
    records: tuple[Record, ...]


def encode(plan: WirePlan) -> bytes:
    """The bytes of a plan's file.

    Raises:
        CdiError: a value has no place in a plan, a step stands where none can, or the plan is too long.

    """
    parts = [HEADER, _record("key", key=plan.key), _record("owner", uid=plan.uid, gid=plan.gid)]
    if plan.stage is not None:
        parts.append(_record("stage", path=plan.stage))
    parts += _encoded(plan)
    parts.append(END)
    data = b"".join(parts)
    if len(data) > MAX_BYTES:
        raise _refusal("file", f"has {len(data)} bytes, more than {MAX_BYTES}")
    return data


def _encoded(plan: WirePlan) -> Iterator[bytes]:
    has_root = False
    for record in plan.records:
        if isinstance(record, _STEPS):
            reason = _misplaced(record, has_root=has_root, has_stage=plan.stage is not None)
            if reason:
                raise _refusal(f"record {record.name!r}", reason)
            has_root = True
        if isinstance(record, (Warn, Note)):
            yield _record(record.name, text=printable(record.text))
        else:
            yield _record(record.name, **{field.name: getattr(record, field.name) for field in fields(record)})
    if not has_root:
        raise _refusal("file", "no step makes the root directory")


def _misplaced(step: Step, *, has_root: bool, has_stage: bool) -> str:
    """Why a step can't stand where it does, or "": the rules of the reader."""
    at_root = step.place == "/"
    if isinstance(step, _STAGE_USERS) and not has_stage:
        return "it needs a stage and the plan has none"
    if not has_root and not (at_root and isinstance(step, _ROOT_MAKERS)):
        return "the first step must make the root directory"
    if has_root and at_root and not isinstance(step, Restrict):
        return "the root directory is made once"
    if isinstance(step, Overlay) and step.writable and not at_root:
        return "only the root directory can be writable"
    return ""


Value = Union[str, int, bool, "tuple[str, ...]"]


def _record(name: str, **values: Value) -> bytes:
    pieces = [name.encode()]
    for field, value in values.items():
        data = _bytes(value)
        if data is None or b"\0" in data or not _CHECKS[field](data):
            raise _refusal(f"record {name!r}", f"field {field!r} can't be {value!r}")
        pieces.append(data)
    return b"\0".join(pieces) + b"\0"


def _bytes(value: Value) -> bytes | None:
    if isinstance(value, bool):
        return b"1" if value else b"0"
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, tuple):
        value = ",".join(value)
    try:
        return os.fsencode(value)
    except UnicodeEncodeError:
        return None


def _refusal(where: str, what: str) -> CdiError:
    return CdiError(Problem(f"compiled plan: {where}", what))


# What a field may hold, as the reader checks it ---------------------------------------------------------------------

_KEY = re.compile(rb"[0-9a-f]{64}\Z")


def _number_to(most: int, least: int = 0) -> Callable[[bytes], bool]:
    return lambda data: least <= int(data) <= most


_U64 = _number_to((1 << 64) - 1)
_U32 = _number_to((1 << 32) - 1)
_ID = _number_to((1 << 32) - 2)  # the highest one means "no id" to the kernel
_TIME = _number_to((1 << 63) - 1, 1 - (1 << 63))


def _is_text(data: bytes) -> bool:
    del data
    return True


def _is_host_path(data: bytes) -> bool:
    return data.startswith(b"/") and len(data) < _MAX_PATH


def _is_below(data: bytes) -> bool:
    return len(data) < _MAX_PATH - 1 and not {b"", b".", b".."}.intersection(data.split(b"/"))


def _is_place(data: bytes) -> bool:
    return data == b"/" or (data.startswith(b"/") and _is_below(data[1:]))


def _is_link_text(data: bytes) -> bool:
    return 0 < len(data) < _MAX_PATH


def _are_flags(data: bytes) -> bool:
    return not data or _FLAGS.issuperset(data.decode("ascii", "replace").split(","))


_CHECKS: dict[str, Callable[[bytes], bool]] = {
    "key": lambda data: bool(_KEY.match(data)),
    "path": _is_host_path,
    "place": _is_place,
    "staged": _is_below,
    "points_to": _is_link_text,
    "device": _U64,
    "inode": _U64,
    "rdev": _U64,
    "size": _U64,
    "mtime": _TIME,
    "ctime": _TIME,
    "st_mode": _U32,
    "mode": _number_to(0o7777),
    "uid": _ID,
    "gid": _ID,
    "recursive": _is_text,
    "writable": _is_text,
    "flags": _are_flags,
    "propagation": lambda data: data.decode("ascii", "replace") in _PROPAGATIONS,
    "assignment": lambda data: b"=" in data[1:] and not data.startswith(b"="),
    "text": _is_text,
    "fstype": bool,
    "source": _is_text,
    "data": _is_text,
}
