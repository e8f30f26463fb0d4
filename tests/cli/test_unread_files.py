"""Files that look like specs and are not read because of their names: nobody looks for a device in vain."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

SPEC = '{"cdiVersion": "0.5.0", "kind": "a.org/b", "devices": [{"name": "0", "containerEdits": {"env": ["A=b"]}}]}'
SAID = "other.yml: not read: the name of a spec ends in .json or .yaml (rename or remove it)"


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text(SPEC)
    (tmp_path / "other.yml").write_text(SPEC.replace("a.org", "other.org"))
    return tmp_path


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["cdi-hpc", *map(str, words)], capture_output=True, text=True, check=False, timeout=60)


def test_they_are_named_by_what_shows_specs(specs):
    for words in (("list", "--cdi-dir", specs), ("validate", specs)):
        done = run(*words)
        assert (done.returncode, SAID in done.stderr) == (0, True), done.stderr
    assert "other.yml" in json.dumps(json.loads(run("list", "--format=json", "--cdi-dir", specs).stdout)["warnings"])


def test_the_doctor_names_them(specs):
    assert "other.yml: not read" in run("doctor", "--cdi-dir", specs).stdout


def test_a_launch_says_it_where_it_finds_no_device(specs):
    assert SAID in run("resolve", "--cdi-dir", specs, "other.org/b=0").stderr
    assert "other.yml" not in run("resolve", "--cdi-dir", specs, "a.org/b=0").stderr
