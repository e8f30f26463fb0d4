"""Options and arguments that several commands share, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

import click

from cdi_hpc import edits, request
from cdi_hpc.cli import complain
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.model import ResolvedEdits
from cdi_hpc.registry import Registry, load_registry, spec_directories

F = TypeVar("F", bound=Callable[..., Any])

cdi_dir = click.option(
    "--cdi-dir",
    "cdi_dirs",
    multiple=True,
    metavar="DIR",
    help="Look for specs in DIR instead of /etc/cdi and /var/run/cdi (repeatable; the last one wins). "
    "CDI_HPC_DIRS=DIR:DIR does the same.",
)
strict = click.option(
    "--strict", is_flag=True, help="Refuse what the CDI reference library refuses: unknown fields, newer versions."
)
output_format = click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people or JSON for programs.",
)
unknown_hooks = click.option(
    "--unknown-hooks",
    type=click.Choice(["warn", "fail"]),
    default="warn",
    show_default=True,
    help="What to do about a hook whose effect is not known. It is never run.",
)


def verbosity(function: F) -> F:
    """Add ``-v`` and ``-q``; the command gets ``verbosity``: -1 errors only, 0 warnings, 1 everything."""

    def remember(ctx: click.Context, parameter: click.Parameter, count: int) -> int:
        del ctx
        return count if parameter.name == "verbose" else -count

    verbose = click.option(
        "-v", "--verbose", "verbose", count=True, callback=remember, help="Say more: notes, and what was skipped."
    )
    quiet = click.option("-q", "--quiet", "quiet", count=True, callback=remember, help="Say only what is wrong.")
    return verbose(quiet(function))


@dataclass(frozen=True)
class Reporter:
    """Lines on standard error, as many as were asked for."""

    level: int

    def warn(self, text: object) -> None:
        """Something that the reader should know."""
        if self.level >= 0:
            complain("warning", str(text))

    def note(self, text: object) -> None:
        """Something for the curious."""
        if self.level >= 1:
            complain("note", str(text))


def read_registry(cdi_dirs: Sequence[str], *, is_strict: bool = False) -> Registry:
    """The registry of the directories that options and environment name.

    Raises:
        CdiError: a directory that somebody named can't be read.

    """
    registry = load_registry(spec_directories(os.environ, cdi_dirs), strict=is_strict)
    problems: list[Problem] = []
    for directory in registry.directories:
        if directory.named:
            problems += registry.errors.get(directory.path, ())
    if problems:
        raise CdiError(problems)
    return registry


def resolve_devices(
    devices: Sequence[str], cdi_dirs: Sequence[str], reporter: Reporter, *, is_strict: bool = False
) -> ResolvedEdits:
    """The merged edits of a request; what is unusual about the files is reported.

    Raises:
        CdiError: something can't be resolved.

    """
    registry = read_registry(cdi_dirs, is_strict=is_strict)
    for problems in registry.errors.values():
        for problem in problems:
            reporter.note(problem)
    try:
        resolution = request.resolve(devices, registry, strict=is_strict)
    except CdiError as error:
        # What could not be read may be where the missing device is; conflicts of other devices are not.
        loaded = {spec.path for spec in registry.specs}
        unread = (p for path, problems in registry.errors.items() if path not in loaded for p in problems)
        raise CdiError(dict.fromkeys((*unread, *error.problems))) from None
    used = {device.spec.path for device in resolution.devices}
    for warning in dict.fromkeys([*registry.warnings, *resolution.warnings]):
        tell = reporter.warn if any(warning.where.startswith((path, "kind ")) for path in used) else reporter.note
        tell(warning)
    return edits.merge(resolution.devices)
