"""Tables on terminals of all kinds, in logs and in files: who wants colours has them, and nobody else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from terminal import Terminal

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9](;[0-9;]*)?m")

EXPLAIN = ["cdi-hpc", "explain", "nvidia.com/gpu=0", "--for", "embedded,bash"]


def on_terminal(words: list[str], columns: int = 120, **env: str) -> str:
    """What a terminal is sent; the last thing is our own."""
    shown = Terminal(["sh", "-c", '"$@"; echo DO""NE', "sh", *words], {"TERM": "xterm-256color", **env}, columns)
    try:
        return shown.read_until("DONE")
    finally:
        shown.end()


def test_a_terminal_gets_colours(lab):
    assert COLOUR.search(on_terminal(EXPLAIN))


def test_no_color_takes_them(lab):
    assert not COLOUR.search(on_terminal(EXPLAIN, NO_COLOR="1"))


def test_an_empty_no_color_is_none(lab):
    assert COLOUR.search(on_terminal(EXPLAIN, NO_COLOR=""))


@pytest.mark.parametrize("words", [EXPLAIN, ["cdi-hpc", "list"], ["cdi-hpc", "doctor"]], ids=lambda words: words[1])
def test_a_dumb_terminal_gets_no_escapes(words: list[str], lab):
    assert "\x1b" not in on_terminal(words, TERM="dumb")


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("words", [["cdi-hpc", "list"], EXPLAIN], ids=lambda words: words[1])
def test_a_table_is_as_wide_as_the_terminal_at_most(words: list[str], columns: int, lab):
    lines = on_terminal(words, columns, TERM="dumb").splitlines()
    assert max(map(len, lines)) <= columns


def test_a_file_has_one_line_for_each_row_whatever_the_width(lab):
    done = lab.run(["cdi-hpc", "list"], env={"COLUMNS": "20"})
    assert "nvidia.com/gpu=0    /etc/cdi/nvidia.yaml  0.5.0" in done.stdout.splitlines()
    assert "\x1b" not in done.stdout


def test_a_log_has_colours_where_they_are_forced(lab):
    forced = lab.run(EXPLAIN, env={"FORCE_COLOR": "1", "TERM": "xterm"}).stdout
    assert COLOUR.search(forced)
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", forced).splitlines())) > 80
    assert not COLOUR.search(lab.run(EXPLAIN, env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout)
    assert "\x1b" not in lab.run([*EXPLAIN, "--format", "json"], env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b" not in lab.run([*EXPLAIN, "--format", "markdown"], env={"FORCE_COLOR": "1"}).stdout


def test_hostile_names_do_not_get_to_a_terminal(tmp_path: Path, lab):
    (tmp_path / "x\x1b[31my.yaml").write_text("cdiVersion: 99\nkind: no\n")
    for env in ({"TERM": "dumb"}, {"TERM": "xterm-256color", "NO_COLOR": "1"}):
        assert "\x1b[31m" not in on_terminal(["cdi-hpc", "validate", str(tmp_path)], **env)
