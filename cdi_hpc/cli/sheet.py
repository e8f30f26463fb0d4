"""A table with notes, for a terminal, a file or Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from cdi_hpc.cli.output import console, is_fitted
from cdi_hpc.errors import printable


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        style: as rich has it, on a terminal only.
        note: more about it; cells with the same one refer to it by the same number.

    """

    text: str
    style: str = ""
    note: str = ""


@dataclass
class Sheet:
    """A table, the notes of its cells, and what is said below.

    Attributes:
        empty: is shown in the place of a table without rows.
        below: pairs of a heading and a text.

    """

    columns: Sequence[str]
    empty: str = ""
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    below: list[tuple[str, str]] = field(default_factory=list)
    _notes: dict[str, int] = field(default_factory=dict)

    def add(self, *cells: Cell | str) -> None:
        """Add a row."""
        row = tuple(Cell(cell) if isinstance(cell, str) else cell for cell in cells)
        for cell in row:
            if cell.note:
                self._notes.setdefault(cell.note, len(self._notes) + 1)
        self.rows.append(row)

    def show(self, stream: TextIO, *, markdown: bool = False) -> None:
        """Write it; fitted to a terminal's width where the stream is one."""
        if markdown:
            stream.write("".join(f"{line}\n" for line in self._markdown()))
        elif is_fitted(stream):
            self._show_fitted(stream)
        else:
            stream.write("".join(f"{line}\n" for line in self._plain()))
        stream.flush()

    def _texts(self) -> list[list[str]]:
        return [[printable(self._marked(cell)) for cell in row] for row in self.rows]

    def _marked(self, cell: Cell) -> str:
        return f"{cell.text} ({self._notes[cell.note]})" if cell.note else cell.text

    def _said(self) -> Iterator[str]:
        for heading, text in self.below:
            yield printable(f"{heading}: {text}" if heading else text)

    # For a file -----------------------------------------------------------------------------------------------------

    def _plain(self) -> Iterator[str]:
        texts = self._texts()
        if not texts:
            yield self.empty
        else:
            widths = [max(map(len, column)) for column in zip(self.columns, *texts)]
            for row in (self.columns, *texts):
                yield "  ".join(map(str.ljust, row, widths)).rstrip()
        yield from self._plain_notes()

    def _plain_notes(self) -> Iterator[str]:
        if self._notes:
            yield ""
            yield from (printable(f"({number}) {note}") for note, number in self._notes.items())
        if self.below:
            yield ""
            yield from self._said()

    # For Markdown ---------------------------------------------------------------------------------------------------

    def _markdown(self) -> Iterator[str]:
        if not self.rows:
            yield _escaped(self.empty)
        else:
            yield f"| {' | '.join(self.columns)} |"
            yield f"|{'---|' * len(self.columns)}"
            for row in self._texts():
                yield f"| {' | '.join(map(_escaped, row))} |"
        if self._notes:
            yield ""
            yield from (f"- ({number}) {_escaped(printable(note))}" for note, number in self._notes.items())
        if self.below:
            yield ""
            yield from (f"- {_escaped(text)}" for text in self._said())

    # For a terminal -------------------------------------------------------------------------------------------------

    def _show_fitted(self, stream: TextIO) -> None:
        from rich.table import Table
        from rich.text import Text

        shown = console(stream)
        if not self.rows:
            shown.print(Text(self.empty))
        else:
            table = Table(box=None, pad_edge=False, header_style="bold")
            for column in self.columns:
                table.add_column(column, overflow="fold")
            for cells, texts in zip(self.rows, self._texts()):
                table.add_row(*(Text(text, style=cell.style) for cell, text in zip(cells, texts)))
            shown.print(table)
        for line in self._plain_notes():
            shown.print(Text(line))


#: What Markdown (CommonMark, and GitHub's tables) would take for its own.
_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_{}[]<>#|~"})


def _escaped(text: str) -> str:
    return text.translate(_MARKS)
