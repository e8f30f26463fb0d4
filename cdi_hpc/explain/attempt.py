"""Saying a plan in a launcher's way as often as it takes to know which edits stop it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.plan import Plan, Unsupported
from cdi_hpc.spec.model import Origin

T = TypeVar("T")


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """What came of it.

    Attributes:
        result: None if a launch would stop whatever is left out.
        failed: edits that were left out because they stop it, and why.
        stops: why nothing helped.

    """

    result: T | None
    failed: dict[Origin, str] = field(default_factory=dict)
    stops: tuple[str, ...] = ()


def attempt(plan: Plan, say: Callable[[Plan], T]) -> Attempt[T]:
    """Say a plan without what is known to stop it; where that stops, too, without the edits that are blamed."""
    failed: dict[Origin, str] = {}
    actions = tuple(action for action in plan.actions if not (isinstance(action, Unsupported) and action.fatal))
    while True:
        try:
            return Attempt(say(replace(plan, actions=actions)), failed)
        except CdiError as error:
            blamed = dict(_blamed(error, {action.origin for action in actions}))
            if not blamed:
                return Attempt(None, failed, tuple(map(str, error.problems)))
        except OSError as error:
            return Attempt(None, failed, (f"{error.filename}: {error.strerror}",))
        failed.update(blamed)
        actions = tuple(action for action in actions if action.origin not in failed)


def _blamed(error: CdiError, origins: Iterable[Origin]) -> Iterator[tuple[Origin, str]]:
    """The edits that an error is about: its problems begin with where an edit was written."""
    by_text = {str(origin): origin for origin in origins}
    for problem in error.problems:
        for text, origin in by_text.items():
            if problem.where == text or problem.where.startswith(f"{text}: "):
                yield origin, str(Problem(problem.where[len(text) + 2 :], problem.what, problem.fix))
