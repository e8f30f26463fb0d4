"""Short names for devices, as a site or a user defines them: ``gpu`` for ``nvidia.com/gpu=all``. Pure.

An alias stands for a list of devices, kinds, spec files and other aliases; one that stands for several is a *meta
device*. Its name can't be mistaken for a device, a kind or a path, so it never hides one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec import names

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_RESERVED = {"all": "it means every device of a kind", "none": "it means no device"}


@dataclass(frozen=True)
class Alias:
    """What a name stands for.

    Attributes:
        where: file, line and field of the definition; only its text is used.

    """

    name: str
    stands_for: tuple[str, ...]
    where: object = ""


def name_complaint(name: str) -> str:
    """What is wrong with the name of an alias, or ""."""
    if name in _RESERVED:
        return f"{name!r} can't be an alias: {_RESERVED[name]}"
    if not _NAME.fullmatch(name):
        return f"{name!r} can't be an alias: a letter, then letters, digits, '-' and '_'"
    return ""


def problems(aliases: Mapping[str, Alias]) -> Iterator[Problem]:
    """Everything that is wrong with some aliases: what they stand for, and cycles."""
    for alias in aliases.values():
        for wanted in alias.stands_for:
            what, fix = _complaint(wanted, aliases)
            if what:
                yield Problem(str(alias.where), what, fix)
    yield from _cycles(aliases)


def expand(arguments: Sequence[str], aliases: Mapping[str, Alias]) -> tuple[str, ...]:
    """The arguments of a request with every alias replaced by what it stands for.

    An argument without aliases is passed on as it is: a comma in it may belong to a file's name.

    Args:
        arguments: each a device, or several with commas between them.
        aliases: without problems.

    Raises:
        CdiError: a word is nearly an alias, and can be nothing else.

    """
    known = {name: _devices(name, aliases) for name in _wanted(arguments, aliases)}
    expanded = [word for argument in arguments for word in _expand_argument(argument, known)]
    misspelled = [_misspelled(word, aliases) for argument in expanded for word in _parts(argument)]
    found = [problem for problem in misspelled if problem is not None]
    if found:
        raise CdiError(dict.fromkeys(found))
    return tuple(expanded)


def _parts(argument: str) -> list[str]:
    if argument.startswith(("/", "./", "../")):
        return []
    return [part.strip() for part in argument.split(",")]


def _wanted(arguments: Sequence[str], aliases: Mapping[str, Alias]) -> Iterator[str]:
    return (part for argument in arguments for part in _parts(argument) if part in aliases)


def _expand_argument(argument: str, known: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    parts = _parts(argument)
    if not any(part in known for part in parts):
        yield argument
        return
    for part in parts:
        yield from known.get(part, (part,))


def _devices(name: str, aliases: Mapping[str, Alias]) -> tuple[str, ...]:
    """What an alias comes down to, each once; as much work as there are aliases, however they are nested."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        wanted = waiting.pop()
        if wanted not in aliases:
            found[wanted] = None
        elif wanted not in seen:
            seen.add(wanted)
            waiting += reversed(aliases[wanted].stands_for)
    return tuple(found)


def _misspelled(word: str, aliases: Mapping[str, Alias]) -> Problem | None:
    if not _NAME.fullmatch(word):
        return None
    near = names.near_misses(word, aliases)
    return Problem(f"device {word!r}", "there is no such alias", f"did you mean {near[0]!r}?") if near else None


def _complaint(wanted: str, aliases: Mapping[str, Alias]) -> tuple[str, str]:
    if wanted in aliases or wanted.startswith("/"):
        return "", ""
    if "=" in wanted:
        name = names.parse_qualified(wanted)
        return (name, "a device is 'VENDOR/CLASS=NAME'") if isinstance(name, str) else ("", "")
    if "/" in wanted:
        return names.kind_complaint(wanted), "a kind is 'VENDOR/CLASS'"
    near = names.near_misses(wanted, aliases)
    fix = f"did you mean {near[0]!r}?" if near else "name a device, a kind, another alias, or a spec file from '/' on"
    return f"{wanted!r} is neither a device nor an alias", fix


def _cycles(aliases: Mapping[str, Alias]) -> Iterator[Problem]:
    """One problem for each alias that leads back to itself, the shortest way shown; each cycle once."""
    told: set[frozenset[str]] = set()
    for name in aliases:
        way = _way_back(name, aliases)
        if way and frozenset(way) not in told:
            told.add(frozenset(way))
            shown = " -> ".join(repr(step) for step in (*way, name))
            yield Problem(str(aliases[name].where), f"the alias stands for itself: {shown}", "break the cycle")


def _way_back(name: str, aliases: Mapping[str, Alias]) -> list[str]:
    came_from: dict[str, str] = {}
    waiting = [name]
    for current in waiting:
        for wanted in aliases[current].stands_for:
            if wanted == name:
                return _way(current, name, came_from)
            if wanted in aliases and wanted not in came_from:
                came_from[wanted] = current
                waiting.append(wanted)
    return []


def _way(last: str, first: str, came_from: Mapping[str, str]) -> list[str]:
    way = [last]
    while way[0] != first:
        way.insert(0, came_from[way[0]])
    return way
