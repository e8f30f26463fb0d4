"""The model under CDI's own field names, for output as JSON; absent and empty fields are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdi_hpc.spec.model import DeviceNode, Hook, IntelRdt, Mount, NetDevice, ResolvedEdits


def resolved_to_json(edits: ResolvedEdits) -> dict[str, Any]:
    """Merged edits: every key of ``containerEdits`` is there, and ``devices`` before them."""
    return {
        "devices": list(edits.devices),
        "env": [variable.value for variable in edits.env],
        "deviceNodes": [device_node_to_json(node.value) for node in edits.device_nodes],
        "netDevices": [net_device_to_json(device.value) for device in edits.net_devices],
        "mounts": [mount_to_json(mount.value) for mount in edits.mounts],
        "hooks": [hook_to_json(hook.value) for hook in edits.hooks],
        "additionalGids": [gid.value for gid in edits.additional_gids],
        "intelRdt": None if edits.intel_rdt is None else intel_rdt_to_json(edits.intel_rdt.value),
    }


def device_node_to_json(node: DeviceNode) -> dict[str, Any]:
    """A device node; a mode, uid or gid of 0 is a value, a major or minor of 0 an absent one (as in the spec)."""
    return {
        "path": node.path,
        **_present({"hostPath": node.host_path, "type": node.type, "major": node.major, "minor": node.minor}),
        **_given({"fileMode": node.file_mode}),
        **_present({"permissions": node.permissions}),
        **_given({"uid": node.uid, "gid": node.gid}),
    }


def net_device_to_json(device: NetDevice) -> dict[str, Any]:
    """A network interface."""
    return {"hostInterfaceName": device.host_interface_name, "name": device.name}


def mount_to_json(mount: Mount) -> dict[str, Any]:
    """A mount."""
    return {
        "hostPath": mount.host_path,
        "containerPath": mount.container_path,
        **_present({"options": list(mount.options), "type": mount.type}),
    }


def hook_to_json(hook: Hook) -> dict[str, Any]:
    """A hook."""
    return {
        "hookName": hook.hook_name,
        "path": hook.path,
        **_present({"args": list(hook.args), "env": list(hook.env)}),
        **_given({"timeout": hook.timeout}),
    }


def intel_rdt_to_json(rdt: IntelRdt) -> dict[str, Any]:
    """Settings of Intel's Resource Director Technology."""
    return _present(
        {
            "closID": rdt.clos_id,
            "l3CacheSchema": rdt.l3_cache_schema,
            "memBwSchema": rdt.mem_bw_schema,
            "schemata": list(rdt.schemata),
            "enableMonitoring": rdt.enable_monitoring,
            "enableCMT": rdt.enable_cmt,
            "enableMBM": rdt.enable_mbm,
        }
    )


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
