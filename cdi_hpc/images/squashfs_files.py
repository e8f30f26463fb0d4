"""The files of a SquashFS image, read where they are: nothing is mounted, unpacked or executed.

The structures are PySquashfsImage's. Its SquashFsImage is not used: that reads every directory and every inode before
it answers anything (7 µs a file: seconds for a large image), and believes what the image says of sizes. A plan needs
some dozens of directories and a few files, and an image is hostile: here every read is bounded by what the kernel's
own reader accepts, each block of metadata is behind the one before, and what does not fit is an OSError with one line.

The format: Documentation/filesystems/squashfs.rst, and squashfs_fs.h in the kernel's fs/squashfs.
"""

from __future__ import annotations

import errno
import io
import os
from collections import OrderedDict
from collections.abc import Iterator
from ctypes import sizeof
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, NamedTuple, TypeVar

from PySquashfsImage.structure import DirEntry, DirHeader, FragmentEntry, Superblock
from PySquashfsImage.structure.inode import InodeHeader, inomap

from cdi_hpc.errors import Problem
from cdi_hpc.images.image_files import DamageError, FileKind, FileStatus
from cdi_hpc.images.squashfs_codecs import BadBlockError, NoCodecError, codec
from cdi_hpc.witness import ChangedError, Witness

_MAGIC = 0x73717368
_VERSION = (4, 0)
_BLOCK_LOGS = range(12, 21)
_METADATA_SIZE = 8192
_UNCOMPRESSED_METADATA = 0x8000
_UNCOMPRESSED_BLOCK = 1 << 24
_NO_FRAGMENT = 0xFFFFFFFF
_FRAGMENTS_PER_BLOCK = _METADATA_SIZE // 16
_LISTING_OVERHEAD = 3  # a directory's size counts "." and "..", which are not there

_HEADER_SIZE, _ENTRY_SIZE, _INODE_HEADER_SIZE = 12, 8, 16
#: As many as the kernel takes (SQUASHFS_DIR_COUNT, SQUASHFS_NAME_LEN, and PAGE_SIZE for the text of a link).
_MAX_ENTRIES = 256
_MAX_NAME = 256
_MAX_LINK = 4096

#: More than a plan needs of any image: half a million names in all directories on its ways, 128 GiB of a file.
_MAX_NAMES = 1 << 19
_MAX_BLOCKS = 1 << 20

#: What is kept in memory of what was decompressed.
_KEPT_METADATA = 512
_KEPT_DATA = 1 << 23

_T = TypeVar("_T")


class _Type(NamedTuple):
    kind: FileKind
    basic: int


#: Inode types: the basic ones, and the extended ones that listings do not tell apart.
_KINDS: tuple[FileKind, ...] = ("directory", "file", "link", "special", "special", "special", "special")
_TYPES = {number + extra: _Type(kind, number) for number, kind in enumerate(_KINDS, 1) for extra in (0, 7)}


class _Listed(NamedTuple):
    kind: FileKind
    basic: int
    inode: int


@dataclass(frozen=True)
class _Inode:
    """An inode, and where what follows it begins."""

    kind: FileKind
    mode: int
    reference: int
    body: Any
    block: int
    offset: int


