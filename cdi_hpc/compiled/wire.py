"""Compiled plans as bytes: the one writer of the format that ``native/`` reads (docs/plan-format.md).

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
from dataclasses import dataclass, field, fields
from typing import Callable, ClassVar, Union

from cdi_hpc.errors import CdiError, Problem, printable
from cdi_hpc.plan import MOUNT_FLAGS

HEADER = b"cdi-hpc-plan\x002\x00"
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


@dataclass(frozen=True)
class Default:
    """``NAME=VALUE`` that is set unless the user's environment has a variable of that name."""

    name: ClassVar[str] = "default"
    assignment: str


# A launcher that is executed in place of the user's command ---------------------------------------------------------
# Its command line: the words below in their order, then the user's command.


@dataclass(frozen=True)
class Program:
    """Host path of the launcher; once, before its words."""

    name: ClassVar[str] = "program"
    path: str


@dataclass(frozen=True)
class Arg:
    """A word of its command line."""

    name: ClassVar[str] = "arg"
    word: str


@dataclass(frozen=True)
class KeepArg:
    """The word that the user typed, counted from 0 after the program's name."""

    name: ClassVar[str] = "keep"
    index: int


@dataclass(frozen=True)
class StageArg:
    """A word with the path of something in the stage: prefix, path, suffix."""

    name: ClassVar[str] = "stagearg"
    prefix: str
    staged: str
    suffix: str


# Before the steps, and after them -----------------------------------------------------------------------------------
# ``mountpoint`` is a real path of the host, ``mounted`` one in the tree; neither is ``/``.


@dataclass(frozen=True)
class Squashfs:
    """The SquashFS at an offset in a file, which squashfuse serves at a directory; once, before the steps.

    ``owned``: its files are shown as the caller's, whoever owns them in the image.
    """

    name: ClassVar[str] = "squashfs"
    path: str
    mountpoint: str
    offset: int = 0
    owned: bool = False


@dataclass(frozen=True)
class Peers:
    """Launches that share a container: only the first of them does the steps; once, before them.

    ``path`` is that of a file which the launcher makes when it begins the container, or its beginning; the value of
    ``variable`` ends it, or where that is not set, the parent's process id. ``devices`` is what was asked for, in
    words, and ``edits``, 64 hexadecimal digits, what a container gets by it: the others have to have the same.
    """

    name: ClassVar[str] = "peers"
    path: str
    variable: str
    devices: str
    edits: str


@dataclass(frozen=True)
class Place:
    """The tree is put over this directory of the host instead of becoming the root; once, after the steps."""

    name: ClassVar[str] = "place"
    mountpoint: str


@dataclass(frozen=True)
class Move:
    """A mount of the tree is moved to a path of the host; after ``place``."""

    name: ClassVar[str] = "move"
    mounted: str
    mountpoint: str


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
    """A staged directory laid over one of the host, both read-only; ``mode`` is that of a writable root.

    ``limit`` is how much can be written to it, in the words of tmpfs(5); "" for half of the memory.
    """

    name: ClassVar[str] = "overlay"
    place: str
    staged: str
    path: str
    writable: bool = False
    mode: int = 0o755
    flags: tuple[str, ...] = ()
    limit: str = ""


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
Word = Union[Arg, KeepArg, StageArg]
Record = Union[Origin, Warn, Note, Env, Default, Program, Word, Squashfs, Peers, Step, Place, Move]

STEPS = (Mkdir, Mkfile, Copy, Symlink, Bind, BindStaged, Overlay, Mount, Restrict)
_ROOT_MAKERS = (Bind, Overlay, Mount)
_WORDS = (Arg, KeepArg, StageArg)
_STAGE_USERS = (Copy, BindStaged, Overlay, StageArg)
_ONCE = (Program, Squashfs, Peers, Place)


