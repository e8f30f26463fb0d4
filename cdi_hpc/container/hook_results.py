"""What a hook that was run has written into a container, as actions of a plan. Pure."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cdi_hpc.container.tree import ContainerTree, StagedDirectory
from cdi_hpc.plan import Action, Directory, Symlink, WriteFile
from cdi_hpc.spec.decode import shorten
from cdi_hpc.spec.model import Origin

#: Paths that a summary names.
_MOST_SHOWN = 5


@dataclass(frozen=True)
class Written:
    """A file that a hook made or changed.

    Attributes:
        path: in the container, without links.
        st_mode: as lstat(2) has it, type included.
        data: content of a file, text of a link.
        is_whiteout: an entry of the image is hidden; for a directory, all that the image may have in it
            (Documentation/filesystems/overlayfs.rst).

    """

    path: str
    st_mode: int
    data: bytes = b""
    is_whiteout: bool = False


class NotKeptError(Exception):
    """A hook did something that can't be shown."""


def actions_of(written: Iterable[Written], tree: ContainerTree, origin: Origin) -> tuple[Action, ...]:
    """What a hook wrote as actions of a plan.

    Args:
        written: parents before what is in them.
        tree: the container's as the hook found it.
        origin: of the hook.

    Raises:
        NotKeptError: something of it can't be shown; nothing of it is, then.

    """
    return tuple(action for each in written for action in _action(each, tree, origin))


def _action(written: Written, tree: ContainerTree, origin: Origin) -> Iterator[Action]:
    path, mode = written.path, stat.S_IMODE(written.st_mode) & 0o777
    if stat.S_ISDIR(written.st_mode):
        yield from _directory(written, mode, tree, origin)
    elif written.is_whiteout:
        raise NotKeptError(f"it removes {shorten(path)} from the image, which can't be shown")
    elif stat.S_ISREG(written.st_mode):
        yield WriteFile(path, written.data, mode, origin)
    elif stat.S_ISLNK(written.st_mode):
        yield Symlink(path, written.data.decode("utf-8", "surrogateescape"), origin)
    else:
        raise NotKeptError(f"it makes {shorten(path)}, which is neither a file, a link nor a directory")


def _directory(written: Written, mode: int, tree: ContainerTree, origin: Origin) -> Iterator[Action]:
    path, entry = written.path, tree.entry(written.path)
    if entry is None or entry.kind != "directory":
        yield Directory(path, mode, origin)
    elif written.is_whiteout:
        raise NotKeptError(f"it removes what the image has in {shorten(path)}, which can't be shown")
    elif isinstance(entry.staged, StagedDirectory) and entry.staged.mode & 0o777 != mode:
        raise NotKeptError(f"it changes the mode of {shorten(path)} to {mode:o}, which can't be shown")


def summary(actions: Sequence[Action]) -> str:
    """What a hook wrote, in a few words."""
    paths = [action.path for action in actions if isinstance(action, (WriteFile, Symlink, Directory))]
    if not paths:
        return "it wrote nothing into the container"
    shown = ", ".join(shorten(path)[1:-1] for path in paths[:_MOST_SHOWN])
    return f"it wrote {shown}" + (f" and {len(paths) - _MOST_SHOWN} more" if len(paths) > _MOST_SHOWN else "")
