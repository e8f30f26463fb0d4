"""A plan as variables, for an Apptainer or Singularity that somebody starts later, in an image that nobody knows yet.

The launcher takes binds and the container's variables from its own environment. There is no layer
(``APPTAINER_OVERLAY``): what it would have to hold depends on the image. So libraries are found by ``LD_LIBRARY_PATH``,
and each that a spec wants to be found by another name is bound once more, by that name, in a directory of ours.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cdi_hpc.backend import Variable
from cdi_hpc.backends.singularity import environment
from cdi_hpc.errors import assert_never
from cdi_hpc.launch.handoff import Handoff
from cdi_hpc.plan import (
    Action,
    Bind,
    CudaCompat,
    Directory,
    MountFilesystem,
    Note,
    RunHook,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.spec.model import Origin

#: Apptainer looks at both and prefers the first, Singularity knows the second.
PREFIXES = ("APPTAINER", "SINGULARITY")

#: Where libraries are seen by their other names in the container.
_LINKS = "/.singularity.d/cdi-hpc"

#: What a value of the variable is split at, and what can't be said in it.
_BIND_SPECIAL = re.compile(r"[,:\\\n]")

#: The kernel takes no longer string into an environment than MAX_ARG_STRLEN, 128 KiB, and what takes it all back has
#: the values of both prefixes in one.
_LONGEST = 48 << 10

_OTHERWISE = "the drop-in for the launcher, or 'cdi-hpc exec', does it"
_LATER = f"the image has to be known: {_OTHERWISE}"


@dataclass
class _Said:
    binds: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    lacks: list[Unsupported] = field(default_factory=list)


def hand_over(actions: Iterable[Action]) -> Handoff:
    """Say a plan in variables."""
    listed = list(actions)
    said = _Said()
    links = {action.path: action for action in listed if isinstance(action, Symlink)}
    for action in listed:
        _say(action, said)
    made = _link_binds(links, said)
    handoff = Handoff(lacks=said.lacks)
    if len(",".join(said.binds).encode()) > _LONGEST:
        reason = f"{len(said.binds)} binds are too many for a variable; {_LATER}"
        handoff.lacks.append(Unsupported("mounts", reason, Origin("host", "", "")))
        return handoff
    folders = [*([_LINKS] if made else []), *dict.fromkeys(said.folders)]
    for prefix in PREFIXES:
        if said.binds:
            handoff.joined.append(Variable(f"{prefix}_BIND", ",".join(said.binds)))
        if folders:
            handoff.joined.append(Variable(f"{prefix}ENV_LD_LIBRARY_PATH", ":".join(folders)))
    for action in listed:
        if isinstance(action, SetEnv):
            _set(action, handoff)
    return handoff


def _say(action: Action, said: _Said) -> None:
    if isinstance(action, Bind):
        _bind(action, said)
    elif isinstance(action, UpdateLdCache):
        said.folders += action.folders
    elif isinstance(action, WriteFile):
        _lack(said, f"file {action.path}", f"its content can't be said in a variable; {_LATER}", action.origin)
    elif isinstance(action, Directory):
        _lack(said, f"directory {action.path}", f"it can't be said in a variable; {_LATER}", action.origin)
    elif isinstance(action, RunHook):
        _lack(said, action.edit, f"what it writes is not known yet; {_LATER}", action.origin)
    elif isinstance(action, CudaCompat):
        _lack(said, f"hooks enable-cuda-compat {action.directory}", f"left out; {_LATER}", action.origin)
    elif isinstance(action, MountFilesystem):
        _lack(said, f"mounts {action.target}", f"a new {action.fstype} can't be said in a variable", action.origin)
    elif not isinstance(action, (Symlink, SetEnv, Note, Unsupported)):
        assert_never(action)


def _lack(said: _Said, edit: str, reason: str, origin: Origin) -> None:
    said.lacks.append(Unsupported(edit, reason, origin))


def _bind(action: Bind, said: _Said) -> None:
    if action.kind == "device" and (action.source != action.target or not action.target.startswith("/dev/")):
        reason = f"the launcher shows the nodes of /dev under the names they have there; {_OTHERWISE}"
        _lack(said, f"deviceNodes {action.target}", reason, action.origin)
        return
    said.sources[action.target] = action.source
    word = _bind_word(action.source, action.target, read_only="ro" in action.flags)
    if word:
        said.binds.append(word)
    else:
        _lack(said, f"mounts {action.target}", "a variable can't hold its name, or its source's", action.origin)


def _bind_word(source: str, target: str, *, read_only: bool) -> str:
    """A bind as the variable has it, "" if it can't."""
    if _BIND_SPECIAL.search(f"{source}{target}"):
        return ""
    return f"{source}:{target}:ro" if read_only else f"{source}:{target}"


def _link_binds(links: Mapping[str, Symlink], said: _Said) -> bool:
    """Bind libraries by the names of the links that lead to them; whether there is one."""
    found: dict[str, str] = {}
    for path, link in links.items():
        source = said.sources.get(_end_of(path, links), "")
        name = posixpath.basename(path)
        if ".so" in name and source:
            found.setdefault(name, source)
        else:
            _lack(said, f"link {path}", f"a link can't be said in a variable; {_LATER}", link.origin)
    words = (_bind_word(source, f"{_LINKS}/{name}", read_only=True) for name, source in sorted(found.items()))
    said_words = [word for word in words if word]
    said.binds += said_words
    return bool(said_words)


def _end_of(path: str, links: Mapping[str, Symlink]) -> str:
    """Where a chain of the plan's own links ends."""
    for _ in links:
        link = links.get(path)
        if link is None:
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), link.points_to))
    return path


def _set(action: SetEnv, handoff: Handoff) -> None:
    reason = environment.refusal("the launcher", action)
    if not reason and "\n" in action.value:
        reason = "it has several lines, which can't be handed over"
    if reason:
        handoff.lacks.append(Unsupported(f"env {action.name}", reason, action.origin))
        return
    value = environment.escaped(action.value)
    handoff.variables += (Variable(f"{prefix}ENV_{action.name}", value, default=True) for prefix in PREFIXES)
