"""What specs may have, case by case: the rows of the tables in docs/hpc.md, and the machine that they are about.

Every field of CDI's schema is in a case, and every verb of the hooks that are understood (tests/docs/test_mapping.py).
The texts of the rows are the fields themselves; only what the machine has to do with it is said in words.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdi_hpc.host import HostNode
from cdi_hpc.site.globs import path_pattern, text_pattern
from cdi_hpc.site.policy import HookRule, Policy
from cdi_hpc.translation import nvidia

NODE = "/dev/accel0"
LIBRARY = "/opt/accel/libaccel.so.1.2"
HOOK = "/usr/bin/nvidia-cdi-hook"
_PROGRAM = "/opt/accel/accel-hook"
_MODE = 0o660
_MEMBER, _STRANGER = 1000, 4711


class Machine:
    """A :class:`cdi_hpc.host.Host`: a driver, its devices, and a user who may open them."""

    _NODES: Mapping[str, HostNode] = {
        NODE: HostNode("character", NODE, 261, 0, _MODE, 0, _MEMBER),
        "/dev/accel1": HostNode("character", "/dev/accel1", 261, 1, _MODE, 0, _STRANGER),
        "/dev/nvidia0": HostNode("character", "/dev/nvidia0", 195, 0, _MODE, 0, _MEMBER),
        LIBRARY: HostNode("file", LIBRARY),
        "/opt/accel": HostNode("directory", "/opt/accel"),
    }

    def node(self, path: str) -> HostNode | None:
        """See :class:`cdi_hpc.host.Host`."""
        return self._NODES.get(path)

    def open_error(self, path: str, *, write: bool) -> int:
        """See :class:`cdi_hpc.host.Host`."""
        del write
        return errno.EACCES if self._NODES[path].gid == _STRANGER else 0

    def read(self, path: str) -> bytes | None:
        """See :class:`cdi_hpc.host.Host`."""
        return b"ModifyDeviceFiles: 1\n" if path == nvidia.PARAMS_PATH else None

    def group_name(self, gid: int) -> str:
        """See :class:`cdi_hpc.host.Host`."""
        return {_MEMBER: "render", _STRANGER: "video"}.get(gid, str(gid))

    def groups(self) -> frozenset[int]:
        """See :class:`cdi_hpc.host.Host`."""
        return frozenset({_MEMBER})

    def link(self, path: str) -> str | None:
        """See :class:`cdi_hpc.host.Host`."""
        del path
        return None

    def program(self, path: str) -> tuple[str, str]:
        """See :class:`cdi_hpc.host.Host`."""
        return path, ""


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        value: an element of the list, or the value itself for ``intelRdt``.
        shows: the fields whose row in the overview this is, as they are called in an element.
        when: what the machine has to do with it.
        beside: other edits that the spec has as well, without which the value means nothing.
        site: rules of the site.

    """

    value: Any
    shows: tuple[str, ...] = ()
    when: str = ""
    beside: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    site: Policy | None = None


def _hook(*words: str, point: str = "createContainer", path: str = HOOK, **more: Any) -> dict[str, Any]:
    return {"hookName": point, "path": path, "args": [os.path.basename(path), *words], **more}


_OLD_RDT = ("closID", "l3CacheSchema", "memBwSchema")
_LIBRARY_MOUNT = {"hostPath": LIBRARY, "containerPath": LIBRARY}

