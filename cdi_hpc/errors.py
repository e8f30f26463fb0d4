"""What went wrong, said once: what failed, where, what was found there, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: the object it is about: a file (with line:column or a field path), a device, an image.
        what: what is wrong, lower case, no final stop; values that came from outside are repr-quoted.
        fix: what the reader can do about it, or "".

    """

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        """One line: control characters of hostile values never reach a terminal."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.fix:
            text = f"{text} ({self.fix})"
        return printable(text)


class CdiError(Exception):
    """Everything the library refuses to do; carries all problems that were found, not just the first."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        """Keep the problems in the order given."""
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def printable(text: str) -> str:
    """Text safe for one line of a terminal: anything unprintable is escaped as Python would in a string.

    Not by a codec: Python would look for that one in files, which after a change of root are the image's.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def assert_never(value: NoReturn) -> NoReturn:
    """For the end of a dispatch over a closed set of types: mypy proves that it is not reached."""
    raise AssertionError(f"unhandled {value!r}")
