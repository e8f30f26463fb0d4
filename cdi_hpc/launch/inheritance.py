"""What a command inherits from our caller: everything, less what Python changed for itself and what is between us."""

from __future__ import annotations

import os
import signal
import time

#: Variables in which the front and the native runner tell each other things (native/launch.c has the same).
PRIVATE_VARIABLES = ("CDI_HPC_COMPILED", "CDI_HPC_NATIVE", "CDI_HPC_PYTHON_FRONT")


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
    return {name: value for name, value in caller_environment().items() if name not in PRIVATE_VARIABLES}


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
