"""CUDA forward compatibility: does the image's own libcuda come before the host's?

CUDA images carry a newer libcuda in ``/usr/local/cuda/compat``. It works with some older kernel drivers, named in
an ELF note of the library, and must stay unused with the others. The rule is that of NVIDIA's enable-cuda-compat
hook (container toolkit 1.20); the note is described by nothing but its readers and the libraries themselves. The
rule is pure; :func:`read_note` reads a stream that it is given, and an image's files are hostile.
"""

from __future__ import annotations

import fnmatch
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

#: The note's section, and the vendor that the note names.
NOTE_SECTION = ".note.cuda.fwd_compatibility"
NOTE_VENDOR = b"NVIDIA Corporation"

_PREFIX = "libcuda.so."
_UINT64_MAX = 2**64 - 1
_INT64_MAX = 2**63 - 1
_MAX_VERSION_BYTES = 256

# Bounds for files that nobody vouches for. A real note has some 200 bytes, a real libcuda some 40 sections.
_MAX_NOTE_BYTES = 64 * 1024
_MAX_SECTIONS = 1024


@dataclass(frozen=True)
class CompatNote:
    """What the library says about itself.

    Attributes:
        cuda_version: the CUDA that it implements, ``12.9``, or "" if it doesn't say.
        drivers: major versions of the kernel drivers that it works with.

    """

    cuda_version: str = ""
    drivers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Decision:
    """Whether the image's libraries are used, and why, for the plan's explanation."""

    use: bool
    reason: str


# --- versions -------------------------------------------------------------------------------------------------

