"""Fenced blocks of Markdown as programs: what a reader types, and what the page says comes back.

The info string of a block says what is done with it:

    ```console run      commands begin with "$ " (and "> " where they go on); all have to succeed
    ```console fails    the same, and the last command has to fail
    ```console after    the same as run, in a directory where the page's scripts before it were run
    ```sh run           a script for bash that has to succeed
    ```console shown: REASON    (or sh) not executed, for this reason

In the output shown, a line ``...`` stands for any number of lines and ``...`` within a line for any text. Two blanks
or more stand for the gap between two columns, however wide; blanks at the ends of lines don't count.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELLS = ("console", "sh")
_FENCE = re.compile(r"(?P<indent> *)```(?P<info>.*)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        where: file and line, for the test's name.
        language: the first word of the info string.
        use: the rest of it.

    """

    where: str
    language: str
    use: str
    text: str

    def commands(self) -> list[Command]:
        """What is typed, with the output shown after it."""
        commands: list[Command] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                commands.append(Command(line[2:], ()))
            elif line.startswith("> ") and commands and not commands[-1].output:
                commands[-1] = Command(f"{commands[-1].text}\n{line[2:]}", ())
            else:
                assert commands, f"{self.where}: output before the first command: {line!r}"
                commands[-1] = Command(commands[-1].text, (*commands[-1].output, line))
        return commands


@dataclass(frozen=True)
class Command:
    """What is typed at a prompt, and the lines that are shown after it."""

    text: str
    output: tuple[str, ...]


def blocks(file: Path, name: str) -> Iterator[Block]:
    """All fenced blocks of a Markdown file."""
    lines = iter(enumerate(file.read_text("utf-8").splitlines(), 1))
    for number, line in lines:
        opening = _FENCE.fullmatch(line)
        if opening is None:
            continue
        language, _, use = opening["info"].partition(" ")
        body = []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            body.append(inner.removeprefix(opening["indent"]))
        yield Block(f"{name}:{number}", language, use.strip(), "\n".join(body))


def matches(shown: tuple[str, ...], seen: str) -> bool:
    """Whether the output is as shown."""
    pattern = "".join(r"(?:.*\n)*" if line.strip() == "..." else _line_pattern(line) for line in shown)
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in seen.splitlines())) is not None


def _line_pattern(line: str) -> str:
    def meaning(text: str) -> str:
        if text == "...":
            return ".*"
        return " {2,}" if text.startswith("  ") else re.escape(text)

    return "".join(map(meaning, re.split(r"(\.\.\.| {2,})", line.rstrip()))) + r"\n"


def play(commands: list[Command], directory: Path) -> list[tuple[int, str]]:
    """Type the commands into one bash; exit status and output (both streams) of each."""
    # The status is what the next command sees in $?, as at a prompt.
    marker = "--end of a command--"
    script = "".join(
        f"{command.text}\n{{ seen=$?; echo; echo '{marker}' $seen; (exit $seen); }} 2>&1\n" for command in commands
    )
    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    parts = re.split(rf"\n?^{re.escape(marker)} (\d+)\n", done.stdout, flags=re.MULTILINE)
    return [(int(status), output) for output, status in zip(parts[::2], parts[1::2])]
