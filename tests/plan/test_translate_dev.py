"""Whether the host's /dev will do for a container."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from fake_host import host
from translated import hook, plan_of

from cdi_hpc.spec.model import DeviceNode, Mount

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
