"""Launchers of ours: what they would do, from the tree or the script that they would make."""

from __future__ import annotations

from dataclasses import replace

from cdi_hpc.container.stage import Assembly
from cdi_hpc.explain.attempt import attempt
from cdi_hpc.explain.no_image import PLACE, NoFiles
from cdi_hpc.explain.request import Finding, Request, libraries
from cdi_hpc.explain.views import View
from cdi_hpc.explain.ways import InScript, InTree
from cdi_hpc.images.image_files import ImageFiles
from cdi_hpc.launch import embedded
from cdi_hpc.plan import Plan
from cdi_hpc.render import bash

_TITLES = {
    "embedded": "cdi-hpc run",
    "bash": "cdi-hpc script",
    "slurm": "srun --cdi --cdi-mode=mounts; with --cdi-mode=handoff it is up to the launcher in the step",
}

NAMES = tuple(_TITLES)

#: Where a configuration has the defaults of a launcher, if not under its own name.
_CONFIGURED_AS = {"slurm": "embedded"}


def view(name: str, request: Request) -> View:
    """What one of them does."""
    defaults = request.configuration.launcher(_CONFIGURED_AS.get(name, name))
    plan = request.plan(defaults)
    if request.unread:
        return Finding(plan, None, stops=tuple(map(str, request.unread))).view(name, _TITLES[name], request)
    found = _in_script(plan) if name == "bash" else _in_tree(name, plan, request)
    if found.ways is not None and name != "bash" and _is_known(name, request):
        found = _with_libraries(found, request)
    if name != "embedded" and request.image is not None and request.image.kind != "directory":
        reason = f"image {request.wanted.image}: is a file, and only directories are taken (unpack it)"
        found = replace(found, stops=(*found.stops, reason))
    return found.view(name, _TITLES[name], request)


def _in_script(plan: Plan) -> Finding:
    tried = attempt(plan, bash.script)
    return Finding(plan, InScript() if tried.result else None, failed=tried.failed, stops=tried.stops)


def _in_tree(name: str, plan: Plan, request: Request) -> Finding:
    place, files = _image(name, request)
    if files is None and place != "/":
        reason = request.image.reason if request.image else ""
        message = f"image {request.wanted.image}: {reason}; what depends on it is left open"
        return Finding(plan, InTree(plan, None), messages=(message,))

    def say(possible: Plan) -> Assembly:
        return embedded.prepare(possible, place, request.host, embedded.RunOptions(), files=files)

    tried = attempt(plan, say)
    known = _is_known(name, request)
    ways = InTree(plan, tried.result, known) if tried.result is not None else None
    covered = tried.result.covered if tried.result is not None else ()
    return Finding(plan, ways, failed=tried.failed, stops=tried.stops, covered=covered)


def _image(name: str, request: Request) -> tuple[str, ImageFiles | None]:
    """Where the image is, and what it is read by: None if it can't be, or as a directory of the host for ``/``."""
    if request.image is not None:
        return request.image.place, request.image.files
    return ("/", None) if name == "slurm" else (PLACE, NoFiles())


def _is_known(name: str, request: Request) -> bool:
    """Whether the image is one, and not just taken to be empty."""
    return request.image is not None or name == "slurm"


def _with_libraries(found: Finding, request: Request) -> Finding:
    assembly = found.ways.assembly if isinstance(found.ways, InTree) else None
    if assembly is None:
        return found
    stops, told = libraries(assembly, request.configuration.launcher("embedded"))
    notes = request.image.notes if request.image else ()
    messages = (*found.messages, *notes, *assembly.messages, *told)
    return replace(found, stops=(*found.stops, *stops), messages=messages)
