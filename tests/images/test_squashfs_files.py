"""A SquashFS file is read as the directory that it was made of, and nothing in it does harm."""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import random
import shutil
import sys
import tracemalloc
import zlib
from functools import partial
from pathlib import Path

import lz4.block
import pytest
import squashed
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_hpc.images.image_files import HostFiles
from cdi_hpc.images.squashfs_codecs import BadBlockError, NoCodecError, codec
from cdi_hpc.images.squashfs_files import SquashfsFiles
from cdi_hpc.witness import ChangedError, FileState, Recorder


def opened(file: Path, offset: int = 0, size: int | None = None) -> SquashfsFiles:
    return SquashfsFiles(file.open("rb"), str(file), offset, size)


def content(files, path):
    with files.open(path) as stream:
        return stream.read()


def everything(files, path="/", depth=12):
    """Every file below a directory: path -> (kind, mode, what is in it)."""
    found = {}
    for name, listed in files.scan(path):
        child = f"{path.rstrip('/')}/{name}"
        status = files.lstat(child)
        assert status is not None
        assert status.kind == listed
        inside = None
        if status.kind == "file":
            inside = content(files, child)
        elif status.kind == "link":
            inside = files.readlink(child)
        found[child] = (status.kind, status.mode, inside)
        if status.kind == "directory" and depth:
            found |= everything(files, child, depth - 1)
    return found


@pytest.mark.parametrize("compression", squashed.COMPRESSIONS)
def test_a_squashfs_file_is_read_as_its_directory_however_it_is_compressed(tree, squash, compression):
    assert everything(opened(squash("-comp", compression))) == everything(HostFiles(str(tree)))


@pytest.mark.parametrize("layout", squashed.LAYOUTS, ids=" ".join)
def test_a_squashfs_file_is_read_as_its_directory_however_it_is_laid_out(tree, squash, layout):
    assert everything(opened(squash(*layout))) == everything(HostFiles(str(tree)))


def test_a_file_system_is_found_at_its_offset(tree, squash, tmp_path):
    file = tmp_path / "image"
    file.write_bytes(b"x" * 12_345 + squash().read_bytes() + b"more")
    assert everything(opened(file, 12_345)) == everything(HostFiles(str(tree)))


@given(begin=st.integers(0, len(squashed.LARGE) + 10), length=st.integers(0, 300_000))
@settings(max_examples=60)
def test_a_file_is_read_from_any_place_on(squash, begin, length):
    with opened(squash("-b", "4K")).open("/large") as stream:
        stream.seek(begin)
        assert stream.read(length) == squashed.LARGE[begin : begin + length]
        assert stream.seek(-1, os.SEEK_END) == len(squashed.LARGE) - 1
        assert stream.read() == squashed.LARGE[-1:]


def test_two_names_of_a_file_are_one_and_others_are_not(squash):
    files = opened(squash())
    identities = {name: files.lstat(f"/{name}").identity for name, _ in files.scan("/")}
    assert identities["large"] == identities["same"]
    assert len(set(identities.values())) == len(identities) - 1


@pytest.mark.parametrize("path", ["/no", "/no/thing", "/large/x", "/link/and"])
def test_what_is_not_there_is_nothing(squash, path):
    assert opened(squash()).lstat(path) is None


@pytest.mark.parametrize(
    "ask, path, number",
    [
        (SquashfsFiles.open, "/many", errno.EINVAL),
        (SquashfsFiles.open, "/link", errno.EINVAL),
        (SquashfsFiles.open, "/fifo", errno.EINVAL),
        (SquashfsFiles.open, "/no", errno.ENOENT),
        (SquashfsFiles.readlink, "/large", errno.EINVAL),
        (SquashfsFiles.scan, "/large", errno.ENOTDIR),
        (SquashfsFiles.scan, "/no", errno.ENOENT),
    ],
)
def test_a_wrong_question_is_an_error_of_the_kernels_kind(squash, ask, path, number):
    with pytest.raises(OSError, match=os.strerror(number)):
        list(ask(opened(squash()), path))


def test_nothing_but_what_is_asked_for_is_read(squash, monkeypatch):
    file = squash()
    read = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: read.append(length) or real(fd, length, offset))
    assert opened(file).lstat("/deep/er/and") is not None
    assert sum(read) < 10 * 8194


# Witnesses ----------------------------------------------------------------------------------------------------


def test_a_witness_sees_the_file_and_nothing_in_it(squash, tmp_path):
    file = tmp_path / "image"
    shutil.copy(squash(), file)
    recorder = Recorder()
    files = opened(file).seen_by(recorder)
    everything(files)
    assert [(type(state), state.path) for state in recorder.states()] == [(FileState, str(file))]


