"""The hook's own processes: an init, which ends when the hook does, and the hook; in time, and what they said."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from typing import NoReturn

from cdi_hpc.launch import inheritance, kernel
from cdi_hpc.plan import RunHook
from cdi_hpc.site import hook_environment

#: A hook writes into a container as root there would, and may change its root directory; nothing else.
_CAPABILITIES = (kernel.CAP_DAC_OVERRIDE, kernel.CAP_SYS_CHROOT)

#: Bytes that a hook may write: it ends up in a plan's stage. None of its files is larger; sparse ones count whole.
MOST_BYTES = 64 << 20

#: Bytes of a hook's output that are kept.
_OUTPUT = 4096

_PAUSE = 0.05
_CANT_EXECUTE = 126


def run(hook: RunHook, bundle: str, state: bytes) -> tuple[str, str]:
    """Run the hook to its end; returns why it failed or "", and the end of what it said.

    Args:
        hook: the hook.
        bundle: its working directory.
        state: what it finds on its standard input.

    """
    kernel.unshare(kernel.CLONE_NEWPID)
    state_begin, state_end = os.pipe()
    output, output_end = os.pipe()
    status, status_end = os.pipe()
    os.write(state_end, state)  # less than a pipe holds: nobody waits for a hook that doesn't read it
    os.close(state_end)
    init = os.fork()
    if init == 0:
        _be_init(hook, bundle, state_begin, output_end, status_end)
    for fd in (state_begin, output_end, status_end):
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
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ:
        return f"was ended: a file may have {MOST_BYTES >> 20} MiB"
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
        os.closerange(3, inheritance.open_limit())
        os.chdir(bundle)
        os.umask(0o022)
        _forget_signals()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _limit_files()
        kernel.keep_capabilities(_CAPABILITIES)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        os.execve(
            hook.path, [*hook.args], {**hook_environment.ALWAYS_SET, **dict(each.split("=", 1) for each in hook.env)}
        )
    except OSError as error:
        os.write(2, f"it can't be executed: {error.strerror}\n".encode())
    finally:
        os._exit(_CANT_EXECUTE)


def _limit_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = MOST_BYTES if hard == resource.RLIM_INFINITY else min(MOST_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _forget_signals() -> None:
    """Dispositions and masks outlive an exec, and were Python's or the caller's."""
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
