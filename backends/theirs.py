"""A backend that somebody else wrote, held to the protocol of :mod:`cdi_hpc.backend`.

What a backend says depends on its code. Ours is of the same release as the program, which is in every key; theirs has
a release of its own, or none while it is being written. So its files are among what profiles and plans are made from.

A mistake in it is an error that names the backend and the line, not a traceback of ours.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from cdi_hpc.backend import Backend, BackendFaultError, Dressing, Invocation, Keep, Located, Profile
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.plan import Plan
from cdi_hpc.witness import Witness

T = TypeVar("T")

#: No backend's own, whoever names it in an entry point.
_OURS = "cdi_hpc"


class TheirBackend:
    """A backend by an entry point: it answers, or what is wrong is said in its name."""

    def __init__(self, backend: Backend, entry_point: str) -> None:
        """Speak for a backend.

        Args:
            backend: which one.
            entry_point: ``MODULE:OBJECT``, what it was made by.

        """
        self.name = backend.name
        self.commands = tuple(backend.commands)
        self.ways = getattr(backend, "ways", None)
        self._backend = backend
        self._entry_point = entry_point
        modules = (entry_point.partition(":")[0], type(backend).__module__)
        self._packages = {_package(module) for module in modules} - {_OURS}
        if isinstance(backend.commands, str):  # a parenthesis without its comma
            raise self._fault("commands is a text, not a tuple of them")

    def probe(self, program: str) -> Profile:
        """See :meth:`cdi_hpc.backend.Backend.probe`."""
        profile = self._ask(Profile, "probe", program)
        return replace(profile, looked_at=tuple(dict.fromkeys((*profile.looked_at, *self._files()))))

    def locate(self, invocation: Invocation, profile: Profile, environ: Mapping[str, str], image_place: str) -> Located:
        """See :meth:`cdi_hpc.backend.Backend.locate`."""
        return self._ask(Located, "locate", invocation, profile, environ, image_place)

    def adapt(
        self,
        plan: Plan,
        invocation: Invocation,
        profile: Profile,
        located: Located,
        host: Host,
        environ: Mapping[str, str],
        witness: Witness,
    ) -> Dressing:
        """See :meth:`cdi_hpc.backend.Backend.adapt`."""
        self._show(witness)
        dressing = self._ask(Dressing, "adapt", plan, invocation, profile, located, host, environ, witness)
        self._show(witness)  # some of it may have been imported only now
        for word in dressing.words:
            if isinstance(word, Keep) and not 0 <= word.index < len(invocation.words):
                raise self._fault(f"adapt keeps word {word.index} of {len(invocation.words)}")
        return dressing

    def _ask(self, answer: type[T], method: str, *arguments: Any) -> T:
        try:
            found = getattr(self._backend, method)(*arguments)
        except CdiError:
            raise
        except (Exception, SystemExit) as error:  # a script of theirs may exit
            raise self._fault(f"{method}: {type(error).__name__}: {error}{self._line(error)}") from error
        if not isinstance(found, answer):
            raise self._fault(f"{method} gives a {type(found).__name__}, not a {answer.__name__}")
        return found

    def _fault(self, what: str) -> BackendFaultError:
        return BackendFaultError(Problem(f"backend {self.name!r} ({self._entry_point})", what, "see docs/backends.md"))

    def _line(self, error: BaseException) -> str:
        """The last line of the backend's own that led to an error, in words."""
        files = {*self._files()}
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
        return f", at {own[-1].filename}:{own[-1].lineno}" if own else ""

    def _show(self, witness: Witness) -> None:
        for path in self._files():
            witness.saw(path, "content")

    def _files(self) -> Iterator[str]:
        """Paths of all that was imported of it."""
        for name, module in [*sys.modules.items()]:
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and _package(name) in self._packages:
                yield _on_disk(os.path.abspath(path))


def _package(module: str) -> str:
    return module.partition(".")[0]


def _on_disk(path: str) -> str:
    """The path itself, or the archive that it is in: Python imports from ZIP files."""
    while path != "/" and not os.path.exists(path):
        path = os.path.dirname(path)
    return path
