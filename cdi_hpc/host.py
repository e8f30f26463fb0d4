"""What translation needs to know of the host: one protocol, and the live machine behind it."""

from __future__ import annotations

import errno
import grp
import os
import stat
from dataclasses import dataclass
from typing import Literal, Protocol

from cdi_hpc.witness import Witness

NodeKind = Literal["file", "directory", "character", "block", "fifo", "socket"]

_KINDS: tuple[tuple[int, NodeKind], ...] = (
    (stat.S_IFREG, "file"),
    (stat.S_IFDIR, "directory"),
    (stat.S_IFCHR, "character"),
    (stat.S_IFBLK, "block"),
    (stat.S_IFIFO, "fifo"),
    (stat.S_IFSOCK, "socket"),
)

# statvfs(3) f_flag bits by mount(8) name; ST_RELATIME and the two below it are not in Python's os module.
_STATVFS_FLAGS = (
    (0x0001, "ro"),
    (0x0002, "nosuid"),
    (0x0004, "nodev"),
    (0x0008, "noexec"),
    (0x0400, "noatime"),
    (0x0800, "nodiratime"),
    (0x1000, "relatime"),
    (0x2000, "nosymfollow"),
)

#: Flags that a bind has to take over from its source's mount as they are (mount_namespaces(7)): others are EPERM.
ACCESS_TIME_FLAGS = frozenset({"noatime", "nodiratime", "relatime", "strictatime"})


@dataclass(frozen=True)
class HostNode:
    """What a host path leads to, links followed.

    Attributes:
        real_path: the path without links.
        mount_flags: flags of the mount it is on, by mount(8) name.

    """

    kind: NodeKind
    real_path: str
    major: int = 0
    minor: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mount_flags: tuple[str, ...] = ()


class Host(Protocol):
    """The questions that translation asks of the machine the container will run on."""

    def node(self, path: str) -> HostNode | None:
        """What ``path`` leads to; None when nothing is there. Raises OSError when the kernel won't say."""

    def open_error(self, path: str, *, write: bool) -> int:
        """Errno of open(2) on a device node by this user, 0 when it opens."""

    def read(self, path: str) -> bytes | None:
        """Content of a small file, None when it does not exist."""

    def group_name(self, gid: int) -> str:
        """Name of a group, or its number."""

    def groups(self) -> frozenset[int]:
        """The user's groups: primary and supplementary."""

    def link(self, path: str) -> str | None:
        """Text of a symbolic link at ``path``, None when there is none."""

    def program(self, path: str) -> tuple[str, str]:
        """The path of a program without links, and why it is not one that only root can change, or ""."""


class LiveHost:
    """This machine, as the calling user sees it."""

    def __init__(self, witness: Witness | None = None) -> None:
        """Let ``witness`` know of everything that is looked at."""
        self._witness = witness or Witness()

    def node(self, path: str) -> HostNode | None:
        """See :class:`Host`."""
        self._witness.saw(path, "node")
        try:
            found = os.stat(path)
            flags = mount_flags(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        real_path = os.path.realpath(path)
        if real_path != path:
            # What is done with the node is done by this path, and a link may come to lead to it by another.
            self._witness.saw(real_path, "node")
        return HostNode(
            kind=node_kind(found.st_mode),
            real_path=real_path,
            major=os.major(found.st_rdev),
            minor=os.minor(found.st_rdev),
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mount_flags=flags,
        )

    def open_error(self, path: str, *, write: bool) -> int:
        """See :class:`Host`. O_NONBLOCK: a FIFO or a serial line must not hold up a launch."""
        access = os.O_RDWR if write else os.O_RDONLY
        try:
            os.close(os.open(path, access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def read(self, path: str) -> bytes | None:
        """See :class:`Host`."""
        self._witness.saw(path, "content")
        try:
            with open(path, "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def group_name(self, gid: int) -> str:
        """See :class:`Host`."""
        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return str(gid)

    def groups(self) -> frozenset[int]:
        """See :class:`Host`."""
        return frozenset({os.getegid(), *os.getgroups()})

    def program(self, path: str) -> tuple[str, str]:
        """See :class:`Host`."""
        from cdi_hpc import trusted_program  # only for a site that has hooks run

        self._witness.saw(path, "content")
        real_path = os.path.realpath(path)
        self._witness.saw(real_path, "content")
        return real_path, trusted_program.complaint(real_path)

    def link(self, path: str) -> str | None:
        """See :class:`Host`."""
        self._witness.saw(path, "link")
        try:
            return os.readlink(path)
        except OSError:
            return None


def node_kind(mode: int) -> NodeKind:
    """The kind in an st_mode that is not a symbolic link (inode(7))."""
    return next(kind for bits, kind in _KINDS if stat.S_IFMT(mode) == bits)


def mount_flags(path: str) -> tuple[str, ...]:
    """Flags of the mount that ``path`` is on, by mount(8) name (statvfs(3))."""
    flags = os.statvfs(path).f_flag
    return tuple(name for bit, name in _STATVFS_FLAGS if flags & bit)
