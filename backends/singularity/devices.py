"""/dev: what a plan wants there, in a container that has the host's, or a small one that the launcher makes.

The launcher binds a node only to its own name, and elsewhere with ``nodev``, so that nobody can open it. What the
host's /dev does not show already is therefore put into the host's /dev itself, in a mount namespace of our own, before
the launcher takes it from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, Union

from cdi_hpc.backends.singularity.own_mounts import OwnMounts
from cdi_hpc.container.compose import parents_between
from cdi_hpc.container.steps import ROOT, BindHost, MakeDirectory, MakeFile, MakeLink, MountNew, Step
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.launch import host_dev
from cdi_hpc.plan import Action, Bind, MountFilesystem, Symlink, Unsupported, WriteFile
from cdi_hpc.spec.model import Origin
from cdi_hpc.witness import Witness

DEV = "/dev"

#: What the launcher's own small /dev has; it warns of a bind to one of these.
IN_MINIMAL = frozenset(f"{DEV}/{name}" for name in ("null", "random", "tty", "urandom", "zero"))

#: Namespaces of our own: impossible, only where nothing else does, or for any difference.
Namespaces = Literal["no", "needed", "yes"]

_ORIGIN = Origin("host", "", DEV)

DevAction = Union[Bind, MountFilesystem, Symlink, WriteFile]


def place_of(action: Action) -> str:
    """Container path that an action is about, "" if none."""
    if isinstance(action, (Bind, MountFilesystem)):
        return action.target
    return action.path if isinstance(action, (Symlink, WriteFile)) else ""


def is_in_dev(action: Action) -> bool:
    """Whether an action is about something in /dev."""
    return place_of(action).startswith(f"{DEV}/")


def put_on_host(
    actions: Iterable[DevAction], host: Host, own: OwnMounts, namespaces: Namespaces, witness: Witness
) -> Iterator[Unsupported]:
    """Make the host's /dev, as the launcher will see it, show what the plan wants.

    Yields:
        What can't be shown.

    """
    wanted = list(actions)
    absent = [action for action in wanted if not _has_place(action, host)]
    if absent and namespaces != "no":
        _replace_dev(wanted, host, witness, own)
        return
    for action in wanted:
        needed = not _is_as_wanted(action, host)
        if namespaces == "yes" or (needed and namespaces == "needed"):
            _cover(action, own)
        elif needed:
            reason = (
                "the host's /dev shows it otherwise, and changing that takes a user namespace, which is refused here "
                "or does not go with --fakeroot or --sharens"
            )
            yield Unsupported(_edit(action), reason, action.origin, fatal=True)


def _edit(action: DevAction) -> str:
    return f"{'deviceNodes' if isinstance(action, Bind) and action.kind == 'device' else 'edit of'} {place_of(action)}"


def _has_place(action: DevAction, host: Host) -> bool:
    """Whether the host's /dev has something that the action can be done over, or does not need to be done."""
    path = place_of(action)
    if isinstance(action, Symlink):
        return host.link(path) == action.points_to
    if isinstance(action, WriteFile):
        return False
    node = host.node(path)
    if node is None or node.real_path != path:
        return False
    wants_directory = isinstance(action, MountFilesystem) or action.kind == "directory"
    return (node.kind == "directory") == wants_directory


def _is_as_wanted(action: DevAction, host: Host) -> bool:
    if isinstance(action, Bind):
        unmet = {*action.flags} - {*action.kept}
        return _has_place(action, host) and action.source == action.target and not unmet
    return isinstance(action, Symlink) and _has_place(action, host)


def _cover(action: DevAction, own: OwnMounts) -> None:
    if isinstance(action, Bind):
        own.moves.append((own.bind(action), action.target))
    elif isinstance(action, MountFilesystem):
        own.moves.append((own.mount(action), action.target))


# A /dev of our own ----------------------------------------------------------------------------------------------------


def _replace_dev(wanted: Iterable[DevAction], host: Host, witness: Witness, own: OwnMounts) -> None:
    """The whole of the host's /dev, entry by entry, with the plan's among them."""
    # Programs that ask for a pseudo-terminal find an instance of our own: the host's is reached by its /dev/ptmx only
    # where that lies beside it on one mount.
    terminals = (
        MountFilesystem("devpts", "devpts", f"{DEV}/pts", _ORIGIN, ("noexec", "nosuid"), _PTS),
        Symlink(f"{DEV}/ptmx", "pts/ptmx", _ORIGIN),
    )
    planned = {place_of(action): action for action in (*wanted, *terminals)}
    name = own.name()
    # mode=755: in a sticky world-writable directory the kernel refuses "> /dev/null" on another owner's node.
    own.steps.append(MakeDirectory(ROOT + name))
    own.steps.append(MountNew("tmpfs", "dev", ROOT + name, ("noexec", "nosuid"), ("mode=755",)))
    around = {place_of(action): action for action in host_dev.brought_back(frozenset(planned), host, witness)}
    own.steps += _filled({**around, **planned}, ROOT + name)
    own.moves.append((name, DEV))


_PTS = ("newinstance", "ptmxmode=0666", "mode=0620")


def _filled(actions: Mapping[str, Action], top: str) -> Iterator[Step]:
    """Steps for actions by their paths in /dev, in a directory of ours in its place."""
    made: set[str] = set()
    for path in sorted(actions, key=lambda path: path.split("/")):
        for parent in parents_between(path, DEV):
            if parent in actions:
                raise CdiError(Problem(parent, "the spec has something there and below it", "correct the spec"))
            if parent not in made:
                made.add(parent)
                yield MakeDirectory(top + parent[len(DEV) :])
        yield from _made(actions[path], top + path[len(DEV) :])


def _made(action: Action, path: str) -> Iterator[Step]:
    if isinstance(action, Symlink):
        yield MakeLink(path, action.points_to)
    elif isinstance(action, WriteFile):
        yield MakeFile(path, action.content, action.mode)
    elif isinstance(action, MountFilesystem):
        yield MakeDirectory(path)
        yield MountNew(action.fstype, action.source, path, action.flags, action.data)
    elif isinstance(action, Bind):
        is_directory = action.kind == "directory"
        flags = tuple(sorted({*action.flags, *action.kept})) if action.flags else ()
        yield MakeDirectory(path) if is_directory else MakeFile(path)
        yield BindHost(action.source, path, is_directory, flags)
