"""How each launcher does an action, read from what it would do: the assembled tree, a script, a launcher's dressing."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cdi_hpc import backend
from cdi_hpc.backend import Dressing, StagePath, Text
from cdi_hpc.container.stage import Assembly, CoverFile
from cdi_hpc.container.steps import ROOT, BindHost, BindStaged, MakeFile, MakeLink, MountNew, StageEntry, Step
from cdi_hpc.container.tree import StagedFile, StagedLink
from cdi_hpc.errors import assert_never
from cdi_hpc.explain.views import Fate, Verdict
from cdi_hpc.plan import (
    Action,
    Bind,
    CudaCompat,
    Directory,
    MountFilesystem,
    Note,
    Plan,
    RunHook,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.translation import describe

_DEV = "/dev/"
_TMP = "/tmp/"  # noqa: S108  # a path in containers
_CACHE = "/etc/ld.so.cache"

#: What a hook would have done is done by other means; the rest is what an OCI runtime does as well.
_EMULATED = (Symlink, WriteFile, CudaCompat, UpdateLdCache)


def _verdict(action: Action) -> Verdict:
    return "emulated" if isinstance(action, _EMULATED) else "done"


# In a tree of ours ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InTree:
    """``cdi-hpc run``, and a step of Slurm: what an assembled tree says of each action.

    Attributes:
        plan: which was put into the tree.
        assembly: the tree; None where the image can't be looked at.
        is_known: the image is one, and not just taken to be empty.

    """

    plan: Plan
    assembly: Assembly | None
    is_known: bool = True

    def of(self, action: Action) -> Fate | None:
        """See :class:`cdi_hpc.explain.views.Ways`."""
        general = Fate(_verdict(action), describe.how(action, "embedded"))
        if self.assembly is None:
            return general
        if isinstance(action, (Bind, MountFilesystem)):
            return self._mount(action, self.assembly, general)
        if isinstance(action, Symlink):
            return general if _is_staged(action, self.assembly) else _present(action, self.assembly)
        if isinstance(action, WriteFile):
            return Fate("emulated", "a file of ours over it") if _is_covered(action, self.assembly) else general
        if isinstance(action, CudaCompat):
            return (_decided(action, self.assembly) if self.is_known else None) or general
        return general

    def _mount(self, action: Bind | MountFilesystem, assembly: Assembly, general: Fate) -> Fate | None:
        target = real_target(action, assembly)
        if target is None:
            return None
        how = general.how if target == action.target else f"{general.how}; in the image that is {target}"
        if self.plan.private_dev and action.target.startswith(_DEV):
            return Fate(_node_verdict(action), f"{how}, in a /dev of the container's own")
        return Fate("done", how)


def _node_verdict(action: Bind | MountFilesystem) -> Verdict:
    """A node under another name is the same device, but not one that was made there."""
    return "emulated" if isinstance(action, Bind) and action.source != action.target else "done"


def real_target(action: Action, assembly: Assembly) -> str | None:
    """Where in the image a mount is made; None if none is."""
    for placed in reversed(assembly.mounts):
        if placed.what == action:
            return assembly.tree.regions[placed.region].target
    return None


def _real_path(path: str, assembly: Assembly) -> str:
    return posixpath.join(assembly.tree.resolve(posixpath.dirname(path)), posixpath.basename(path))


def _is_staged(action: Symlink, assembly: Assembly) -> bool:
    entry = assembly.tree.entry(_real_path(action.path, assembly))
    return entry is not None and isinstance(entry.staged, StagedLink) and entry.staged.points_to == action.points_to


def _present(action: Symlink, assembly: Assembly) -> Fate | None:
    """A link that is there without us."""
    real_path = _real_path(action.path, assembly)
    entry = assembly.tree.entry(real_path)
    if entry is None or entry.kind != "link" or assembly.tree.readlink(real_path) != action.points_to:
        return None
    return Fate("done", f"nothing to do: {'the host' if real_path.startswith(_DEV) else 'the image'} has this link")


def _is_covered(action: WriteFile, assembly: Assembly) -> bool:
    cover = CoverFile(action.content, action.mode)
    return any(placed.what == cover for placed in assembly.mounts)


def _decided(action: CudaCompat, assembly: Assembly) -> Fate | None:
    """What the image's libcuda decided."""
    said = [text for text in assembly.messages if text.startswith(f"{action.directory}: ")]
    return Fate("emulated", said[0]) if said else None


