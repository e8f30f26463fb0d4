"""``cdi-hpc config``: shown, checked, and the schema printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

PROJECT = Path(__file__).parents[2]
SAMPLE = (PROJECT / "packaging/config.yaml").read_text("utf-8")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs ``cdi-hpc config`` as a user with a configuration directory of his own."""
    (tmp_path / "cdi-hpc").mkdir(mode=0o755)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cdi_hpc", "config", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    return run


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_the_schema_is_printed_as_it_is_published(command):
    printed = command("schema").stdout
    assert printed == (PROJECT / "cdi_hpc/config/schema.json").read_text("utf-8")
    jsonschema.Draft7Validator.check_schema(json.loads(printed))


def test_what_is_set_is_shown_with_its_line(command, tmp_path, monkeypatch):
    path = write(tmp_path / "cdi-hpc/config.yaml", "aliases:\n  gpu: [a.com/b, c.com/d]\n")
    monkeypatch.setenv("CDI_HPC_STRICT", "1")
    shown = json.loads(command("show", "--format", "json").stdout)
    assert shown == [
        {"key": "aliases.gpu", "value": ["a.com/b", "c.com/d"], "from": f"{path}:2:3: aliases.gpu"},
        {"key": "strict", "value": True, "from": "variable CDI_HPC_STRICT"},
    ]
    assert re.search(r"^aliases\.gpu  a\.com/b, c\.com/d +/", command("show").stdout, re.MULTILINE)


def test_defaults_are_shown_on_demand(command):
    assert command("show").stdout == "nothing is configured: every key has its default (--all)\n"
    rows = command("show", "--all").stdout
    assert re.search(r"^cache\.max-size +256M +default$", rows, re.MULTILINE)


def test_a_users_broken_configuration_is_reported_and_not_shown(command, tmp_path):
    write(tmp_path / "cdi-hpc/config.yaml", "polizy: {}\npolicy: {kinds: {default: deny}}\n")
    for words in (["show"], ["check"]):
        done = command(*words)
        assert done.returncode == 1
        assert "config.yaml:1:1: polizy: unknown key 'polizy' (did you mean 'policy'?)" in done.stderr
        assert "Traceback" not in done.stderr


def test_files_are_checked_together_before_they_are_in_place(command, tmp_path):
    first = write(tmp_path / "a.yaml", "aliases: {all-of-it: [gpu]}")
    second = write(tmp_path / "b.yaml", "aliases: {gpu: a.com/b}")
    assert command("check", "a.yaml").returncode == 1
    done = command("check", str(first), str(second))
    assert (done.returncode, done.stdout) == (0, f"{first}: valid\n{second}: valid\n")


def test_what_is_wrong_with_any_file_is_said(command, tmp_path):
    write(tmp_path / "a.yaml", "strict: x")
    write(tmp_path / "b.yaml", "aliases: {a: a}")
    done = command("check", "a.yaml", "b.yaml", "none.yaml")
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.split(": ")[2] for line in done.stderr.splitlines()] == ["a.yaml:1:1", "none.yaml", "b.yaml:1:11"]


def test_a_file_for_a_user_is_checked_as_such(command, tmp_path):
    write(tmp_path / "a.yaml", "slurm: {unmapped: all}")
    assert command("check", "a.yaml").returncode == 0
    assert "only the administrator can set this" in command("check", "--user", "a.yaml").stderr


def test_the_sample_that_is_installed_sets_nothing_and_is_valid_with_every_line_in_use(command, tmp_path):
    write(tmp_path / "sample.yaml", SAMPLE)
    assert command("check", "sample.yaml").returncode == 0
    used = re.sub(r"^#(?! \S)", "", SAMPLE, flags=re.MULTILINE)
    write(tmp_path / "used.yaml", used)
    done = command("check", "used.yaml")
    assert done.returncode == 0
    # This machine has not all that it names.
    assert all(": warning: " in line and "no spec for the kind" in line for line in done.stderr.splitlines())


def test_the_sample_names_every_key():
    from cdi_hpc.config.schema import all_keys

    missing = [key.shown for key in all_keys() for part in key.path if part != "*" and f"{part}:" not in SAMPLE]
    assert missing == []
