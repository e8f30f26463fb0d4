"""Every fact of the reference views in every setting. No launcher is excused from any."""

from __future__ import annotations

import pytest
from facts import FACTS, compared
from settings import THROUGH, installed
from views import view


def test_the_reference_states_as_many_facts_as_ever():
    asked = {str(case): sum(view.compare(case.wanted, "").asked.values()) for case in view.CASES}
    assert asked == FACTS


@pytest.mark.parametrize("place", installed(THROUGH), ids=str)
@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_every_fact_of_the_reference_holds(setting_of, case, place):
    comparison = compared(setting_of(place), case)
    assert sum(comparison.asked.values()) == FACTS[str(case)]
    assert [str(miss) for miss in comparison.misses] == []
