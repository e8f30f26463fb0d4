"""What a launch does, one line for each step, for whoever asked with ``-v``.

The words are those of ``native/plan_tell.c``. They are made of a compiled plan's records, which both runners have: what
the Python runner does besides (it builds the stage in memory, and the layers) is no step to a reader.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Callable, Union

from cdi_hpc.compiled import wire
from cdi_hpc.compiled.compile import Compiled, StepCompiler, compile_steps
from cdi_hpc.container.steps import MakeDirectory, MakeLink, StageEntry, Step
from cdi_hpc.errors import assert_never
from cdi_hpc.ldcache.format import entries
from cdi_hpc.ldcache.update import CACHE

Told = Union[wire.Step, wire.Squashfs, wire.Place, wire.Move]


class Telling:
    """Tells of a launch by the Python runner, in the order in which the native one does.

    Args:
        note: takes a line about what was made beforehand.
        step: takes a line about what is being done.

    """

    def __init__(self, note: Callable[[str], None], step: Callable[[str], None]) -> None:
        self._note = note
        self._step = step
        self._compiler = StepCompiler()

    def begin(self, steps: Iterable[Step], stage: Sequence[StageEntry], variables: Iterable[str]) -> None:
        """What there is before the first step: the stage, and variables as ``NAME=VALUE``."""
        compiled = compile_steps(steps)
        compiled.stage += stage
        for text in staged(compiled):
            self._note(text)
        for assignment in variables:
            self._step(f"env {assignment}")
        self._compiler = StepCompiler()

    def before(self, step: Step) -> None:
        """A mount step is next."""
        told = len(self._compiler.compiled.records)
        self._compiler.add(step)
        for record in self._compiler.compiled.records[told:]:
            self._step(words(record))

    def record(self, record: Told) -> None:
        """Something that is no mount step is next."""
        self._step(words(record))

    def command(self, program: str, arguments: Sequence[str]) -> None:
        """The last step."""
        self._step(f"exec {shlex.join([program, *arguments])}")


def staged(compiled: Compiled) -> Iterator[str]:
    """Links and files in the stage, which was made before the launch: where they are seen, and what they are."""
    places = {record.staged: record.place for record in compiled.records if isinstance(record, _STAGED)}
    for entry in compiled.stage:
        path = _seen_at(entry.path, places)
        if isinstance(entry, MakeDirectory):
            continue
        if isinstance(entry, MakeLink):
            yield f"staged link {path} -> {entry.points_to}"
        elif entry.content:  # others are for mounts
            yield f"staged file {path}: {_described(path, entry.content)}"


_STAGED = (wire.Copy, wire.BindStaged, wire.Overlay)


def _seen_at(path: str, places: Mapping[str, str]) -> str:
    """Container path of something in the stage; a launcher's own entries are called as they are there."""
    layer, slash, rest = path.partition("/")
    if layer not in places:
        return path
    return posixpath.join(places[layer], rest) if slash else places[layer]


def _described(path: str, content: bytes) -> str:
    count = len(entries(content)) if path.endswith(CACHE) else 0
    return f"{count} entries" if count else f"{len(content)} bytes"


def words(record: Told | wire.Record) -> str:
    """A step in one line, "" for a record that is none."""
    if isinstance(record, wire.Squashfs):
        return f"mount {record.path} with squashfuse"
    if isinstance(record, wire.Place):
        return f"place tree -> {record.mountpoint}"
    if isinstance(record, wire.Move):
        return f"move tree's {record.mounted} -> {record.mountpoint}"
    return _of_step(record) if isinstance(record, wire.STEPS) else ""


def _of_step(record: wire.Step) -> str:
    if isinstance(record, wire.Mkdir):
        return f"directory {record.place}"
    if isinstance(record, (wire.Mkfile, wire.Copy)):
        return f"file {record.place}"
    if isinstance(record, wire.Symlink):
        return f"link {record.place} -> {record.points_to}"
    if isinstance(record, wire.Restrict):
        return f"remount {record.place}{_flags(record.flags)}"
    if isinstance(record, wire.Bind):
        return f"bind {record.path} -> {record.place}{_flags(record.flags)}"
    if isinstance(record, wire.BindStaged):
        return f"bind staged file -> {record.place}{_flags(record.flags)}"
    if isinstance(record, wire.Overlay):
        return f"overlay {record.path} -> {record.place}{_flags(record.flags)}"
    if isinstance(record, wire.Mount):
        return f"mount {record.fstype} -> {record.place}{_flags(record.flags)}"
    return assert_never(record)


def _flags(flags: tuple[str, ...]) -> str:
    return f" ({','.join(flags)})" if flags else ""
