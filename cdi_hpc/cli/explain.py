"""``cdi-hpc explain``: its command line. What it prints is made in :mod:`cdi_hpc.cli.explanations`."""

from __future__ import annotations

from typing import Any

import click

from cdi_hpc.cli.options import Reporter, cdi_dir, strict, unknown_hooks, verbosity, visible_devices


@click.command("explain", short_help="Show what becomes of every edit of DEVICEs on each launcher.")
@click.argument("devices", nargs=-1, metavar="DEVICE...")
@click.option("--image", metavar="IMAGE", help="The image of the launch. Default: one that is empty.")
@click.option(
    "--for",
    "launchers",
    metavar="LAUNCHER|all",
    default="all",
    show_default=True,
    help="One launcher, several with commas, or all: embedded (cdi-hpc run), bash (cdi-hpc script), slurm, "
    "and those that there are backends for.",
)
@click.option(
    "--diff",
    "diff",
    nargs=2,
    metavar="OLD NEW",
    help="Show what differs: between two spec files, or for DEVICEs between two launchers.",
)
@cdi_dir
@strict
@unknown_hooks
@visible_devices
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "markdown", "json"]),
    default="table",
    show_default=True,
    help="A table for people, the same as Markdown, or JSON for programs.",
)
@verbosity
def command(
    devices: tuple[str, ...],
    image: str | None,
    launchers: str,
    diff: tuple[str, str] | None,
    cdi_dirs: tuple[str, ...],
    strict: bool,
    unknown_hooks: Any,
    visible: tuple[str, ...],
    output_format: str,
    verbose: int,
    quiet: int,
) -> int:
    """Show what becomes of every edit of DEVICEs on each launcher, and why.

    \b
    done        as the spec has it, or there is nothing left to do
    replaced    another edit of the request takes its place
    emulated    to the same effect by other means
    impossible  not done, or not in full
    refused     by a rule of the site's

    Nothing is done. What an edit becomes is read from what a launch would do; a launcher that is not installed is
    explained in general. Exits with 1 if a launch would stop.
    """  # noqa: D301 - click wants the control character
    # Imported here: a shell that completes a word does not have to wait for it.
    from cdi_hpc.cli import explanations
    from cdi_hpc.explain import Wanted

    wanted = Wanted(devices, (), image, cdi_dirs, strict, unknown_hooks, visible)
    return explanations.show(wanted, launchers, diff, output_format, Reporter(verbose + quiet))
