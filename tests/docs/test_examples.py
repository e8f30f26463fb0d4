"""Every example that a reader can copy from the README and the pages of docs/ does what the page shows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from page_examples import SHELLS, Block, blocks, matches, play

PROJECT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in (PROJECT / "docs").glob("*.md")))
EXAMPLES = [block for page in PAGES for block in blocks(PROJECT / page, page) if block.language in SHELLS]

#: Images in the reader's directory -> images of the lab.
IMAGES = {"debian12": "debian-root", "busybox": "musl"}


@pytest.fixture
def directory(lab, tmp_path, monkeypatch):
    """The directory that the reader is in; the native runner is installed, and nothing is compiled yet."""
    for name, image in IMAGES.items():
        (tmp_path / name).symlink_to(lab.image(image))
    (tmp_path / "native").symlink_to(PROJECT / "native")
    monkeypatch.setenv("PATH", f"{PROJECT / 'native/build'}:{os.environ['PATH']}")
    plans = tmp_path / "run"
    plans.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(plans))
    return tmp_path


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.where)
def test_every_example_says_whether_it_is_executed(block: Block):
    allowed = {"console": ("run", "fails", "after"), "sh": ("run",)}[block.language]
    assert block.use in allowed or block.use.removeprefix("shown: ") not in ("", block.use)


@pytest.mark.parametrize(
    "block",
    [block for block in EXAMPLES if block.language == "console" and block.use in ("run", "fails", "after")],
    ids=lambda block: block.where,
)
def test_commands_print_what_the_page_shows(block: Block, directory: Path):
    if block.use == "after":
        prepare(block, directory)
    commands = block.commands()
    results = play(commands, directory)
    assert len(results) == len(commands)
    for number, (command, (status, output)) in enumerate(zip(commands, results), 1):
        may_fail = block.use == "fails" and number == len(commands)
        if (status != 0) != may_fail:
            pytest.fail(f"exit status {status}:\n$ {command.text}\n{output}", pytrace=False)
        if not matches(command.output, output):
            shown = "\n".join(command.output)
            pytest.fail(f"shown:\n$ {command.text}\n{shown}\n\nseen:\n{output}", pytrace=False)


def prepare(block: Block, directory: Path) -> None:
    """Do what the page's scripts before this block do."""
    page, _, line = block.where.rpartition(":")
    for earlier in EXAMPLES:
        other, _, above = earlier.where.rpartition(":")
        if other == page and int(above) < int(line) and (earlier.language, earlier.use) == ("sh", "run"):
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", earlier.text], cwd=directory, check=False)
            assert done.returncode == 0, earlier.where


@pytest.mark.parametrize(
    "block",
    [block for block in EXAMPLES if block.language == "sh" and block.use == "run"],
    ids=lambda block: block.where,
)
def test_scripts_of_the_page_succeed(lab, block: Block, directory: Path):
    done = lab.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=directory)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "shown, seen, same",
    [
        (("a",), "a\n", True),
        (("a",), "a  \n", True),
        (("a",), "b\n", False),
        (("a",), "a\nb\n", False),
        ((), "", True),
        ((), "a\n", False),
        (("a", "...", "z"), "a\nb\nc\nz\n", True),
        (("a", "...", "z"), "a\nz\n", True),
        (("a", "...", "z"), "a\nb\n", False),
        (("a ... z",), "a b c z\n", True),
        (("a ... z",), "a b\nc z\n", False),
        (("a.c",), "abc\n", False),
        (("a   b",), "a            b\n", True),
        (("a   b",), "a b\n", False),
        (("a b",), "a  b\n", False),
    ],
)
def test_dots_stand_for_what_is_left_out_and_for_nothing_else(shown, seen, same):
    assert matches(shown, seen) is same


def test_a_command_is_seen_to_fail_and_the_next_one_sees_its_status(tmp_path):
    typed = Block(
        "page:1", "console", "run", "$ printf a\na\n$ (exit 3)\n$ echo $?\n3\n$ cat <<end\n> b\n> end\nb"
    ).commands()
    assert play(typed, tmp_path) == [(0, "a"), (3, ""), (0, "3\n"), (0, "b\n")]
