"""Run the hooks that a site allows, for one image, and turn what they write into actions of the plan.

A hook is run when the plan is made, not at each launch: a launch from a compiled plan starts nothing but the command.
It finds what an OCI runtime's createContainer hook finds (runtime-spec, runtime.md and config.md): the host's files,
a bundle with a config.json, the state on its standard input, and the container's root with all mounts in it, which it
may write to. That root is an overlay of ours that is thrown away; what has been written to it is read before.

In an overlay, nothing can be written to a directory of another owner: its copy would have to be his. So the lowest
layer but one has every directory of the image once more, as the user's own.

Who is who: *we* fork a *keeper*, which enters the namespaces, makes the tree and waits; it forks an *init*, the first
process of a PID namespace, and that the *hook*. When the hook has ended or is out of time, so is the init, and the
kernel ends whatever the hook left behind.

An image may have a link where a hook expects a directory, and lead it out of the container. So everything else that a
hook sees is read-only: the host's files, and what is mounted in the container.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cdi_hpc import planning, trusted_program
from cdi_hpc.backend import Located
from cdi_hpc.config import Configuration, LauncherDefaults
from cdi_hpc.container import hook_results
from cdi_hpc.container.compose import Composition, compose
from cdi_hpc.container.hook_results import NotKeptError, Written
from cdi_hpc.container.stage import Assembly
from cdi_hpc.container.steps import MountOverlay, Step
from cdi_hpc.container.tree import ContainerTree, StagedDirectory, is_software_directory
from cdi_hpc.errors import printable
from cdi_hpc.host import Host
from cdi_hpc.images.image_files import HostFiles, ImageFiles
from cdi_hpc.launch import embedded, hook_keeper, hook_process
from cdi_hpc.launch.image import OpenImage
from cdi_hpc.launch.inheritance import INSIDE_VARIABLE
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.plan import Action, Note, Plan, RunHook, SetEnv, Unsupported
from cdi_hpc.resolve.lookup import Report
from cdi_hpc.spec.model import ResolvedEdits
from cdi_hpc.translation import running_hooks
from cdi_hpc.witness import Witness

#: How much a hook can write, in the words of tmpfs(5).
_ROOM = f"{hook_process.MOST_BYTES >> 20}m"

#: Lines of a hook's output that are repeated.
_LINES = 20


class Target(NamedTuple):
    """The image that hooks are run for.

    Attributes:
        path: real path of the directory or file.
        place: where its directories are, or will be once a file is mounted.
        files: what to read it by; None: as a directory of the host.
        offset: where in a file its SquashFS begins; None for a directory.
        obstacle: why no hook can be run for it, or "".

    """

    path: str
    place: str
    files: ImageFiles | None = None
    offset: int | None = None
    obstacle: str = ""


def target_of(located: Located) -> Target:
    """The image of a launch through a launcher."""
    if located.path is None or located.files is None:
        reason = located.reason or "the image can't be read beforehand"
        return Target("", "", obstacle=f"{reason}, and a hook needs the image's files")
    if os.path.isdir(located.path):
        return Target(located.path, located.path, located.files)
    offset = 0 if located.kind == "squashfs" else located.offset
    obstacle = "" if offset is not None else "what is in the image can't be mounted by itself"
    return Target(located.path, located.place, located.files, offset, obstacle)


def target_in_use(image: OpenImage) -> Target:
    """An image that is a directory already. One that is served is mounted once more, with the user as the owner."""
    if image.served:
        return Target(image.served, image.directory, offset=image.offset)
    return Target(image.directory, image.directory)


@dataclass(frozen=True)
class Circumstances:
    """Of a launch.

    Attributes:
        configuration: the site's, whose rules are about what hooks write, too.
        defaults: of the launcher.
        report: is told what hooks say.
        witness: is told of what the results depend on.
        everybody: the plan is for all users.
        by_root: by default whether this process is root's, as it is told *now*: before any namespaces of ours are
            entered, in which root can't be told from others.

    """

    host: Host
    configuration: Configuration
    defaults: LauncherDefaults
    report: Report
    witness: Witness
    everybody: bool = False
    by_root: bool = field(default_factory=trusted_program.is_machines_root)


def run_hooks(plan: Plan, target: Target, circumstances: Circumstances) -> Plan:
    """The plan with what its hooks wrote in their place; the same plan where there are none.

    Where a hook fails, :class:`~cdi_hpc.plan.Unsupported` is in its place, and nothing of what it wrote.

    Raises:
        CdiError: a rule of the site's forbids what a hook has written, or an edit can't be put in its place.

    """
    if not plan.runs_hooks():
        return plan
    obstacle = _obstacle(target, circumstances)
    if obstacle:
        return _judged(running_hooks.left_out(plan, obstacle), circumstances)
    done: list[Action] = []
    for action in plan.actions:
        if not isinstance(action, RunHook):
            done.append(action)
        elif any(isinstance(each, Unsupported) and each.fatal for each in done):
            done.append(running_hooks.not_run(action, "the launch stops before"))
        else:  # as in a runtime: a hook finds all mounts, and what the hooks before it have done
            done += _made_by(action, replace(plan, actions=tuple(done)), target, circumstances)
    return _judged(replace(plan, actions=tuple(done)), circumstances)


def _obstacle(target: Target, circumstances: Circumstances) -> str:
    if circumstances.everybody:
        return "this plan is for every user, and a hook is run by the user of a launch"
    if INSIDE_VARIABLE in os.environ:
        return "the plan that was there could not be applied, and hooks are run before one is: by the next launch"
    if circumstances.by_root:
        return "root runs no hooks for specs; ordinary users do"
    return target.obstacle


def _judged(plan: Plan, circumstances: Circumstances) -> Plan:
    return replace(plan, actions=planning.judged(plan.actions, circumstances.defaults.unsupported))


def _made_by(hook: RunHook, plan: Plan, target: Target, circumstances: Circumstances) -> tuple[Action, ...]:
    """What a hook wrote; or that it failed."""
    try:
        actions = _run(hook, plan, target, circumstances)
    except _FailedError as failure:
        reason = f"{failure} (rule {hook.rule})"
        return (Unsupported(hook.edit, reason, hook.origin, hook.fatal),)
    if circumstances.configuration.policy is not None:
        planning.enforce(circumstances.configuration.policy, ResolvedEdits(), Plan((), actions))
    note = f"{hook.path} was run (rule {hook.rule}): {hook_results.summary(actions)}"
    return (Note(hook.edit, note, hook.origin), *actions)


class _FailedError(Exception):
    """A hook can't be run, failed, or did what can't be shown."""


def _run(hook: RunHook, plan: Plan, target: Target, circumstances: Circumstances) -> tuple[Action, ...]:
    complaint = trusted_program.complaint(hook.path)  # at the last moment: it was looked at a while ago
    if complaint:
        raise _FailedError(f"not run: {complaint}")
    assembly = _assembled(plan, target, circumstances.host)
    planning.enforce_in_image(circumstances.configuration.policy, plan, assembly.covered)
    steps = _steps(assembly, target)
    work = hook_keeper.Work(
        target.path, target.place, target.offset, _variables(plan), steps, assembly.tree.resolve(hook_keeper.SCRATCH)
    )
    answer = hook_keeper.keep(hook, work)
    for line in answer.said.splitlines()[-_LINES:]:
        circumstances.report.note(f"{hook.path}: {printable(line)}")
    if answer.failure:
        last = next((line for line in reversed(answer.said.splitlines()) if line.strip()), "")
        raise _FailedError(f"{hook.path} {answer.failure}" + (f": {printable(last)}" if last else ""))
    _witness(answer.written, target, circumstances.witness)
    try:
        return hook_results.actions_of(answer.written, assembly.tree, hook.origin)
    except NotKeptError as error:
        raise _FailedError(f"{hook.path}: {error}") from None


def _witness(written: Sequence[Written], target: Target, witness: Witness) -> None:
    """A change of the image where a hook wrote makes the plan stale. What else it looked at, nobody knows."""
    if target.offset is not None:
        return  # the file is part of the plan as a whole
    witness.saw(target.path, "names")
    for directory in {posixpath.dirname(each.path) for each in written}:
        witness.saw(posixpath.join(target.path, directory.strip("/")).rstrip("/") or "/", "names")


# The tree ---------------------------------------------------------------------------------------------------------


def _assembled(plan: Plan, target: Target, host: Host) -> Assembly:
    """The container as a hook finds it: /tmp and /dev are its own, and each directory is the user's to write to."""
    files = target.files if target.offset is not None else None
    assembly = embedded.prepare(plan, target.place, host, embedded.RunOptions(contain=True), files=files)
    for path, mode in _directories(assembly.tree, target):
        entry = assembly.tree.entry(path)
        # What is mounted there hides it; what is staged is ours already.
        if entry is not None and entry.kind == "directory" and entry.staged is None and not _is_covered(path, assembly):
            assembly.tree.put(path, StagedDirectory(mode))
    return assembly


