"""From merged edits to a plan, on hosts made of tables."""

from __future__ import annotations

import dataclasses
import errno
from typing import Any

import pytest
from fake_host import FakeHost, host
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.model import DeviceNode, Hook, IntelRdt, Mount, NetDevice, Origin, ResolvedEdits, Sourced
from cdi_hpc.plan import (
    Action,
    Bind,
    CudaCompat,
    MountFilesystem,
    Note,
    Plan,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.translate import container_path, translate

ORIGIN = Origin("/etc/cdi/vendor.yaml", "vendor.com/class=one", "devices[0].containerEdits.x[0]")
NULL = {"/dev/null": "c 1:3 mode=666", "/dev/gpu": "c 195:0 mode=666"}


def edits(**fields: Any) -> ResolvedEdits:
    def sourced(value: Any) -> Any:
        return tuple(Sourced(item, ORIGIN) for item in value) if isinstance(value, (list, tuple)) else value

    return ResolvedEdits(**{name: sourced(value) for name, value in fields.items()})


def plan_of(on: FakeHost, unknown_hooks: Any = "warn", **fields: Any) -> Plan:
    return translate(edits(**fields), on, unknown_hooks=unknown_hooks)


def actions_of(on: FakeHost, **fields: Any) -> tuple[Action, ...]:
    return plan_of(on, **fields).actions


def said(on: FakeHost, **fields: Any) -> list[str]:
    """What the plan says besides doing something."""
    return [a.reason for a in actions_of(on, **fields) if isinstance(a, (Note, Unsupported))]


def only(actions: tuple[Action, ...], kind: type) -> Any:
    (found,) = (action for action in actions if isinstance(action, kind))
    return found


# Environment ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, name, value",
    [("A=1", "A", "1"), ("A=", "A", ""), ("A=b=c", "A", "b=c"), ("A==", "A", "="), ("A=x\ny", "A", "x\ny")],
)
def test_a_variable_is_split_at_the_first_equals_sign(text, name, value):
    assert actions_of(host(), env=[text]) == (SetEnv(name, value, ORIGIN),)


# Device nodes ---------------------------------------------------------------------------------------------------


def test_a_device_node_is_a_bind_of_the_node_alone():
    found = actions_of(host({"/dev/gpu": "c 195:0 flags=nosuid,noexec"}), device_nodes=[DeviceNode("/dev/gpu")])
    assert found == (Bind("/dev/gpu", "/dev/gpu", "device", ORIGIN, kept=("nosuid", "noexec"), recursive=False),)


def test_the_host_path_is_the_source_and_its_links_are_followed():
    on = host({"/run/driver/dev/gpu": "c 195:0 real=/run/real/gpu"})
    bind = only(actions_of(on, device_nodes=[DeviceNode("/dev/gpu", "/run/driver/dev/gpu")]), Bind)
    assert (bind.source, bind.target) == ("/run/real/gpu", "/dev/gpu")


#: the spec's type, the host's node, whether it is bound.
TYPES = [
    ("", "c 1:3", True),
    ("", "b 8:0", True),
    ("", "p", True),
    ("c", "c 1:3", True),
    ("u", "c 1:3", True),
    ("b", "b 8:0", True),
    ("p", "p", True),
    ("c", "b 8:0", False),
    ("u", "b 8:0", False),
    ("b", "c 1:3", False),
    ("p", "c 1:3", False),
    ("c", "p", False),
    ("", "f", False),
    ("", "d", False),
    ("", "s", False),
    ("c", "f", False),
]


@pytest.mark.parametrize("type_letter, facts, bound", TYPES)
def test_a_node_is_bound_only_if_it_is_of_the_type_that_the_spec_says(type_letter, facts, bound):
    found = actions_of(host({"/dev/x": facts}), device_nodes=[DeviceNode("/dev/x", type=type_letter)])
    assert [type(action) for action in found] == ([Bind] if bound else [Unsupported])
    assert bound or found[0].fatal


def test_a_type_mismatch_names_both_types():
    (reason,) = said(host({"/dev/x": "b 8:0"}), device_nodes=[DeviceNode("/dev/x", type="c")])
    assert reason.startswith("the spec says type 'c' (character), /dev/x is a block device")


def test_a_plain_file_in_the_place_of_a_node_is_refused_as_such():
    (reason,) = said(host({"/dev/x": "f"}), device_nodes=[DeviceNode("/dev/x")])
    assert reason == "/dev/x is a file on this host, not a device node"


