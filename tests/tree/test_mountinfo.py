"""Mount points as /proc/self/mountinfo lists them."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.mountinfo import mount_points, parse

LINE = b"36 35 98:0 /mnt1 %s rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"


def escaped(path: bytes) -> bytes:
    """What the kernel writes: seq_path() escapes blanks and backslashes, nothing else."""
    for character in b"\\ \t\n":
        path = path.replace(bytes([character]), b"\\%03o" % character)
    return path


def test_the_fifth_field_is_the_mount_point():
    assert parse(LINE % b"/mnt2") == ("/mnt2",)


def test_mount_points_are_sorted_and_there_once():
    assert parse(LINE % b"/b" + LINE % b"/a" + LINE % b"/b") == ("/a", "/b")


@pytest.mark.parametrize("text", [b"", b"\n", b"1 2 3\n", b"garbage"])
def test_a_line_that_is_too_short_is_no_mount(text):
    assert parse(text) == ()


@given(st.binary().map(lambda name: b"/" + name.replace(b"\0", b"")))
def test_any_name_is_read_back(path):
    (found,) = parse(LINE % escaped(path))
    assert os.fsencode(found) == path


def test_this_processs_mount_points_are_those_that_findmnt_lists():
    listed = subprocess.run(
        ["findmnt", "--list", "--noheadings", "--output", "TARGET"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert set(mount_points()) == {line for line in listed if line}
