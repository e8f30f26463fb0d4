"""From an assembled tree to mount steps: an overlay where the kernel has one, an underlay otherwise.

*Overlay*: the staged part of a directory is a read-only layer over it. There is no upper layer unless a writable
one is asked for: with one, nothing can be made in directories of another owner (EOVERFLOW, EACCES).

*Underlay*: a tmpfs takes the directory's place and its present entries are brought back, directories and files
by binds, links by the same links. Links to one hidden bind would need fewer mounts, but a program that asks for
its own path (Python, by /proc/self/exe) would find the hidden one.

overlayfs refuses a lower layer with locked mounts below it, so ``/`` and a directory on which a file system is
mounted are underlaid even in overlay mode, one level, down to where an overlay works. So is a directory of the host
that is bound to be written to, or for its devices: a layer is read-only, shows no device, and what changes in a
layer's source while it is mounted need not be seen (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import errno
import os
import posixpath
from dataclasses import dataclass, field
from typing import Literal, get_args

from cdi_hpc.container.stage import Assembly, CoverFile, PlacedMount
from cdi_hpc.container.steps import (
    ROOT,
    BindHost,
    BindStaged,
    MakeDirectory,
    MakeFile,
    MakeLink,
    MountNew,
    MountOverlay,
    Restrict,
    StageEntry,
    Step,
)
from cdi_hpc.container.tree import Region, Staged, StagedDirectory, StagedFile, StagedLink, is_software_directory
from cdi_hpc.errors import assert_never
from cdi_hpc.host import ACCESS_TIME_FLAGS, mount_flags
from cdi_hpc.images.image_files import FileKind, HostFiles, ImageFiles
from cdi_hpc.plan import Bind, MountFilesystem

Mode = Literal["overlay", "underlay"]

#: What mountinfo shows as the source of the tmpfs of an underlay.
UNDERLAY = "underlay"


@dataclass(frozen=True)
class Composition:
    """How the container's root is made.

    Attributes:
        mode: overlay where possible, or underlay everywhere.
        host_prefix: where the host's root is while the steps are computed ("" before, the workspace's copy after
            the workspace was entered).
        submounts: mount points of the host, sorted (proc_pid_mountinfo(5)).
        writable: the root is writable, changes are lost at the end (needs overlay).
        size: how much can be changed, in the words of tmpfs(5); "" for half of the memory.
        writes_through: what is written goes to the image itself (needs underlay: a layer can't be written to).
        parts_writable: with ``/`` as the image, whose root can't be a layer: each layer over a directory of software
            is writable.

    """

    mode: Mode
    submounts: tuple[str, ...]
    host_prefix: str = ""
    writable: bool = False
    size: str = ""
    writes_through: bool = False
    parts_writable: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a mode that there is not: it would be the other one."""
        if self.mode not in get_args(Mode):
            raise ValueError(f"Composition.mode is {self.mode!r}, not {' or '.join(map(repr, get_args(Mode)))}")


def compose(assembly: Assembly, composition: Composition) -> tuple[Step, ...]:
    """Mount steps that make the assembled tree at ROOT of the workspace.

    Raises:
        OSError: a directory of the image can't be listed (underlay only).

    """
    composer = _Composer(assembly, composition)
    composer.steps += [MakeDirectory(name) for name in (ROOT, "stage", "layer", "write")]
    image = assembly.tree.regions[0]
    composer.base(image)
    for placed in assembly.mounts:
        composer.mount(placed)
    return tuple(composer.steps)


@dataclass
class _Composer:
    assembly: Assembly
    composition: Composition
    steps: list[Step] = field(default_factory=list)
    restrict: list[Step] = field(default_factory=list)
    layers: int = 0
    whole_host: bool = False
    lower_top: str = ""
    lower_files: ImageFiles = field(default_factory=lambda: HostFiles("/"))

    def base(self, image: Region) -> None:
        staged = self.assembly.tree.staged_in(0)
        self.whole_host = image.source == "/"
        self._look_below(0)
        if self.composition.writes_through:
            self._written_through(image.source or "", staged)
            return
        flags: tuple[str, ...] = ()
        # The host's own directories stay as they are for this user; an image is never written to.
        if not self.whole_host:
            flags = tuple(sorted({*self._image_flags(image.source or "/"), "nodev", "nosuid", "ro"}))
        self._directory("/", image.source or "", staged, flags, writable=self.composition.writable)
        self._finish()
        self.whole_host = False

    def _written_through(self, lower: str, staged: dict[str, Staged]) -> None:
        """The image as it is. Only where a name is missing is a directory covered; a file is bound over the image's."""
        self.steps.append(BindHost(lower, ROOT))
        replaced = {
            path: what for path, what in staged.items() if isinstance(what, StagedFile) and self._has_file(path)
        }
        missing = {path: what for path, what in staged.items() if path not in replaced}
        while missing:
            top = min(map(posixpath.dirname, missing), key=lambda path: path.rstrip("/").count("/"))
            below = {path: what for path, what in missing.items() if path.startswith(top.rstrip("/") + "/")}
            missing = {path: what for path, what in missing.items() if path not in below}
            self._underlay(top, posixpath.join(lower, top[1:]), below, ())
        for path, what in replaced.items():
            source = self._new("stage")
            self.steps += [making(source, what), BindStaged(source, _in_root(path), ("nodev", "ro"))]
        self._finish()

    def _has_file(self, path: str) -> bool:
        status = self.lower_files.lstat(path)
        return status is not None and status.kind == "file"

    def _image_flags(self, source: str) -> tuple[str, ...]:
        """Flags of the image's mount; an image that is a file has none yet, and will be mounted for this launch."""
        return mount_flags(self.composition.host_prefix + source) if isinstance(self.lower_files, HostFiles) else ()

    def _look_below(self, number: int) -> None:
        """From now on ``lower`` paths are those of this region's source."""
        tree = self.assembly.tree
        self.lower_top = tree.regions[number].source or "/"
        files = tree.files_of(number)
        if files is None or isinstance(files, HostFiles):
            files = HostFiles(self.composition.host_prefix + self.lower_top, tree.witness)
        self.lower_files = files

    def mount(self, placed: PlacedMount) -> None:
        what, region = placed.what, self.assembly.tree.regions[placed.region]
        self._look_below(placed.region)
        path = _in_root(region.target)
        staged = self.assembly.tree.staged_in(placed.region)
        if isinstance(what, CoverFile):
            source = self._new("stage")
            self.steps += [MakeFile(source, what.content, what.mode), BindStaged(source, path, ("nodev", "ro"))]
        elif isinstance(what, MountFilesystem):
            self._new_filesystem(what, path, staged)
        elif isinstance(what, Bind):
            flags = tuple(sorted({*what.flags, *what.kept})) if what.flags else ()
            propagation = what.propagation if what.propagation not in ("private", "rprivate") else ""
            if staged:
                self._directory(region.target, what.source, staged, flags)
                self._finish(close=not region.scratch)
            else:
                self.steps.append(BindHost(what.source, path, what.recursive, flags, propagation))
        else:
            assert_never(what)

    def _new_filesystem(self, what: MountFilesystem, path: str, staged: dict[str, Staged]) -> None:
        """Read-only only when everything has been made in it."""
        closed = bool(staged) and "ro" in what.flags
        flags = tuple(flag for flag in what.flags if flag != "ro") if closed else what.flags
        self.steps.append(MountNew(what.fstype, what.source, path, flags, what.data))
        self._make_in_place(staged)
        if closed:
            self.steps.append(Restrict(path, what.flags))

    def _finish(self, *, close: bool = True) -> None:
        """Close the tmpfs of underlays: only now, when every entry has been made in them."""
        self.steps += self.restrict if close else []
        self.restrict = []

    def _directory(
        self, target: str, lower: str, staged: dict[str, Staged], flags: tuple[str, ...], *, writable: bool = False
    ) -> None:
        """Put ``lower`` with what is staged below ``target`` at ``target``."""
        flags = self._on_mount(lower, flags)
        writable = writable or self._is_writable_part(lower, staged)
        if not staged and not writable:
            self.steps.append(BindHost(lower, _in_root(target), recursive=True, flags=flags))
        elif self._may_be_layer(lower, flags, writable=writable):
            self._overlay(target, lower, staged, flags, writable=writable)
        else:
            self._underlay(target, lower, staged, flags)

    def _may_be_layer(self, lower: str, flags: tuple[str, ...], *, writable: bool) -> bool:
        if self.composition.mode != "overlay" or self._has_submounts(lower):
            return False
        is_software = self.whole_host and is_software_directory(lower)
        return writable or is_software or {"nodev", "ro"} <= {*flags}

    def _is_writable_part(self, lower: str, staged: dict[str, Staged]) -> bool:
        if not (self.composition.parts_writable and self.whole_host and staged):
            return False
        return is_software_directory(lower) and not self._has_submounts(lower)

    def _on_mount(self, lower: str, flags: tuple[str, ...]) -> tuple[str, ...]:
        """Flags for a bind of ``lower`` where ``flags`` are those of its surroundings.

        A file system that is mounted there has flags of its own, and they are locked (mount_namespaces(7)).
        """
        if not flags or lower not in self.composition.submounts:
            return flags
        asked = (flag for flag in flags if flag not in ACCESS_TIME_FLAGS)
        return tuple(sorted({*asked, *mount_flags(self.composition.host_prefix + lower)}))

    def _overlay(
        self, target: str, lower: str, staged: dict[str, Staged], flags: tuple[str, ...], *, writable: bool
    ) -> None:
        stage, layer = self._new("stage"), self._new("layer")
        mode = self._mode(target, target, lower)
        self.steps += [MakeDirectory(stage, mode), MakeDirectory(layer), BindHost(lower, layer)]
        self._make_layer(stage, target, lower, staged)
        on = {*flags, "nodev", "nosuid", "ro"}
        upper = ""
        if writable:
            upper = self._new("write")
            self.steps.append(MakeDirectory(upper))
            if self.composition.size:
                data = (f"size={self.composition.size}", "mode=755")
                self.steps.append(MountNew("tmpfs", "cdi-hpc", upper, ("nodev", "nosuid"), data))
            self.steps += [MakeDirectory(f"{upper}/upper", mode), MakeDirectory(f"{upper}/work")]
            on.discard("ro")
        self.steps.append(MountOverlay(_in_root(target), (stage, layer), upper, tuple(sorted(on))))

    def _underlay(self, target: str, lower: str, staged: dict[str, Staged], flags: tuple[str, ...]) -> None:
        mode = f"mode={self._mode(target, target, lower):o}"
        self.steps.append(MountNew("tmpfs", UNDERLAY, _in_root(target), ("nodev", "nosuid"), (mode,)))
        self.restrict.append(Restrict(_in_root(target), tuple(sorted({"nodev", "nosuid", "ro"}))))
        below = _by_first_component(target, staged)
        present = dict(self.lower_files.scan(self._below_top(lower)))
        for name in sorted({*below, *present}):
            here, child = posixpath.join(target, name), below.get(name, {})
            kind = present.get(name)
            if kind is None or _replaces(child.get(here)):
                self._make_in_place(child)
            elif child and kind == "directory":
                self.steps.append(MakeDirectory(_in_root(here)))
                deeper = {path: what for path, what in child.items() if path != here}
                self._directory(here, posixpath.join(lower, name), deeper, flags)
            else:
                self._bring_back(here, posixpath.join(lower, name), kind, flags)

    def _bring_back(self, target: str, lower: str, kind: FileKind, flags: tuple[str, ...]) -> None:
        path = _in_root(target)
        if kind == "link":
            self.steps.append(MakeLink(path, self.lower_files.readlink(self._below_top(lower))))
            return
        directory = kind == "directory"
        self.steps.append(MakeDirectory(path) if directory else MakeFile(path))
        self.steps.append(BindHost(lower, path, recursive=directory, flags=self._on_mount(lower, flags)))

    def _make_in_place(self, staged: dict[str, Staged]) -> None:
        """Make staged entries in a tmpfs that is part of the container's root."""
        for real_path, what in staged.items():
            self.steps.append(making(_in_root(real_path), what))

    def _make_layer(self, stage: str, target: str, lower: str, staged: dict[str, Staged]) -> None:
        """Make staged entries as a layer: directories that are merged show the layer's mode, so it is the lower's."""
        made = {target}
        for real_path, what in staged.items():
            for parent in parents_between(real_path, target):
                if parent not in made:
                    made.add(parent)
                    self.steps.append(MakeDirectory(_moved(parent, target, stage), self._mode(parent, target, lower)))
            made.add(real_path)
            self.steps.append(making(_moved(real_path, target, stage), what))

    def _mode(self, directory: str, target: str, lower: str) -> int:
        path = _moved(directory, target, lower)
        status = self.lower_files.lstat(self._below_top(path))
        if status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return status.mode

    def _below_top(self, lower: str) -> str:
        """A path of the region's source, as its files know it."""
        return "/" + lower[len(self.lower_top) :].strip("/")

    def _new(self, kind: str) -> str:
        self.layers += 1
        return f"{kind}/{self.layers}"

    def _has_submounts(self, directory: str) -> bool:
        prefix = directory.rstrip("/") + "/"
        return any(point.startswith(prefix) and point != directory for point in self.composition.submounts)


def _in_root(real_path: str) -> str:
    return _moved(real_path, "/", ROOT)


def _moved(path: str, top: str, new_top: str) -> str:
    """``path`` with ``new_top`` in the place of ``top``, which it is or is below."""
    relative = path[len(top) :].strip("/")
    return posixpath.join(new_top, relative) if relative else new_top


def parents_between(path: str, top: str) -> list[str]:
    """Directories strictly between ``top`` and ``path``, outermost first."""
    parents = []
    parent = posixpath.dirname(path)
    while parent not in (top, "/"):
        parents.append(parent)
        parent = posixpath.dirname(parent)
    return parents[::-1]


def making(path: str, what: Staged) -> StageEntry:
    """The step that makes something staged at a path."""
    if isinstance(what, StagedDirectory):
        return MakeDirectory(path, what.mode)
    if isinstance(what, StagedFile):
        return MakeFile(path, what.content, what.mode, what.is_mount_point)
    if isinstance(what, StagedLink):
        return MakeLink(path, what.points_to)
    return assert_never(what)


def _by_first_component(top: str, staged: dict[str, Staged]) -> dict[str, dict[str, Staged]]:
    """Staged entries below ``top``, by the name in ``top`` that they are at or below."""
    groups: dict[str, dict[str, Staged]] = {}
    for path, what in staged.items():
        name = path[len(top) :].lstrip("/").split("/", 1)[0]
        groups.setdefault(name, {})[path] = what
    return groups


def _replaces(what: Staged | None) -> bool:
    return isinstance(what, (StagedFile, StagedLink))
