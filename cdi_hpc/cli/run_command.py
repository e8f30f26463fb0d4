"""The command line of ``cdi-hpc run``. What it does is in :mod:`cdi_hpc.cli.run`, which takes long to import."""

from __future__ import annotations

from typing import Any

import click

from cdi_hpc.cli.options import cdi_dir, preflight, strict, unknown_hooks, verbosity, visible_devices
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec import names
from cdi_hpc.variables import DEVICES_VARIABLE


class _Run(click.Command):
    """Devices and lock files are one list, in the order in which they were typed, as the native runner has it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what could only be taken for a device: what stands for a lock file is known by its name everywhere."""
        values, _, order = self.make_parser(ctx).parse_args([*args])
        if not ctx.resilient_parsing:
            given = (parameter for parameter in order if parameter.name == "devices")
            for parameter, value in zip(given, values.get("devices", ())):
                complaint = names.lock_complaint(value) if "--lock" in parameter.opts else ""
                if complaint:
                    raise CdiError(Problem("option --lock", complaint, "rename the file"))
        return super().parse_args(ctx, args)


@click.command("run", cls=_Run, context_settings={"allow_interspersed_args": False})
@click.option(
    "-d",
    "--device",
    "devices",
    multiple=True,
    metavar="DEVICE",
    help=f"A device to add (repeatable). Without any: those of {DEVICES_VARIABLE}.",
)
@click.option(
    "--lock",
    "devices",
    multiple=True,
    metavar="FILE",
    help="The devices of a lock file (cdi-hpc lock), if they still mean the same. --device FILE.lock is the same.",
)
@click.option("--bind", "binds", multiple=True, metavar="SRC[:DST[:ro]]", help="Show a host path in the container.")
@click.option(
    "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable, or keep yours; it wins over a spec's."
)
@click.option(
    "--workdir", metavar="DIR", help="Working directory. Default: the present one if the image has it, else /."
)
@click.option("--writable-tmpfs", is_flag=True, help="Let the command write to the image's tree; lost at the end.")
@click.option("--contain", is_flag=True, help="A /dev with just the requested devices, and a /tmp of its own.")
@click.option(
    "--stage",
    type=click.Choice(["auto", "overlay", "underlay"]),
    default="auto",
    show_default=True,
    help="How links and mount points are laid over the image.",
)
@cdi_dir
@strict
@unknown_hooks
@preflight
@visible_devices
@verbosity
@click.option(
    "--runner",
    type=click.Choice(["auto", "native", "python"]),
    default="auto",
    show_default=True,
    help="What does the mounts: cdi-hpc-run from a compiled plan where it is installed, or Python.",
)
@click.option(
    "--compile-and-run", is_flag=True, hidden=True, help="Called by cdi-hpc-run: the plan is missing or stale."
)
@click.argument("image")
@click.argument("arguments", nargs=-1, required=True, metavar="[--] COMMAND [ARG...]", type=click.UNPROCESSED)
def command(**given: Any) -> int:
    """Run COMMAND in IMAGE with DEVICEs, as yourself.

    IMAGE is a directory (/ is the host itself) or a SquashFS file. The image is not written to. The exit status is
    the command's, or 125 if cdi-hpc failed, 126 if the command can't be executed, 127 if it isn't there.
    """
    # Imported here: a shell that completes a word does not have to wait for it.
    from cdi_hpc.cli.run import run

    return run(**given)
