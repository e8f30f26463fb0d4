"""An image that is a file, mounted by ourselves where there is a namespace of ours anyway.

In a user namespace the launcher mounts a SIF by squashfuse. It asks squashfuse for its options three times, starts it,
and looks for the mount every 25 ms. We start the same program on the same file and give the launcher the directory,
which it takes as it takes any sandbox: that saves more than everything that CDI adds (docs/decisions/012).
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass

from cdi_hpc.backend import Located
from cdi_hpc.backends.singularity import surroundings
from cdi_hpc.backends.singularity.own_mounts import OwnMounts
from cdi_hpc.backends.singularity.settings import Settings
from cdi_hpc.host import Host
from cdi_hpc.images.image_files import open_regular
from cdi_hpc.launch import squashfs
from cdi_hpc.witness import Witness

_CONTAINER_KIND = {"sif": "sif", "squashfs": "squashfs", "reference": "sif"}

#: Options for which the launcher has to have the file itself.
_NEED_FILE = ("writable", "unsquash", "sharens", "passphrase", "pem-path")

#: Execution control lists decide by a SIF file's signatures.
_LISTS_ARE_ON = re.compile(r"^\s*activated\s*=\s*true", re.MULTILINE)


@dataclass(frozen=True)
class Served:
    """An image that we mount.

    Attributes:
        path: real path of the file.
        offset: where in the file its SquashFS begins.
        image: the launcher's image argument: the directory where it is mounted, by the file's own name.
        is_owned: its files are the user's, whatever the image says, as the launcher has them.
        known_as: what the launcher would tell the container of where its image is.

    """

    path: str
    offset: int
    image: str
    is_owned: bool
    known_as: str


def serve(settings: Settings, located: Located, own: OwnMounts, host: Host, witness: Witness) -> Served | None:
    """Mount an image with the other mounts of our own; None if that has to be left to the launcher.

    Returns:
        The image as the launcher gets it.

    """
    for path in (*squashfs.places_of_server(), "/dev/fuse"):
        witness.saw(path, "node")
    server = squashfs.server()
    if server is None or located.path is None or located.offset is None or not _may_be(settings, located, witness):
        return None
    known_as = _known_as(settings, located, host)
    name = own.show(located.place, posixpath.basename(known_as))
    return Served(located.path, located.offset, own.on_host(name), squashfs.shows_owner(server), known_as)


def _known_as(settings: Settings, located: Located, host: Host) -> str:
    """Path of the file as the launcher has it: absolute, with its links (Go's filepath.Abs)."""
    if located.kind == "reference":
        return located.path or ""
    image = settings.invocation.image
    return posixpath.normpath(posixpath.join(surroundings.current_directory(settings, host), image))


def _may_be(settings: Settings, located: Located, witness: Witness) -> bool:
    if located.kind not in _CONTAINER_KIND or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return False
    # An instance is known by its image's path, and outlives this process.
    if settings.invocation.subcommand[:1] == ("instance",) or any(map(settings.is_given, _NEED_FILE)):
        return False
    configuration = settings.configuration
    allowed = all(
        configuration.says(f"allow container {kind}") == "yes" for kind in (_CONTAINER_KIND[located.kind], "dir")
    )
    return allowed and configuration.says("image driver", "") == "" and not _lists_are_on(settings, witness)


def _lists_are_on(settings: Settings, witness: Witness) -> bool:
    path = posixpath.join(posixpath.dirname(settings.capability("configuration")), "ecl.toml")
    witness.saw(path, "content")
    try:
        with open_regular(os.path.realpath(path)) as stream:
            return _LISTS_ARE_ON.search(stream.read().decode("utf-8", "replace")) is not None
    except FileNotFoundError:
        return False
    except OSError:
        return True
