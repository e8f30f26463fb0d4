"""What the user binds, and what the launcher mounts by itself, in the place of an edit.

The launcher makes one mount for a place, the first that it is told of, and drops the others without a word. Ours come
last, and what is mounted over all of /dev hides what was shown in there.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from cdi_hpc.backends.singularity import surroundings
from cdi_hpc.backends.singularity.binds import Source, UserBind, user_binds
from cdi_hpc.backends.singularity.devices import DevAction, place_of
from cdi_hpc.backends.singularity.settings import Settings
from cdi_hpc.container.stage import Assembly, CoverFile
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.plan import COMMAND_LINE, Bind, MountFilesystem
from cdi_hpc.spec.model import Origin


def refuse(assembly: Assembly) -> None:
    """Refuse mounts in the place of a plan's that show something else (CdiError: each of them)."""
    regions = assembly.tree.regions
    theirs: dict[str, Bind | MountFilesystem] = {}
    hidden = []
    for placed in assembly.mounts:
        target, what = regions[placed.region].target, placed.what
        if not isinstance(what, CoverFile) and surroundings.is_own(what):
            # The working directory's is given up where it would be in the way.
            if not surroundings.is_working_directory(what):
                theirs.setdefault(target, what)
        elif target in theirs and _source(what) != _source(theirs[target]):
            asking = regions[placed.region].origin
            hidden.append(_problem(theirs[target].origin, target, f"{asking}"))
    _refuse(hidden)


def _source(what: Bind | MountFilesystem | CoverFile) -> object:
    """What a mount shows: the same path of the machine is the same, anything else only itself."""
    return what.source if isinstance(what, Bind) else what


def refuse_in_dev(actions: Iterable[DevAction], settings: Settings, host: Host) -> None:
    """The same for /dev, of which the launcher takes what it shows from the host."""
    wanted = list(actions)
    hidden = []
    for bind in user_binds(settings):
        source, top = _real_path(bind, host), posixpath.normpath(bind.target)
        for action in wanted if source else ():
            path = place_of(action)
            if path != top and not path.startswith(f"{top}/"):
                continue
            shown = posixpath.normpath(source + path[len(top) :])
            # By the path of the host's /dev as it will be then, with what is moved over it.
            if shown != path and not (isinstance(action, Bind) and shown == action.source):
                hidden.append(_problem(Origin(COMMAND_LINE, "", bind.given), path, f"{action.origin}"))
    _refuse(hidden)


def refuse_blindly(binds: Iterable[tuple[Source, str, bool]], settings: Settings, host: Host) -> None:
    """The same by the paths alone, for an image that can't be read."""
    theirs = {posixpath.normpath(bind.target): bind for bind in reversed([*user_binds(settings)])}
    ours = ((source, theirs[target], target) for source, target, _ in binds if target in theirs)
    hidden = (
        _problem(Origin(COMMAND_LINE, "", bind.given), target, "a device")
        for source, bind, target in ours
        if _real_path(bind, host) not in ("", source)
    )
    _refuse(hidden)


def _real_path(bind: UserBind, host: Host) -> str:
    """Of its source; "" if that is not there, which the launcher says itself."""
    try:
        node = host.node(bind.source)
    except OSError:
        return ""
    return "" if node is None else node.real_path


def _problem(theirs: Origin, target: str, asking: str) -> Problem:
    is_users = theirs.spec == COMMAND_LINE
    fix = "bind to another place" if is_users else "keep that out of the container with --no-mount"
    return Problem(theirs.field, f"would hide {target!r}, which {asking} asks for", fix)


def _refuse(problems: Iterable[Problem]) -> None:
    found = list(dict.fromkeys(problems))
    if found:
        raise CdiError(found)
