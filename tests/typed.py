"""Command lines as if they had been typed, each in a process of its own: some commands become another program."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import Callable

from cdi_hpc.cli import main

#: Seconds for one command line.
_PATIENCE = 60

#: Exit statuses that are said somewhere to be those of a command.
STATUSES = {0, 1, 2, 125, 126, 127}


def typed(words: Sequence[str], directory: str, prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """Exit status, and what is said on standard error.

    Args:
        words: after the program's name.
        directory: HOME, and the working directory.
        prepare: called in the process, before.

    """
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            _become(words, directory, said.fileno(), prepare)
        _, state = os.waitpid(child, 0)
        said.seek(0)
        return os.waitstatus_to_exitcode(state), said.read().decode(errors="replace")


def _become(words: Sequence[str], directory: str, stderr: int, prepare: Callable[[], None]) -> None:
    status = 70
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd, source in ((0, null), (1, null), (2, stderr)):
            os.dup2(source, fd)
        sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115  # until the process ends
        sys.stderr = open(2, "w", errors="backslashreplace")  # noqa: SIM115  # as Python itself has it
        sys.argv = ["cdi-hpc", *words]
        os.environ.update(PATH="/nonexistent", XDG_RUNTIME_DIR=directory, HOME=directory, TMPDIR=directory)
        os.chdir(directory)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_PATIENCE)
        prepare()
        main(words)
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else 1 if done.code else 0
    except BaseException:  # noqa: BLE001  # that is what is looked for
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)
