"""Hooks of a plan: their meaning as actions."""

from __future__ import annotations

import errno

import pytest
from fake_host import FakeHost, host
from translated import FILES, NULL, ORIGIN, actions_of, hook, only, plan_of, said

from cdi_hpc.plan import (
    Bind,
    CudaCompat,
    Note,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.spec.model import DeviceNode, IntelRdt, Mount, NetDevice, Sourced


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
