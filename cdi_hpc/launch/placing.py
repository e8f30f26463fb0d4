"""Become a launcher that somebody else made, in a mount namespace where the image already looks as it should.

What the native runner does with a compiled :class:`~cdi_hpc.backend.Dressing`, for where it is not installed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cdi_hpc.backend import Dressing
from cdi_hpc.compiled import wire
from cdi_hpc.container.steps import ROOT
from cdi_hpc.errors import CdiError, Problem, printable
from cdi_hpc.launch import inheritance, kernel, process, runner, squashfs

if TYPE_CHECKING:
    from cdi_hpc.launch.telling import Telling


def become_launcher(
    program: str, argv: Sequence[str], env: Mapping[str, str], dressing: Dressing, telling: Telling | None = None
) -> int:
    """Apply a dressing's steps in namespaces of our own, if it has any, and execute the launcher there.

    Args:
        program: path of the launcher.
        argv: its whole command line, its own name first; every :class:`~cdi_hpc.backend.Word` has become text.
        env: its whole environment.
        dressing: of which ``steps``, ``place``, ``moves`` and ``squashfs`` are applied; that it is this launch which
            has to do so (``peers``) is known by now.
        telling: is told of each step.

    Returns:
        Only if there is a SquashFS file, which has to be served while the container runs: the launcher's exit
        status, or the negative number of the signal that ended it (:func:`squashfs.leave_as` takes it).
        Otherwise this process is the launcher, or has ended with status 126 or 127 and a line on stderr.

    Raises:
        CdiError: a namespace or a mount was refused; the launcher has not begun.

    """
    launcher = _Launcher(program, argv, env, telling)
    if not dressing.steps:
        _execute(launcher)
    current = process.working_directory() or "/"
    if dressing.squashfs:
        if telling is not None:
            telling.record(wire.Squashfs(dressing.squashfs, dressing.place))
        served = squashfs.mounted(dressing.squashfs, dressing.offset, owned=dressing.owned)
        with served as directory:  # it enters the namespaces
            return _attend(directory, launcher, current, dressing)
    runner.enter_namespaces()
    return _become(launcher, current, dressing)


@dataclass(frozen=True)
class _Launcher:
    """What is executed in the end."""

    program: str
    argv: Sequence[str]
    env: Mapping[str, str]
    telling: Telling | None


def _attend(directory: str, launcher: _Launcher, current: str, dressing: Dressing) -> int:
    pid = os.fork()
    if pid:
        return squashfs.supervise(pid)
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.mount(directory, dressing.place, "", kernel.MS_BIND | kernel.MS_REC)
        _become(launcher, current, dressing)
    except CdiError as error:
        sys.stderr.write("".join(f"cdi-hpc: error: {problem}\n" for problem in error.problems))
    except OSError as error:
        sys.stderr.write(f"cdi-hpc: error: {printable(error.filename or 'system')}: {error.strerror}\n")
    finally:
        # Whatever happened, the parent cleans up, not this copy of it.
        sys.stderr.flush()
        os._exit(process.FAILED)


def _become(launcher: _Launcher, current: str, dressing: Dressing) -> NoReturn:
    umask = os.umask(0)
    # A launcher may be one that gets privileges from its file; whether its command may, it decides itself.
    drop_privileges = process.import_nothing_more(no_new_privs=False)
    workspace = runner.Workspace()
    try:
        workspace.apply(dressing.steps, launcher.telling.before if launcher.telling else None)
    except runner.OverlayRefusedError as refused:
        what = f"the kernel refuses an overlay on this image: {refused.error.strerror}"
        raise CdiError(Problem(dressing.place, what)) from None
    if launcher.telling is not None:
        for mounted, to in dressing.moves:
            launcher.telling.record(wire.Move(mounted, to))
        launcher.telling.record(wire.Place(dressing.place))
    workspace.put_into_host(ROOT, dressing.place, dressing.moves)
    os.umask(umask)
    # By its path: what was the working directory before may be covered now.
    process.enter_directory(None, current)
    drop_privileges()
    _execute(launcher)


def _execute(launcher: _Launcher) -> NoReturn:
    inheritance.restore_signals()
    if launcher.telling is not None:
        launcher.telling.command(launcher.program, launcher.argv[1:])
    try:
        os.execve(launcher.program, list(launcher.argv), dict(launcher.env))
    except FileNotFoundError:
        status, reason = process.NOT_FOUND, "not found"
    except OSError as error:
        status, reason = process.NOT_EXECUTABLE, f"can't be executed: {error.strerror}"
    sys.stderr.write(f"cdi-hpc: {printable(launcher.program)}: {reason}\n")
    sys.stderr.flush()
    os._exit(status)
