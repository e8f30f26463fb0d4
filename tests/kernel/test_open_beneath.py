"""Opening a path that leads nowhere but down: by openat2(2), and by steps where the kernel lacks it."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest
import small_trees
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.launch import kernel
from cdi_hpc.launch.kernel import open_beneath, walk_beneath

#: Relative paths as steps have them, and as a hostile image might want them.
relative = st.lists(st.sampled_from([*small_trees.NAMES, "..", ".", ""]), min_size=1, max_size=5).map("/".join)


def outcome(opener, directory, path, flags):
    """What was opened, or the errno."""
    try:
        found = opener(directory, path, flags)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        status = os.fstat(found)
        return status.st_dev, status.st_ino
    finally:
        os.close(found)


@given(small_trees.trees(), st.lists(relative, min_size=1), st.sampled_from([os.O_PATH, os.O_RDONLY, os.O_DIRECTORY]))
def test_both_ways_open_the_same_or_fail_the_same(tree, paths, flags):
    with tempfile.TemporaryDirectory() as scratch:
        top = os.open(small_trees.make(Path(scratch, "top"), tree), os.O_PATH)
        try:
            for path in [*paths, *(path.lstrip("/") for path in tree)]:
                assert outcome(open_beneath, top, path, flags) == outcome(walk_beneath, top, path, flags), path
        finally:
            os.close(top)


@pytest.fixture
def top(tmp_path):
    """A directory with one of everything, opened."""
    tree = {"/d/f": b"", "/d/l": "-> f", "/l": "-> d", "/abs": "-> /etc", "/up": "-> ..", "/loop": "-> loop"}
    descriptor = os.open(small_trees.make(tmp_path / "top", tree), os.O_PATH)
    yield descriptor
    os.close(descriptor)


OPENERS = pytest.mark.parametrize("opener", [open_beneath, walk_beneath])


@OPENERS
@pytest.mark.parametrize(
    "path, code",
    [
        ("d", ""),
        ("d/f", ""),
        (".", ""),
        ("./d//f", ""),
        ("d/", ""),
        ("l", "ELOOP"),
        ("l/f", "ELOOP"),
        ("l/", "ELOOP"),
        ("d/l", "ELOOP"),
        ("abs", "ELOOP"),
        ("abs/passwd", "ELOOP"),
        ("up", "ELOOP"),
        ("loop", "ELOOP"),
        ("..", "EXDEV"),
        ("d/..", "EXDEV"),
        ("d/../d", "EXDEV"),
        ("missing/..", "EXDEV"),
        ("/", "EXDEV"),
        ("/etc", "EXDEV"),
        ("missing", "ENOENT"),
        ("d/missing/x", "ENOENT"),
        ("d/f/x", "ENOTDIR"),
        ("d/f/", "ENOTDIR"),
        ("d/f/.", "ENOTDIR"),
        ("x" * 256, "ENAMETOOLONG"),
    ],
)
def test_a_path_leads_down_or_nowhere(opener, top, path, code):
    found = outcome(opener, top, path, os.O_PATH)
    assert found == code if code else isinstance(found, tuple)


@OPENERS
@pytest.mark.parametrize("path", ["d/f", "l", "missing", "d/f/x", "..", "."])
def test_no_descriptor_is_left_open(opener, top, path):
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        outcome(opener, top, path, os.O_PATH)
    assert os.listdir("/proc/self/fd") == before


@OPENERS
def test_what_is_opened_is_not_inherited_by_the_command(opener, top):
    found = opener(top, "d/f")
    try:
        assert not os.get_inheritable(found)
    finally:
        os.close(found)


@OPENERS
def test_a_directory_can_be_opened_to_be_listed(opener, top):
    found = opener(top, ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert "d" in os.listdir(found)
    finally:
        os.close(found)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_without_openat2_is_asked_once(top, monkeypatch, code):
    """ENOSYS from an old kernel, EPERM from a seccomp filter that does not know the call."""
    asked = []

    def refuse(*_):
        asked.append(1)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(kernel, "_openat2", refuse)
    monkeypatch.setattr(kernel, "_openat2_works", True)
    assert outcome(open_beneath, top, "d/f", os.O_PATH) == outcome(walk_beneath, top, "d/f", os.O_PATH)
    assert outcome(open_beneath, top, "d/l", os.O_PATH) == "ELOOP"
    assert asked == [1]


def test_flags_become_the_kernels_bits():
    assert kernel.flag_bits(()) == 0
    assert kernel.flag_bits(("ro", "nodev", "noexec")) == os.ST_RDONLY | os.ST_NODEV | os.ST_NOEXEC
    assert len({bit for bit in kernel.FLAG_BITS.values() if bin(bit).count("1") == 1}) == len(kernel.FLAG_BITS)


def test_a_failed_system_call_says_what_it_was_about(tmp_path):
    with pytest.raises(OSError, match="missing") as raised:
        kernel.mount("none", str(tmp_path / "missing"), "tmpfs", 0)
    assert raised.value.filename == str(tmp_path / "missing")
    assert stat.S_ISDIR(os.stat(tmp_path).st_mode)
