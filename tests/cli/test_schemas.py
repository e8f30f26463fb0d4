"""What commands print for programs is what the published schemas say, no more and no less."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import cdi_hpc.cli

SCHEMAS = Path(cdi_hpc.cli.__file__).parent / "schemas"
PROJECT = Path(__file__).parents[2]
VIEWS = Path(__file__).parent.parent / "views"
GPU = str(VIEWS / "nvidia-dgxa100-570/nvidia.yaml")
ROOT = str(VIEWS / "nvidia-driver-root/device.yaml")
GOLDEN = sorted(map(str, VIEWS.parent.glob("golden/*/spec.yaml")))

#: By the schema, command lines whose output it describes.
OUTPUTS: Mapping[str, list[list[str]]] = {
    "list": [["list"], ["list", "--cdi-dir", str(VIEWS / "nvidia-driver-root")], ["list", "--cdi-dir", "/etc"]],
    "validate": [["validate", GPU, *GOLDEN, "/etc/hostname"]],
    "resolve": [["resolve", spec] for spec in (GPU, ROOT, *GOLDEN)],
    "plan": [
        *(["plan", spec] for spec in (GPU, ROOT, *GOLDEN)),
        ["plan", GPU, "--image", "/", "--for", "bash"],
    ],
    "explain": [["explain", spec] for spec in (GPU, ROOT, *GOLDEN)],
    "explain-diff-launchers": [["explain", GPU, "--diff", "embedded", "charliecloud"]],
    "explain-diff-specs": [["explain", "--diff", GPU, ROOT]],
    "doctor": [["doctor"], ["doctor", "--slurm", "nvidia.com/gpu=0"]],
    "generate-list": [["generate", "--list"]],
    "generate-output": [["generate", "--output", "specs", "kvm", "fuse"]],
    "cache-list": [["cache", "list"]],
    "config-check": [["config", "check"], ["config", "check", str(PROJECT / "packaging/config.yaml"), "/etc/hostname"]],
    "config-show": [["config", "show", "--all"]],
    "shims": [["shims", "drop-ins"]],
}

CASES = [(schema, words) for schema, lines in OUTPUTS.items() for words in lines]


def closed(schema: Any) -> Any:
    """The schema without room for what it does not name."""
    if isinstance(schema, dict):
        inner = {key: closed(value) for key, value in schema.items()}
        return {"additionalProperties": False, **inner} if isinstance(schema.get("properties"), dict) else inner
    return [closed(item) for item in schema] if isinstance(schema, list) else schema


def schema_of(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("schema, words", CASES, ids=[" ".join(words)[-60:] for _, words in CASES])
def test_output_is_what_its_schema_says(schema: str, words: list[str], tmp_path: Path, lab):
    if schema == "cache-list":
        subprocess.run(
            ["cdi-hpc", "compile", GPU, "--image", lab.image("debian-root")], check=True, capture_output=True
        )
    done = lab.run(["cdi-hpc", *words, "--format", "json"], cwd=tmp_path)
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    assert document != []
    jsonschema.Draft7Validator(closed(schema_of(schema))).validate(document)


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda path: path.stem)
def test_a_schema_is_one_and_its_command_is_tested(path: Path):
    schema = json.loads(path.read_text("utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    assert path.stem in OUTPUTS
    assert schema["title"].startswith("cdi-hpc ")
