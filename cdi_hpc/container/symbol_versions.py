"""Symbol versions: what a library needs of others, and what it provides.

The dynamic loader compares names only: each version that a library's ``.gnu.version_r`` names for another library must
be in that one's ``.gnu.version_d``, unless it is marked weak, and unless that one has no versions at all (Linux
Standard Base Core, "Symbol Versioning"; glibc's elf/dl-version.c). Both tables are found by the dynamic section, as the
loader finds them: section headers may be stripped, and are not looked at.

The structures are pyelftools'; every read is bounded, whatever the file says.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from cdi_hpc.ldcache import elf

#: Symbol versions are dozens; glibc's own table has some 50 entries.
_MAX_TABLE = 1 << 16
_MAX_ENTRIES = 4096
_MAX_NAME = 1024
#: String tables up to this size are read at once.
_SMALL_TABLE = 1 << 17

_TAGS = (
    "DT_STRTAB",
    "DT_STRSZ",
    "DT_SONAME",
    "DT_RPATH",
    "DT_RUNPATH",
    "DT_VERNEED",
    "DT_VERDEF",
)
_TYPES = ("ET_DYN", "ET_EXEC")
#: VER_FLG_WEAK of <elf.h>.
_WEAK = 2


@dataclass(frozen=True)
class Versions:
    """An ELF file's symbol versions.

    Attributes:
        flags: kind and ABI, as ``ld.so.cache`` records them.
        soname: its DT_SONAME, or "".
        needs: pairs of another library's SONAME and a version that it must have, each once, in the file's order.
        provides: the versions that it has; None if it has no versions, and so any.
        run_path: directories where its own needs are looked for first, as they are written (DT_RUNPATH, DT_RPATH).

    """

    flags: int
    soname: str
    needs: tuple[tuple[str, str], ...]
    provides: frozenset[str] | None
    run_path: tuple[str, ...]

    @property
    def needs_libc(self) -> bool:
        """Whether it was linked with glibc."""
        return any(soname == "libc.so.6" for soname, _ in self.needs)


def read_versions(file: BinaryIO, machine: str) -> Versions | None:
    """Symbol versions of a library or a program.

    Args:
        file: seekable.
        machine: as in uname(2), a key of :data:`cdi_hpc.ldcache.elf.FLAGS`.

    Returns:
        None if it is no file that the dynamic loader of this machine takes, or makes no sense.

    """
    try:
        found = elf.open_object(file, machine, _TYPES)
        return None if found is None else _versions(found)
    except elf.NONSENSE:
        return None


def _versions(found: elf.Object) -> Versions | None:
    tags: dict[str, int] = {}
    for tag, value in found.entries(_TAGS):
        tags.setdefault(tag, value)
    if "DT_STRTAB" not in tags:
        return None
    names = _Names(found, found.offset(tags["DT_STRTAB"]), tags.get("DT_STRSZ", 0))
    path = tags.get("DT_RUNPATH", tags.get("DT_RPATH"))
    return Versions(
        flags=found.flags,
        soname=names[tags["DT_SONAME"]] if "DT_SONAME" in tags else "",
        needs=tuple(dict.fromkeys(_needs(found, tags["DT_VERNEED"], names))) if "DT_VERNEED" in tags else (),
        provides=frozenset(_provides(found, tags["DT_VERDEF"], names)) if "DT_VERDEF" in tags else None,
        run_path=tuple(filter(None, names[path].split(":"))) if path is not None else (),
    )


class _Names:
    """A string table."""

    def __init__(self, found: elf.Object, offset: int, size: int) -> None:
        self._found = found
        self._offset = offset
        self._table = found.bytes_at(offset, size) if size <= _SMALL_TABLE else None

    def __getitem__(self, at: int) -> str:
        if self._table is not None:
            name = self._table[at : at + _MAX_NAME]
        else:
            name = self._found.bytes_at(self._offset + at, _MAX_NAME)
        return os.fsdecode(name.partition(b"\0")[0])


@functools.cache
def _layout(structs: Any, name: str) -> tuple[struct.Struct, tuple[str, ...]]:
    """One of pyelftools' structures as a format of struct: it has numbers only, and is read by the hundred."""
    fields = getattr(structs, name).subcons
    sizes = {2: "H", 4: "I"}
    form = "=" + "".join(sizes[field.sizeof()] for field in fields)
    return struct.Struct(form), tuple(field.name for field in fields)


class _Table:
    """A table whose entries tell how far the next one is."""

    def __init__(self, found: elf.Object, address: int) -> None:
        self._structs = found.structs
        self._data = found.bytes_at(found.offset(address), _MAX_TABLE)
        self._left = _MAX_ENTRIES

    def chain(self, name: str, link: str, at: int = 0) -> Iterator[tuple[int, dict[str, int]]]:
        """Entries from a place on, each with its place, until one has no next."""
        layout, fields = _layout(self._structs, name)
        while 0 <= at <= len(self._data) - layout.size and self._left > 0:
            self._left -= 1
            entry = dict(zip(fields, layout.unpack_from(self._data, at)))
            yield at, entry
            if not entry[link]:
                return
            at += entry[link]


def _needs(found: elf.Object, address: int, names: _Names) -> Iterator[tuple[str, str]]:
    table = _Table(found, address)
    for at, need in table.chain("Elf_Verneed", "vn_next"):
        library = names[need["vn_file"]]
        for _, version in table.chain("Elf_Vernaux", "vna_next", at + need["vn_aux"]):
            if not version["vna_flags"] & _WEAK:
                yield library, names[version["vna_name"]]


def _provides(found: elf.Object, address: int, names: _Names) -> Iterator[str]:
    table = _Table(found, address)
    for at, definition in table.chain("Elf_Verdef", "vd_next"):
        # The first name is the version's; others are those that it follows.
        for _, name in table.chain("Elf_Verdaux", "vda_next", at + definition["vd_aux"]):
            yield names[name["vda_name"]]
            break
