"""What takes more than a moment is said on a terminal, and nowhere else."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from terminal import Terminal

#: Waits for a line within the block; a second one ends it.
WORK = """
import sys, time
from cdi_hpc.cli.progress import progress
print("BEGUN", flush=True)
with progress("copying things") as say:
    say("half of it, [bold]\\x1b[31m", 1, 2)
    sys.stdin.readline()
print("rich" in sys.modules, "DONE", flush=True)
sys.stdin.readline()
"""

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9](;[0-9;]*)?m")


@pytest.fixture
def begin():
    """Starts a program on a terminal of its own."""
    begun = []

    def start(argv: list[object], env: Mapping[str, str]) -> Terminal:
        begun.append(Terminal([str(word) for word in argv], {"TERM": "xterm-256color", "NO_COLOR": "", **env}))
        return begun[-1]

    yield start
    for each in begun:
        each.end()


def test_it_is_shown_on_a_terminal_and_taken_back(begin):
    work = begin([sys.executable, "-c", WORK], {})
    shown = work.read_until("half of it")
    assert COLOUR.search(work.read_until("0:00:0"))
    work.type("\n")
    end = work.read_until("DONE")
    assert "False DONE" in end  # rich was for the other process to look for
    assert "\x1b[2K" in end  # the line is erased
    assert "\x1b[?25h" in end  # the cursor is back
    assert "[bold]" in shown + end or "\\x1b[31m" in shown + end
    assert "\x1b[31m[bold]" not in shown


def test_no_color_takes_the_colours_only(begin):
    work = begin([sys.executable, "-c", WORK], {"NO_COLOR": "1"})
    shown = work.read_until("half of it") + work.read_until("0:00:0")
    work.type("\n")
    assert not COLOUR.search(shown + work.read_until("DONE"))


#: The same without a hand on it.
ALONE = WORK.replace("    sys.stdin.readline()", "    time.sleep(1.5)")


@pytest.mark.parametrize(
    ("text", "env"),
    [
        (ALONE, {"TERM": "dumb"}),
        (ALONE, {"TERM": ""}),
        (ALONE.replace('"copying things"', '"copying things", wanted=False'), {}),
        (ALONE.replace("time.sleep(1.5)", "pass"), {}),
    ],
)
def test_it_is_not_shown_where_it_is_not_wanted_or_not_needed(text, env, begin):
    shown = begin([sys.executable, "-c", text], env).read_until("DONE")
    assert "half" not in shown
    assert "\x1b" not in shown


def test_nothing_is_said_where_standard_error_is_no_terminal(lab):
    done = lab.run([sys.executable, "-c", ALONE], env={"TERM": "xterm", "FORCE_COLOR": "1"})
    assert (done.stdout, done.stderr) == ("BEGUN\nFalse DONE\n", "")


def test_who_shows_it_ends_with_the_work(begin):
    text = WORK.replace('print("BEGUN"', 'import os; print(os.getpid(), "BEGUN"')
    shell = begin(["sh", "-c", '"$@"; read -r end', "sh", sys.executable, "-c", text], {})
    found = re.search(r"([0-9]+) BEGUN", shell.read_until("half of it"))
    assert found
    os.kill(int(found[1]), signal.SIGKILL)
    assert shell.read_until(r"\x1b\[\?25h")


@pytest.fixture
def slow(tmp_path: Path, lab) -> dict[str, str]:
    """An environment with a launcher that takes long to say what it can do."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/ch-run"
    script.write_text('#!/bin/sh\nsleep 1.5\nexec /usr/bin/ch-run "$@"\n')
    script.chmod(0o755)
    tmp_path.chmod(0o700)
    return {"PATH": f"{script.parent}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(tmp_path)}


def test_a_launch_that_is_prepared_for_long_says_so(begin, slow, lab):
    words = ["cdi-hpc", "exec", "ch-run", "--device=nvidia.com/gpu=0", lab.image("debian-root"), "--", "echo", "IN"]
    shown = begin(words, slow).read_until("IN\r")
    assert "asking ch-run what it can do" in shown
    quiet = begin([*words[:2], "-q", *words[2:]], {**slow, "XDG_RUNTIME_DIR": f"{slow['XDG_RUNTIME_DIR']}/none"})
    assert "asking" not in quiet.read_until("IN\r")


def test_a_command_that_speaks_to_programs_shows_none(begin, slow):
    assert "\x1b[2K" in begin(["cdi-hpc", "doctor"], slow).read_until(r"[0-9] ok.*\n")
    shown = begin(["cdi-hpc", "doctor", "--format", "json"], slow).read_until(r"\n\]\r")
    assert "\x1b" not in shown
