"""Run a function in a child process: namespaces, the root directory and exec are for life."""

from __future__ import annotations

import copyreg
import os
import pickle
import sys
import traceback
from typing import Any, Callable

from cdi_hpc.errors import CdiError

# An exception is made again from its arguments, and this one's is a text made of its problems.
copyreg.pickle(CdiError, lambda error: (CdiError, (error.problems,)))


def in_child(function: Callable[[], Any]) -> Any:
    """What the function returns, or raises, in a child process. For exceptions of this project and of the kernel."""
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(writer, function)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    assert answer, f"the child process said nothing and ended with wait status {status:#x}"
    raised, value = pickle.loads(answer)  # noqa: S301  # it is ours
    if raised:
        raise value
    return value


def _answer(writer: int, function: Callable[[], Any]) -> None:
    try:
        try:
            answer = pickle.dumps((False, function()))
        except Exception as error:  # noqa: BLE001  # the parent raises it
            answer = pickle.dumps((True, _portable(error)))
        with os.fdopen(writer, "wb") as stream:
            stream.write(answer)
    finally:
        os._exit(0)


def _portable(error: Exception) -> Exception:
    """The exception, or its text if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # it is ours
    except Exception:  # noqa: BLE001  # whatever pickle thinks of it
        return AssertionError(traceback.format_exc())
    return error
