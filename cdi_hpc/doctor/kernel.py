"""What the kernel lets this user do: tried where it can be tried, and explained by the settings that forbid it."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from typing import Callable

from cdi_hpc.container.steps import ROOT, BindHost, MakeDirectory, MountOverlay, Step
from cdi_hpc.doctor.checks import Finding, Question
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.launch import runner

#: A node that runs this many containers at a time is not unusual; each takes one namespace of a kind, or two.
_ENOUGH_NAMESPACES = 1000

#: Mounts of a namespace. A launch with 8 GPUs makes some 60; one with 2,000 devices is the largest known.
_ENOUGH_MOUNTS = 10_000

_LIMITS = (
    ("/proc/sys/user/max_user_namespaces", _ENOUGH_NAMESPACES, "user namespaces", "user.max_user_namespaces=15000"),
    ("/proc/sys/user/max_mnt_namespaces", _ENOUGH_NAMESPACES, "mount namespaces", "user.max_mnt_namespaces=15000"),
    ("/proc/sys/fs/mount-max", _ENOUGH_MOUNTS, "mounts of a namespace", "fs.mount-max=100000"),
)


def user_namespaces(question: Question) -> Iterator[Finding]:
    """Whether this user can make a user and a mount namespace, and mount something there."""
    del question
    problems = in_child(runner.enter_namespaces)
    if problems:
        yield from (Finding("problem", f"{problem.where}: {problem.what}", problem.fix) for problem in problems)
        return
    problems = in_child(_mount_something)
    if problems:
        yield from (Finding("problem", f"{problem.where}: {problem.what}", problem.fix) for problem in problems)
        return
    yield Finding("ok", "user and mount namespaces can be made")


def _mount_something() -> None:
    runner.enter_namespaces()
    runner.Workspace()


def limits(question: Question) -> Iterator[Finding]:
    """Whether the kernel's limits are as high as a busy node needs them."""
    del question
    low = False
    for path, enough, what, setting in _LIMITS:
        value = _number(path)
        if value is not None and value < enough:
            low = True
            yield Finding("warning", f"{path} is {value}: few {what} for a node with many tasks", f"sysctl {setting}")
    if not low:
        yield Finding("ok", "the limits on namespaces and mounts are high enough")


def overlay(question: Question) -> Iterator[Finding]:
    """Whether the kernel takes an overlay in a user namespace."""
    del question
    with tempfile.TemporaryDirectory(prefix="cdi-hpc-doctor-") as directory:
        steps = overlay_steps(directory)
        if runner.overlay_is_refused(steps):
            what = "the kernel refuses overlays in user namespaces: launches use tmpfs and binds instead"
            fix = "nothing has to be done; --writable-tmpfs and ch-run -W need Linux 5.11 or newer"
            yield Finding("warning", what, fix)
        else:
            yield Finding("ok", "overlays can be mounted in a user namespace")


def overlay_steps(lower: str) -> Sequence[Step]:
    """Steps that lay an empty directory over ``lower``."""
    return (
        MakeDirectory(ROOT),
        MakeDirectory("stage"),
        MakeDirectory("layer"),
        BindHost(lower, "layer"),
        MountOverlay(ROOT, ("stage", "layer"), "", ("nodev", "nosuid", "ro")),
    )


def fuse(question: Question) -> Iterator[Finding]:
    """Whether images in files can be mounted."""
    del question
    if not os.path.exists("/dev/fuse"):
        yield Finding("warning", "/dev/fuse is not there: SquashFS and SIF files can't be mounted", "modprobe fuse")
    elif not os.access("/dev/fuse", os.R_OK | os.W_OK):
        yield Finding(
            "warning", "/dev/fuse can't be opened: SquashFS files are unpacked instead", "chmod 666 /dev/fuse"
        )
    else:
        yield Finding("ok", "/dev/fuse can be opened")


def in_child(act: Callable[[], object]) -> tuple[Problem, ...]:
    """Do something in a process that ends with it: what was wrong, or nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        problems: tuple[Problem, ...] = (Problem("system", "the check itself failed"),)
        try:
            act()
            problems = ()
        except CdiError as error:
            problems = tuple(error.problems)
        except OSError as error:
            problems = (Problem(error.filename or "system", f"{error.strerror}"),)
        finally:
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(problems, stream)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    found: tuple[Problem, ...] = pickle.loads(data)  # noqa: S301  # from ourselves
    return found


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read())
    except (OSError, ValueError):
        return None
