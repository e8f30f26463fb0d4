"""``cdi-hpc completion``, and what shells are told when somebody presses the tab key.

The scripts and the protocol are click's own, but for bash: readline takes words apart at ``=`` and ``:``, which device
names are full of, and click's script is not made for that. Nothing is ever said on standard error there: whoever
presses the tab key is in the middle of a line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from cdi_hpc.cli import COMPLETION_VARIABLE
from cdi_hpc.errors import CdiError

Completer = Callable[[click.Context, str], Iterable[CompletionItem]]


# What is completed ----------------------------------------------------------------------------------------------------


def _devices(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Devices, kinds and aliases; of a list with commas the last one, and none twice."""
    before, comma, last = incomplete.rpartition(",")
    if last.startswith(("/", "./", "../")):
        yield CompletionItem(incomplete, type="file")
        return
    given = set(before.split(","))
    for name in _known_devices(tuple(ctx.params.get("cdi_dirs") or ())):
        if name.startswith(last) and name not in given:
            yield CompletionItem(f"{before}{comma}{name}")


def _known_devices(cdi_dirs: tuple[str, ...]) -> Iterator[str]:
    from cdi_hpc import config
    from cdi_hpc.lookup import read_registry

    configuration = config.load(os.environ, os.geteuid()).configuration
    registry = read_registry(cdi_dirs, os.environ, configuration=configuration)
    yield from configuration.aliases
    for kind in registry.kinds():
        yield kind
        yield f"{kind}=all"
    yield from (name for name in registry.devices if not name.endswith("=all"))


def _recipes(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    from cdi_hpc.generate.recipe import SITE_DIRECTORY, load_recipes

    for name, recipe in load_recipes(ctx.params.get("recipe_dir") or SITE_DIRECTORY).items():
        if name.startswith(incomplete):
            yield CompletionItem(name, help=recipe.summary)


def _launchers(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Programs that there are backends for; where launchers are explained, ours as well."""
    from cdi_hpc import backends

    names = backends.commands()
    explained = ctx.command.name in _EXPLAINING
    if explained:
        names = ("all", *dict.fromkeys((*OWN_LAUNCHERS, *backends.backend_names(), *names)))
    before, comma, last = incomplete.rpartition(",")
    for name in names:
        if name.startswith(last) and (comma == "" or explained):
            yield CompletionItem(f"{before}{comma}{name}")


def _files(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    del ctx
    yield CompletionItem(incomplete, type="file")


def _directories(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    del ctx
    yield CompletionItem(incomplete, type="dir")


#: What :data:`cdi_hpc.explain.own.NAMES` has, without the time that its import takes.
OWN_LAUNCHERS = ("embedded", "bash", "slurm")

#: Commands that tell of our own launchers, too.
_EXPLAINING = ("explain", "plan", "compile")

#: By a word of the parameter's metavar, or its name where it has none.
COMPLETERS: Mapping[str, Completer] = {
    "DEVICE": _devices,
    "RECIPE": _recipes,
    "LAUNCHER": _launchers,
    "IMAGE": _files,
    "FILE": _files,
    "OLD": _files,
    "SRC": _files,
    "COMMAND": _files,
    "WORD": _files,
    "DIR": _directories,
}


if TYPE_CHECKING:
    _AnyType = click.ParamType[Any]
else:
    _AnyType = click.ParamType  # has no parameters in releases before 8.4


class _Completed(_AnyType):
    """A parameter's type with a completer."""

    def __init__(self, wrapped: _AnyType, completer: Completer) -> None:
        self.name = wrapped.name
        self._completer = completer

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del param
        try:
            return [*self._completer(ctx, incomplete)]
        except (CdiError, OSError):
            return []


def attach(command: click.Command) -> None:
    """Give the parameters of a command, or of all commands of a group, their completers."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            attach(below)
    for parameter in command.params:
        completer = completer_of(parameter)
        if completer is not None and not isinstance(parameter.type, click.Choice):
            parameter.type = _Completed(parameter.type, completer)


def completer_of(parameter: click.Parameter) -> Completer | None:
    """What completes a parameter, None if nothing does."""
    words = re.findall(r"[A-Z]+", parameter.metavar or (parameter.name or "").upper())
    return next((COMPLETERS[word] for word in words if word in COMPLETERS), None)


# How shells ask -------------------------------------------------------------------------------------------------------

_BASH = """\
%(complete_func)s() {
    # Readline takes words apart; what it replaces is the part behind the last of its marks.
    local line=${COMP_LINE:0:COMP_POINT} word behind type value
    word=${line##*[[:space:]]}
    behind=${word##*["$COMP_WORDBREAKS"]}
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"${word%%"$behind"}"}") ;;
        esac
    done < <(COMP_LINE=$line %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""


#: click's own takes values apart at commas.
_FISH = """\
function %(complete_func)s
    set --local --export COMP_WORDS (commandline --current-process --cut-at-cursor)
    set --local --export COMP_CWORD (commandline --current-token --cut-at-cursor)
    for completion in (env %(complete_var)s=fish_complete %(prog_name)s 2>/dev/null)
        set --local parts (string split --max 1 , -- $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Quiet(ShellComplete):
    """What is the same for every shell."""

    def source(self) -> str:
        # Not the overridden one of bash, which runs a bash to see whether it is a new one.
        return ShellComplete.source(self)

    def complete(self) -> str:
        try:
            return super().complete()
        except Exception:  # noqa: BLE001  # there is nobody to tell
            return ""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Values of ``--option=VALUE`` with the option, since shells replace the word."""
        found = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if equals and option.startswith("--"):
            for item in found:
                item.value = item.value if item.type != "plain" else f"{option}={item.value}"
        return found


class _Bash(_Quiet, BashComplete):
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() or len(words) == 1 else words.pop()
        return words[1:], incomplete


class _Zsh(_Quiet, ZshComplete):
    pass


class _Fish(_Quiet, FishComplete):
    source_template = _FISH


_SHELLS: Mapping[str, type[_Quiet]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def install() -> None:
    """Make click answer shells in our way."""
    for name, shell in _SHELLS.items():
        add_completion_class(shell, name)


def script(shell: str, program: click.Command) -> str:
    """The script that makes a shell ask."""
    return _SHELLS[shell](program, {}, "cdi-hpc", COMPLETION_VARIABLE).source()


# The command ----------------------------------------------------------------------------------------------------------


@click.command("completion")
@click.argument("shell", type=click.Choice([*_SHELLS]))
@click.pass_context
def command(ctx: click.Context, shell: Any) -> None:
    """Print a script with which SHELL completes commands, options, devices and files.

    \b
        eval "$(cdi-hpc completion bash)"                                      in ~/.bashrc
        eval "$(cdi-hpc completion zsh)"                                       in ~/.zshrc, after compinit
        cdi-hpc completion fish > ~/.config/fish/completions/cdi-hpc.fish      once
    """  # noqa: D301 - click wants the control character
    click.echo(script(shell, ctx.find_root().command), nl=False)