@pytest.mark.parametrize(
    "numbers, noted",
    [((1, 3), False), ((0, 0), False), ((1, 5), True), ((2, 3), True), ((0, 3), False)],
)
def test_other_numbers_than_the_hosts_are_noted_and_the_hosts_node_is_bound(numbers, noted):
    wanted = DeviceNode("/dev/null", type="c", major=numbers[0], minor=numbers[1])
    found = actions_of(host(NULL), device_nodes=[wanted])
    assert isinstance(found[0], Bind)
    assert [type(action) for action in found[1:]] == ([Note] if noted else [])
    assert not noted or found[1].reason.startswith(f"the spec says {numbers[0]}:{numbers[1]}, the host's node is 1:3")


def test_a_fifo_has_no_numbers_to_compare():
    wanted = DeviceNode("/run/fifo", type="p", major=1, minor=3)
    assert said(host({"/run/fifo": "p"}), device_nodes=[wanted]) == []


def test_a_missing_node_stops_the_launch():
    found = only(actions_of(host(), device_nodes=[DeviceNode("/dev/gpu")]), Unsupported)
    assert found.fatal
    assert found.edit == "deviceNodes /dev/gpu"
    assert found.reason.startswith("/dev/gpu is not on this host")


def test_a_missing_node_with_numbers_would_have_to_be_made():
    (reason,) = said(host(), device_nodes=[DeviceNode("/dev/gpu", type="c", major=195, minor=7)])
    assert "can't make a device node (c 195:7)" in reason


@pytest.mark.parametrize(
    "code, words",
    [
        (errno.EACCES, "permission denied on the way to /dev/gpu"),
        (errno.EPERM, "permission denied on the way to /dev/gpu"),
        (errno.ELOOP, "/dev/gpu: Too many levels of symbolic links"),
        (errno.ENAMETOOLONG, "/dev/gpu: File name too long"),
        (errno.EIO, "/dev/gpu: Input/output error"),
    ],
)
def test_a_node_that_the_kernel_does_not_show_stops_the_launch_with_its_reason(code, words):
    found = only(
        actions_of(FakeHost(look_errors={"/dev/gpu": code}), device_nodes=[DeviceNode("/dev/gpu")]), Unsupported
    )
    assert found.fatal
    assert found.reason.startswith(words)


@pytest.mark.parametrize("path, host_path", [("gpu", ""), ("dev/gpu", ""), ("/dev/gpu", "gpu"), ("/dev/gpu", "./gpu")])
def test_a_relative_device_path_is_not_looked_up_in_the_working_directory(path, host_path):
    on = host({"gpu": "c 1:3", "dev/gpu": "c 1:3", "./gpu": "c 1:3"})
    found = only(actions_of(on, device_nodes=[DeviceNode(path, host_path)]), Unsupported)
    assert found.fatal
    assert found.reason == f"{(host_path or path)!r} is not an absolute path; correct the spec"
    assert on.opened == []


@pytest.mark.parametrize(
    "permissions, write, reported",
    [
        ("", True, None),
        ("rwm", True, None),
        ("mwr", True, None),
        ("rw", True, Note),  # nobody makes nodes in a user namespace anyway
        ("w", True, Unsupported),
        ("r", False, Unsupported),
        ("rm", False, Unsupported),
        ("none", True, Unsupported),
    ],
)
def test_permissions_decide_how_the_node_is_tried_and_fewer_than_all_are_reported(permissions, write, reported):
    on = host(NULL)
    found = actions_of(on, device_nodes=[DeviceNode("/dev/null", permissions=permissions)])
    assert on.opened == [("/dev/null", write)]
    assert [(type(action), action.edit) for action in found[1:]] == (
        [(reported, f"deviceNodes /dev/null permissions {permissions}")] if reported else []
    )
    assert not any(isinstance(action, Unsupported) and action.fatal for action in found[1:])


@pytest.mark.parametrize(
    "wanted, words",
    [
        ({"file_mode": 0o666}, None),
        ({"file_mode": 0o20666}, None),  # S_IFCHR | 0666, as some generators write it
        ({"uid": 0, "gid": 0}, None),
        ({"file_mode": 0o600}, "not fileMode 600 (host's 666)"),
        ({"file_mode": 0}, "not fileMode 0 (host's 666)"),
        ({"uid": 7}, "not uid 7 (host's 0)"),
        ({"gid": 44}, "not gid 44 (host's 0)"),
        ({"file_mode": 0o660, "uid": 1, "gid": 2}, "not fileMode 660 (host's 666), uid 1 (host's 0), gid 2 (host's 0)"),
    ],
)
def test_another_owner_or_mode_than_the_hosts_is_noted_once(wanted, words):
    found = actions_of(host(NULL), device_nodes=[DeviceNode("/dev/null", **wanted)])
    assert [type(action) for action in found] == ([Bind, Note] if words else [Bind])
    assert not words or found[1].reason == f"a bind keeps the host's owner and mode: {words}"