@dataclass(frozen=True)
class WirePlan:
    """Everything in a plan's file.

    Attributes:
        key: the launch's key (:mod:`cdi_hpc.compiled.cache_key`), which the file is named after.
        uid: whose plan it is; 0 for the system's.
        gid: the group that the user had; 0 for the system's.
        stage: absolute path of the directory that ``staged`` paths are below, or None. It must belong to ``uid``,
            and nobody else may write to it.
        records: origins, messages and variables in any order; the program before its words; steps in their order,
            the first makes ``/``; ``squashfs`` before them, ``place`` and ``move`` after.

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
    order = _Order(has_stage=plan.stage is not None)
    for record in plan.records:
        reason = order.misplaced(record)
        if reason:
            raise _refusal(f"record {record.name!r}", reason)
        order.note(record)
        if isinstance(record, (Warn, Note)):
            yield _record(record.name, text=printable(record.text))
        else:
            yield _record(record.name, **{each.name: getattr(record, each.name) for each in fields(record)})
    reason = order.incomplete()
    if reason:
        raise _refusal("file", reason)


@dataclass
class _Order:
    """Which record can stand where: the rules of the reader."""

    has_stage: bool
    has_steps: bool = False
    seen: set[type] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    squashfs: str = ""

    def note(self, record: Record) -> None:
        """It has been written."""
        self.seen.add(type(record))
        self.has_steps = self.has_steps or isinstance(record, STEPS)
        if isinstance(record, SameFile):
            self.files.add(record.path)
        elif isinstance(record, Squashfs):
            self.squashfs = record.path

    def misplaced(self, record: Record) -> str:
        """Why a record can't come next, or ""."""
        if isinstance(record, _STAGE_USERS) and not self.has_stage:
            return "it needs a stage and the plan has none"
        if isinstance(record, _WORDS) and Program not in self.seen:
            return "it is a word for a program that has not been named"
        if isinstance(record, _ONCE) and type(record) in self.seen:
            return "a plan has one"
        if isinstance(record, (Squashfs, Peers)) and self.has_steps:
            return "it comes before the steps"
        if isinstance(record, Place) and not self.has_steps:
            return "there is no tree yet"
        if isinstance(record, Move) and Place not in self.seen:
            return "the tree has not been put at a place"
        return self._misplaced_step(record) if isinstance(record, STEPS) else ""

    def _misplaced_step(self, step: Step) -> str:
        at_root = step.place == "/"
        if Place in self.seen:
            return "it comes after the tree was put at its place"
        if not self.has_steps and not (at_root and isinstance(step, _ROOT_MAKERS)):
            return "the first step must make the root directory"
        if self.has_steps and at_root and not isinstance(step, Restrict):
            return "the root directory is made once"
        if isinstance(step, Overlay) and step.writable and not at_root:
            return "only the root directory can be writable"
        return ""

    def incomplete(self) -> str:
        """Why a plan can't end here, or ""."""
        if not self.has_steps and (Program not in self.seen or Squashfs in self.seen):
            return "no step makes the root directory"
        if self.has_steps and Program in self.seen and Place not in self.seen:
            return "the program is the host's, and the root directory would not be"
        if self.squashfs and self.squashfs not in self.files:
            return "no file record tells which file squashfs means"
        return ""


Value = Union[str, int, bool, "tuple[str, ...]"]


def _record(name: str, **values: Value) -> bytes:
    pieces = [name.encode()]
    for field_name, value in values.items():
        data = _bytes(value)
        if data is None or b"\0" in data or not _CHECKS[field_name](data):
            raise _refusal(f"record {name!r}", f"field {field_name!r} can't be {value!r}")
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
_INDEX = _number_to(0x7FFFFFFE)  # Linux takes no more words (MAX_ARG_STRINGS)
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


def _is_below_root(data: bytes) -> bool:
    return data.startswith(b"/") and _is_below(data[1:])


def _is_link_text(data: bytes) -> bool:
    return 0 < len(data) < _MAX_PATH


_LIMIT = re.compile(rb"(?:[0-9]+[kKmMgGtTpPeE%]?)?\Z")


def _are_flags(data: bytes) -> bool:
    return not data or _FLAGS.issuperset(data.decode("ascii", "replace").split(","))


_CHECKS: dict[str, Callable[[bytes], bool]] = {
    "key": lambda data: bool(_KEY.match(data)),
    "path": _is_host_path,
    "place": _is_place,
    "mountpoint": _is_below_root,
    "mounted": _is_below_root,
    "staged": _is_below,
    "points_to": _is_link_text,
    "device": _U64,
    "inode": _U64,
    "rdev": _U64,
    "size": _U64,
    "offset": _U64,
    "mtime": _TIME,
    "ctime": _TIME,
    "st_mode": _U32,
    "mode": _number_to(0o7777),
    "uid": _ID,
    "gid": _ID,
    "recursive": _is_text,
    "owned": _is_text,
    "writable": _is_text,
    "flags": _are_flags,
    "limit": lambda data: bool(_LIMIT.match(data)),
    "propagation": lambda data: data.decode("ascii", "replace") in _PROPAGATIONS,
    "assignment": lambda data: b"=" in data[1:] and not data.startswith(b"="),
    "text": _is_text,
    "word": _is_text,
    "index": _INDEX,
    "variable": _is_text,
    "devices": _is_text,
    "edits": lambda data: bool(_KEY.match(data)),
    "prefix": _is_text,
    "suffix": _is_text,
    "fstype": bool,
    "source": _is_text,
    "data": _is_text,
}
