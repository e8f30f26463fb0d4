"""A check, a finding, and how checks are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Callable, Literal

from cdi_hpc import planning
from cdi_hpc.config import Configuration
from cdi_hpc.errors import CdiError

#: ``ok``: as it should be. ``note``: worth knowing. ``warning``: something will not work, or not well, for somebody.
#: ``problem``: what was asked about does not work.
Status = Literal["ok", "note", "warning", "problem"]

#: The mildest first.
STATUSES: tuple[Status, ...] = ("ok", "note", "warning", "problem")


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        status: how bad it is.
        what: one line.
        fix: what to do, in one line; empty if there is nothing to do.

    """

    status: Status
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Question:
    """What the doctor was asked.

    Attributes:
        devices: of a request; none: every device there is.
        image: of a launch, or None.
        cdi_dirs: spec directories that were named.
        environ: the environment.
        runner: path of the native runner, "" if there is none.

    """

    devices: tuple[str, ...] = ()
    image: str | None = None
    cdi_dirs: tuple[str, ...] = ()
    environ: Mapping[str, str] | None = None
    runner: str = ""

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment, empty if there is none."""
        return self.environ or {}


def configured(question: Question, *, everybody: bool = False) -> Configuration | None:
    """What holds for launches; None if it is wrong: the check ``configuration`` says so, and no other has to."""
    try:
        return planning.load_configuration(question.variables, everybody=everybody)
    except CdiError:
        return None


@dataclass(frozen=True)
class Check:
    """A thing that is looked at.

    Attributes:
        name: for programs; it does not change between releases.
        area: what it is about, for people.
        look: yields findings; none means that there is nothing to say.
        wants: what the question has to have for it.

    """

    name: str
    area: str
    look: Callable[[Question], Iterator[Finding]]
    wants: Literal["nothing", "image", "slurm"] = "nothing"


@dataclass(frozen=True)
class Result:
    """A finding and the check that it is of."""

    check: Check
    finding: Finding


def examine(checks: tuple[Check, ...], question: Question, *, slurm: bool = False) -> Iterator[Result]:
    """Make the checks that a question is about, one after the other."""
    for check in checks:
        if (check.wants == "image" and question.image is None) or (check.wants == "slurm" and not slurm):
            continue
        try:
            for finding in check.look(question):
                yield Result(check, finding)
        except CdiError as error:
            for problem in error.problems:
                where = f"{problem.where}: " if problem.where else ""
                yield Result(check, Finding("problem", f"{where}{problem.what}", problem.fix))
        except OSError as error:
            what = f"{error.filename or 'system'}: {error.strerror or error}"
            yield Result(check, Finding("warning", f"could not be looked at: {what}"))