def test_a_file_that_was_exchanged_while_it_was_read_is_noticed(squash, tmp_path):
    file = tmp_path / "image"
    shutil.copy(squash(), file)
    files = opened(file)
    shutil.copy(squash("-b", "4K"), tmp_path / "other")
    (tmp_path / "other").rename(file)
    with pytest.raises(ChangedError, match="changed while it was being read"):
        files.seen_by(Recorder())


# Hostile files ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    """A SquashFS file so small that every byte of it matters."""
    tree = tmp_path_factory.mktemp("little") / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/file").write_bytes(squashed.LARGE[:9000])
    (tree / "etc/link").symlink_to("file")
    (tree / "text").write_bytes(b"text\n" * 3000)
    return squashed.squash(tree, tree.parent / "little.squashfs", "-b", "4K", "-nopad").read_bytes()


def survives(file: Path) -> None:
    """Reads all of it: what is wrong with it is an OSError with one line, and takes no time and no memory."""
    said = "nothing"
    try:
        everything(opened(file), depth=3)
    except NoCodecError as error:
        said = error.name
    except OSError as error:
        said = error.strerror
    assert said
    assert "\n" not in said


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_image_is_an_error_or_other_content(little, tmp_path, seed):
    chance = random.Random(seed)  # noqa: S311 - the same damage every time
    file = tmp_path / "image"
    tracemalloc.start()
    for _ in range(60):
        data = bytearray(little)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.choice((0, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        file.write_bytes(data)
        survives(file)
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("seed", range(4))
def test_uncompressed_tables_of_nonsense_do_no_harm(little, tmp_path, seed):
    """Compression catches most damage; without it the tables themselves are hostile."""
    chance = random.Random(seed)  # noqa: S311 - the same damage every time
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/file").write_bytes(squashed.LARGE[:9000])
    (tree / "a/link").symlink_to("file")
    plain = squashed.squash(tree, tmp_path / "plain", "-b", "4K", "-nopad", "-noI", "-noD", "-noF").read_bytes()
    file = tmp_path / "image"
    for _ in range(120):
        data = bytearray(plain)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(96, len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        file.write_bytes(data)
        survives(file)


@pytest.mark.parametrize("kept", [0, 4, 95, 96, 100, 2000, -1])
def test_a_file_that_is_cut_off_says_so(little, tmp_path, kept):
    file = tmp_path / "image"
    file.write_bytes(little[:kept])
    with pytest.raises(OSError, match=r"cut off|damaged|no SquashFS"):
        everything(opened(file))


def test_a_directory_in_itself_is_as_deep_as_one_asks(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    file = squashed.squash(tree, tmp_path / "image", "-noI", "-nopad")
    files = opened(file)
    data = bytearray(file.read_bytes())
    # The one entry of the root's listing is made to lead to the root: its header's block, its own offset.
    root = files._super.root_inode
    at = files._super.directory_table_start + 2
    data[at + 4 : at + 8] = (root >> 16).to_bytes(4, "little")
    data[at + 12 : at + 14] = (root & 0xFFFF).to_bytes(2, "little")
    file.write_bytes(data)
    files = opened(file)
    assert files.lstat("/" + "a/" * 500) == files.lstat("/")
    assert [name for name, _ in files.scan("/a/a/a")] == ["a"]


COMPRESSORS = {
    1: zlib.compress,
    2: partial(lzma.compress, format=lzma.FORMAT_ALONE),
    4: lzma.compress,
    5: partial(lz4.block.compress, store_size=False),
    6: zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("number", COMPRESSORS)
@pytest.mark.parametrize("size", [8193, 1 << 28])
def test_a_block_does_not_become_more_than_it_may(number, size):
    bomb = COMPRESSORS[number](bytes(size))
    tracemalloc.start()
    with pytest.raises(BadBlockError):
        codec(number)(bomb, 8192)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("number", COMPRESSORS)
def test_a_block_becomes_what_it_was(number):
    data = squashed.LARGE[:8192]
    assert codec(number)(COMPRESSORS[number](data), 8192) == data


@pytest.mark.parametrize("number", COMPRESSORS)
@given(junk=st.binary(max_size=200))
@settings(max_examples=40)
def test_junk_is_a_bad_block_or_becomes_something_small(number, junk):
    with contextlib.suppress(BadBlockError):
        assert len(codec(number)(junk, 64)) <= 64


@pytest.mark.parametrize("number, module, package", [(3, "lzo", "python-lzo"), (5, "lz4.block", "lz4")])
def test_a_codec_that_is_not_installed_is_named(monkeypatch, number, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NoCodecError) as caught:
        codec(number)
    assert caught.value.package == package


def test_an_unknown_compression_has_a_number():
    with pytest.raises(NoCodecError, match="number 99"):
        codec(99)
