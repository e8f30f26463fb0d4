"""``cdi-hpc config``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click

from cdi_hpc import config
from cdi_hpc.cli import PROBLEM, complain
from cdi_hpc.cli.options import output_format
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.config import Configuration, schema
from cdi_hpc.config.build import build
from cdi_hpc.config.check import Settings, doubts
from cdi_hpc.config.files import read_named
from cdi_hpc.config.settings import Layer, Setting, join, of_file, said
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.resolve.lookup import directories
from cdi_hpc.spec.registry import load_registry


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
@output_format
def check(paths: tuple[str, ...], user: bool, output_format: str) -> int:
    """Check FILEs before they are put in place, or without any, the configuration that launches find.

    Several FILEs are taken together, in their order. Everything that is wrong is shown, with file and line. What is
    right and probably not meant is a warning: users, groups, directories and devices that this machine does not have,
    rules that an earlier rule leaves nothing to decide. Exits with 1 if anything is wrong; warnings don't count.
    """
    found = _check_files(paths, "user" if user else "site") if paths else _check_found()
    if output_format == "json":
        print_json(
            {
                "files": [*found.files],
                "valid": not found.errors,
                "errors": [str(problem) for problem in found.errors],
                "warnings": [str(problem) for problem in found.warnings],
            }
        )
        return PROBLEM if found.errors else 0
    if not found.errors:
        click.echo("".join(f"{path}: valid\n" for path in found.files) or "no configuration\n", nl=False)
        sys.stdout.flush()  # before what is said about it
    for level, problems in (("error", found.errors), ("warning", found.warnings)):
        for problem in problems:
            complain(level, str(problem))
    return PROBLEM if found.errors else 0


class _Checked(NamedTuple):
    """What a check has found."""

    files: Sequence[str]
    errors: Sequence[Problem] = ()
    warnings: Sequence[Problem] = ()


def _check_found() -> _Checked:
    try:
        loaded = config.load(os.environ, os.geteuid(), to_show=True)
    except CdiError as error:
        return _Checked((), error.problems)
    return _Checked(loaded.files, (), _doubts(loaded.configuration, loaded.settings))


def _doubts(configuration: Configuration, settings: Settings) -> list[Problem]:
    found = load_registry(directories((), os.environ, configuration), strict=configuration.strict)
    return doubts(configuration, settings, found)


def _check_files(paths: Sequence[str], layer: Layer) -> _Checked:
    settings: list[Setting] = []
    errors: list[Problem] = []
    for path in paths:
        try:
            settings += of_file(read_named(path), layer)
        except CdiError as error:
            errors += error.problems
    joined = join(settings)
    try:
        configuration = build(joined)
    except CdiError as error:
        return _Checked(paths, [*errors, *error.problems])
    return _Checked(paths, errors, [] if errors else _doubts(configuration, joined))


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
