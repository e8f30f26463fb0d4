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

import contextlib
import errno
import json
import os
import posixpath
import resource
import secrets
import select
import signal
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable, NamedTuple, NoReturn

from cdi_hpc import planning, trusted_program
from cdi_hpc.backend import Located
from cdi_hpc.config import Configuration, LauncherDefaults
from cdi_hpc.container import hook_results
from cdi_hpc.container.compose import Composition, compose
from cdi_hpc.container.hook_results import NotKeptError, Written
from cdi_hpc.container.stage import Assembly
from cdi_hpc.container.steps import ROOT, MountOverlay, Step
from cdi_hpc.container.tree import ContainerTree, StagedDirectory, is_software_directory
from cdi_hpc.errors import CdiError, Problem, printable
from cdi_hpc.host import Host
from cdi_hpc.images.image_files import HostFiles, ImageFiles
from cdi_hpc.launch import embedded, inheritance, kernel, runner
from cdi_hpc.launch.image import OpenImage
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.plan import Action, Note, Plan, RunHook, SetEnv, Unsupported
from cdi_hpc.resolve.lookup import Report
from cdi_hpc.spec.model import ResolvedEdits
from cdi_hpc.translation import running_hooks
from cdi_hpc.witness import Witness

#: Of the runtime specification that state and config.json follow.
_OCI_VERSION = "1.0.2"

#: A hook writes into a container as root there would, and may change its root directory; nothing else.
_CAPABILITIES = (kernel.CAP_DAC_OVERRIDE, kernel.CAP_SYS_CHROOT)

#: How much a hook can write, in the words of tmpfs(5): it ends up in a plan's stage.
_ROOM = "64m"

#: Bytes of a hook's output that are kept, and lines that are repeated.
_OUTPUT = 4096
_LINES = 20

#: Of the host and of the container: tmpfs of the hook's own, which are thrown away.
_SCRATCH = "/tmp"  # noqa: S108 - nothing of anybody else's is there

#: The container's root in the bundle.
_ROOT = "rootfs"

