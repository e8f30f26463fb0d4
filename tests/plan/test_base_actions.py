"""What every container gets besides the plan, and what --bind asks for."""

from __future__ import annotations

import errno
import os

import pytest
import small_trees
from fake_host import FakeHost, host

from cdi_hpc.container.stage import assemble
from cdi_hpc.errors import CdiError
from cdi_hpc.launch.base import base_actions, user_binds
from cdi_hpc.plan import Bind, MountFilesystem, Symlink, WriteFile

MACHINE = {
    "/proc": "d",
    "/sys": "d",
    "/dev": "d",
    "/tmp": "d",
    "/dev/null": "c 1:3",
    "/dev/zero": "c 1:5",
    "/dev/pts": "d",
    "/dev/ptmx": "c 5:2 real=/dev/pts/ptmx",
    "/dev/shm": "d",
    "/etc/resolv.conf": "f real=/run/resolv.conf",
    "/etc/hosts": "f",
}


@pytest.fixture
def image(tmp_path):
    return lambda tree: os.path.realpath(small_trees.make(tmp_path / "image", tree))


def bound(actions):
    return {action.target: action.source for action in actions if isinstance(action, Bind)}


def new_filesystems(actions):
    return [action.target for action in actions if isinstance(action, MountFilesystem)]


def written(actions):
    return {action.path: action.content for action in actions if isinstance(action, WriteFile)}


def test_an_image_gets_the_hosts_pseudo_file_systems_and_names(image):
    actions = base_actions(image({}), host(MACHINE), private_dev=False, contain=False)
    same = {path: path for path in ("/proc", "/sys", "/dev", "/tmp", "/etc/hosts")}
    assert bound(actions) == {**same, "/etc/resolv.conf": "/run/resolv.conf"}
    assert new_filesystems(actions) == []


def test_the_host_as_image_has_everything_already():
    assert base_actions("/", host(MACHINE), private_dev=False, contain=False) == []


def test_what_the_host_lacks_is_left_out(image):
    actions = base_actions(image({}), host({"/proc": "d"}), private_dev=False, contain=False)
    assert list(bound(actions)) == ["/proc"]


@pytest.mark.parametrize("root", ["/", "image"])
def test_a_private_dev_has_the_standard_nodes_that_the_host_has_and_the_usual_links(image, root):
    actions = base_actions(image({}) if root == "image" else "/", host(MACHINE), private_dev=True, contain=False)
    in_dev = {target: source for target, source in bound(actions).items() if target.startswith("/dev")}
    assert in_dev == {
        "/dev/null": "/dev/null",
        "/dev/zero": "/dev/zero",
        "/dev/shm": "/dev/shm",
    }
    assert new_filesystems(actions) == ["/dev", "/dev/pts"]
    links = {action.path: action.points_to for action in actions if isinstance(action, Symlink)}
    assert links["/dev/fd"] == "/proc/self/fd"
    assert links["/dev/ptmx"] == "pts/ptmx"
    assert set(links) == {"/dev/fd", "/dev/ptmx", "/dev/stdin", "/dev/stdout", "/dev/stderr"}


def test_the_private_dev_is_not_world_writable():
    """Else the kernel refuses "> /dev/null" with O_CREAT (protected_regular)."""
    (dev, *_) = base_actions("/", host(MACHINE), private_dev=True, contain=False)
    assert dev.data == ("mode=755",)


@pytest.mark.parametrize("root", ["/", "image"])
def test_a_contained_command_has_a_tmp_and_shared_memory_of_its_own(image, root):
    actions = base_actions(image({}) if root == "image" else "/", host(MACHINE), private_dev=True, contain=True)
    assert new_filesystems(actions) == ["/dev", "/dev/pts", "/dev/shm", "/tmp"]
    assert not {"/tmp", "/dev/shm"} & set(bound(actions))


@pytest.mark.parametrize("private_dev, contain", [(False, False), (True, False), (True, True)])
def test_all_of_it_fits_into_an_empty_image(image, private_dev, contain):
    root = image({})
    machine = host({path: text for path, text in MACHINE.items() if os.path.exists(path)})
    tree = assemble(base_actions(root, machine, private_dev=private_dev, contain=contain), root).tree
    assert set(tree.names("/")) >= {"dev", "etc", "proc", "sys", "tmp"}


# Accounts -------------------------------------------------------------------------------------------------------

USER = f"me:x:{os.getuid()}:{os.getgid()}::/:/bin/sh\n".encode()
GROUPS = b"".join(f"g{gid}:x:{gid}:\n".encode() for gid in {os.getgid(), *os.getgroups()})


