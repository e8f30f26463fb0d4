"""Mount steps: what a runner does, one after the other, inside a new user and mount namespace.

Paths are relative to the *workspace*, a private tmpfs; the container's root is built at ``root`` in it. They hold
no symbolic links and no ``..``: a runner opens them with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS (openat2(2)) and
stops if the image changed meanwhile. Host paths are absolute and without links.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

#: Where the container's root is built.
ROOT = "root"


@dataclass(frozen=True)
class MakeDirectory:
    """mkdir(2)."""

    path: str
    mode: int = 0o755


@dataclass(frozen=True)
class MakeFile:
    """A new regular file. What is in a mount point's never shows."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    is_mount_point: bool = False


@dataclass(frozen=True)
class MakeLink:
    """symlink(2)."""

    path: str
    points_to: str


@dataclass(frozen=True)
class BindHost:
    """Bind a host path. ``flags`` are all flags the mount has afterwards, the source's own included."""

    source: str
    path: str
    recursive: bool = True
    flags: tuple[str, ...] = ()
    propagation: str = ""


@dataclass(frozen=True)
class BindStaged:
    """Bind a file of the workspace."""

    source: str
    path: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class MountOverlay:
    """An overlay of workspace directories, uppermost first.

    ``writable`` is "" or a directory that holds ``upper`` and ``work``.
    """

    path: str
    layers: tuple[str, ...]
    writable: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class MountNew:
    """A new file system instance."""

    fstype: str
    source: str
    path: str
    flags: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class Restrict:
    """Add flags to the mount at ``path``."""

    path: str
    flags: tuple[str, ...]


#: What a stage on disk is made of.
StageEntry = Union[MakeDirectory, MakeFile, MakeLink]
Step = Union[MakeDirectory, MakeFile, MakeLink, BindHost, BindStaged, MountOverlay, MountNew, Restrict]
