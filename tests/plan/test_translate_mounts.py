"""Mounts of a plan: binds, new file systems, and options that are not for us."""

from __future__ import annotations

import errno

import pytest
from fake_host import FakeHost, host
from hypothesis import given
from hypothesis import strategies as st
from translated import FILES, ORIGIN, actions_of, only, said

from cdi_hpc.plan import (
    Bind,
    MountFilesystem,
    Note,
    Unsupported,
)
from cdi_hpc.spec.model import Mount
from cdi_hpc.translation.translate import container_path


@pytest.mark.parametrize(
    "source, kind, recursive",
    [
        ("/lib/libx.so.1", "file", False),
        ("/opt/data", "directory", True),
        ("/run/d.sock", "socket", False),
        ("/run/fifo", "file", False),
        ("/dev/gpu", "device", False),
        ("/dev/disk", "device", False),
    ],
)
@pytest.mark.parametrize("type_name", ["", "bind", "none", "-", "l"])
def test_a_mount_is_a_bind_of_what_is_there(source, kind, recursive, type_name):
    on = host(FILES)
    bind = only(actions_of(on, mounts=[Mount(source, "/in/x", ("ro", "rbind"), type_name)]), Bind)
    assert bind == Bind(
        on.nodes[source].real_path,
        "/in/x",
        kind,
        ORIGIN,
        flags=("ro",),
        kept=on.nodes[source].mount_flags,
        recursive=recursive,
    )


@pytest.mark.parametrize("options, propagation", [((), "rprivate"), (("slave",), "slave"), (("rshared",), "rshared")])
def test_the_propagation_is_the_specs_or_private(options, propagation):
    assert only(actions_of(host(FILES), mounts=[Mount("/opt/data", "/x", options)]), Bind).propagation == propagation


@pytest.mark.parametrize("written, target", [
    ("/a//b/", "/a/b"), ("a/b", "/a/b"), ("/a/../../b", "/b"), ("//a", "/a"), ("/a/./b", "/a/b"), ("/a/b\n", "/a/b\n"),
])  # fmt: skip
def test_a_container_path_is_absolute_and_normal(written, target):
    assert container_path(written) == target
    assert only(actions_of(host(FILES), mounts=[Mount("/opt/data", written)]), Bind).target == target


@given(st.text(st.characters(exclude_characters="\0")))
def test_no_container_path_leaves_the_root(text):
    path = container_path(text)
    assert path.startswith("/")
    assert not path.startswith("//")
    assert path == "/" or not {"", ".", ".."} & set(path[1:].split("/"))
    assert container_path(path) == path


@pytest.mark.parametrize("target", ["/", "", "//", "/..", "/a/..", "."])
@pytest.mark.parametrize("type_name", ["", "tmpfs"])
def test_a_mount_does_not_replace_the_root(target, type_name):
    found = only(actions_of(host(FILES), mounts=[Mount("/opt/data", target, (), type_name)]), Unsupported)
    assert found.fatal
    assert found.reason == "a mount can't replace the container's root"


@pytest.mark.parametrize("host_path", ["lib", "./lib", "../lib", ""])
def test_a_relative_source_is_refused(host_path):
    found = only(actions_of(host({host_path: "f"}), mounts=[Mount(host_path, "/x")]), Unsupported)
    assert found.fatal
    assert found.reason == f"hostPath {host_path!r} is not absolute; correct the spec"


@pytest.mark.parametrize(
    "path, optional",
    [
        ("/run/nvidia-persistenced/socket", True),
        ("/run/daemon.sock", True),
        ("/run/daemonsocket", True),
        ("/tmp/nvidia-mps", True),
        ("/tmp/nvidia-mps2", False),
        ("/run/sock", False),
        ("/usr/lib/libx.so", False),
        ("/run/socket.d", False),
    ],
)
def test_only_a_daemons_missing_socket_may_be_skipped(path, optional):
    (found,) = actions_of(host(), mounts=[Mount(path, path)])
    assert isinstance(found, Note if optional else Unsupported)
    assert optional or found.fatal
    assert path in found.reason


