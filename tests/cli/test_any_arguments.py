"""Whatever is typed, nobody sees a traceback."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi_hpc.cli import main
from cdi_hpc.cli.commands import cdi_hpc as program

#: Seconds for one command line.
_PATIENCE = 60

_STATUSES = {0, 1, 2, 125, 126, 127}

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
        for word in option.opts
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


def run(words: Sequence[str], directory: str) -> tuple[int, str]:
    """Exit status, and what is said on standard error. In a process of its own: some commands become another one."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            _become(words, directory, said.fileno())
        _, state = os.waitpid(child, 0)
        said.seek(0)
        return os.waitstatus_to_exitcode(state), said.read().decode(errors="replace")


def _become(words: Sequence[str], directory: str, stderr: int) -> None:
    status = 70
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd, source in ((0, null), (1, null), (2, stderr)):
            os.dup2(source, fd)
        sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115  # until the process ends
        sys.stderr = open(2, "w", errors="backslashreplace")  # noqa: SIM115  # as Python itself has it
        sys.argv = ["cdi-hpc", *words]
        os.environ.update(PATH="/nonexistent", XDG_RUNTIME_DIR=directory, HOME=directory, TMPDIR=directory)
        os.chdir(directory)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_PATIENCE)
        main(words)
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else 1 if done.code else 0
    except BaseException:  # noqa: BLE001  # that is what is looked for
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_no_command_line_shows_a_traceback(name: tuple[str, ...], tmp_path: Path):
    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(words=command_lines(COMMANDS[name]))
    def hold(words: list[str]) -> None:
        status, said = run([*name, *words], str(tmp_path))
        assert "Traceback" not in said, said
        assert status in _STATUSES, f"{status}: {said}"

    hold()


@settings(max_examples=60)
@given(words=st.lists(st.sampled_from(JUNK), max_size=3))
def test_no_word_in_the_place_of_a_command_shows_a_traceback(words: list[str], tmp_path_factory):
    status, said = run(words, str(tmp_path_factory.getbasetemp()))
    assert "Traceback" not in said, said
    assert status in _STATUSES, f"{status}: {said}"
