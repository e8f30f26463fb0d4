"""Which devices of a kind somebody was given: by Slurm (GRES), by a list as in ``CUDA_VISIBLE_DEVICES``, by the kernel.

Pure, with the host passed in. Three questions about the *members* of a kind (:func:`members`):

- :func:`openable`: which of them the job's device cgroup lets this process open;
- :func:`visible`: which of them a list of indices and UUIDs means;
- :func:`granted`: which of them the indices of a GRES mean, by the site's :class:`GresMap`.

:func:`select` puts the first two into a request, where it asks for a whole kind.

A member is known by its name, and by one of its device nodes: the first that the spec gives to the device itself, or
the first one that the site's pattern matches. Nodes such as /dev/dri/card1 have numbers of their own, so not all of a
device's nodes can tell which it is.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.site.globs import PathPattern
from cdi_hpc.site.policy import normal_path
from cdi_hpc.spec import names
from cdi_hpc.spec.model import DeviceNode
from cdi_hpc.spec.registry import RegisteredDevice, Registry
from cdi_hpc.spec.request import ALL

By = Literal["index", "minor", "uuid", "table"]

#: Words of CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES that are no device.
_EVERY = frozenset({"all"})
_NOTHING = frozenset({"", "void", "none", "nodevfiles"})

#: The longest list of indices that is read: no node has more devices, and "0-4294967295" is no list.
MAX_DEVICES = 65536

_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


@dataclass(frozen=True)
class Member:
    """A device of a kind, as far as it matters who was given it.

    Attributes:
        device: in the registry.
        name: within its kind.
        node: host path of the node it is known by, "" if it has none.
        minor: that node's minor number, None if the host has no such node.
        nodes: host paths of all nodes of its own.

    """

    device: RegisteredDevice = field(repr=False)
    name: str
    node: str = ""
    minor: int | None = None
    nodes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GresMap:
    """How the indices that Slurm gives for a GRES become devices of a kind.

    Attributes:
        kind: of the devices.
        by: ``index``: the device is named like the index. ``minor``: its node has that minor number. ``uuid``: it is
            named by the UUID of the GPU with that minor number. ``table``: as the table says.
        table: index to the name of a device within the kind.
        node: which of a device's nodes it is known by; None for its first.

    """

    kind: str
    by: By = "index"
    table: Mapping[str, str] = field(default_factory=dict)
    node: PathPattern | None = None
    where: object = ""


def members(registry: Registry, kind: str, host: Host, node: PathPattern | None = None) -> tuple[Member, ...]:
    """The devices of a kind, less the one that stands for all of them, each physical device once for each name.

    Args:
        registry: with the devices.
        kind: ``vendor/class``.
        host: is asked for the nodes' numbers.
        node: which of a device's nodes it is known by; None for its first.

    """
    registered = (device for device in registry.of_kind(kind) if device.device is not None)
    return tuple(_member(device, host, node) for device in registered if device.name != f"{kind}={ALL}")


def openable(candidates: Sequence[Member], host: Host) -> tuple[Member, ...]:
    """The members whose node the device cgroup lets us open; those that have no node are never in doubt.

    Only EPERM counts, which is what a device cgroup answers. EACCES is about modes and groups, and the other errors
    about drivers: a device that is hidden for those would be missed by nobody until the program fails.
    """
    return tuple(m for m in candidates if not m.node or host.open_error(m.node, write=True) != errno.EPERM)


def visible(text: str, candidates: Sequence[Member]) -> tuple[Member, ...]:
    """The members that a list means, in its order, each once.

    The list is what ``CUDA_VISIBLE_DEVICES`` and its like hold (CUDA C Programming Guide, "CUDA Environment
    Variables"). An *index* counts the devices that the process can open, in the order of their minor numbers, so that
    the variables which Slurm sets mean the right devices with and without a device cgroup. A *UUID* (``GPU-8f6c...``,
    ``MIG-...``) may be cut short as long as it is unambiguous. A negative number ends the list. ``all`` is every
    device; ``none``, ``void``, ``NoDevFiles`` and the empty list are none. ``0:1`` is the device of that name.

    Unlike CUDA, what is not there is an error: a job that was promised four GPUs should not run on two.

    Args:
        text: the list.
        candidates: the members that can be opened.

    Raises:
        CdiError: with one problem for each entry that means no device, or several.

    """
    if text.strip().lower() in _EVERY:
        return tuple(_once_each(candidates))
    if text.strip().lower() in _NOTHING:
        return ()
    ordered = _by_minor(candidates)
    chosen: list[Member] = []
    problems: list[Problem] = []
    for entry in (part.strip() for part in text.split(",")):
        if entry.startswith("-") or entry.lower() in _NOTHING - {""}:
            break
        found = _find_visible(entry, ordered, candidates)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            chosen.append(found)
    if problems:
        raise CdiError(dict.fromkeys(problems))
    return tuple(_once_each(chosen))


def granted(
    gres: GresMap, indices: Sequence[int], candidates: Sequence[Member], uuids: Mapping[int, str]
) -> tuple[Member, ...]:
    """The members that Slurm gave to a step, in the order of the indices.

    Args:
        gres: how the site maps them.
        indices: of ``SLURM_STEP_GPUS``, see :func:`indices_of`.
        candidates: the members of the map's kind.
        uuids: the host's GPUs, minor number to UUID (:func:`gpu_uuids`); only ``uuid`` looks there.

    Raises:
        CdiError: with one problem for each index that means no device.

    """
    found = [_granted_one(gres, index, candidates, uuids) for index in indices]
    problems = [entry for entry in found if isinstance(entry, Problem)]
    if problems:
        raise CdiError(dict.fromkeys(problems))
    return tuple(_once_each([entry for entry in found if isinstance(entry, Member)]))


@dataclass(frozen=True)
class Choice:
    """What of a whole kind is wanted.

    Attributes:
        openable: only what the device cgroup allows.
        lists: each for :func:`visible`; ``VENDOR/CLASS=LIST``, or without a kind where the request is for only one.

    """

    openable: bool = False
    lists: tuple[str, ...] = ()

    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not self.openable and not self.lists


def select(arguments: Sequence[str], registry: Registry, host: Host, choice: Choice) -> tuple[str, ...]:
    """A request in which ``KIND`` and ``KIND=all`` are replaced by the devices that the choice leaves of them.

    Words that name a device or a file, and kinds of which everything is left, stay as they are. A kind of which a list
    leaves nothing is not asked for any more: that is what an empty ``CUDA_VISIBLE_DEVICES`` means.

    Raises:
        CdiError: an entry of a list means no device, it is not clear for which kind a list is, or the device cgroup
            allows nothing of a kind.

    """
    if choice.is_everything():
        return tuple(arguments)
    words = [word for argument in arguments for word in _words(argument, registry)]
    kinds = tuple(dict.fromkeys(kind for kind in (_whole_kind(word, registry) for word in words) if kind))
    lists = _lists_by_kind(choice.lists, kinds)
    chosen: dict[str, tuple[str, ...]] = {}
    for kind in kinds:
        left = _left(kind, registry, host, choice, lists.get(kind))
        if left is not None:
            chosen[kind] = tuple(member.device.name for member in _once_each(left))
    return tuple(name for word in words for name in chosen.get(_whole_kind(word, registry), (word,)))


def _words(argument: str, registry: Registry) -> list[str]:
    parts = [part.strip() for part in argument.split(",")]
    return parts if any(_whole_kind(part, registry) for part in parts) else [argument]


def _whole_kind(word: str, registry: Registry) -> str:
    """The kind that a word asks for as a whole, or ""."""
    kind, equals, name = word.partition("=")
    return kind if kind in registry.kinds() and (not equals or name == ALL) else ""


def _lists_by_kind(lists: Sequence[str], kinds: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in lists:
        kind, equals, entries = text.rpartition("=")
        if not equals and len(kinds) != 1:
            what = f"{text!r} could be for {' or '.join(map(repr, kinds))}" if kinds else "no whole kind is asked for"
            raise CdiError(Problem("visible devices", what, "write VENDOR/CLASS=LIST, and ask for VENDOR/CLASS=all"))
        if equals and kind not in kinds:
            what = f"{text!r} is for the kind {kind!r}, which is not asked for as a whole"
            raise CdiError(Problem("visible devices", what, f"ask for '{kind}={ALL}'"))
        found[kind or kinds[0]] = entries
    return found


def _left(kind: str, registry: Registry, host: Host, choice: Choice, entries: str | None) -> Sequence[Member] | None:
    """What is left of a kind; None where that is the kind as it is."""
    if entries is None and not choice.openable:
        return None
    candidates = members(registry, kind, host)
    left = openable(candidates, host)
    if entries is not None:
        # Indices count what can be opened, whether or not the rest is asked for.
        return visible(entries, left)
    if candidates and not left:
        what = f"the job's device cgroup allows none of its {len(candidates)} devices"
        raise CdiError(Problem(f"kind {kind!r}", what, "ask for devices in the job"))
    return None if len(left) == len(candidates) else left


def indices_of(text: str) -> tuple[int, ...]:
    """The numbers of ``SLURM_STEP_GPUS``: ``0,2`` or ``0-3,6``.

    Raises:
        CdiError: it is no such list, or one of more than MAX_DEVICES.

    """
    found: dict[int, None] = {}
    for part in (part.strip() for part in text.split(",")) if text.strip() else ():
        span = _RANGE.fullmatch(part if "-" in part else f"{part}-{part}")
        low, high = (int(span[1]), int(span[2])) if span else (1, 0)
        if high < low or high - low >= MAX_DEVICES or len(found) >= MAX_DEVICES:
            what = f"{part!r} in {text[:80]!r} is neither a number nor a range of numbers"
            raise CdiError(Problem("allocated devices", what, "a list looks like '0,2' or '0-3'"))
        found.update(dict.fromkeys(range(low, high + 1)))
    return tuple(found)


#: NVIDIA's driver has a directory for each GPU here (README of the driver, "The /proc File System Interface").
GPU_DIRECTORY = "/proc/driver/nvidia/gpus"


def gpu_uuids(information: Sequence[bytes]) -> dict[int, str]:
    """Minor number to UUID, from the ``information`` files of the NVIDIA driver, one for each GPU."""
    found: dict[int, str] = {}
    for text in information:
        fields = dict(_field(line) for line in text.decode("ascii", "replace").splitlines() if ":" in line)
        minor, uuid = fields.get("Device Minor", ""), fields.get("GPU UUID", "")
        if minor.isascii() and minor.isdigit() and uuid.startswith("GPU-"):
            found[int(minor)] = uuid
    return found


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


# Members --------------------------------------------------------------------------------------------------------


def _member(device: RegisteredDevice, host: Host, pattern: PathPattern | None) -> Member:
    assert device.device is not None  # noqa: S101  # the caller left specs without devices out
    nodes = [_host_path(node) for node in device.device.container_edits.device_nodes]
    known_by = next((path for path in nodes if pattern is None or pattern.matches(path)), "")
    return Member(device, device.device.name, known_by, _minor(known_by, host), frozenset(nodes))


def _host_path(node: DeviceNode) -> str:
    return normal_path(node.host_path or node.path)


def _minor(path: str, host: Host) -> int | None:
    if not path:
        return None
    try:
        found = host.node(path)
    except OSError:
        return None
    return found.minor if found is not None and found.kind in ("character", "block") else None


def _once_each(chosen: Sequence[Member]) -> Iterator[Member]:
    """Without those that are others by another name: specs have a device by index and again by UUID."""
    seen: set[object] = set()
    for member in chosen:
        identity = member.nodes or member.name
        if identity not in seen:
            seen.add(identity)
            yield member


def _by_minor(candidates: Sequence[Member]) -> list[Member]:
    """Each physical device once, in the order in which a driver counts them; those without a number come last."""

    def place(member: Member) -> tuple[bool, int]:
        return (member.minor is None, member.minor or 0)

    return sorted(_once_each(candidates), key=place)


# Finding one ----------------------------------------------------------------------------------------------------


def _find_visible(entry: str, ordered: Sequence[Member], candidates: Sequence[Member]) -> Member | Problem:
    if entry.isascii() and entry.isdigit():
        # int() of a text of any length takes time by the square.
        index = int(entry) if len(entry) < len(str(MAX_DEVICES)) + 1 else MAX_DEVICES
        if index < len(ordered):
            return ordered[index]
        what = f"there is no device {entry[:20]!r}: {len(ordered)} can be opened, counted from 0"
        return Problem("visible devices", what, "name one of those, or ask for more of them in the job")
    named = [member for member in candidates if member.name == entry]
    found = named or [member for member in candidates if _begins(member.name, entry)]
    if len({member.nodes or member.name for member in found}) == 1:
        return found[0]
    return _unclear(entry, found, candidates)


def _begins(name: str, entry: str) -> bool:
    """Whether a UUID is meant by its beginning; "GPU-" alone means nothing."""
    prefix = next((p for p in ("GPU-", "MIG-GPU-", "MIG-") if entry.startswith(p)), None)
    return prefix is not None and len(entry) > len(prefix) and name.startswith(entry)


def _unclear(entry: str, found: Sequence[Member], candidates: Sequence[Member]) -> Problem:
    shown = entry[:80]
    if found:
        several = " and ".join(repr(member.name) for member in found[:3])
        return Problem("visible devices", f"{shown!r} could be {several}", "write more of the UUID")
    return Problem("visible devices", f"no device is {shown!r} or can be opened", _near(entry, candidates))


def _near(entry: str, candidates: Sequence[Member]) -> str:
    near = names.near_misses(entry, [member.name for member in candidates], at_most=3)
    listed = near or [member.name for member in candidates[:8]]
    words = "did you mean" if near else "there is"
    end = "?" if near else ""
    return f"{words} {' or '.join(repr(name) for name in listed)}{end}" if listed else "the kind has no devices"


def _granted_one(gres: GresMap, index: int, candidates: Sequence[Member], uuids: Mapping[int, str]) -> Member | Problem:
    if gres.by == "minor":
        found = next((member for member in candidates if member.minor == index), None)
        return found or _not_granted(gres, index, f"no device of it has a node with the minor number {index}", "")
    name = _name_of(gres, index, uuids)
    if isinstance(name, Problem):
        return name
    found = next((member for member in candidates if member.name == name), None)
    return found or _not_granted(gres, index, f"it has no device {name!r}", _near(name, candidates))


def _name_of(gres: GresMap, index: int, uuids: Mapping[int, str]) -> str | Problem:
    """The name that a device of this index has to have."""
    if gres.by == "table":
        name = gres.table.get(str(index))
        return name or _not_granted(gres, index, "the table has no such entry", "add it there")
    if gres.by == "uuid":
        fix = f"look at 'Device Minor' in {GPU_DIRECTORY}/*/information"
        return uuids.get(index) or _not_granted(gres, index, f"no GPU has the minor number {index}", fix)
    return str(index)


def _not_granted(gres: GresMap, index: int, why: str, fix: str) -> Problem:
    where = f" (mapped by {gres.by} in {gres.where})" if str(gres.where) else f" (mapped by {gres.by})"
    return Problem(f"allocated device {index}", f"can't be found in the kind {gres.kind!r}{where}: {why}", fix)
