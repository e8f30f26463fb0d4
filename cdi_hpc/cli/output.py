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
    """A table with one line for each row on a wide terminal; cells fold on a narrow one.

    Cells are shown as they are: no markup, and nothing unprintable.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # A pipe has no width: a program that reads lines should get a row in a line.
    console = Console(width=None if sys.stdout.isatty() else 1000, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not sys.stdout.isatty())
    count = 0
    for row in rows:
        count += 1
        table.add_row(*(Text(printable(cell)) for cell in row))
    if count:
        console.print(table)
    elif empty:
        console.print(Text(empty))
