"""From words to merged edits: the registry that options and environment name, and the request resolved in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cdi_hpc import edits, request
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.model import ResolvedEdits
from cdi_hpc.registry import Registry, load_registry, spec_directories
from cdi_hpc.witness import Witness


class Report(Protocol):
    """Who is told of what is unusual."""

    def warn(self, text: object) -> None:
        """Something that the user should know."""

    def note(self, text: object) -> None:
        """Something for the curious."""


def read_registry(
    cdi_dirs: Sequence[str], environ: Mapping[str, str], *, strict: bool = False, witness: Witness | None = None
) -> Registry:
    """The registry of the directories that options and environment name.

    Raises:
        CdiError: a directory that somebody named can't be read.

    """
    registry = load_registry(spec_directories(environ, cdi_dirs), strict=strict, witness=witness)
    problems: list[Problem] = []
    for directory in registry.directories:
        if directory.named:
            problems += registry.errors.get(directory.path, ())
    if problems:
        raise CdiError(problems)
    return registry


def resolve_devices(
    devices: Sequence[str],
    cdi_dirs: Sequence[str],
    environ: Mapping[str, str],
    report: Report,
    *,
    strict: bool = False,
    witness: Witness | None = None,
) -> ResolvedEdits:
    """The merged edits of a request; what is unusual about the files is reported.

    Raises:
        CdiError: something can't be resolved.

    """
    registry = read_registry(cdi_dirs, environ, strict=strict, witness=witness)
    for problems in registry.errors.values():
        for problem in problems:
            report.note(problem)
    try:
        resolution = request.resolve(devices, registry, strict=strict, witness=witness)
    except CdiError as error:
        # What could not be read may be where the missing device is; conflicts of other devices are not.
        loaded = {spec.path for spec in registry.specs}
        unread = (p for path, problems in registry.errors.items() if path not in loaded for p in problems)
        raise CdiError(dict.fromkeys((*unread, *error.problems))) from None
    used = {device.spec.path for device in resolution.devices}
    for warning in dict.fromkeys([*registry.warnings, *resolution.warnings]):
        tell = report.warn if any(warning.where.startswith((path, "kind ")) for path in used) else report.note
        tell(warning)
    return edits.merge(resolution.devices)
