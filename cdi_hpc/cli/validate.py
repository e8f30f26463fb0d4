"""``cdi-hpc validate``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import click

from cdi_hpc.cli import PROBLEM, complain
from cdi_hpc.cli.options import Reporter, output_format, strict, verbosity
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec.registry import SpecDirectory, load_spec, spec_files, unread_files
from cdi_hpc.spec.validate import Checked


@click.command("validate")
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIR...")
@strict
@output_format
@verbosity
def command(paths: tuple[str, ...], strict: bool, output_format: str, verbose: int, quiet: int) -> int:
    """Check spec files, or all spec files of a directory.

    They are held against the schema of CDI and against the rules that a schema can't say. All problems of all files
    are shown, each with line, column and field. Exits with 1 if a file has errors.
    """
    reporter = Reporter(verbose + quiet)
    results = [*_check(paths, is_strict=strict)]
    for path in paths:
        if not any(result.path == path or result.path.startswith(f"{path.rstrip('/')}/") for result in results):
            reporter.warn(f"{path}: no spec files there")
        for unread in _unread(path):
            reporter.warn(unread)
    if output_format == "json":
        print_json(
            [
                {
                    "path": result.path,
                    "valid": not result.errors,
                    "errors": [str(problem) for problem in result.errors],
                    "warnings": [str(problem) for problem in result.warnings],
                }
                for result in results
            ]
        )
    else:
        rows = [
            ("invalid" if result.errors else "valid", result.path, result.spec.kind if result.spec else "")
            for result in results
        ]
        print_table(("RESULT", "SPEC", "KIND"), rows)
        for result in results:
            for problem in result.errors:
                complain("error", str(problem))
            for problem in result.warnings:
                reporter.warn(problem)
    return PROBLEM if any(result.errors for result in results) else 0


def _check(paths: Sequence[str], *, is_strict: bool) -> Iterator[Checked]:
    for path in paths:
        for file in _files(path):
            if isinstance(file, Checked):
                yield file
            else:
                yield load_spec(file, strict=is_strict, schema=True)


def _unread(path: str) -> list[Problem]:
    """What a directory has besides; that it can't be read has been said."""
    try:
        return unread_files(SpecDirectory(path, named=True)) if os.path.isdir(path) else []
    except CdiError:
        return []


def _files(path: str) -> list[str | Checked]:
    if not os.path.isdir(path):
        return [path]
    try:
        return list(spec_files(SpecDirectory(path, named=True)))
    except CdiError as error:
        return [Checked(path, None, errors=error.problems)]
