"""How views are asked for and compared: a comparison that passes too easily would make every launch test worthless."""

from __future__ import annotations

import base64
import struct

import pytest
from views import view

WANTED = """\
C liba.so.1 => /lib/liba.so.1
D /dev/a character special file 1:3
E NAME=value=with=signs
H /opt/a /host/a
L /opt/link -> target
M /opt/a ro nosuid
M /dev/a
O liba.so.1 /lib/liba.so.1
"""


@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_a_view_holds_in_itself(case):
    assert view.compare(case.wanted, case.wanted).misses == ()


@pytest.mark.parametrize("line", WANTED.splitlines())
def test_each_fact_that_is_not_there_is_missed(line):
    kinds = [miss.kind for miss in view.compare(WANTED, WANTED.replace(f"{line}\n", "")).misses]
    assert kinds == [view.FACTS[line[0]][0]]


@pytest.mark.parametrize(
    "line, other",
    [
        ("D /dev/a character special file 1:3", "D /dev/a character special file 1:5"),
        ("E NAME=value=with=signs", "E NAME=value"),
        ("H /opt/a /host/a", "H /opt/a image-or-other"),
        ("L /opt/link -> target", "L /opt/link -> /target"),
        ("M /opt/a ro nosuid", "M /opt/a ro"),
        ("O liba.so.1 /lib/liba.so.1", "O liba.so.1 missing"),
    ],
)
def test_a_fact_with_another_value_is_missed(line, other):
    assert len(view.compare(WANTED, WANTED.replace(line, other)).misses) == 1


@pytest.mark.parametrize(
    "line, other",
    [
        ("M /opt/a ro nosuid", "M /opt/a ro nosuid nodev noexec"),
        ("M /dev/a", "M /dev/a nosuid"),
        ("O liba.so.1 /lib/liba.so.1", "O liba.so.1 /usr/lib/liba.so.1"),
        ("C liba.so.1 => /lib/liba.so.1", "C liba.so.1 => /usr/lib/liba.so.1"),
    ],
)
def test_flags_may_be_stricter_and_a_library_elsewhere(line, other):
    assert view.compare(WANTED, WANTED.replace(line, other)).misses == ()


def test_what_the_reference_did_not_find_is_not_asked():
    assert not view.compare("O liba.so missing\nE NAME=__unset__\n", "").asked


def test_the_questions_are_those_that_the_view_answers():
    for case in view.CASES:
        answered = {thing for _, thing in view.facts(case.wanted)}
        asked = {question.partition(":")[2] if question[1] == ":" else question for question in case.questions()}
        # The cache is told as a whole, not asked for by name.
        assert {thing for kind, thing in view.facts(case.wanted) if kind != "cache"} <= asked
        assert asked - answered == set()


def cache(*entries: tuple[str, str]) -> bytes:
    """An ld.so.cache of the present format, from its documentation and not from our writer."""
    strings, table = b"", b""
    start = view.CACHE_ENTRIES_AT + len(entries) * view.CACHE_ENTRY.size
    for soname, path in entries:
        at = start + len(strings)
        table += struct.pack("<iIIIQ", 0x303, at, at + len(soname) + 1, 0, 0)
        strings += f"{soname}\0{path}\0".encode()
    return view.CACHE_MAGIC + struct.pack("<II", len(entries), len(strings)) + bytes(20) + table + strings


def test_only_the_spec_s_own_libraries_of_a_cache_belong_to_the_view():
    case = next(case for case in view.CASES if case.directory.name == "nvidia-ctk-hook-spelling")
    ours = "libnvidia-tls.so.520.61.05"
    blob = cache((ours, f"/usr/lib64/{ours}"), ("libc.so.6", "/lib/libc.so.6"))
    raw = f"B {base64.b64encode(blob).decode()}\n"
    assert case.normalise(raw) == f"C {ours} => /usr/lib64/{ours}\n"
