"""``cdi-hpc cache``: who may look at plans, and who may take them away."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cdi_hpc.compiled.cache_place import SYSTEM_DIRECTORY


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    tmp_path.chmod(0o700)
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


def test_a_cache_that_is_not_there_is_not_made_to_be_looked_at(runtime, tmp_path, lab):
    done = lab.run(["cdi-hpc", "cache", "list"], env=runtime)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"no plans in {tmp_path}/cdi-hpc\n", "")
    assert not list(tmp_path.iterdir())
    assert json.loads(lab.run(["cdi-hpc", "cache", "list", "--format=json"], env=runtime).stdout) == []


def test_plans_are_listed_and_removed(runtime, lab):
    compiled = lab.run(["cdi-hpc", "compile", "nvidia.com/gpu=0"], env=runtime).stdout.strip()
    listed = lab.run(["cdi-hpc", "cache", "list"], env=runtime).stdout.splitlines()
    assert re.fullmatch(rf"{Path(compiled).stem}  [0-9]+ +[0-9-]+ [0-9:]+", listed[1])
    assert lab.run(["cdi-hpc", "cache", "clean", "--all"], env=runtime).returncode == 0
    assert lab.run(["cdi-hpc", "cache", "list"], env=runtime).stdout.startswith("no plans in ")


def test_everybody_may_see_the_systems_plans_and_only_root_take_them_away(lab):
    listed = lab.run(["cdi-hpc", "cache", "list", "--system"])
    assert (listed.returncode, listed.stderr) == (0, "")
    assert f"no plans in {SYSTEM_DIRECTORY}\n" == listed.stdout or listed.stdout.startswith("KEY ")
    done = lab.run(["cdi-hpc", "cache", "clean", "--system"])
    assert (done.returncode, done.stdout) == (1, "")
    what = "--system: only root keeps plans for everybody (leave it out, or run it as root)"
    assert done.stderr == f"cdi-hpc: error: {what}\n"


def test_what_is_no_directory_is_named(runtime, tmp_path, lab):
    (tmp_path / "cdi-hpc").write_text("")
    done = lab.run(["cdi-hpc", "cache", "list"], env=runtime)
    assert (done.returncode, done.stderr) == (1, f"cdi-hpc: error: {tmp_path}/cdi-hpc: Not a directory\n")
