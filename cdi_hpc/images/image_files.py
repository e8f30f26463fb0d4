"""An image's own files, wherever they are: in a directory of the host, or in a SquashFS file that is not mounted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple, Protocol

from cdi_hpc.witness import Witness

FileKind = Literal["directory", "file", "link", "special"]


class FileStatus(NamedTuple):
    """What lstat(2) tells of a file.

    Attributes:
        mode: permission bits, without the file type.
        identity: equal for two names of one file, and different for different files of one image.

    """

    kind: FileKind
    mode: int
    identity: tuple[int, int]


class DamageError(OSError):
    """An image file is not what it says it is: ``strerror`` is about the file of the name ``filename``."""

    def __init__(self, what: str, path: str) -> None:
        """Say what does not fit, in the file at a path."""
        super().__init__(errno.EIO, f"is damaged: {what}", path)


class ImageFiles(Protocol):
    """Files by their path in the image: absolute, normalised, and without a link but for the last component."""

    def lstat(self, path: str) -> FileStatus | None:
        """None if nothing is there.

        Raises:
            OSError: a directory on the way can't be searched, or the image is damaged.

        """
        ...

    def scan(self, path: str) -> Iterator[tuple[str, FileKind]]:
        """Names in a directory, each with its kind (OSError: it is none, or can't be read)."""
        ...

    def readlink(self, path: str) -> str:
        """Text of a symbolic link (OSError: it is none)."""
        ...

    def open(self, path: str) -> BinaryIO:
        """A regular file for reading, seekable (OSError: it is none, or can't be read)."""
        ...

    def seen_by(self, witness: Witness) -> ImageFiles:
        """The same files, where ``witness`` is told of what a later change of the image would be noticed by."""
        ...


class HostFiles:
    """Files of the host, from a path on. A witness is told of each look, before it is taken."""

    def __init__(self, top: str, witness: Witness | None = None) -> None:
        """Begin at an absolute path without links; it may be that of a file, whose path in here is ``/``."""
        self._top = top
        self._prefix = top.rstrip("/")
        self._witness = witness or Witness()

    def _at(self, path: str) -> str:
        return self._prefix + path if path != "/" else self._top

    def lstat(self, path: str) -> FileStatus | None:
        """See :class:`ImageFiles`."""
        where = self._at(path)
        self._witness.saw(where, "name" if path != "/" else "node")
        try:
            found = os.lstat(where)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileStatus(_kind(found.st_mode), stat.S_IMODE(found.st_mode), (found.st_dev, found.st_ino))

    def scan(self, path: str) -> Iterator[tuple[str, FileKind]]:
        """See :class:`ImageFiles`."""
        where = self._at(path)
        self._witness.saw(where, "names")
        with os.scandir(where) as entries:
            for entry in entries:
                yield entry.name, _entry_kind(entry)

    def readlink(self, path: str) -> str:
        """See :class:`ImageFiles`."""
        return os.readlink(self._at(path))

    def open(self, path: str) -> BinaryIO:
        """See :class:`ImageFiles`."""
        where = self._at(path)
        self._witness.saw(where, "content")
        return open_regular(where)

    def seen_by(self, witness: Witness) -> HostFiles:
        """See :class:`ImageFiles`."""
        return HostFiles(self._top, witness)


def open_regular(path: str) -> BinaryIO:
    """Open a regular file and nothing else; a FIFO or a device that took its place does not block."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return os.fdopen(fd, "rb")


def _kind(mode: int) -> FileKind:
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISREG(mode):
        return "file"
    return "link" if stat.S_ISLNK(mode) else "special"


def _entry_kind(entry: os.DirEntry[str]) -> FileKind:
    if entry.is_symlink():
        return "link"
    if entry.is_file(follow_symlinks=False):
        return "file"
    return "directory" if entry.is_dir(follow_symlinks=False) else "special"
