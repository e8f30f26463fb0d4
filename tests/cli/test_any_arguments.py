"""Whatever is typed, nobody sees a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typed import STATUSES, typed

from cdi_hpc.cli.commands import cdi_hpc as program

_SPEC = str(Path(__file__).parent.parent / "views/nvidia-dgxa100-570/nvidia.yaml")

#: What people mistype, and what nobody would.
JUNK = (
    *("", " ", "-", "--", "---", "=", "==", ",", ",,", ":", "/", "//", ".", "..", "../../..", "~", "*", "%s", "$(id)"),
    *("\n", "\t", "\x1b[31m", "\udcff", "\udcff.yaml", "é", "日本", "x" * 5000, "/" + "x" * 300, "-1", "0", "1e999"),
    *("NaN", "99999999999", "nvidia.com/gpu", "nvidia.com/gpu=0", "nvidia.com/gpu=all", "nvidia.com/gpu=", "=all"),
    *("/=", "a/b=c,", "none", "all", "/dev/null", "/dev/full", "/proc/self/mem", "/proc/self/fd", "/etc", "/no/such"),
    *("/root/none", _SPEC, f"{_SPEC},{_SPEC}", "embedded", "bash", "ch-run", "slurm,", "nvidia", "auto", "native"),
    *("json", "A=b", "A", "=b", "a:b:c:d", "/:/:ro", "::", "--help", "-h", "--version", "-vvv", "-qq", "--format"),
    *("--format=json", "--no-such", "-Z", "--cdi-dir", "--image=/", "[a", "[", "{", "]]"),
)  # fmt: skip


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Every command, by the words that it is called with."""
    if not isinstance(command, click.Group):
        return {words: command}
    context = click.Context(command)
    found: dict[tuple[str, ...], click.Command] = {}
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        found.update(leaves(below, (*words, name)))
    return found


COMMANDS = leaves(program)

#: It stays until it is ended.
STAYING = "--watch"


def options(command: click.Command) -> st.SearchStrategy[list[str]]:
    """Words of an option, with a junk value where it takes one."""
    known = [
        (option, word)
        for option in command.params
        if isinstance(option, click.Option)
        for word in (*option.opts, *option.secondary_opts)
        if word != STAYING
    ]
    if not known:
        return st.just([])

    def words(pair: tuple[click.Option, str]) -> st.SearchStrategy[list[str]]:
        option, word = pair
        if option.is_flag or option.count:
            return st.just([word])
        values = st.lists(st.sampled_from(JUNK), min_size=option.nargs, max_size=option.nargs)
        joined = values.map(
            lambda given: [f"{word}={given[0]}", *given[1:]] if word.startswith("--") else [word, *given]
        )
        return st.one_of(values.map(lambda given: [word, *given]), joined)

    return st.sampled_from(known).flatmap(words)


def command_lines(command: click.Command) -> st.SearchStrategy[list[str]]:
    pieces = st.one_of(options(command), st.sampled_from(JUNK).map(lambda word: [word]))
    return st.lists(pieces, max_size=5).map(lambda found: [word for piece in found for word in piece])


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_no_command_line_shows_a_traceback(name: tuple[str, ...], tmp_path: Path):
    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(words=command_lines(COMMANDS[name]))
    def hold(words: list[str]) -> None:
        status, said = typed([*name, *words], str(tmp_path))
        assert "Traceback" not in said, said
        assert status in STATUSES, f"{status}: {said}"

    hold()


@settings(max_examples=60)
@given(words=st.lists(st.sampled_from(JUNK), max_size=3))
def test_no_word_in_the_place_of_a_command_shows_a_traceback(words: list[str], tmp_path_factory):
    status, said = typed(words, str(tmp_path_factory.getbasetemp()))
    assert "Traceback" not in said, said
    assert status in STATUSES, f"{status}: {said}"


#: Values that few options can have.
WRONG = ("", "\udcff", "x" * 5000)


def every_option(command: click.Command) -> list[list[str]]:
    """Each option of a command, with each value that it can't have, and without any."""
    lines = []
    for option in command.params:
        for word in (*option.opts, *option.secondary_opts) if isinstance(option, click.Option) else ():
            if word != STAYING:
                takes_none = option.is_flag or option.count
                lines += [[word], *([] if takes_none else [[word, value] for value in WRONG])]
    return lines


@pytest.mark.parametrize("name", [(), *COMMANDS], ids=" ".join)
def test_no_option_shows_a_traceback_whatever_its_value(name: tuple[str, ...], tmp_path: Path):
    for line in every_option(COMMANDS[name] if name else program):
        status, said = typed([*name, *line], str(tmp_path))
        assert "Traceback" not in said, (line, said)
        assert status in STATUSES, f"{line}: {status}: {said}"


def test_every_option_that_help_shows_is_among_them():
    """So a new one is tried without anybody thinking of it."""
    for name, command in COMMANDS.items():
        text = command.get_help(click.Context(command))
        shown = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)) - {STAYING, "--help"}
        assert shown <= {line[0] for line in every_option(command)}, name
