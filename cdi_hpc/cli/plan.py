"""``cdi-hpc plan``."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import click

from cdi_hpc import backends
from cdi_hpc.cli import PROBLEM, plan_through
from cdi_hpc.cli.options import (
    Reporter,
    cdi_dir,
    output_format,
    refuse_for,
    strict,
    unknown_hooks,
    verbosity,
    visible_devices,
)
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.cli.progress import progress
from cdi_hpc.container import preflight
from cdi_hpc.container.stage import Assembly, CoverFile
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import embedded
from cdi_hpc.launch.image import open_image, read_image
from cdi_hpc.planning import Planned, Wanted, enforce_in_image, plan_devices
from cdi_hpc.translation import describe


@click.command("plan")
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE...")
@click.option("--image", metavar="IMAGE", help="The image to plan for: what depends on it is decided.")
@click.option(
    "--for",
    "launcher",
    metavar="LAUNCHER",
    default="embedded",
    show_default=True,
    help="The launcher: 'embedded' is cdi-hpc run, 'bash' is cdi-hpc script; 'charliecloud', 'singularity', or a "
    "program with a backend, which need --image.",
)
@cdi_dir
@strict
@unknown_hooks
@visible_devices
@output_format
@verbosity
def command(
    devices: tuple[str, ...],
    image: str | None,
    launcher: Any,
    cdi_dirs: tuple[str, ...],
    strict: bool,
    unknown_hooks: Any,
    visible: tuple[str, ...],
    output_format: str,
    verbose: int,
    quiet: int,
) -> int:
    """Explain what a launch with DEVICEs would do.

    One row for each edit: what it is, where it is from, and how it is done or why not.
    """
    reporter = Reporter(verbose + quiet)
    if launcher not in ("embedded", "bash"):
        backend = backends.of_name(launcher)
        if image is None:
            raise click.UsageError(f"Missing option '--image' ('cdi-hpc explain --for {launcher}' goes without).")
        given = {
            "--strict": strict,
            "--unknown-hooks": unknown_hooks != "warn",
            "--visible-devices": bool(visible),
        }
        refuse_for(launcher, given)
        return plan_through.show(launcher, backend, devices, image, cdi_dirs, output_format, reporter)
    host = LiveHost()
    wanted = Wanted(launcher, devices, cdi_dirs, strict, unknown_hooks, visible=visible)
    planned = plan_devices(wanted, os.environ, host, reporter)
    plan = planned.plan
    status = PROBLEM if any(lack.fatal for lack in plan.unsupported()) else 0
    with progress(f"looking into {image}", wanted=output_format == "table" and reporter.level >= 0):
        messages, misfits, places = _in_image(planned, host, image)
    if any(misfit.fatal for misfit in misfits):
        status = PROBLEM
    messages = [*messages, *map(str, misfits)]
    if output_format == "json":
        document = describe.plan_document(plan, launcher)
        print_json({**document, "image": image, "messages": messages})
        return status
    rows = [(describe.what(action), str(action.origin), describe.how(action, launcher)) for action in plan.actions]
    print_table(("WHAT", "FROM", "HOW"), [*rows, *places])
    if plan.private_dev:
        reporter.warn(f"the container gets a /dev of its own: {plan.private_dev}")
    for message in messages:
        reporter.warn(message)
    return status


def _in_image(
    planned: Planned, host: LiveHost, path: str | None
) -> tuple[list[str], list[preflight.Misfit], list[tuple[str, str, str]]]:
    """What only the image decides: messages, libraries that can't work, and rows for paths that are elsewhere in it."""
    plan = planned.plan
    if path is None or any(lack.fatal for lack in plan.unsupported()):
        return [], [], []
    image = read_image(path)
    if image.files is None and not image.mountable:
        raise CdiError(Problem(f"image {path}", image.reason, image.fix))
    with contextlib.ExitStack() as stack:
        place = image.place if image.files is not None else stack.enter_context(open_image(path)).directory
        assembly = embedded.prepare(plan, place, host, embedded.RunOptions(), files=image.files)
        enforce_in_image(planned.configuration.policy, plan, assembly.covered)
        return [*image.notes, *assembly.messages], preflight.check(assembly), _moved(assembly)


def _moved(assembly: Assembly) -> list[tuple[str, str, str]]:
    targets = ((placed, assembly.tree.regions[placed.region].target) for placed in assembly.mounts)
    return [
        (f"{placed.what.target} is {target} in the image", str(placed.what.origin), "link followed inside the image")
        for placed, target in targets
        if not isinstance(placed.what, CoverFile) and placed.what.target != target
    ]
