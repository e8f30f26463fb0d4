"""What SquashFS blocks are compressed with, undone within bounds: no block becomes more than asked, whatever it claims.

Python has gzip and xz itself, and zstd since 3.14; the rest takes modules that not every machine has.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Callable

#: A block's bytes and the most that it may become, to what it becomes.
Decompress = Callable[[bytes, int], bytes]

#: mksquashfs(1) compresses blocks of at most 1 MiB, with dictionaries and windows to fit. A claim of more is refused
#: before memory is given to it.
_MAX_WINDOW_LOG = 23
_MAX_XZ_MEMORY = 1 << 25


class BadBlockError(ValueError):
    """A block is not what it was compressed to, or becomes more than it may."""


class NoCodecError(Exception):
    """What the image is compressed with can't be undone here.

    Attributes:
        name: of the compression, as mksquashfs(1) has it, or its number.
        package: what to install, "" if nothing helps.

    """

    def __init__(self, name: str, package: str = "") -> None:
        """Keep both."""
        super().__init__(name)
        self.name = name
        self.package = package


def _whole(decompressor: Any, data: bytes, limit: int) -> bytes:
    """By an object that decompresses a stream and tells its end, as those of Python's library do."""
    out: bytes = decompressor.decompress(data, limit + 1)
    if len(out) > limit or not decompressor.eof:
        raise BadBlockError
    return out


def _gzip() -> Decompress:
    import zlib

    return lambda data, limit: _whole(zlib.decompressobj(), data, limit)


def _xz() -> Decompress:
    import lzma

    return lambda data, limit: _whole(lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_XZ_MEMORY), data, limit)


def _lzma() -> Decompress:
    import lzma

    return lambda data, limit: _whole(lzma.LZMADecompressor(lzma.FORMAT_ALONE, _MAX_XZ_MEMORY), data, limit)


def _zstd() -> Decompress:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            library: Any = importlib.import_module(name)
        except ImportError:
            continue
        options = {library.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
        return lambda data, limit: _whole(library.ZstdDecompressor(options=options), data, limit)
    return _zstandard()


def _zstandard() -> Decompress:
    import zstandard

    def decompress(data: bytes, limit: int) -> bytes:
        # Not its decompress(): that makes room for whatever size the block claims.
        with zstandard.ZstdDecompressor(max_window_size=1 << _MAX_WINDOW_LOG).stream_reader(data) as stream:
            out: bytes = stream.read(limit + 1)
        if len(out) > limit:
            raise BadBlockError
        return out

    return decompress


def _lz4() -> Decompress:
    block = importlib.import_module("lz4.block")

    def decompress(data: bytes, limit: int) -> bytes:
        out: bytes = block.decompress(data, uncompressed_size=limit)
        return out

    return decompress


def _lzo() -> Decompress:
    import lzo

    def decompress(data: bytes, limit: int) -> bytes:
        out: bytes = lzo.decompress(data, False, limit)  # noqa: FBT003 - it takes no names
        return out

    return decompress


@dataclass(frozen=True)
class _Codec:
    name: str
    make: Callable[[], Decompress]
    package: str = ""


#: By the number in the superblock. The packages' names are those of the Python Package Index.
_CODECS = {
    1: _Codec("gzip", _gzip),
    2: _Codec("lzma", _lzma),
    3: _Codec("lzo", _lzo, "python-lzo"),
    4: _Codec("xz", _xz),
    5: _Codec("lz4", _lz4, "lz4"),
    6: _Codec("zstd", _zstd, "zstandard"),
}


def codec(number: int) -> Decompress:
    """What undoes a compression.

    Args:
        number: of the compression, in the superblock.

    Returns:
        A function of a block and a limit; it raises :class:`BadBlockError` and nothing else.

    Raises:
        NoCodecError: the number is unknown, or the module is not installed.

    """
    found = _CODECS.get(number)
    if found is None:
        raise NoCodecError(f"number {number}")
    try:
        decompress = found.make()
    except ImportError:
        raise NoCodecError(found.name, found.package) from None

    def bounded(data: bytes, limit: int) -> bytes:
        try:
            return decompress(data, limit)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # what these modules raise for a bad block has no common base
            raise BadBlockError(f"{found.name}: {error}") from None

    return bounded