def accounts_of(root):
    return written(base_actions(root, host(MACHINE), private_dev=False, contain=False))


def test_an_image_that_knows_the_user_keeps_its_accounts(image):
    assert accounts_of(image({"/etc/passwd": b"other:x:1:1::/:\n" + USER, "/etc/group": GROUPS})) == {}


@pytest.mark.parametrize("present", [b"daemon:x:4294967294:1::/:\n", b"daemon:x:4294967294:1::/:"])
def test_a_missing_user_is_added_on_a_line_of_its_own(image, present):
    passwd = accounts_of(image({"/etc/passwd": present, "/etc/group": GROUPS}))["/etc/passwd"]
    first, second, rest = passwd.split(b"\n")
    assert first == present.strip()
    assert second.split(b":")[2:4] == [b"%d" % os.getuid(), b"%d" % os.getgid()]
    assert rest == b""


def test_an_image_without_accounts_gets_the_users(image):
    accounts = accounts_of(image({}))
    assert [line.split(b":")[2] for line in accounts["/etc/passwd"].splitlines()] == [b"%d" % os.getuid()]
    assert {int(line.split(b":")[2]) for line in accounts["/etc/group"].splitlines()} == {os.getgid(), *os.getgroups()}


@pytest.mark.parametrize(
    "hostile",
    [b"\xff\0\n", b":::\n", b"x\n", b"a:x:-1:\n", b"a:x:" + b"9" * 5000 + b":1::/:\n", "a:x:\u00b2:\n".encode()],
)
def test_accounts_that_make_no_sense_are_kept_and_added_to(image, hostile):
    accounts = accounts_of(image({"/etc/passwd": hostile, "/etc/group": hostile}))
    for table in accounts.values():
        assert table.startswith(hostile)
    assert set(accounts) == {"/etc/passwd", "/etc/group"}


def test_accounts_are_read_inside_the_image(image):
    accounts = accounts_of(image({"/etc/passwd": "-> ../../../../../../../../etc/passwd", "/etc/group": GROUPS}))
    assert len(accounts["/etc/passwd"].splitlines()) == 1


# --bind ---------------------------------------------------------------------------------------------------------

BINDS = {"/data": "d real=/srv/data flags=nodev,relatime", "/f": "f", "/dev/null": "c 1:3", "/s": "s"}


@pytest.mark.parametrize(
    "text, source, target, kind, flags",
    [
        ("/data", "/srv/data", "/data", "directory", ()),
        ("/data:/mnt", "/srv/data", "/mnt", "directory", ()),
        ("/data:/mnt:ro", "/srv/data", "/mnt", "directory", ("ro",)),
        ("/data:/mnt:rw", "/srv/data", "/mnt", "directory", ()),
        ("/data::ro", "/srv/data", "/data", "directory", ("ro",)),
        ("/data:mnt/../x", "/srv/data", "/x", "directory", ()),
        ("/data/../f:/g", "/f", "/g", "file", ()),
        ("/dev/null:/n", "/dev/null", "/n", "device", ()),
        ("/s", "/s", "/s", "socket", ()),
    ],
)
def test_a_bind_is_source_target_and_mode(text, source, target, kind, flags):
    (action,) = user_binds((text,), host(BINDS))
    assert isinstance(action, Bind)
    assert (action.source, action.target, action.kind, action.flags) == (source, target, kind, flags)
    assert action.recursive is (kind == "directory")
    assert action.kept == (("nodev", "relatime") if source == "/srv/data" else ())


def test_a_relative_source_is_below_the_working_directory():
    here = os.getcwd()
    (action,) = user_binds(("data",), host({f"{here}/data": "d"}))
    assert (action.source, action.target) == (f"{here}/data", f"{here}/data")


@pytest.mark.parametrize("text", ["", ":", ":/x", "/data:/x:rx", "/data:/x:ro:", "/data:/x:ro:rw"])
def test_a_bind_that_is_not_understood_is_said_so(text):
    with pytest.raises(CdiError, match="not understood"):
        user_binds((text,), host(BINDS))


def test_all_sources_that_are_not_there_are_named_together():
    on = FakeHost(look_errors={"/secret/x": errno.EACCES})
    with pytest.raises(CdiError) as raised:
        user_binds(("/missing", "/secret/x:/y"), on)
    assert [str(problem) for problem in raised.value.problems] == [
        "--bind /missing: '/missing' is not there (make it, or correct the path)",
        "--bind /secret/x:/y: '/secret/x': Permission denied",
    ]
