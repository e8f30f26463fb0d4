"""Versions of the CDI specification, and the oldest one that a spec's contents need.

The table follows the specification's release notes (SPEC.md, "Version"), as the reference library checks them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Callable, NamedTuple

from cdi_hpc.spec.model import ContainerEdits, Spec

#: The newest version whose fields :mod:`cdi_hpc.spec.model` has.
CURRENT = "1.1.0"

#: Any spec needs at least this, whatever is in it.
EARLIEST = "0.3.0"

#: All released versions, newest first. A spec may name an older one than EARLIEST, and is then told to raise it.
RELEASED = ("1.1.0", "1.0.0", "0.8.0", "0.7.0", "0.6.0", "0.5.0", "0.4.0", "0.3.0", "0.2.0", "0.1.0")

_SEMVER = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(?:-[0-9A-Za-z.-]+)?")


class Requirement(NamedTuple):
    """The oldest version that a spec may name, and the field that needs it ("" for EARLIEST)."""

    version: str
    field: str


def normalise(version: str) -> str:
    """A version without the ``v`` that it may start with."""
    return version.removeprefix("v")


def is_released(version: str) -> bool:
    """Whether the reference library knows the version."""
    return normalise(version) in RELEASED


def is_newer(version: str) -> bool:
    """Whether this is a well-formed version above CURRENT: one that a later release of CDI may have."""
    return bool(_SEMVER.fullmatch(normalise(version))) and _key(version) > _key(CURRENT)


def is_older(version: str, other: str) -> bool:
    """Whether a released version comes before another."""
    return _key(version) < _key(other)


def minimum(spec: Spec) -> Requirement:
    """The oldest version that has everything the spec uses."""
    for version, uses in _NEEDS:
        field = next(uses(spec), "")
        if field:
            return Requirement(version, field)
    return Requirement(EARLIEST, "")


def _key(version: str) -> tuple[int, ...]:
    found = _SEMVER.fullmatch(normalise(version))
    return tuple(int(part) for part in found.groups()) if found else ()


def _edits(spec: Spec) -> Iterator[tuple[str, ContainerEdits]]:
    yield "containerEdits", spec.container_edits
    for index, device in enumerate(spec.devices):
        yield f"devices[{index}].containerEdits", device.container_edits


def _uses_1_1_0(spec: Spec) -> Iterator[str]:
    for at, edits in _edits(spec):
        if edits.net_devices:
            yield f"{at}.netDevices"
        if edits.intel_rdt and edits.intel_rdt.schemata:
            yield f"{at}.intelRdt.schemata"
        if edits.intel_rdt and edits.intel_rdt.enable_monitoring:
            yield f"{at}.intelRdt.enableMonitoring"


def _uses_0_7_0(spec: Spec) -> Iterator[str]:
    for at, edits in _edits(spec):
        if edits.intel_rdt is not None:
            yield f"{at}.intelRdt"
        if edits.additional_gids:
            yield f"{at}.additionalGids"


def _uses_0_6_0(spec: Spec) -> Iterator[str]:
    if spec.annotations:
        yield "annotations"
    for index, device in enumerate(spec.devices):
        if device.annotations:
            yield f"devices[{index}].annotations"
    if "." in spec.kind.partition("/")[2]:
        yield "kind"  # a dot in the class


def _uses_0_5_0(spec: Spec) -> Iterator[str]:
    for index, device in enumerate(spec.devices):
        if device.name[:1] in set("0123456789"):
            yield f"devices[{index}].name"  # starts with a digit
    for at, edits in _edits(spec):
        for index, node in enumerate(edits.device_nodes):
            if node.host_path:
                yield f"{at}.deviceNodes[{index}].hostPath"


def _uses_0_4_0(spec: Spec) -> Iterator[str]:
    for at, edits in _edits(spec):
        for index, mount in enumerate(edits.mounts):
            if mount.type:
                yield f"{at}.mounts[{index}].type"


#: Newest first: the first that yields a field decides. 1.0.0 and 0.8.0 changed the reference's Go interface only.
_NEEDS: tuple[tuple[str, Callable[[Spec], Iterator[str]]], ...] = (
    ("1.1.0", _uses_1_1_0),
    ("0.7.0", _uses_0_7_0),
    ("0.6.0", _uses_0_6_0),
    ("0.5.0", _uses_0_5_0),
    ("0.4.0", _uses_0_4_0),
)
