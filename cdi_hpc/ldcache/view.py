"""What the container's root directory holds, as far as ldconfig(8) looks at it.

A :class:`View` answers about *canonical* paths only: absolute, without ``.`` and ``..``, and without a symbolic link
in any component but possibly the last. Following links is done once, for every view, in
:mod:`cdi_hpc.ldcache.tree`; so a view cannot be talked into leaving its root by a link that an image holds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Hashable, Iterable, Iterator
from typing import BinaryIO, Literal, NamedTuple, Protocol

Kind = Literal["file", "directory", "link", "other"]

#: Enough for every directory of a usual configuration; a hostile one must not use up the file descriptors.
_OPEN_DIRECTORIES = 64


class Listed(NamedTuple):
    """One name in a directory.

    Attributes:
        kind: of the name itself; a link is not followed.
        injected: the image's own ``ldconfig`` never saw this: it was bound, linked or written over the image, or
            it lies in a directory that was.

    """

    name: str
    kind: Kind
    injected: bool = False


class Status(NamedTuple):
    """What is at a path; a link is not followed.

    Attributes:
        identity: equal for two paths exactly if they name one object, as (st_dev, st_ino) does in stat(2).
        injected: as in :class:`Listed`.

    """

    kind: Kind
    identity: Hashable
    injected: bool = False


class View(Protocol):
    """The merged tree of a container: the image, what is bound over it, and what hooks would have made.

    Every path that is passed is canonical. Names are str with undecodable bytes kept by surrogateescape
    (PEP 383). What can't be read raises OSError.
    """

    def listdir(self, directory: str) -> Iterable[Listed]:
        """The names in a directory, in the order of readdir(3), without ``.`` and ``..``."""

    def lstat(self, path: str) -> Status | None:
        """What is at the path, None if nothing."""

    def readlink(self, path: str) -> str:
        """The text of a symbolic link."""

    def open(self, path: str) -> BinaryIO:
        """A regular file, for reading and seeking. Anything else raises OSError and is never opened to wait."""


def _kind(mode: int) -> Kind:
    kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "other")


def _listed_kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return "link"
    if entry.is_file(follow_symlinks=False):
        return "file"
    return "directory" if entry.is_dir(follow_symlinks=False) else "other"


class DirectoryView:
    """The view of a directory as it is.

    Args:
        root: the directory.
        injected: canonical paths (of the view) that the image did not have; whatever is below them counts too.

    """

    def __init__(self, root: str, injected: Container[str] = frozenset()) -> None:
        """Open the root; it stays open until :meth:`close`."""
        self._injected = injected
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: dict[str, int] = {}

    def __enter__(self) -> DirectoryView:  # noqa: PYI034  # typing has no Self before 3.11
        """The view itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give back every descriptor."""
        self._forget()
        os.close(self._root)

    def listdir(self, directory: str) -> Iterator[Listed]:
        """See :meth:`View.listdir`."""
        everything = self._is_injected(directory)
        prefix = directory.rstrip("/") + "/"
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = os.open(".", flags, dir_fd=self._directory(directory))
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    injected = everything or prefix + entry.name in self._injected
                    yield Listed(entry.name, _listed_kind(entry), injected)
        finally:
            os.close(descriptor)

    def lstat(self, path: str) -> Status | None:
        """See :meth:`View.lstat`."""
        parent, _, name = path.rpartition("/")
        try:
            found = os.stat(name or ".", dir_fd=self._directory(parent), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Status(_kind(found.st_mode), (found.st_dev, found.st_ino), self._is_injected(path))

    def readlink(self, path: str) -> str:
        """See :meth:`View.readlink`."""
        parent, _, name = path.rpartition("/")
        return os.readlink(name, dir_fd=self._directory(parent))

    def open(self, path: str) -> BinaryIO:
        """See :meth:`View.open`."""
        parent, _, name = path.rpartition("/")
        # O_NONBLOCK: what was a file a moment ago may be a FIFO now.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self._directory(parent))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{path!r} is not a regular file")
        return open(descriptor, "rb")  # a descriptor, and the caller closes it

    def _is_injected(self, path: str) -> bool:
        while path.strip("/"):
            if path in self._injected:
                return True
            path = path.rpartition("/")[0]
        return False

    def _directory(self, path: str) -> int:
        if not path.strip("/"):
            return self._root
        if path not in self._open:
            parent, _, name = path.rpartition("/")
            above = self._directory(parent)
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=above)
            if len(self._open) >= _OPEN_DIRECTORIES:
                self._forget()
            self._open[path] = descriptor
        return self._open[path]

    def _forget(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
