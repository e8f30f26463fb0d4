"""``cdi-hpc config``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from cdi_hpc import config
from cdi_hpc.cli import PROBLEM, complain
from cdi_hpc.cli.options import output_format
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.config import schema
from cdi_hpc.config.build import build
from cdi_hpc.config.files import read_named
from cdi_hpc.config.settings import Setting, join, of_file, said
from cdi_hpc.errors import CdiError


@click.group("config")
def command() -> None:
    """Show or check the configuration of this machine and yours."""


@command.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a configuration file, for editors and other programs."""
    click.echo(schema.text(), nl=False)


@command.command("check")
@click.argument("paths", nargs=-1, metavar="[FILE...]")
@click.option("--user", is_flag=True, help="FILEs are for a user, who may not set every key.")
def check(paths: tuple[str, ...], user: bool) -> int:
    """Check FILEs before they are put in place, or without any, the configuration that launches find.

    Several FILEs are taken together, in their order. Everything that is wrong is shown, with file and line. Exits with
    1 if anything is.
    """
    if not paths:
        loaded = config.load(os.environ, os.geteuid())
        click.echo("".join(f"{path}: valid\n" for path in loaded.files) or "no configuration\n", nl=False)
        return 0
    settings: list[Setting] = []
    wrong = False
    for path in paths:
        try:
            settings += of_file(read_named(path), "user" if user else "site")
        except CdiError as error:
            wrong = True
            _complain(error)
    try:
        build(join(settings))
    except CdiError as error:
        wrong = True
        _complain(error)
    if not wrong:
        click.echo("".join(f"{path}: valid\n" for path in paths), nl=False)
    return PROBLEM if wrong else 0


def _complain(error: CdiError) -> None:
    for problem in error.problems:
        complain("error", str(problem))


@command.command("show")
@click.option("--all", "everything", is_flag=True, help="Keys that nobody set, too, with their defaults.")
@output_format
def show(everything: bool, output_format: str) -> None:
    """Show which keys are set, to what, and where.

    What an option of a command line says comes on top of it.
    """
    loaded = config.load(os.environ, os.geteuid(), to_show=True)
    entries = [*_set_keys(loaded.settings), *(_defaults(loaded.settings) if everything else ())]
    if output_format == "json":
        print_json(entries)
        return
    rows = [(entry["key"], said(entry["value"]), entry["from"]) for entry in entries]
    print_table(("KEY", "VALUE", "FROM"), rows, empty="nothing is configured: every key has its default (--all)")


def _set_keys(settings: Mapping[tuple[str, ...], Sequence[Setting]]) -> Iterator[dict[str, Any]]:
    for path, found in settings.items():
        for setting in found:
            if setting.key.join != "append":
                yield {"key": ".".join(path), "value": setting.value, "from": str(setting.where)}
                continue
            for index, value in enumerate(setting.value):
                yield {"key": ".".join(path), "value": value, "from": str(setting.where.below(index))}


def _defaults(settings: Mapping[tuple[str, ...], Sequence[Setting]]) -> Iterator[dict[str, Any]]:
    for key in schema.all_keys():
        if key.path not in settings and schema.ANY_NAME not in key.path:
            yield {"key": key.shown, "value": [] if key.default is None else key.default, "from": "default"}
