"""What went wrong, said once: what failed, where, what was found there, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
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


#: As many problems with one reason are told one by one. Folding a single one more would save no line.
_TOLD = 3


def in_short(problems: Iterable[Problem]) -> Iterator[str]:
    """A line for each problem; of many with one reason, the first few and how many more there are.

    A directory that can't be searched, or an option, is one reason for each of a hundred edits.
    """
    every = tuple(problems)
    texts, things = Counter(map(_text, every)), Counter(map(_thing, every))
    told: Counter[tuple[str, ...]] = Counter()
    for problem in every:
        text, thing = _text(problem), _thing(problem)
        reason, count = (text, texts[text]) if texts[text] > 1 or not problem.fix else (thing, things[thing])
        told[reason] += 1
        if told[reason] <= _TOLD or count <= _TOLD + 1:
            yield str(problem)
        elif told[reason] == _TOLD + 1:
            yield f"... and {count - _TOLD} more for the same reason"


def _text(problem: Problem) -> tuple[str, ...]:
    return (problem.what,)


def _thing(problem: Problem) -> tuple[str, ...]:
    return (problem.where, problem.fix)


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
