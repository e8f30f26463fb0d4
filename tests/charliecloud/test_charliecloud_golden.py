"""The golden cases as launches through ch-run: ``ch-run.argv`` in a case's directory (``--update-golden`` rewrites it).

A file has the command line with ``IMAGE`` and ``COMMAND``, then the variables in ch-run's own environment, then what is
moved to paths of the host, then what is lacking.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_host import FakeHost, host_from_facts
from golden.test_golden import CASES, compare, plan_of
from releases import LATE, invocation

from cdi_hpc.backend import Dressing, Keep, Text
from cdi_hpc.backends.charliecloud.dressing import dress
from cdi_hpc.backends.charliecloud.images import locate
from cdi_hpc.host import HostNode
from cdi_hpc.plan import Plan, WriteFile
from cdi_hpc.witness import Witness

#: What every host has, whatever a case says of it.
EVERYWHERE = ("/dev", "/proc", "/sys", "/tmp", "/dev/null", "/dev/shm")


@pytest.fixture
def image(tmp_path) -> Path:
    image = tmp_path / "image"
    for name in (*EVERYWHERE[:4], "/etc", "/usr/lib/x86_64-linux-gnu", "/lib64", "/opt"):
        (image / name[1:]).mkdir(parents=True)
    for name in ("passwd", "group"):
        (image / "etc" / name).touch()
    return image


def host_of(case: Path) -> FakeHost:
    host = host_from_facts(case / "host.yaml")
    nodes = {path: HostNode("character" if path == "/dev/null" else "directory", path) for path in EVERYWHERE}
    return replace(host, nodes={**nodes, **host.nodes})


def without_kernels_files(plan: Plan) -> Plan:
    """The driver's file in /proc is looked for where the test runs, and is not there."""
    kept = (
        action for action in plan.actions if not (isinstance(action, WriteFile) and action.path.startswith("/proc"))
    )
    return replace(plan, actions=tuple(kept))


def lines_of(dressing: Dressing, words: tuple[str, ...]) -> Iterator[str]:
    yield "ch-run"
    for word in dressing.words:
        assert isinstance(word, (Keep, Text))
        yield f"    {shlex.quote(words[word.index] if isinstance(word, Keep) else word.text)}"
    yield "    COMMAND"
    yield from (f"variable {variable.name}={variable.value}" for variable in dressing.variables)
    yield from (f"move {place} {path}" for place, path in dressing.moves)
    yield from (f"lack {lack.origin}: {lack.edit}: {lack.reason}" for lack in dressing.lacks)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_words_for_ch_run_are_the_golden_ones(case, image, update_golden):
    asked = [f"--device={word}" for word in (case / "request").read_text().split()]
    called = invocation(["-v", *asked, "--set-env=MINE=1", str(image), "--", "COMMAND"])
    located = locate(called, LATE, {}, "/run/image")
    made = dress(without_kernels_files(plan_of(case)), called, LATE, located, host_of(case), {}, Witness())
    text = "".join(f"{line}\n" for line in lines_of(made, called.words)).replace(str(image), "IMAGE")
    compare(case / "ch-run.argv", text, update=update_golden)
