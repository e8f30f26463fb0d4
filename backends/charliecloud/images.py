"""What ch-run's image argument leads to (ch-run(1), "Image format")."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from cdi_hpc.backend import Invocation, Located, Profile
from cdi_hpc.backends.charliecloud.wishes import Wishes
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.images.image_files import HostFiles

_SQUASHFS_MAGIC = b"hsqs"

_FIX = "name a directory, a SquashFS file, or an image that ch-image lists"


def locate(invocation: Invocation, profile: Profile, environ: Mapping[str, str], image_place: str) -> Located:
    """Find an image as ch-run does: a name in its storage directory first, then a path.

    ch-run refuses ``--write`` for an image given by name, and we need it where a tmpfs takes what is written. The tree
    is put at ``image_place`` then, as that of a file is.

    Raises:
        CdiError: there is none, or it can't be read.

    """
    stored = stored_path(invocation, environ)
    path = stored if stored is not None and os.path.lexists(stored) else invocation.image
    where = f"image {invocation.image}"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise CdiError(Problem(where, f"{error.strerror}", _FIX)) from None
    real_path = os.path.realpath(path)
    if stat.S_ISDIR(mode):
        if not os.access(path, os.R_OK | os.X_OK):
            raise CdiError(Problem(where, "Permission denied", f"ask its owner to chmod a+rx {path}"))
        renamed = path == stored and Wishes.of(invocation, profile, environ).fake_size is not None
        return Located(real_path, "directory", HostFiles(real_path), image_place if renamed else real_path)
    if not stat.S_ISREG(mode):
        raise CdiError(Problem(where, "is neither a directory nor a file", _FIX))
    return _squashfs(path, real_path, image_place, where)


def stored_path(invocation: Invocation, environ: Mapping[str, str]) -> str | None:
    """Where an image of this name would be in ch-run's storage directory; None if that is nowhere."""
    storage = storage_directory(invocation, environ)
    if storage is None:
        return None
    name = invocation.image.replace("/", "%").replace(":", "+")
    return f"{os.path.realpath(storage)}/img/{name}"


def storage_directory(invocation: Invocation, environ: Mapping[str, str]) -> str | None:
    """``--storage``, or $CH_IMAGE_STORAGE, or /var/tmp/$USER.ch."""
    given = [each.value for each in invocation.given if "--storage" in each.option.names]
    if given:
        return given[-1]
    if "CH_IMAGE_STORAGE" in environ:
        return environ["CH_IMAGE_STORAGE"]
    user = environ.get("USER")
    return None if user is None else f"/var/tmp/{user}.ch"  # noqa: S108  # ch-run's own choice


def _squashfs(path: str, real_path: str, image_place: str, where: str) -> Located:
    # A library of 10 ms, and most images are directories.
    from cdi_hpc.images.squashfs_codecs import NoCodecError
    from cdi_hpc.images.squashfs_files import SquashfsFiles

    try:
        stream = open(real_path, "rb")  # noqa: SIM115  # it stays open for as long as the image is read
        if stream.peek(len(_SQUASHFS_MAGIC))[: len(_SQUASHFS_MAGIC)] != _SQUASHFS_MAGIC:
            raise CdiError(Problem(where, "is a file, but not of SquashFS", _FIX))
        files = SquashfsFiles(stream, real_path)
    except NoCodecError as error:
        fix = f"install {error.package}" if error.package else "make it again with gzip"
        raise CdiError(Problem(where, f"is compressed with {error.name}, which can't be read here", fix)) from None
    except PermissionError:
        raise CdiError(Problem(where, "Permission denied", f"ask its owner to chmod a+r {path}")) from None
    except OSError as error:
        raise CdiError(Problem(where, f"{error.strerror}", "check it with unsquashfs -s")) from None
    return Located(real_path, "squashfs", files, image_place)
