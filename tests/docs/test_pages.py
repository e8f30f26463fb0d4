"""What the pages say about options, fields, messages and files is still so."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from cdi_hpc import plan
from cdi_hpc.cli.commands import cdi_hpc as program
from cdi_hpc.compiled import wire
from cdi_hpc.container import steps

PROJECT = Path(__file__).parents[2]
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("tests/**/*.md")])
#: All pages for readers, as one text.
DOCS = "\n".join(page.read_text("utf-8") for page in sorted((PROJECT / "docs").glob("*.md")))
README = (PROJECT / "README.md").read_text("utf-8")


def commands(group: click.Group = program, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command, those of a group of commands as "GROUP COMMAND"."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def long_options(*, hidden: bool) -> dict[str, set[str]]:
    """Command -> its options, with or without the hidden ones."""
    return {
        name: {
            text
            for option in command.params
            for text in option.opts
            if text.startswith("--") and (hidden or not getattr(option, "hidden", False))
        }
        for name, command in commands()
    }


def section(title: str) -> str:
    """The text under a heading of any page, up to the next heading of any level."""
    found = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", DOCS, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{len(found)} sections of docs/*.md are called {title!r}"
    return found[0]


def rows(title: str) -> list[list[str]]:
    """Cells of the table in a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_a_link_leads_to_a_file_that_is_there(page: Path):
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and the site make them of its headings."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_a_link_to_a_place_in_a_page_leads_to_a_heading(page: Path):
    links = re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text("utf-8"))
    inside = [(page.parent / file if file else page, anchor) for file, anchor in links if "://" not in file]
    assert [f"{file.name}#{anchor}" for file, anchor in inside if anchor not in headings(file)] == []


@pytest.mark.parametrize("command", [name for name, _ in commands()])
def test_every_option_is_explained(command: str):
    undocumented = [option for option in long_options(hidden=False)[command] if f"`{option}" not in DOCS]
    assert undocumented == []


def test_no_option_is_made_up():
    real = {"--help", "--version"}.union(*long_options(hidden=True).values())
    names = "|".join(sorted({name.partition(" ")[0] for name, _ in commands()}))
    used = re.findall(rf"cdi-hpc(?: (?:{names})\b|-run )[^\n`|]*", DOCS + README)
    words = {
        word.partition("=")[0] for line in used for word in line.partition(" -- ")[0].split() if word.startswith("--")
    }
    assert words - real == set()


def test_every_action_of_a_plan_is_in_the_table():
    assert [row[0].strip("`") for row in rows("Actions of a plan")] == [
        action.__name__ for action in get_args(plan.Action)
    ]


def test_every_mount_step_is_in_the_table():
    assert [row[0].strip("`") for row in rows("Mount steps")] == [step.__name__ for step in get_args(steps.Step)]


def test_every_module_is_in_the_table():
    listed = {name for row in rows("Modules") for name in re.findall(r"`([\w/]+)`", row[0])}
    package = PROJECT / "cdi_hpc"
    modules = {str(path.relative_to(package).with_suffix("")) for path in package.glob("*.py")}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert listed == {*modules, *folders} - {"__init__", "__main__"}


@pytest.mark.parametrize("package", ["images", "spec", "site", "resolve", "translation", "container", "compiled"])
def test_every_module_of_a_package_is_in_its_row(package):
    named = {name for row in rows("Modules") if f"`{package}`" in row[0] for name in re.findall(r"`(\w+)`", row[1])}
    assert {path.stem for path in (PROJECT / "cdi_hpc" / package).glob("*.py")} - {"__init__"} - named == set()


def test_modules_depend_on_those_above_them_only():
    row_of = {name: number for number, row in enumerate(rows("Modules")) for name in re.findall(r"`([\w/]+)`", row[0])}
    upward = []
    for path in sorted((PROJECT / "cdi_hpc").rglob("*.py")):
        user = path.relative_to(PROJECT / "cdi_hpc").with_suffix("").parts[0]
        if user in row_of:
            upward += [f"{user} uses {used}" for used in imports(path) if row_of.get(used, -1) > row_of[user]]
    assert upward == []