# In a script ----------------------------------------------------------------------------------------------------------


class InScript:
    """The script of ``cdi-hpc script``."""

    def of(self, action: Action) -> Fate | None:
        """See :class:`cdi_hpc.explain.views.Ways`."""
        how = describe.how(action, "bash")
        if isinstance(action, Bind) and action.target.startswith(_DEV) and action.source != action.target:
            return Fate("emulated", f"{how}, in a /dev of the container's own")
        return Fate(_verdict(action), how)


# Through a launcher ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dressed:
    """A launcher that is here: what its command line, its environment and the steps before it say of each action."""

    dressing: Dressing
    name: str
    is_known: bool = True

    def of(self, action: Action) -> Fate | None:
        """See :class:`cdi_hpc.explain.views.Ways`."""
        how = self._how(action)
        return None if how is None else how if isinstance(how, Fate) else Fate(_verdict(action), how)

    def _how(self, action: Action) -> str | Fate | None:
        if isinstance(action, SetEnv):
            return self._variable(action)
        if isinstance(action, (Bind, MountFilesystem)):
            return self._mount(action)
        if isinstance(action, Symlink):
            return self._link(action)
        if isinstance(action, WriteFile):
            return self._file(action)
        if isinstance(action, CudaCompat):
            return self._compat(action)
        if isinstance(action, UpdateLdCache):
            return self._loader_cache(action)
        if isinstance(action, (RunHook, Directory)):
            return describe.how(action, "embedded")
        if isinstance(action, (Note, Unsupported)):
            return None
        return assert_never(action)

    def _variable(self, action: SetEnv) -> str | None:
        for option, text in self._options():
            if text == action.name or text.startswith(f"{action.name}="):
                return option
        for variable in self.dressing.variables:
            if variable.name == action.name or variable.name.endswith(f"ENV_{action.name}"):
                return f"variable {variable.name[: -len(action.name)]}NAME"
        return None

    def _mount(self, action: Bind | MountFilesystem) -> str | Fate | None:
        assembly = self.dressing.assembly
        real = real_target(action, assembly) if assembly is not None else None
        targets = {action.target, real or action.target}
        elsewhere = f"; in the image that is {real}" if real and real != action.target else ""
        option = self._option_about(targets)
        if option:
            return f"{option}{elsewhere}"
        moved = next((to for _, to in self.dressing.moves for target in targets if _is_in(target, to)), None)
        if moved is not None:
            return self._over_host(action, moved)
        if action.target.startswith((_DEV, _TMP)):
            return self._on_host(action)
        if _has_mount(self.dressing, action, targets):
            return f"{describe.how(action, 'embedded')} in a mount namespace of ours{elsewhere}"
        return None

    def _over_host(self, action: Bind | MountFilesystem, moved: str) -> Fate:
        """Something is put over the host's path in our namespace, from where the launcher binds it."""
        what = "own" if moved == action.target else moved
        how = f"{describe.how(action, 'embedded')} over the host's {what}, in a mount namespace of ours"
        return Fate(_node_verdict(action), f"{how}, from where {self.name} binds it")

    def _on_host(self, action: Bind | MountFilesystem) -> str | None:
        """The launcher binds a directory of the host that shows it already."""
        if isinstance(action, Bind) and action.source.endswith(posixpath.basename(action.target)):
            return f"seen in the host's {posixpath.dirname(action.source)}, which {self.name} binds"
        return None

    def _link(self, action: Symlink) -> str | Fate | None:
        assembly = self.dressing.assembly
        if assembly is not None and not _is_staged(action, assembly):
            return _present(action, assembly)
        name = posixpath.basename(action.path)
        if any(posixpath.basename(step.path) == name for step in self._made() if isinstance(step, MakeLink)):
            return f"link in {self._layer()}"
        if action.path.startswith(_DEV):
            return Fate("done", f"nothing to do: the host's /dev, which {self.name} binds, has this link")
        return None

    def _file(self, action: WriteFile) -> str | None:
        if any(step.content == action.content for step in self._made() if isinstance(step, MakeFile)):
            moved = next((to for _, to in self.dressing.moves if _is_in(action.path, to)), None)
            return f"a file of ours over the host's {moved}" if moved else f"file in {self._layer()}"
        return None

    def _compat(self, action: CudaCompat) -> str | Fate | None:
        assembly = self.dressing.assembly
        if assembly is None:
            return None
        return (_decided(action, assembly) if self.is_known else None) or describe.how(action, "embedded")

    def _loader_cache(self, action: UpdateLdCache) -> str | None:
        assembly = self.dressing.assembly
        if assembly is not None:
            entry = assembly.tree.entry(assembly.tree.resolve(posixpath.dirname(_CACHE)) + "/" + "ld.so.cache")
            if entry is not None and isinstance(entry.staged, StagedFile):
                return f"ld.so.cache merged in {self._layer()}"
        paths = [variable.name for variable in self.dressing.variables if variable.name.endswith("LD_LIBRARY_PATH")]
        return f"variable {paths[0]}" if paths else None if action.folders else "nothing to do: it names no folder"

    def _options(self) -> Iterator[tuple[str, str]]:
        """What is said to the launcher: options with their values, joined to them or not."""
        option = ""
        for word in self.dressing.words:
            text = (
                word.text
                if isinstance(word, Text)
                else word.prefix + word.path + word.suffix
                if isinstance(word, StagePath)
                else ""
            )
            name, equals, value = text.partition("=")
            if text.startswith("--"):
                option = name
                if equals:
                    yield name, value
            elif option:
                yield option, text
                option = ""

    def _option_about(self, targets: Iterable[str]) -> str:
        wanted = tuple(targets)
        for option, value in self._options():
            pieces = value.replace(",", ":").replace('"', "").split(":")
            names = {piece.partition("=")[2] or piece for piece in pieces}
            if not names.isdisjoint(wanted):
                return option
        return ""

    def _made(self) -> Iterator[Step | StageEntry]:
        yield from (*self.dressing.steps, *self.dressing.stage)

    def _layer(self) -> str:
        if any(option == "--overlay" for option, _ in self._options()):
            return "a layer over the image (--overlay)"
        return "a layer over the image"


