"""Spec files, and the devices that a request means."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import shlex
import stat
from collections.abc import Iterable, Iterator

from cdi_hpc import config, planning, trusted_program
from cdi_hpc.config import Configuration
from cdi_hpc.config.check import doubts
from cdi_hpc.config.settings import Layer
from cdi_hpc.doctor.checks import Finding, Question, Status, configured
from cdi_hpc.errors import CdiError
from cdi_hpc.host import LiveHost
from cdi_hpc.plan import Plan, Unsupported
from cdi_hpc.resolve.lookup import directories
from cdi_hpc.site.policy import RefusedError
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
    for warning in (*registry.unread, *registry.warnings):
        yield Finding("warning", f"{warning.where}: {warning.what}", warning.fix)
    if not registry.specs:
        yield Finding("problem", f"no usable spec in {places}", _FIRST)
    else:
        yield Finding("ok", f"spec files in {places}: {len(registry.specs)}, devices: {len(registry.devices)}")


def modes(question: Question) -> Iterator[Finding]:
    """Whether everybody can read the specs of the host: what root sees is not what users see."""
    paths = [path for directory in _directories_of_host(question) for path in _paths(directory)]
    wrong = [path for path in paths if not _readable_by_all(path)]
    for path in wrong:
        fix = f"chmod {755 if os.path.isdir(path) else 644} {shlex.quote(path)}"
        yield Finding("warning", f"{path} can't be read by everybody", fix)
    if paths and not wrong:
        yield Finding("ok", "the spec files can be read by everybody")


def owners(question: Question) -> Iterator[Finding]:
    """Whether root alone can write to the specs of the host: they say what is shown in everybody's containers."""
    status: Status = "warning" if _who_configured(question) else "problem"  # a site may have chosen somebody else's
    paths = [os.path.realpath(path) for directory in _directories_of_host(question) for path in _paths(directory)]
    roots = trusted_program.roots()
    ways = dict.fromkeys(part for path in paths for part in (*trusted_program.directories_of(path), path))
    wrong = {part: reason for part in ways if (reason := trusted_program.not_roots(part, os.lstat(part), roots))}
    for part, reason in wrong.items():
        yield Finding(status, reason, f"chown root {shlex.quote(part)}; chmod go-w {shlex.quote(part)}")
    if paths and not wrong:
        yield Finding("ok", "root alone can write to the spec files")


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
    configuration = configured(question)
    if configuration is None:
        return
    if question.devices:
        yield from _of_plan(_plan(question, question.devices, configuration))
        return
    of_kinds = {kind: _of_kind(kind, question, configuration) for kind in _registry(question).kinds()}
    yield from dict.fromkeys(finding for findings in of_kinds.values() for finding in findings)
    if of_kinds and all(finding.status == "note" for findings in of_kinds.values() for finding in findings):
        what = "the site's rules refuse every kind of device to you"
        yield Finding("warning", what, "ask the administrator, or look at 'policy' in the configuration")


def _of_kind(kind: str, question: Question, configuration: Configuration) -> tuple[Finding, ...]:
    """Of a kind that nobody asked for: one that he is not to have says nothing of the others."""
    try:
        return tuple(_of_plan(_plan(question, (kind,), configuration)))
    except RefusedError as error:
        first, *others = error.problems
        more = f" (and {len(others)} more)" if others else ""
        return (Finding("note", f"{kind}: {first.where}: {first.what}{more}", "nothing, if it is meant so"),)
    except CdiError as error:
        return tuple(Finding("problem", f"{each.where}: {each.what}", each.fix) for each in error.problems)


def _of_plan(plan: Plan) -> Iterator[Finding]:
    lacks = [*plan.unsupported()]
    for lack in lacks:
        yield _of_lack(lack)
    if not lacks:
        yield Finding("ok", f"{', '.join(plan.devices)}: everything is there and can be opened")


def plan_for(question: Question) -> Plan | None:
    """The plan of the devices in question, or of all that can be had.

    None if there are none; if they can't be had, the check ``request`` says why.
    """
    configuration = configured(question)
    if configuration is None:
        return None
    wanted = question.devices or _kinds_that_can_be_had(question, configuration)
    try:
        return _plan(question, wanted, configuration) if wanted else None
    except CdiError:
        return None


def _kinds_that_can_be_had(question: Question, configuration: Configuration) -> tuple[str, ...]:
    found = []
    for kind in _registry(question).kinds():
        with contextlib.suppress(CdiError):  # ``request`` says it
            _plan(question, (kind,), configuration)
            found.append(kind)
    return tuple(found)


def _plan(question: Question, devices: tuple[str, ...], configuration: Configuration) -> Plan:
    """The plan of a launch (CdiError: a device is not there, or a rule refuses it)."""
    wanted = planning.Wanted("embedded", devices, question.cdi_dirs)
    environ = question.variables
    return planning.plan_devices(wanted, environ, LiveHost(), _Silent(), configuration=configuration).plan


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
    configuration = configured(question)
    if configuration is None:
        return spec_directories(question.variables, question.cdi_dirs)
    return directories(question.cdi_dirs, question.variables, configuration)


def _registry(question: Question) -> Registry:
    return load_registry(_directories(question))


def _directories_of_host(question: Question) -> tuple[SpecDirectory, ...]:
    """Those that are not the user's own business: neither he nor his environment has chosen them."""
    if _who_configured(question) == "user":
        return ()
    return tuple(directory for directory in _directories(question) if not directory.named)


def _who_configured(question: Question) -> Layer | None:
    """Whose configuration says where specs are, None if it is nobody's."""
    try:
        settings = config.load(question.variables, os.geteuid()).settings
    except CdiError:
        return None
    found = settings.get(("spec-directories",))
    return found[-1].layer if found else None


def _paths(directory: SpecDirectory) -> Iterator[str]:
    """A directory and its files, as far as they are there."""
    if os.path.isdir(directory.path):
        yield directory.path
    with contextlib.suppress(CdiError):  # ``files`` says it
        yield from filter(os.path.exists, spec_files(directory))


def _readable_by_all(path: str) -> bool:
    mode = os.stat(path).st_mode
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
