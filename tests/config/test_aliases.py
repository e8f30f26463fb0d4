"""Short names for devices: what they come to, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.errors import CdiError
from cdi_hpc.site.aliases import Alias, expand, name_complaint, problems


def aliases(**stands_for: str) -> dict[str, Alias]:
    """Aliases from words: ``mpi="hpe.com/cxi=all gpu"``."""
    return {name: Alias(name, tuple(words.split()), f"site.yaml: {name}") for name, words in stands_for.items()}


SITE = aliases(
    gpu="nvidia.com/gpu=all",
    mpi="hpe.com/cxi=all xpmem.org/xpmem=all",
    everything="gpu mpi gpu",
    tools="/opt/site/tools.yaml",
)

EXPANDED = [
    (["gpu"], ["nvidia.com/gpu=all"]),
    (["mpi"], ["hpe.com/cxi=all", "xpmem.org/xpmem=all"]),
    (["everything"], ["nvidia.com/gpu=all", "hpe.com/cxi=all", "xpmem.org/xpmem=all"]),
    (["gpu,mpi"], ["nvidia.com/gpu=all", "hpe.com/cxi=all", "xpmem.org/xpmem=all"]),
    (["gpu , amd.com/gpu=0"], ["nvidia.com/gpu=all", "amd.com/gpu=0"]),
    (["tools"], ["/opt/site/tools.yaml"]),
    (["nvidia.com/gpu=0,nvidia.com/gpu=1"], ["nvidia.com/gpu=0,nvidia.com/gpu=1"]),
    (["./gpu,mpi.yaml"], ["./gpu,mpi.yaml"]),
    (["/specs/gpu,mpi"], ["/specs/gpu,mpi"]),
    (["a.com/gpu=gpu"], ["a.com/gpu=gpu"]),
    ([], []),
]


@pytest.mark.parametrize("arguments, expanded", EXPANDED)
def test_an_alias_is_replaced_wherever_a_device_may_stand(arguments, expanded):
    assert list(expand(arguments, SITE)) == expanded


@pytest.mark.parametrize(
    "name", ["nvidia.com/gpu", "a=b", "./x", "/x", "a,b", "a b", "", "0", "-x", "x.yaml", "all", "none", "ä"]
)
def test_a_name_that_could_be_something_else_is_refused(name):
    assert name_complaint(name)


@pytest.mark.parametrize("name", ["gpu", "GPU", "mpi-full", "x_1"])
def test_a_plain_word_is_a_name(name):
    assert name_complaint(name) == ""


def test_cycles_are_refused_and_each_is_shown_once():
    found = [str(problem) for problem in problems(aliases(a="b", b="c nvidia.com/gpu=0", c="a", d="d", e="a"))]
    assert found == [
        "site.yaml: a: the alias stands for itself: 'a' -> 'b' -> 'c' -> 'a' (break the cycle)",
        "site.yaml: d: the alias stands for itself: 'd' -> 'd' (break the cycle)",
    ]


@pytest.mark.parametrize(
    "wanted, message",
    [
        ("mpj", "'mpj' is neither a device nor an alias (did you mean 'mpi'?)"),
        ("nvidia.com/gpu=", "the device name is empty"),
        ("nvidia.com/", "is not a kind of the form"),
        ("./x.yaml", "invalid vendor"),
    ],
)
def test_what_an_alias_can_not_stand_for_is_refused(wanted, message):
    found = [str(problem) for problem in problems({**SITE, **aliases(x=wanted)})]
    assert len(found) == 1
    assert message in found[0]


def test_a_word_that_is_nearly_an_alias_is_refused_with_the_alias():
    with pytest.raises(CdiError, match="device 'gpus': there is no such alias \\(did you mean 'gpu'\\?\\)"):
        expand(["gpus"], SITE)


def test_a_word_like_no_alias_is_left_for_others_to_judge():
    assert expand(["zebra"], SITE) == ("zebra",)


def test_nesting_that_doubles_thirty_times_costs_no_more_than_its_names():
    doubled = {f"a{n}": Alias(f"a{n}", (f"a{n + 1}", f"a{n + 1}")) for n in range(30)}
    doubled["a30"] = Alias("a30", ("nvidia.com/gpu=0",))
    assert expand(["a0"], doubled) == ("nvidia.com/gpu=0",)


NAMES = st.sampled_from(["a", "b", "c", "d"])
GRAPHS = st.dictionaries(
    NAMES, st.lists(st.one_of(NAMES, st.sampled_from(["v.com/c=0", "v.com/c=1"])), min_size=1, max_size=3)
)


@given(GRAPHS, st.lists(NAMES, max_size=3))
def test_aliases_without_problems_come_down_to_devices(graph, wanted):
    found = {name: Alias(name, tuple(words)) for name, words in graph.items()}
    if list(problems(found)):
        return
    expanded = expand([name for name in wanted if name in found], found)
    assert all("=" in device for device in expanded)
