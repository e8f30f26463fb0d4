"""Run a command in an image with a plan applied: the embedded launcher."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from cdi_hpc.compiled import wire
from cdi_hpc.container.compose import Composition, Mode, compose
from cdi_hpc.container.stage import Assembly, assemble
from cdi_hpc.container.steps import ROOT
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.images.image_files import ImageFiles
from cdi_hpc.launch import inheritance, kernel, process, runner, squashfs
from cdi_hpc.launch.base import base_actions, user_binds
from cdi_hpc.launch.image import OpenImage
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.plan import Plan, SetEnv
from cdi_hpc.witness import Witness

if TYPE_CHECKING:
    from cdi_hpc.launch.telling import Telling

_NO_OVERLAY_FIX = "use --stage=overlay, or where the kernel refuses overlays, leave out --writable-tmpfs"

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

    ``image`` and ``files`` are as in :func:`cdi_hpc.container.stage.assemble`.

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


def run(
    plan: Plan,
    assembly: Assembly,
    command: Sequence[str],
    options: RunOptions,
    *,
    image: OpenImage,
    telling: Telling | None = None,
) -> int:
    """Become the command inside the container, or where the image is attended, wait for it.

    Args:
        plan: what is given to the container.
        assembly: the same in the image's tree.
        command: and its arguments.
        options: what else was asked for.
        image: as it was opened.
        telling: is told of each step.

    Returns:
        The command's exit status, or the negative number of the signal that ended it; only if the image is attended.

    Raises:
        CdiError: a namespace, a mount or the working directory was refused; the command has not begun.

    """
    planned = [(action.name, action.value) for action in plan.actions if isinstance(action, SetEnv)]
    launch = _Launch(
        assembly,
        command,
        process.environment(inheritance.command_environment(), planned, options.env),
        tuple(f"{name}={value}" for name, value in planned),
        process.working_directory() or "/",
        mount_points(),
        options,
        image,
        telling,
    )
    if image.attended:  # it needed the namespaces itself
        return _attend(launch)
    runner.enter_namespaces()
    return _become(launch)


@dataclass(frozen=True)
class _Launch:
    """All that is known before the first mount.

    Attributes:
        env: the command's environment.
        planned: the plan's part of it, ``NAME=VALUE``.
        current: the working directory.
        points: mount points of the host.

    """

    assembly: Assembly
    command: Sequence[str]
    env: Mapping[str, str]
    planned: tuple[str, ...]
    current: str
    points: tuple[str, ...]
    options: RunOptions
    image: OpenImage
    telling: Telling | None


def _attend(launch: _Launch) -> int:
    pid = os.fork()
    if pid:
        return squashfs.supervise(pid)
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        # pivot_root(2) takes along every process of the mount namespace. What attends the image would find its own
        # /etc in the image, and wait for itself when it opens a library at its end.
        kernel.unshare(kernel.CLONE_NEWNS)
        _become(launch)
    except CdiError as error:
        sys.stderr.write("".join(f"cdi-hpc: error: {problem}\n" for problem in error.problems))
    except OSError as error:
        sys.stderr.write(f"cdi-hpc: error: {error.filename or 'system'}: {error.strerror}\n")
    finally:
        # Whatever happened, the parent cleans up, not this copy of it.
        sys.stderr.flush()
        os._exit(process.FAILED)


def _become(launch: _Launch) -> NoReturn:
    umask = os.umask(0)
    drop_privileges = process.import_nothing_more()
    workspace = runner.Workspace()
    _build(workspace, launch)
    os.umask(umask)
    workspace.become_root(ROOT)
    process.enter_directory(launch.options.workdir, launch.current)
    drop_privileges()
    if launch.telling is not None:
        launch.telling.command(launch.command[0], launch.command[1:])
    process.execute(launch.command, launch.env)


def _build(workspace: runner.Workspace, launch: _Launch) -> None:
    options = launch.options
    modes: tuple[Mode, ...] = ("overlay", "underlay") if options.stage == "auto" else (options.stage,)
    for mode in modes:
        composition = Composition(mode, launch.points, runner.HOST_PREFIX, writable=options.writable_tmpfs)
        check_mode(mode, options)
        steps = compose(launch.assembly, composition)
        if launch.telling is not None:
            launch.telling.begin(steps, (), launch.planned)
            if launch.image.served:
                launch.telling.record(wire.Squashfs(launch.image.served, launch.image.directory))
        try:
            workspace.apply(steps, launch.telling.before if launch.telling else None)
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
