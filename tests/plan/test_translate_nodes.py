"""Device nodes of a plan: which of the host's is bound, and what is said of it."""

from __future__ import annotations

import errno

import pytest
from fake_host import FakeHost, host
from translated import NULL, ORIGIN, actions_of, only, said

from cdi_hpc.plan import (
    Bind,
    Note,
    Unsupported,
)
from cdi_hpc.spec.model import DeviceNode


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


ASK = "ask the administrator for a udev rule that gives the node a group of yours"


def test_a_node_for_its_owner_alone_says_its_mode():
    on = host({"/dev/gpu": "c 1:3 mode=600 uid=7"}, open_errors={"/dev/gpu": errno.EACCES})
    (reason,) = said(on, device_nodes=[DeviceNode("/dev/gpu")])
    assert reason == f"/dev/gpu can't be opened (Permission denied): mode 600, owner 7; {ASK}"


def test_nobody_is_told_to_become_a_member_of_roots_group():
    on = host({"/dev/gpu": "c 1:3 mode=660 gid=0"}, open_errors={"/dev/gpu": errno.EACCES}, group_names={0: "root"})
    (reason,) = said(on, device_nodes=[DeviceNode("/dev/gpu")])
    assert reason == f"/dev/gpu can't be opened (Permission denied): mode 660, owner 0; {ASK}"


def test_eperm_is_the_device_cgroups_doing():
    on = host(NULL, open_errors={"/dev/null": errno.EPERM})
    (reason,) = said(on, device_nodes=[DeviceNode("/dev/null")])
    assert "the job's device cgroup does not allow it" in reason


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ENXIO, errno.ENODEV, errno.EIO])
def test_other_answers_of_open_are_the_drivers_business(code):
    assert said(host(NULL, open_errors={"/dev/null": code}), device_nodes=[DeviceNode("/dev/null")]) == []
