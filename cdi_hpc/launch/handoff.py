"""A launch that somebody else makes: the devices as variables, which launchers in a step of Slurm's find.

Drop-ins, ``cdi-hpc exec`` and ``cdi-hpc run`` take the devices' names from there, and do what they always do. Launchers
that are called by themselves take what they understand: a backend says the plan in their variables. Whoever does both
undoes the second first: ``native/handoff.h``, :func:`cdi_hpc.launch.inheritance.without_handoff`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Callable

from cdi_hpc.backend import Variable
from cdi_hpc.compiled import wire
from cdi_hpc.compiled.cache_key import Launch
from cdi_hpc.container.steps import ROOT, BindHost, Step
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.launch.launcher_options import DEVICES_VARIABLE
from cdi_hpc.plan import Action, Plan, Unsupported
from cdi_hpc.resolve.lookup import Report
from cdi_hpc.spec.registry import ENVIRONMENT_VARIABLE

#: A plan has a tree; that of this one is the host's own, for whoever applies it all the same.
STEPS: tuple[Step, ...] = (BindHost("/", ROOT, recursive=True, flags=(), propagation="rprivate"),)


@dataclass
class Handoff:
    """What launchers find in their environment.

    Attributes:
        joined: lists that are put before what the user has in them.
        variables: those that the user's own win over.
        lacks: what can't be said so.

    """

    joined: list[Variable] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)
    lacks: list[Unsupported] = field(default_factory=list)


HandOver = Callable[[Iterable[Action]], Handoff]


def records(
    launch: Launch, plan: Plan, said: Handoff, environ: Mapping[str, str], report: Report
) -> Iterator[wire.Record]:
    """A plan as variables: ``env`` for what is the step's, ``default`` for what the user's own wins over.

    Lists (``..._BIND``, ``..._PATH``) are the step's and go before the user's.

    Raises:
        CdiError: something that the devices can't do without is not there.

    """
    fatal = [Problem(str(lack.origin), f"{lack.edit}: {lack.reason}") for lack in plan.unsupported() if lack.fatal]
    if fatal:
        raise CdiError(fatal)
    for lack in plan.unsupported():
        report.warn(f"{lack.origin}: {lack.edit}: {lack.reason}")
    for lack in said.lacks:
        report.note(f"{lack.origin}: {lack.edit}: {lack.reason}")
    # What an alias or a whole kind means has been decided; a launcher is told the names.
    yield wire.Env(f"{DEVICES_VARIABLE}={','.join(launch.devices)}")
    directories = ":".join(launch.cdi_dirs)
    if directories and not environ.get(ENVIRONMENT_VARIABLE):
        yield wire.Default(f"{ENVIRONMENT_VARIABLE}={directories}")
    yield from (wire.Env(f"{variable.name}={variable.value}") for variable in said.joined)
    yield from (wire.Default(f"{variable.name}={variable.value}") for variable in said.variables)
