"""``cdi-hpc lock``."""

from __future__ import annotations

import json
import os
import sys

import click

from cdi_hpc.cli import PROBLEM, complain
from cdi_hpc.cli.options import Reporter, cdi_dir, strict, verbosity
from cdi_hpc.planning import load_configuration
from cdi_hpc.resolve.lock import differences, make_lock, read_lock
from cdi_hpc.resolve.lookup import resolve_devices


@click.command("lock", short_help="Print what DEVICEs mean on this host today: a lock file.")
@click.argument("devices", nargs=-1, metavar="[DEVICE...]")
@click.option("--check", metavar="FILE", help="Compare with this lock file instead; the devices are those in it.")
@cdi_dir
@strict
@verbosity
def command(
    devices: tuple[str, ...], check: str | None, cdi_dirs: tuple[str, ...], strict: bool, verbose: int, quiet: int
) -> int:
    """Print what DEVICEs mean on this host today: edits, spec files, driver.

    Kept in a file, it tells later what a launch was made from, in a bug report for example. With --check the exit
    status is 1 if something differs, and the differences are shown.
    """
    if bool(devices) == bool(check):
        raise click.UsageError("Give either DEVICEs or --check FILE.")
    locked = read_lock(check) if check else None
    request = locked.request if locked else devices
    configuration = load_configuration(os.environ)
    resolved = resolve_devices(
        request, cdi_dirs, os.environ, Reporter(verbose + quiet), strict=strict, configuration=configuration
    )
    now = make_lock(resolved.request, resolved.edits, site=configuration.policy)
    if locked is None:
        sys.stdout.write(json.dumps(now.to_json(), indent=2, sort_keys=True) + "\n")
        return 0
    problems = differences(locked, now, check or "")
    for problem in problems:
        complain("error", str(problem))
    return PROBLEM if problems else 0
