"""Merging the edits of requested devices, in the reference library's order and with its replacements. Pure.

The order (``Cache.InjectDevices``, ``ContainerEdits.Append`` and ``Apply``): device by device as requested; before the
first device of a spec, the edits of the spec itself. Then, over the whole list: a later variable of the same name takes
the earlier one's place; a later device node or mount of the same path replaces the earlier one and comes last; mounts
are sorted by the depth of their path; an additional group of 0 is ignored.
"""

from __future__ import annotations

import posixpath
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Callable, TypeVar

from cdi_hpc.spec.model import (
    ContainerEdits,
    DeviceNode,
    Hook,
    IntelRdt,
    Mount,
    NetDevice,
    Origin,
    ResolvedEdits,
    Sourced,
    Spec,
)
from cdi_hpc.spec.registry import RegisteredDevice

T = TypeVar("T")


def merge(devices: Sequence[RegisteredDevice]) -> ResolvedEdits:
    """One set of edits for a request.

    A device that is there twice is applied twice, as the reference does it: where edits compete, its last place counts.
    Exact duplicates of hooks are kept once, at their first place; the reference would run them again, to no effect.
    """
    return _collect(devices).resolved(tuple(dict.fromkeys(device.name for device in devices)))


def every(devices: Sequence[RegisteredDevice]) -> Iterator[tuple[str, Sourced[Any]]]:
    """Every edit of a request with the name of its field, in order of application, before anything is replaced."""
    collected = _collect(devices)
    yield from (("env", entry) for entry in collected.env)
    yield from (("deviceNodes", entry) for entry in collected.device_nodes)
    yield from (("netDevices", entry) for entry in collected.net_devices)
    yield from (("mounts", entry) for entry in collected.mounts)
    yield from (("hooks", entry) for entry in collected.hooks)
    yield from (("additionalGids", entry) for entry in collected.additional_gids)
    yield from (("intelRdt", entry) for entry in collected.intel_rdt)


def _collect(devices: Sequence[RegisteredDevice]) -> _Collected:
    collected = _Collected()
    seen: set[int] = set()  # by identity: a file that two directories show was read twice, and counts twice
    for device in devices:
        if id(device.spec) not in seen:
            seen.add(id(device.spec))
            collected.add(device.spec.container_edits, device.spec, "", "containerEdits")
        if device.device is not None:
            at = f"devices[{device.index}].containerEdits"
            collected.add(device.device.container_edits, device.spec, device.name, at)
    return collected


class _Collected:
    """All edits in order of application, before anything is replaced."""

    def __init__(self) -> None:
        self.env: list[Sourced[str]] = []
        self.device_nodes: list[Sourced[DeviceNode]] = []
        self.net_devices: list[Sourced[NetDevice]] = []
        self.mounts: list[Sourced[Mount]] = []
        self.hooks: list[Sourced[Hook]] = []
        self.additional_gids: list[Sourced[int]] = []
        self.intel_rdt: list[Sourced[IntelRdt]] = []

    def add(self, edits: ContainerEdits, spec: Spec, device: str, at: str) -> None:
        """Append one device's or one spec's edits."""

        def sourced(values: Iterable[T], name: str) -> list[Sourced[T]]:
            return [
                Sourced(value, Origin(spec.path, device, f"{at}.{name}[{index}]")) for index, value in enumerate(values)
            ]

        self.env += sourced(edits.env, "env")
        self.device_nodes += sourced(edits.device_nodes, "deviceNodes")
        self.net_devices += sourced(edits.net_devices, "netDevices")
        self.mounts += sourced(edits.mounts, "mounts")
        self.hooks += sourced(edits.hooks, "hooks")
        self.additional_gids += sourced(edits.additional_gids, "additionalGids")
        if edits.intel_rdt is not None:
            self.intel_rdt.append(Sourced(edits.intel_rdt, Origin(spec.path, device, f"{at}.intelRdt")))

    def resolved(self, devices: tuple[str, ...]) -> ResolvedEdits:
        """Everything replaced, collapsed and sorted."""
        mounts = _replace_and_move(self.mounts, lambda mount: mount.container_path)
        return ResolvedEdits(
            devices=devices,
            env=_replace_in_place(self.env, lambda variable: variable.partition("=")[0]),
            device_nodes=_replace_and_move(self.device_nodes, lambda node: node.path),
            net_devices=_replace_in_place(self.net_devices, lambda device: device.host_interface_name),
            mounts=tuple(sorted(mounts, key=lambda mount: _depth(mount.value.container_path))),
            hooks=_first_of_each(self.hooks),
            additional_gids=_first_of_each(gid for gid in self.additional_gids if gid.value != 0),
            intel_rdt=self.intel_rdt[-1] if self.intel_rdt else None,
        )


def _replace_in_place(values: Iterable[Sourced[T]], key: Callable[[T], Hashable]) -> tuple[Sourced[T], ...]:
    kept: dict[Hashable, Sourced[T]] = {}
    for value in values:
        kept[key(value.value)] = value
    return tuple(kept.values())


def _replace_and_move(values: Iterable[Sourced[T]], key: Callable[[T], Hashable]) -> tuple[Sourced[T], ...]:
    kept: dict[Hashable, Sourced[T]] = {}
    for value in values:
        kept.pop(key(value.value), None)
        kept[key(value.value)] = value
    return tuple(kept.values())


def _first_of_each(values: Iterable[Sourced[T]]) -> tuple[Sourced[T], ...]:
    kept: dict[T, Sourced[T]] = {}
    for value in values:
        kept.setdefault(value.value, value)
    return tuple(kept.values())


def _depth(path: str) -> int:
    # normpath() keeps a leading '//', which Go's filepath.Clean() doesn't.
    return posixpath.normpath(f"/{path.lstrip('/')}" if path.startswith("/") else path).count("/")
