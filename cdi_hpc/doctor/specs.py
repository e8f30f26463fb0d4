"""Spec files, and the devices that a request means."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator

from cdi_hpc import config, planning
from cdi_hpc.config.check import doubts
from cdi_hpc.doctor.checks import Finding, Question
from cdi_hpc.errors import CdiError
from cdi_hpc.host import LiveHost
from cdi_hpc.plan import Plan, Unsupported
from cdi_hpc.resolve.lookup import directories
from cdi_hpc.spec import request as requests
from cdi_hpc.spec.model import ContainerEdits, Spec
from cdi_hpc.spec.registry import (
    ENVIRONMENT_VARIABLE,
    LoadedSpec,
    Registry,
    SpecDirectory,
    load_registry,
    spec_directories,
    spec_files,
)

_NVIDIA = "nvidia.com/gpu"
_DRIVER_VERSION = "/proc/driver/nvidia/version"
_FIRST = (
    "the vendor's generator, or as root: cdi-hpc generate --output /etc/cdi; as yourself: cdi-hpc generate --output "
    f"DIR, and {ENVIRONMENT_VARIABLE}=DIR"
)
_AGAIN = "generate the spec again (nvidia-ctk cdi generate, or cdi-hpc generate)"

#: Nodes that CUDA needs and that are missing in a spec that was made too early; the host makes them at first use.
_LATE_NODES = ("/dev/nvidia-uvm", "/dev/nvidiactl")


def configuration(question: Question) -> Iterator[Finding]:
    """Whether the site's configuration and the user's can be read."""
    loaded = config.load(question.variables, os.geteuid())
    named = ", ".join(str(file) for file in loaded.files) or "none, which is fine"
    yield Finding("ok", f"configuration files: {named}")
    for doubt in doubts(loaded.configuration, loaded.settings, _registry(question)):
        yield Finding("warning", f"{doubt.where}: {doubt.what}", doubt.fix)


def files(question: Question) -> Iterator[Finding]:
    """Whether there are specs, and whether they can be read and are right."""
    registry = _registry(question)
    places = ", ".join(directory.path for directory in registry.directories)
    for problems in registry.errors.values():
        yield from (Finding("problem", f"{p.where}: {p.what}", p.fix) for p in problems if "conflicting" not in p.what)
    for warning in registry.warnings:
        yield Finding("warning", f"{warning.where}: {warning.what}", warning.fix)
    if not registry.specs:
        yield Finding("problem", f"no usable spec in {places}", _FIRST)
    else:
        yield Finding("ok", f"spec files in {places}: {len(registry.specs)}, devices: {len(registry.devices)}")


def modes(question: Question) -> Iterator[Finding]:
    """Whether everybody can read the specs of the host: what root sees is not what users see."""
    if question.cdi_dirs:
        return
    paths = list(_paths(question))
    wrong = [path for path in paths if not _readable_by_all(path)]
    for path in wrong:
        yield Finding("warning", f"{path} can't be read by everybody", f"chmod 644 {path} (755 for a directory)")
    if paths and not wrong:
        yield Finding("ok", "the spec files can be read by everybody")


def conflicts(question: Question) -> Iterator[Finding]:
    """Devices that several files define, and who wins."""
    registry = _registry(question)
    for name, paths in registry.conflicts.items():
        yield Finding(
            "problem", f"{name} is defined in {' and '.join(paths)}: nobody gets it", "remove it from all but one"
        )
    for shadowed in registry.shadowed:
        yield Finding("note", f"{shadowed.name} of {shadowed.winner} is used, not that of {shadowed.path}")


def empty_all(question: Question) -> Iterator[Finding]:
    """A device ``all`` without a node: the generator ran before the driver was there, or while it changed."""
    for loaded in _registry(question).specs:
        devices = loaded.spec.devices
        have_nodes = any(device.container_edits.device_nodes for device in devices) or loaded.spec.kind == _NVIDIA
        for device in devices:
            if have_nodes and device.name == requests.ALL and not device.container_edits.device_nodes:
                yield Finding("problem", f"{loaded.path}: the device {requests.ALL!r} has no device node", _AGAIN)


def driver_version(question: Question) -> Iterator[Finding]:
    """Whether specs name files of the driver that is loaded."""
    loaded_version = _loaded_driver()
    if not loaded_version:
        return
    for loaded in _of_nvidia(question):
        versions = _versions(loaded.spec)
        other = sorted(versions - {loaded_version})
        if versions and loaded_version not in versions:
            what = f"{loaded.path} is for driver {', '.join(other)}, loaded is {loaded_version}"
            yield Finding("problem", what, _AGAIN)
        elif versions:
            yield Finding("ok", f"{loaded.path} is for the driver that is loaded, {loaded_version}")


def nvidia_nodes(question: Question) -> Iterator[Finding]:
    """Whether a spec was made before the driver had made all of its nodes."""
    for loaded in _of_nvidia(question):
        named = {node.path for each in _all_edits(loaded.spec) for node in each.device_nodes}
        for node in _LATE_NODES:
            if node not in named:
                what = f"{loaded.path} has no {node}: it was made before the driver had made the node"
                yield Finding("warning", what, f"nvidia-modprobe -u -c 0, then {_AGAIN}")


def request(question: Question) -> Iterator[Finding]:
    """What a launch with the devices would say: missing files, devices that can't be opened, hooks unknown."""
    plan = plan_for(question)
    if plan is None:
        return
    lacks = [*plan.unsupported()]
    for lack in lacks:
        yield _of_lack(lack)
    if not lacks:
        yield Finding("ok", f"{', '.join(plan.devices)}: everything is there and can be opened")


