"""The last steps to the user's command: working directory, privileges, signals, exec."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from cdi_hpc.errors import CdiError, Problem, printable
from cdi_hpc.launch import inheritance, kernel

#: Exit statuses of our own, those of env(1) and chroot(1).
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(
    inherited: Mapping[str, str], planned: Sequence[tuple[str, str]], given: Sequence[str]
) -> dict[str, str]:
    """The command's environment: the caller's, then the plan's, then ``--env`` (NAME=VALUE, or NAME to keep it).

    Raises:
        CdiError: a ``--env`` without a name.

    """
    result = {**inherited, **dict(planned)}
    for text in given:
        name, equals, value = text.partition("=")
        if not name:
            raise CdiError(Problem(f"--env {text}", "has no name", "write NAME=VALUE"))
        if equals:
            result[name] = value
        elif name in inherited:
            result[name] = inherited[name]
    result.setdefault("PATH", _DEFAULT_PATH)
    return result


def working_directory() -> str:
    """This process's, "" if it has no path any more."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def enter_directory(wanted: str | None, current: str) -> None:
    """Go to ``wanted``, or to ``current`` if the container has it, or to /.

    Raises:
        CdiError: the directory that was asked for can't be entered.

    """
    if wanted is not None:
        try:
            os.chdir(wanted)
        except OSError as error:
            raise CdiError(Problem(f"--workdir {wanted}", f"can't be entered: {error.strerror}")) from None
        return
    try:
        os.chdir(current)
    except OSError:
        os.chdir("/")


def import_nothing_more(*, no_new_privs: bool = True) -> Callable[[], None]:
    """Import what is still needed, and make sure that nothing else ever is; call it before the root is changed.

    Python looks for modules, codecs among them, when they are first asked for. After a change of root it would find
    them in the image, and run them with our privileges.

    Args:
        no_new_privs: for :func:`drop_privileges`.

    Returns:
        What drops the privileges: see :func:`drop_privileges`.

    """
    try:
        import prctl
    except ImportError:
        prctl = None
    sys.meta_path.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    return lambda: drop_privileges(prctl, no_new_privs=no_new_privs)


def drop_privileges(prctl: Any = None, *, no_new_privs: bool = True) -> None:
    """No capability, now or after any exec, and no_new_privs if asked for (capabilities(7), prctl(2)).

    python-prctl, where it is installed, does the calls; it knows the bounding set of newer kernels.
    """
    if prctl is None:
        kernel.keep_capabilities(())
        if no_new_privs:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    else:
        prctl.capbset.limit()
        prctl.cap_permitted.limit()
        if no_new_privs:
            prctl.set_no_new_privs(1)


def execute(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Become the command; looked up as a shell would, on the PATH of ``env``. Never returns.

    Exits with NOT_FOUND or NOT_EXECUTABLE and one line on stderr.
    """
    inheritance.restore_signals()
    name = command[0]
    if not name:
        _leave("the command's name is empty", NOT_FOUND)
    if "/" in name:
        candidates = [name]
    else:
        candidates = [os.path.join(directory or ".", name) for directory in env.get("PATH", "").split(":")]
    denied: OSError | None = None
    for candidate in candidates:
        try:
            _exec(candidate, command, env)
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.exists(candidate):
                denied = OSError(error.errno, "its interpreter is not in the image")
        except OSError as error:
            denied = error
    if denied is not None:
        _leave(f"{name}: can't be executed: {denied.strerror}", NOT_EXECUTABLE)
    _leave(f"{name}: not found in the container", NOT_FOUND)


def _exec(path: str, command: Sequence[str], env: Mapping[str, str]) -> None:
    try:
        os.execve(path, list(command), dict(env))
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # A script without an interpreter line: what execvp(3) and every shell do.
    os.execve("/bin/sh", ["sh", path, *command[1:]], dict(env))


def _leave(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"cdi-hpc: {printable(message)}\n")
    sys.stderr.flush()
    os._exit(status)
