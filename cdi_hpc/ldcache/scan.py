"""What ldconfig(8) makes of one directory: the libraries it lists, and the links it makes.

The rules are those of glibc's elf/ldconfig.c since 2.37 (no libc5, no hwcap directories but glibc-hwcaps). Of all
files with one SONAME the newest is taken, by the digits in its name; a link is listed under its own name if that is
the SONAME or the development name (``libx.so`` for ``libx.so.1``), and is otherwise a file like any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cdi_hpc.ldcache import elf
from cdi_hpc.ldcache import format as cache
from cdi_hpc.ldcache.conf import Directory
from cdi_hpc.ldcache.tree import Tree
from cdi_hpc.ldcache.view import Listed

_MAX_HOPS = 40


class Candidate(NamedTuple):
    """A name in a directory that stands for a library.

    Attributes:
        name: the file's, or the link's.
        soname: the name it is listed under.
        is_link: a link that is listed under its own name.
        assumed: the library is what the image's cache said, not what the file says.

    """

    name: str
    soname: str
    library: elf.Library
    is_link: bool
    assumed: bool


@dataclass(frozen=True)
class Found:
    """A library of a directory, as it comes into the cache.

    Attributes:
        name: of the file that was chosen for the SONAME.
        soname: the name it is listed under.
        flags: of the file that was met first, which need not be the chosen one; ldconfig mixes them, and so do we.
        is_link: the name was a link already, and needs none.

    """

    name: str
    soname: str
    flags: int
    isa_level: int
    is_link: bool


class Link(NamedTuple):
    """A symbolic link to be made: ``path`` holds ``points_to``."""

    path: str
    points_to: str


def looks_like_library(name: str) -> bool:
    """Whether the dynamic loader could ask for a file of this name."""
    return (name.startswith(("lib", "ld-")) and ".so" in name) or name.startswith(("ld.so.", "ld64.so."))


def is_temporary(name: str) -> bool:
    """Whether rpm, dpkg or prelink is just writing the file."""
    return (
        ";" in name
        or name.endswith((".#prelink#", ".dpkg-new", ".dpkg-tmp"))
        or name[-len(".#prelink#.XXXXXX") :].startswith(".#prelink#.")
    )


class Scanner:
    """Goes through directories, one after the other, as ldconfig does.

    Attributes:
        links: the links that were made, in order.
        stale: canonical paths of links that lead nowhere; ldconfig removes them.

    """

    def __init__(self, tree: Tree, machine: str, known: Iterable[cache.Entry] = ()) -> None:
        """Scan ``tree`` as a ``machine``; ``known`` are entries of the image's own cache, to save reading files."""
        self.links: list[Link] = []
        self.stale: list[str] = []
        self._tree = tree
        self._machine = machine
        self._libraries: dict[tuple[str, bool], elf.Library | None] = {}
        self._known = _by_directory(tree, known)

    def scan(self, directory: Directory) -> list[cache.Entry]:
        """The cache's entries for a directory; its links are made in the tree."""
        listing = [entry for entry in self._tree.listdir(directory.where) if _may_be_listed(entry, directory)]
        known = {} if directory.hwcaps is not None else self._known.get(directory.where, {})
        groups = self._groups(directory, listing, known)
        if any(self._was_wrong(directory, group) for group in groups.values()):
            groups = self._groups(directory, listing, {})
        # ldconfig goes through its list backwards, which shows where names differ in leading zeros only.
        chosen = [_newest(group) for group in groups.values()][::-1]
        if directory.hwcaps is not None:
            return [_entry(directory, found, found.name) for found in chosen]
        for found in chosen:
            if not found.is_link:
                self._make_link(directory, found)
        return [_entry(directory, found, found.soname) for found in chosen]

    def _groups(self, directory: Directory, listing: list[Listed], known: dict[str, int]) -> dict[str, list[Candidate]]:
        neighbours = _Neighbours(self._tree, directory.where, listing, known) if known else None
        groups: dict[str, list[Candidate]] = defaultdict(list)
        for entry in listing:
            candidate = neighbours.candidate(entry) if neighbours else None
            candidate = candidate or self._candidate(directory, entry)
            if candidate is not None:
                groups[candidate.soname].append(candidate)
        return groups

    def _candidate(self, directory: Directory, entry: Listed) -> Candidate | None:
        where: str | None = f"{directory.where.rstrip('/')}/{entry.name}"
        if entry.kind == "link":
            where = self._follow(directory, entry.name)
        library = None if where is None else self._library(where, isa_level=directory.hwcaps is not None)
        if library is None:
            return None
        soname = entry.name if library.soname is None else library.soname
        is_link = entry.kind == "link" and _is_own_name(entry.name, soname)
        return Candidate(entry.name, entry.name if is_link else soname, library, is_link, assumed=False)

    def _follow(self, directory: Directory, name: str) -> str | None:
        where = self._tree.resolve(name, directory.where)
        status = None if where is None else self._tree.lstat(where)
        if status is None:
            if ".so." in name:
                self.stale.append(f"{directory.where.rstrip('/')}/{name}")
            return None
        return where if status.kind == "file" else None

    def _library(self, where: str, *, isa_level: bool = False) -> elf.Library | None:
        if (where, isa_level) not in self._libraries:
            file = self._tree.open(where)
            if file is None:
                return None
            with file:
                self._libraries[where, isa_level] = elf.read(file, self._machine, isa_level=isa_level)
        return self._libraries[where, isa_level]

    def _was_wrong(self, directory: Directory, group: list[Candidate]) -> bool:
        """Whether an assumption matters and does not hold.

        It matters where more than one file has a SONAME. That a name stands in the cache then does not prove that
        the file of this name, and not the other, has the SONAME and the ABI.
        """
        files = [candidate for candidate in group if not candidate.is_link]
        if len(files) == 1 or not any(candidate.assumed for candidate in group):
            return False
        for assumed in files:
            if assumed.assumed:
                library = self._library(f"{directory.where.rstrip('/')}/{assumed.name}")
                if library is None or (library.soname or assumed.name, library.flags) != (
                    assumed.soname,
                    assumed.library.flags,
                ):
                    return True
        return len({candidate.library.flags for candidate in group}) > 1

    def _make_link(self, directory: Directory, found: Found) -> None:
        if found.soname == found.name:
            return
        above = directory.where.rstrip("/")
        if "/" in found.soname:
            # ldconfig would follow it, to any directory of the container.
            self._tree.notes.append(f"{above}/{found.name}: no link is made for its SONAME {found.soname!r}")
            return
        path = f"{above}/{found.soname}"
        there = self._tree.resolve(found.soname, directory.where)
        if there is not None:
            if self._same(there, self._tree.resolve(found.name, directory.where)):
                return
            status = self._tree.lstat(path)
            if status is None or status.kind != "link":
                self._tree.notes.append(f"{path}: is not a link, {found.name!r} is not found under this name")
                return
        self.links.append(Link(path, found.name))
        self._tree.make_link(path, found.name)

    def _same(self, one: str, other: str | None) -> bool:
        if one == other or other is None:
            return True
        first, second = self._tree.lstat(one), self._tree.lstat(other)
        return first is not None and second is not None and first.identity == second.identity