class _Kept(OrderedDict[int, _T]):
    """The values that were asked for last."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def get_or(self, key: int, make: Callable[[int], _T]) -> _T:
        if key in self:
            self.move_to_end(key)
            return self[key]
        value = self[key] = make(key)
        if len(self) > self._limit:
            self.popitem(last=False)
        return value


class SquashfsFiles:
    """An :class:`cdi_hpc.images.image_files.ImageFiles` of a SquashFS file system in a file.

    The file stays open as long as the object lives.
    """

    def __init__(self, stream: BinaryIO, path: str, offset: int = 0, size: int | None = None) -> None:
        """Read the superblock.

        Args:
            stream: the file, which is ours from now on.
            path: its name.
            offset: where the file system begins.
            size: how many bytes it may have; default: to the end of the file.

        Raises:
            OSError: it is no SquashFS 4.0, damaged, or cut off.
            NoCodecError: what it is compressed with can't be undone here.

        """
        self._stream = stream
        self._path = path
        self._offset = offset
        available = os.fstat(stream.fileno()).st_size - offset
        self._end = available if size is None else min(size, available)
        self._super: Any = Superblock.from_buffer_copy(self._bytes(0, 96))
        self._check()
        self._block_size: int = self._super.block_size
        self._decompress = codec(self._super.compression)
        self._metadata: _Kept[tuple[bytes, int]] = _Kept(_KEPT_METADATA)
        self._data: _Kept[bytes] = _Kept(max(2, _KEPT_DATA // self._block_size))
        self._listings: dict[int, dict[str, _Listed]] = {}
        self._names_left = _MAX_NAMES

    def _check(self) -> None:
        found = self._super
        if found.s_magic != _MAGIC:
            raise OSError(errno.EINVAL, "is no SquashFS file system", self._path)
        if (found.s_major, found.s_minor) != _VERSION:
            what = f"is SquashFS {found.s_major}.{found.s_minor}, and only 4.0 is in use since 2009"
            raise OSError(errno.EINVAL, what, self._path)
        if found.block_log not in _BLOCK_LOGS or found.block_size != 1 << found.block_log:
            raise self._damaged(f"a block size of {found.block_size}")
        if found.bytes_used > self._end:
            what = f"is cut off: {self._end} of {found.bytes_used} bytes are there"
            raise OSError(errno.EIO, what, self._path)
        self._end = found.bytes_used

    # The protocol ------------------------------------------------------------------------------------------

    def lstat(self, path: str) -> FileStatus | None:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`."""
        inode = self._find(path)
        return None if inode is None else FileStatus(inode.kind, inode.mode, (0, inode.reference))

    def scan(self, path: str) -> Iterator[tuple[str, FileKind]]:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`."""
        inode = self._require(path, "directory", errno.ENOTDIR)
        for name, listed in self._listing(inode).items():
            yield name, listed.kind

    def readlink(self, path: str) -> str:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`."""
        inode = self._require(path, "link", errno.EINVAL)
        length = inode.body.symlink_size
        if not 0 < length <= _MAX_LINK:
            raise self._damaged(f"a link of {length} bytes")
        return os.fsdecode(self._cursor(inode.block, inode.offset).read(length))

    def open(self, path: str) -> BinaryIO:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`."""
        inode = self._require(path, "file", errno.EINVAL)
        return io.BufferedReader(_File(self, inode.body, self._cursor(inode.block, inode.offset)))

    def seen_by(self, witness: Witness) -> SquashfsFiles:
        """See :class:`cdi_hpc.images.image_files.ImageFiles`: it is the file that must stay as it is."""
        witness.saw(self._path, "content")
        opened, there = os.fstat(self._stream.fileno()), os.stat(self._path)
        if _identity(opened) != _identity(there):
            raise ChangedError(Problem(self._path, "changed while it was being read", "try again"))
        return self

    # Directories and inodes --------------------------------------------------------------------------------

    def _require(self, path: str, kind: FileKind, otherwise: int) -> _Inode:
        inode = self._find(path)
        if inode is None or inode.kind != kind:
            number = errno.ENOENT if inode is None else otherwise
            raise OSError(number, os.strerror(number), path)
        return inode

    def _find(self, path: str) -> _Inode | None:
        inode = self._inode(self._super.root_inode)
        if inode.kind != "directory":
            raise self._damaged("a root that is no directory")
        for name in path.split("/"):
            if name:
                listed = self._listing(inode).get(name) if inode.kind == "directory" else None
                if listed is None:
                    return None
                inode = self._inode(listed.inode, listed.basic)
        return inode

    def _inode(self, reference: int, listed_as: int = 0) -> _Inode:
        start = self._super.inode_table_start + (reference >> 16 & 0xFFFFFFFF)
        cursor = self._cursor(start, reference & 0xFFFF)
        header: Any = InodeHeader.from_buffer_copy(cursor.read(_INODE_HEADER_SIZE))
        found = _TYPES.get(header.inode_type)
        if found is None or listed_as not in (0, found.basic):
            raise self._damaged(f"an inode of type {header.inode_type}")
        layout = inomap[header.inode_type]
        body = layout.from_buffer_copy(cursor.read(sizeof(layout)))
        return _Inode(found.kind, header.mode & 0o7777, reference, body, cursor.block, cursor.offset)

    def _listing(self, inode: _Inode) -> dict[str, _Listed]:
        if inode.reference not in self._listings:
            self._listings[inode.reference] = dict(self._entries(inode))
        return self._listings[inode.reference]

    def _entries(self, inode: _Inode) -> Iterator[tuple[str, _Listed]]:
        left = inode.body.file_size - _LISTING_OVERHEAD
        cursor = self._cursor(self._super.directory_table_start + inode.body.start_block, inode.body.offset)
        while left > 0:
            header: Any = DirHeader.from_buffer_copy(cursor.read(_HEADER_SIZE))
            left -= _HEADER_SIZE
            if header.count >= _MAX_ENTRIES:
                raise self._damaged(f"{header.count} entries in a part of a directory")
            self._names_left -= header.count + 1
            if self._names_left < 0:
                raise self._damaged("directories of too many names")
            for _ in range(header.count + 1):
                entry: Any = DirEntry.from_buffer_copy(cursor.read(_ENTRY_SIZE))
                name = cursor.read(entry.size + 1) if entry.size < _MAX_NAME else b""
                left -= _ENTRY_SIZE + len(name)
                yield self._name(name), self._listed(header, entry)

    def _name(self, name: bytes) -> str:
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise self._damaged(f"a file of the name {name!r}")
        return os.fsdecode(name)

    def _listed(self, header: Any, entry: Any) -> _Listed:
        try:
            found = _TYPES[entry.type]
        except ValueError:
            raise self._damaged("a file of an unknown type") from None
        return _Listed(found.kind, found.basic, header.start_block << 16 | entry.offset)

    # Blocks ------------------------------------------------------------------------------------------------

    def _damaged(self, what: str) -> OSError:
        return DamageError(what, self._path)

    def _bytes(self, start: int, length: int, *, whole: bool = True) -> bytes:
        """Of the file system. Fewer only at its end, and only if they need not be ``whole``."""
        length = min(length, self._end - start) if not whole else length
        if start < 0 or length <= 0 or start + length > self._end:
            raise self._damaged(f"{length} bytes at {start}, where there are none")
        data = os.pread(self._stream.fileno(), length, self._offset + start)
        if len(data) != length:
            raise self._damaged(f"cut off at {start + len(data)}")
        return data

    def _cursor(self, block: int, offset: int) -> _Cursor:
        return _Cursor(self.metadata_block, block, offset)

    def metadata_block(self, start: int) -> tuple[bytes, int]:
        """A block of metadata, and where the next begins."""
        return self._metadata.get_or(start, self._read_metadata)

    def _read_metadata(self, start: int) -> tuple[bytes, int]:
        stored = self._bytes(start, 2 + _METADATA_SIZE, whole=False)
        header = int.from_bytes(stored[:2], "little")
        size = header & ~_UNCOMPRESSED_METADATA
        if not 0 < size <= len(stored) - 2:
            raise self._damaged(f"a block of {size} bytes at {start}")
        data = stored[2 : 2 + size]
        if not header & _UNCOMPRESSED_METADATA:
            data = self._uncompressed(data, _METADATA_SIZE, start)
        if not data:
            raise self._damaged(f"an empty block at {start}")
        return data, start + 2 + size

    def data_block(self, start: int, stored: int) -> bytes:
        """A block of data, by its place and the word that tells its size."""
        return self._data.get_or(start, lambda at: self._read_data(at, stored))

    def _read_data(self, start: int, stored: int) -> bytes:
        size = stored & ~_UNCOMPRESSED_BLOCK
        if size > self._block_size:
            raise self._damaged(f"a block of {size} bytes at {start}")
        data = self._bytes(start, size)
        return data if stored & _UNCOMPRESSED_BLOCK else self._uncompressed(data, self._block_size, start)

    def _uncompressed(self, data: bytes, limit: int, start: int) -> bytes:
        try:
            return self._decompress(data, limit)
        except BadBlockError:
            raise self._damaged(f"the block at {start} can't be decompressed") from None

    @property
    def block_size(self) -> int:
        """Bytes in a block of data."""
        return self._block_size

    def fragment(self, number: int) -> bytes:
        """The block that holds the ends of several files."""
        if number >= self._super.fragments:
            raise self._damaged(f"a fragment of the number {number}")
        at = self._super.fragment_table_start + number // _FRAGMENTS_PER_BLOCK * 8
        table = int.from_bytes(self._bytes(at, 8), "little")
        entry = self._cursor(table, number % _FRAGMENTS_PER_BLOCK * 16).read(16)
        found: Any = FragmentEntry.from_buffer_copy(entry)
        return self.data_block(found.start_block, found.size)

    def cut_short(self, start: int) -> OSError:
        """What to raise for a block that has less in it than its file needs."""
        return self._damaged(f"too little in the block at {start}")

    def too_large(self, size: int) -> OSError:
        """What to raise for a file that is read further than one can be."""
        return OSError(errno.EFBIG, f"a file of {size} bytes in the SquashFS image {self._path}", self._path)


