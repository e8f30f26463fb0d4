"""``cdi-hpc compile``."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import click

from cdi_hpc import backends
from cdi_hpc.backend import Backend
from cdi_hpc.backends.singularity.handoff import hand_over
from cdi_hpc.cli.cache import own_cache
from cdi_hpc.cli.options import Reporter, cdi_dir, preflight, refuse_for, strict, unknown_hooks
from cdi_hpc.cli.progress import progress
from cdi_hpc.compiled import extract
from cdi_hpc.compiled.cache_key import Launch
from cdi_hpc.compiled.cache_place import SYSTEM_DIRECTORY, CacheError
from cdi_hpc.compiled.plan_cache import PlanCache
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.launch import beforehand, inheritance, native
from cdi_hpc.launch.launcher import NotKeptError, compile_launch
from cdi_hpc.spec.request import PREFLIGHT_VARIABLE

#: The launcher that is our own.
EMBEDDED = "embedded"


@click.command("compile")
@click.argument("devices", nargs=-1, metavar="[DEVICE...]")
@click.option("--image", default="/", show_default=True, metavar="IMAGE", help="The image of the launches to come.")
@click.option(
    "--for",
    "launcher",
    metavar="LAUNCHER",
    default=EMBEDDED,
    show_default=True,
    help="The launcher: 'embedded' is cdi-hpc run; 'charliecloud', 'singularity', or a program with a backend.",
)
@click.option(
    "--handoff", is_flag=True, help="For whichever launcher is called in a step of Slurm's, by variables: srun --cdi."
)
@click.option(
    "--gres",
    multiple=True,
    metavar="GRES=NUMBERS",
    help="What Slurm gave to the step, as in gpu=0,2; a kind means these of its devices, and others are refused.",
)
@click.option("--system", is_flag=True, help=f"For every user, in {SYSTEM_DIRECTORY}; root only.")
@click.option(
    "--list",
    "list_file",
    metavar="FILE",
    help="Compile each line of FILE: its words are arguments of this command. '#' begins a comment.",
)
@click.option(
    "--seal",
    is_flag=True,
    hidden=True,
    help="Called by the SPANK plugin: print the plan's SHA-256 before its path if it is written here, or exit with 1.",
)
@click.option(
    "--anew", is_flag=True, hidden=True, help="Called by the SPANK plugin: also if somebody else has written it."
)
@cdi_dir
@strict
@unknown_hooks
@preflight
@click.pass_context
def command(
    ctx: click.Context,
    devices: tuple[str, ...],
    image: str,
    launcher: str,
    handoff: bool,
    gres: tuple[str, ...],
    system: bool,
    list_file: str | None,
    seal: bool,
    anew: bool,
    cdi_dirs: tuple[str, ...],
    strict: bool,
    unknown_hooks: Any,
    preflight: Any,
) -> None:
    """Compile a launch beforehand, and print the plan's path.

    A later 'cdi-hpc run' of the same devices and image starts from it. Without this, the first one compiles. With
    --for, so does a later launch by the launcher's drop-in, with a --device option for each DEVICE and no other option
    that may change the plan ('exec' of launchers that have subcommands).
    """
    with _where_the_site_says(seal):
        cache = own_cache(system=system)
    if system:
        extract.keep_for_everybody(cache)
    else:
        extract.keep(os.environ)
    if list_file is not None:
        for words in _lines(list_file):
            ctx.invoke(command, **{**_parsed(words), "system": system})
        return
    if not devices:
        raise click.UsageError("Missing argument 'DEVICE...'.")
    if launcher != EMBEDDED:
        backend = backends.of_name(launcher)
        if image == "/":
            raise click.UsageError(f"Missing option '--image': {launcher} takes no '/'.")
        of_environment = os.environ.get(PREFLIGHT_VARIABLE, "auto")
        given = {
            "--strict": strict,
            "--unknown-hooks": unknown_hooks != "warn",
            "--preflight": preflight not in ("auto", of_environment),
            "--system": system,
        }
        refuse_for(launcher, given)
        click.echo(cache.path_of(_compile_through(backend, devices, image, cdi_dirs, cache)))
        return
    launch = Launch(
        os.path.realpath(image),
        devices,
        cdi_dirs,
        strict=strict,
        unknown_hooks=unknown_hooks,
        preflight=preflight,
        launcher="handoff" if handoff else "embedded",
        gres=gres,
    )
    if not handoff:
        _refuse_what_holds(cache.directory, launch.image)
    said = hand_over if handoff else None
    seals: list[str] = []
    with _where_the_site_says(seal), progress(f"compiling the launch: {image}"):
        key = native.compile_launch(
            launch, cache, os.environ, Reporter(0), everybody=system, hand_over=said, seal=seals.append, anew=anew
        )
    if seal and not seals:
        ctx.exit(1)
    click.echo("  ".join([*(seals if seal else []), cache.path_of(key)]))


def _refuse_what_holds(directory: str, image: str) -> None:
    """The kernel lays nothing over a directory that it is itself a part of. A launch by Python has no stage on disk."""
    place = os.path.realpath(directory)
    if image != "/" and place.startswith(f"{image}/"):
        what = f"plans are kept in it, in {place}, and can't be laid over it"
        raise CdiError(Problem(f"image {image}", what, "name another directory as the image"))


@contextlib.contextmanager
def _where_the_site_says(is_step: bool) -> Iterator[None]:
    """In a step, a user's variables don't say where its plans are, and can't be the way out."""
    try:
        yield
    except CacheError as error:
        if not is_step:
            raise
        fix = "remove what is yours there, or ask the administrator: plugstack.conf says where plans of steps are"
        raise CacheError(Problem(problem.where, problem.what, fix) for problem in error.problems) from None


def _compile_through(
    backend: Backend, devices: Sequence[str], image: str, cdi_dirs: Sequence[str], cache: PlanCache
) -> str:
    environ = inheritance.command_environment()
    request = beforehand.request_for(backend, devices, image, cdi_dirs, environ, cache.directory)
    try:
        with progress(f"compiling the launch: {image}", wanted="://" not in image):
            return compile_launch(request, cache, environ, Reporter(0))
    except NotKeptError:
        what = "a launch of it can't be compiled: what it is made from is not known beforehand"
        raise CdiError(Problem(f"image {image}", what, "fetch it to a file, and name that")) from None


def _lines(path: str) -> Iterator[list[str]]:
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    words = shlex.split(line, comments=True)
                except ValueError as error:
                    raise CdiError(Problem(f"{path}:{number}", f"{error}".lower(), "quote as a shell does")) from None
                if words:
                    yield words
    except (OSError, UnicodeDecodeError) as error:
        raise CdiError(Problem(path, f"can't be read: {error}")) from None


def _parsed(words: list[str]) -> dict[str, Any]:
    return command.make_context("compile", words).params