_VERSION = re.compile(
    r"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)

#: Orders as semver.org, section 11: a number before a word, a shorter list before its continuation.
_Identifier = tuple[bool, int, str]


@dataclass(frozen=True, order=True)
class Version:
    """A semantic version, compared by precedence: a release follows its pre-releases, build data don't count."""

    major: int
    minor: int
    patch: int
    released: bool
    prerelease: tuple[_Identifier, ...]


def parse_version(text: str) -> Version | None:
    """A version as the vendor's hook reads it, or None.

    More is taken than semver.org allows: a ``v`` in front, one or two numbers for three, leading zeros
    (570.86.07, which is the usual form of a driver's version). Numbers have 64 bits, the text 256 bytes.
    """
    if len(text) > _MAX_VERSION_BYTES:
        return None
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    major, minor, patch = (int(part or "0") for part in match.groups()[:3])
    identifiers = match.group(4).split(".") if match.group(4) else []
    if max(major, minor, patch) > _UINT64_MAX or any(re.fullmatch(r"0[0-9]+", part) for part in identifiers):
        return None
    return Version(major, minor, patch, not identifiers, tuple(map(_identifier, identifiers)))


def _identifier(text: str) -> _Identifier:
    if text.isdigit() and int(text) <= _UINT64_MAX:
        return (False, int(text), "")
    return (True, 0, text)


# --- the rule -------------------------------------------------------------------------------------------------


def find_compat(regular_files: Iterable[str]) -> str | Decision:
    """The one ``libcuda.so.*.*`` of the compat directory, or the decision not to use it.

    Args:
        regular_files: names of the directory's regular files. Links don't count: ``libcuda.so.1`` is one.

    """
    found = sorted(fnmatch.filter(regular_files, _PREFIX + "*.*"))
    if len(found) == 1:
        return found[0]
    if not found:
        return Decision(use=False, reason="the image has no CUDA compatibility libraries")
    return Decision(
        use=False, reason=f"the image has more than one CUDA compatibility library: {', '.join(map(repr, found))}"
    )


def use_compat(
    library_name: str, note: CompatNote | None, host_driver_version: str, host_cuda_version: str
) -> Decision:
    """Whether the image's compatibility libraries come first in the search order.

    Args:
        library_name: file name of the image's library; what follows ``libcuda.so.`` is its driver version.
        note: what :func:`read_note` found in it.
        host_driver_version: the hook's argument, "" if it was not given.
        host_cuda_version: the same.

    """
    compat_text = library_name.removeprefix(_PREFIX)
    compat, host = parse_version(compat_text), parse_version(host_driver_version)
    if compat and host:
        if note:
            return _by_driver(note, compat, compat_text, host, host_driver_version)
        if not host_cuda_version:
            return _by_major(compat, compat_text, host, host_driver_version)
    if note and host_cuda_version:
        return _by_cuda(note.cuda_version, host_cuda_version)
    if note is None and host_cuda_version:
        return Decision(use=False, reason=f"{library_name!r} doesn't say which drivers it works with")
    return Decision(use=False, reason=f"{compat_text!r} and {host_driver_version!r} can't be compared as versions")


def _by_driver(note: CompatNote, compat: Version, compat_text: str, host: Version, host_text: str) -> Decision:
    """The note knows the driver: the library must work with it and be newer."""
    if host.major not in note.drivers:
        known = ", ".join(map(str, note.drivers)) or "none"
        return Decision(use=False, reason=f"made for the drivers {known}, and the host has {host_text!r}")
    if compat > host:
        return Decision(use=True, reason=f"{compat_text!r} is newer than the host's {host_text!r}, and made for it")
    return Decision(use=False, reason=f"{compat_text!r} is not newer than the host's {host_text!r}")


def _by_major(compat: Version, compat_text: str, host: Version, host_text: str) -> Decision:
    """No note, as in libraries from before 2025: a newer major version is taken to be compatible."""
    if host.major < compat.major:
        return Decision(use=True, reason=f"{compat_text!r} is a newer major version than the host's {host_text!r}")
    return Decision(use=False, reason=f"{compat_text!r} is no newer major version than the host's {host_text!r}")


def _by_cuda(compat_text: str, host_text: str) -> Decision:
    """No driver version to compare, as on Tegra: the newer CUDA."""
    compat, host = parse_version(compat_text), parse_version(host_text)
    if compat and host and compat > host:
        return Decision(use=True, reason=f"CUDA {compat_text!r} is newer than the host's {host_text!r}")
    return Decision(use=False, reason=f"CUDA {compat_text!r} is not newer than the host's {host_text!r}")


# --- the note -------------------------------------------------------------------------------------------------


def read_note(stream: BinaryIO) -> CompatNote | None:
    """The library's note, or None if it has none that can be read. No content makes it raise or take long.

    Args:
        stream: the library, seekable, from its beginning.

    """
    section = _note_section(stream)
    if section is None:
        return None
    data, alignment, byte_order = section
    description = _note_description(data, alignment, byte_order)
    return _decode(description) if description is not None else None


def _note_section(stream: BinaryIO) -> tuple[bytes, int, str] | None:
    """Content, alignment and byte order (of struct) of the first note section with the right name."""
    # Takes 10 ms, and most images have no such library.
    from elftools.common.utils import struct_parse
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(stream)
        header = elf.header
        # Not iter_sections: it reads the name of each, however long a hostile file makes it, and as many as the
        # file says, and fails on the first that is wrong.
        count = min(header["e_shnum"], _MAX_SECTIONS)
        offsets = [header["e_shoff"] + index * header["e_shentsize"] for index in range(count)]
        sections = [struct_parse(elf.structs.Elf_Shdr, stream, offset) for offset in offsets]
        names = sections[header["e_shstrndx"]]["sh_offset"]
        for section in sections:
            if section["sh_type"] == "SHT_NOTE" and _name_is(stream, names + section["sh_name"]):
                stream.seek(section["sh_offset"])
                data = stream.read(min(section["sh_size"], _MAX_NOTE_BYTES))
                return data, section["sh_addralign"], "<" if elf.little_endian else ">"
    except Exception:  # noqa: BLE001  # what pyelftools raises for a hostile file has no common base
        return None
    return None


def _name_is(stream: BinaryIO, offset: int) -> bool:
    wanted = NOTE_SECTION.encode() + b"\0"
    stream.seek(offset)
    return stream.read(len(wanted)) == wanted


def _note_description(data: bytes, alignment: int, byte_order: str) -> bytes | None:
    """The first note's description, if it is the vendor's; elf(5), "Notes"."""
    head = struct.Struct(byte_order + "III")
    if len(data) < head.size:
        return None
    name_size, description_size, _type = head.unpack_from(data)
    padded = -(-name_size // alignment) * alignment if alignment > 1 else name_size
    start = head.size + padded
    name = data[head.size : start].strip(b"\0")
    if name != NOTE_VENDOR or not description_size:
        return None
    return data[start : start + description_size].strip(b"\0")


def _decode(description: bytes) -> CompatNote | None:
    """``{"Format": 1, "CUDA Version": "12.9", "Driver": [535, 550], "Device": [1, 2]}``; None if it is not like it."""
    try:
        document = json.loads(description.decode(errors="replace"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if document is None:
        return CompatNote()
    if not isinstance(document, dict):
        return None
    # As the vendor's reader has it: the case of a name doesn't matter, null is an absent value.
    fields = {name.lower(): value for name, value in document.items() if value is not None}
    cuda_version, drivers = fields.get("cuda version", ""), _elements(fields, "driver")
    numbers = [fields.get("format", 0), *drivers, *_elements(fields, "device")]
    if not isinstance(cuda_version, str) or not all(map(_is_int64, numbers)):
        return None
    return CompatNote(cuda_version, tuple(drivers))


def _elements(fields: Mapping[str, Any], name: str) -> list[Any]:
    """A list's elements, null as 0; for what is no list, one element that is refused."""
    value = fields.get(name, [])
    return [0 if element is None else element for element in value] if isinstance(value, list) else [None]


def _is_int64(value: object) -> bool:
    return type(value) is int and -_INT64_MAX - 1 <= value <= _INT64_MAX


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
