"""The command line: it prints and exits, the library raises."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from cdi_hpc.cli import streams
from cdi_hpc.errors import CdiError, in_short, printable

#: Exit statuses. ``run`` uses FAILED for every failure of its own, so that the command's status is the command's.
PROBLEM, USAGE, FAILED = 1, 2, 125

#: As a shell has it for who was ended by SIGINT.
_INTERRUPTED = 130

#: Commands that become something else.
_LAUNCHING = ("run", "exec")

#: Is set by the script of ``cdi-hpc completion`` when it asks.
COMPLETION_VARIABLE = "_CDI_HPC_COMPLETE"

#: The native runner, and the variable in which it tells us its path when it executes us.
RUNNER = "cdi-hpc-run"
RUNNER_VARIABLE = "CDI_HPC_NATIVE"

#: The variable in which we tell it ours; it is not passed on to the command.
FRONT_VARIABLE = "CDI_HPC_PYTHON_FRONT"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of ``cdi-hpc``."""
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    hand_over(arguments)
    streams.open_missing()
    streams.name_output()
    written = (sys.stdout, sys.stderr)
    running = next((word for word in arguments if not word.startswith("-")), "") in _LAUNCHING
    failed = FAILED if running else PROBLEM
    try:
        status = _status(arguments, failed, FAILED if running else USAGE)
        sys.stdout.flush()
    except SystemExit as ended:  # click's own, which has wrapped both, where the reader has seen enough
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else failed
    except BrokenPipeError:
        status = failed
    except OSError as error:
        complain("error", _said(error))
        status = failed
    streams.let_go(*written)
    sys.exit(status)


def _status(arguments: Sequence[str], failed: int, misused: int) -> int:
    """Do it; returns the exit status."""
    import click

    from cdi_hpc.cli.commands import cdi_hpc

    if COMPLETION_VARIABLE in os.environ:
        from cdi_hpc.cli import completion

        completion.install()
    try:
        status = cdi_hpc.main(arguments, prog_name="cdi-hpc", standalone_mode=False)
    except click.UsageError as error:
        with contextlib.suppress(OSError):
            error.show()
        return misused
    except click.Abort:
        return _INTERRUPTED
    except CdiError as error:
        for line in in_short(error.problems):
            complain("error", line)
        return failed
    return status if isinstance(status, int) else 0


def _said(error: OSError) -> str:
    """What the system refused, by the name of what it was about as far as anybody knows."""
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror or error}"
    try:
        os.getcwd()
    except OSError as gone:
        return f"working directory: {gone.strerror} (it has been removed, perhaps: go to another one)"
    return f"system: {error.strerror or error}"


def hand_over(arguments: Sequence[str]) -> None:
    """Become the native program for ``cdi-hpc run`` and ``exec``, before anything is imported that it does not need.

    Returns where it is not installed, where it is the one that executed us, and where ``--runner`` may be among the
    options: ``run`` itself looks closer.
    """
    if arguments[:1] == ["exec"] and len(arguments) > 1 and arguments[1] and not arguments[1].startswith("-"):
        _hand_over_exec(arguments[1], arguments[2:])
    if arguments[:1] != ["run"] or RUNNER_VARIABLE in os.environ:
        return
    runner = find_runner(os.environ)
    if runner is None or any(word.startswith(("--runner", "--compile-and-run")) for word in arguments):
        return
    become(runner, arguments[1:])


def _hand_over_exec(name: str, words: Sequence[str]) -> None:
    runner = None if RUNNER_VARIABLE in os.environ else find_runner(os.environ)
    if runner is not None:
        become(runner, words, name=name)


def become(
    runner: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None, *, name: str = RUNNER
) -> NoReturn:
    """Become the native runner, and let it know where to find us again. By a launcher's name it is its shim."""
    from cdi_hpc.launch import inheritance

    ourselves = os.path.realpath(sys.argv[0])
    front = {FRONT_VARIABLE: ourselves} if os.access(ourselves, os.X_OK) else {}
    inheritance.restore_signals()
    os.execve(runner, [name, *arguments], {**front, **inheritance.caller_environment(), **dict(variables or {})})


def find_runner(environ: Mapping[str, str]) -> str | None:
    """Path of the native runner: the one that executed us, the one beside our command, a checkout's, or None."""
    beside = os.path.dirname(os.path.realpath(sys.argv[0]))
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    candidates = [environ.get(RUNNER_VARIABLE, ""), f"{beside}/{RUNNER}", f"{checkout}/native/build/{RUNNER}"]
    return next((path for path in candidates if path and os.access(path, os.X_OK)), shutil.which(RUNNER))


def complain(level: str, text: str) -> None:
    """One line on standard error."""
    with contextlib.suppress(OSError):  # there is nobody else to tell
        sys.stderr.write(f"cdi-hpc: {level}: {printable(text)}\n")
        sys.stderr.flush()
