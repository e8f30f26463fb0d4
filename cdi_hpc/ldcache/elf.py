"""What ldconfig wants to know of a library: is it one for this machine, and under which SONAME.

The structures are pyelftools'. Its ELFFile is not used: that reads section headers, which a hostile file can
claim to have by the billion, and which the dynamic loader never looks at. Read are the ELF header, the program
headers and the dynamic section, each at its own place and no further than needed; elf(5), and the generic ABI's
chapter on program loading. Every read is bounded, whatever the file says.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Callable

from cdi_hpc.ldcache import format as cache
from cdi_hpc.ldcache.pyelftools import (
    E_FLAGS,
    ENUM_D_TAG_COMMON,
    ENUM_P_TYPE_BASE,
    ELFError,
    ELFStructs,
    struct_parse,
)

#: A dynamic section is some dozens of entries; a SONAME is a file's name.
_MAX_DYNAMIC = 1 << 16
_MAX_SONAME = 4096
_MAX_PROPERTIES = 1 << 12

#: ldconfig wants room for the bigger ELF header even of a 32-bit file.
_MIN_SIZE = 64
_WORD_64 = 8
#: <elf.h>: NT_GNU_PROPERTY_TYPE_0, and the property that names the ISA levels which a file cannot do without.
_PROPERTY_NOTE = 5
_X86_ISA_NEEDED = 0xC0008002
_LEVEL_SIZE = 4


@dataclass(frozen=True)
class Library:
    """A shared object that the dynamic loader of the machine can use.

    Attributes:
        soname: its DT_SONAME, None if it has none.
        flags: kind and ABI as the cache records them.
        isa_level: the highest x86 ISA level that it needs, 0 for the baseline or none.

    """

    soname: str | None
    flags: int
    isa_level: int = 0


def _x86(header: Any, word: int) -> int | None:
    if header.e_machine == "EM_X86_64":
        return cache.LIBC6 | (cache.X86_64 if word == _WORD_64 else cache.X32)
    return cache.LIBC6 if header.e_machine == "EM_386" and word != _WORD_64 else None


def _arm(header: Any, word: int) -> int | None:
    if word == _WORD_64:
        return cache.LIBC6 | cache.AARCH64
    if header.e_flags & E_FLAGS.EF_ARM_EABIMASK != E_FLAGS.EF_ARM_EABI_VER5:
        return cache.LIBC6
    if header.e_flags & E_FLAGS.EF_ARM_ABI_FLOAT_HARD:
        return cache.LIBC6 | cache.ARM_HARD_FLOAT
    return cache.LIBC6 | (cache.ARM_SOFT_FLOAT if header.e_flags & E_FLAGS.EF_ARM_ABI_FLOAT_SOFT else 0)


def _powerpc(_: Any, word: int) -> int | None:
    return cache.LIBC6 | (cache.POWERPC64 if word == _WORD_64 else 0)


#: What the ldconfig of a machine (uname(2)) makes of an ELF header: flags for the cache, or None for "not mine".
FLAGS: dict[str, Callable[[Any, int], int | None]] = {
    "x86_64": _x86,
    "aarch64": _arm,
    "ppc64le": _powerpc,
}


#: What reading a file raises that makes no sense. OverflowError: an offset that no file can have; OSError: the same on
#: a file system, or a read error.
NONSENSE = (ELFError, OverflowError, OSError, ValueError, struct.error)


@functools.cache
def _structs(elfclass: int) -> Any:
    """The structures of a class, in the byte order of this machine: ldconfig knows no other."""
    structs = ELFStructs(little_endian=sys.byteorder == "little", elfclass=elfclass)
    structs.create_basic_structs()
    structs.create_advanced_structs()
    return structs


def _first_words(names: Mapping[str, int], wanted: Iterable[str]) -> frozenset[bytes]:
    return frozenset(struct.pack("=I", names[name]) for name in wanted)


_SEGMENTS = _first_words(ENUM_P_TYPE_BASE, ("PT_LOAD", "PT_DYNAMIC", "PT_GNU_PROPERTY"))
_NAMES = ("DT_STRTAB", "DT_SONAME")


@functools.cache
def _tag_words(tags: tuple[str, ...]) -> frozenset[bytes]:
    return _first_words(ENUM_D_TAG_COMMON, ("DT_NULL", *tags))


@dataclass(frozen=True)
class Object:
    """An ELF file that the dynamic loader has something to do with.

    Attributes:
        size: of the file.
        flags: kind and ABI as the cache records them.
        word: bytes in an address.
        structs: the structures of its class (pyelftools).
        segments: the program headers that say something here.
        dynamic: where the dynamic section is.

    """

    file: BinaryIO
    size: int
    flags: int
    word: int
    structs: Any
    segments: list[Any]
    dynamic: int

    def entries(self, tags: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        """Entries of the dynamic section with these tags, in order."""
        each = self.structs.Elf_Dyn.sizeof()
        words = _tag_words(tags)
        data = _at(self.file, self.dynamic, _MAX_DYNAMIC)
        for at in range(0, len(data) - each + 1, each):
            # As for program headers; a tag's upper half is zero or it is none of these.
            if data[at : at + 4] in words:
                entry = struct_parse(self.structs.Elf_Dyn, BytesIO(data[at : at + each]))
                if entry.d_tag == "DT_NULL":
                    return
                yield entry.d_tag, entry.d_val

    def offset(self, address: int) -> int:
        """Where an address is in the file."""
        for segment in self.segments:
            if segment.p_type == "PT_LOAD" and 0 <= address - segment.p_vaddr < segment.p_filesz:
                offset: int = address - segment.p_vaddr + segment.p_offset
                return offset
        return address

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Of the file; fewer at its end."""
        return _at(self.file, offset, size)


