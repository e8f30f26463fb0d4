"""Launchers that somebody else made: what they would be given if they are here, else what their backends say."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from cdi_hpc import backends
from cdi_hpc.backend import Backend, Dressing, Invocation, Located, Profile, Ways
from cdi_hpc.compiled.cache_place import user_directory
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.explain.attempt import attempt
from cdi_hpc.explain.no_image import PLACE, NoFiles
from cdi_hpc.explain.request import Finding, Request, libraries
from cdi_hpc.explain.views import View
from cdi_hpc.explain.ways import Dressed, InGeneral
from cdi_hpc.launch import launcher_options, profile
from cdi_hpc.plan import Plan
from cdi_hpc.planning import judged
from cdi_hpc.witness import Witness

#: What stands for the command. Nothing is started.
_COMMAND = "true"

#: The subcommand that stands for all, where a launcher has several.
_SUBCOMMAND = ("exec",)


@dataclass(frozen=True)
class _Launcher:
    """A launcher that is here."""

    backend: Backend
    found: profile.Launcher
    known: Profile


def names() -> tuple[str, ...]:
    """Every launcher that there is a backend for, one for each backend."""
    return backends.backend_names()


def view(name: str, request: Request) -> View:
    """What one of them does: nothing, where its backend can't be loaded, which is no reason to end an explanation."""
    try:
        backend = backends.of_name(name)
    except CdiError as error:
        stops = tuple(map(str, error.problems))
        plan = request.plan(request.configuration.launcher(name))
        return Finding(plan, None, stops=stops, installed=False).view(name, f"{name}: its backend is broken", request)
    commands = backend.commands if name == backend.name else (name,)
    defaults = request.configuration.launcher(backend.name)
    plan = request.plan(defaults)
    launcher = _find(backend, commands, request)
    if isinstance(launcher, _Launcher):
        return _finding(launcher, plan, request).view(name, launcher.found.path, request)
    statement = getattr(backend, "ways", None)
    ways = InGeneral(statement if isinstance(statement, Ways) else None)
    found = Finding(plan, ways, messages=launcher, installed=False)
    return found.view(name, f"{' or '.join(commands)}: not installed here, so this is how it is in general", request)


def _find(backend: Backend, commands: tuple[str, ...], request: Request) -> _Launcher | tuple[str, ...]:
    """The first of a backend's programs that is here, or what is worth telling about there being none."""
    for command in commands:
        try:
            found = profile.find_launcher(command, request.environ)
            return _Launcher(backend, found, profile.obtain(backend, found, None))
        except profile.NotFoundError:
            continue
        except CdiError as error:  # it is here, and does not answer
            return tuple(map(str, error.problems))
    return ()


def _finding(launcher: _Launcher, plan: Plan, request: Request) -> Finding:
    defaults = request.configuration.launcher(launcher.backend.name)
    try:
        invocation = _invocation(launcher, request)
        located = _located(launcher, invocation, request)
    except CdiError as error:
        return Finding(plan, None, stops=tuple(map(str, error.problems)))

    def say(possible: Plan) -> Dressing:
        return launcher.backend.adapt(
            possible, invocation, launcher.known, located, request.host, request.environ, Witness()
        )

    tried = attempt(plan, say)
    dressing = tried.result
    if dressing is None:
        return Finding(plan, None, failed=tried.failed, stops=tried.stops)
    lacks = judged(dressing.lacks, defaults.unsupported)
    ways = Dressed(dressing, launcher.found.command, is_known=request.wanted.image is not None)
    covered = dressing.assembly.covered if dressing.assembly is not None else ()
    found = Finding(plan, ways, lacks, tried.failed, covered=covered)
    if request.wanted.image is None:
        return found
    stops, told = libraries(dressing.assembly, defaults) if dressing.assembly is not None else ((), ())
    return replace(found, stops=stops, messages=(*dressing.messages, *told))


def _invocation(launcher: _Launcher, request: Request) -> Invocation:
    """The plainest command line that begins a container."""
    known = [subcommand.words for subcommand in launcher.known.subcommands]
    subcommand = _SUBCOMMAND if _SUBCOMMAND in known else known[0] if known else ()
    image = request.wanted.image or PLACE
    words = (*subcommand, "--", image, _COMMAND) if image.startswith("-") else (*subcommand, image, _COMMAND)
    reading = launcher_options.read(words, launcher.known, in_order=True, wanted=True)
    if not isinstance(reading, Invocation):
        what = f"its options leave no way to begin a container with {' '.join(words)!r}"
        raise CdiError(Problem(launcher.found.path, what))
    return reading


def _located(launcher: _Launcher, invocation: Invocation, request: Request) -> Located:
    if request.wanted.image is None:
        return Located(PLACE, "directory", NoFiles(), PLACE)
    place = f"{user_directory(request.environ, os.geteuid())[0]}/image"
    return launcher.backend.locate(invocation, launcher.known, request.environ, place)
