"""Lock files: what a request meant once, so that a launch which would differ can be stopped.

A lock file is JSON with sorted keys. The resolved edits decide: a spec that was written anew with the same edits is no
difference, for the container is the same. Hashes of the specs say which file changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, BinaryIO

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec.encode import resolved_to_json
from cdi_hpc.spec.model import ResolvedEdits
from cdi_hpc.witness import Witness

if TYPE_CHECKING:
    from cdi_hpc.site.policy import Policy

VERSION = 1

#: A larger file is none of ours.
_MOST_BYTES = 64 << 20

#: Differences that are shown one by one.
_MOST_SHOWN = 20

#: Drivers whose version is not in the names of the files that a spec mounts: name, file, the version in it.
_DRIVERS = (
    ("nvidia", "/proc/driver/nvidia/version", r"Module(?: for \S+)?\s+([0-9][0-9.]+)"),
    ("amdgpu", "/sys/module/amdgpu/version", r"(\S+)"),
    ("habanalabs", "/sys/module/habanalabs/version", r"(\S+)"),
)


@dataclass(frozen=True)
class Lock:
    """What a request meant.

    Attributes:
        request: the devices that were asked for, in words that mean the same in every directory.
        edits: the merged edits, as ``resolve --format json`` has them.
        specs: spec file -> SHA-256 of its content, in hexadecimal.
        drivers: driver -> its version.
        programs: program that the site has run for a hook -> SHA-256 of its content.

    """

    request: tuple[str, ...]
    edits: Mapping[str, Any]
    specs: Mapping[str, str]
    drivers: Mapping[str, str]
    programs: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of a lock file."""
        return {
            "lockVersion": VERSION,
            "request": [*self.request],
            "drivers": dict(self.drivers),
            "specs": dict(self.specs),
            "edits": dict(self.edits),
            **({"programs": dict(self.programs)} if self.programs else {}),
        }


def make_lock(
    request: Sequence[str], edits: ResolvedEdits, witness: Witness | None = None, site: Policy | None = None
) -> Lock:
    """What a request means now.

    Args:
        request: the devices that were asked for.
        edits: what they were resolved to.
        witness: is told of what is looked at.
        site: its rules: the programs that it has run count, too.

    Raises:
        CdiError: a spec can't be read any more, or such a program.

    """
    programs = sorted(_programs(edits, site)) if site is not None else ()
    paths = sorted({sourced.origin.spec for part in _parts(edits) for sourced in part})
    return Lock(
        tuple(request),
        resolved_to_json(edits),
        {path: _digest(path) for path in paths},
        dict(_drivers(witness or Witness())),
        {path: _digest(path) for path in programs},
    )


def _programs(edits: ResolvedEdits, site: Policy) -> set[str]:
    from cdi_hpc.site.policy import hook_rule

    if not site.runs_hooks():
        return set()
    real_paths = {hook.value: os.path.realpath(hook.value.path) for hook in edits.hooks}
    rules = ((path, hook_rule(site, hook, path)) for hook, path in real_paths.items())
    return {path for path, rule in rules if rule is not None and rule.verdict == "run" and os.path.isfile(path)}


def _parts(edits: ResolvedEdits) -> Iterator[Sequence[Any]]:
    yield from (edits.env, edits.device_nodes, edits.net_devices, edits.mounts, edits.hooks, edits.additional_gids)
    yield [edits.intel_rdt] if edits.intel_rdt is not None else []


def _digest(path: str) -> str:
    try:
        with _open_regular(path) as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError as error:
        raise CdiError(Problem(path, f"{error.strerror}", "try again: it was there a moment ago")) from None


