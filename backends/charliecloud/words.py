"""ch-run's command line, rewritten: some options go, some become others, the rest stays the user's own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from cdi_hpc.backend import Given, Invocation, Keep, Text, Word

#: Words in the place of an option, by the option's place among those given.
Changes = Mapping[int, tuple[Word, ...]]


def rewritten(invocation: Invocation, changes: Changes, first: tuple[Word, ...] = (), image: str = "") -> list[Word]:
    """The words up to the command.

    ``--`` comes before the image, so that neither it nor what follows is read as an option, with POSIXLY_CORRECT or
    without.

    Args:
        invocation: the command line as it was given.
        changes: words in the place of options.
        first: words before all options.
        image: an image argument in the place of the user's.

    """
    words = list(first)
    numbered = enumerate(invocation.given)
    for _, group in groupby(numbered, lambda pair: pair[1].index):
        words += _word(list(group), changes)
    words += [Text("--"), Text(image) if image else Keep(invocation.image_index)]
    return words


def _word(group: list[tuple[int, Given]], changes: Changes) -> Iterator[Word]:
    """The options that share a word, for only one-letter options do: ``-vtc DIR``."""
    if not any(number in changes for number, _ in group):
        index = group[0][1].index
        yield from (Keep(index + n) for n in range(max(given.count for _, given in group)))
        return
    for number, given in group:
        if number in changes:
            yield from changes[number]
        else:
            yield from _alone(given)


def _alone(given: Given) -> Iterator[Word]:
    """An option that shared its word with one that has gone. Its word is in the plan's key, and so is a value in it."""
    name = next(name for name in given.option.names if not name.startswith("--"))
    if given.count > 1:
        yield Text(name)
        yield Keep(given.index + 1)
    else:
        yield Text(name + (given.value or ""))
