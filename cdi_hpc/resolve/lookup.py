"""From words to merged edits: the registry that options and environment name, and the request resolved in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cdi_hpc import config
from cdi_hpc.config import Configuration
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host, LiveHost
from cdi_hpc.spec import edits, names, request
from cdi_hpc.spec.model import ResolvedEdits
from cdi_hpc.spec.registry import (
    ENVIRONMENT_VARIABLE,
    RegisteredDevice,
    Registry,
    SpecDirectory,
    load_registry,
    spec_directories,
)
from cdi_hpc.witness import Witness

if TYPE_CHECKING:
    from cdi_hpc.resolve.lock import Lock


class Report(Protocol):
    """Who is told of what is unusual."""

    def warn(self, text: object) -> None:
        """Something that the user should know."""

    def note(self, text: object) -> None:
        """Something for the curious."""


def directories(
    cdi_dirs: Sequence[str], environ: Mapping[str, str], configuration: Configuration
) -> tuple[SpecDirectory, ...]:
    """Where to look for specs: the directories that options name, else the environment, else the configuration."""
    if cdi_dirs or environ.get(ENVIRONMENT_VARIABLE) or not configuration.spec_directories:
        return spec_directories(environ, cdi_dirs)
    return tuple(SpecDirectory(os.path.normpath(path)) for path in configuration.spec_directories)


def read_registry(
    cdi_dirs: Sequence[str],
    environ: Mapping[str, str],
    *,
    strict: bool = False,
    witness: Witness | None = None,
    configuration: Configuration | None = None,
) -> Registry:
    """The registry of the directories that options, environment and configuration name.

    Args:
        cdi_dirs: the directories that options name.
        environ: the environment.
        strict: refuse what the reference library refuses.
        witness: is told of every file that is looked at.
        configuration: default: that of this process.

    Raises:
        CdiError: a directory that somebody named can't be read, or the configuration is wrong.

    """
    if configuration is None:
        configuration = config.load(environ, os.geteuid(), witness).configuration
    wanted = directories(cdi_dirs, environ, configuration)
    registry = load_registry(wanted, strict=strict or configuration.strict, witness=witness)
    problems: list[Problem] = []
    for directory in registry.directories:
        if directory.named:
            problems += registry.errors.get(directory.path, ())
    if problems:
        raise CdiError(problems)
    return registry


@dataclass(frozen=True)
class Resolved:
    """What a request means.

    Attributes:
        request: what was asked for, less what depends on who asks and where: aliases and lock files are what they stand
            for, and paths are absolute.
        devices: that this means.
        edits: theirs, merged.

    """

    request: tuple[str, ...]
    devices: tuple[RegisteredDevice, ...]
    edits: ResolvedEdits


def resolve_devices(
    devices: Sequence[str],
    cdi_dirs: Sequence[str],
    environ: Mapping[str, str],
    report: Report,
    *,
    strict: bool = False,
    witness: Witness | None = None,
    configuration: Configuration | None = None,
    host: Host | None = None,
    visible: Sequence[str] = (),
) -> Resolved:
    """What a request means; what is unusual about the files is reported.

    Args:
        devices: what is asked for, aliases and lock files among it.
        cdi_dirs: the spec directories that options name.
        environ: the environment.
        report: is told of what is unusual.
        strict: refuse what the reference library refuses.
        witness: is told of every file that is looked at.
        configuration: default: that of this process.
        host: is asked which devices can be opened, where only those are meant; default: this machine.
        visible: lists of what is meant of whole kinds (:func:`cdi_hpc.site.allocation.visible`).

    Raises:
        CdiError: something can't be resolved, the configuration is wrong, or the edits are not those of a lock file.

    """
    if configuration is None:
        configuration = config.load(environ, os.geteuid(), witness).configuration
    strict = strict or configuration.strict
    devices, locks = _without_locks(_without_aliases(devices, configuration), configuration, witness)
    registry = read_registry(cdi_dirs, environ, strict=strict, witness=witness, configuration=configuration)
    for problems in registry.errors.values():
        for problem in problems:
            report.note(problem)
    wanted = devices
    for text in visible:
        if not text.rpartition("=")[2].strip():
            fix = "is the variable set that it is from? 'none' says the same, without this"
            report.warn(Problem("visible devices", f"the list {text!r} is empty: no device of the kind", fix))
    openable = configuration.all_means == "openable"
    if openable or visible:
        wanted = _selected(devices, registry, host or LiveHost(witness), visible, openable=openable)
    found = _found(wanted, registry, report, strict=strict, witness=witness)
    merged = edits.merge(found)
    if locks:
        from cdi_hpc.resolve import lock

        lock.require_same(locks, merged, witness, configuration.policy)
    plain = (part for device in devices for part in request.parts(device))
    return Resolved(tuple(map(_absolute, plain)), found, merged)


def _absolute(device: str) -> str:
    return os.path.abspath(device) if request.is_file_request(device) else device


def _found(
    devices: Sequence[str], registry: Registry, report: Report, *, strict: bool, witness: Witness | None
) -> tuple[RegisteredDevice, ...]:
    try:
        resolution = request.resolve(devices, registry, strict=strict, witness=witness)
    except CdiError as error:
        # What could not be read may be where the missing device is; conflicts of other devices are not.
        loaded = {spec.path for spec in registry.specs}
        unread = (p for path, problems in registry.errors.items() if path not in loaded for p in problems)
        raise CdiError(dict.fromkeys((*unread, *registry.unread, *error.problems))) from None
    used = {device.spec.path for device in resolution.devices}
    for warning in dict.fromkeys([*registry.warnings, *resolution.warnings]):
        tell = report.warn if any(warning.where.startswith((path, "kind ")) for path in used) else report.note
        tell(warning)
    return resolution.devices


# What only a configuration asks for is imported where it is asked for: a launch without one does not pay for it.


def _without_aliases(devices: Sequence[str], configuration: Configuration) -> Sequence[str]:
    if not configuration.aliases:
        return devices
    from cdi_hpc.site import aliases

    return aliases.expand(devices, configuration.aliases)


def _without_locks(
    devices: Sequence[str], configuration: Configuration, witness: Witness | None
) -> tuple[Sequence[str], dict[str, Lock]]:
    """A request with the devices of its lock files in their place, and those files with what they hold."""
    locks: dict[str, Lock] = {}
    if not any(names.LOCK_SUFFIX in device for device in devices):
        return devices, locks
    from cdi_hpc.resolve import lock

    def expanded() -> Iterator[str]:
        for part in (part for device in devices for part in request.parts(device)):
            if names.is_lock_file(part):
                locks[part] = lock.read_lock(part, witness)
                yield from _without_aliases(locks[part].request, configuration)
            else:
                yield part

    return tuple(expanded()), locks


def _selected(
    devices: Sequence[str], registry: Registry, host: Host, visible: Sequence[str], *, openable: bool
) -> Sequence[str]:
    from cdi_hpc.site import allocation

    return allocation.select(devices, registry, host, allocation.Choice(openable, tuple(visible)))