class _Neighbours:
    """What the image's cache tells about the names of a directory, so that the files need not be read.

    The cache was made by an ldconfig that went through the directory and made its links. So a listed name that is
    a file is its own SONAME, and a listed name that is a link to a file in the directory is that file's SONAME,
    unless it is the development name. Where that gives a file more than one SONAME, or none, it has to be read.
    Nothing is assumed of what the image did not have, nor of what leads to it.
    """

    def __init__(self, tree: Tree, where: str, listing: list[Listed], known: dict[str, int]) -> None:
        self._known = known
        self._own = {entry.name: entry for entry in listing if not entry.injected}
        self._leads_to = self._ends(tree, where.rstrip("/"))
        self._sonames: dict[str, set[str]] = defaultdict(set)
        for name, entry in self._own.items():
            if name in known and entry.kind == "file":
                self._sonames[name].add(name)
        for name, end in self._leads_to.items():
            if name in known and not name.endswith(".so"):
                self._sonames[end].add(name)

    def candidate(self, entry: Listed) -> Candidate | None:
        is_link = entry.kind == "link"
        end = self._leads_to.get(entry.name) if is_link else entry.name
        sonames = self._sonames.get(end, set()) if end is not None else set()
        if entry.injected or len(sonames) != 1:
            return None
        (soname,) = sonames
        if is_link and (entry.name not in self._known or not _is_own_name(entry.name, soname)):
            return None
        listed_as = entry.name if is_link else soname
        library = elf.Library(soname, self._known[listed_as])
        return Candidate(entry.name, listed_as, library, is_link, assumed=True)

    def _ends(self, tree: Tree, where: str) -> dict[str, str]:
        """For each link, the file of the same directory that it leads to; links that lead elsewhere are left out."""
        texts = {name: tree.readlink(f"{where}/{name}") for name, entry in self._own.items() if entry.kind == "link"}
        ends = {}
        for name in texts:
            end: str | None = name
            for _ in range(_MAX_HOPS):
                end = texts.get(end) if end is not None else None
                if end not in texts:
                    break
            target = self._own.get(end) if end is not None else None
            if target is not None and target.kind == "file":
                ends[name] = target.name
        return ends


def _by_directory(tree: Tree, known: Iterable[cache.Entry]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for entry in known:
        if entry.hwcaps is None and not entry.legacy_hwcap:
            where = tree.resolve_parent(entry.path)
            if where is not None:
                # Before glibc 2.37 a 32-bit library could be of an unknown or an older kind.
                flags = entry.flags & cache.ABI_MASK | cache.LIBC6
                found[where.rpartition("/")[0] or "/"].setdefault(entry.name, flags)
    return found


def _may_be_listed(entry: Listed, directory: Directory) -> bool:
    if entry.kind not in ("file", "link") or is_temporary(entry.name):
        return False
    # In a glibc-hwcaps directory a link may have any name. That may not be meant so; the loader does not care.
    return looks_like_library(entry.name) or (entry.kind == "link" and directory.hwcaps is not None)


def _is_own_name(name: str, soname: str) -> bool:
    return name == soname or (name.endswith(".so") and soname.startswith(name))


def _newest(group: list[Candidate]) -> Found:
    best = group[0]
    for other in group[1:]:
        if (best.is_link and not other.is_link) or (
            best.is_link == other.is_link and cache.version_key(best.name) < cache.version_key(other.name)
        ):
            best = other
    return Found(best.name, best.soname, group[0].library.flags, best.library.isa_level, best.is_link)


def _entry(directory: Directory, found: Found, name: str) -> cache.Entry:
    return cache.Entry(
        found.soname, f"{directory.path}/{name}", found.flags, directory.hwcaps, _level(directory, found)
    )


def _level(directory: Directory, found: Found) -> int:
    return found.isa_level if directory.hwcaps is not None else 0


def names(directories: Iterable[Directory]) -> Iterator[str]:
    """The names of the glibc-hwcaps subdirectories among the directories."""
    return (directory.hwcaps for directory in directories if directory.hwcaps is not None)