def _is_covered(path: str, assembly: Assembly) -> bool:
    return assembly.tree.is_mounted(path) or assembly.tree.region_of(path) != 0


def _directories(tree: ContainerTree, target: Target) -> Iterator[tuple[str, int]]:
    """Every directory of the image, parents first, with its mode; of the host, those of its software."""
    files = tree.files_of(0) or HostFiles(target.place)
    waiting = ["/"]
    while waiting:
        directory = waiting.pop()
        try:
            names = [name for name, kind in files.scan(directory) if kind == "directory"]
        except OSError:
            continue  # a directory that can't be read: nobody writes there either
        for name in sorted(names):
            path = posixpath.join(directory, name)
            if target.place == "/" and not is_software_directory(path):
                continue
            status = files.lstat(path)
            if status is not None:
                yield path, status.mode
                waiting.append(path)


def _steps(assembly: Assembly, target: Target) -> tuple[Step, ...]:
    is_host = target.place == "/"
    composition = Composition("overlay", mount_points(), writable=not is_host, size=_ROOM, parts_writable=is_host)
    steps = compose(assembly, composition)
    if not any(isinstance(step, MountOverlay) and step.writable for step in steps):
        raise _FailedError("not run: something is mounted below the image's directories, which can't be a layer then")
    return steps


def _variables(plan: Plan) -> tuple[str, ...]:
    return tuple(f"{action.name}={action.value}" for action in plan.actions if isinstance(action, SetEnv))
