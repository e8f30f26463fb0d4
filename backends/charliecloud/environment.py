"""Variables of a spec as words of ch-run, so that they take part in its order of ``--set-env`` and ``--unset-env``.

ch-run takes a pair of single quotes off a value, and replaces each part between colons that begins with ``$`` by
the variable of that name (ch-run(1), "Environment variables"). A value that would be changed is protected: by more
quotes, and by a variable that holds the part and is removed again. So no variable of a spec is ever in the
environment of ch-run itself, where ``LD_PRELOAD`` and others would act on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdi_hpc.backend import Text, Variable, Word
from cdi_hpc.plan import SetEnv, Unsupported

#: What protects a part of a value is called so, with a number.
_LITERAL = "CDI_HPC_LITERAL_"

#: ch-run sets these last, whatever it was told.
_OWN = frozenset(("CH_RUNNING",))


@dataclass(frozen=True)
class Assignments:
    """Variables in the words of ch-run.

    Attributes:
        words: in the place of the device option.
        variables: in ch-run's own environment.
        lacks: what can't be set.

    """

    words: tuple[Word, ...] = ()
    variables: tuple[Variable, ...] = ()
    lacks: tuple[Unsupported, ...] = ()


def assignments(planned: Sequence[SetEnv], *, expands: bool, unset_before: bool) -> Assignments:
    """How to set a plan's variables.

    Args:
        planned: in the plan's order.
        expands: ch-run replaces ``$NAME`` (no ``--env-no-expand``).
        unset_before: an ``--unset-env`` comes before, which may remove what a value is protected by.

    """
    words: list[Word] = []
    variables: list[Variable] = []
    lacks: list[Unsupported] = []
    for action in planned:
        literals = [part for part in action.value.split(":") if _is_replaced(part)] if expands else []
        if action.name in _OWN:
            lacks.append(_lack(action, "ch-run sets it itself"))
        elif literals and unset_before:
            what = "ch-run would expand the $ in its value; give --env-no-expand, or --unset-env after the device"
            lacks.append(_lack(action, what))
        else:
            first = len(variables)
            words.append(set_env(action.name, _protected(action.value, expands=expands, first=first)))
            variables += [Variable(f"{_LITERAL}{number}", part) for number, part in enumerate(literals, first)]
    if variables:
        words.append(Text(f"--unset-env={_LITERAL}*"))
    return Assignments(tuple(words), tuple(variables), tuple(lacks))


def set_env(name: str, value: str) -> Word:
    """The word that sets a variable to a value without ``$``."""
    quoted = f"'{value}'" if len(value) > 1 and value[0] == value[-1] == "'" else value
    return Text(f"--set-env={name}={quoted}")


def _is_replaced(part: str) -> bool:
    return len(part) > 1 and part.startswith("$")


def _protected(value: str, *, expands: bool, first: int) -> str:
    parts = value.split(":")
    if expands:
        numbers = iter(range(first, first + len(parts)))
        parts = [f"${_LITERAL}{next(numbers)}" if _is_replaced(part) else part for part in parts]
    return ":".join(parts)


def _lack(action: SetEnv, reason: str) -> Unsupported:
    return Unsupported(f"env {action.name}", reason, action.origin)
