"""Scripts as they are reviewed: golden files, shellcheck, determinism."""

from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path

import pytest
from render_cases import CASES, GPU, HOSTILE_ORIGIN

from cdi_hpc.errors import CdiError
from cdi_hpc.plan import Plan, SetEnv
from cdi_hpc.render.bash import script

GOLDEN = Path(__file__).parent / "golden"
PREAMBLE = resources.files("cdi_hpc.render").joinpath("preamble.bash").read_text(encoding="utf-8").rstrip()
FORMS = ("script", "env", "mounts")


def render(plan: Plan, form: str) -> str:
    return script(plan, only=None if form == "script" else form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_written_as_its_golden_file_says(name, form, update_golden):
    text = render(CASES[name], form).replace(PREAMBLE, "# ... preamble.bash ...")
    path = GOLDEN / name / f"{form}.bash"
    if update_golden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_shellcheck_finds_nothing(name, form, tmp_path):
    path = tmp_path / "script.bash"
    path.write_text(render(CASES[name], form), encoding="utf-8")
    found = subprocess.run(["shellcheck", "-s", "bash", path], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_text_depends_on_the_plan_alone():
    assert script(GPU) == script(GPU)
    assert PREAMBLE in script(GPU)


def test_every_line_of_a_comment_stays_in_the_comment():
    lines = script(CASES["hostile"], header=("one\nreboot", "shellcheck disable=all")).splitlines()
    head = lines[: lines.index("")]
    assert all(line.startswith("#") for line in head)
    assert "# | one\\nreboot" in head
    assert not [line for line in lines if line.strip() == "reboot" or line.startswith("# shellcheck disable=all")]


@pytest.mark.parametrize(
    "name, value",
    [("A", "nul\0"), ("A", "\ud800"), ("UID", "0"), ("SHELLOPTS", "xtrace"), ("a-b", "1"), ("A\nB", "1"), ("é", "1")],
)
@pytest.mark.parametrize("form", FORMS)
def test_what_bash_can_not_carry_is_refused_with_its_place(name, value, form):
    plan = Plan((), (SetEnv(name, value, HOSTILE_ORIGIN),))
    with pytest.raises(CdiError, match=r"containerEdits\.env"):
        render(plan, form)