_PAUSE = 0.05
_CANT_EXECUTE = 126


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

    """

    host: Host
    configuration: Configuration
    defaults: LauncherDefaults
    report: Report
    witness: Witness
    everybody: bool = False


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
    if trusted_program.is_machines_root():
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
    steps = _steps(assembly, target)
    work = _Work(target, _variables(plan), steps, assembly.tree.resolve(_SCRATCH))
    answer = _in_child(lambda: _keep(hook, work))
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


# The bundle -------------------------------------------------------------------------------------------------------


def _made_bundle(scratch: str) -> str:
    """A directory for a config.json and the root (runtime-spec, bundle.md), on a tmpfs over a directory of the host.

    It is made as the workspace sees the host, and its path is the host's own.
    """
    place = runner.HOST_PREFIX + scratch
    kernel.mount("cdi-hpc", place, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    name = f"cdi-hpc-hook-{secrets.token_hex(4)}"
    os.makedirs(f"{place}/{name}/{_ROOT}", 0o755)
    return f"{scratch}/{name}"


def _variables(plan: Plan) -> tuple[str, ...]:
    return tuple(f"{action.name}={action.value}" for action in plan.actions if isinstance(action, SetEnv))


def _config(bundle: str, variables: Sequence[str]) -> Mapping[str, Any]:
    user = {"uid": os.geteuid(), "gid": os.getegid()}
    return {
        "ociVersion": _OCI_VERSION,
        "root": {"path": f"{bundle}/{_ROOT}", "readonly": False},
        "process": {"terminal": False, "user": user, "args": ["sh"], "env": [*variables], "cwd": "/"},
        "mounts": [],
        "linux": {},
    }


def _state(bundle: str) -> bytes:
    """runtime-spec, runtime.md, "State": of a container that is being made."""
    state = {
        "ociVersion": _OCI_VERSION,
        "id": posixpath.basename(bundle),
        "status": "creating",
        "pid": os.getpid(),
        "bundle": bundle,
        "annotations": {},
    }
    return json.dumps(state).encode()


# The keeper -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """What the keeper has to know.

    Attributes:
        variables: of the plan, ``NAME=VALUE``.
        steps: that make the tree.
        scratch: where in the tree /tmp is.

    """

    target: Target
    variables: tuple[str, ...]
    steps: tuple[Step, ...]
    scratch: str


class _Answer(NamedTuple):
    """What the keeper reports: why the hook failed or "", the end of its output, and what it wrote."""

    failure: str
    said: str = ""
    written: tuple[Written, ...] = ()


def _in_child(answer: Callable[[], _Answer]) -> _Answer:
    """Have a child process find an answer. It ends with us."""
    with inheritance.children_of_ours():
        return _answer_of_child(answer)


def _answer_of_child(answer: Callable[[], _Answer]) -> _Answer:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer_and_leave(answer, writing)
    os.close(writing)
    try:
        with open(reading, "rb") as stream:
            return _decoded(stream.read())
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.waitpid(child, 0)


def _answer_and_leave(answer: Callable[[], _Answer], writing: int) -> NoReturn:
    try:
        # The terminal's ^C is for the first of us to answer, and if he is killed nobody waits for the hook any more.
        os.setsid()
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        data = _encoded(_caught(answer))
        with open(writing, "wb") as stream:
            stream.write(data)
    finally:
        # Whatever happened, the parent goes on, not this copy of it.
        os._exit(0)


def _caught(answer: Callable[[], _Answer]) -> _Answer:
    try:
        return answer()
    except runner.OverlayRefusedError as refused:
        what = f"the kernel refuses an overlay that can be written to ({refused.error.strerror}), which hooks need"
        return _Answer(f"was not run: {what}")
    except CdiError as error:
        return _Answer(f"was not run: {'; '.join(map(str, error.problems))}")
    except OSError as error:
        return _Answer(f"was not run: {error.filename or 'system'}: {error.strerror}")


def _keep(hook: RunHook, work: _Work) -> _Answer:
    """What the keeper does."""
    target = work.target
    if target.offset is None:
        runner.enter_namespaces()
        return _in_namespaces(hook, work)
    from cdi_hpc.launch import squashfs

    # What belongs to somebody whom our namespace has no number for can't even be replaced (EOVERFLOW).
    program = squashfs.server_for_owner()
    with squashfs.mounted(target.path, target.offset, owned=program is not None, program=program) as directory:
        # Whoever serves the image must not have its root exchanged under him.
        return _in_child(lambda: _with_image(hook, work, directory))


def _with_image(hook: RunHook, work: _Work, directory: str) -> _Answer:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount(directory, work.target.place, "", kernel.MS_BIND | kernel.MS_REC)
    return _in_namespaces(hook, work)


def _in_namespaces(hook: RunHook, work: _Work) -> _Answer:
    os.umask(0)
    scratch = os.path.realpath(_SCRATCH)
    workspace = runner.Workspace()
    workspace.apply(work.steps)
    uppers = [
        (step.path[len(ROOT) :] or "/", workspace.open_directory(f"{step.writable}/upper"))
        for step in work.steps
        if isinstance(step, MountOverlay) and step.writable
    ]
    _close([*(place for place, _ in uppers), work.scratch])
    bundle = _made_bundle(scratch)
    workspace.put_into_host(ROOT, f"{bundle}/{_ROOT}", ())
    with open(f"{bundle}/config.json", "x", encoding="utf-8", errors="surrogateescape") as stream:
        json.dump(_config(bundle, work.variables), stream)
    failure, said = _run_program(hook, bundle)
    if failure:
        return _Answer(failure, said)
    written = tuple(each for place, upper in uppers for each in _found(place, upper))
    return _Answer("", said, written)


def _close(writable: Sequence[str]) -> None:
    """Make everything read-only, the host's files and what is mounted in the tree, but for these places of the tree.

    What is written elsewhere would be lost, or be the host's.
    """
    try:
        kernel.make_read_only("/")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        raise CdiError(
            Problem("kernel", "it has no mount_setattr (Linux 5.12), without which hooks are not run")
        ) from None
    for place in writable:
        kernel.make_writable(f"{runner.STEPS_PREFIX}/{ROOT}{place}".rstrip("/"))


def _found(place: str, upper: int) -> Iterator[Written]:
    """What is in an upper directory, parents first."""
    top = f"/proc/self/fd/{upper}"
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        for name in sorted(os.listdir(f"{top}{directory}")):
            below = f"{directory}/{name}"
            written = _look(f"{place.rstrip('/')}{below}", f"{top}{below}")
            if stat.S_ISDIR(written.st_mode):
                waiting.append(below)
            yield written


def _look(path: str, here: str) -> Written:
    status = os.lstat(here)
    if stat.S_ISREG(status.st_mode):
        with open(here, "rb") as stream:
            return Written(path, status.st_mode, stream.read())
    if stat.S_ISLNK(status.st_mode):
        return Written(path, status.st_mode, os.fsencode(os.readlink(here)))
    if stat.S_ISDIR(status.st_mode):
        return Written(path, status.st_mode, is_whiteout=_is_opaque(here))
    return Written(path, status.st_mode, is_whiteout=stat.S_ISCHR(status.st_mode) and status.st_rdev == 0)


def _is_opaque(directory: str) -> bool:
    for name in ("user.overlay.opaque", "trusted.overlay.opaque"):
        with contextlib.suppress(OSError):
            return os.getxattr(directory, name) == b"y"
    return False


# The hook ---------------------------------------------------------------------------------------------------------


def _run_program(hook: RunHook, bundle: str) -> tuple[str, str]:
    """Run the hook to its end; returns why it failed or "", and the end of what it said."""
    kernel.unshare(kernel.CLONE_NEWPID)
    state, state_end = os.pipe()
    output, output_end = os.pipe()
    status, status_end = os.pipe()
    os.write(state_end, _state(bundle))  # less than a pipe holds: nobody waits for a hook that doesn't read it
    os.close(state_end)
    init = os.fork()
    if init == 0:
        _be_init(hook, bundle, state, output_end, status_end)
    for fd in (state, output_end, status_end):
        os.close(fd)
    tail = _Tail(output)
    in_time = _has_ended(init, tail, time.monotonic() + hook.timeout)
    tail.drain()
    with open(status, "rb") as stream:
        ended = stream.read()
    return _failure(int(ended) if in_time and ended else None, hook.timeout), tail.text()


def _failure(status: int | None, timeout: int) -> str:
    """What a wait(2) status tells; None: there is none."""
    if status is None:
        return f"has not ended in {timeout} s, and was killed"
    if os.WIFSIGNALED(status):
        return f"was ended by signal {os.WTERMSIG(status)}"
    code = os.WEXITSTATUS(status)
    return f"failed with exit status {code}" if code else ""


class _Tail:
    """The end of what is written to a pipe."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._data = b""

    def wait(self, seconds: float) -> None:
        """Take what comes in this time, or a part of it."""
        readable, _, _ = select.select([self._fd], [], [], max(seconds, 0))
        if readable and not self._take():
            time.sleep(min(seconds, _PAUSE))  # the hook has closed it, and runs

    def drain(self) -> None:
        """Take what is left; nobody has the other end any more."""
        while self._take():
            pass
        os.close(self._fd)

    def _take(self) -> bool:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return False
        self._data = (self._data + data)[-_OUTPUT:]
        return bool(data)

    def text(self) -> str:
        return self._data.decode("utf-8", "backslashreplace")