def plan_for(question: Question) -> Plan | None:
    """The plan of the devices in question, or of all there are; None if there are none.

    Raises:
        CdiError: a device that was named is not there.

    """
    registry = _registry(question)
    wanted = question.devices or registry.kinds()
    if not wanted:
        return None
    launch = planning.Wanted("embedded", tuple(wanted), question.cdi_dirs)
    try:
        return planning.plan_devices(launch, question.variables, LiveHost(), _Silent()).plan
    except CdiError:
        if question.devices:
            raise
        # Kinds that nobody asked for: what is wrong with them was said of their files.
        return None


class _Silent:
    """What is unusual about files is said by the checks of files."""

    def warn(self, text: object) -> None:
        """Say nothing."""

    def note(self, text: object) -> None:
        """Say nothing."""


def _of_lack(lack: Unsupported) -> Finding:
    what, _, fix = lack.reason.partition("; ")
    return Finding("problem" if lack.fatal else "warning", f"{lack.origin}: {lack.edit}: {what}", fix)


def _directories(question: Question) -> tuple[SpecDirectory, ...]:
    try:
        configured = planning.load_configuration(question.variables)
    except CdiError:  # ``configuration`` says it
        return spec_directories(question.variables, question.cdi_dirs)
    return directories(question.cdi_dirs, question.variables, configured)


def _registry(question: Question) -> Registry:
    return load_registry(_directories(question))


def _paths(question: Question) -> Iterator[str]:
    for directory in _directories(question):
        if os.path.isdir(directory.path):
            yield directory.path
        try:
            yield from spec_files(directory)
        except CdiError:
            continue  # ``files`` says it


def _readable_by_all(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    return mode & needed == needed


def _of_nvidia(question: Question) -> Iterator[LoadedSpec]:
    return (loaded for loaded in _registry(question).specs if loaded.spec.kind == _NVIDIA)


def _loaded_driver() -> str:
    try:
        with open(_DRIVER_VERSION, encoding="ascii", errors="replace") as stream:
            found = re.search(r"Module(?: for \S+)?\s+([0-9][0-9.]+)", stream.read())
    except OSError:
        return ""
    return found[1] if found else ""


def _versions(spec: Spec) -> set[str]:
    """Driver versions in the names of the libraries that a spec mounts."""
    names = (posixpath.basename(mount.host_path) for each in _all_edits(spec) for mount in each.mounts)
    found = (re.fullmatch(r"lib(?:cuda|nvidia-ml)\.so\.([0-9]{3,}(?:\.[0-9]+)+)", name) for name in names)
    return {match[1] for match in found if match}


def _all_edits(spec: Spec) -> Iterable[ContainerEdits]:
    return (spec.container_edits, *(device.container_edits for device in spec.devices))
