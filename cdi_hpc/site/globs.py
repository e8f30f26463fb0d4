"""Patterns of site rules, matched against hostile text. Pure.

Two kinds:

*Text patterns*, for names and values: ``*`` is any text, the empty one included; ``?`` one character; ``[abc]``,
``[a-z]`` and ``[!a-z]`` one of these, or one of all others. A ``]`` right after the ``[`` (or ``[!``) stands for
itself. Everything else stands for itself, the backslash too: a star is written ``[*]``.

*Path patterns*: parts between slashes, each of them a text pattern for one part of a path, so that ``*`` never
matches a slash. A part that is ``**`` stands for any number of parts, none included: ``/opt/**`` is ``/opt`` and
everything below it.

Case counts, a leading dot is a character like others, and a newline is one, too. Matching takes time in proportion to
the length of the text times that of the pattern, whatever the text: no backtracking.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: A part of a path pattern that stands for any number of parts.
ANY_PARTS = "**"


class PatternError(ValueError):
    """The text is no pattern; says why."""


@dataclass(frozen=True)
class TextPattern:
    """A pattern for a whole text.

    Attributes:
        text: as it was written.
        pieces: regular expressions of what stands between the stars, each for a fixed number of characters.
        width: that number, of the last piece.

    """

    text: str
    pieces: tuple[re.Pattern[str], ...] = field(repr=False, compare=False)
    width: int = field(repr=False, compare=False)

    def matches(self, text: str) -> bool:
        """Whether the whole text is one that the pattern describes."""
        first, *rest = self.pieces
        found = first.match(text)
        if found is None:
            return False
        if not rest:
            return found.end() == len(text)
        end = found.end()
        # The leftmost place is as good as any other for all pieces but the last, which has to stand at the end.
        for piece in rest[:-1]:
            found = piece.search(text, end)
            if found is None:
                return False
            end = found.end()
        last = len(text) - self.width
        return last >= end and rest[-1].match(text, last) is not None


@dataclass(frozen=True)
class PathPattern:
    """A pattern for a normalised path, absolute or not.

    Attributes:
        text: as it was written.
        parts: text patterns, and None for each ``**``.

    """

    text: str
    parts: tuple[TextPattern | None, ...] = field(repr=False, compare=False)

    def matches(self, path: str) -> bool:
        """Whether the path is one that the pattern describes."""
        return len(self.parts) in self._after(path)

    def matches_below(self, path: str) -> bool:
        """Whether the pattern could describe something below the path: ``/etc/*`` below ``/etc`` and ``/``."""
        return any(position < len(self.parts) for position in self._after(path))

    def _after(self, path: str) -> set[int]:
        """Positions in the pattern at which it may be when the path has been read."""
        positions = self._skip({0})
        for part in (part for part in path.split("/") if part):
            positions = self._skip({after for at in positions for after in self._step(at, part)})
        return positions

    def _step(self, at: int, part: str) -> tuple[int, ...]:
        if at == len(self.parts):
            return ()
        pattern = self.parts[at]
        if pattern is None:
            return (at,)
        return (at + 1,) if pattern.matches(part) else ()

    def _skip(self, positions: set[int]) -> set[int]:
        """With the positions behind every ``**`` that may stand for nothing."""
        reached = set(positions)
        for at in sorted(positions):
            after = at
            while after < len(self.parts) and self.parts[after] is None:
                after += 1
                reached.add(after)
        return reached


def text_pattern(text: str) -> TextPattern:
    """A pattern for names and values.

    Raises:
        PatternError: a bracket is not closed, or a range runs backwards.

    """
    pieces: list[list[str]] = [[]]
    at = 0
    while at < len(text):
        character = text[at]
        if character == "*":
            pieces.append([])
            at += 1
        elif character == "[":
            expression, at = _choice(text, at)
            pieces[-1].append(expression)
        else:
            pieces[-1].append("." if character == "?" else re.escape(character))
            at += 1
    return TextPattern(text, tuple(re.compile("".join(piece), re.DOTALL) for piece in pieces), len(pieces[-1]))


def path_pattern(text: str) -> PathPattern:
    """A pattern for paths, or for anything else that has parts between slashes.

    Raises:
        PatternError: as :func:`text_pattern`; ``.`` or ``..`` is a part; ``**`` is only some of a part.

    """
    parts: list[TextPattern | None] = []
    for part in (part for part in text.split("/") if part):
        if part in (".", ".."):
            raise PatternError(f"{part!r} in a pattern never matches: paths are compared without it")
        if part == ANY_PARTS:
            parts.append(None)
        elif ANY_PARTS in re.sub(r"\[.[^]]*\]", "", part):
            raise PatternError(f"'**' has to be all that stands between two slashes, found {part!r}")
        else:
            parts.append(text_pattern(part))
    return PathPattern(text, tuple(parts))


def _choice(text: str, start: int) -> tuple[str, int]:
    """The expression of a bracket, and where the pattern goes on."""
    at = start + 1
    negated = text[at : at + 1] == "!"
    at += negated
    end = text.find("]", at + 1)
    if end < 0:
        raise PatternError(f"'[' is not closed in {text!r}; a bracket itself is written '[[]'")
    return f"[{'^' if negated else ''}{_members(text[at:end], text)}]", end + 1


def _members(body: str, pattern: str) -> str:
    """What stands between brackets, as regular expressions write it."""
    members = ""
    at = 0
    while at < len(body):
        low, dash, high = body[at], body[at + 1 : at + 2], body[at + 2 : at + 3]
        is_range = dash == "-" and high != ""
        if is_range and high < low:
            raise PatternError(f"the range '{low}-{high}' runs backwards in {pattern!r}")
        members += f"{re.escape(low)}-{re.escape(high)}" if is_range else re.escape(low)
        at += 3 if is_range else 1
    return members
