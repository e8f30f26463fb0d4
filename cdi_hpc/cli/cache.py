"""``cdi-hpc cache``."""

from __future__ import annotations

import os
import time

import click

from cdi_hpc.cli.options import output_format
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.compiled.cache_place import SYSTEM_DIRECTORY, user_directory
from cdi_hpc.compiled.plan_cache import PlanCache, plans_in, user_cache
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.planning import load_configuration


@click.group("cache")
def command() -> None:
    """List or remove compiled plans."""


system_option = click.option("--system", is_flag=True, help=f"The plans for every user, in {SYSTEM_DIRECTORY}.")


def own_cache(*, system: bool) -> PlanCache:
    """The cache that this user may change; the system's is root's (CdiError: somebody else asks for that)."""
    if not system:
        return user_cache(os.environ)
    if os.geteuid() != 0:
        raise CdiError(Problem("--system", "only root keeps plans for everybody", "leave it out, or run it as root"))
    return PlanCache(SYSTEM_DIRECTORY, mode=0o755)


@command.command("list")
@system_option
@output_format
def list_plans(system: bool, output_format: str) -> None:
    """List compiled plans, the most recently used first."""
    directory = SYSTEM_DIRECTORY if system else user_directory(os.environ, os.geteuid())[0]
    plans = plans_in(directory)
    if output_format == "json":
        print_json([{"key": p.key, "path": p.path, "size": p.size, "used": p.used} for p in plans])
        return
    rows = [(p.key, f"{p.size}", time.strftime("%Y-%m-%d %H:%M", time.localtime(p.used))) for p in plans]
    print_table(("KEY", "BYTES", "USED"), rows, empty=f"no plans in {directory}")


@command.command("clean")
@click.option("--all", "everything", is_flag=True, help="Every plan, and stages that running containers may still use.")
@system_option
@output_format
def clean(everything: bool, system: bool, output_format: str) -> None:
    """Remove what was left by interrupted compilations, old stages, and plans beyond the cache's bounds."""
    cache = own_cache(system=system)
    configuration = load_configuration(os.environ, everybody=system)
    removed = cache.collect(configuration.cache, everything=everything)
    if output_format == "json":
        print_json({"directory": cache.directory, "removed": removed})
    else:
        click.echo(f"removed {removed} from {cache.directory}")
