"""The ``cdi-hpc`` command: a group whose commands are modules."""

from __future__ import annotations

import importlib

import click
from click.shell_completion import CompletionItem

from cdi_hpc import __version__

#: Command -> module, loaded when it is needed: a launch should not pay for what it does not use.
_COMMANDS = {
    "list": "cdi_hpc.cli.list",
    "validate": "cdi_hpc.cli.validate",
    "resolve": "cdi_hpc.cli.resolve",
    "plan": "cdi_hpc.cli.plan",
    "explain": "cdi_hpc.cli.explain",
    "script": "cdi_hpc.cli.script",
    "run": "cdi_hpc.cli.run_command",
    "exec": "cdi_hpc.cli.exec_command",
    "shims": "cdi_hpc.cli.shims",
    "compile": "cdi_hpc.cli.compile",
    "cache": "cdi_hpc.cli.cache",
    "config": "cdi_hpc.cli.config",
    "doctor": "cdi_hpc.cli.doctor",
    "generate": "cdi_hpc.cli.generate",
    "lock": "cdi_hpc.cli.lock",
    "completion": "cdi_hpc.cli.completion",
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
        if ctx.resilient_parsing:  # a shell asks
            from cdi_hpc.cli import completion

            completion.attach(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands and options; none of the commands is loaded for that."""
        names = [CompletionItem(name) for name in _COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cdi-hpc")
def cdi_hpc() -> None:
    """Give containers what a Container Device Interface (CDI) spec says, without root.

    DEVICE is VENDOR/CLASS=NAME, VENDOR/CLASS=all, VENDOR/CLASS (the whole kind), a comma list of these, or the
    path of a spec file.
    """