def _is_in(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")


def _has_mount(dressing: Dressing, action: Bind | MountFilesystem, targets: Iterable[str]) -> bool:
    places = {ROOT + target for target in targets}
    if isinstance(action, Bind):
        binds = (step for step in dressing.steps if isinstance(step, (BindHost, BindStaged)))
        return any(step.path in places for step in binds)
    return any(isinstance(step, MountNew) and step.path in places for step in dressing.steps)


# In general -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InGeneral:
    """A launcher that is not here: what its backend says of itself."""

    ways: backend.Ways | None

    def of(self, action: Action) -> Fate | None:
        """See :class:`cdi_hpc.explain.views.Ways`."""
        if self.ways is None:
            return Fate(_verdict(action), "as its backend does it")
        if isinstance(action, Bind) and action.target.startswith(_DEV) and action.source != action.target:
            return Fate("emulated", "bind mount in a /dev of the container's own")
        return Fate(_verdict(action), _general(action, self.ways))


def _general(action: Action, ways: backend.Ways) -> str:
    if isinstance(action, SetEnv):
        return ways.variable
    if isinstance(action, Bind):
        return ways.node if action.target.startswith(_DEV) else ways.mount
    if isinstance(action, MountFilesystem):
        return ways.filesystem
    if isinstance(action, Symlink):
        return ways.link
    if isinstance(action, WriteFile):
        return ways.file
    if isinstance(action, CudaCompat):
        return describe.how(action, "embedded")
    if isinstance(action, UpdateLdCache):
        return ways.loader_cache
    if isinstance(action, (RunHook, Directory)):
        return describe.how(action, "embedded")
    if isinstance(action, (Note, Unsupported)):
        return action.reason
    return assert_never(action)