#: By CDI's name of the list, in the order of the specification. The first case of each is the plainest.
CASES: Mapping[str, Sequence[Case]] = {
    "env": (Case("ACCEL_HOME=/opt/accel", ("",)),),
    "deviceNodes": (
        Case({"path": NODE}, ("path",)),
        Case({"path": "/dev/accel7", "hostPath": NODE}, ("hostPath",)),
        Case({"path": NODE, "type": "c", "major": 261, "minor": 0}, ("type", "major", "minor"), "as on the host"),
        Case({"path": NODE, "type": "c", "major": 261, "minor": 7}, when="the host's node has other numbers"),
        Case({"path": NODE, "type": "b"}, when="the host's node is a character device"),
        Case(
            {"path": NODE, "fileMode": 0o666, "uid": 1001, "gid": 1001},
            ("fileMode", "uid", "gid"),
            "not as on the host",
        ),
        Case({"path": NODE, "permissions": "rw"}),
        Case({"path": NODE, "permissions": "r"}, ("permissions",)),
        Case({"path": NODE, "permissions": "none"}),
        Case({"path": "/dev/accel1"}, when="you may not open it"),
        Case({"path": "/dev/accel9"}, when="the host has no such node"),
        Case({"path": "/dev/accel9", "type": "c", "major": 261, "minor": 9}, when="the host has no such node"),
    ),
    "netDevices": (
        Case({"hostInterfaceName": "ib0", "name": "ib0"}, ("hostInterfaceName",)),
        Case({"hostInterfaceName": "ib0", "name": "net1"}, ("name",)),
    ),
    "mounts": (
        Case(_LIBRARY_MOUNT, ("hostPath", "containerPath")),
        Case({**_LIBRARY_MOUNT, "options": ["ro", "nosuid", "nodev", "rbind", "rslave"]}, ("options",)),
        Case({**_LIBRARY_MOUNT, "options": ["noatime"]}),
        Case({**_LIBRARY_MOUNT, "options": ["bind", "size=1m"]}),
        Case({"hostPath": "/opt/accel", "containerPath": "/opt/accel", "options": ["rbind", "rro"]}),
        Case(
            {"hostPath": "tmpfs", "containerPath": "/opt/scratch", "type": "tmpfs", "options": ["size=1m"]}, ("type",)
        ),
        Case({"hostPath": "/dev/sda1", "containerPath": "/opt/data", "type": "ext4"}),
        Case({"hostPath": "/opt/old", "containerPath": "/opt/old"}, when="the host has nothing there"),
        Case({"hostPath": "/run/accel.sock", "containerPath": "/run/accel.sock"}, when="its daemon is not up"),
    ),
    "hooks": (
        Case(
            _hook("create-symlinks", "--link", "libaccel.so.1.2::/opt/accel/libaccel.so.1"),
            ("hookName", "path", "args"),
            "a program that is known",
            beside={"mounts": [_LIBRARY_MOUNT]},
        ),
        Case(_hook("create-symlinks", "--link", "../accel0::/dev/char/261:0")),
        Case(_hook("update-ldcache", "--folder", "/opt/accel")),
        Case(_hook("/opt/accel", path="/sbin/ldconfig")),
        Case(_hook("enable-cuda-compat", "--host-driver-version=570.133.20")),
        Case(_hook("disable-device-node-modification")),
        Case(_hook("update-application-profile"), beside={"deviceNodes": [{"path": "/dev/nvidia0"}]}),
        Case(_hook("chmod", "--mode", "755", "--path", "/dev/dri")),
        Case(_hook("noop")),
        Case(
            _hook("setup", path=_PROGRAM, env=["LEVEL=2"], timeout=5),
            ("env", "timeout"),
            "a program that the site has run",
            site=Policy(hooks=(HookRule("run", path_pattern(_PROGRAM), env=(text_pattern("LEVEL"),)),)),
        ),
        Case(_hook("setup", path=_PROGRAM), when="a program that is not known"),
        Case(_hook("update-ldcache", "--folder", "/opt/accel", point="poststart")),
        Case(_hook("update-ldcache", "--folder", "/opt/accel", point="poststop")),
    ),
    "intelRdt": (
        Case({"closID": "gold", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50"}, _OLD_RDT),
        Case({"schemata": ["L3:0=f"], "enableMonitoring": True}, ("schemata", "enableMonitoring")),
        Case({"enableCMT": True, "enableMBM": True}, ("enableCMT", "enableMBM")),
    ),
    "additionalGids": (
        Case(_MEMBER, ("",), "you are a member"),
        Case(_STRANGER, ("",), "you are not"),
        Case(0),
    ),
}

#: Fields of a spec that ask nothing of a container: an example of each, and what it is for.
OWN_FIELDS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "cdiVersion": (
        {"cdiVersion": "0.3.0"},
        "checked against what the spec uses. Of one newer than 1.1.0 the new fields have no effect, with a warning",
    ),
    "kind": (
        {"kind": "vendor.com/accel"},
        "the part of a device's name before `=`; rules and Slurm's GRES go by it. With a dot in the class: 0.6.0",
    ),
    "annotations": (
        {"annotations": {"vendor.com/driver": "1.2"}},
        "read, checked and of no effect, as with the reference library: they are for whoever writes and reads specs",
    ),
    "devices": ({"devices": []}, "what can be asked for"),
    "devices[].name": (
        {"devices": [{"name": "0", "containerEdits": {"env": ["A=b"]}}]},
        "the part of a device's name behind `=`. Beginning with a letter: 0.3.0",
    ),
    "devices[].annotations": (
        {"devices": [{"name": "a", "annotations": {"vendor.com/slot": "3"}, "containerEdits": {}}]},
        "as those of the spec",
    ),
    "devices[].containerEdits": (
        {"devices": [{"name": "a", "containerEdits": {"env": ["A=b"]}}]},
        "what the device asks for: the tables below",
    ),
    "containerEdits": (
        {"containerEdits": {"env": ["A=b"]}},
        "the same, once for all devices of the spec that are asked for, and before theirs",
    ),
}
