"""Mount steps in the words of a compiled plan, and the stage that they need on disk.

The plan's stage is a directory beside it, with a subdirectory for each overlay and the content of each file that is
made or bound elsewhere. ``cdi-hpc-run`` replays the plan (docs/plan-format.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from cdi_hpc.backend import Dressing, Keep, Peers, StagePath, Text, Word
from cdi_hpc.compiled import wire
from cdi_hpc.container.steps import (
    ROOT,
    BindHost,
    BindStaged,
    MakeDirectory,
    MakeFile,
    MakeLink,
    MountNew,
    MountOverlay,
    Restrict,
    StageEntry,
    Step,
)
from cdi_hpc.errors import assert_never
from cdi_hpc.host import ACCESS_TIME_FLAGS
from cdi_hpc.witness import AbsentState, DirectoryState, FileState, LinkState, NodeState, State


@dataclass
class Compiled:
    """What a list of mount steps becomes.

    Attributes:
        records: for the plan.
        stage: to be made on disk, parents first; paths are relative to the stage.

    """

    records: list[wire.Record] = field(default_factory=list)
    stage: list[StageEntry] = field(default_factory=list)


def compile_steps(steps: Iterable[Step]) -> Compiled:
    """Steps of :mod:`cdi_hpc.container.compose` for the native runner, which needs no workspace."""
    compiler = StepCompiler()
    for step in steps:
        compiler.add(step)
    return compiler.compiled


def compile_dressing(dressing: Dressing, program: str) -> Compiled:
    """A launch through a launcher: its mount steps if there are any, and its command line.

    Args:
        dressing: the plan in the launcher's words.
        program: real path of the launcher.

    """
    compiled = compile_steps(dressing.steps)
    compiled.stage += dressing.stage
    compiled.records = [
        *(wire.Env(f"{each.name}={each.value}") for each in dressing.variables if not each.default),
        *(wire.Default(f"{each.name}={each.value}") for each in dressing.variables if each.default),
        wire.Program(program),
        *(_word(word) for word in dressing.words),
        *(_served(dressing) if dressing.squashfs else ()),
        *(_shared(dressing.peers) if dressing.peers else ()),
        *compiled.records,
        *([wire.Place(dressing.place)] if dressing.steps else []),
        *(wire.Move(place, to) for place, to in dressing.moves),
    ]
    return compiled


def _served(dressing: Dressing) -> Iterator[wire.Squashfs]:
    yield wire.Squashfs(dressing.squashfs, dressing.place, dressing.offset, dressing.owned)


def _shared(peers: Peers) -> Iterator[wire.Peers]:
    yield wire.Peers(peers.prefix, peers.variable, peers.devices, peers.edits)


def _word(word: Word) -> wire.Word:
    if isinstance(word, Text):
        return wire.Arg(word.text)
    if isinstance(word, Keep):
        return wire.KeepArg(word.index)
    if isinstance(word, StagePath):
        return wire.StageArg(word.prefix, word.path, word.suffix)
    return assert_never(word)


class StepCompiler:
    """Takes steps one by one; ``compiled`` is what they have become so far."""

    def __init__(self) -> None:
        self.compiled = Compiled()
        self.layers: dict[str, str] = {}
        self.upper_modes: dict[str, int] = {}
        self.limits: dict[str, str] = {}

    def add(self, step: Step) -> None:
        """Take the next step."""
        top, _, rest = step.path.partition("/")
        if isinstance(step, (MakeDirectory, MakeFile, MakeLink)):
            self._make(step, top, rest)
        elif isinstance(step, BindHost) and top == "layer":
            self.layers[step.path] = step.source
        elif isinstance(step, MountNew) and top == "write":
            self.limits[step.path] = next(text[len("size=") :] for text in step.data if text.startswith("size="))
        else:
            self.compiled.records.append(self._mount(step, f"/{rest}"))

    def _make(self, step: StageEntry, top: str, rest: str) -> None:
        if top == "stage" and rest:
            self.compiled.stage.append(replace(step, path=rest))
        elif top == "write" and isinstance(step, MakeDirectory):
            self.upper_modes[step.path] = step.mode
        elif top == ROOT and rest:
            self.compiled.records.append(self._make_in_root(step, f"/{rest}"))

    def _make_in_root(self, step: StageEntry, place: str) -> wire.Step:
        if isinstance(step, MakeDirectory):
            return wire.Mkdir(place, step.mode)
        if isinstance(step, MakeLink):
            return wire.Symlink(place, step.points_to)
        if not step.content:
            return wire.Mkfile(place, step.mode)
        # Layers are numbers, and a launcher's own entries begin with no digit.
        staged = f"{len(self.compiled.stage)}-content"
        self.compiled.stage.append(replace(step, path=staged))
        return wire.Copy(staged, place, step.mode)

    def _mount(self, step: BindHost | BindStaged | MountOverlay | MountNew | Restrict, place: str) -> wire.Step:
        if isinstance(step, BindHost):
            # A bind keeps its source's own and can have no others: what those were once is no business of a plan.
            flags = tuple(flag for flag in step.flags if flag not in ACCESS_TIME_FLAGS)
            return wire.Bind(step.source, place, step.recursive, flags, step.propagation)
        if isinstance(step, BindStaged):
            return wire.BindStaged(_below_stage(step.source), place, step.flags)
        if isinstance(step, MountOverlay):
            upper, lower = step.layers
            mode = self.upper_modes.get(f"{step.writable}/upper", 0o755)
            limit = self.limits.get(step.writable, "")
            layers = _below_stage(upper), self.layers[lower]
            return wire.Overlay(place, *layers, bool(step.writable), mode, step.flags, limit)
        if isinstance(step, MountNew):
            return wire.Mount(step.fstype, step.source, place, step.flags, ",".join(step.data))
        if isinstance(step, Restrict):
            return wire.Restrict(place, step.flags)
        return assert_never(step)


def _below_stage(path: str) -> str:
    return path[len("stage/") :]


def origins(states: Iterable[State]) -> Iterator[wire.Origin]:
    """What a plan was made from, as records that the native runner checks."""
    for state in states:
        if isinstance(state, FileState):
            yield wire.SameFile(state.path, state.device, state.inode, state.size, state.mtime, state.ctime)
        elif isinstance(state, DirectoryState):
            yield wire.SameDirectory(state.path, state.device, state.inode, state.mtime, state.ctime)
        elif isinstance(state, NodeState):
            ids = (state.rdev, state.mode, state.uid, state.gid)
            yield wire.SameNode(state.path, state.device, state.inode, *ids)
        elif isinstance(state, AbsentState):
            yield wire.Absent(state.path)
        elif isinstance(state, LinkState):
            yield wire.SameLink(state.path, state.text)
        else:
            assert_never(state)