def imports(path: Path) -> Iterator[str]:
    """Modules of ours, without what is below a package."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "cdi_hpc":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cdi_hpc."):
            yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cdi_hpc."))


# Messages -----------------------------------------------------------------------------------------------------


def texts_of_the_program() -> list[str]:
    """Every string of the program, with a hole for each value, and the text of the scripts that it prints."""
    found = [path.read_text("utf-8") for path in (PROJECT / "cdi_hpc/render").glob("*.bash")]
    for path in (PROJECT / "native").glob("*.c"):
        # Literals that follow each other are one; "%s" and its like are holes.
        literals = re.sub(r'(?<!\\)"\s+"', "", path.read_text("utf-8"))
        found += [re.sub(r"%[.\d]*[a-z]+", "\0", text) for text in re.findall(r'"((?:[^"\\\n]|\\.)*)"', literals)]
    for path in (path for top in ("cdi_hpc", "backends") for path in (PROJECT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(_constant(part) for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def _constant(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "\0"


def test_every_message_that_is_explained_is_still_one_of_the_program():
    program = texts_of_the_program()
    messages = [message for row in rows("Messages") for message in re.findall(r"`([^`]+)`", row[0])]
    assert len(messages) > 20
    fragments = [fragment.strip(" '") for message in messages for fragment in message.split("...")]
    assert [f for f in fragments if f and not any(f in text for text in program)] == []


# The format of compiled plans ---------------------------------------------------------------------------------

#: Records that are no dataclass of the writer, and their fields.
HEAD_AND_END = {"key": ["key"], "owner": ["uid", "gid"], "stage": ["path"], "end": []}


def test_the_records_of_a_compiled_plan_are_those_of_the_writer_field_by_field():
    shown = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows("Records")}
    written = {record.name: [field.name for field in dataclasses.fields(record)] for record in get_args(wire.Record)}
    assert shown == written | HEAD_AND_END
    assert list(shown) == re.findall(r'\[PLAN_\w+\] = \{"(\w+)"', (PROJECT / "native/plan_read.c").read_text("utf-8"))


def test_every_field_of_a_compiled_plan_is_explained():
    explained = {name for row in rows("Fields") for name in re.findall(r"`(\w+)`", row[0])}
    assert explained == set(wire._CHECKS)


def test_flags_and_propagations_of_the_format_are_those_of_the_writer():
    cells = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows("Fields")}
    assert set(cells["flags"]) == wire._FLAGS
    words = [word for word in cells["propagation"] if word != "r"]
    assert {"", *words, *(f"r{word}" for word in words)} == wire._PROPAGATIONS


# JSON ---------------------------------------------------------------------------------------------------------

PROGRAMS = {
    "list": ["list"],
    "validate": ["validate", "/etc/cdi"],
    "plan": ["plan", "nvidia.com/gpu=all", "--image", "IMAGE"],
    "resolve": ["resolve", "nvidia.com/gpu=all"],
    "cache list": ["cache", "list"],
}


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            yield from keys(below)
    elif isinstance(value, list):
        for below in value:
            yield from keys(below)


@pytest.mark.parametrize("command", PROGRAMS)
def test_every_field_of_the_json_output_is_explained(lab, command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert lab.run(["cdi-hpc", "compile", "nvidia.com/gpu=all"]).returncode == 0  # a plan to be listed
    argv = [str(lab.image("debian-root")) if word == "IMAGE" else word for word in PROGRAMS[command]]
    answer = lab.run(["cdi-hpc", *argv, "--format", "json"])
    assert answer.returncode == 0, answer.stderr
    explained = set(re.findall(r"`(\w+)`", section(f"`{command} --format json`") + section("Actions of a plan")))
    assert {key for key in keys(json.loads(answer.stdout)) if key.isidentifier()} - explained == set()


def test_the_pages_name_the_version_that_is_installed():
    version = importlib.import_module("cdi_hpc").__version__
    changes = (PROJECT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## \[?{re.escape(version)}\b", changes, re.MULTILINE)
