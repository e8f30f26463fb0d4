"""The edits of a request, one by one: what there is to be explained."""

from __future__ import annotations

import posixpath
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from cdi_hpc.spec import edits
from cdi_hpc.spec.model import DeviceNode, Hook, IntelRdt, Mount, NetDevice, Origin, ResolvedEdits, Sourced
from cdi_hpc.spec.registry import RegisteredDevice


@dataclass(frozen=True)
class Edit:
    """One edit of a spec.

    Attributes:
        field: CDI's name of the list that it is in: ``env``, ``deviceNodes``, ...
        what: the edit in one line.
        subject: what it is about, a variable's name or a container path: by this the edits of two specs are matched.
        value: as the spec has it.
        counts: where the edit is from that counts in its place; its own origin if it does itself, None if none does.

    """

    field: str
    what: str
    subject: Hashable
    value: object
    origin: Origin
    counts: Origin | None


def rows(devices: Sequence[RegisteredDevice], merged: ResolvedEdits) -> tuple[Edit, ...]:
    """Every edit of the devices, each once, also those that another one replaces."""
    counting = {(field, _SUBJECTS[field](entry.value)): entry for field, entry in _merged(merged)}
    found: dict[Origin, Edit] = {}
    for field, entry in edits.every(devices):
        subject = _SUBJECTS[field](entry.value)
        counts = counting.get((field, subject))
        text = _TEXTS[field](entry.value)
        found[entry.origin] = Edit(field, text, subject, entry.value, entry.origin, counts.origin if counts else None)
    return tuple(found.values())


def _merged(merged: ResolvedEdits) -> Iterator[tuple[str, Sourced[Any]]]:
    yield from (("env", entry) for entry in merged.env)
    yield from (("deviceNodes", entry) for entry in merged.device_nodes)
    yield from (("netDevices", entry) for entry in merged.net_devices)
    yield from (("mounts", entry) for entry in merged.mounts)
    yield from (("hooks", entry) for entry in merged.hooks)
    yield from (("additionalGids", entry) for entry in merged.additional_gids)
    if merged.intel_rdt is not None:
        yield "intelRdt", merged.intel_rdt


#: By what edits of a field replace each other (:func:`cdi_hpc.spec.edits.merge`).
_SUBJECTS: Mapping[str, Callable[[Any], Hashable]] = {
    "env": lambda variable: variable.partition("=")[0],
    "deviceNodes": lambda node: node.path,
    "netDevices": lambda device: device.host_interface_name,
    "mounts": lambda mount: mount.container_path,
    "hooks": lambda hook: hook,
    "additionalGids": lambda gid: gid,
    "intelRdt": lambda _: "intelRdt",
}


def _shown_as(source: str, target: str) -> str:
    return f"{source} -> {target}" if source and source != target else target


def _node(node: DeviceNode) -> str:
    return f"deviceNodes {_shown_as(node.host_path, node.path)}"


def _net_device(device: NetDevice) -> str:
    return f"netDevices {_shown_as(device.host_interface_name, device.name)}"


def _mount(mount: Mount) -> str:
    options = f" ({','.join(mount.options)})" if mount.options else ""
    return f"mounts {_shown_as(mount.host_path, mount.container_path)}{options}"


def _hook(hook: Hook) -> str:
    words = (posixpath.basename(hook.path), *hook.args[1:])
    return f"hooks {hook.hook_name}: {' '.join(words)}"


def _intel_rdt(rdt: IntelRdt) -> str:
    return f"intelRdt {rdt.clos_id}".rstrip()


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "env": lambda variable: f"env {variable}",
    "deviceNodes": _node,
    "netDevices": _net_device,
    "mounts": _mount,
    "hooks": _hook,
    "additionalGids": lambda gid: f"additionalGids {gid}",
    "intelRdt": _intel_rdt,
}
