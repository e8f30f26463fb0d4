"""The dynamic loader's view of an assembled tree: its cache, its links, and the image's CUDA compatibility rule."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from cdi_hpc import ldcache
from cdi_hpc.container import cuda_compat
from cdi_hpc.container.tree import ContainerTree, EntryKind, StagedFile, StagedLink
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.ldcache.view import Kind
from cdi_hpc.plan import CudaCompat, UpdateLdCache

_KINDS: dict[EntryKind, Kind] = {"file": "file", "directory": "directory", "link": "link", "special": "other"}


def update_ld_cache(
    caches: Iterable[UpdateLdCache], compat: Iterable[CudaCompat], tree: ContainerTree
) -> tuple[list[str], list[str]]:
    """Stage what update-ldcache hooks would leave behind: cache, configuration, missing links, musl's path.

    Returns:
        What is worth telling the user; and the real paths of what was staged.

    Raises:
        CdiError: a folder can't be written into a loader configuration, or something is in the way.

    """
    messages: list[str] = []
    preferred = [folder for rule in compat for folder in _preferred(rule, tree, messages)]
    folders = [folder for cache in caches for folder in cache.folders]
    update = ldcache.update(LoaderView(tree), folders=folders, compat_folders=preferred)
    paths = [link.path for link in update.links if _put_link(tree, link.path, link.points_to, messages)]
    files = (*update.files, ldcache.File(update.cache_path, update.cache), *filter(None, [update.musl]))
    paths += [_put_file(tree, file.path, file.content) for file in files]
    return [*messages, *update.notes], paths


def _preferred(rule: CudaCompat, tree: ContainerTree, messages: list[str]) -> list[str]:
    """The rule's directory, if its library is to come before the host's; says why or why not."""
    decision, directory = decide_compat(rule, tree)
    messages.append(f"{rule.directory}: {decision.reason}")
    return [directory] if decision.use else []


def decide_compat(rule: CudaCompat, tree: ContainerTree) -> tuple[cuda_compat.Decision, str]:
    """The rule of :mod:`cdi_hpc.container.cuda_compat` for this tree, and the directory's real path."""
    try:
        directory = tree.resolve(rule.directory)
        names = tree.names(directory)
    except (OSError, CdiError):
        return cuda_compat.Decision(use=False, reason="the image has no such directory"), rule.directory
    found = cuda_compat.find_compat(name for name in names if _is_file(tree, posixpath.join(directory, name)))
    if isinstance(found, cuda_compat.Decision):
        return found, directory
    try:
        with tree.open(posixpath.join(directory, found)) as stream:
            note = cuda_compat.read_note(stream)
    except OSError as error:
        return cuda_compat.Decision(use=False, reason=f"{found} can't be read: {error.strerror}"), directory
    return cuda_compat.use_compat(found, note, rule.host_driver_version, rule.host_cuda_version), directory


def _is_file(tree: ContainerTree, real_path: str) -> bool:
    entry = tree.entry(real_path)
    return entry is not None and entry.kind == "file"


def _put_link(tree: ContainerTree, real_path: str, points_to: str, messages: list[str]) -> bool:
    """Whether there was room for it."""
    if tree.is_mounted(real_path):
        messages.append(f"{real_path}: a mount is in the place of the link to {points_to}")
        return False
    tree.put(real_path, StagedLink(points_to))
    return True


def _put_file(tree: ContainerTree, path: str, content: bytes) -> str:
    """Cover whatever is at the name: a cache that is a link in the image must not lead us elsewhere.

    Returns:
        Its real path.

    """
    real_path = posixpath.join(tree.make_directory(posixpath.dirname(path)), posixpath.basename(path))
    entry = tree.entry(real_path)
    tree.refuse_mounted(real_path)
    if entry is not None and entry.kind == "directory":
        what = "is a directory in the image, and the loader's cache or configuration has to be written there"
        raise CdiError(Problem(real_path, what, "take another image, or mend it"))
    tree.put(real_path, StagedFile(content))
    return real_path


class LoaderView:
    """A :class:`cdi_hpc.ldcache.View` of an assembled tree."""

    def __init__(self, tree: ContainerTree) -> None:
        """Look at this tree, as it is now."""
        self._tree = tree

    def listdir(self, directory: str) -> Iterator[ldcache.Listed]:
        """See :class:`cdi_hpc.ldcache.View`."""
        below = list(self._tree.scan_below(directory))
        foreign = self._is_foreign(directory)
        added = self._tree.added_names(directory)
        for name, kind in below:
            if name not in added:
                yield ldcache.Listed(name, _KINDS[kind], foreign)
        for name in sorted(added):
            found_entry = self._tree.entry(posixpath.join(directory, name))
            if found_entry is not None:
                yield ldcache.Listed(name, _KINDS[found_entry.kind], injected=True)

    def lstat(self, path: str) -> ldcache.Status | None:
        """See :class:`cdi_hpc.ldcache.View`."""
        entry = self._tree.entry(path)
        if entry is None:
            return None
        injected = entry.staged is not None or self._tree.is_mounted(path) or self._is_foreign(path)
        return ldcache.Status(_KINDS[entry.kind], entry.identity or ("staged", path), injected and path != "/")

    def readlink(self, path: str) -> str:
        """See :class:`cdi_hpc.ldcache.View`."""
        return self._tree.readlink(path)

    def open(self, path: str) -> BinaryIO:
        """See :class:`cdi_hpc.ldcache.View`."""
        return self._tree.open(path)

    def _is_foreign(self, path: str) -> bool:
        """Whether the path lies in something that is mounted over the image."""
        return path != "/" and (self._tree.region_of(path) != 0 or self._tree.is_mounted(path))
