"""Scripts made of a plan and run: what the tests that run them share."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from render_cases import as_bytes, at

from cdi_hpc.plan import Action, Plan
from cdi_hpc.render.bash import script

STAGES = ("overlay", "underlay")

HERE = at("containerEdits.mounts[0]")


def start(
    plan: Plan,
    tmp_path: Path,
    image: str | Path,
    command: Sequence[str],
    *options: str,
    wrap: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a script of the plan to the end; ``wrap`` comes before bash on the command line."""
    path = tmp_path / "script.bash"
    path.write_bytes(as_bytes(script(plan)))
    argv = [*wrap, "bash", path, *options, image, *command]
    return subprocess.run(argv, env=env, capture_output=True, check=False, timeout=120)


def said(done: subprocess.CompletedProcess[bytes]) -> bytes:
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def refused(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line that a script says when it refuses."""
    assert (done.returncode, done.stdout) == (125, b"")
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def plan(*actions: Action, private_dev: str | None = None) -> Plan:
    return Plan(("lab.example/thing=one",), actions, private_dev)
