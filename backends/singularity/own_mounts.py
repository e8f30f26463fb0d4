"""Mounts that the launcher's options can't say: made in namespaces of our own, in which it is then executed.

They are made in a tree of our own, which is put over an empty directory of ours. From there the launcher binds them, or
they are moved over what it takes from the host: a node of /dev, or /dev itself.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, field

from cdi_hpc.container.steps import ROOT, BindHost, MakeDirectory, MakeFile, MountNew, Step
from cdi_hpc.errors import CdiError
from cdi_hpc.launch import inheritance, runner
from cdi_hpc.plan import Bind, MountFilesystem


def are_possible() -> bool:
    """Whether this user may make namespaces and mount in them: tried in a child process."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    status = 1
    try:
        inheritance.let_go()
        runner.enter_namespaces()
        status = 0
    except CdiError:
        pass
    finally:
        os._exit(status)


@dataclass
class OwnMounts:
    """A tree of our own while it is put together.

    Attributes:
        place: host path of the directory that it is put over.
        moves: as in :class:`cdi_hpc.backend.Dressing`.

    """

    place: str
    steps: list[Step] = field(default_factory=list)
    moves: list[tuple[str, str]] = field(default_factory=list)
    _count: int = 0

    def name(self) -> str:
        """A new place in the tree."""
        if not self.steps:
            data = ("mode=755",)
            self.steps += [MakeDirectory(ROOT), MountNew("tmpfs", "cdi-hpc", ROOT, ("nodev", "nosuid"), data)]
        self._count += 1
        return f"/{self._count}"

    def show(self, directory: str, name: str) -> str:
        """Bind one directory, not what is mounted below it, under a name of its own; returns its place in the tree."""
        top = self.name()
        path = f"{ROOT}{top}/{name}"
        flags = ("nodev", "nosuid", "ro")
        bound = BindHost(directory, path, recursive=False, flags=flags)
        self.steps += [MakeDirectory(ROOT + top), MakeDirectory(path), bound]
        return f"{top}/{name}"

    def bind(self, action: Bind) -> str:
        """Bind with all flags that were asked for; returns its place in the tree."""
        name = self.name()
        path = ROOT + name
        is_directory = action.kind == "directory"
        flags = tuple(sorted({*action.flags, *action.kept})) if action.flags else ()
        propagation = "" if action.propagation in ("private", "rprivate") else action.propagation
        self.steps.append(MakeDirectory(path) if is_directory else MakeFile(path))
        self.steps.append(BindHost(action.source, path, is_directory and action.recursive, flags, propagation))
        return name

    def mount(self, action: MountFilesystem) -> str:
        """Mount a new file system; returns its place in the tree."""
        name = self.name()
        self.steps.append(MakeDirectory(ROOT + name))
        self.steps.append(MountNew(action.fstype, action.source, ROOT + name, action.flags, action.data))
        return name

    def on_host(self, name: str) -> str:
        """Host path of a place in the tree, once that is where it belongs."""
        return posixpath.join(self.place, name.lstrip("/"))
