"""The container's file tree before it exists: an image, what is mounted into it, and what is staged over both.

Paths are container paths. A *real* path has no symbolic link in it, seen from inside the container; only
:meth:`ContainerTree.resolve` makes one, component by component, with absolute links starting at the container's
root and ``..`` stopping there (path_resolution(7), as after chroot(2)). Nothing in an image can lead out of it.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Union

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.images.image_files import DamageError, FileKind, HostFiles, ImageFiles
from cdi_hpc.plan import COMMAND_LINE, THE_LAUNCHER
from cdi_hpc.spec.model import Origin
from cdi_hpc.witness import Witness

EntryKind = FileKind

#: The kernel's own limit on links in one path (path_resolution(7)).
MAX_LINKS = 40

#: Below these mounts only the kernel makes files.
KERNEL_DIRECTORIES = ("/proc", "/sys")


_SOFTWARE = frozenset({"bin", "etc", "lib", "lib32", "lib64", "libx32", "opt", "sbin", "usr"})


@dataclass(frozen=True)
class StagedDirectory:
    """A directory that the image lacks."""

    mode: int = 0o755


@dataclass(frozen=True)
class StagedFile:
    """A file that we write, or an empty one that something is mounted over."""

    content: bytes = b""
    mode: int = 0o644
    is_mount_point: bool = False


@dataclass(frozen=True)
class StagedLink:
    """A symbolic link that we make."""

    points_to: str


Staged = Union[StagedDirectory, StagedFile, StagedLink]


@dataclass(frozen=True)
class Region:
    """A part of the tree with one thing underneath: the image, a bound host path, or an empty tmpfs.

    Attributes:
        target: real container path where it begins.
        source: absolute host path without links, or None for a tmpfs. For an image that is a file, the directory where
            it will be mounted.
        writable: the container writes through to the source. Nothing is staged in a directory that the user can write
            to: what takes its place would take his new files too, and lose them at the end.
        scratch: new files are lost at some end anyway (/tmp).
        origin: who asked for it, if somebody may have to be told.

    """

    target: str
    source: str | None
    writable: bool = False
    scratch: bool = False
    origin: Origin | None = None


@dataclass(frozen=True)
class Entry:
    """What is at a real path, links not followed.

    Attributes:
        host_path: where its content is on the host, None when it is staged or in a tmpfs. What is in an image that is a
            file will be there: it is read by the tree's methods only.
        staged: what we put there, or None.
        identity: as in :class:`cdi_hpc.images.image_files.FileStatus`; None where there is no host path.

    """

    kind: EntryKind
    host_path: str | None = None
    staged: Staged | None = None
    identity: tuple[int, int] | None = None


class ContainerTree:
    """The merged tree; built up by mounting and staging, asked by everything that needs the container's view."""

    def __init__(self, image: str, witness: Witness | None = None, files: ImageFiles | None = None) -> None:
        """Begin with an image.

        Args:
            image: absolute path of its directory on the host, without links; for an image that is a file, of the
                directory where it will be mounted.
            witness: is told of everything that is looked at.
            files: what to read it by; by default, as a directory of the host.

        """
        self.witness = witness or Witness()
        self.regions: list[Region] = [Region("/", image, writable=image == "/")]
        self._files: list[ImageFiles | None] = [(files or HostFiles(image)).seen_by(self.witness)]
        self._newest_at: dict[str, int] = {"/": 0}
        self._staged: list[dict[str, Staged]] = [{}]
        self._lower: dict[str, Entry | None] = {}

    # Asking ------------------------------------------------------------------------------------------------

    def entry(self, real_path: str) -> Entry | None:
        """What is at a real path; None when nothing is."""
        number = self._newest_at.get(real_path)
        if number is not None:
            return self._region_root(number)
        number = self.region_of(real_path)
        staged = self._staged[number].get(real_path)
        if staged is not None:
            below = self._merged_with(number, real_path) or Entry("directory")
            return replace(below, kind=_STAGED_KINDS[type(staged)], staged=staged)
        return self._below(number, real_path)

    def resolve(self, path: str, *, follow: bool = True) -> str:
        """The real path of ``path``; components that do not exist are kept as they are.

        Args:
            path: a container path, absolute or relative to the container's root.
            follow: follow a link that is the last component.

        Raises:
            CdiError: more than MAX_LINKS links, a non-directory on the way, or a directory that can't be searched.

        """
        rest = [part for part in path.split("/") if part not in ("", ".")]
        rest.reverse()
        current, links = "/", 0
        while rest:
            part = rest.pop()
            if part == "..":
                current = posixpath.dirname(current)
                continue
            candidate = posixpath.join(current, part)
            entry = self.entry(candidate)
            if entry is not None and entry.kind == "link" and (rest or follow):
                links += 1
                if links > MAX_LINKS:
                    raise _problem(path, f"too many symbolic links inside the image, at {candidate!r}")
                text = self.readlink(candidate)
                rest += [piece for piece in reversed(text.split("/")) if piece not in ("", ".")]
                current = "/" if text.startswith("/") else current
            elif entry is not None and entry.kind != "directory" and rest:
                raise _problem(path, f"{candidate!r} is not a directory inside the image")
            else:
                current = candidate
        return current

    def readlink(self, real_path: str) -> str:
        """Text of the symbolic link at a real path."""
        entry = self.entry(real_path)
        if entry is None or entry.kind != "link":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), real_path)
        if isinstance(entry.staged, StagedLink):
            return entry.staged.points_to
        files, path = self._underneath(real_path)
        return files.readlink(path)

    def names(self, real_path: str) -> list[str]:
        """Names in the directory at a real path, sorted."""
        entry = self.entry(real_path)
        if entry is None or entry.kind != "directory":
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), real_path)
        names = {name for name, _ in self.scan_below(real_path)}
        return sorted(names.union(self.added_names(real_path)))

    def scan_below(self, real_path: str) -> Iterator[tuple[str, EntryKind]]:
        """Names that the region underneath has in a directory, each with its kind; none where nothing is underneath."""
        entry = self.entry(real_path)
        if entry is not None and entry.host_path is not None:
            files, path = self._underneath(real_path)
            yield from files.scan(path)

    def added_names(self, directory: str) -> set[str]:
        """Names in a directory that the region underneath does not have, or that something else covers."""
        prefix = directory.rstrip("/") + "/"
        staged = self._staged[self.region_of(prefix + "entry")]
        paths = [path for path in (*staged, *self._newest_at) if path.startswith(prefix) and path != directory]
        return {path[len(prefix) :] for path in paths if "/" not in path[len(prefix) :] and self.entry(path)}

    def open(self, real_path: str) -> BinaryIO:
        """Open the regular file at a real path for reading; anything else raises OSError and is not opened."""
        entry = self.entry(real_path)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), real_path)
        if isinstance(entry.staged, StagedFile):
            return io.BytesIO(entry.staged.content)
        if entry.kind != "file" or entry.host_path is None:
            raise OSError(errno.EINVAL, "not a regular file", real_path)
        files, path = self._underneath(real_path)
        return files.open(path)

    def read(self, path: str, limit: int = 1 << 24) -> bytes | None:
        """Content of a regular file, links followed; None when there is no such file or it can't be read."""
        try:
            with self.open(self.resolve(path)) as stream:
                return stream.read(limit)
        except (OSError, CdiError):
            return None

    def files_of(self, number: int) -> ImageFiles | None:
        """What is underneath a region, by paths that begin at its target; None for a tmpfs."""
        return self._files[number]

    def region_of(self, real_path: str) -> int:
        """Number of the region that holds what is at ``real_path`` (for a region's own target: the one around it)."""
        parent = real_path
        while parent != "/":
            parent = posixpath.dirname(parent)
            number = self._newest_at.get(parent)
            if number is not None:
                return number
        return 0

    def is_mounted(self, real_path: str) -> bool:
        """Whether a region begins at ``real_path``."""
        return real_path in self._newest_at

    def refuse_mounted(self, real_path: str, path: str = "") -> None:
        """Refuse what would cover a mount (CdiError): it names who has to give way, and ``path`` if that differs."""
        number = self._newest_at.get(real_path)
        if number is None:
            return
        origin = self.regions[number].origin
        what, fix = "another edit mounts something there", "correct the spec: one of the two must go"
        if origin is not None and origin.spec == COMMAND_LINE:
            what, fix = f"your {origin.field} is there", "leave it out: the device brings it"
        elif origin is not None and origin.spec == THE_LAUNCHER:
            what, fix = f"{origin.field} is there", "keep that out of the container"
        raise CdiError(Problem(path or real_path, what, fix))

    def staged_in(self, number: int) -> dict[str, Staged]:
        """What is staged in a region, by real path, parents before children."""
        return dict(sorted(self._staged[number].items()))

    # Building ----------------------------------------------------------------------------------------------

    def make_directory(self, path: str, mode: int = 0o755) -> str:
        """Real path of a directory, staged with its missing parents; raises CdiError when it can't be one.

        Args:
            path: container path.
            mode: permission bits, if it is missing; those of missing parents are 755.

        """
        real_path = self.resolve(path)
        missing = []
        here = real_path
        while True:
            entry = self.entry(here)
            if entry is not None:
                if entry.kind != "directory":
                    raise _problem(path, f"{here!r} is not a directory inside the image")
                break
            missing.append(here)
            here = posixpath.dirname(here)
        for directory in reversed(missing):
            self._stage(directory, StagedDirectory(mode) if directory == real_path else StagedDirectory())
        return real_path

    def put(self, real_path: str, staged: Staged) -> None:
        """Stage a file or a link at a real path whose parent exists; what is there is covered."""
        self._stage(real_path, staged)

    def mount(
        self,
        real_path: str,
        source: str | None,
        *,
        writable: bool = False,
        scratch: bool = False,
        origin: Origin | None = None,
    ) -> int:
        """Begin a region at an existing real path; returns its number. What was staged below is covered."""
        self.regions.append(Region(real_path, source, writable, scratch, origin))
        self._files.append(None if source is None else HostFiles(source, self.witness))
        self._staged.append({})
        number = len(self.regions) - 1
        self._newest_at = {path: old for path, old in self._newest_at.items() if not _is_below(path, real_path)}
        self._newest_at[real_path] = number
        self._lower.clear()
        return number

    def _stage(self, real_path: str, staged: Staged) -> None:
        number = self.region_of(real_path)
        region = self.regions[number]
        if region.source is not None and is_kernels(host_path(region, real_path)):
            raise _problem(real_path, "not there, and only the kernel makes files below it")
        if region.writable and not region.scratch:
            self._refuse_to_replace(region, real_path)
        self._staged[number][real_path] = staged

    @staticmethod
    def _refuse_to_replace(region: Region, real_path: str) -> None:
        """An entry is added to a directory by putting a copy in its place: not where the user makes files himself."""
        wanted = host_path(region, real_path)
        directory = posixpath.dirname(wanted)
        if region.target == "/" and is_software_directory(wanted):
            return
        while len(directory) >= len(region.source or ""):
            if os.access(directory, os.W_OK):
                what = f"not there, and {directory!r} is yours to write to: a copy can't take its place"
                raise CdiError(Problem(real_path, what, f"make {wanted!r} first"))
            if directory == "/":
                return
            directory = posixpath.dirname(directory)

    # Underneath --------------------------------------------------------------------------------------------

    def _underneath(self, real_path: str) -> tuple[ImageFiles, str]:
        """What to read an entry with a host path by, and its path in there."""
        number = self._newest_at.get(real_path)
        here = "/" if number is not None else real_path
        if number is None:
            number = self.region_of(real_path)
            here = _in_region(self.regions[number], real_path)
        files = self._files[number]
        if files is None:
            raise OSError(errno.EINVAL, "nothing is underneath", real_path)
        return files, here

    def _region_root(self, number: int) -> Entry:
        source = self.regions[number].source
        if source is None:
            return Entry("directory")
        return self._lstat(number, "/", source) or Entry("special", host_path=source)

    def _below(self, number: int, real_path: str) -> Entry | None:
        if real_path not in self._lower:
            region = self.regions[number]
            if region.source is None:
                return None
            path = _in_region(region, real_path)
            self._lower[real_path] = self._lstat(number, path, host_path(region, real_path))
        return self._lower[real_path]

    def _merged_with(self, number: int, real_path: str) -> Entry | None:
        """The directory that a staged directory is merged with, if there is one."""
        below = self._below(number, real_path)
        if below is None or below.kind != "directory":
            return None
        return below if isinstance(self._staged[number][real_path], StagedDirectory) else None

    def _lstat(self, number: int, path: str, on_host: str) -> Entry | None:
        files = self._files[number]
        try:
            status = files.lstat(path) if files is not None else None
        except PermissionError:
            raise _problem(on_host, "permission denied: a directory on the way can't be searched") from None
        except DamageError:
            raise
        except OSError as error:
            raise _problem(on_host, error.strerror or os.strerror(errno.EIO)) from None
        return None if status is None else Entry(status.kind, on_host, None, status.identity)


_STAGED_KINDS: dict[type, EntryKind] = {StagedDirectory: "directory", StagedFile: "file", StagedLink: "link"}


def _in_region(region: Region, real_path: str) -> str:
    """Path of a real path below a region's target: ``/`` for the target itself."""
    return real_path[len(region.target) :] or "/" if region.target != "/" else real_path


def host_path(region: Region, real_path: str) -> str:
    """Where the host keeps what the region's source has at a real path."""
    relative = _in_region(region, real_path)[1:]
    return posixpath.join(region.source or "", relative) if relative else region.source or ""


def is_software_directory(path: str) -> bool:
    """Whether a host path is where the host keeps what users run and read, but do not write to.

    With ``/`` as the image these are layers, read-only whoever the user is.
    """
    return path.split("/")[1] in _SOFTWARE


def is_kernels(path: str) -> bool:
    """Whether a host path is in a file system where only the kernel makes files."""
    return any(_is_below(path, top) for top in KERNEL_DIRECTORIES)


def _is_below(path: str, top: str) -> bool:
    """Whether ``path`` is strictly below ``top``."""
    return path.startswith(top.rstrip("/") + "/")


def _problem(path: str, what: str) -> CdiError:
    return CdiError(Problem(path, what))
