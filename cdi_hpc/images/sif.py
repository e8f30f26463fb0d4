"""The Singularity Image Format: which file systems are in a SIF file, and where.

A SIF file is a header, a table of descriptors and the data that they describe; the data of interest are partitions,
one of which is the container's root. The header and the table are little-endian Go structures without padding
(github.com/apptainer/sif, pkg/sif: ``header``, ``rawDescriptor``, ``partition``).
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from cdi_hpc.images.image_files import DamageError

MAGIC = b"SIF_MAGIC\0"
MAGIC_AT = 32

# launch script, magic, version, architecture, id; created, modified, descriptors free, total, their place and size,
# the data's place and size
_HEADER = struct.Struct("<32s10s3s3s16s8q")
# type, used, id, group, link; offset, size, padded size, created, modified, uid, gid; name, and what the type adds
_DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
# file system, role, architecture
_PARTITION = struct.Struct("<ii3s")

_VERSION = "01"
_PARTITION_TYPE = 0x4004
_OCI_TYPES = (0x400A, 0x400B)
#: Images have 48; this only stops what a file could claim.
_MAX_DESCRIPTORS = 4096

_FILESYSTEMS = {1: "squashfs", 2: "ext3", 3: "archive", 4: "raw", 5: "encrypted squashfs"}
_PRIMARY, _OVERLAY = 2, 4

#: As uname(2) has them, where Linux runs on them.
_ARCHITECTURES = {
    "01": "i386",
    "02": "x86_64",
    "03": "arm",
    "04": "aarch64",
    "05": "ppc64",
    "06": "ppc64le",
    "07": "mips",
    "08": "mipsel",
    "09": "mips64",
    "10": "mips64el",
    "11": "s390x",
    "12": "riscv64",
}


@dataclass(frozen=True)
class Partition:
    """A file system in a SIF file.

    Attributes:
        offset: of its first byte in the file.
        size: in bytes.
        filesystem: ``squashfs``, ``ext3``, ``archive``, ``raw``, ``encrypted squashfs``, or its number.
        primary: it is the container's root.
        overlay: it is laid over the root.
        architecture: as in uname(2), or its code.

    """

    offset: int
    size: int
    filesystem: str
    primary: bool
    overlay: bool
    architecture: str


@dataclass(frozen=True)
class Sif:
    """What a SIF file says of itself.

    Attributes:
        partitions: in the order of the table.
        oci: it holds an OCI image, whose layers are no partitions (SingularityCE's OCI-SIF).

    """

    partitions: tuple[Partition, ...]
    oci: bool = False

    @property
    def primary(self) -> Partition | None:
        """The partition that is the container's root."""
        return next((partition for partition in self.partitions if partition.primary), None)


def read_sif(stream: BinaryIO, path: str) -> Sif:
    """Read header and table. Nothing is read of what they describe.

    Args:
        stream: the file; where it stands is changed.
        path: its name.

    Raises:
        OSError: it is no SIF file of a version that is known, or damaged.

    """
    size = stream.seek(0, os.SEEK_END)
    fields = _HEADER.unpack(_at(stream, path, 0, _HEADER.size, size))
    magic, version = fields[1:3]
    total, table = fields[8:10]
    if magic != MAGIC:
        raise OSError(errno.EINVAL, "is no SIF file", path)
    if _text(version) != _VERSION:
        raise OSError(errno.EINVAL, f"is a SIF file of version {_text(version)!r}, and {_VERSION!r} is known", path)
    if not 0 <= total <= _MAX_DESCRIPTORS:
        raise _damaged(path, f"a table of {total} descriptors")
    data = _at(stream, path, table, total * _DESCRIPTOR.size, size)
    used = [descriptor for descriptor in _DESCRIPTOR.iter_unpack(data) if descriptor[1]]
    partitions = [_partition(d, path, size) for d in used if d[0] == _PARTITION_TYPE]
    return Sif(tuple(partitions), oci=any(descriptor[0] in _OCI_TYPES for descriptor in used))


def _partition(descriptor: tuple[object, ...], path: str, size: int) -> Partition:
    begin, length = descriptor[5], descriptor[6]
    extra = descriptor[-1]
    if not isinstance(begin, int) or not isinstance(length, int) or not isinstance(extra, bytes):
        raise TypeError(descriptor)
    if begin < 0 or length < 0 or begin + length > size:
        raise _damaged(path, f"a partition of {length} bytes at {begin} in a file of {size}")
    filesystem, role, architecture = _PARTITION.unpack_from(extra)
    code = _text(architecture)
    return Partition(
        offset=begin,
        size=length,
        filesystem=_FILESYSTEMS.get(filesystem, f"number {filesystem}"),
        primary=role == _PRIMARY,
        overlay=role == _OVERLAY,
        architecture=_ARCHITECTURES.get(code, f"code {code!r}"),
    )


def _at(stream: BinaryIO, path: str, offset: int, length: int, size: int) -> bytes:
    if offset < 0 or offset + length > size:
        raise _damaged(path, f"{length} bytes at {offset} in a file of {size}")
    stream.seek(offset)
    data = stream.read(length)
    if len(data) != length:
        raise _damaged(path, f"cut off at {offset + len(data)}")
    return data


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("ascii", "replace")


def _damaged(path: str, what: str) -> OSError:
    return DamageError(what, path)
