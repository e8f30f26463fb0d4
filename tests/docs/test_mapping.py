"""The tables of docs/hpc.md are what the code says, and leave no field, no hook and no launcher out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cdi_hpc import explain
from cdi_hpc.translation import hooks
from scripts.website import mapping, update
from scripts.website.cases import CASES, OWN_FIELDS

PROJECT = Path(__file__).parents[2]
SCHEMA = json.loads((PROJECT / "cdi_hpc/spec/schema.json").read_text("utf-8"))


def fields(schema: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Every field that CDI's schema has, as a path; of a list of objects with ``[]``."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    for name, below in schema.get("properties", {}).items():
        yield f"{above}{name}"
        yield from fields(below, f"{above}{name}.")
    if "items" in schema:
        yield from fields(schema["items"], f"{above[:-1]}[].")


def test_the_tables_are_what_the_code_says():
    assert [*update.stale(PROJECT)] == []


@pytest.mark.parametrize(
    "old, said", [("| done |", "is not what the code says"), ("table env,", "no page of docs/ has")]
)
def test_a_table_that_is_changed_or_missing_is_found(tmp_path: Path, old: str, said: str):
    (tmp_path / "docs").mkdir()
    page = (PROJECT / "docs/hpc.md").read_text("utf-8")
    assert old in page
    (tmp_path / "docs/hpc.md").write_text(page.replace(old, "| x |" if "|" in old else "table no,"), "utf-8")
    assert any(said in text for text in update.stale(tmp_path))
    update.write(tmp_path) if "|" in old else None
    assert ([*update.stale(tmp_path)] == []) is ("|" in old)


def test_every_field_of_the_schema_has_a_row():
    shown = {
        f"{name}.{key}".rstrip(".") if name == "intelRdt" else f"{name}[].{key}" if key else name
        for name, cases in CASES.items()
        for case in cases
        for key in case.shows
    }
    lists = set(CASES)
    asked = {path.partition("containerEdits.")[2] for path in fields(SCHEMA) if path.startswith("containerEdits.")}
    assert asked - lists == shown - lists
    assert lists <= asked
    own = {path for path in fields(SCHEMA) if "containerEdits." not in path}
    assert own == set(OWN_FIELDS)


def test_the_row_of_a_field_has_the_field():
    for cases in CASES.values():
        for case in cases:
            assert all(key in case.value for key in case.shows if key)


def test_every_hook_that_is_understood_has_a_row():
    verbs = {case.value["args"][1] for case in CASES["hooks"]}
    assert set(hooks._VERBS) <= verbs
    points = {case.value["hookName"] for case in CASES["hooks"]}
    assert {point for point, why in hooks._POINTS.items() if why} <= points


def test_every_launcher_has_a_column():
    assert set(explain.launchers()) - {"slurm"} == set(mapping.COLUMNS) - {"handoff"}


def test_steps_of_slurm_are_what_cdi_hpc_run_is(tmp_path: Path):
    """So they have no column: the code that explains the one explains the other."""
    from cdi_hpc.explain import own

    assert set(own.NAMES) == {"embedded", "bash", "slurm"}
    assert own._CONFIGURED_AS["slurm"] == "embedded"


@pytest.mark.parametrize("field", CASES)
def test_every_case_has_a_verdict_on_every_launcher(field: str):
    for row in mapping.rows(field):
        assert set(row.fates) == set(mapping.COLUMNS)
        assert all(fate.verdict in explain.VERDICTS and fate.how for fate in row.fates.values())
