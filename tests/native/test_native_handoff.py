"""What the SPANK plugin told other launchers is taken back before we launch, by C as by Python."""

from __future__ import annotations

import subprocess

import pytest

from cdi_hpc.launch.inheritance import HANDOFF_VARIABLE, without_handoff

OURS = "/a:/a,/b:/b:ro"

#: Value in the environment -> what is left of it; None: nothing, the variable goes.
LISTS = {
    OURS: None,
    f"{OURS},/mine": "/mine",
    f"/mine,{OURS}": "/mine",
    f"/mine,{OURS},/other": "/mine,/other",
    "/mine": "/mine",
    f"x{OURS}": f"x{OURS}",
    f"{OURS}x": f"{OURS}x",
    "": "",
}

ENVIRONMENTS = [({HANDOFF_VARIABLE: f"LAB_BIND={OURS}\n", "LAB_BIND": value}, left) for value, left in LISTS.items()]
ENVIRONMENTS += [
    ({HANDOFF_VARIABLE: f"LAB_BIND={OURS}\n"}, None),
    ({HANDOFF_VARIABLE: "LAB_BIND=\n", "LAB_BIND": "mine"}, "mine"),
    ({HANDOFF_VARIABLE: "LAB_BIND\n=\n\n", "LAB_BIND": "mine"}, "mine"),
    ({HANDOFF_VARIABLE: f"LAB_A=1\nLAB_BIND={OURS}\nLAB_C=3", "LAB_BIND": OURS, "LAB_A": "1"}, None),
    ({HANDOFF_VARIABLE: "", "LAB_BIND": "mine"}, "mine"),
]


@pytest.mark.parametrize(("environ", "left"), ENVIRONMENTS)
def test_python_takes_it_back(environ, left):
    found = without_handoff({"LAB_OTHER": "kept", **environ})
    assert found.get("LAB_BIND") == left
    assert {*found} <= {"LAB_OTHER", "LAB_BIND"}


@pytest.mark.parametrize(("environ", "left"), ENVIRONMENTS)
def test_the_native_runner_takes_it_back(environ, left, cache, programs, tmp_path):
    front = tmp_path / "environment"  # it is called for want of a plan
    front.write_text("#!/bin/sh\nexec env -0\n")
    front.chmod(0o755)
    env = {**cache.environ(), "CDI_HPC_PYTHON_FRONT": str(front), "LAB_OTHER": "kept", **environ}
    done = subprocess.run([programs.run, "/", "true"], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(line.partition("=")[::2] for line in done.stdout.decode().split("\0") if line)
    assert found.get("LAB_BIND") == left
    assert found["LAB_OTHER"] == "kept"
    assert HANDOFF_VARIABLE not in found
