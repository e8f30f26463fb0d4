"""The key of a launch: what a compiled plan is found by. ``native/key.c`` computes the same one.

A key is the SHA-256 of NUL-ended fields, in this order: ``cdi-hpc-key-1``, the software's version, the launcher, uid,
gid, supplementary groups (all three empty in a plan for everybody), the image's real path, then devices, spec
directories, binds and switches, each with a letter that tells them apart, and last the working directory if any of
them may depend on it.

``--env``, ``--workdir``, ``-v`` and ``-q`` are not in it: they don't change a plan.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cdi_hpc import __version__
from cdi_hpc.registry import ENVIRONMENT_VARIABLE


@dataclass(frozen=True)
class Caller:
    """Who launches."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @staticmethod
    def present() -> Caller:
        """This process."""
        return Caller(os.geteuid(), os.getegid(), tuple(os.getgroups()))


@dataclass(frozen=True)
class Launch:
    """A launch as it was asked for: the command line of ``cdi-hpc run``, less what does not change a plan.

    Attributes:
        image: its real path.

    """

    image: str
    devices: tuple[str, ...] = ()
    cdi_dirs: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    writable_tmpfs: bool = False
    contain: bool = False
    stage: str = "auto"
    strict: bool = False
    unknown_hooks: str = "warn"


def cache_key(launch: Launch, caller: Caller | None, cwd: str, environ: Mapping[str, str]) -> str:
    """64 hexadecimal digits.

    Args:
        launch: what is asked for.
        caller: who asks; None for a plan that serves everybody (the system's cache).
        cwd: the working directory, "" if it has no path any more.
        environ: the environment; CDI_HPC_DIRS is looked at.

    """
    digest = hashlib.sha256()
    for field in _fields(launch, caller, cwd, environ):
        digest.update(os.fsencode(field) + b"\0")
    return digest.hexdigest()


def _fields(launch: Launch, caller: Caller | None, cwd: str, environ: Mapping[str, str]) -> Iterator[str]:
    directories = None if launch.cdi_dirs else environ.get(ENVIRONMENT_VARIABLE)
    yield from ("cdi-hpc-key-1", __version__, "embedded")
    yield from _caller(caller)
    yield launch.image
    yield from (f"d:{device}" for device in launch.devices)
    yield from (f"c:{directory}" for directory in launch.cdi_dirs)
    if directories is not None:
        yield f"C:{directories}"
    yield from (f"b:{bind}" for bind in launch.binds)
    if launch.writable_tmpfs:
        yield "w"
    if launch.contain:
        yield "n"
    yield f"s:{launch.stage}"
    if launch.strict:
        yield "S"
    yield f"h:{launch.unknown_hooks}"
    if _depends_on_directory(launch, directories or ""):
        yield f"cwd:{cwd}"


def _caller(caller: Caller | None) -> tuple[str, str, str]:
    if caller is None:
        return "", "", ""
    return str(caller.uid), str(caller.gid), ",".join(str(gid) for gid in sorted(set(caller.groups)))


def _depends_on_directory(launch: Launch, directories: str) -> bool:
    paths = (*launch.cdi_dirs, *launch.binds, *(path for path in directories.split(":") if path))
    return any(not path.startswith("/") for path in paths) or any(map(may_be_relative_file, launch.devices))


def may_be_relative_file(device: str) -> bool:
    """Whether a device argument may name a file by a relative path (``request.is_file_request``).

    Asked of the text alone, and rather yes than no: one key too many costs one compilation, one too few a wrong plan.
    """
    like_a_file = any(mark in device for mark in ("./", ".json", ".yaml"))
    return like_a_file and (not device.startswith("/") or "," in device)
