"""Every fact of the reference views in every setting; what a launcher can't do is in a table, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from facts import FACTS, compared
from settings import THROUGH, installed
from views import view


@dataclass(frozen=True)
class Impossible:
    """Facts that a launcher truly can't show.

    Attributes:
        launcher: its name.
        case: of the views, or "" for all.
        thing: what the facts are about, "" for any thing of this kind.
        kind: of the facts.
        reason: why, in the words of the plan, which says so before anything starts.

    """

    launcher: str
    kind: str
    thing: str
    reason: str
    case: str = ""

    def covers(self, launcher: str, case: view.Case, miss: view.Miss) -> bool:
        return (
            self.launcher == launcher
            and self.kind == miss.kind
            and self.thing in {"", miss.thing}
            and self.case in {"", str(case)}
        )


#: All there is.
IMPOSSIBLE: tuple[Impossible, ...] = ()

CASES = installed(THROUGH)


def test_the_reference_states_as_many_facts_as_ever():
    asked = {str(case): sum(view.compare(case.wanted, "").asked.values()) for case in view.CASES}
    assert asked == FACTS


@pytest.mark.parametrize("place", CASES, ids=str)
@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_every_fact_of_the_reference_holds(setting_of, case, place):
    comparison = compared(setting_of(place), case)
    assert sum(comparison.asked.values()) == FACTS[str(case)]
    excused = {miss for miss in comparison.misses for row in IMPOSSIBLE if row.covers(place.launcher, case, miss)}
    assert [str(miss) for miss in comparison.misses if miss not in excused] == []
