"""Where a hook is run: namespaces, the container's tree, the bundle, and what the hook wrote.

:mod:`cdi_hpc.launch.hook_runs` says who is who.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import posixpath
import secrets
import signal
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, NamedTuple, NoReturn

from cdi_hpc.container.hook_results import NotKeptError, Written
from cdi_hpc.container.steps import ROOT, MountOverlay, Step
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.launch import hook_process, inheritance, kernel, runner
from cdi_hpc.plan import RunHook
from cdi_hpc.spec.decode import shorten

#: Of the runtime specification that state and config.json follow.
_OCI_VERSION = "1.0.2"

#: Of the host and of the container: tmpfs of the hook's own, which are thrown away.
SCRATCH = "/tmp"  # noqa: S108 - nothing of anybody else's is there

#: The container's root in the bundle.
_ROOT = "rootfs"

#: What can be kept of a hook: files and directories; bytes of a path, which has room below the cache's own directory
#: then (PATH_MAX). Bytes in all: :data:`hook_process.MOST_BYTES`, as a file that is sparse has them.
_MOST_ENTRIES = 10_000
_LONGEST_PATH = 2048


@dataclass(frozen=True)
class Work:
    """What the keeper has to know.

    Attributes:
        image: real path of the directory or file.
        place: where its directories are, or will be once a file is mounted.
        offset: where in a file its SquashFS begins; None for a directory.
        variables: of the plan, ``NAME=VALUE``.
        steps: that make the tree.
        scratch: where in the tree /tmp is.

    """

    image: str
    place: str
    offset: int | None
    variables: tuple[str, ...]
    steps: tuple[Step, ...]
    scratch: str


class Answer(NamedTuple):
    """What the keeper reports: why the hook failed or "", the end of its output, and what it wrote."""

    failure: str
    said: str = ""
    written: tuple[Written, ...] = ()


def _in_child(answer: Callable[[], Answer]) -> Answer:
    """Have a child process find an answer. It ends with us."""
    with inheritance.children_of_ours():
        return _answer_of_child(answer)


def _answer_of_child(answer: Callable[[], Answer]) -> Answer:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer_and_leave(answer, writing)
    os.close(writing)
    try:
        with open(reading, "rb") as stream:
            return _decoded(stream)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.waitpid(child, 0)


def _answer_and_leave(answer: Callable[[], Answer], writing: int) -> NoReturn:
    try:
        # The terminal's ^C is for the first of us to answer, and if he is killed nobody waits for the hook any more.
        os.setsid()
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        inheritance.let_go(writing)
        with open(writing, "wb") as stream:
            stream.writelines(_encoded(_caught(answer)))
    finally:
        # Whatever happened, the parent goes on, not this copy of it.
        os._exit(0)


def _caught(answer: Callable[[], Answer]) -> Answer:
    try:
        return answer()
    except runner.OverlayRefusedError as refused:
        what = f"the kernel refuses an overlay that can be written to ({refused.error.strerror}), which hooks need"
        return Answer(f"was not run: {what}")
    except CdiError as error:
        return Answer(f"was not run: {'; '.join(map(str, error.problems))}")
    except OSError as error:
        where = shorten(str(error.filename)) if error.filename else "system"
        return Answer(f"was not run: {where}: {error.strerror}")
    except MemoryError:
        return _NO_MEMORY


_NO_MEMORY = Answer("wrote more than there is memory for")


def keep(hook: RunHook, work: Work) -> Answer:
    """Run a hook, and look at what it wrote, in a process of its own that ends with us."""
    try:
        return _in_child(lambda: _kept(hook, work))
    except MemoryError:
        return _NO_MEMORY


def _kept(hook: RunHook, work: Work) -> Answer:
    """What the keeper does."""
    if work.offset is None:
        runner.enter_namespaces()
        return _in_namespaces(hook, work)
    from cdi_hpc.launch import squashfs

    # What belongs to somebody whom our namespace has no number for can't even be replaced (EOVERFLOW).
    program = squashfs.server_for_owner()
    with squashfs.mounted(work.image, work.offset, owned=program is not None, program=program) as directory:
        # Whoever serves the image must not have its root exchanged under him.
        return _in_child(lambda: _with_image(hook, work, directory))


def _with_image(hook: RunHook, work: Work, directory: str) -> Answer:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount(directory, work.place, "", kernel.MS_BIND | kernel.MS_REC)
    return _in_namespaces(hook, work)


def _in_namespaces(hook: RunHook, work: Work) -> Answer:
    os.umask(0)
    scratch = os.path.realpath(SCRATCH)
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
    failure, said = hook_process.run(hook, bundle, _state(bundle))
    if failure:
        return Answer(failure, said)
    try:
        return Answer("", said, tuple(_within_bounds(each for place, upper in uppers for each in _found(place, upper))))
    except NotKeptError as error:
        return Answer(f"did what can't be shown: {error}", said)


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


def _within_bounds(found: Iterator[tuple[str, str, os.stat_result]]) -> Iterator[Written]:
    """What was found, read; what is too much is not read, since a file of some pages can have any size."""
    total = 0
    for number, (path, here, status) in enumerate(found):
        total += status.st_size if stat.S_ISREG(status.st_mode) else 0
        if total > hook_process.MOST_BYTES:
            raise NotKeptError(f"it writes more than {hook_process.MOST_BYTES >> 20} MiB")
        if number >= _MOST_ENTRIES:
            raise NotKeptError(f"it makes more than {_MOST_ENTRIES} files and directories")
        yield _read(path, here, status)


def _found(place: str, upper: int) -> Iterator[tuple[str, str, os.stat_result]]:
    """What is in an upper directory, parents first: its path in the container and here, and its state."""
    top = f"/proc/self/fd/{upper}"
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        for name in sorted(os.listdir(f"{top}{directory}")):
            below = f"{directory}/{name}"
            path = f"{place.rstrip('/')}{below}"
            if len(os.fsencode(path)) > _LONGEST_PATH:
                raise NotKeptError(f"it makes {shorten(path)}, a path of more than {_LONGEST_PATH} bytes")
            status = os.lstat(f"{top}{below}")
            if stat.S_ISDIR(status.st_mode):
                waiting.append(below)
            yield path, f"{top}{below}", status


def _read(path: str, here: str, status: os.stat_result) -> Written:
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


def _made_bundle(scratch: str) -> str:
    """A directory for a config.json and the root (runtime-spec, bundle.md), on a tmpfs over a directory of the host.

    It is made as the workspace sees the host, and its path is the host's own.
    """
    place = runner.HOST_PREFIX + scratch
    kernel.mount("cdi-hpc", place, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    name = f"cdi-hpc-hook-{secrets.token_hex(4)}"
    os.makedirs(f"{place}/{name}/{_ROOT}", 0o755)
    return f"{scratch}/{name}"


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


def _encoded(answer: Answer) -> Iterator[bytes]:
    """A line, and behind it what the files hold."""
    written = [(each.path, each.st_mode, len(each.data), each.is_whiteout) for each in answer.written]
    yield json.dumps([answer.failure, answer.said, written]).encode() + b"\n"
    for each in answer.written:
        yield each.data


def _decoded(stream: BinaryIO) -> Answer:
    line = stream.readline()
    if not line.endswith(b"\n"):
        return _KILLED
    failure, said, written = json.loads(line)
    found = tuple(Written(path, mode, stream.read(size), hidden) for path, mode, size, hidden in written)
    is_whole = all(len(each.data) == size for each, (_, _, size, _) in zip(found, written))
    return Answer(failure, said, found) if is_whole else _KILLED


_KILLED = Answer("was not run: what was to run it has been killed")
