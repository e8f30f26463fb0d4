"""An image in which nothing is: what becomes of edits where no image is named."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from cdi_hpc.images.image_files import FileKind, FileStatus
from cdi_hpc.witness import Witness

#: Where it would be.
PLACE = "/IMAGE"

_EXECUTABLE_DIRECTORY = 0o755


class NoFiles:
    """A :class:`cdi_hpc.images.image_files.ImageFiles` with a root directory and nothing in it."""

    def lstat(self, path: str) -> FileStatus | None:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`."""
        return FileStatus("directory", _EXECUTABLE_DIRECTORY, (0, 0)) if path == "/" else None

    def scan(self, path: str) -> Iterator[tuple[str, FileKind]]:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`."""
        if path != "/":
            _missing(path)
        return iter(())

    def readlink(self, path: str) -> str:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`."""
        _missing(path)

    def open(self, path: str) -> BinaryIO:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`."""
        _missing(path)

    def seen_by(self, witness: Witness) -> NoFiles:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`."""
        del witness
        return self


def _missing(path: str) -> NoReturn:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
