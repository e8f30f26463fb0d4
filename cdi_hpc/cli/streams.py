"""The standard streams of the command line itself: all are there, and what can't be written to them is said."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO


def open_missing() -> None:
    """Have /dev/null where our caller has closed a stream.

    Python has None there, and what is opened next would get its number. A command that we become finds it closed as
    before, for the descriptor is closed by exec.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free: its own, since those below it are taken.
            fd = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  # until the process ends


#: What an error calls it when it takes no more.
OUTPUT = "standard output"


class _Output(io.RawIOBase):
    """An error of the system's does not say what could not be written to; this one's do."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return os.write(self._fd, data)
        except OSError as error:
            error.filename = OUTPUT
            raise


def name_output() -> None:
    """Have errors of standard output say so, and print a path with the bytes that it has."""
    before = sys.stdout
    if isinstance(before, io.TextIOWrapper):
        buffered = io.BufferedWriter(_Output(before.fileno()))
        sys.stdout = io.TextIOWrapper(
            buffered, before.encoding, errors="surrogateescape", line_buffering=before.line_buffering
        )


def let_go(*written: TextIO) -> None:
    """Drop what can't be written: Python would try again when it ends, and complain itself."""
    for stream in written:
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno(), inheritable=False)
                os.close(null)
