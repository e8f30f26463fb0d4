"""Whole translations: a spec, a request and a host's facts, and the plan and the script that come of them.

A case is a directory with ``spec.yaml`` (read as if it were in /etc/cdi), ``request`` (what is given to --device),
``host.yaml`` (see fake_host.host_from_facts), and what is expected: ``plan.json`` and ``script.bash``.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from fake_host import host_from_facts

from cdi_hpc.plan import Plan
from cdi_hpc.render.bash import script
from cdi_hpc.spec import edits, request
from cdi_hpc.spec.registry import LoadedSpec, RegisteredDevice, Registry
from cdi_hpc.spec.validate import check
from cdi_hpc.translation.describe import plan_document
from cdi_hpc.translation.translate import translate

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/spec.yaml"))
PREAMBLE = resources.files("cdi_hpc.render").joinpath("preamble.bash").read_text(encoding="utf-8").rstrip()


def plan_of(case: Path) -> Plan:
    checked = check((case / "spec.yaml").read_bytes(), f"/etc/cdi/{case.name}.yaml")
    assert checked.spec is not None, checked.errors
    devices = [RegisteredDevice(checked.spec, index) for index in range(len(checked.spec.devices))]
    registry = Registry(
        specs=(LoadedSpec(checked.spec, 0, "/etc/cdi"),), devices={device.name: device for device in devices}
    )
    resolution = request.resolve((case / "request").read_text().split(), registry)
    return translate(edits.merge(resolution.devices), host_from_facts(case / "host.yaml"))


def compare(path: Path, text: str, *, update: bool) -> None:
    if update:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plan_is_the_golden_one(case, update_golden):
    text = json.dumps(plan_document(plan_of(case), "embedded"), indent=2) + "\n"
    compare(case / "plan.json", text, update=update_golden)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_script_is_the_golden_one(case, update_golden):
    text = script(plan_of(case)).replace(PREAMBLE, "# ... preamble.bash ...")
    compare(case / "script.bash", text, update=update_golden)


def test_there_are_cases():
    assert len(CASES) > 3
