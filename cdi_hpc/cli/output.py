"""Tables and JSON on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from cdi_hpc.errors import printable

if TYPE_CHECKING:
    from rich.console import Console


def print_json(value: Any) -> None:
    """One JSON document; strings that are not valid Unicode keep their bytes as lone surrogate escapes."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def is_fitted(stream: TextIO) -> bool:
    """Whether a table is to be fitted, and coloured: for a terminal, or where FORCE_COLOR is set (force-color.org)."""
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))


def console(stream: TextIO) -> Console:
    """Rich's view of a stream that :func:`is_fitted`. It heeds NO_COLOR (no-color.org), TERM and COLUMNS."""
    from rich.console import Console

    width = None if os.environ.get("COLUMNS") else _width(stream)
    # It takes every dumb terminal for one of 80 columns, unless it is told both.
    return Console(file=stream, highlight=False, width=width, height=None if width is None else _ANY_HEIGHT)


_ANY_HEIGHT = 25

#: Behind FORCE_COLOR is a log, which has no width.
_LOG_WIDTH = 200


def _width(stream: TextIO) -> int | None:
    """Columns; None where a terminal does not know."""
    if not stream.isatty():
        return _LOG_WIDTH
    return os.get_terminal_size(stream.fileno()).columns or None


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str = "") -> None:
    """A table: fitted to a terminal's width, cells folded; one line for each row anywhere else.

    Cells are shown as they are: no markup, and nothing unprintable.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not cells:
        if empty:
            sys.stdout.write(f"{printable(empty)}\n")
    elif is_fitted(sys.stdout):
        _print_fitted(columns, cells)
    else:
        widths = [max(map(len, column)) for column in zip(columns, *cells)]
        for row in (columns, *cells):
            sys.stdout.write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")
    # What is said about the table on standard error comes after it, also where both go into one file.
    sys.stdout.flush()


def _print_fitted(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console(sys.stdout).print(table)
