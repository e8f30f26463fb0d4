"""The command line of ``cdi-hpc exec``. What it does is in :mod:`cdi_hpc.cli.exec`, which takes long to import."""

from __future__ import annotations

from typing import Any

import click

from cdi_hpc.cli.options import verbosity


@click.command(
    "exec",
    short_help="Run LAUNCHER (ch-run, apptainer, ...) with DEVICEs.",
    context_settings={"allow_interspersed_args": False},
)
@verbosity
@click.option(
    "--runner",
    type=click.Choice(["auto", "native", "python"]),
    default="auto",
    show_default=True,
    help="What does the mounts: cdi-hpc-run from a compiled plan where it is installed, or Python.",
)
@click.option("--compile-and-run", is_flag=True, hidden=True, help="Called by the shim: a plan is missing or stale.")
@click.argument("name", metavar="LAUNCHER")
@click.argument("words", nargs=-1, metavar="[WORD...]", type=click.UNPROCESSED)
def command(**given: Any) -> int:
    """Run LAUNCHER (ch-run, apptainer, singularity, ...) with its own command line, and with devices.

    \b
        cdi-hpc exec ch-run --device nvidia.com/gpu=0 IMAGE -- COMMAND
        cdi-hpc exec apptainer exec --device nvidia.com/gpu=0 IMAGE COMMAND

    The launcher's options are all there; ours are listed at the end of its --help. Where no device is asked for,
    and none is configured for such launches, this is the launcher and nothing else. Streams and exit status are the
    launcher's; 125 means that cdi-hpc failed, 127 that there is no such launcher. LAUNCHER is looked up on the PATH, or
    is a path.
    """  # noqa: D301 - click wants the control character
    # Imported here: a shell that completes a word does not have to wait for it.
    from cdi_hpc.cli.exec import run

    return run(**given)