class _Cursor:
    """A place in metadata, which is read on from there. Each block begins behind the one before."""

    def __init__(self, read_block: Callable[[int], tuple[bytes, int]], block: int, offset: int) -> None:
        self._read_block = read_block
        self.block = block
        self.offset = offset

    def read(self, length: int) -> bytes:
        data, following = self._read_block(self.block)
        piece = data[self.offset : self.offset + length]
        if len(piece) == length:
            self.offset += length
            return piece
        pieces, missing = [piece], length - len(piece)
        while missing:
            self.block, self.offset = following, 0
            data, following = self._read_block(self.block)
            pieces.append(data[:missing])
            self.offset = len(pieces[-1])
            missing -= self.offset
        return b"".join(pieces)


class _File(io.RawIOBase):
    """A regular file. Its list of blocks is read as far as somebody reads the file."""

    def __init__(self, image: SquashfsFiles, inode: Any, sizes: _Cursor) -> None:
        super().__init__()
        self._image = image
        self._size: int = inode.file_size
        self._fragment: int = inode.fragment
        self._fragment_offset: int = inode.offset
        whole, rest = divmod(self._size, image.block_size)
        self._blocks = whole + (1 if rest and self._fragment == _NO_FRAGMENT else 0)
        self._sizes = sizes
        self._known: list[tuple[int, int]] = []
        self._next_start: int = inode.start_block
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        left = self._size - self._at
        if left <= 0:
            return 0
        number, begin = divmod(self._at, self._image.block_size)
        wanted = min(len(buffer), left, self._image.block_size - begin)
        piece = self._piece(number, begin, wanted)
        buffer[:wanted] = piece
        self._at += wanted
        return wanted

    def _piece(self, number: int, begin: int, wanted: int) -> bytes:
        if number >= self._blocks:
            data, start = self._image.fragment(self._fragment), 0
            begin += self._fragment_offset
        else:
            start, stored = self._block(number)
            data = self._image.data_block(start, stored) if stored else bytes(begin + wanted)
        piece = data[begin : begin + wanted]
        if len(piece) < wanted:
            raise self._image.cut_short(start)
        return piece

    def _block(self, number: int) -> tuple[int, int]:
        if number >= _MAX_BLOCKS:
            raise self._image.too_large(self._size)
        while len(self._known) <= number:
            stored = int.from_bytes(self._sizes.read(4), "little")
            self._known.append((self._next_start, stored))
            self._next_start += stored & ~_UNCOMPRESSED_BLOCK
        return self._known[number]


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


__all__ = ["NoCodecError", "SquashfsFiles"]