def _has_ended(init: int, tail: _Tail, deadline: float) -> bool:
    """Whether the hook ended by itself before its time was over. All of its processes have ended then."""
    while True:
        ended, _ = os.waitpid(init, os.WNOHANG)
        left = deadline - time.monotonic()
        if ended:
            return True
        if left <= 0:
            os.kill(init, signal.SIGKILL)
            os.waitpid(init, 0)
            return False
        tail.wait(min(left, _PAUSE))


def _be_init(hook: RunHook, bundle: str, state: int, output: int, status_end: int) -> NoReturn:
    """Wait for the hook, and for nothing else: to the kernel, signals mean less to an init than to other programs."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        pid = os.fork()
        if pid == 0:
            _become(hook, bundle, state, output)
        os.close(output)
        ended, status = 0, 0
        while ended != pid:
            ended, status = os.wait()
        os.write(status_end, str(status).encode())
    finally:
        os._exit(0)


def _become(hook: RunHook, bundle: str, state: int, output: int) -> NoReturn:
    try:
        os.setsid()
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        for number, fd in enumerate((state, output, output)):
            os.dup2(fd, number)
        os.closerange(3, _open_limit())
        os.chdir(bundle)
        os.umask(0o022)
        _forget_signals()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        kernel.keep_capabilities(_CAPABILITIES)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        os.execve(hook.path, [*hook.args], dict(entry.split("=", 1) for entry in hook.env))
    except OSError as error:
        os.write(2, f"it can't be executed: {error.strerror}\n".encode())
    finally:
        os._exit(_CANT_EXECUTE)


def _open_limit() -> int:
    return max(map(int, os.listdir("/proc/self/fd")), default=3) + 1


def _forget_signals() -> None:
    """Dispositions and masks outlive an exec, and were Python's or the caller's."""
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


# From the keeper to us --------------------------------------------------------------------------------------------


def _encoded(answer: _Answer) -> bytes:
    written = [(each.path, each.st_mode, each.data.decode("latin-1"), each.is_whiteout) for each in answer.written]
    return json.dumps([answer.failure, answer.said, written]).encode()


def _decoded(data: bytes) -> _Answer:
    if not data:
        return _Answer("was not run: what was to run it has been killed")
    failure, said, written = json.loads(data)
    return _Answer(
        failure,
        said,
        tuple(Written(path, mode, text.encode("latin-1"), is_whiteout) for path, mode, text, is_whiteout in written),
    )
