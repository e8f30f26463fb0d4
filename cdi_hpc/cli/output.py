"""Tables and JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from cdi_hpc.errors import printable


def print_json(value: Any) -> None:
    """One JSON document; strings that are not valid Unicode keep their bytes as lone surrogate escapes."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str = "") -> None:
    """A table: fitted to a terminal's width, cells folded; one line for each row anywhere else.

    Cells are shown as they are: no markup, and nothing unprintable.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not cells:
        if empty:
            sys.stdout.write(f"{printable(empty)}\n")
    elif sys.stdout.isatty():
        _print_fitted(columns, cells)
    else:
        widths = [max(map(len, column)) for column in zip(columns, *cells)]
        for row in (columns, *cells):
            sys.stdout.write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")
    # What is said about the table on standard error comes after it, also where both go into one file.
    sys.stdout.flush()


def _print_fitted(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
