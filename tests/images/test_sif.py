"""The table of a SIF file: real ones, and every kind that can't be read."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
import squashed
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.images.sif import Sif, read_sif
from cdi_hpc.launch.image import read_image


def read(file: Path) -> Sif:
    with file.open("rb") as stream:
        return read_sif(stream, str(file))


@pytest.fixture
def sif(tmp_path):
    def write(*partitions, **options):
        file = tmp_path / "image.sif"
        file.write_bytes(squashed.sif_of(list(partitions), **options))
        return file

    return write


SQUASHFS, EXT3, ENCRYPTED = 1, 2, 5
PRIMARY, DATA, OVERLAY = 2, 3, 4


def test_the_root_of_a_real_sif_is_where_the_table_says(lab):
    file = lab.image("debian.sif")
    primary = read(file).primary
    assert (primary.filesystem, primary.architecture, primary.primary) == ("squashfs", "x86_64", True)
    with file.open("rb") as stream:
        stream.seek(primary.offset)
        superblock = stream.read(96)
    assert superblock[:4] == b"hsqs"
    assert struct.unpack_from("<Q", superblock, 40)[0] <= primary.size
    assert primary.offset + primary.size <= file.stat().st_size


def test_a_sif_is_read_as_the_directory_that_it_was_made_of(lab, sif, squash):
    image = read_image(str(sif((b"data", 4, DATA), (squash().read_bytes(), SQUASHFS, PRIMARY))))
    assert (image.kind, image.architecture, image.mountable, image.notes) == ("sif", "x86_64", True, ())
    with image.files.open("/large") as stream:
        assert stream.read() == squashed.LARGE


@pytest.mark.parametrize(
    "partitions, types, reason",
    [
        ([(b"x", EXT3, PRIMARY)], (), "is a SIF file whose root file system is ext3, and only SquashFS is read"),
        ([(b"x", ENCRYPTED, PRIMARY)], (), "whose root file system is encrypted squashfs"),
        ([(b"x", 77, PRIMARY)], (), "whose root file system is number 77"),
        ([(b"x", SQUASHFS, DATA)], (), "is a SIF file without a root file system"),
        ([], (0x400A, 0x400B), "is an OCI-SIF file, and layers are not read"),
    ],
)
def test_what_can_not_be_read_has_a_reason(sif, partitions, types, reason):
    image = read_image(str(sif(*partitions, types=types)))
    assert (image.kind, image.files, image.mountable) == ("sif", None, False)
    assert reason in image.reason


def test_an_overlay_in_it_is_mentioned(sif, squash):
    image = read_image(str(sif((squash().read_bytes(), SQUASHFS, PRIMARY), (b"x", EXT3, OVERLAY))))
    assert image.files is not None
    assert re.fullmatch(r".*: what its overlay partition changes is not looked at", image.notes[0])


def test_a_version_that_is_not_known_is_refused(sif):
    with pytest.raises(CdiError, match="is a SIF file of version '02', and '01' is known"):
        read_image(str(sif(version=b"02")))


@pytest.mark.parametrize(
    "offset, field, value, what",
    [
        (128 - 40, "<q", 1 << 60, "a table of 1152921504606846976 descriptors"),
        (128 - 40, "<q", -1, "a table of -1 descriptors"),
        (128 - 32, "<q", 1 << 40, "bytes at 1099511627776 in a file of"),
        (128 - 32, "<q", -5, "bytes at -5 in a file of"),
        (128 + 17, "<q", 1 << 50, "a partition of 1 bytes at 1125899906842624"),
        (128 + 25, "<q", 1 << 62, "a partition of 4611686018427387904 bytes at"),
        (128 + 25, "<q", -1, "a partition of -1 bytes"),
    ],
)
def test_a_table_that_can_not_be_is_damage(sif, offset, field, value, what):
    file = sif((b"x", SQUASHFS, PRIMARY))
    data = bytearray(file.read_bytes())
    struct.pack_into(field, data, offset, value)
    file.write_bytes(data)
    with pytest.raises(CdiError, match=f"is damaged: .*{re.escape(what)}"):
        read_image(str(file))


@given(where=st.integers(0, 1500), value=st.integers(0, 255), cut=st.integers(0, 40_000))
@settings(max_examples=200)
def test_any_damage_is_read_or_refused_in_one_line(tmp_path_factory, where, value, cut):
    data = bytearray(squashed.sif_of([(b"hsqs" + bytes(100), SQUASHFS, PRIMARY)]))
    data[where] = value
    file = tmp_path_factory.mktemp("sif") / "image.sif"
    file.write_bytes(data[: len(data) - cut])
    problems: tuple[Problem, ...] = ()
    try:
        read_image(str(file))
    except CdiError as error:
        problems = error.problems
    assert len(problems) <= 1
    assert "\n" not in "".join(map(str, problems))
