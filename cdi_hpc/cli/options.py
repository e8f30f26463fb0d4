"""Options and arguments that several commands share, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import click

from cdi_hpc.cli import complain
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.variables import PREFLIGHT_VARIABLE

if TYPE_CHECKING:
    from cdi_hpc.launch.telling import Telling

F = TypeVar("F", bound=Callable[..., Any])

cdi_dir = click.option(
    "--cdi-dir",
    "cdi_dirs",
    multiple=True,
    metavar="DIR",
    help="Look for specs in DIR instead of /etc/cdi and /var/run/cdi (repeatable; the last one wins). "
    "CDI_HPC_DIRS=DIR:DIR does the same.",
)
strict = click.option(
    "--strict", is_flag=True, help="Refuse what the CDI reference library refuses: unknown fields, newer versions."
)
output_format = click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people or JSON for programs.",
)
unknown_hooks = click.option(
    "--unknown-hooks",
    type=click.Choice(["warn", "fail"]),
    default="warn",
    show_default=True,
    help="What to do about a hook whose effect is not known.",
)


class _OfVariable(click.Option):
    """An option that a configuration's variable gives, too: what is wrong with it is said as of every variable."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """As Click does, but CdiError for a word that is none, with the other variables that are wrong."""
        value = super().resolve_envvar_value(ctx)
        if (
            value is not None
            and not ctx.resilient_parsing
            and isinstance(self.type, click.Choice)
            and value not in self.type.choices
        ):
            from cdi_hpc.config.settings import of_environment

            of_environment(os.environ)
        return value


preflight = click.option(
    "--preflight",
    cls=_OfVariable,
    type=click.Choice(["auto", "fail", "warn", "off"]),
    default="auto",
    show_default=True,
    envvar=PREFLIGHT_VARIABLE,
    help="What to do about libraries that can't work in the image: refuse the launch, or say it, or don't look; "
    "'auto' is what the configuration says, or else to refuse. "
    f"{PREFLIGHT_VARIABLE} does the same.",
)

visible_devices = click.option(
    "--visible-devices",
    "visible",
    multiple=True,
    metavar="[KIND=]LIST",
    help="Of VENDOR/CLASS=all, only those in LIST: indices among what can be opened, or UUIDs, as in "
    "CUDA_VISIBLE_DEVICES. Such a launch is not compiled.",
)


def verbosity(function: F) -> F:
    """Add ``-v`` and ``-q``; the command gets ``verbose`` and ``quiet``, whose sum is a :class:`Reporter`'s level."""

    def remember(ctx: click.Context, parameter: click.Parameter, count: int) -> int:
        del ctx
        return count if parameter.name == "verbose" else -count

    verbose = click.option(
        "-v",
        "--verbose",
        "verbose",
        count=True,
        callback=remember,
        help="Say more: notes, what was skipped, and each step of a launch.",
    )
    quiet = click.option("-q", "--quiet", "quiet", count=True, callback=remember, help="Say only what is wrong.")
    return verbose(quiet(function))


def refuse_for(launcher: str, options: Mapping[str, bool]) -> None:
    """Refuse options that the command line of a launcher has no words for.

    Args:
        launcher: whose name was given with ``--for``.
        options: which of them were given.

    """
    fix = "leave it out; the site's configuration can say it"
    problems = [Problem(option, f"is not for --for {launcher}", fix) for option, given in options.items() if given]
    if problems:
        raise CdiError(problems)


@dataclass(frozen=True)
class Reporter:
    """Lines on standard error, as many as were asked for: below 0 errors only, 0 warnings, above 0 everything."""

    level: int

    def warn(self, text: object) -> None:
        """Something that the reader should know."""
        if self.level >= 0:
            complain("warning", str(text))

    def note(self, text: object) -> None:
        """Something for the curious."""
        if self.level >= 1:
            complain("note", str(text))

    def telling(self) -> Telling | None:
        """Who tells of each step of a launch, None where that is too much."""
        if self.level < 1:
            return None
        from cdi_hpc.launch.telling import Telling

        return Telling(self.note, partial(complain, "step"))