def open_object(file: BinaryIO, machine: str, types: tuple[str, ...] = ("ET_DYN",)) -> Object | None:
    """An ELF file of one of these types with a dynamic section, if ``machine`` (a key of :data:`FLAGS`) runs it.

    Raises:
        ELFError, OverflowError, OSError, ValueError, struct.error: it makes no sense, or can't be read.

    """
    size = file.seek(0, os.SEEK_END)
    start = _at(file, 0, _MIN_SIZE)
    if size < _MIN_SIZE or start[:4] != b"\x7fELF":
        return None
    word = {1: 4, 2: _WORD_64}.get(start[4])
    if word is None:
        return None
    structs = _structs(word * 8)
    header = struct_parse(structs.Elf_Ehdr, BytesIO(start))
    flags = FLAGS[machine](header, word)
    if header.e_type not in types or flags is None:
        return None
    segments = _segments(file, structs, header, size)
    dynamic = [segment for segment in segments or () if segment.p_type == "PT_DYNAMIC"]
    if not segments or not dynamic or not dynamic[-1].p_filesz or dynamic[-1].p_offset > size:
        return None
    return Object(file, size, flags, word, structs, segments, dynamic[-1].p_offset)


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _segments(file: BinaryIO, structs: Any, header: Any, size: int) -> list[Any] | None:
    """The program headers that say something here."""
    each = structs.Elf_Phdr.sizeof()
    table = each * header.e_phnum
    # The last header may be cut off (and counts as zeros, as in a mapping's last page), but it must begin inside.
    if header.e_phoff + table - each > size or header.e_phoff > size:
        return None
    data = _at(file, header.e_phoff, table).ljust(table, b"\0")
    # Looked at before they are taken apart: most are of no interest, and taking one apart takes long.
    wanted = [at for at in range(0, table, each) if data[at : at + 4] in _SEGMENTS]
    return [struct_parse(structs.Elf_Phdr, BytesIO(data[at : at + each])) for at in wanted]


def _strings_and_soname(entries: Iterator[tuple[str, int]]) -> tuple[int | None, int | None]:
    strings = soname = None
    for tag, value in entries:
        if tag == "DT_STRTAB" and strings is None:
            strings = value
        elif tag == "DT_SONAME" and soname is None:
            soname = value
        if strings is not None and soname is not None:
            break
    return strings, soname


def _x86_isa_level(file: BinaryIO, segment: Any, word: int) -> int:
    """The bit number of the highest level in a PT_GNU_PROPERTY segment; the note's layout is in the x86 psABI."""
    if segment.p_align != word:
        return 0
    data = _at(file, segment.p_offset, min(segment.p_filesz, _MAX_PROPERTIES))
    at = 0
    while at + 12 < len(data):
        name_size, size, kind = struct.unpack_from("=III", data, at)
        if (name_size, kind, data[at + 12 : at + 16]) == (4, _PROPERTY_NOTE, b"GNU\0"):
            # A malformed note says nothing, and a second note of the kind is not read.
            return 0 if size % word else _needed(data[at + 16 : at + 16 + size], word)
        at += (12 + name_size + word - 1) // word * word
        at = (at + size + word - 1) // word * word
    return 0


def _needed(properties: bytes, word: int) -> int:
    at = last = 0
    while at + 8 <= len(properties):
        kind, size = struct.unpack_from("=II", properties, at)
        at += 8
        if kind < last or at + size > len(properties) or kind > _X86_ISA_NEEDED:
            return 0
        if kind == _X86_ISA_NEEDED:
            level = struct.unpack_from("=I", properties, at)[0] if size == _LEVEL_SIZE else 0
            return max(level.bit_length() - 1, 0)
        last = kind
        at += (size + word - 1) // word * word
    return 0


def read(file: BinaryIO, machine: str, *, isa_level: bool = True) -> Library | None:
    """What ldconfig on ``machine`` (a key of :data:`FLAGS`) takes the file for, None for no library.

    Without ``isa_level`` that is not looked for, and is 0.

    Linker scripts, programs at fixed addresses, core dumps, libraries of other machines, and files that are cut
    off or make no sense are no libraries.
    """
    try:
        return _read(file, machine, isa_level=isa_level)
    except NONSENSE:
        return None


def _read(file: BinaryIO, machine: str, *, isa_level: bool) -> Library | None:
    found = open_object(file, machine)
    if found is None:
        return None
    strings, soname = _strings_and_soname(found.entries(_NAMES))
    if strings is None:
        return None
    at = found.offset(strings)
    if at > found.size:
        return None
    name = None
    if soname is not None:
        name = _name(file, at + soname, found.size)
        if name is None:
            return None
    wanted = isa_level and machine == "x86_64"
    return Library(name, found.flags, _isa_level(file, found.segments, found.word) if wanted else 0)


def _name(file: BinaryIO, at: int, size: int) -> str | None:
    if at > size:
        return None
    text, _, _ = _at(file, at, _MAX_SONAME).partition(b"\0")
    return os.fsdecode(text) if len(text) < _MAX_SONAME else None


def _isa_level(file: BinaryIO, segments: list[Any], word: int) -> int:
    levels = [_x86_isa_level(file, s, word) for s in segments if s.p_type == "PT_GNU_PROPERTY"]
    return next((level for level in reversed(levels) if level), 0)
