"""What takes more than a moment, said on a terminal while it does.

A process of its own shows it: what is done here forks, makes namespaces and becomes other programs, all of which want
a process with one thread. It begins to look for rich when the moment is over, so nobody waits for that; and it ends,
with nothing left on the terminal, when this process closes a pipe, or is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import NoReturn, Protocol

from cdi_hpc.errors import printable

#: Seconds after which something is shown.
DELAY = 0.7


class Say(Protocol):
    """Takes what is being done now, and how much of it has been done."""

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        """Show it; ``total`` 0: nobody knows how much there is."""


def _shows() -> bool:
    """Whether there is somebody to look; a caller may have closed the stream, and Python has None for it then."""
    return bool(sys.stderr and sys.stderr.isatty())


@contextlib.contextmanager
def progress(what: str, *, wanted: bool = True) -> Iterator[Say]:
    """Show progress until the block ends: on standard error, if that is a terminal which can take a line back.

    Args:
        what: is being done.
        wanted: False where the output is for a program, or little is to be said.

    """
    if not wanted or not _shows() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        yield _say_nothing
        return
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(writing)
        _attend(reading, what)
    os.close(reading)

    def say(what: str, done: int = 0, total: int = 0) -> None:
        # A short line is written whole or not at all (pipe(7)); nobody waits for a terminal.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(writing, f"{done} {total} {printable(what)[:200]}\n".encode())

    os.set_blocking(writing, False)
    try:
        yield say
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def _say_nothing(what: str, done: int = 0, total: int = 0) -> None:
    del what, done, total


def _attend(reading: int, what: str) -> NoReturn:
    """The other process. Whatever happens to it, the work goes on."""
    try:
        # The terminal's ^C is for the work; the end of that is ours.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        lines = _Lines(reading, what)
        if lines.wait(DELAY):
            _show(lines)
    finally:
        os._exit(0)


class _Lines:
    """What the pipe has brought."""

    def __init__(self, reading: int, what: str) -> None:
        self.reading = reading
        self.what, self.done, self.total = printable(what), 0, 0
        self._rest = b""

    def wait(self, seconds: float) -> bool:
        """Read until the time is over; False at the end of the pipe."""
        end = time.monotonic() + seconds
        while select.select([self.reading], [], [], max(0.0, end - time.monotonic()))[0]:
            data = os.read(self.reading, 1 << 16)
            if not data:
                return False
            *whole, self._rest = (self._rest + data).split(b"\n")
            if whole:
                done, total, self.what = whole[-1].decode().split(" ", 2)
                self.done, self.total = int(done), int(total)
        return True


#: Seconds between two looks at the pipe, once something is shown.
_PACE = 0.1


def _show(lines: _Lines) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (SpinnerColumn(), text, BarColumn(bar_width=20), TimeElapsedColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as shown:
        task = shown.add_task(lines.what, total=None)
        while True:
            shown.update(task, description=lines.what, completed=lines.done, total=lines.total or None)
            if not lines.wait(_PACE):
                return
