"""ch-run's command line, rewritten: some options go, some become others, the rest stays the user's own words."""

from __future__ import annotations

from collections.abc import Mapping

from cdi_hpc.backend import Invocation, Keep, Text, Word

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
    for number, given in enumerate(invocation.given):
        words += changes.get(number, [Keep(given.index + n) for n in range(given.count)])
    return [*words, Text("--"), Text(image) if image else Keep(invocation.image_index)]
