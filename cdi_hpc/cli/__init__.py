"""The command line: it prints and exits, the library raises."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from cdi_hpc import __version__
from cdi_hpc.errors import CdiError, printable

#: Exit statuses. ``run`` uses FAILED for every failure of its own, so that the command's status is the command's.
PROBLEM, USAGE, FAILED = 1, 2, 125

#: Command -> module, loaded when it is needed: a launch should not pay for what it does not use.
_COMMANDS = {
    "list": "cdi_hpc.cli.list",
    "validate": "cdi_hpc.cli.validate",
    "resolve": "cdi_hpc.cli.resolve",
    "plan": "cdi_hpc.cli.plan",
    "script": "cdi_hpc.cli.script",
    "run": "cdi_hpc.cli.run",
}


class _Commands(click.Group):
    """A group whose commands are modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*_COMMANDS]  # not list(): once loaded, the module of that name is this package's "list"

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(_COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)  # noqa: S101  # a module of ours
        ctx.ensure_object(dict)["status"] = FAILED if cmd_name == "run" else PROBLEM
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cdi-hpc")
def cdi_hpc() -> None:
    """Give containers what a Container Device Interface (CDI) spec says, without root.

    DEVICE is VENDOR/CLASS=NAME, VENDOR/CLASS=all, VENDOR/CLASS (the whole kind), a comma list of these, or the
    path of a spec file.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of ``cdi-hpc``."""
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    running = next((word for word in arguments if not word.startswith("-")), "") == "run"
    try:
        status = cdi_hpc.main(arguments, prog_name="cdi-hpc", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(FAILED if running else USAGE)
    except click.Abort:
        sys.exit(130)
    except CdiError as error:
        for problem in error.problems:
            complain("error", str(problem))
        sys.exit(FAILED if running else PROBLEM)
    except BrokenPipeError:
        # The reader has gone; Python would complain again when it flushes at exit.
        sys.stderr.close()
        sys.exit(FAILED if running else PROBLEM)
    except OSError as error:
        complain("error", f"{error.filename or 'system'}: {error.strerror or error}")
        sys.exit(FAILED if running else PROBLEM)
    sys.exit(status if isinstance(status, int) else 0)


def complain(level: str, text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"cdi-hpc: {level}: {printable(text)}\n")
    sys.stderr.flush()
