"""The CDI 1.1.0 data model: plain values, no rules and no I/O.

Names follow the specification (https://tags.cncf.io/container-device-interface, SPEC.md) in snake case.
``None`` or an empty value means that the field was absent, except where a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class DeviceNode:
    """``deviceNodes[]``: a device node that the container must see at ``path``."""

    path: str
    host_path: str = ""
    type: str = ""  # "", "b" block, "c" or "u" character, "p" FIFO
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""  # cgroup access: any of "rwm", "none", or "" for "rwm"
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True)
class Mount:
    """``mounts[]``: ``host_path`` appears at ``container_path``."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


@dataclass(frozen=True)
class Hook:
    """``hooks[]``: a program that an OCI runtime would run at ``hook_name``; ``args[0]`` is its argv[0]."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None  # seconds


@dataclass(frozen=True)
class IntelRdt:
    """``intelRdt``: fields of CDI 1.1 (schemata, enable_monitoring) and of 1.0 (enable_cmt, enable_mbm)."""

    clos_id: str = ""
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    schemata: tuple[str, ...] = ()
    enable_monitoring: bool = False
    enable_cmt: bool = False
    enable_mbm: bool = False


@dataclass(frozen=True)
class NetDevice:
    """``netDevices[]``: a host network interface moved into the container under ``name``."""

    host_interface_name: str
    name: str


@dataclass(frozen=True)
class ContainerEdits:
    """``containerEdits``: what a device, or any device of a spec, asks of the container."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    additional_gids: tuple[int, ...] = ()
    intel_rdt: IntelRdt | None = None


@dataclass(frozen=True)
class Device:
    """``devices[]``: a name within the spec's kind and its own edits."""

    name: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    container_edits: ContainerEdits = field(default_factory=ContainerEdits)


@dataclass(frozen=True)
class Spec:
    """One CDI spec file."""

    cdi_version: str
    kind: str
    devices: tuple[Device, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    container_edits: ContainerEdits = field(default_factory=ContainerEdits)
    path: str = ""  # the file it was read from


@dataclass(frozen=True)
class Origin:
    """Where an edit was written.

    Attributes:
        spec: path of the spec file.
        device: qualified name of the device, or "" for an edit at spec level.
        field: path within the document, for example ``devices[2].containerEdits.mounts[0]``.

    """

    spec: str
    device: str
    field: str

    def __str__(self) -> str:
        """``FILE: FIELD``."""
        return f"{self.spec}: {self.field}"


@dataclass(frozen=True)
class Sourced(Generic[T]):
    """An edit together with where it was written."""

    value: T
    origin: Origin


@dataclass(frozen=True)
class ResolvedEdits:
    """The merged edits of a request, in the order and with the replacements of the reference library.

    Attributes:
        devices: qualified names of the devices, in request order, each once.
        env: ``NAME=VALUE``, each name once (last value wins, at the place of the first).
        device_nodes: each container path once (the last one wins and moves to the end).
        mounts: each container path once (same rule), sorted stably by depth of the container path.
        hooks: in order of application, exact duplicates once.

    """

    devices: tuple[str, ...] = ()
    env: tuple[Sourced[str], ...] = ()
    device_nodes: tuple[Sourced[DeviceNode], ...] = ()
    net_devices: tuple[Sourced[NetDevice], ...] = ()
    mounts: tuple[Sourced[Mount], ...] = ()
    hooks: tuple[Sourced[Hook], ...] = ()
    additional_gids: tuple[Sourced[int], ...] = ()
    intel_rdt: Sourced[IntelRdt] | None = None
