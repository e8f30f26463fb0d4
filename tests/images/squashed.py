"""A tree with every kind of file, and SquashFS files made of it."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

#: More than two blocks of the usual size, and an end that is no whole one.
LARGE = random.Random(0).randbytes(300_001)  # noqa: S311 - the same bytes every time

#: What mksquashfs(1) compresses with, and how it may lay out what it writes.
COMPRESSIONS = ("gzip", "xz", "lz4", "zstd")
LAYOUTS = (
    ("-b", "4K"),
    ("-b", "1M"),
    ("-noI", "-noD", "-noF"),
    ("-no-fragments",),
    ("-always-use-fragments",),
    ("-no-sparse",),
    ("-no-duplicates", "-nopad"),
)


def make_tree(root: Path) -> Path:
    """Files of all kinds and sizes; directories that need more than one block of metadata."""
    root.mkdir()
    root.chmod(0o755)
    for size in (0, 1, 4095, 4096, 4097, 131_072, 131_073):
        (root / f"file-{size}").write_bytes(LARGE[:size])
    (root / "large").write_bytes(LARGE)
    with (root / "sparse").open("wb") as stream:
        stream.write(b"begin")
        stream.seek(1_000_000)
        stream.write(b"end")
    (root / "zeros").write_bytes(bytes(500_000))
    os.link(root / "large", root / "same")
    for name in ("many", "deep/er/and/deeper"):
        (root / name).mkdir(parents=True)
    for number in range(700):
        (root / "many" / f"{number:04}-{'n' * (number % 200)}").write_bytes(b"%d" % number)
    (root / "link").symlink_to("deep/er")
    (root / "absolute").symlink_to("/many/../large")
    (root / "long").symlink_to("x" * 4095)
    Path(os.fsdecode(os.fsencode(root) + b"/n\xff\nme")).write_bytes(b"strange")
    os.mkfifo(root / "fifo")
    (root / "large").chmod(0o4751)
    (root / "many").chmod(0o1770)
    return root


def squash(tree: Path, file: Path, *options: str) -> Path:
    """A SquashFS file of a tree."""
    argv = ["mksquashfs", tree, file, "-noappend", "-quiet", "-no-progress", "-no-xattrs", *options]
    subprocess.run(argv, check=True, capture_output=True)
    return file


def sif_of(partitions: list[tuple[bytes, int, int]], *, types: tuple[int, ...] = (), version: bytes = b"01") -> bytes:
    """A SIF file: partitions as (content, file system, role), then descriptors of other types."""
    from cdi_hpc.images import sif

    table_at, data_at = 128, 128 + 48 * sif._DESCRIPTOR.size
    table, data = b"", b""
    for number, (content, filesystem, role) in enumerate(partitions, 1):
        extra = sif._PARTITION.pack(filesystem, role, b"02\0")
        place = data_at + len(data)
        table += sif._DESCRIPTOR.pack(
            sif._PARTITION_TYPE, 1, number, 1, 0, place, len(content), len(content), 0, 0, 0, 0, b"", extra
        )
        data += content
    for kind in types:
        table += sif._DESCRIPTOR.pack(kind, 1, 9, 1, 0, data_at, 0, 0, 0, 0, 0, 0, b"", b"")
    header = sif._HEADER.pack(
        b"#!/usr/bin/env run-singularity\n",
        sif.MAGIC,
        version,
        b"02",
        bytes(16),
        0,
        0,
        48 - len(partitions) - len(types),
        48,
        table_at,
        48 * sif._DESCRIPTOR.size,
        data_at,
        len(data),
    )
    return header + table.ljust(48 * sif._DESCRIPTOR.size, b"\0") + data
