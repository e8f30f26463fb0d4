"""``cdi-hpc completion``, and what shells are told when somebody presses the tab key.

The scripts and the protocol are click's own, but for bash: readline takes words apart at ``=`` and ``:``, which device
names are full of, and click's script is not made for that. Nothing is ever said on standard error there: whoever
presses the tab key is in the middle of a line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

from cdi_hpc.cli import COMPLETION_VARIABLE, completion_scripts
from cdi_hpc.errors import CdiError, Problem

Completer = Callable[[click.Context, str], Iterable[CompletionItem]]


# What is completed ----------------------------------------------------------------------------------------------------


def _devices(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Devices, kinds and aliases; of a list with commas the last one, and none twice."""
    return _among_devices(incomplete, tuple(ctx.params.get("cdi_dirs") or ()))


def _among_devices(incomplete: str, cdi_dirs: tuple[str, ...]) -> Iterator[CompletionItem]:
    before, comma, last = incomplete.rpartition(",")
    if last.startswith(("/", "./", "../")):
        yield CompletionItem(incomplete, type="file")
        return
    given = set(before.split(","))
    for name in _known_devices(cdi_dirs):
        if name.startswith(last) and name not in given:
            yield CompletionItem(f"{before}{comma}{name}")


def _known_devices(cdi_dirs: tuple[str, ...]) -> Iterator[str]:
    from cdi_hpc import config
    from cdi_hpc.resolve.lookup import read_registry

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


# After a launcher's name ----------------------------------------------------------------------------------------------

#: Completes a value, given the words before it.
_Values = Callable[[Sequence[str], str], Iterable[CompletionItem]]


def _devices_of_launcher(words: Sequence[str], incomplete: str) -> Iterator[CompletionItem]:
    return _among_devices(incomplete, _directories_on(words))


def _directories_on(words: Sequence[str]) -> tuple[str, ...]:
    """Values of ``--cdi-dirs``, which are lists."""
    option = "--cdi-dirs"
    joined = [word[len(option) + 1 :] for word in words if word.startswith(f"{option}=")]
    apart = [value for before, value in zip(words, words[1:]) if before == option]
    return tuple(path for value in (*joined, *apart) for path in re.split("[:,]", value) if path)


def _modes(words: Sequence[str], incomplete: str) -> Iterator[CompletionItem]:
    del words
    yield from (CompletionItem(mode) for mode in ("handoff", "mounts") if mode.startswith(incomplete))


def _path(kind: str) -> _Values:
    return lambda _words, incomplete: [CompletionItem(incomplete, type=kind)]


@dataclass(frozen=True)
class _LauncherOption:
    """An option of ours on the command line of somebody else's program.

    Attributes:
        values: completes its value.
        apart: the value may also be the next word.

    """

    values: _Values
    apart: bool = True


_OF_LAUNCHERS: Mapping[str, _LauncherOption] = {
    "--cdi": _LauncherOption(_devices_of_launcher, apart=False),
    "--cdi-dirs": _LauncherOption(_path("dir")),
    "--device": _LauncherOption(_devices_of_launcher),
    "--lock": _LauncherOption(_path("file")),
}
_OF_SLURM: Mapping[str, _LauncherOption] = {
    "--cdi": _LauncherOption(_devices_of_launcher),
    "--cdi-image": _LauncherOption(_path("file")),
    "--cdi-mode": _LauncherOption(_modes),
}
_SLURM = ("srun", "sbatch", "salloc")


def _after_exec(args: Sequence[str]) -> Sequence[str]:
    """The launcher's name and what follows it, of the words before the one that is completed; empty without."""
    rest = [*args[1:]] if args[:1] == ["exec"] else []
    while rest and rest[0].startswith("-"):
        del rest[: 2 if rest[0] == "--runner" else 1]
    return rest


def _of_launcher(words: Sequence[str], option: str, equals: str, value: str) -> Iterable[CompletionItem]:
    """What may stand after a launcher's name: values and names of our options; its own words are its own business."""
    ours = _OF_SLURM if os.path.basename(words[0]) in _SLURM else _OF_LAUNCHERS
    before = ours.get(words[-1]) if len(words) > 1 else None
    if before is not None and before.apart:
        return before.values(words, f"{option}{equals}{value}")
    if equals and option in ours:
        return ours[option].values(words, value)
    if option.startswith("-"):
        return [CompletionItem(name) for name in ours if name.startswith(option) and not equals]
    return [CompletionItem(option, type="file")]


# How shells ask -------------------------------------------------------------------------------------------------------


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
        words = _after_exec(args)
        option, equals, value = incomplete.partition("=")
        found = (
            super().get_completions(args, incomplete) if not words else [*_of_launcher(words, option, equals, value)]
        )
        if equals and option.startswith("--"):
            for item in found:
                item.value = item.value if item.type != "plain" else f"{option}={item.value}"
        return found


class _Bash(_Quiet, BashComplete):
    source_template = completion_scripts.BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() or len(words) == 1 else words.pop()
        return words[1:], incomplete


class _Zsh(_Quiet, ZshComplete):
    source_template = ZshComplete.source_template.replace(*completion_scripts.ZSH_PATHS)


class _Fish(_Quiet, FishComplete):
    source_template = completion_scripts.FISH


_SHELLS: Mapping[str, type[_Quiet]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def install() -> None:
    """Make click answer shells in our way."""
    for name, shell in _SHELLS.items():
        add_completion_class(shell, name)


def script(shell: str, program: click.Command, launchers: Sequence[str] = ()) -> str:
    """The script that makes a shell ask, for our devices on the command lines of launchers as well.

    Raises:
        CdiError: a launcher has no name that a shell would take.

    """
    text = _SHELLS[shell](program, {}, "cdi-hpc", COMPLETION_VARIABLE).source()
    problems = [
        Problem(f"launcher {name!r}", "is no command's name", "name it as it is typed: ch-run")
        for name in launchers
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name)
    ]
    if problems:
        raise CdiError(problems)
    if not launchers:
        return text
    slurm = " ".join(name for name in launchers if name in _SLURM)
    others = " ".join(name for name in launchers if name not in _SLURM)
    return text + completion_scripts.LAUNCHERS[shell].format(slurm=slurm, others=others)


# The command ----------------------------------------------------------------------------------------------------------


@click.command("completion", short_help="Print a script with which SHELL completes commands.")
@click.argument("shell", type=click.Choice([*_SHELLS]))
@click.argument("launchers", nargs=-1, metavar="[LAUNCHER...]")
@click.pass_context
def command(ctx: click.Context, shell: Any, launchers: tuple[str, ...]) -> None:
    """Print a script with which SHELL completes commands, options, devices and files.

    \b
        eval "$(cdi-hpc completion bash)"                                      in ~/.bashrc
        eval "$(cdi-hpc completion zsh)"                                       in ~/.zshrc, after compinit
        cdi-hpc completion fish > ~/.config/fish/completions/cdi-hpc.fish      once

    With LAUNCHERs (ch-run, apptainer, srun, ...) also what belongs to devices on their command lines. Everything else
    there is completed as it was before.

    \b
        eval "$(cdi-hpc completion bash ch-run apptainer srun)"
        cdi-hpc completion fish ch-run apptainer srun > ~/.config/fish/conf.d/cdi-hpc.fish
    """  # noqa: D301 - click wants the control character
    click.echo(script(shell, ctx.find_root().command, launchers), nl=False)
