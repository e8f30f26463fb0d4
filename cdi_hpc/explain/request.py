"""A request that has been looked up, and its plan on a launcher before the launcher has its say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cdi_hpc.config import Configuration, LauncherDefaults, Strictness, stricter
from cdi_hpc.container import preflight
from cdi_hpc.container.stage import Assembly
from cdi_hpc.errors import Problem
from cdi_hpc.explain import rules
from cdi_hpc.explain.rows import Edit
from cdi_hpc.explain.views import Outcome, View, Ways, fates
from cdi_hpc.host import Host
from cdi_hpc.launch.image import Image
from cdi_hpc.plan import Covered, Plan, Unsupported
from cdi_hpc.planning import judged
from cdi_hpc.spec.model import Origin, ResolvedEdits
from cdi_hpc.spec.registry import RegisteredDevice
from cdi_hpc.translation.translate import translate


class Wanted(NamedTuple):
    """What is to be explained.

    Attributes:
        launchers: their names.
        image: path of the image, or None: it is taken to be empty then.
        visible: lists of what is meant of whole kinds (:func:`cdi_hpc.site.allocation.visible`).

    """

    devices: tuple[str, ...]
    launchers: tuple[str, ...]
    image: str | None = None
    cdi_dirs: tuple[str, ...] = ()
    strict: bool = False
    unknown_hooks: Strictness = "warn"
    visible: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """A request and everything that its explanation depends on.

    Attributes:
        image: what launchers of ours read; None if none is named, or none of them is asked for.
        unread: why they can't.

    """

    wanted: Wanted
    devices: tuple[RegisteredDevice, ...]
    merged: ResolvedEdits
    edits: tuple[Edit, ...]
    configuration: Configuration
    image: Image | None
    host: Host
    environ: Mapping[str, str]
    unread: tuple[Problem, ...] = ()

    def plan(self, defaults: LauncherDefaults) -> Plan:
        """The plan of a launcher with these defaults; rules are not held against it yet."""
        unknown_hooks = stricter(self.wanted.unknown_hooks, defaults.unknown_hooks)
        plan = translate(self.merged, self.host, unknown_hooks=unknown_hooks, site=self.configuration.policy)
        return replace(plan, actions=judged(plan.actions, defaults.unsupported))

    def refused(self, plan: Plan, covered: Sequence[Covered] = ()) -> tuple[dict[Origin, str], tuple[str, ...]]:
        """As :func:`cdi_hpc.explain.rules.refused`; nothing where the site has no rules."""
        site = self.configuration.policy
        if site is None:
            return {}, ()
        return rules.refused(site, self.edits, self.merged, plan, self.devices, covered)


@dataclass(frozen=True)
class Finding:
    """What was found out about a launcher.

    Attributes:
        ways: how it does what it does; None if a launch would stop whatever is left out.
        lacks: what it can't do although the plan can.
        failed: edits that can't be put in their place, and why.
        stops: why a launch would stop, besides what the plan and these say.
        messages: what a launch would tell.
        installed: it is here.
        covered: what the launch covers in the image.

    """

    plan: Plan
    ways: Ways | None
    lacks: tuple[Unsupported, ...] = ()
    failed: Mapping[Origin, str] | None = None
    stops: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    installed: bool = True
    covered: Sequence[Covered] = ()

    def view(self, name: str, title: str, request: Request) -> View:
        """The same, said of every edit."""
        refused, refusals = request.refused(self.plan, self.covered)
        failed = self.failed or {}
        outcome = Outcome(self.plan.actions, self.ways, self.lacks, failed, refused, self.stops)
        every_lack = (*self.plan.unsupported(), *self.lacks)
        fatal = [f"{lack.origin}: {lack.edit}: {lack.reason}" for lack in every_lack if lack.fatal]
        impossible = [f"{origin}: {reason}" for origin, reason in failed.items()]
        stops = tuple(dict.fromkeys((*refusals, *fatal, *impossible, *self.stops)))
        return View(name, title, self.installed, fates(request.edits, outcome), stops, self.messages)


def libraries(assembly: Assembly, defaults: LauncherDefaults) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a pre-flight says: why a launch would stop, and what it would only tell."""
    misfits = preflight.check(assembly) if defaults.preflight != "off" else []
    stops = [misfit for misfit in misfits if misfit.fatal and defaults.preflight != "warn"]
    return tuple(map(str, stops)), tuple(str(misfit) for misfit in misfits if misfit not in stops)
