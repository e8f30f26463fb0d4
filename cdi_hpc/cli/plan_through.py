"""``cdi-hpc plan --for LAUNCHER``: what a launcher that somebody else made would be given."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence

from cdi_hpc.backend import Backend, Dressing, Keep, StagePath, Text, Word
from cdi_hpc.cli.options import Reporter
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.cli.progress import progress
from cdi_hpc.compiled.cache_place import user_directory
from cdi_hpc.errors import assert_never
from cdi_hpc.explain.ways import Dressed
from cdi_hpc.launch import beforehand, inheritance
from cdi_hpc.launch.launcher import Prepared, Request, prepare
from cdi_hpc.plan import Action, Note, Unsupported
from cdi_hpc.translation import describe

#: What stands for the directory of the plan's stage, which is made when the launch is compiled.
_STAGE = "STAGE"


def show(
    name: str,
    backend: Backend,
    devices: Sequence[str],
    image: str,
    cdi_dirs: Sequence[str],
    output_format: str,
    reporter: Reporter,
) -> int:
    """Print the plan, and the launcher's command line; returns the exit status.

    Raises:
        CdiError: the launch could not be done.

    """
    environ = inheritance.command_environment()
    wanted = output_format == "table" and reporter.level >= 0
    with progress(f"asking {name} what it can do", wanted=wanted):
        request = beforehand.request_for(backend, devices, image, cdi_dirs, environ)
    place = f"{user_directory(environ, os.geteuid())[0]}/image"
    with progress(f"looking into {image}", wanted=wanted and "://" not in image):  # a launcher shows what it fetches
        prepared = prepare(request, environ, place, reporter)
    ways = Dressed(prepared.dressing, request.launcher.command)
    argv = [request.launch.profile.program, *(_text(word, request) for word in prepared.dressing.words)]

    def how(action: Action) -> str:
        if isinstance(action, Unsupported):
            return f"not done: {action.reason}"
        if isinstance(action, Note):
            return f"note: {action.reason}"
        fate = ways.of(action)
        return fate.how if fate else "nothing that the launcher is given does it"

    if output_format == "json":
        document = describe.document(prepared.plan, name, how)
        print_json({**document, "image": image, "messages": [*prepared.dressing.messages], **_given(prepared, argv)})
        return 0
    rows = [(describe.what(action), str(action.origin), how(action)) for action in prepared.plan.actions]
    print_table(("WHAT", "FROM", "HOW"), [*rows, *_rows(prepared.dressing, argv)])
    return 0


def _text(word: Word, request: Request) -> str:
    if isinstance(word, Text):
        return word.text
    if isinstance(word, Keep):
        return request.launch.invocation.words[word.index]
    if isinstance(word, StagePath):
        return f"{word.prefix}{_STAGE}/{word.path}{word.suffix}"
    return assert_never(word)


def _given(prepared: Prepared, argv: Sequence[str]) -> dict[str, object]:
    dressing = prepared.dressing
    return {
        "commandLine": [*argv],
        "variables": {each.name: each.value for each in dressing.variables},
        "steps": len(dressing.steps),
    }


def _rows(dressing: Dressing, argv: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """What the launcher is given as a whole."""
    yield "command line", argv[0], shlex.join(argv)
    for each in dressing.variables:
        how = "set unless it is set already" if each.default else "set"
        yield f"variable {each.name}={each.value}", argv[0], how
    if dressing.steps:
        yield f"{len(dressing.steps)} mount steps", argv[0], f"before it, in namespaces of ours, over {dressing.place}"
