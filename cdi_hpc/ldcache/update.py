"""ldconfig(8) for a container, without running it: what NVIDIA's update-ldcache hook leaves behind, as a value.

The hook writes drop-ins for /etc/ld.so.conf that name the folders and runs the host's ldconfig in the container.
It needs a writable root and an ldconfig that fits. Here the same files, the same links and the same cache are worked
out from a view of the container, to be layered over it. There is one way to the cache: every configured directory
is listed. What makes it fast is that the image's own cache is believed about the files that were in the image, so
only injected libraries, and the few files that the cache does not account for, are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.ldcache import conf, elf, musl, scan
from cdi_hpc.ldcache import format as cache
from cdi_hpc.ldcache.tree import Tree
from cdi_hpc.ldcache.view import View

CACHE = "/etc/ld.so.cache"
_MAX_CACHE = 1 << 26

# Drop-ins are read in the order of their names, and the first directory wins. These names take the very places of
# the vendor's (00-compat-RANDOM, 00-nvcr-RANDOM, zz-nvcr-RANDOM), before and behind whatever an image has.
_COMPAT = f"{conf.DROP_INS}/00-compat-cdi-hpc.conf"
_FOLDERS = f"{conf.DROP_INS}/00-nvcr-cdi-hpc.conf"
_SYSTEM = f"{conf.DROP_INS}/zz-nvcr-cdi-hpc.conf"


class File(NamedTuple):
    """A file to be written: canonical path in the container, and content."""

    path: str
    content: bytes


@dataclass(frozen=True)
class Update:
    """What has to be laid over the container so that the loader finds the libraries.

    Attributes:
        cache: the content of /etc/ld.so.cache.
        cache_path: its canonical path.
        links: the links that ldconfig would make or change; paths are canonical.
        files: configuration that the cache was made from, for a later ldconfig in the container.
        musl: the search path of musl's loader, None if the container has no musl.
        stale: links that lead nowhere, which ldconfig would remove; the cache does not list them.
        notes: what was ignored or left undone, and why.

    """

    cache: bytes
    cache_path: str
    links: tuple[scan.Link, ...]
    files: tuple[File, ...]
    musl: File | None
    stale: tuple[str, ...]
    notes: tuple[str, ...]


def update(
    view: View,
    *,
    folders: Iterable[str] = (),
    compat_folders: Iterable[str] = (),
    machine: str | None = None,
    trust_image_cache: bool = True,
) -> Update:
    """What NVIDIA's enable-cuda-compat and update-ldcache hooks, or ldconfig alone, would leave behind.

    Args:
        view: the container with everything in it that is injected.
        folders: directories of the container with injected libraries, in order of precedence.
        compat_folders: directories that come before everything else.
        machine: as in uname(2); by default this host's.
        trust_image_cache: believe the image's cache about the files that were in the image. That gives another
            result than reading them only if the image changed a file's SONAME, but not its name, with no ldconfig
            since; or if its ldconfig had to warn (of a file in the place of a link, or of two ABIs with one SONAME
            in one directory) and the other file of the two is now covered.

    Raises:
        CdiError: a folder can't be written into a configuration, or ldconfig's rules for the machine are not known.

    """
    machine = machine or os.uname().machine
    if machine not in elf.FLAGS:
        raise CdiError(Problem(CACHE, f"no rules for machine {machine!r}", f"known are {', '.join(elf.FLAGS)}"))
    tree = Tree(view)
    compat_folders = _checked(compat_folders)
    files, added = _configure(tree, machine, _checked(folders), compat_folders)
    configured = conf.configured(tree)
    _note_ineffective(tree, configured, [*compat_folders, *added])
    found = conf.directories(tree, [*configured, *conf.system_directories(tree, machine)])
    known = _image_cache(tree) if trust_image_cache else ()
    scanner = scan.Scanner(tree, machine, known)
    entries = [entry for directory in found for entry in scanner.scan(directory)]
    path = musl.search_path(tree, machine, added, conf.system_directories(tree, machine))
    return Update(
        cache=cache.render(entries, unused=scan.names(found)),
        cache_path=tree.resolve_parent(CACHE) or CACHE,
        links=tuple(scanner.links),
        files=tuple(files),
        musl=None if path is None else File(*path),
        stale=tuple(sorted(set(scanner.stale))),
        notes=tuple(dict.fromkeys(tree.notes)),
    )


def _checked(folders: Iterable[str]) -> list[str]:
    """The folders without slashes at their ends, each once.

    There is no quoting in ld.so.conf(5), so what would be read as something else is refused.
    """
    checked = dict.fromkeys(folder.rstrip("/") for folder in folders)
    for folder in checked:
        if not folder.startswith("/") or folder != folder.strip() or any(c in folder for c in "\n\0#:"):
            raise CdiError(
                Problem(
                    "update-ldcache",
                    f"folder {folder!r} can't be named in {conf.PATH}",
                    "use an absolute path without colons, '#', line ends and surrounding blanks",
                )
            )
    return list(checked)


def _configure(tree: Tree, machine: str, folders: list[str], compat_folders: list[str]) -> tuple[list[File], list[str]]:
    """Write the configuration into the tree; returns the files, and the folders that were not configured yet."""
    files = []

    def write(path: str, lines: Iterable[str]) -> None:
        content = b"".join(os.fsencode(line) + b"\n" for line in lines)
        if content:
            files.append(File(tree.make_file(path, content), content))

    write(_COMPAT, compat_folders)
    where = tree.resolve_parent(conf.PATH)
    if where is None or tree.lstat(where) is None:
        write(conf.PATH, [f"include {conf.DROP_INS}/*.conf"])
    system = conf.system_directories(tree, machine)
    configured = {*conf.configured(tree), *system}
    added = [folder for folder in folders if folder not in configured]
    write(_FOLDERS, added)
    write(_SYSTEM, system)
    return files, added


def _note_ineffective(tree: Tree, configured: list[str], folders: list[str]) -> None:
    for folder in folders:
        if folder not in configured:
            tree.notes.append(f"{folder}: not searched, the image's {conf.PATH} does not include {conf.DROP_INS}")


def _image_cache(tree: Tree) -> tuple[cache.Entry, ...]:
    status = tree.status(CACHE)
    if status is None or status.injected:
        return ()
    content = tree.read(CACHE, _MAX_CACHE)
    try:
        return () if content is None else cache.entries(content)
    except cache.CorruptCacheError as error:
        tree.notes.append(f"{CACHE}: ignored, {error}; all libraries were read instead")
        return ()
