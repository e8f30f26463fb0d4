"""``cdi-hpc generate``."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

from cdi_hpc import config
from cdi_hpc.cli import PROBLEM, complain
from cdi_hpc.cli.options import Reporter, output_format, verbosity
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.cli.progress import Say, progress
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.generate.build import Generated, generate
from cdi_hpc.generate.machine import Machine
from cdi_hpc.generate.recipe import SITE_DIRECTORY, Recipe, load_recipes
from cdi_hpc.generate.store import Stored, store, text_of
from cdi_hpc.resolve.lookup import directories
from cdi_hpc.spec.names import near_misses
from cdi_hpc.spec.registry import ENVIRONMENT_VARIABLE


@click.command("generate", short_help="Make CDI specs from what this host has, by RECIPEs.")
@click.argument("recipes", nargs=-1, metavar="[RECIPE...]")
@click.option(
    "-o", "--output", metavar="DIR", help="Write the specs there, for example to /etc/cdi. Default: print them."
)
@click.option("--force", is_flag=True, help="Write over spec files that were not made by this command.")
@click.option("--watch", is_flag=True, help="Stay, and write again whenever devices come or go. Needs --output.")
@click.option("--list", "list_recipes", is_flag=True, help="Show the recipes and what they find, and write nothing.")
@click.option(
    "--recipe-dir",
    metavar="DIR",
    default=SITE_DIRECTORY,
    show_default=True,
    help="Recipes of the site; one with the name of ours takes its place.",
)
@output_format
@verbosity
def command(
    recipes: tuple[str, ...],
    output: str | None,
    force: bool,
    watch: bool,
    list_recipes: bool,
    recipe_dir: str,
    output_format: str,
    verbose: int,
    quiet: int,
) -> int:
    """Make CDI specs from what this host has, by RECIPEs (default: all that find something).

    Without --output the specs are printed as YAML documents: several only to a terminal. A file is replaced in one
    step, and only if something changed; the file of a recipe that finds nothing any more is removed.
    """
    reporter = Reporter(verbose + quiet)
    if watch and not output:
        raise click.UsageError("--watch needs --output DIR.")
    known = load_recipes(recipe_dir)
    if list_recipes:
        return _list(_chosen(known, recipes), output_format)
    chosen = _chosen(known, recipes)
    if watch:
        _watch(chosen, recipes, output or "", reporter, force=force)
    with progress("looking for devices", wanted=output_format == "table" and reporter.level >= 0) as say:
        results = _generate(chosen, recipes, reporter, say)
    found = [result for result in results if result.spec is not None]
    if output is not None:
        _show(store(results, output, force=force), output_format)
        if found and output_format == "table":
            _say_where_launches_look(output, reporter)
    elif output_format == "json":
        print_json([result.spec for result in found])
    else:
        _print(found)
    return 0 if found else PROBLEM


def _print(found: Sequence[Generated]) -> None:
    """Specs for people to look at; of several in one file, readers of CDI take the first and ignore the others."""
    if len(found) > 1 and not sys.stdout.isatty():
        what = f"{len(found)} specs ({', '.join(result.recipe.name for result in found)}) can't be one file"
        raise CdiError(Problem("standard output", what, "write them with --output DIR, or name one recipe"))
    sys.stdout.write("---\n".join(text_of(result.spec, result.recipe) for result in found if result.spec))


def _chosen(known: Mapping[str, Recipe], names: Sequence[str]) -> list[Recipe]:
    problems = []
    for name in names:
        if name not in known:
            near = near_misses(name, known)
            fix = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            problems.append(Problem(f"recipe {name!r}", "there is none of this name", fix))
    if problems:
        raise CdiError(problems)
    return [known[name] for name in dict.fromkeys(names)] if names else [*known.values()]


def _generate(
    chosen: Sequence[Recipe], named: Sequence[str], reporter: Reporter, say: Say | None = None
) -> list[Generated]:
    machine = Machine()
    results = []
    for number, recipe in enumerate(chosen):
        if say is not None:
            say(f"looking for devices: {recipe.name}", number, len(chosen))
        vendors = machine.program(recipe.unless_program) if recipe.unless_program and not named else ""
        if vendors:
            reporter.note(f"{recipe.name}: left to {vendors} (name the recipe to use it all the same)")
            continue
        result = generate(recipe, machine)
        for note in result.notes:
            reporter.warn(note)
        if result.spec is None and (named or reporter.level > 0):
            reporter.warn(f"{recipe.name}: no device of the kind {recipe.kind} found")
        results.append(result)
    if not any(result.spec for result in results):
        reporter.warn("no device of any recipe was found (cdi-hpc generate --list shows the recipes)")
    return results


def _list(chosen: Sequence[Recipe], output_format: str) -> int:
    machine = Machine()
    rows = [(recipe, generate(recipe, machine)) for recipe in chosen]
    if output_format == "json":
        print_json(
            [
                {
                    "recipe": recipe.name,
                    "kind": recipe.kind,
                    "summary": recipe.summary,
                    "path": recipe.path,
                    "devices": [*result.devices],
                }
                for recipe, result in rows
            ]
        )
    else:
        print_table(
            ("RECIPE", "KIND", "DEVICES", "SUMMARY"),
            [(recipe.name, recipe.kind, str(len(result.devices)), recipe.summary) for recipe, result in rows],
        )
    return 0


def _show(stored: Sequence[Stored], output_format: str) -> None:
    if output_format == "json":
        print_json(
            [
                {
                    "path": item.path,
                    "kind": item.generated.recipe.kind,
                    "devices": [*item.generated.devices],
                    "outcome": item.outcome,
                }
                for item in stored
            ]
        )
        return
    print_table(
        ("SPEC", "KIND", "DEVICES", "OUTCOME"),
        [(item.path, item.generated.recipe.kind, " ".join(item.generated.devices), item.outcome) for item in stored],
    )


def _say_where_launches_look(output: str, reporter: Reporter) -> None:
    """Specs in a directory of one's own are found by nobody who does not name it."""
    try:
        configured = config.load(os.environ, os.geteuid()).configuration
    except CdiError:
        return  # the specs are made; a launch, and the doctor, say what is wrong with the configuration
    searched = [directory.path for directory in directories((), os.environ, configured)]
    if reporter.level >= 0 and os.path.realpath(output) not in map(os.path.realpath, searched):
        path = shlex.quote(os.path.abspath(output))
        use = f"--cdi-dir {shlex.quote(output)}, or export {ENVIRONMENT_VARIABLE}={path}"
        complain("note", f"launches look in {', '.join(searched)}; for these specs: {use}")


def _watch(chosen: Sequence[Recipe], named: Sequence[str], output: str, reporter: Reporter, *, force: bool) -> NoReturn:
    from cdi_hpc.generate.watch import watch

    def again() -> None:
        try:
            stored = store(_generate(chosen, named, Reporter(min(reporter.level, 0))), output, force=force)
        except CdiError as error:
            # What is wrong now may be right after the next event.
            for problem in error.problems:
                reporter.warn(problem)
            return
        for item in stored:
            if item.outcome != "unchanged":
                sys.stderr.write(f"cdi-hpc: {item.path}: {item.outcome}\n")
                sys.stderr.flush()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    watch(again)
    raise AssertionError("unreachable")
