"""A plan for an image that can't be read beforehand: an encrypted one, or an ext3 file.

Nobody knows where its links lead or what its loader's cache lists. So paths are taken as they are written, nothing is
laid over the image, and libraries are found by LD_LIBRARY_PATH.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field

from cdi_hpc.backend import Variable
from cdi_hpc.backends.singularity.binds import Source, Staged
from cdi_hpc.backends.singularity.settings import Settings
from cdi_hpc.container.steps import MakeDirectory, MakeFile, MakeLink, StageEntry
from cdi_hpc.container.tree import is_kernels
from cdi_hpc.plan import (
    Action,
    Bind,
    CudaCompat,
    Directory,
    MountFilesystem,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)

CONSEQUENCE = "its loader's cache is left as it is, and libraries are found by LD_LIBRARY_PATH"

#: Where links to libraries are seen in the container.
_LINKS = "/.singularity.d/cdi-hpc"

_STAGED_LINKS = "links"

_VARIABLE = "LD_LIBRARY_PATH"


@dataclass
class Placed:
    """What can be done.

    Attributes:
        binds: source, container path, and whether it is read-only.

    """

    binds: list[tuple[Source, str, bool]] = field(default_factory=list)
    stage: list[StageEntry] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)
    lacks: list[Unsupported] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)


def place(actions: Iterable[Action], settings: Settings) -> Placed:
    """Say what can be said without the image."""
    placed = Placed()
    for action in actions:
        _place(action, placed)
    if placed.links:
        placed.stage.append(MakeDirectory(_STAGED_LINKS))
        placed.stage += (MakeLink(f"{_STAGED_LINKS}/{name}", to) for name, to in sorted(placed.links.items()))
        placed.binds.append((Staged(_STAGED_LINKS), _LINKS, True))
        placed.folders.insert(0, _LINKS)
    folders = list(dict.fromkeys(placed.folders))
    if folders:
        prefix = settings.prefixes[0]
        own = settings.environ.get(f"{prefix}ENV_{_VARIABLE}")
        placed.variables.append(Variable(f"{prefix}ENV_{_VARIABLE}", ":".join([*folders, *([own] if own else [])])))
    return placed


def _place(action: Action, placed: Placed) -> None:
    if isinstance(action, Bind):
        if action.kind == "device":
            reason = "the launcher mounts everything outside /dev with nodev: it could not be opened"
            placed.lacks.append(Unsupported(f"deviceNodes {action.target}", reason, action.origin, fatal=True))
        else:
            placed.binds.append((action.source, action.target, "ro" in action.flags))
    elif isinstance(action, UpdateLdCache):
        placed.folders += action.folders
    elif isinstance(action, Symlink):
        _link(action, placed)
    elif isinstance(action, WriteFile):
        path = f"file-{len(placed.stage)}"
        placed.stage.append(MakeFile(path, action.content, action.mode))
        placed.binds.append((Staged(path), action.path, True))
    elif isinstance(action, Directory):
        reason = "a directory can't be laid over an image that can't be read beforehand"
        placed.lacks.append(Unsupported(f"directory {action.path}", reason, action.origin))
    elif isinstance(action, (MountFilesystem, CudaCompat)):
        where = action.target if isinstance(action, MountFilesystem) else action.directory
        what = "mounts" if isinstance(action, MountFilesystem) else "hooks enable-cuda-compat"
        reason = "not done in an image that can't be read beforehand"
        fatal = isinstance(action, MountFilesystem)
        placed.lacks.append(Unsupported(f"{what} {where}", reason, action.origin, fatal=fatal))


def _link(action: Symlink, placed: Placed) -> None:
    """A link that a loader asks for by name is one in a directory of ours; any other can't be made."""
    name = posixpath.basename(action.path)
    if ".so" in name and not is_kernels(action.path):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(action.path), action.points_to))
        placed.links.setdefault(name, target)
        return
    reason = "a link can't be laid over an image that can't be read beforehand"
    placed.lacks.append(Unsupported(f"link {action.path}", reason, action.origin))
