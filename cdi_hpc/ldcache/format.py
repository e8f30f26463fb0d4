"""The file /etc/ld.so.cache: its entries, their order, and its bytes.

The layout is glibc's sysdeps/generic/dl-cache.h: the format named ``glibc-ld.so.cache1.1``, which is what ldconfig
writes since glibc 2.32, with the extension section of 2.33. Read is also the older file that carries the new
format behind a table for libc5, and that table alone. Numbers are in the byte order of the machine.
"""

from __future__ import annotations

import os
import re
import string
import struct
import sys
from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple

_NEW_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_MAGIC = b"ld.so-1.7.0\0"
#: magic, number of entries, size of the strings, flags (byte order), offset of the extensions, reserved
_NEW_HEADER = struct.Struct("=20sIIB3xI12x")
#: flags, offset of the name, offset of the path, unused OS version, hwcap
_NEW_ENTRY = struct.Struct("=iIIIQ")
_OLD_HEADER = struct.Struct("=12sI")
_OLD_ENTRY = struct.Struct("=iII")
_EXTENSION_HEADER = struct.Struct("=II")
#: tag, flags, offset, size
_EXTENSION_SECTION = struct.Struct("=IIII")
_EXTENSION_MAGIC = 0xEAA42174
_TAG_GENERATOR = 0
_TAG_HWCAPS = 1

_BYTE_ORDER = 2 if sys.byteorder == "little" else 3
#: The lower half of the hwcap field is an index into the section of glibc-hwcaps names if, of the upper half, this
#: bit alone is set next to the ten bits of the ISA level.
_HWCAP_EXTENSION = 1 << 62
_ISA_LEVEL_MASK = 0x3FF

TYPE_MASK = 0x00FF
ABI_MASK = 0xFF00
LIBC6 = 3
_TYPE_NAMES = {0: "libc4", 1: "ELF", 2: "libc5", LIBC6: "libc6"}
X86_64 = 0x0300
POWERPC64 = 0x0500
X32 = 0x0800
ARM_HARD_FLOAT = 0x0900
AARCH64 = 0x0A00
ARM_SOFT_FLOAT = 0x0B00
_ABI_NAMES = {
    0: "",
    X86_64: ",x86-64",
    0x0400: ",64bit",
    POWERPC64: ",64bit",
    X32: ",x32",
    ARM_HARD_FLOAT: ",hard-float",
    AARCH64: ",AArch64",
    ARM_SOFT_FLOAT: ",soft-float",
    0x0F00: ",soft-float",
    0x1000: ",double-float",
}


class CorruptCacheError(ValueError):
    """The bytes are not a cache that the dynamic loader of this machine would take."""


class Entry(NamedTuple):
    """One library as the dynamic loader finds it.

    Attributes:
        name: what a program asks for, usually the SONAME.
        path: where it is.
        flags: kind of library in the lower byte, ABI in the next (``FLAG_*`` in glibc's ldconfig.h).
        hwcaps: name of the glibc-hwcaps subdirectory that it was found in.
        isa_level: the ISA level that its file asks for; recorded together with ``hwcaps`` only.
        legacy_hwcap: bits of the mechanism that glibc 2.37 removed.

    """

    name: str
    path: str
    flags: int
    hwcaps: str | None = None
    isa_level: int = 0
    legacy_hwcap: int = 0

    def __str__(self) -> str:
        """The line of ``ldconfig -p``."""
        kind = _TYPE_NAMES.get(self.flags & TYPE_MASK, "unknown")
        abi = self.flags & ABI_MASK
        hwcap = ""
        if self.hwcaps is not None:
            hwcap = f', hwcap: "{self.hwcaps}"'
        elif self.legacy_hwcap:
            hwcap = f", hwcap: {self.legacy_hwcap:#018x}"
        return f"\t{self.name} ({kind}{_ABI_NAMES.get(abi, f',{abi}')}{hwcap}) => {self.path}"


# -- order ----------------------------------------------------------------------------------------------------

# The loader compares names as glibc's _dl_cache_libcmp does: a run of digits by its value and after any other
# character; other characters as C's char; an end before any character but those with a negative char. So that
# bytes compare like that, each becomes its rank, with the end and "digits follow" as characters of their own.
_CHAR_IS_SIGNED = os.uname().machine in {"x86_64", "i386", "i486", "i586", "i686"}
_END = b"\x80" if _CHAR_IS_SIGNED else b"\x00"
_DIGITS_FOLLOW = b"\xff"


