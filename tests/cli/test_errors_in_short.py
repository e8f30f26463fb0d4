"""Many problems with one reason: the first of them, and how many more there are."""

from __future__ import annotations

import subprocess

import pytest
from run.launchers import program, write_spec

from cdi_hpc.errors import Problem, in_short


def problems(count: int, what: str = "denied", where: str = "f{}", fix: str = "") -> list[Problem]:
    return [Problem(where.format(n), what.format(n), fix.format(n)) for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_few_are_told_one_by_one(count):
    found = problems(count)
    assert list(in_short(found)) == [str(problem) for problem in found]


@pytest.mark.parametrize(
    "how", [{}, {"fix": "make f{}"}, {"where": "--bind x", "what": "would hide {}", "fix": "bind elsewhere"}]
)
def test_many_with_one_text_or_about_one_thing_are_counted(how):
    found = problems(85, **how)
    assert list(in_short(found)) == [*map(str, found[:3]), "... and 82 more for the same reason"]


def test_what_is_different_is_told():
    found = [*problems(9), *problems(7, "needs {}", "lib"), Problem("other", "is not there")]
    told = list(in_short(found))
    assert told[:4] == ["f0: denied", "f1: denied", "f2: denied", "... and 6 more for the same reason"]
    assert told[4:] == [*(f"lib: needs {n}" for n in range(7)), "other: is not there"]


def test_a_directory_that_cannot_be_searched_is_one_reason_for_all_edits_below_it(tmp_path):
    image = tmp_path / "image"
    (image / "closed").mkdir(parents=True)
    (image / "closed").chmod(0)
    mounts = [{"hostPath": "/etc/hostname", "containerPath": f"/closed/{n}"} for n in range(30)]
    request = write_spec(tmp_path / "cdi", {"one": {"mounts": mounts}})
    argv = [program(), "run", "--runner=python", "--device", *request.devices, "--cdi-dir", *request.directories, image]
    done = subprocess.run([*map(str, argv), "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "cdi-hpc: error: ... and 27 more for the same reason"
