"""A shell on a terminal of its own: what is typed there, and what stands on its line after the tab key."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence

_PATIENCE = 30

_SHOW = "printf '<%s>'"


class Terminal:
    """A program with a terminal."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], columns: int = 1000) -> None:
        self.pid, self.fd = pty.fork()
        # Rows and columns (ioctl_tty(2)): by default, no line is folded.
        size = struct.pack("4H", 50, columns, 0, 0)
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            os.execvpe(argv[0], argv, {**os.environ, **env})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, size)

    def end(self) -> None:
        """Kill it."""
        os.close(self.fd)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def read_until(self, pattern: str) -> str:
        """What is shown until a pattern is there."""
        shown, end = "", time.monotonic() + _PATIENCE
        while not re.search(pattern, shown):
            assert time.monotonic() < end, f"no {pattern!r} in {shown!r}"
            if select.select([self.fd], [], [], 1)[0]:
                shown += os.read(self.fd, 1 << 16).decode(errors="replace")
        return shown


def completed(argv: Sequence[str], setup: str, typed: str, env: Mapping[str, str]) -> list[str]:
    """The words on a shell's line after something was typed and the tab key was pressed.

    Nothing says when a shell has done with the key. It does with what is typed next: the beginning of the line is
    gone to, and a command is put there that shows the words.
    """
    shell = Terminal(argv, {"TERM": "dumb", **env})
    try:
        shell.type(f"{setup}\necho RE''ADY\n")
        shell.read_until("READY")
        shell.type(f"{typed}\t\x01{_SHOW} \x05; echo DO''NE\n")
        words = re.findall(r"<([^<>\r\n]*)>", shell.read_until("DONE"))
    finally:
        shell.end()
    # The line itself is shown, too, with the format in it.
    return [word for word in words if word != "%s"]