def _ranks() -> bytes:
    others = [byte for byte in range(1, 256) if chr(byte) not in string.digits]
    if _CHAR_IS_SIGNED:
        negative, positive = others[-128:], others[:-128]
        rank = {byte: index for index, byte in enumerate(negative)}
        rank.update({byte: 0x81 + index for index, byte in enumerate(positive)})
    else:
        rank = {byte: 1 + index for index, byte in enumerate(others)}
    return bytes(rank.get(byte, 0) for byte in range(256))


_RANKS = _ranks()
_DIGITS = re.compile(rb"([0-9]+)")


def _c_int(digits: bytes) -> int:
    # Overflow wraps: the loader's search has to agree with the order, whatever the number was meant to be. Four
    # thousand digits are longer than any name; int() refuses more.
    return (int(digits[-4000:]) + 0x80000000) % 0x100000000 - 0x80000000


def version_key(name: str) -> tuple[bytes | int, ...]:
    """A key by which names compare as in _dl_cache_libcmp of glibc: libx.so.9 before libx.so.10."""
    parts: list[bytes | int] = list(_DIGITS.split(os.fsencode(name)))
    for index in range(0, len(parts), 2):
        end = _END if index == len(parts) - 1 else _DIGITS_FOLLOW
        parts[index] = parts[index].translate(_RANKS) + end  # type: ignore[union-attr]
    for index in range(1, len(parts), 2):
        parts[index] = _c_int(parts[index])  # type: ignore[arg-type]
    return tuple(parts)


def _second_key(entry: Entry) -> tuple[int, bool, bytes]:
    # The loader stops at the first entry without glibc-hwcaps, so those with one come first.
    return -entry.flags, entry.hwcaps is None, os.fsencode(entry.hwcaps or "")


def in_cache_order(entries: Iterable[Entry]) -> list[Entry]:
    """Entries in the order of the file; of equal ones, those that were found first come first."""
    ordered = sorted(entries, key=_second_key)
    keys: dict[str, tuple[bytes | int, ...]] = {}
    for entry in ordered:
        if entry.name not in keys:
            keys[entry.name] = version_key(entry.name)
    # sort() with reverse=True keeps equal ones in their order.
    decorated = sorted(((keys[entry.name], entry) for entry in ordered), key=itemgetter(0), reverse=True)
    return [entry for _, entry in decorated]


# -- writing --------------------------------------------------------------------------------------------------


