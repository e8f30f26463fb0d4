"""The rule of CUDA forward compatibility, and the note that it reads from files nobody vouches for."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess

import pytest
from compat_library import SHT_NOTE, SHT_PROGBITS, Section, elf, library, note
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_hpc.container.cuda_compat import CompatNote, Decision, find_compat, parse_version, read_note, use_compat

CUDA_12_9 = {
    "Format": 1,
    "CUDA Version": "12.9",
    "Driver": [535, 550, 560, 565, 570, 575],
    "Device": [1, 2, 7, 8, 9],
}
NOTE = CompatNote("12.9", (535, 550, 560, 565, 570, 575))
TEGRA = CompatNote("13.2")


def read(data: bytes) -> CompatNote | None:
    return read_note(io.BytesIO(data))


# Versions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["570", "570.86", "570.86.07", "v570.1", "0.0", "1.2.3-rc.1+x.1", "1-a", "1.2-0a"])
def test_a_version_may_be_written_loosely(text):
    assert parse_version(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v",
        "570.1.2.3",
        "570.",
        ".1",
        " 1",
        "1 ",
        "1\n",
        "-1",
        "V1",
        "1.x",
        "1-",
        "1-a..b",
        "1-01",
        "1+",
        "1-é",
        "\u0661",  # a digit elsewhere
        "18446744073709551616",
        "1" + "0" * 5000,
    ],
)
def test_what_is_no_version_is_none(text):
    assert parse_version(text) is None


def test_versions_order_by_number_and_a_release_follows_its_prereleases():
    ordered = [
        "1.2",
        "1.10.0-1",
        "1.10.0-9",
        "1.10.0-10",
        "1.10.0-a",
        "1.10.0-a.1",
        "1.10.0-b",
        "1.10",
        "570.86.07",
        "570.100",
    ]
    versions = [parse_version(text) for text in ordered]
    assert versions == sorted(versions, reverse=False)
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize(
    "one, other", [("1", "1.0.0"), ("v1.2", "1.2.0"), ("1.2.3+a", "1.2.3+b"), ("570.86.07", "570.86.7")]
)
def test_versions_that_differ_in_writing_alone_are_equal(one, other):
    assert parse_version(one) == parse_version(other)


numbers = st.tuples(*[st.integers(0, 2**64 - 1)] * 3)


@given(numbers, numbers)
def test_versions_of_three_numbers_order_as_the_numbers_do(one, other):
    texts = [".".join(map(str, version)) for version in (one, other)]
    left, right = map(parse_version, texts)
    assert (left < right, left == right) == (one < other, one == other)


# The rule -----------------------------------------------------------------------------------------------------

RULE = [
    # library's version, note, host's driver, host's CUDA, used
    ("575.57.08", NOTE, "570.211.01", "", True),
    ("575.57.08", NOTE, "575.10.10", "", True),
    ("575.57.08", NOTE, "575.57.08", "", False),
    ("575.57.08", NOTE, "575.57.8", "", False),
    ("575.57.08", NOTE, "575.99.99", "", False),
    ("575.57.08", NOTE, "590.44.01", "", False),
    ("575.57.08", NOTE, "545.23.06", "", False),  # older, but not in the note
    ("575.57.08", NOTE, "570.211.01", "12.9", True),  # the driver's version decides where it is given
    ("575.57.08", NOTE, "590.44.01", "12.0", False),
    ("575.57.08", NOTE, "", "12.8", True),
    ("575.57.08", NOTE, "", "12.9", False),
    ("575.57.08", NOTE, "", "12.10", False),
    ("575.57.08", NOTE, "unknown", "12.8", True),
    ("a.b", NOTE, "570.1", "12.8", True),
    ("575.57.08", NOTE, "unknown", "", False),
    ("575.57.08", NOTE, "", "new", False),
    ("1.1", TEGRA, "", "12.6", True),
    ("1.1", TEGRA, "540.3.0", "12.6", False),  # a note without drivers knows none
    ("575.57.08", CompatNote("", (570,)), "", "12.8", False),
    # No note: only a newer major version of the driver.
    ("575.57.08", None, "570.211.01", "", True),
    ("575.57.08", None, "575.10.10", "", False),
    ("575.57.08", None, "99.55.66", "", True),
    ("575.57.08", None, "590.44.01", "", False),
    ("575.57.08", None, "570.211.01", "12.8", False),
    ("575.57.08", None, "", "12.8", False),
    ("575.57.08", None, "", "", False),
    ("575.57.08", None, "unknown", "", False),
    ("a.b", None, "1.1", "", False),
]


@pytest.mark.parametrize("version, compat_note, driver, cuda, used", RULE)
def test_the_rule(version, compat_note, driver, cuda, used):
    decision = use_compat(f"libcuda.so.{version}", compat_note, driver, cuda)
    assert decision.use is used
    assert decision.reason


def test_the_reason_names_what_was_compared():
    assert use_compat("libcuda.so.575.57.08", NOTE, "590.44.01", "") == Decision(
        use=False, reason="made for the drivers 535, 550, 560, 565, 570, 575, and the host has '590.44.01'"
    )


@given(st.text(), st.one_of(st.none(), st.builds(CompatNote, st.text())), st.text(), st.text())
def test_no_version_makes_the_rule_raise(name, compat_note, driver, cuda):
    assert isinstance(use_compat(name, compat_note, driver, cuda), Decision)


# The library --------------------------------------------------------------------------------------------------


def test_the_one_library_with_a_full_version_is_found():
    assert (
        find_compat(["libcuda.so", "libcuda.so.1", "libcuda.so.575.57.08", "libnvidia-nvvm.so.4"])
        == "libcuda.so.575.57.08"
    )


@pytest.mark.parametrize(
    "names", [[], ["libcuda.so.1"], ["libcuda.so.1.1", "libcuda.so.575.57.08"], ["xlibcuda.so.1.1"]]
)
def test_without_exactly_one_library_there_is_a_reason(names):
    decision = find_compat(names)
    assert isinstance(decision, Decision)
    assert not decision.use


# The note -----------------------------------------------------------------------------------------------------

FORMS = [
    {},
    {"alignment": 1},
    {"alignment": 8},
    {"bits": 32},
    {"order": ">"},
    {"bits": 32, "order": ">", "alignment": 16},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_note_is_read_from_every_form_of_elf(form):
    assert read(library(CUDA_12_9, **form)) == NOTE


@pytest.mark.parametrize(
    "document, expected",
    [
        ({"Format": 1, "CUDA Version": "13.2"}, TEGRA),
        ({"format": 1, "cuda version": "13.2", "DRIVER": None}, TEGRA),
        ({"CUDA Version": "12.9", "Driver": NOTE.drivers, "Later": {"x": [1.5]}}, NOTE),
        (b'{"Driver": [570]}\0\0\0', CompatNote("", (570,))),
        (b"null", CompatNote()),
    ],
)
def test_fields_may_be_absent_and_others_there(document, expected):
    assert read(library(document)) == expected


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b'"12.9"',
        b'{"Driver": [570],}',
        b'{"Driver": [570]} more',
        b'{"Driver": [NaN]}',
        b"[" * 40_000,
        b'{"Driver": [' + b"9" * 5000 + b"]}",
        {"CUDA Version": 12.9},
        {"Driver": 570},
        {"Driver": [570.5]},
        {"Driver": ["570"]},
        {"Driver": [True]},
        {"Driver": [2**63]},
        {"Driver": [570], "Device": "x"},
        {"Driver": [570], "Format": "1"},
    ],
)
def test_a_note_that_says_something_else_is_none(document):
    assert read(library(document)) is None


def test_a_section_of_the_right_name_must_be_a_note_of_the_vendor():
    name = ".note.cuda.fwd_compatibility"
    assert read(elf(Section(name, SHT_NOTE, note(CUDA_12_9)))) == NOTE
    assert read(elf(Section(name, SHT_PROGBITS, note(CUDA_12_9)))) is None
    assert read(elf(Section(name, SHT_NOTE, note(CUDA_12_9, vendor=b"NVIDIA")))) is None
    assert read(elf(Section(name, SHT_NOTE, b"\1\2\3"))) is None
    assert read(elf(Section(name + ".old", SHT_NOTE, note(CUDA_12_9)))) is None
    assert read(elf()) is None


def test_the_note_of_a_library_that_a_compiler_made_is_read(tmp_path):
    """The linker decides where sections go; this one is a real shared object with all that belongs to it."""
    source, built = tmp_path / "note.c", tmp_path / "libcuda.so.575.57.08"
    data = ",".join(map(str, note(CUDA_12_9)))
    section = '__attribute__((section(".note.cuda.fwd_compatibility"), aligned(4), used))'
    source.write_text(f"{section} static const unsigned char note[] = {{{data}}}; int cuInit(void) {{ return 0; }}\n")
    compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
    with built.open("rb") as stream:
        assert read_note(stream) == NOTE


HONEST = library(CUDA_12_9)


@settings(max_examples=500)
@given(
    st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, len(HONEST)),
)
def test_no_damage_to_a_library_makes_reading_raise(damage, length):
    data = bytearray(HONEST)
    for place, value in damage:
        data[place : place + len(value)] = value
    result = read(bytes(data[:length]))
    assert result is None or isinstance(result, CompatNote)


@given(st.binary(max_size=200))
def test_no_bytes_make_reading_raise(data):
    assert read(data) is None
    assert read(b"\x7fELF" + data) is None


class Counted(io.BytesIO):
    """Counts what is read from it."""

    taken = 0

    def read(self, size=-1, /):
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest.mark.parametrize("size", [0, 1, 64])
def test_a_library_that_claims_countless_sections_is_not_read_forever(size):
    """Section headers of size 0 are all the same one; a name table without an end is as long as the file."""
    header = bytearray(HONEST[:64])
    header[58:64] = struct.pack("<HHH", size, 0xFEFF, 0)
    header[40:48] = struct.pack("<Q", 64)
    stream = Counted(
        bytes(header) + struct.pack("<IIQQQQIIQQ", 0, SHT_NOTE, 0, 0, 0, 2**62, 0, 0, 4, 0) + b"x" * 2_000_000
    )
    assert read_note(stream) is None
    assert stream.taken < 200_000


def test_a_note_that_claims_to_be_huge_is_read_in_part():
    data = bytearray(HONEST)
    where = data.rindex(struct.pack("<Q", len(note(CUDA_12_9))))
    data[where : where + 8] = struct.pack("<Q", 2**62)
    stream = Counted(bytes(data) + b"x" * 2_000_000)
    assert read_note(stream) == NOTE
    assert stream.taken < 200_000
