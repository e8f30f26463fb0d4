"""Run a command in an image with a plan applied: the embedded launcher."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from cdi_hpc.compose import Composition, Mode, compose
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.image_files import ImageFiles
from cdi_hpc.launch import inheritance, kernel, process, runner, squashfs
from cdi_hpc.launch.base import base_actions, user_binds
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.plan import Plan, SetEnv
from cdi_hpc.stage import Assembly, assemble
from cdi_hpc.steps import ROOT
from cdi_hpc.witness import Witness

_NO_OVERLAY_FIX = "leave out --stage=underlay, or where the kernel refuses overlays, --writable-tmpfs"

StageMode = Literal["auto", "overlay", "underlay"]


@dataclass(frozen=True)
class RunOptions:
    """What ``cdi-hpc run`` was told besides devices, image and command.

    Attributes:
        binds: ``SOURCE[:TARGET[:ro]]``.
        env: ``NAME=VALUE`` or ``NAME``.
        workdir: working directory inside, or None for the present one where it exists.
        writable_tmpfs: the root is writable; changes are lost at the end.
        contain: a /dev with the requested devices only and a /tmp of its own.
        stage: how the root is made; ``auto`` tries overlay first.
        everybody: the launch is compiled for every user, whose names are not known.

    """

    binds: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str | None = None
    writable_tmpfs: bool = False
    contain: bool = False
    stage: StageMode = "auto"
    everybody: bool = False


def prepare(
    plan: Plan,
    image: str,
    host: Host,
    options: RunOptions,
    witness: Witness | None = None,
    files: ImageFiles | None = None,
) -> Assembly:
    """Put the plan, and what every container gets, into the image's tree. Nothing is changed on the host.

    ``image`` and ``files`` are as in :func:`cdi_hpc.stage.assemble`.

    Raises:
        CdiError: the plan lacks something that the spec demands, or an edit can't be put in its place.

    """
    fatal = [Problem(str(lack.origin), f"{lack.edit}: {lack.reason}") for lack in plan.unsupported() if lack.fatal]
    if options.writable_tmpfs and image == "/":
        fatal.append(Problem("--writable-tmpfs", "the host itself can't be the image", "name another image"))
    if fatal:
        raise CdiError(fatal)
    private_dev = plan.private_dev is not None or options.contain
    before = base_actions(
        image,
        host,
        private_dev=private_dev,
        contain=options.contain,
        accounts=not options.everybody,
        witness=witness,
        files=files,
    )
    return assemble([*before, *user_binds(options.binds, host), *plan.actions], image, witness, files)


def run(plan: Plan, assembly: Assembly, command: Sequence[str], options: RunOptions, *, attended: bool = False) -> int:
    """Become the command inside the container, or where the image is attended, wait for it.

    Returns:
        The command's exit status, or the negative number of the signal that ended it; only if ``attended``.

    Raises:
        CdiError: a namespace, a mount or the working directory was refused; the command has not begun.

    """
    planned = [(action.name, action.value) for action in plan.actions if isinstance(action, SetEnv)]
    env = process.environment(inheritance.command_environment(), planned, options.env)
    current = _current_directory()
    points = mount_points()
    if attended:  # it needed the namespaces itself
        return _attend(assembly, command, env, current, points, options)
    runner.enter_namespaces()
    return _become(assembly, command, env, current, points, options)


def _attend(
    assembly: Assembly,
    command: Sequence[str],
    env: dict[str, str],
    current: str,
    points: tuple[str, ...],
    options: RunOptions,
) -> int:
    pid = os.fork()
    if pid:
        return squashfs.supervise(pid)
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        # pivot_root(2) takes along every process of the mount namespace. What attends the image would find its own
        # /etc in the image, and wait for itself when it opens a library at its end.
        kernel.unshare(kernel.CLONE_NEWNS)
        _become(assembly, command, env, current, points, options)
    except CdiError as error:
        sys.stderr.write("".join(f"cdi-hpc: error: {problem}\n" for problem in error.problems))
    except OSError as error:
        sys.stderr.write(f"cdi-hpc: error: {error.filename or 'system'}: {error.strerror}\n")
    finally:
        # Whatever happened, the parent cleans up, not this copy of it.
        sys.stderr.flush()
        os._exit(process.FAILED)


def _become(
    assembly: Assembly,
    command: Sequence[str],
    env: dict[str, str],
    current: str,
    points: tuple[str, ...],
    options: RunOptions,
) -> NoReturn:
    modes: tuple[Mode, ...] = ("overlay", "underlay") if options.stage == "auto" else (options.stage,)
    umask = os.umask(0)
    drop_privileges = process.import_nothing_more()
    workspace = runner.Workspace()
    _build(workspace, assembly, modes, points, options)
    os.umask(umask)
    workspace.become_root(ROOT)
    process.enter_directory(options.workdir, current)
    drop_privileges()
    process.execute(command, env)


def _build(
    workspace: runner.Workspace,
    assembly: Assembly,
    modes: tuple[Mode, ...],
    points: tuple[str, ...],
    options: RunOptions,
) -> None:
    for mode in modes:
        composition = Composition(mode, points, runner.HOST_PREFIX, writable=options.writable_tmpfs)
        check_mode(mode, options)
        try:
            workspace.apply(compose(assembly, composition))
        except runner.OverlayRefusedError as refused:
            if mode == modes[-1]:
                what = f"the kernel refuses an overlay on this image: {refused.error.strerror}"
                raise CdiError(Problem("--stage=overlay", what, "use --stage=underlay")) from None
            workspace.discard()
        else:
            return


def check_mode(mode: Mode, options: RunOptions) -> None:
    """Refuse what a mode can't do (CdiError)."""
    if mode == "underlay" and options.writable_tmpfs:
        raise CdiError(Problem("--writable-tmpfs", "needs an overlay, and there is none", _NO_OVERLAY_FIX))


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"
