"""What an image argument leads to, for reading (:func:`read_image`) and for running (:func:`open_image`)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.images.image_files import HostFiles, ImageFiles

_SQUASHFS_MAGIC = b"hsqs"
_SIF_MAGIC_AT = 32
_SIF_MAGIC = b"SIF_MAGIC\0"

ImageKind = Literal["directory", "squashfs", "sif", "other"]

#: What to do about a file that is no image of ours.
_FIX = "name a directory, a SquashFS file or a SIF file"

_SANDBOX = "unpack it: apptainer build --sandbox DIRECTORY FILE"


@dataclass(frozen=True)
class Image:
    """An image as it lies on the host.

    Attributes:
        path: its path without links.
        kind: what it is, by its content.
        files: its files for reading, or None if they can't be read without mounting it.
        place: absolute path without links where its directories are (the image itself, if it is a directory), or will
            be once it is mounted.
        reason: why ``files`` is None.
        fix: what to do about that.
        offset: of the root file system in a file.
        mountable: the root file system is a SquashFS, whether or not it can be read.
        architecture: as in uname(2), where the image says so (SIF).
        notes: what is worth telling.

    """

    path: str
    kind: ImageKind
    files: ImageFiles | None = None
    place: str = ""
    reason: str = ""
    fix: str = ""
    offset: int = 0
    mountable: bool = False
    architecture: str = ""
    notes: tuple[str, ...] = ()


def read_image(path: str, place: str = "") -> Image:
    """Find out what an image is, and how to read its files. Nothing is mounted.

    The files tell a witness what a change of the image would be noticed by: a directory each look, a file itself.

    Args:
        path: of a directory or a file, links are followed.
        place: where a file will be mounted; default: its own path, which is good for reading only.

    Raises:
        CdiError: it is not there, is neither directory nor file, can't be opened, or is damaged.

    """
    where = f"image {path}"
    real_path = os.path.realpath(path)
    mode = _mode(path, where)
    if stat.S_ISDIR(mode):
        if not os.access(path, os.R_OK | os.X_OK):
            raise CdiError(Problem(where, "Permission denied", f"ask its owner to chmod a+rx {path}"))
        return Image(real_path, "directory", HostFiles(real_path), real_path)
    if not stat.S_ISREG(mode):
        raise CdiError(Problem(where, "is neither a directory nor a file", _FIX))
    try:
        stream = open(real_path, "rb")  # noqa: SIM115 - it lives as long as the files that are read from it
    except OSError as error:
        raise CdiError(Problem(where, f"{error.strerror}", f"ask its owner to chmod a+r {path}")) from None
    try:
        image = _of_file(stream, Image(real_path, "other", place=place or real_path))
    except OSError as error:
        stream.close()
        raise CdiError(Problem(where, f"{error.strerror}", "make or copy it again")) from None
    if image.files is None:
        stream.close()
    return image


def _mode(path: str, where: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        raise CdiError(Problem(where, f"{error.strerror}", _FIX)) from None


def _of_file(stream: BinaryIO, image: Image) -> Image:
    head = stream.read(_SIF_MAGIC_AT + len(_SIF_MAGIC))
    if head[_SIF_MAGIC_AT:] == _SIF_MAGIC:
        return _of_sif(stream, replace(image, kind="sif"))
    if head.startswith(_SQUASHFS_MAGIC):
        return _with_files(stream, replace(image, kind="squashfs", mountable=True))
    return replace(image, reason="is a file, but neither of SquashFS nor of SIF", fix=_FIX)


def _of_sif(stream: BinaryIO, image: Image) -> Image:
    from cdi_hpc.images.sif import read_sif

    sif = read_sif(stream, image.path)
    primary = sif.primary
    if primary is None:
        what = "is an OCI-SIF file, and layers are not read" if sif.oci else "is a SIF file without a root file system"
        return replace(image, reason=what)
    image = replace(image, architecture=primary.architecture, offset=primary.offset)
    if any(partition.overlay for partition in sif.partitions):
        note = f"{image.path}: what its overlay partition changes is not looked at"
        image = replace(image, notes=(note,))
    if primary.filesystem != "squashfs":
        what = f"is a SIF file whose root file system is {primary.filesystem}, and only SquashFS is read"
        return replace(image, reason=what, fix=_SANDBOX)
    return _with_files(stream, replace(image, mountable=True), primary.size)


def _with_files(stream: BinaryIO, image: Image, size: int | None = None) -> Image:
    from cdi_hpc.images.squashfs_files import NoCodecError, SquashfsFiles

    try:
        return replace(image, files=SquashfsFiles(stream, image.path, image.offset, size))
    except NoCodecError as error:
        what = f"is compressed with {error.name}, which can't be read here"
        return replace(image, reason=what, fix=f"pip install {error.package}" if error.package else "")


@dataclass(frozen=True)
class OpenImage:
    """An image while it is in use.

    Attributes:
        directory: absolute path without links of its root directory.
        attended: something of ours keeps it readable (a FUSE server, an unpacked copy) and has to be ended
            afterwards: the launching process stays. It is in a user and mount namespace of its own by then.
        served: path of the file that is mounted there, "" if there is none.
        offset: of the root file system in that file.
        files: what to read it by, None for its directory. What is wrong with a file is said of the file so.

    """

    directory: str
    attended: bool = False
    served: str = ""
    offset: int = 0
    files: ImageFiles | None = None


@contextlib.contextmanager
def open_image(path: str) -> Iterator[OpenImage]:
    """The image as a directory.

    The SquashFS in a SquashFS or SIF file is mounted by squashfuse in a user namespace that this process enters, or
    unpacked by unsquashfs.

    Raises:
        CdiError: it is not there, can't be read, or is of no kind that can be used.

    """
    image = read_image(path)
    if image.kind == "directory":
        yield OpenImage(image.path)
        return
    if not image.mountable:
        raise CdiError(Problem(f"image {path}", image.reason, image.fix))
    from cdi_hpc.launch import squashfs

    with squashfs.mounted(image.path, image.offset) as directory:
        served = image.path if os.path.ismount(directory) else ""
        yield OpenImage(directory, attended=True, served=served, offset=image.offset, files=image.files)