def test_a_node_for_a_group_names_the_group_that_is_missing():
    on = host({"/dev/gpu": "c 1:3 mode=660 gid=44"}, open_errors={"/dev/gpu": errno.EACCES}, group_names={44: "video"})
    found = only(actions_of(on, device_nodes=[DeviceNode("/dev/gpu")]), Unsupported)
    assert (found.edit, found.fatal) == ("deviceNodes /dev/gpu access", False)
    assert "it needs membership of group video" in found.reason


def test_a_node_for_its_owner_alone_says_its_mode():
    on = host({"/dev/gpu": "c 1:3 mode=600 uid=7"}, open_errors={"/dev/gpu": errno.EACCES})
    (reason,) = said(on, device_nodes=[DeviceNode("/dev/gpu")])
    assert reason == "/dev/gpu can't be opened (Permission denied): mode 600, owner 7"


def test_eperm_is_the_device_cgroups_doing():
    on = host(NULL, open_errors={"/dev/null": errno.EPERM})
    (reason,) = said(on, device_nodes=[DeviceNode("/dev/null")])
    assert "the job's device cgroup does not allow it" in reason


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ENXIO, errno.ENODEV, errno.EIO])
def test_other_answers_of_open_are_the_drivers_business(code):
    assert said(host(NULL, open_errors={"/dev/null": code}), device_nodes=[DeviceNode("/dev/null")]) == []


# Mounts ---------------------------------------------------------------------------------------------------------

FILES = {
    "/lib/libx.so.1": "f real=/usr/lib/libx.so.1 flags=relatime",
    "/opt/data": "d flags=nodev,relatime",
    "/run/d.sock": "s",
    "/run/fifo": "p",
    "/dev/gpu": "c 195:0",
    "/dev/disk": "b 8:0",
}


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


# Hooks ----------------------------------------------------------------------------------------------------------


def hook(*args: str, path: str = "/usr/bin/nvidia-cdi-hook", point: str = "createContainer") -> Hook:
    return Hook(point, path, ("hook", *args))


def test_links_are_made_in_the_order_of_the_hook():
    found = actions_of(host(), hooks=[hook("create-symlinks", "--link", "../a::/x/b", "--link", "c::x/../d")])
    assert found == (Symlink("/x/b", "../a", ORIGIN), Symlink("/d", "c", ORIGIN))


def test_the_loaders_cache_gets_the_hooks_folders():
    found = actions_of(host(), hooks=[hook("update-ldcache", "--folder", "/lib/a", "--folder", "/lib/b")])
    assert found == (UpdateLdCache(("/lib/a", "/lib/b"), ORIGIN),)


def test_cuda_compatibility_is_left_to_the_image():
    found = actions_of(host(), hooks=[hook("enable-cuda-compat", "--host-driver-version=570.1")])
    assert found == (CudaCompat("/usr/local/cuda/compat", "570.1", "", ORIGIN),)


PARAMS = "/proc/driver/nvidia/params"


@pytest.mark.parametrize(
    "facts, expected",
    [
        ({"contents": {PARAMS: b"ModifyDeviceFiles: 1\n"}}, WriteFile),
        ({"contents": {PARAMS: b"ModifyDeviceFiles: 0\n"}}, Note),
        ({}, Note),
        ({"look_errors": {PARAMS: errno.EACCES}}, Unsupported),
    ],
)
def test_the_drivers_parameters_are_written_only_where_they_say_otherwise(facts, expected):
    (found,) = actions_of(FakeHost(**facts), hooks=[hook("disable-device-node-modification")])
    assert type(found) is expected
    if expected is WriteFile:
        assert found == WriteFile(PARAMS, b"ModifyDeviceFiles: 0\n", 0o444, ORIGIN)


def test_the_application_profile_shows_the_gpus_by_their_numbers_on_the_host():
    on = host({"/dev/nvidia3": "c 195:3", "/dev/x": "c 195:5", "/dev/nvidiactl": "c 195:255", "/dev/nvidia7": "b 8:0"})
    nodes = [
        DeviceNode("/dev/nvidia3"),
        DeviceNode("/dev/nvidia0", "/dev/x"),
        DeviceNode("/dev/nvidiactl"),
        DeviceNode("/dev/nvidia7"),  # refused: it is a block device
        DeviceNode("/dev/nvidia8"),  # not there
    ]
    found = actions_of(on, device_nodes=nodes, hooks=[hook("update-application-profile")])
    assert b"0x28" in only(found, WriteFile).content


