"""``cdi-hpc run``."""

from __future__ import annotations

from typing import Any

import click

from cdi_hpc.cli.options import Reporter, cdi_dir, resolve_devices, strict, unknown_hooks, verbosity
from cdi_hpc.host import LiveHost
from cdi_hpc.image import open_image
from cdi_hpc.launch import embedded, squashfs
from cdi_hpc.plan import Note
from cdi_hpc.translate import translate


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("-d", "--device", "devices", multiple=True, metavar="DEVICE", help="A device to add (repeatable).")
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
@verbosity
@click.argument("image")
@click.argument("arguments", nargs=-1, required=True, metavar="[--] COMMAND [ARG...]", type=click.UNPROCESSED)
def command(
    devices: tuple[str, ...],
    cdi_dirs: tuple[str, ...],
    strict: bool,
    unknown_hooks: Any,
    image: str,
    arguments: tuple[str, ...],
    verbose: int,
    quiet: int,
    **options: Any,
) -> int:
    """Run COMMAND in IMAGE with DEVICEs, as yourself.

    IMAGE is a directory (/ is the host itself) or a SquashFS file. The image is not written to. The exit status is
    the command's, or 125 if cdi-hpc failed, 126 if the command can't be executed, 127 if it isn't there.
    """
    reporter = Reporter(verbose + quiet)
    words = arguments[1:] if arguments[0] == "--" else arguments
    if not words:
        raise click.UsageError("Missing argument 'COMMAND'.")
    host = LiveHost()
    run_options = embedded.RunOptions(**options)
    resolved = resolve_devices(devices, cdi_dirs, reporter, is_strict=strict)
    plan = translate(resolved, host, unknown_hooks=unknown_hooks)
    with open_image(image) as opened:
        assembly = embedded.prepare(plan, opened.directory, host, run_options)
        for action in plan.actions:
            if isinstance(action, Note):
                reporter.note(f"{action.origin}: {action.edit}: {action.reason}")
        for lack in plan.unsupported():
            reporter.warn(f"{lack.origin}: {lack.edit}: {lack.reason}")
        for message in assembly.messages:
            reporter.note(message)
        status = embedded.run(plan, assembly, words, run_options, attended=opened.attended)
    return squashfs.leave_as(status)
