"""Manual pages: every command and key has its place, and what reads such pages has nothing to complain of."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cdi_hpc.cli import manual
from cdi_hpc.cli.commands import cdi_hpc as program
from cdi_hpc.config import schema
from cdi_hpc.config.build import build
from cdi_hpc.config.files import ConfigFile
from cdi_hpc.config.settings import join, of_file

PAGES = manual.pages()


@pytest.mark.parametrize("path", PAGES)
def test_mandoc_has_nothing_to_say_about_a_page(path: str, tmp_path: Path, lab):
    page = tmp_path / os.path.basename(path)
    page.write_text(PAGES[path])
    done = lab.run(["mandoc", "-Tlint", "-Wall", page])
    # The line below NAME can't be broken: whatis(1) shows it.
    said = [line for line in done.stdout.splitlines() if not re.search(r":3:[0-9]+: STYLE: input text line", line)]
    assert (said, done.stderr) == ([], "")


def shown(path: str, lab) -> str:
    done = lab.run(["mandoc", "-Tutf8", "-Owidth=1000"], stdin=PAGES[path])
    # Bold is a letter over itself (col(1)).
    out = done.stdout
    while "\b" in out:
        at = out.index("\b")
        out = out[: at - 1] + out[at + 1 :]
    return out


@pytest.mark.parametrize("name", program.list_commands(click.Context(program)))
def test_every_option_of_a_command_is_on_its_page(name: str, lab):
    command = program.get_command(click.Context(program), name)
    assert command is not None
    text = shown(f"man1/cdi-hpc-{name}.1", lab)
    below = command.commands.values() if isinstance(command, click.Group) else [command]
    options = [option for each in below for option in each.params if isinstance(option, click.Option)]
    missing = [text for option in options if not option.hidden for word in option.opts if word not in text]
    assert missing == []
    assert (command.help or "").split("\n")[0] in text


@pytest.mark.parametrize("name", ["", *program.list_commands(click.Context(program))])
def test_examples_are_command_lines_that_are_understood(name: str):
    assert manual.EXAMPLES[name]
    for _, line in manual.EXAMPLES[name]:
        words = shlex.split(line)
        assert words[0] == "cdi-hpc"
        assert name in ("", words[1])
        command: click.Command | None = program
        rest = words[1:]
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), rest[0])
            rest = rest[1:]
        assert command is not None
        command.make_context(words[1], rest)


def test_the_configuration_that_is_shown_is_one():
    settings = of_file(ConfigFile("example", manual.EXAMPLE_CONFIGURATION.encode()), "site")
    assert build(join(settings)).aliases["gpu"].stands_for == ("nvidia.com/gpu=all",)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_the_sections_that_are_looked_for(path: str, lab):
    text = shown(path, lab)
    wanted = ["DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO"]
    if path.endswith(".1"):
        wanted += ["SYNOPSIS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT"]
        if path in ("man1/cdi-hpc-cache.1", "man1/cdi-hpc-config.1"):
            wanted.remove("OPTIONS")  # each subcommand has its own
    assert [section for section in wanted if f"\n{section}\n" not in text] == []


def test_man_shows_them(tmp_path: Path, lab):
    manual.write(str(tmp_path))
    for name in ("cdi-hpc", "cdi-hpc-run", "cdi-hpc.config"):
        done = lab.run(["man", "-M", tmp_path, name], env={"MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
        assert (done.returncode, done.stderr) == (0, "")
        assert name in done.stdout


def test_every_key_is_on_the_page_of_the_configuration(lab):
    text = shown("man5/cdi-hpc.config.5", lab)
    assert [key.shown for key in schema.all_keys() if key.shown not in text] == []
    assert [key.variable for key in schema.all_keys() if key.variable not in text] == []


def test_what_troff_would_take_for_its_own_is_shown(lab):
    text = ".x a-b \\n `~^ 'quoted'"
    done = lab.run(["mandoc", "-Tascii"], stdin=f".TH X 1 2020-01-01\n.SH NAME\n{manual.escaped(text)}\n")
    assert text in done.stdout


def test_pages_are_the_same_when_made_again(tmp_path: Path):
    for name in ("first", "second"):
        subprocess.run(
            [sys.executable, "-m", "cdi_hpc.cli.manual", tmp_path / name],
            env={**os.environ, "SOURCE_DATE_EPOCH": "1000000000"},
            check=True,
        )
    first, second = ({p.relative_to(top): p.read_text() for p in top.rglob("*.?")} for top in tmp_path.iterdir())
    assert first == second
    assert "2001-09-09" in next(iter(first.values()))


def test_no_commands_description_is_cut_in_the_overview():
    overview = program.get_help(click.Context(program, info_name="cdi-hpc", terminal_width=80))
    assert not re.search(r"\.\.\.$", overview.partition("\nCommands:\n")[2], re.MULTILINE)