def test_without_a_gpu_there_is_no_application_profile():
    assert said(host(), hooks=[hook("update-application-profile")]) == [
        "nothing to do: the request has no GPU device node"
    ]


@pytest.mark.parametrize(
    "words, reason",
    [
        (("chmod", "--mode", "755", "--path", "/dev/dri"), "nothing to do for /dev/dri: a bind keeps the host's mode"),
        (("noop",), "noop is the vendor's hook that does nothing"),
        (("enable-cuda-compat",), "enable-cuda-compat is given no version of the host's driver"),
    ],
)
def test_a_hook_that_changes_nothing_is_a_note(words, reason):
    (found,) = actions_of(host(), hooks=[hook(*words)])
    assert isinstance(found, Note)
    assert found.reason == reason


@pytest.mark.parametrize("policy, fatal", [("warn", False), ("fail", True)])
def test_an_unknown_hook_stops_the_launch_if_the_site_says_so(policy, fatal):
    (found,) = plan_of(host(), policy, hooks=[hook("x", path="/opt/site-hook")]).actions
    assert found == Unsupported("hooks site-hook", "'/opt/site-hook': this program is not known", ORIGIN, fatal=fatal)


def test_hooks_come_in_their_order_and_after_the_mounts():
    found = actions_of(
        host({**FILES, **NULL}),
        env=["A=1"],
        hooks=[hook("update-ldcache"), hook("create-symlinks", "--link", "a::/b"), hook("noop")],
        mounts=[Mount("/opt/data", "/data")],
        device_nodes=[DeviceNode("/dev/null")],
        net_devices=[NetDevice("eth0", "eth0")],
        additional_gids=[1000],
        intel_rdt=Sourced(IntelRdt("x"), ORIGIN),
    )
    kinds = [SetEnv, Bind, Bind, UpdateLdCache, Symlink, Note, Note, Note, Unsupported]
    assert [type(action) for action in found] == kinds


# What can only be said ------------------------------------------------------------------------------------------


def test_an_interface_under_its_own_name_is_there_already():
    assert isinstance(actions_of(host(), net_devices=[NetDevice("eth0", "eth0")])[0], Note)


def test_an_interface_can_not_be_renamed():
    found = only(actions_of(host(), net_devices=[NetDevice("eth0", "net1")]), Unsupported)
    assert (found.edit, found.fatal) == ("netDevices eth0", False)
    assert found.reason.endswith("it is seen as eth0")


def test_a_group_that_the_user_is_in_is_kept():
    assert isinstance(actions_of(host(members=frozenset({44})), additional_gids=[44])[0], Note)


def test_a_group_that_the_user_is_not_in_is_named():
    found = only(actions_of(host(group_names={44: "video"}), additional_gids=[44]), Unsupported)
    assert (found.edit, found.fatal) == ("additionalGids 44", False)
    assert "you are not a member of video" in found.reason


def test_resctrl_takes_privilege():
    found = only(actions_of(host(), intel_rdt=Sourced(IntelRdt("x"), ORIGIN)), Unsupported)
    assert (found.edit, found.fatal) == ("intelRdt", False)


# A /dev of its own ----------------------------------------------------------------------------------------------

DEV = {
    "/dev/null": "c 1:3",
    "/dev/alias": "c 1:3 real=/dev/null",
    "/dev/shm": "d",
    "/dev/dri/card0": "c 226:0",
    "/run/driver/dev/null": "c 1:3",
    "/etc/hostname": "f",
}

