"""``cdi-hpc list``."""

from __future__ import annotations

import os
from typing import Any

import click

from cdi_hpc import config
from cdi_hpc.cli import PROBLEM, complain
from cdi_hpc.cli.options import Reporter, cdi_dir, output_format, strict, verbosity
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.resolve.lookup import directories
from cdi_hpc.spec.document import ONLY_THE_FIRST
from cdi_hpc.spec.registry import Registry, load_registry


@click.command("list")
@cdi_dir
@strict
@output_format
@verbosity
def command(cdi_dirs: tuple[str, ...], strict: bool, output_format: str, verbose: int, quiet: int) -> int:
    """List the devices that can be requested.

    What is wrong with spec files is said on standard error. Exits with 1 if a file has errors.
    """
    reporter = Reporter(verbose + quiet)
    configuration = config.load(os.environ, os.geteuid()).configuration
    wanted = directories(cdi_dirs, os.environ, configuration)
    registry = load_registry(wanted, strict=strict or configuration.strict)
    if output_format == "json":
        print_json(_document(registry))
    else:
        rows = [(name, device.spec.path, device.spec.cdi_version) for name, device in registry.devices.items()]
        places = ", ".join(directory.path for directory in registry.directories)
        print_table(("DEVICE", "SPEC", "CDI VERSION"), rows, empty=f"no devices in {places}")
        for problem in (problem for problems in registry.errors.values() for problem in problems):
            complain("error", str(problem))
        for shadowed in registry.shadowed:
            reporter.note(f"{shadowed.path}: {shadowed.name} is not used, {shadowed.winner} defines it and wins")
    for unread in registry.unread:
        reporter.warn(unread)
    for warning in registry.warnings:
        # Devices of further documents are missing in the list.
        (reporter.warn if warning.what == ONLY_THE_FIRST else reporter.note)(warning)
    return PROBLEM if registry.errors else 0


def _document(registry: Registry) -> dict[str, Any]:
    return {
        "devices": list(registry.devices),
        "specs": [
            {
                "path": loaded.path,
                "kind": loaded.spec.kind,
                "cdiVersion": loaded.spec.cdi_version,
                "priority": loaded.priority,
                "devices": list(loaded.devices()),
            }
            for loaded in registry.specs
        ],
        "errors": {path: [str(problem) for problem in problems] for path, problems in registry.errors.items()},
        "warnings": [str(warning) for warning in (*registry.unread, *registry.warnings)],
    }
