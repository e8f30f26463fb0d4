"""Images: what the argument of a launch leads to."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from cdi_hpc.errors import CdiError, Problem

_SQUASHFS_MAGIC = b"hsqs"


@contextlib.contextmanager
def image_directory(path: str) -> Iterator[str]:
    """The image as a directory: its absolute path without links.

    Raises:
        CdiError: it is not there, can't be read, or is of no kind that can be used.

    """
    where = f"image {path}"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise CdiError(
            Problem(where, error.strerror or "can't be read", "name a directory or a SquashFS file")
        ) from None
    if not stat.S_ISDIR(mode):
        raise CdiError(Problem(where, "is neither a directory nor a SquashFS file", "unpack it to a directory first"))
    if not os.access(path, os.R_OK | os.X_OK):
        raise CdiError(Problem(where, "Permission denied", f"ask its owner to chmod a+rx {path}"))
    yield os.path.realpath(path)
