"""What commands print for programs is what the published schemas say, no more and no less."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

import cdi_hpc.cli
from cdi_hpc.cli.commands import cdi_hpc as program

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
    "generate": [["generate", "fuse"], ["generate", "fuse", "kvm"]],
    "generate-list": [["generate", "--list"]],
    "generate-output": [["generate", "--output", "specs", "kvm", "fuse"]],
    "cache-clean": [["cache", "clean"]],
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


def test_each_schema_has_its_part_of_the_manual():
    titles = [schema_of(path.stem)["title"].removeprefix("cdi-hpc ") for path in SCHEMAS.glob("*.json")]
    wanted = {f"## `{title}`" for title in titles if "--diff" not in title}  # explain's own part says that
    parts = (PROJECT / "docs/json.md").read_text("utf-8").splitlines()
    assert wanted == {line for line in parts if line.startswith("## ")}


#: Commands whose output is for one purpose, and which.
WITHOUT_JSON = {
    "cache": "a group",
    "compile": "a path on each line",
    "completion": "a script for a shell",
    "config": "a group",
    "config schema": "JSON it is",
    "exec": "the launcher's own",
    "lock": "JSON it is, held to lock.schema.json",
    "run": "the command's own",
    "script": "a script",
}


def leaves(command: click.Command, name: str = "") -> dict[str, click.Command]:
    found = {name: command} if name else {}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for below in command.list_commands(context):
            each = command.get_command(context, below)
            assert each is not None
            found.update(leaves(each, f"{name} {below}".strip()))
    return found


COMMANDS = leaves(program)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_speaks_json_and_has_a_schema_or_there_is_a_reason(name: str):
    formats = [option.type for option in COMMANDS[name].params if "--format" in option.opts]
    if name in WITHOUT_JSON:
        assert formats == []
        return
    (choice,) = formats
    assert isinstance(choice, click.Choice)
    assert "json" in choice.choices
    assert any(words[: len(name.split())] == name.split() for _, words in CASES)


def test_specs_that_are_printed_are_those_of_the_cdi_schema(lab):
    done = lab.run(["cdi-hpc", "generate", "fuse", "kvm", "--format", "json"])
    schema = json.loads((Path(cdi_hpc.cli.__file__).parent.parent / "spec" / "schema.json").read_text("utf-8"))
    specs = json.loads(done.stdout)
    assert specs
    for spec in specs:
        jsonschema.validate(spec, schema)


BROKEN = (
    "cdiVersion: 0.5.0\nkind: lab.example/broken\nunknown: field\ndevices: [{name: a, containerEdits: {env: [A]}}]\n"
)


@pytest.mark.parametrize("words", [["-v"], []])
@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["validate", "specs"],
        ["resolve", "nvidia.com/gpu=0"],
        ["plan", "nvidia.com/gpu=0", "--image", "/"],
        ["explain", "nvidia.com/gpu=0", "--for", "embedded"],
        ["generate", "--output", "made", "fuse", "infiniband"],
    ],
    ids=lambda command: command[0],
)
def test_standard_output_is_the_document_alone(command: list[str], words: list[str], tmp_path: Path, lab):
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/broken.yaml").write_text(BROKEN)
    (tmp_path / "specs/good.yaml").write_text(Path("/etc/cdi/nvidia.yaml").read_text())
    env = {"CDI_HPC_DIRS": "specs", "FORCE_COLOR": "1"}
    done = lab.run(["cdi-hpc", *command, *words, "--format", "json"], cwd=tmp_path, env=env)
    json.loads(done.stdout)
    assert all(line.startswith("cdi-hpc: ") for line in done.stderr.splitlines())
