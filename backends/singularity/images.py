"""What an image argument leads to (apptainer-exec(1), "supports the following formats")."""

from __future__ import annotations

import re

from cdi_hpc.backend import Located
from cdi_hpc.image import read_image

#: ``TRANSPORT:REFERENCE`` that the launcher fetches before it runs it. Anything else with ``://`` is one as well, if
#: only for the launcher to say that it knows none of that name.
_TRANSPORTS = frozenset({"docker", "docker-archive", "docker-daemon", "oci", "oci-archive"})
_REFERENCE = re.compile(r"(?P<transport>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>//)?")

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
    # What an overlay partition of a SIF changes, only the launcher can show.
    is_whole = image.mountable and image.files is not None and not image.notes
    return Located(image.path, image.kind, image.files, image_place, image.reason, image.offset if is_whole else None)
