"""An image's own files, wherever they are: in a directory of the host, or in a SquashFS file that is not mounted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

FileKind = Literal["directory", "file", "link", "special"]


@dataclass(frozen=True)
class FileStatus:
    """What lstat(2) tells of a file.

    Attributes:
        mode: permission bits, without the file type.
        identity: equal for two names of one file, and different for different files of one image.

    """

    kind: FileKind
    mode: int
    identity: tuple[int, int]


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
