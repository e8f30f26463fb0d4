"""The live host says of real files what the kernel says."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess

import pytest

from cdi_hpc.host import LiveHost, mount_flags, node_kind

HOST = LiveHost()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "directory").mkdir(mode=0o750)
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "link").symlink_to("directory/../file")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    here = os.getcwd()
    os.chdir(tmp_path)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        os.chdir(here)
        yield tmp_path


@pytest.mark.parametrize("name", ["file", "directory", "fifo", "socket"])
def test_a_node_is_what_stat_says(files, name):
    path, found = str(files / name), os.stat(files / name)
    node = HOST.node(path)
    assert node is not None
    assert (node.kind, node.mode, node.uid, node.gid) == (name, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    assert node.real_path == os.path.realpath(path)


def test_a_device_has_its_numbers():
    node = HOST.node("/dev/null")
    assert node is not None
    assert (node.kind, node.major, node.minor) == ("character", 1, 3)


def test_links_are_followed(files):
    node = HOST.node(str(files / "link"))
    assert node is not None
    assert (node.kind, node.real_path) == ("file", os.path.realpath(files / "file"))


@pytest.mark.parametrize("name", ["missing", "missing/x", "file/x", "dangling", ""])
def test_what_is_not_there_is_none(files, name):
    assert HOST.node(str(files / name) if name else "") is None


@pytest.mark.parametrize("name, code", [("loop", errno.ELOOP), ("x" * 300, errno.ENAMETOOLONG)])
def test_what_the_kernel_will_not_say_is_an_error(files, name, code):
    with pytest.raises(OSError, match=os.strerror(code)) as raised:
        HOST.node(str(files / name))
    assert raised.value.errno == code


@pytest.mark.parametrize(
    "bits, kind",
    [
        (stat.S_IFREG, "file"),
        (stat.S_IFDIR, "directory"),
        (stat.S_IFCHR, "character"),
        (stat.S_IFBLK, "block"),
        (stat.S_IFIFO, "fifo"),
        (stat.S_IFSOCK, "socket"),
    ],
)
def test_every_file_type_has_a_word(bits, kind):
    assert node_kind(bits | 0o777) == kind


def test_opening_says_what_open_says(files):
    assert HOST.open_error("/dev/null", write=True) == 0
    assert HOST.open_error(str(files / "missing"), write=False) == errno.ENOENT
    assert HOST.open_error(str(files / "directory"), write=True) == errno.EISDIR
    assert HOST.open_error(str(files / "socket"), write=True) == errno.ENXIO


@pytest.mark.parametrize("write", [True, False])
def test_opening_a_fifo_does_not_wait_for_its_other_end(files, write):
    assert HOST.open_error(str(files / "fifo"), write=write) == 0


def test_a_file_is_read_and_a_missing_one_is_none(files):
    assert HOST.read(str(files / "file")) == b"content"
    assert HOST.read(str(files / "missing")) is None


def test_a_link_is_its_text(files):
    assert HOST.link(str(files / "link")) == "directory/../file"
    assert HOST.link(str(files / "dangling")) == "nothing"
    assert HOST.link(str(files / "file")) is None
    assert HOST.link(str(files / "missing")) is None


def test_groups_have_names_or_numbers():
    assert HOST.group_name(0) == "root"
    assert HOST.group_name(3999999999) == "3999999999"
    assert os.getegid() in HOST.groups()
    assert HOST.groups() >= set(os.getgroups())


def test_mount_flags_are_those_that_findmnt_lists():
    """/proc/self/mountinfo and statvfs(3) are two answers of one kernel."""
    for point in ("/", "/proc", "/sys", "/dev"):
        listed = subprocess.run(
            ["findmnt", "--noheadings", "--raw", "--output", "VFS-OPTIONS", "--target", point],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\n")[0]
        flags = set(mount_flags(point))
        assert flags - {"ro"} == set(listed.split(",")) - {"rw", "ro"}
        assert "ro" in flags or "ro" not in listed.split(",")
