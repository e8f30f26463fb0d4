"""The rules of tests/conftest.py: in CI nothing passes by not running."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"

SKIP = "@pytest.mark.skip(reason='no time')\ndef test(): pass"
EXPECTED_FAILURE = "@pytest.mark.xfail(reason='a bug')\ndef test(): assert False"
SKIP_INSIDE = "def test(): pytest.skip('not here')"
SKIP_FILE = "pytest.skip('not here', allow_module_level=True)"
ALLOWED = "@pytest.mark.impossible_in_ci(reason='takes a GPU')\ndef test(): pytest.skip('no GPU')"
NO_REASON = "@pytest.mark.impossible_in_ci\ndef test(): pytest.skip('no GPU')"


def run_suite(directory: Path, source: str, *, ci: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one test file under the project's rules."""
    (directory / "conftest.py").write_text(CONFTEST.read_text())
    (directory / "test_it.py").write_text(f"import pytest\n{source}\n")
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-rA", "--rootdir", "."]
    env = {**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""}
    return subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("source", [SKIP, EXPECTED_FAILURE, SKIP_INSIDE, SKIP_FILE, NO_REASON])
def test_what_does_not_run_fails_in_ci(tmp_path, source):
    done = run_suite(tmp_path, source, ci="true")
    assert done.returncode in {1, 2}, done.stdout


@pytest.mark.parametrize("source", [SKIP, EXPECTED_FAILURE, SKIP_INSIDE, ALLOWED])
def test_at_home_a_skip_is_a_skip(tmp_path, source):
    done = run_suite(tmp_path, source, ci="")
    assert done.returncode == 0, done.stdout


def test_a_written_reason_excuses_a_skip_in_ci(tmp_path):
    assert run_suite(tmp_path, ALLOWED, ci="true").returncode == 0


def test_the_failure_says_why_it_did_not_run(tmp_path):
    assert "did not run: Skipped: no time" in run_suite(tmp_path, SKIP, ci="true").stdout