def _open_regular(path: str) -> BinaryIO:
    """Open a regular file, also behind a link; a FIFO in its place holds nobody up."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no regular file", path)
    return os.fdopen(fd, "rb")


def _drivers(witness: Witness) -> Iterator[tuple[str, str]]:
    for name, path, pattern in _DRIVERS:
        witness.saw(path, "content")
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                found = re.search(pattern, stream.read())
        except OSError:
            continue
        if found:
            yield name, found[1]


def read_lock(path: str, witness: Witness | None = None) -> Lock:
    """A lock from its file.

    Raises:
        CdiError: it can't be read, or is none.

    """
    if witness is not None:
        witness.saw(os.path.abspath(path), "content")
    try:
        with _open_regular(path) as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CdiError(Problem(path, f"{error.strerror}", "cdi-hpc lock DEVICE... > FILE makes one")) from None
    try:
        value = json.loads(data) if len(data) <= _MOST_BYTES else None
    except (ValueError, RecursionError) as error:
        raise CdiError(Problem(path, f"no lock file: {error}", "make it again with cdi-hpc lock")) from None
    problems = [*_schema_problems(value, path)]
    if problems or value is None:
        raise CdiError(problems)
    programs = value.get("programs", {})
    return Lock(tuple(value["request"]), value["edits"], value["specs"], value["drivers"], programs)


def _schema_problems(value: Any, path: str) -> Iterator[Problem]:
    import jsonschema

    schema = json.loads(files(__package__).joinpath("lock.schema.json").read_text(encoding="utf-8"))
    for error in jsonschema.Draft7Validator(schema).iter_errors(value):
        at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        message = error.message if len(error.message) <= 200 else f"{error.message[:199]}…"  # noqa: PLR2004 - a line
        yield Problem(f"{path}: {at.lstrip('.')}" if at else path, message, "make it again with cdi-hpc lock")


def require_same(
    locked: Mapping[str, Lock], edits: ResolvedEdits, witness: Witness | None = None, site: Policy | None = None
) -> None:
    """Stop a launch that is not the one that was locked.

    Args:
        locked: lock file -> what it holds.
        edits: of the launch.
        witness: is told of what is looked at.
        site: its rules.

    Raises:
        CdiError: with what differs.

    """
    if not locked:
        return
    now = make_lock((), edits, witness, site)
    problems = [problem for path, lock in locked.items() for problem in differences(lock, now, path)]
    if problems:
        raise CdiError(problems)


def differences(locked: Lock, now: Lock, path: str) -> list[Problem]:
    """What of a launch is not as it was locked; empty if it is the same launch.

    Args:
        locked: from the file.
        now: of this launch.
        path: of the lock file, for messages.

    """
    found = [
        *_of_mapping("driver", locked.drivers, now.drivers),
        *_of_mapping("program", locked.programs, now.programs),
        *(line for key in locked.edits.keys() | now.edits.keys() for line in _of_edit(key, locked.edits, now.edits)),
    ]
    if not found:
        return []
    changed = sorted(spec for spec, digest in locked.specs.items() if now.specs.get(spec) != digest)
    because = f" ({', '.join(changed)} changed since)" if changed else ""
    shown = [Problem(path, line) for line in sorted(found)[:_MOST_SHOWN]]
    if len(found) > _MOST_SHOWN:
        shown.append(Problem(path, f"and {len(found) - _MOST_SHOWN} more"))
    fix = "make the lock again with cdi-hpc lock if this is what you want"
    return [Problem(path, f"this launch is not the one that was locked{because}", fix), *shown]


def _of_mapping(what: str, locked: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in locked.keys() | now.keys():
        if locked.get(name) != now.get(name):
            yield f"{what} {name}: locked is {locked.get(name, 'none')}, here is {now.get(name, 'none')}"


def _of_edit(key: str, locked: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    before, after = locked.get(key), now.get(key)
    if before == after:
        return
    if not (isinstance(before, list) and isinstance(after, list)):
        yield _changed(key, before, after)
        return
    yield from _of_list(key, before, after)


def _of_list(what: str, before: Sequence[Any], after: Sequence[Any]) -> Iterator[str]:
    gone = [item for item in before if item not in after]
    new = [item for item in after if item not in before]
    if not gone and not new:
        yield f"{what}: in another order, or another number of times"
    for old, other in _pairs(gone, new):
        gone.remove(old)
        new.remove(other)
        yield from _of_fields(f"{what}: {_name(old)}", old, other)
    yield from (f"{what}: not here: {_short(item, new)}" for item in gone)
    yield from (f"{what}: not locked: {_short(item, gone)}" for item in new)


#: What of an edit says which one it is, apart from its arguments.
_NAMES = ("hookName", "path", "containerPath", "hostInterfaceName")


def _name(edit: Mapping[str, Any]) -> str:
    """What an edit is called: two with one name are the same one, changed. What a hook is to do is part of its name."""
    args = edit.get("args")
    words = (*(edit.get(key) for key in _NAMES), *(args[1:2] if isinstance(args, list) else ()))
    return " ".join(str(word) for word in words if word)


def _pairs(gone: Sequence[Any], new: Sequence[Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Edits that are still there and have changed, each with what it is now."""
    waiting = [edit for edit in new if isinstance(edit, dict)]
    found = []
    for old in gone:
        other = next((edit for edit in waiting if isinstance(old, dict) and _name(edit) == _name(old)), None)
        if other is not None:
            waiting.remove(other)
            found.append((old, other))
    return found


#: Stands for a field that is not there, which is not null.
_ABSENT = ...


def _of_fields(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if isinstance(old, list) and isinstance(new, list) and old != new:
            yield from _of_list(f"{what}: {key}", old, new)
        elif old != new:
            yield _changed(f"{what}: {key}", old, new)


def _changed(what: str, before: Any, after: Any) -> str:
    return f"{what}: locked is {_short(before, [after])}, here is {_short(after, [before])}"


#: Characters of a value that are shown, and how many of them are those before the first one that differs.
_MOST_CHARACTERS = 300
_BEFORE = 40


def _text(value: Any) -> str:
    return "none" if value is _ABSENT else json.dumps(value, sort_keys=True)


def _alike(text: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return next((n for n, (a, b) in enumerate(zip(text, other)) if a != b), min(len(text), len(other)))


def _short(value: Any, others: Iterable[Any]) -> str:
    """A value, or where that is long, the part of it in which it differs from what is most like it."""
    text = _text(value)
    if len(text) <= _MOST_CHARACTERS:
        return text
    same = max((_alike(text, _text(other)) for other in others), default=0)
    first = max(0, same - _BEFORE) if same > _MOST_CHARACTERS - _BEFORE else 0
    last = first + _MOST_CHARACTERS
    return f"{'…' * bool(first)}{text[first:last]}{'…' * (last < len(text))}"
