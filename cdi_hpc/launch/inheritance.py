"""What a command inherits from our caller: everything, less what Python changed for itself and what is between us."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping

#: Set by the native programs if they execute us inside of their user namespace: a step of a plan has failed there. All
#: other owners look the same in it, root among them (user_namespaces(7)), so that nobody can tell whose a file is.
INSIDE_VARIABLE = "CDI_HPC_INSIDE"

#: Variables in which the front and the native runner tell each other things (native/launch.c has the same).
PRIVATE_VARIABLES = (
    "CDI_HPC_COMPILED",
    "CDI_HPC_EXTRACT_IN",
    INSIDE_VARIABLE,
    "CDI_HPC_NATIVE",
    "CDI_HPC_PYTHON_FRONT",
    "CDI_HPC_SAY",
)


def caller_environment() -> dict[str, str]:
    """The environment that we were given: in the C locale, Python adds LC_CTYPE to its own (PEP 538)."""
    environ = dict(os.environ)
    if "LC_CTYPE" not in environ:
        return environ
    try:
        with open("/proc/self/environ", "rb") as stream:
            given = stream.read().split(b"\0")
    except OSError:
        return environ
    if not any(entry.startswith(b"LC_CTYPE=") for entry in given):
        del environ["LC_CTYPE"]
    return environ


def command_environment() -> dict[str, str]:
    """The same for the command."""
    return without_handoff(
        {name: value for name, value in caller_environment().items() if name not in PRIVATE_VARIABLES}
    )


#: Lines ``NAME=VALUE``: what the SPANK plugin put into a step's environment for launchers that don't know of us.
HANDOFF_VARIABLE = "CDI_HPC_HANDOFF"


def without_handoff(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what the SPANK plugin put there: who applies the devices must not do so twice.

    What the user has added to it since stays, and so does a variable that he has changed (as ``native/handoff.c``).
    """
    kept = dict(environ)
    for line in kept.pop(HANDOFF_VARIABLE, "").split("\n"):
        name, _, ours = line.partition("=")
        before, found, after = kept.get(name, "").partition(ours or "\0")
        if not found or (before and before[-1] not in ",:") or (after and after[0] not in ",:"):
            continue
        # A list's separator was put behind ours; the user may have put one before it.
        rest = before + after[1:] if after else before[:-1]
        if rest:
            kept[name] = rest
        else:
            del kept[name]
    return kept


@contextlib.contextmanager
def children_of_ours() -> Iterator[None]:
    """While we wait for children: who is made to ignore SIGCHLD by his caller hears nothing of their end."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def let_go(*kept: int) -> None:
    """Have nothing open any more but these descriptors; /dev/null in the place of the standard ones.

    For a child that enters a user namespace: all processes of the user can reach into it there (ptrace(2), "Ptrace
    access mode checking"), and what it has open would be theirs to write to. Our own output says which plan is ours.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in {0, 1, 2}.difference(kept):
        os.dup2(null, number)
    first = 3
    for number in (*sorted(number for number in kept if number >= first), open_limit()):
        os.closerange(first, number)
        first = number + 1


def open_limit() -> int:
    """A number that is greater than that of every open descriptor."""
    return max(map(int, os.listdir("/proc/self/fd")), default=3) + 1


def restore_signals() -> None:
    """Undo what Python ignores for itself; whoever is executed expects the default. Handlers end with exec anyway."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def process_start() -> float:
    """When this process began, whatever it has executed since (proc_pid_stat(5)): since the epoch, rounded up."""
    with open("/proc/self/stat", "rb") as stream:
        fields = stream.read().rpartition(b")")[2].split()
    since_boot = (int(fields[19]) + 1) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