def test_a_socket_that_can_not_be_looked_at_is_not_skipped():
    on = FakeHost(look_errors={"/run/d/socket": errno.EACCES})
    found = only(actions_of(on, mounts=[Mount("/run/d/socket", "/run/d/socket")]), Unsupported)
    assert found.fatal
    assert "permission denied on the way to /run/d/socket" in found.reason


def test_a_missing_library_stops_the_launch():
    found = only(actions_of(host(), mounts=[Mount("/lib/libx.so.2", "/lib/libx.so.2")]), Unsupported)
    assert found.fatal
    assert found.reason.startswith("/lib/libx.so.2 is not on this host")


@pytest.mark.parametrize("fstype", ["tmpfs", "ramfs", "devpts"])
def test_a_file_system_that_a_user_namespace_may_mount_is_mounted(fstype):
    options = ("nosuid", "size=64k,mode=755", "rw", "nodev")
    assert actions_of(host(), mounts=[Mount("none", "/scratch", options, fstype)]) == (
        MountFilesystem(fstype, "none", "/scratch", ORIGIN, ("nodev", "nosuid"), ("size=64k", "mode=755")),
    )


def test_a_file_system_without_a_source_is_named_after_its_type():
    assert only(actions_of(host(), mounts=[Mount("", "/s", (), "tmpfs")]), MountFilesystem).source == "tmpfs"


@pytest.mark.parametrize("fstype", ["proc", "sysfs", "cgroup2", "ext4", "nfs", "overlay", "mqueue", "fuse"])
def test_a_file_system_that_takes_privilege_stops_the_launch(fstype):
    found = only(actions_of(host(), mounts=[Mount("x", "/x", (), fstype)]), Unsupported)
    assert found.fatal
    assert f"type {fstype!r}" in found.reason


@pytest.mark.parametrize("option", ["size=1m", "x-systemd.automount", "sync"])
def test_an_option_that_a_bind_does_not_have_is_noted(option):
    assert said(host(FILES), mounts=[Mount("/opt/data", "/x", ("ro", option))]) == [
        f"option {option!r} means nothing to a bind and is left out"
    ]


@pytest.mark.parametrize("source, noted", [("/opt/data", True), ("/lib/libx.so.1", False)])
def test_a_flag_for_a_whole_tree_is_noted_where_there_is_a_tree(source, noted):
    found = actions_of(host(FILES), mounts=[Mount(source, "/x", ("rro",))])
    assert found[0].flags == ("ro",)
    assert [action.reason for action in found[1:]] == (
        ["option 'rro' is applied to the mount itself, not to mounts below it"] if noted else []
    )


@pytest.mark.parametrize(
    "asked, kept, flags, left_out",
    [
        (("noatime", "ro"), "relatime", ("ro",), ["noatime"]),
        (("strictatime",), "relatime", (), ["strictatime"]),
        (("nodiratime", "noatime"), "relatime", (), ["noatime", "nodiratime"]),
        (("noatime", "ro"), "noatime", ("noatime", "ro"), []),
        (("relatime",), "relatime", ("relatime",), []),
    ],
)
def test_access_times_stay_as_the_sources_mount_has_them(asked, kept, flags, left_out):
    """They are locked in a user namespace, mount_namespaces(7): asking for others is EPERM."""
    found = actions_of(host({"/data": f"d flags={kept}"}), mounts=[Mount("/data", "/data", asked)])
    assert found[0].flags == flags
    assert [action.reason for action in found[1:]] == [
        f"option {name!r} is left out: a user namespace can't change how access times are kept" for name in left_out
    ]


@pytest.mark.parametrize("option", ["rshared", "slave", "unbindable"])
def test_the_propagation_of_a_new_file_system_is_noted(option):
    found = actions_of(host(), mounts=[Mount("none", "/s", ("ro", option), "tmpfs")])
    assert [type(action) for action in found] == [MountFilesystem, Note]
    assert found[1].reason == f"option {option!r} means nothing to a mount of the container's own"
