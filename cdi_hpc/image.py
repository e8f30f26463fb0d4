"""Images: what the argument of a launch leads to, as a directory that can be read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from cdi_hpc.errors import CdiError, Problem

_SQUASHFS_MAGIC = b"hsqs"
_SIF_MAGIC_AT = 32
_SIF_MAGIC = b"SIF_MAGIC"

#: What to do about a file that is no image of ours.
_FIX = "name a directory or a SquashFS file"


@dataclass(frozen=True)
class OpenImage:
    """An image while it is in use.

    Attributes:
        directory: absolute path without links of its root directory.
        attended: something of ours keeps it readable (a FUSE server, an unpacked copy) and has to be ended
            afterwards: the launching process stays. It is in a user and mount namespace of its own by then.

    """

    directory: str
    attended: bool = False


@contextlib.contextmanager
def open_image(path: str) -> Iterator[OpenImage]:
    """The image as a directory.

    A SquashFS file is mounted by squashfuse in a user namespace that this process enters, or unpacked by
    unsquashfs.

    Raises:
        CdiError: it is not there, can't be read, or is of no kind that can be used.

    """
    where = f"image {path}"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise CdiError(Problem(where, f"{error.strerror}", _FIX)) from None
    if stat.S_ISDIR(mode):
        if not os.access(path, os.R_OK | os.X_OK):
            raise CdiError(Problem(where, "Permission denied", f"ask its owner to chmod a+rx {path}"))
        yield OpenImage(os.path.realpath(path))
        return
    if not stat.S_ISREG(mode):
        raise CdiError(Problem(where, "is neither a directory nor a file", _FIX))
    _require_squashfs(path, where)
    from cdi_hpc.launch import squashfs

    with squashfs.mounted(os.path.realpath(path)) as directory:
        yield OpenImage(directory, attended=True)


def _require_squashfs(path: str, where: str) -> None:
    try:
        with open(path, "rb") as stream:
            head = stream.read(_SIF_MAGIC_AT + len(_SIF_MAGIC))
    except OSError as error:
        raise CdiError(Problem(where, f"{error.strerror}", f"ask its owner to chmod a+r {path}")) from None
    if head[_SIF_MAGIC_AT:] == _SIF_MAGIC:
        raise CdiError(Problem(where, "is a SIF file", "unpack it: apptainer build --sandbox DIRECTORY FILE"))
    if not head.startswith(_SQUASHFS_MAGIC):
        raise CdiError(Problem(where, "is a file, but not of SquashFS", _FIX))