#: what the plan holds, and the words of the reason for a private /dev, or None.
PRIVATE_DEV: list[tuple[dict[str, Any], str | None]] = [
    ({"device_nodes": [DeviceNode("/dev/null")]}, None),
    ({"device_nodes": [DeviceNode("/dev/dri/card0")]}, None),
    ({"device_nodes": [DeviceNode("/dev/../dev//null")]}, None),
    ({"device_nodes": [DeviceNode("/dev/gpu", "/dev/null")]}, "the host's /dev has no /dev/gpu"),
    ({"device_nodes": [DeviceNode("/dev/null", "/run/driver/dev/null")]}, "/run/driver/dev/null is to be seen as"),
    ({"device_nodes": [DeviceNode("/dev/alias")]}, "/dev/alias is a link on the host"),
    ({"device_nodes": [DeviceNode("/opt/null", "/dev/null")]}, None),
    ({"device_nodes": [DeviceNode("/devices/null", "/dev/null")]}, None),
    ({"device_nodes": [DeviceNode("/dev/missing")]}, None),  # not bound: fatal anyway
    ({"mounts": [Mount("/dev/shm", "/dev/shm")]}, None),
    ({"mounts": [Mount("/etc/hostname", "/dev/name")]}, "the host's /dev has no /dev/name"),
    ({"mounts": [Mount("/etc/hostname", "/dev/null")]}, "/etc/hostname is to be seen as /dev/null"),
    ({"mounts": [Mount("none", "/dev/shm", (), "tmpfs")]}, None),
    ({"mounts": [Mount("none", "/dev/other", (), "tmpfs")]}, "the host's /dev has no /dev/other"),
    ({"mounts": [Mount("/etc/hostname", "/etc/hostname")]}, None),
    ({"hooks": [hook("create-symlinks", "--link", "null::/dev/alias")]}, None),
    ({"hooks": [hook("create-symlinks", "--link", "zero::/dev/alias")]}, "no link /dev/alias to zero"),
    ({"hooks": [hook("create-symlinks", "--link", "null::/dev/new")]}, "no link /dev/new to null"),
    ({"hooks": [hook("create-symlinks", "--link", "null::/opt/new")]}, None),
]  # fmt: skip


@pytest.mark.parametrize("fields, words", PRIVATE_DEV)
def test_the_hosts_dev_will_do_unless_it_shows_something_else(fields, words):
    reason = plan_of(host(DEV, links={"/dev/alias": "null"}), **fields).private_dev
    if words is None:
        assert reason is None
    else:
        assert words in (reason or "")


def test_a_node_that_can_not_be_looked_at_is_not_in_the_hosts_dev():
    on = host({"/dev/null": "c 1:3"}, look_errors={"/dev/x": errno.EACCES})
    assert plan_of(on, device_nodes=[DeviceNode("/dev/x", "/dev/null")]).private_dev == "the host's /dev has no /dev/x"


# Nothing disappears ---------------------------------------------------------------------------------------------

PATHS = st.sampled_from(["/dev/null", "/dev/gpu", "/opt/data", "/lib/libx.so.1", "/run/d.sock", "/missing", "rel", "/"])
MOUNTS = st.builds(
    Mount,
    PATHS,
    PATHS,
    st.lists(st.sampled_from(["ro", "rbind", "noatime", "rro", "size=1", "rslave", "nosuid"]), max_size=3).map(tuple),
    st.sampled_from(["", "bind", "tmpfs", "proc", "-"]),
)
NODES = st.builds(
    DeviceNode,
    PATHS,
    st.one_of(st.just(""), PATHS),
    st.sampled_from(["", "c", "b", "p", "u"]),
    st.integers(0, 2),
    st.integers(0, 4),
    st.one_of(st.none(), st.integers(0, 0o777)),
    st.sampled_from(["", "rwm", "r", "none"]),
)
HOOKS = st.builds(
    lambda words: hook(*words),
    st.lists(st.sampled_from(["create-symlinks", "--link", "a::/b", "update-ldcache", "--folder", "/lib", "noop"])),
)


@given(st.lists(NODES), st.lists(MOUNTS), st.lists(HOOKS), st.booleans())
def test_every_edit_leaves_something_in_the_plan_and_says_where_it_is_from(nodes, mounts, hooks, denied):
    on = host({**FILES, **NULL}, open_errors={"/dev/gpu": errno.EACCES} if denied else {})
    kinds = {"deviceNodes": nodes, "mounts": mounts, "hooks": hooks}
    origins = {name: [Origin("/s", "", f"{name}[{i}]") for i in range(len(kinds[name]))] for name in kinds}
    merged = ResolvedEdits(
        device_nodes=tuple(map(Sourced, nodes, origins["deviceNodes"])),
        mounts=tuple(map(Sourced, mounts, origins["mounts"])),
        hooks=tuple(map(Sourced, hooks, origins["hooks"])),
    )
    plan = translate(merged, on)
    in_order = [action.origin for action in plan.actions]
    assert list(dict.fromkeys(in_order)) == [origin for name in kinds for origin in origins[name]]


@given(st.lists(NODES), st.lists(MOUNTS))
def test_every_path_of_a_plan_is_absolute_and_normal(nodes, mounts):
    for action in actions_of(host({**FILES, **NULL}), device_nodes=nodes, mounts=mounts):
        fields = dataclasses.asdict(action)
        for name in ("target", "path"):
            assert name not in fields or container_path(fields[name]) == fields[name]
