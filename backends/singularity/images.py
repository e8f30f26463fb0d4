"""What an image argument leads to (apptainer-exec(1), "supports the following formats")."""

from __future__ import annotations

import re

from cdi_hpc.backend import Located
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.images.image_files import open_regular
from cdi_hpc.launch.image import read_image

#: ``TRANSPORT:REFERENCE`` that the launcher fetches before it runs it. Anything else with ``://`` is one as well, if
#: only for the launcher to say that it knows none of that name.
_TRANSPORTS = frozenset({"docker", "docker-archive", "docker-daemon", "oci", "oci-archive"})
_REFERENCE = re.compile(r"(?P<transport>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>//)?")

#: How much of a file is looked at, a first line included.
_HEAD = 1 << 12
_EXT_MAGIC_AT = 0x438
_EXT_MAGIC = b"\x53\xef"
_SQUASHFS_MAGIC = b"hsqs"

INSTANCE = "instance://"


def is_instance(image: str) -> bool:
    """Whether a process is to join a container that is there."""
    return image.startswith(INSTANCE)


def is_reference(image: str) -> bool:
    """Whether the launcher fetches the image (Apptainer's internal/pkg/util/uri)."""
    match = _REFERENCE.match(image)
    return match is not None and bool(match["slashes"] or match["transport"] in _TRANSPORTS)


def locate_file(path: str, image_place: str) -> Located:
    """A directory or file of the host.

    Raises:
        CdiError: it is not there, or can't be read.

    """
    image = read_image(path, image_place)
    if image.kind == "other" and not _is_launchers_own(image.path):
        raise CdiError(Problem(f"image {path}", image.reason, image.fix))
    # What an overlay partition of a SIF changes, only the launcher can show.
    is_whole = image.mountable and image.files is not None and not image.notes
    return Located(image.path, image.kind, image.files, image_place, image.reason, image.offset if is_whole else None)


def _is_launchers_own(path: str) -> bool:
    """Whether the launcher knows a file that we do not: ext3, or what an image of release 2 has after its first line.

    (ext4(5), the superblock's magic number; Apptainer's pkg/image.)
    """
    with open_regular(path) as stream:
        head = stream.read(_HEAD)
    start = head.find(b"\n") + 1 if head.startswith(b"#!") else 0
    is_ext = head[start + _EXT_MAGIC_AT :].startswith(_EXT_MAGIC)
    return is_ext or (start > 0 and head.startswith(_SQUASHFS_MAGIC, start))
