"""Shared objects of a few hundred bytes that ldconfig takes for real ones."""

from __future__ import annotations

import struct
from typing import NamedTuple

EM_386 = 3
EM_X86_64 = 62
EM_AARCH64 = 183
ET_EXEC = 2
ET_DYN = 3
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_PROPERTY = 1, 2, 0x6474E553
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME = 0, 1, 5, 14


class Class(NamedTuple):
    number: int
    header: str
    header_size: int
    segment_size: int
    dynamic: str
    word: int


CLASS32 = Class(1, "=HHIIIIIHHHHHH", 52, 32, "=iI", 4)
CLASS64 = Class(2, "=HHIQQQIHHHHHH", 64, 56, "=qQ", 8)


def _segment(kind: Class, what: int, offset: int, address: int, size: int, align: int) -> bytes:
    if kind is CLASS32:
        return struct.pack("=IIIIIIII", what, offset, address, address, size, size, 4, align)
    return struct.pack("=IIQQQQQQ", what, 4, offset, address, address, size, size, align)


def _property(isa_needed: int, word: int) -> bytes:
    body = struct.pack("=III", 0xC0008002, 4, isa_needed).ljust(16 if word == 8 else 12, b"\0")
    return struct.pack("=III4s", 4, len(body), 5, b"GNU\0") + body


def shared_object(
    soname: str | None,
    *,
    kind: Class = CLASS64,
    machine: int = EM_X86_64,
    elf_type: int = ET_DYN,
    needed: tuple[str, ...] = ("libc.so.6",),
    isa_needed: int = 0,
    base: int = 0x1000,
) -> bytes:
    """One PT_LOAD at ``base`` that holds the file, and a dynamic section with just NEEDED, SONAME and STRTAB."""
    count = 3 if isa_needed else 2
    properties = _property(isa_needed, kind.word) if isa_needed else b""
    at_properties = -(-(kind.header_size + count * kind.segment_size) // kind.word) * kind.word
    at_dynamic = at_properties + len(properties)
    strings = b"\0"
    tags = []
    for tag, text in [(_DT_NEEDED, name) for name in needed] + [(_DT_SONAME, soname)]:
        if text is not None:
            tags.append((tag, len(strings)))
            strings += text.encode("utf-8", "surrogateescape") + b"\0"
    at_strings = at_dynamic + (len(tags) + 2) * struct.calcsize(kind.dynamic)
    tags += [(_DT_STRTAB, base + at_strings), (_DT_NULL, 0)]
    dynamic = b"".join(struct.pack(kind.dynamic, tag, value) for tag, value in tags)
    size = at_strings + len(strings)
    segments = _segment(kind, _PT_LOAD, 0, base, size, 0x1000)
    segments += _segment(kind, _PT_DYNAMIC, at_dynamic, base + at_dynamic, len(dynamic), kind.word)
    if isa_needed:
        segments += _segment(kind, _PT_GNU_PROPERTY, at_properties, base + at_properties, len(properties), kind.word)
    ident = bytes([0x7F, *b"ELF", kind.number, 1, 1, 0]).ljust(16, b"\0")
    header = struct.pack(
        kind.header,
        *(elf_type, machine, 1, 0, kind.header_size, 0, 0),
        *(kind.header_size, kind.segment_size, count, 0, 0, 0),
    )
    return (ident + header + segments).ljust(at_properties, b"\0") + properties + dynamic + strings
