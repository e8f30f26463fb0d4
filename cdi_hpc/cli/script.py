"""``cdi-hpc script``."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from cdi_hpc.cli.options import Reporter, cdi_dir, strict, unknown_hooks, verbosity, visible_devices
from cdi_hpc.host import LiveHost
from cdi_hpc.planning import Wanted, load_configuration, plan_devices


@click.command("script")
@click.argument("devices", nargs=-1, metavar="[DEVICE...]")
@click.option(
    "--only",
    type=click.Choice(["env", "mounts"]),
    help="Just exports, to be sourced in a native job; or just a function that mounts into a given root.",
)
@cdi_dir
@strict
@unknown_hooks
@visible_devices
@verbosity
def command(
    devices: tuple[str, ...],
    only: Any,
    cdi_dirs: tuple[str, ...],
    strict: bool,
    unknown_hooks: Any,
    visible: tuple[str, ...],
    verbose: int,
    quiet: int,
) -> None:
    """Print a bash script for a launch without cdi-hpc.

    \b
        cdi-hpc script nvidia.com/gpu=all > gpu.sh
        bash gpu.sh IMAGE COMMAND...

    It needs bash 4.2, util-linux and coreutils. The image is a directory. Without a DEVICE, it is for those that are
    configured (launchers.bash.devices).
    """  # noqa: D301 - click wants the control character
    from cdi_hpc.render import bash

    reporter = Reporter(verbose + quiet)
    configuration = load_configuration(os.environ)
    if not devices and not configuration.launcher("bash").devices:
        raise click.UsageError("Missing argument 'DEVICE...'.")
    wanted = Wanted("bash", devices, cdi_dirs, strict, unknown_hooks, visible=visible)
    plan = plan_devices(wanted, os.environ, LiveHost(), reporter, configuration=configuration).plan
    if plan.runs_hooks():
        from cdi_hpc.translation import running_hooks

        plan = running_hooks.left_out(plan, "a script is made for any image, and hooks are run for one")
    for lack in plan.unsupported():
        reporter.warn(f"{lack.origin}: {lack.edit}: {lack.reason}")
    sys.stdout.buffer.write(os.fsencode(bash.script(plan, only=only)))
    sys.stdout.flush()
