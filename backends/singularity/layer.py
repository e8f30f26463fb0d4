"""What is staged, on disk: a layer over the image, and directories that take the place of bound ones."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cdi_hpc.container.compose import making, parents_between
from cdi_hpc.container.stage import Assembly
from cdi_hpc.container.steps import MakeDirectory, MakeFile, MakeLink, StageEntry
from cdi_hpc.container.tree import ContainerTree, Staged, StagedDirectory, StagedFile, StagedLink
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.plan import Bind

#: The overlay's directory in the stage. The launcher takes its ``upper`` for the layer where there is one, and an image
#: may well have a directory of that name.
LAYER = "layer"
UPPER = f"{LAYER}/upper"

#: Entries of a bound directory that are bound one by one. Each takes words of the command line and a mount.
MAX_ENTRIES = 500

_EXECUTABLE_DIRECTORY = 0o755


def layer_entries(tree: ContainerTree, own: Iterable[str]) -> list[StageEntry]:
    """What is staged over the image, parents first; directories that are merged have the image's mode.

    Args:
        tree: the merged tree.
        own: real paths of the launcher's own mounts, for which it makes mount points itself.

    """
    staged = _needed(tree.staged_in(0), frozenset(own))
    if not staged:
        return []
    entries: list[StageEntry] = [MakeDirectory(LAYER), MakeDirectory(UPPER, _mode(tree, "/"))]
    made = {"/"}
    for path, what in staged.items():
        for parent in _parents(path):
            if parent not in made:
                made.add(parent)
                entries.append(MakeDirectory(UPPER + parent, _mode(tree, parent)))
        made.add(path)
        entries.append(making(UPPER + path, what))
    return entries


def _needed(staged: dict[str, Staged], own: frozenset[str]) -> dict[str, Staged]:
    for_own = own.union(*map(_parents, own))
    needed = {path for path in staged if path not in for_own}
    needed.update(*map(_parents, tuple(needed)))
    return {path: what for path, what in staged.items() if path in needed}


def _mode(tree: ContainerTree, directory: str) -> int:
    files = tree.files_of(0)
    status = files.lstat(directory) if files is not None else None
    return _EXECUTABLE_DIRECTORY if status is None else status.mode


def _parents(path: str) -> list[str]:
    return parents_between(path, "/")


@dataclass
class Underlay:
    """A bound directory that lacks entries: a directory of the stage in its place, its present entries bound into it.

    Attributes:
        stage: to be made on disk.
        binds: host path, container path and whether it is a directory, of what is brought back.

    """

    stage: list[StageEntry] = field(default_factory=list)
    binds: list[tuple[str, str]] = field(default_factory=list)


def underlay(assembly: Assembly, number: int, action: Bind, top: str) -> Underlay:
    """Put a region's staged entries among those of its source.

    Args:
        assembly: the plan in its place.
        number: of the region.
        action: the bind that began it.
        top: path in the stage.

    Raises:
        CdiError: there are too many entries.
        OSError: the directory can't be listed.

    """
    tree = assembly.tree
    made = Underlay()
    _fill(made, tree, number, tree.regions[number].target, top)
    if len(made.binds) > MAX_ENTRIES:
        what = f"{action.source} has no {_first(tree, number)}, and more than {MAX_ENTRIES} entries to bind around it"
        raise CdiError(Problem(f"{action.origin}: {action.target}", what, "make it there, or mount another directory"))
    return made


def _first(tree: ContainerTree, number: int) -> str:
    return posixpath.basename(next(iter(tree.staged_in(number))))


def _fill(made: Underlay, tree: ContainerTree, number: int, directory: str, top: str) -> None:
    region, files = tree.regions[number], tree.files_of(number)
    staged = tree.staged_in(number)
    here = "/" + directory[len(region.target) :].strip("/")
    status = files.lstat(here) if files is not None else None
    made.stage.append(MakeDirectory(top, _EXECUTABLE_DIRECTORY if status is None else status.mode))
    present = dict(files.scan(here)) if files is not None and status is not None else {}
    children = {path: what for path, what in staged.items() if posixpath.dirname(path) == directory}
    between = _directories_between(staged, directory)
    for name in sorted({*present, *(posixpath.basename(path) for path in (*children, *between))}):
        path, below = posixpath.join(directory, name), f"{top}/{name}"
        what = children.get(path)
        if isinstance(what, (StagedFile, StagedLink)):
            made.stage.append(making(below, what))
        elif path in between or what is not None:
            _fill(made, tree, number, path, below)
        elif present[name] == "link" and files is not None:
            made.stage.append(MakeLink(below, files.readlink(posixpath.join(here, name))))
        else:
            made.stage.append(_mount_point(below, is_directory=present[name] == "directory"))
            source = posixpath.join(region.source or "/", posixpath.join(here, name).lstrip("/"))
            made.binds.append((source, path))


def _mount_point(path: str, *, is_directory: bool) -> StageEntry:
    return MakeDirectory(path) if is_directory else MakeFile(path, is_mount_point=True)


def _directories_between(staged: dict[str, Staged], directory: str) -> set[str]:
    """Entries of a directory that have something staged below them."""
    prefix = directory.rstrip("/") + "/"
    inside = (path[len(prefix) :] for path in staged if path.startswith(prefix))
    return {prefix + path.split("/", 1)[0] for path in inside if "/" in path}


def staged_paths(tree: ContainerTree, number: int) -> Iterator[str]:
    """Container paths of what is staged in a region and is more than a mount point."""
    for path, what in tree.staged_in(number).items():
        is_mount_point = isinstance(what, StagedDirectory) or (isinstance(what, StagedFile) and not what.content)
        if not is_mount_point:
            yield path
