"""``cdi-hpc doctor``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

from cdi_hpc.cli import PROBLEM, find_runner
from cdi_hpc.cli.options import cdi_dir, output_format
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.cli.progress import progress
from cdi_hpc.doctor.checks import STATUSES, Question, Result, examine
from cdi_hpc.doctor.table import CHECKS


@click.command("doctor", short_help="Look for what would keep a launch from working.")
@click.argument("devices", nargs=-1, metavar="[DEVICE...]")
@click.option("--image", metavar="IMAGE", help="Look at this image as well, and at the devices in it.")
@click.option("--slurm", is_flag=True, help="Look at Slurm as well: plugin, GRES, what this step was allocated.")
@cdi_dir
@output_format
def command(
    devices: tuple[str, ...], image: str | None, slurm: bool, cdi_dirs: tuple[str, ...], output_format: str
) -> int:
    """Look for what would keep a launch from working, on this host and for you.

    Without DEVICE all devices are looked at. Nothing is changed. The exit status is 0 if no problem was found, else 1;
    warnings and notes don't count.
    """
    question = Question(devices, image, cdi_dirs, os.environ, find_runner(os.environ) or "")
    results: list[Result] = []
    with progress("looking at this host", wanted=output_format == "table") as say:
        for result in examine(CHECKS, question, slurm=slurm):  # launchers take a second to answer
            results.append(result)
            say(f"looked at {result.check.name}", CHECKS.index(result.check) + 1, len(CHECKS))
    if output_format == "json":
        print_json(
            [
                {
                    "check": result.check.name,
                    "area": result.check.area,
                    "status": result.finding.status,
                    "finding": result.finding.what,
                    "fix": result.finding.fix,
                }
                for result in results
            ]
        )
    else:
        _show(results)
    return PROBLEM if any(result.finding.status == "problem" for result in results) else 0


def _show(results: Iterable[Result]) -> None:
    results = [*results]
    rows = [(r.finding.status, r.check.name, r.finding.what, r.finding.fix) for r in results]
    print_table(("STATUS", "CHECK", "FINDING", "WHAT TO DO"), rows)
    counts = {status: sum(result.finding.status == status for result in results) for status in STATUSES}
    found = ", ".join(_counted(counts[status], status) for status in reversed(STATUSES) if counts[status])
    sys.stdout.write(f"{found}\n")


def _counted(number: int, status: str) -> str:
    """As in ``2 notes``; "ok" is no noun."""
    return f"{number} {status}" + ("s" if number != 1 and status != "ok" else "")
