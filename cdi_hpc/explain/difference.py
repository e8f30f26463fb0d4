"""What differs between two specs, or between two launchers."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from cdi_hpc.explain.explanation import Explanation
from cdi_hpc.explain.rows import Edit
from cdi_hpc.explain.views import Fate
from cdi_hpc.spec.model import Hook

Change = Literal["removed", "added", "changed"]


@dataclass(frozen=True)
class Side:
    """An edit on one side, and what becomes of it there."""

    edit: Edit
    fate: Fate


@dataclass(frozen=True)
class Difference:
    """Something that is not the same on both sides; None where it is not there at all.

    Attributes:
        change: ``changed`` may be the edit, or only what becomes of it.
        launcher: whose view it is; "" where two launchers are compared.

    """

    change: Change
    launcher: str
    old: Side | None
    new: Side | None


def between_launchers(explanation: Explanation) -> Iterator[Difference]:
    """Edits that the first two launchers of an explanation do not treat alike.

    By verdict, or by reason where it is not simply done: that two launchers set a variable in their own ways is none.
    """
    old, new = explanation.views[:2]
    for edit in explanation.edits:
        sides = Side(edit, old.fates[edit.origin]), Side(edit, new.fates[edit.origin])
        if _outcome(sides[0].fate) != _outcome(sides[1].fate):
            yield Difference("changed", "", *sides)


def _outcome(fate: Fate) -> tuple[str, str]:
    return fate.verdict, "" if fate.verdict in ("done", "emulated") else fate.how


def between_specs(old: Explanation, new: Explanation) -> Iterator[Difference]:
    """Edits that are in one explanation only, or are not the same in both, launcher by launcher.

    Edits are matched by device and by what they are about: a variable's name, a container path.
    """
    for old_view, new_view in zip(old.views, new.views):
        before = {key: Side(edit, old_view.fates[edit.origin]) for key, edit in _keyed(old.edits)}
        after = {key: Side(edit, new_view.fates[edit.origin]) for key, edit in _keyed(new.edits)}
        for key, side in before.items():
            other = after.get(key)
            if other is None:
                yield Difference("removed", old_view.launcher, side, None)
            elif (side.edit.value, side.fate) != (other.edit.value, other.fate):
                yield Difference("changed", old_view.launcher, side, other)
        for key, side in after.items():
            if key not in before:
                yield Difference("added", old_view.launcher, None, side)


def _keyed(edits: Iterable[Edit]) -> Iterator[tuple[Hashable, Edit]]:
    """Edits with what each is known by in another version of its spec."""
    seen: Counter[Hashable] = Counter()
    for edit in edits:
        about = _verb(edit.value) if isinstance(edit.value, Hook) else edit.subject
        key = (edit.field, edit.origin.device, about)
        yield (key, seen[key]), edit
        seen[key] += 1


def _verb(hook: Hook) -> Hashable:
    """What a hook does: its program has had several names, and its arguments are what changes."""
    words = (word for word in hook.args[1:] if not word.startswith("-") and word != "hook")
    return hook.hook_name, next(words, posixpath.basename(hook.path))
