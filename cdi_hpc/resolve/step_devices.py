"""What a step of Slurm's means by the devices that it asks for: those of them that it was given.

Slurm gives out a GRES by numbers, and a CDI spec knows names; which number is which name is the site's to say
(``slurm.gres`` of the configuration). Where it says nothing, a GRES stands for the CDI class of its own name, and its
number 2 is the device named ``2``.

Pure, with the host passed in. A name that was not given to the step is refused, and so is a device that was given and
that the device cgroup does not let it open: a task never runs with less than it was promised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cdi_hpc.config import Configuration
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.site import allocation
from cdi_hpc.site.allocation import GresMap, Member
from cdi_hpc.spec.registry import Registry
from cdi_hpc.spec.request import ALL

#: How to get some of a GRES, where that is known.
_ASK_FOR_GPUS = "ask for some: --gres=gpu:1, --gpus-per-task=1"


class Grant(NamedTuple):
    """What Slurm gave to a step on this node.

    Attributes:
        numbers: of each GRES whose numbers Slurm tells: none, where the step has none of it.
        uuids: the host's GPUs, minor number to UUID.

    """

    numbers: Mapping[str, tuple[int, ...]]
    uuids: Mapping[int, str]


def read_grant(texts: Sequence[str], uuids: Mapping[int, str]) -> Grant:
    """From ``GRES=NUMBERS`` each, as in ``gpu=0,2`` or ``gpu=`` (CdiError: one is none)."""
    numbers: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        if not equals or not name:
            raise CdiError(Problem("--gres", f"{text!r} is no GRES with its numbers", "it looks like 'gpu=0,2'"))
        numbers[name] = allocation.indices_of(listed)
    return Grant(numbers, uuids)


def step_devices(
    asked: Sequence[str], grant: Grant, configuration: Configuration, registry: Registry, host: Host
) -> tuple[str, ...]:
    """The devices that a step is to have, each by its name.

    Args:
        asked: ``VENDOR/CLASS``, ``VENDOR/CLASS=all`` or ``VENDOR/CLASS=NAME`` each.
        grant: what Slurm gave.
        configuration: the site's; ``slurm`` of it.
        registry: with the devices.
        host: is asked what can be opened.

    Raises:
        CdiError: with one problem for each that the step can't have.

    """
    chosen: list[str] = []
    problems: list[Problem] = []
    for word in asked:
        kind, _, name = word.partition("=")
        try:
            chosen += _of_kind(_Wish(word, kind, name or ALL), grant, configuration, registry, host)
        except CdiError as error:
            problems += error.problems
    if problems:
        raise CdiError(dict.fromkeys(problems))
    return tuple(dict.fromkeys(chosen))


@dataclass(frozen=True)
class _Wish:
    word: str
    kind: str
    name: str

    def refused(self, what: str, fix: str) -> CdiError:
        return CdiError(Problem(f"device {self.word!r}", what, fix))


def _of_kind(wish: _Wish, grant: Grant, configuration: Configuration, registry: Registry, host: Host) -> Iterator[str]:
    gres, mapped = _gres_of(wish.kind, configuration)
    if not gres or (gres not in grant.numbers and not configuration.gres):
        yield from _unmapped(wish, configuration)
    elif gres not in grant.numbers:
        what = f"it is of the GRES {gres!r}, and Slurm does not tell a step which of those it has"
        raise wish.refused(what, f"remove {gres!r} from slurm.gres, and let slurm.unmapped decide")
    elif not grant.numbers[gres]:
        fix = _ASK_FOR_GPUS if gres == "gpu" else f"ask for some: --gres={gres}:1"
        raise wish.refused(f"this step has no {'GPUs' if gres == 'gpu' else gres} allocated", fix)
    elif wish.kind not in registry.kinds():
        yield wish.word  # whoever resolves the request says best what there is instead
    else:
        yield from _granted(wish, mapped, grant, grant.numbers[gres], registry, host)


def _gres_of(kind: str, configuration: Configuration) -> tuple[str, GresMap]:
    """The GRES that stands for a kind, "" if none does."""
    if not configuration.gres:
        return kind.partition("/")[2], GresMap(kind)
    found = ((name, mapped) for name, mapped in configuration.gres.items() if mapped.kind == kind)
    return next(found, ("", GresMap(kind)))


def _unmapped(wish: _Wish, configuration: Configuration) -> Iterator[str]:
    if configuration.unmapped == "refuse":
        what = "no GRES of Slurm's stands for its kind, and such are not given out here"
        raise wish.refused(what, "ask the administrator: slurm.gres, slurm.unmapped")
    if configuration.unmapped == "all":
        yield wish.word


def _granted(
    wish: _Wish, mapped: GresMap, grant: Grant, numbers: Sequence[int], registry: Registry, host: Host
) -> Iterator[str]:
    candidates = allocation.members(registry, wish.kind, host, mapped.node)
    try:
        given = allocation.granted(mapped, numbers, candidates, grant.uuids)
    except CdiError:
        # Whoever names a device that exists is told that it is not his, whatever else is wrong.
        given = ()
        if wish.name == ALL:
            raise
    identities = {member.nodes or member.name for member in given}
    if wish.name != ALL:
        given = tuple(m for m in candidates if m.name == wish.name and (m.nodes or m.name) in identities)
    if not given:
        raise wish.refused(*_not_allocated(wish, mapped, grant, numbers, candidates))
    _refuse_closed(wish, given, host)
    yield from (member.device.name for member in given)


def _not_allocated(
    wish: _Wish, mapped: GresMap, grant: Grant, numbers: Sequence[int], candidates: Sequence[Member]
) -> tuple[str, str]:
    has = ",".join(member.name for member in allocation.granted(mapped, numbers, candidates, grant.uuids))
    what = f"it was not allocated to this step, which has {wish.kind}={has}"
    return what, f"ask for {wish.kind}, what was allocated"


def _refuse_closed(wish: _Wish, given: Sequence[Member], host: Host) -> None:
    can = allocation.openable(given, host)
    closed = [member.name for member in given if member not in can]
    if closed:
        what = f"the job's device cgroup does not let it open {wish.kind}={','.join(closed)}, which Slurm gave it"
        raise wish.refused(what, "ask the administrator: gres.conf and slurm.gres name different devices")
