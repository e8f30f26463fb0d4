"""Launchers that somebody else made, one package each behind :class:`cdi_hpc.backend.Backend`.

Ours are in the table here. Others are found by entry points of the group ``cdi_hpc.backends``: the name is that of the
program they stand for, the value a class or a function that takes nothing and gives the backend. A backend for several
programs has an entry point for each.

Nothing is imported before it is needed, so one that can't be imported is a problem of those who launch with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cdi_hpc.backend import Backend, BackendFaultError
from cdi_hpc.errors import CdiError, Problem

GROUP = "cdi_hpc.backends"


@dataclass(frozen=True)
class _BuiltIn:
    name: str
    commands: tuple[str, ...]
    made_by: str


_BUILT_IN = (
    _BuiltIn("charliecloud", ("ch-run",), "Charliecloud"),
    _BuiltIn("singularity", ("apptainer", "singularity"), "Singularity"),
)


def commands() -> tuple[str, ...]:
    """Every program that there is a backend for, ours first."""
    ours = [command for each in _BUILT_IN for command in each.commands]
    return tuple(dict.fromkeys((*ours, *sorted(_entry_points()))))


def backend_names() -> tuple[str, ...]:
    """What :func:`of_name` takes: names of our backends, and programs of the others."""
    known = {command for each in _BUILT_IN for command in each.commands}
    return (*(each.name for each in _BUILT_IN), *sorted(command for command in _entry_points() if command not in known))


def commands_of(name: str) -> tuple[str, ...]:
    """Programs that one of our own backends stands for; none for any other name."""
    return next((each.commands for each in _BUILT_IN if name == each.name), ())


def for_command(command: str) -> Backend:
    """The backend for a program's base name.

    Raises:
        CdiError: there is none, or it can't be imported.

    """
    for each in _BUILT_IN:
        if command in each.commands:
            return _load(each)
    found = _entry_points().get(command)
    if found is None:
        known = ", ".join(repr(name) for name in commands())
        raise CdiError(Problem(f"launcher {command!r}", "there is no backend for it", f"there are some for {known}"))
    return found()


def of_name(name: str) -> Backend:
    """A backend by its own name, or that of a program it stands for (CdiError as above)."""
    for each in _BUILT_IN:
        if name == each.name:
            return _load(each)
    return for_command(name)


def _load(built_in: _BuiltIn) -> Backend:
    module = importlib.import_module(f"cdi_hpc.backends.{built_in.name}")
    made: Backend = getattr(module, built_in.made_by)()
    return made


def misnamed() -> tuple[Problem, ...]:
    """Entry points that can be no program's: they are passed over, and whoever lists launchers says so."""
    fix = "correct the package that brings it: the name is that of the program"
    return tuple(
        Problem(f"backend for {point.name!r} ({point.value})", "is passed over: this is no program's name", fix)
        for point in _points()
        if not _is_programs(point.name)
    )


def _entry_points() -> dict[str, Callable[[], Backend]]:
    return {point.name: _loader(point) for point in _points() if _is_programs(point.name)}


def _is_programs(name: str) -> bool:
    return name.isprintable() and "/" not in name and name.strip() not in ("", ".", "..")


def _points() -> Any:
    from importlib import metadata

    every = metadata.entry_points()
    # A dictionary until Python 3.10, which has a method in its place.
    return every.select(group=GROUP) if hasattr(every, "select") else every.get(GROUP, ())


def _loader(point: Any) -> Callable[[], Backend]:
    def load() -> Backend:
        where = f"backend for {point.name!r} ({point.value})"
        try:
            made = point.load()()
            lacking = [name for name in _PROTOCOL if not hasattr(made, name)]
            commands = () if lacking else tuple(made.commands)
            named = lacking or (isinstance(made.name, str) and all(isinstance(each, str) for each in commands))
        except (Exception, SystemExit) as error:  # somebody else's code, at import: a script of theirs may exit
            what = f"can't be loaded: {type(error).__name__}: {error}"
            raise BackendFaultError(Problem(where, what, "repair or remove the package that brings it")) from error
        if lacking or not named:
            what = f"it has no {', '.join(lacking)}" if lacking else "its name, or one of its commands, is no text"
            raise CdiError(Problem(where, f"is no backend: {what}", "see docs/backends.md"))
        from cdi_hpc.backends.theirs import TheirBackend

        return TheirBackend(made, point.value)

    return load


#: What a backend has to have.
_PROTOCOL = ("name", "commands", "probe", "locate", "adapt")
