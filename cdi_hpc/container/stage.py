"""Putting a plan into a container's tree: mount points, links and files staged, every container path resolved.

The result says what lies where; :mod:`cdi_hpc.container.compose` makes mount steps of it. Nothing is changed on the
host.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cdi_hpc.container.loader import update_ld_cache
from cdi_hpc.container.tree import ContainerTree, Entry, StagedFile, StagedLink, host_path, is_kernels
from cdi_hpc.errors import CdiError, Problem, assert_never
from cdi_hpc.images.image_files import DamageError, ImageFiles
from cdi_hpc.plan import (
    Action,
    Bind,
    Covered,
    CudaCompat,
    Directory,
    MountFilesystem,
    Note,
    RunHook,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
    container_path,
)
from cdi_hpc.witness import Witness

_UNREADABLE = "the image's owner can change that, or the image leads there by a link that it should not have"


#: Directories where a copy may take the place of the host's: what is written there is not meant to last.
_SCRATCH = frozenset({"/tmp"})  # noqa: S108  # the name says what it is for


@dataclass(frozen=True)
class CoverFile:
    """A file of ours bound over one that only the kernel makes, such as /proc/driver/nvidia/params."""

    content: bytes
    mode: int


@dataclass(frozen=True)
class PlacedMount:
    """A mount in its place.

    Attributes:
        region: number of the tree's region that it begins.
        what: the action that asked for it.

    """

    region: int
    what: Bind | MountFilesystem | CoverFile


@dataclass
class Assembly:
    """A plan put in its place.

    Attributes:
        tree: the merged tree with its regions and what is staged in each.
        mounts: in the order they are made.
        messages: what is worth telling the user, for example which CUDA libraries were preferred.
        loader_folders: directories that the loader is made to look into, as the plan names them.
        covered: what each action covers, for the site's rules.

    """

    tree: ContainerTree
    mounts: list[PlacedMount] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    loader_folders: tuple[str, ...] = ()
    covered: list[Covered] = field(default_factory=list)


def assemble(
    actions: Iterable[Action], image: str, witness: Witness | None = None, files: ImageFiles | None = None
) -> Assembly:
    """Put actions into the tree of an image, in order.

    The loader's cache comes last, whatever its place in the order: it lists what everything else put there.

    Args:
        actions: base actions of the launcher first, then the plan's.
        image: absolute path of the image's directory, without links; for an image that is a file, of the directory
            where it will be mounted.
        witness: is told of everything that is looked at.
        files: what to read the image by; by default, as a directory of the host.

    Raises:
        CdiError: every action that can't be put in its place, each with where it came from.

    """
    assembly = Assembly(ContainerTree(image, witness, files))
    problems: list[Problem] = []
    compat: list[CudaCompat] = []
    caches: list[UpdateLdCache] = []
    for action in actions:
        if isinstance(action, CudaCompat):
            compat.append(action)
        elif isinstance(action, UpdateLdCache):
            caches.append(action)
        else:
            try:
                _place(action, assembly)
            except CdiError as error:
                problems += (Problem(f"{action.origin}: {p.where}", p.what, p.fix) for p in error.problems)
            except DamageError as error:  # whatever was looked for: there is one thing to say
                what = f"{error.strerror}"
                raise CdiError(Problem(f"image {error.filename}", what, "make or copy it again")) from None
            except OSError as error:
                problems.append(Problem(f"{action.origin}: {error.filename}", f"{error.strerror}", _UNREADABLE))
    if problems:
        raise CdiError(problems)
    if caches:
        messages, paths = update_ld_cache(caches, compat, assembly.tree)
        assembly.messages += messages
        assembly.covered += (Covered(each.origin, path, path) for each in caches for path in paths)
        assembly.loader_folders = tuple(dict.fromkeys(folder for each in caches for folder in each.folders))
    return assembly


def covered_on_host(actions: Iterable[Action]) -> Iterator[Covered]:
    """What actions would cover on the machine itself: the nearest that is known where an image is not."""
    tree = ContainerTree("/")
    for action in actions:
        path = container_path(action)
        if not path:
            continue
        try:
            yield Covered(action.origin, path, tree.resolve(path, follow=not isinstance(action, Symlink)))
        except (CdiError, OSError):  # it can't be looked at, or leads nowhere: there is no other spelling
            yield Covered(action.origin, path, path)


def _place(action: Action, assembly: Assembly) -> None:
    real_path = _put(action, assembly)
    if real_path:
        assembly.covered.append(Covered(action.origin, container_path(action), real_path))


def _put(action: Action, assembly: Assembly) -> str:
    """Put an action into the tree; returns the real path that it covers, "" for none."""
    if isinstance(action, Bind):
        return _bind(action, assembly)
    if isinstance(action, MountFilesystem):
        return _mount(action, assembly)
    if isinstance(action, Symlink):
        return _link(action, assembly.tree)
    if isinstance(action, WriteFile):
        return _write(action, assembly)
    if isinstance(action, Directory):
        return assembly.tree.make_directory(action.path, action.mode)
    if isinstance(action, (SetEnv, Note, Unsupported, CudaCompat, UpdateLdCache, RunHook)):
        return ""
    return assert_never(action)


def _mount(action: MountFilesystem, assembly: Assembly) -> str:
    target = assembly.tree.make_directory(action.target)
    _refuse_root(action.target, target)
    assembly.mounts.append(PlacedMount(assembly.tree.mount(target, None, origin=action.origin), action))
    return target


def _bind(action: Bind, assembly: Assembly) -> str:
    tree = assembly.tree
    target = tree.resolve(action.target)
    _refuse_root(action.target, target)
    entry = tree.entry(target)
    wants_directory = action.kind == "directory"
    if entry is None and wants_directory:
        tree.make_directory(target)
    elif entry is None:
        tree.make_directory(posixpath.dirname(target))
        tree.put(target, StagedFile(is_mount_point=True))
    elif (entry.kind == "directory") != wants_directory:
        found = "a directory" if entry.kind == "directory" else "not a directory"
        raise CdiError(
            Problem(action.target, f"{action.source} is a {action.kind}, but {target!r} is {found} in the image")
        )
    writable = "ro" not in action.flags
    scratch = writable and target in _SCRATCH
    region = tree.mount(target, action.source, writable=writable, scratch=scratch, origin=action.origin)
    assembly.mounts.append(PlacedMount(region, action))
    return target


def _refuse_root(path: str, real_path: str) -> None:
    if real_path == "/":
        raise CdiError(Problem(path, "leads to the container's root, which a mount can't replace"))


def _link(action: Symlink, tree: ContainerTree) -> str:
    """Same text: nothing to do. Anything but a directory or a mount is covered (``ln -sf`` as the vendor's hook)."""
    name = posixpath.basename(action.path)
    if not name:
        raise CdiError(Problem(action.path, "a link can't replace the container's root"))
    real_path = posixpath.join(tree.make_directory(posixpath.dirname(action.path)), name)
    entry = tree.entry(real_path)
    if entry is not None and entry.kind == "link" and tree.readlink(real_path) == action.points_to:
        return real_path
    _refuse_occupied(action.path, real_path, entry, tree)
    tree.put(real_path, StagedLink(action.points_to))
    return real_path


def _write(action: WriteFile, assembly: Assembly) -> str:
    tree = assembly.tree
    real_path = tree.resolve(action.path)
    entry = tree.entry(real_path)
    if entry is not None and entry.kind != "directory" and _in_kernels_files(tree, real_path):
        cover = CoverFile(action.content, action.mode)
        # The region's content is ours, not the host's: no host path is right, the kernel's file is the nearest.
        assembly.mounts.append(PlacedMount(tree.mount(real_path, entry.host_path, origin=action.origin), cover))
        return real_path
    _refuse_occupied(action.path, real_path, entry, tree)
    tree.make_directory(posixpath.dirname(real_path))
    tree.put(real_path, StagedFile(action.content, action.mode))
    return real_path


def _in_kernels_files(tree: ContainerTree, real_path: str) -> bool:
    region = tree.regions[tree.region_of(real_path)]
    return region.source is not None and is_kernels(host_path(region, real_path))


def _refuse_occupied(path: str, real_path: str, entry: Entry | None, tree: ContainerTree) -> None:
    tree.refuse_mounted(real_path, path)
    if entry is not None and entry.kind == "directory":
        raise CdiError(Problem(path, f"{real_path!r} is a directory in the image and can't be replaced by a file"))
