"""Writes ELF files with sections and nothing else: stand-ins for the libcuda of a CUDA image."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

SHT_PROGBITS, SHT_STRTAB, SHT_NOTE = 1, 3, 7


@dataclass(frozen=True)
class Section:
    name: str
    type: int
    data: bytes
    alignment: int = 4


def elf(*sections: Section, bits: int = 64, order: str = "<") -> bytes:
    """A shared object with these sections, its name table last. elf(5)."""
    names = Section(".shstrtab", SHT_STRTAB, b"\0.shstrtab\0" + b"".join(s.name.encode() + b"\0" for s in sections), 1)
    head, word = (64, "Q") if bits == 64 else (52, "I")
    body, rows = b"", [bytes(64 if bits == 64 else 40)]
    for section in (*sections, names):
        body += bytes(-(head + len(body)) % 8)
        place = names.data.index(b"\0" + section.name.encode() + b"\0") + 1
        fields = (place, section.type, 0, 0, head + len(body), len(section.data), 0, 0, section.alignment, 0)
        rows.append(struct.pack(f"{order}II{word}{word}{word}{word}II{word}{word}", *fields))
        body += section.data
    body += bytes(-(head + len(body)) % 8)
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    tail = (head, 0, 0, len(rows[0]), len(rows), len(rows) - 1)
    header = ident + struct.pack(f"{order}HHI{word}{word}{word}IHHHHHH", 3, 62, 1, 0, 0, head + len(body), 0, *tail)
    return header + body + b"".join(rows)


def note(document: object, *, vendor: bytes = b"NVIDIA Corporation", alignment: int = 4, order: str = "<") -> bytes:
    """An ELF note whose description is ``document``: bytes as they are, anything else as JSON."""
    description = document if isinstance(document, bytes) else json.dumps(document).encode()
    name = vendor + b"\0"
    padding = bytes(-len(name) % alignment)
    return struct.pack(order + "III", len(name), len(description), 0) + name + padding + description


def library(document: object, **form: object) -> bytes:
    """A library with the note of forward compatibility, after a note of another kind as the linker places it."""
    order, alignment = str(form.get("order", "<")), int(str(form.get("alignment", 4)))
    build_id = Section(".note.gnu.build-id", SHT_NOTE, note(bytes(20), vendor=b"GNU", order=order))
    data = note(document, alignment=alignment, order=order)
    compat = Section(".note.cuda.fwd_compatibility", SHT_NOTE, data, alignment)
    return elf(build_id, compat, bits=int(str(form.get("bits", 64))), order=order)