class _Strings:
    """The string table: every string once, and none that is the end of another (as glibc's stringtable.c)."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._offsets: dict[str, int] = {}
        table = []
        size = 0
        last = b""
        encoded = ((os.fsencode(text)[::-1], text) for text in set(strings))
        for backwards, text in sorted(encoded, reverse=True):
            # In this order a string comes right behind those that it is the end of.
            if size and last.startswith(backwards):
                self._offsets[text] = size - 1 - len(backwards)
                continue
            table.append(backwards[::-1])
            self._offsets[text] = size
            size += len(backwards) + 1
            last = backwards
        self.table = b"".join(text + b"\0" for text in table)

    def offset(self, text: str) -> int:
        return self._offsets[text]


def _hwcap_field(entry: Entry, index: dict[str, int]) -> int:
    if entry.hwcaps is None:
        return entry.legacy_hwcap
    return _HWCAP_EXTENSION | entry.isa_level << 32 | index[entry.hwcaps]


def _extensions(at: int, hwcaps: list[int], generator: bytes) -> bytes:
    count = 2 if hwcaps else 1
    data = at + _EXTENSION_HEADER.size + count * _EXTENSION_SECTION.size
    names = struct.pack(f"={len(hwcaps)}I", *hwcaps)
    parts = [
        _EXTENSION_HEADER.pack(_EXTENSION_MAGIC, count),
        _EXTENSION_SECTION.pack(_TAG_GENERATOR, 0, data + len(names), len(generator)),
    ]
    if hwcaps:
        parts.append(_EXTENSION_SECTION.pack(_TAG_HWCAPS, 0, data, len(names)))
    return b"".join([*parts, names, generator])


def render(entries: Iterable[Entry], *, generator: bytes = b"cdi-hpc", unused: Iterable[str] = ()) -> bytes:
    """The bytes of a cache with these entries, which are put in order.

    Args:
        entries: in the order in which they were found.
        generator: who made it; ``ldconfig -p`` prints it.
        unused: strings that ldconfig keeps although no entry needs them: names of glibc-hwcaps directories that
            hold no library.

    """
    ordered = in_cache_order(entries)
    names = sorted({entry.hwcaps for entry in ordered if entry.hwcaps is not None}, key=os.fsencode)
    strings = _Strings([*unused, *names, *(text for entry in ordered for text in entry[:2])])
    start = _NEW_HEADER.size + _NEW_ENTRY.size * len(ordered)
    at = (start + len(strings.table) + 3) & ~3
    index = {name: position for position, name in enumerate(names)}
    parts = [_NEW_HEADER.pack(_NEW_MAGIC, len(ordered), len(strings.table), _BYTE_ORDER, at)]
    parts += [
        _NEW_ENTRY.pack(
            entry.flags,
            start + strings.offset(entry.name),
            start + strings.offset(entry.path),
            0,
            _hwcap_field(entry, index),
        )
        for entry in ordered
    ]
    parts.append(strings.table.ljust(at - start, b"\0"))
    parts.append(_extensions(at, [start + strings.offset(name) for name in names], generator))
    return b"".join(parts)


# -- reading --------------------------------------------------------------------------------------------------


def _string(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset)
    if offset >= len(data) or end < 0:
        raise CorruptCacheError(f"a string at offset {offset} of {len(data)} bytes")
    return os.fsdecode(data[offset:end])


def _hwcap_names(data: bytes, at: int) -> list[str]:
    """The names of the glibc-hwcaps section; ``at`` is where the extensions start, 0 for none."""
    if at == 0:
        return []
    if at % 4 or at + _EXTENSION_HEADER.size > len(data):
        raise CorruptCacheError(f"extensions at offset {at} of {len(data)} bytes")
    magic, count = _EXTENSION_HEADER.unpack_from(data, at)
    first = at + _EXTENSION_HEADER.size
    if magic != _EXTENSION_MAGIC or count > (len(data) - first) // _EXTENSION_SECTION.size:
        raise CorruptCacheError("malformed extensions")
    names: list[str] = []
    for section in range(count):
        tag, _, offset, size = _EXTENSION_SECTION.unpack_from(data, first + section * _EXTENSION_SECTION.size)
        if offset + size > len(data):
            raise CorruptCacheError("an extension that ends behind the file")
        if tag == _TAG_HWCAPS and size % 4 == 0 and offset % 4 == 0:
            names = [_string(data, at) for at in struct.unpack_from(f"={size // 4}I", data, offset)]
    return names


def _new_entries(data: bytes, base: int) -> tuple[Entry, ...]:
    _, count, _, order, extension = _NEW_HEADER.unpack_from(data, base)
    if order and order & 3 != _BYTE_ORDER:
        raise CorruptCacheError("the byte order of another machine")
    first = base + _NEW_HEADER.size
    if count > (len(data) - first) // _NEW_ENTRY.size:
        raise CorruptCacheError(f"{count} entries in {len(data)} bytes")
    names = _hwcap_names(data, extension)
    table = data[base:] if base else data
    found = []
    for fields in _NEW_ENTRY.iter_unpack(data[first : first + count * _NEW_ENTRY.size]):
        flags, key, value, _, hwcap = fields
        name, path = _string(table, key), _string(table, value)
        if hwcap >> 32 & ~_ISA_LEVEL_MASK == _HWCAP_EXTENSION >> 32 and hwcap & 0xFFFFFFFF < len(names):
            found.append(Entry(name, path, flags, names[hwcap & 0xFFFFFFFF], hwcap >> 32 & _ISA_LEVEL_MASK))
        else:
            found.append(Entry(name, path, flags, legacy_hwcap=hwcap))
    return tuple(found)


def _is_new(data: bytes, base: int) -> bool:
    return len(data) >= base + _NEW_HEADER.size and data.startswith(_NEW_MAGIC, base)


def entries(cache: bytes) -> tuple[Entry, ...]:
    """The entries of a cache, in the file's order.

    Raises:
        CorruptCacheError: it is not a cache, is of another byte order, or points outside itself.

    """
    if _is_new(cache, 0):
        return _new_entries(cache, 0)
    if len(cache) < _OLD_HEADER.size or cache[:11] != _OLD_MAGIC[:11]:
        raise CorruptCacheError("not a file of ldconfig")
    count = _OLD_HEADER.unpack_from(cache)[1]
    if count > (len(cache) - _OLD_HEADER.size) // _OLD_ENTRY.size:
        raise CorruptCacheError(f"{count} entries in {len(cache)} bytes")
    end = _OLD_HEADER.size + count * _OLD_ENTRY.size
    # Both alignments of a 64-bit number occur among the machines that wrote such files.
    for base in ((end + 7) & ~7, (end + 3) & ~3):
        if _is_new(cache, base):
            return _new_entries(cache, base)
    table = cache[end:]
    return tuple(
        Entry(_string(table, key), _string(table, value), flags)
        for flags, key, value in _OLD_ENTRY.iter_unpack(cache[_OLD_HEADER.size : end])
    )
