"""What becomes of each edit on one launcher: from the actions of a plan and what was found of their doing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from cdi_hpc.explain.rows import Edit
from cdi_hpc.plan import Action, Note, Unsupported
from cdi_hpc.spec.model import Origin

Verdict = Literal["done", "replaced", "emulated", "impossible", "refused"]

#: From best to worst; what is done in parts has the worst of them.
#:
#: ``done``: as the spec has it, or there is nothing left to do. ``replaced``: another edit of the request takes its
#: place. ``emulated``: to the same effect by other means. ``impossible``: not, or not in full. ``refused``: by a rule.
VERDICTS: tuple[Verdict, ...] = ("done", "replaced", "emulated", "impossible", "refused")


@dataclass(frozen=True)
class Fate:
    """What becomes of an edit, and how or why."""

    verdict: Verdict
    how: str


@dataclass(frozen=True)
class View:
    """One launcher's part of an explanation.

    Attributes:
        launcher: its name.
        title: which program that is.
        installed: it is here, and what is said is what it would do; else it is what its backend says in general.
        fates: of every edit, by its origin.
        stops: why a launch would stop; the fates are what they would be without these reasons.
        messages: what a launch would tell.

    """

    launcher: str
    title: str
    installed: bool
    fates: Mapping[Origin, Fate]
    stops: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


class Ways(Protocol):
    """How a launcher does what it does."""

    def of(self, action: Action) -> Fate | None:
        """What becomes of an action; None if nothing does it."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What is known when a plan was said in a launcher's way.

    Attributes:
        ways: None if a launch would stop whatever is left out.
        lacks: what the launcher can't do although the plan can.
        failed: edits that can't be put in their place, and why.
        refused: edits that a rule forbids, and which.
        stops: why a launch would stop, besides those.
        messages: what a launch would tell.

    """

    actions: Sequence[Action]
    ways: Ways | None
    lacks: Sequence[Unsupported] = ()
    failed: Mapping[Origin, str] = field(default_factory=dict)
    refused: Mapping[Origin, str] = field(default_factory=dict)
    stops: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


def fates(edits: Iterable[Edit], outcome: Outcome) -> dict[Origin, Fate]:
    """What becomes of every edit."""
    by_origin: dict[Origin, list[Action]] = {}
    for action in (*outcome.actions, *outcome.lacks):
        by_origin.setdefault(action.origin, []).append(action)
    return {edit.origin: _fate(edit, by_origin.get(edit.origin, []), outcome) for edit in edits}


def _fate(edit: Edit, actions: Sequence[Action], outcome: Outcome) -> Fate:
    if edit.origin in outcome.refused:
        return Fate("refused", outcome.refused[edit.origin])
    if edit.counts is None:
        return Fate("done", "nothing to do: group 0 adds nothing, as the reference library has it")
    if edit.counts != edit.origin:
        where = edit.counts.field if edit.counts.spec == edit.origin.spec else str(edit.counts)
        return Fate("replaced", f"by {where}")
    return _joined(list(_parts(edit, actions, outcome)))


def _parts(edit: Edit, actions: Sequence[Action], outcome: Outcome) -> Iterator[Fate]:
    """What becomes of each action of an edit; an edit that nothing becomes of is none that is done."""
    lacking = [action for action in actions if isinstance(action, Unsupported)]
    yield from (Fate("impossible", lack.reason) for lack in lacking)
    if edit.origin in outcome.failed:
        yield Fate("impossible", outcome.failed[edit.origin])
        return
    yield from (Fate("done", action.reason) for action in actions if isinstance(action, Note))
    doing = [action for action in actions if not isinstance(action, (Note, Unsupported))]
    if doing and outcome.ways is None:
        yield Fate("impossible", f"the launch stops: {outcome.stops[0]}")
        return
    done = [fate for fate in (outcome.ways.of(action) for action in doing) if fate] if outcome.ways else []
    yield from done
    if not actions or (len(done) < len(doing) and not lacking):
        yield Fate("impossible", "nothing that the launcher is given does it")


def _joined(parts: Sequence[Fate]) -> Fate:
    worst = max(parts, key=lambda fate: VERDICTS.index(fate.verdict)).verdict
    ordered = sorted(parts, key=lambda fate: -VERDICTS.index(fate.verdict))
    texts = Counter(fate.how for fate in ordered)
    rest = {fate.verdict for fate in parts} & {"done", "emulated"}
    text = "; ".join(f"{how}, {number} times" if number > 1 else how for how, number in texts.items())
    in_part = worst == "impossible" and bool(rest)
    return Fate(worst, f"in part: {text}" if in_part else text)
