"""From what a launch asks for to a plan, by the site's configuration: what every launcher begins with.

Devices where none are asked for, aliases, spec directories, what of a kind is meant, hooks, and at the end the site's
rules, held against what has come of it all. Whoever puts the plan into an image has them held against that, too
(:func:`enforce_in_image`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cdi_hpc import config
from cdi_hpc.config import CacheBounds, Configuration, LauncherDefaults, Strictness, stricter
from cdi_hpc.host import Host
from cdi_hpc.plan import Action, Covered, Plan, Unsupported
from cdi_hpc.resolve.lookup import Report, resolve_devices
from cdi_hpc.spec.model import ResolvedEdits
from cdi_hpc.translation.translate import translate
from cdi_hpc.witness import Witness

if TYPE_CHECKING:
    from cdi_hpc.site.policy import Policy

A = TypeVar("A", bound=Action)

#: A request for nothing, where a configuration gives devices to launches that ask for none.
NOTHING = "none"


class Wanted(NamedTuple):
    """What a launch asks for.

    Attributes:
        launcher: as ``launchers`` in a configuration has it.
        devices: none: what the configuration has for launches that ask for none.
        everybody: the plan is for all users: it knows the administrator's configuration only.
        visible: lists of what is meant of whole kinds (:func:`cdi_hpc.site.allocation.visible`).

    """

    launcher: str
    devices: tuple[str, ...]
    cdi_dirs: tuple[str, ...] = ()
    strict: bool = False
    unknown_hooks: Strictness = "warn"
    everybody: bool = False
    visible: tuple[str, ...] = ()


class Planned(NamedTuple):
    """What comes of it.

    Attributes:
        defaults: of the launcher.
        configuration: what holds besides.

    """

    plan: Plan
    defaults: LauncherDefaults
    configuration: Configuration


def plan_devices(
    wanted: Wanted,
    environ: Mapping[str, str],
    host: Host,
    report: Report,
    *,
    witness: Witness | None = None,
    configuration: Configuration | None = None,
) -> Planned:
    """The plan for what is wanted.

    Args:
        wanted: the devices, and how they are to be read.
        environ: the environment.
        host: the machine that the container will run on.
        report: is told of what is unusual about the files.
        witness: is told of every file that is looked at.
        configuration: if it has been read already.

    Raises:
        CdiError: the configuration can't be read, something can't be resolved, or a rule of the site's refuses it.

    """
    if configuration is None:
        configuration = load_configuration(environ, witness, everybody=wanted.everybody)
    defaults = configuration.launcher(wanted.launcher)
    devices = asked_for(wanted.devices, defaults)
    edits = resolve_devices(
        devices,
        wanted.cdi_dirs,
        environ,
        report,
        strict=wanted.strict,
        witness=witness,
        configuration=configuration,
        host=host,
        visible=wanted.visible,
    ).edits
    unknown_hooks = stricter(wanted.unknown_hooks, defaults.unknown_hooks)
    plan = translate(edits, host, unknown_hooks=unknown_hooks, site=configuration.policy)
    if configuration.policy is not None:
        enforce(configuration.policy, edits, plan, everybody=wanted.everybody)
    return Planned(replace(plan, actions=judged(plan.actions, defaults.unsupported)), defaults, configuration)


def is_this_jobs_alone(configuration: Configuration) -> bool:
    """Whether the plan depends on the job's device cgroup, of which nothing tells whether it has changed."""
    return configuration.all_means == "openable"


def load_configuration(
    environ: Mapping[str, str], witness: Witness | None = None, *, everybody: bool = False
) -> Configuration:
    """The configuration of this process, or with ``everybody`` the administrator's alone (CdiError: it is wrong)."""
    return config.load({} if everybody else environ, os.geteuid(), witness).configuration


def cache_bounds(environ: Mapping[str, str], *, everybody: bool = False) -> CacheBounds:
    """Bounds on a directory of compiled plans (CdiError: the configuration is wrong)."""
    return load_configuration(environ, everybody=everybody).cache


def asked_for(devices: Sequence[str], defaults: LauncherDefaults) -> tuple[str, ...]:
    """The devices of a launch: what it asks for, or what the configuration has for those that ask for none."""
    return tuple(device for device in devices or defaults.devices if device != NOTHING)


def default_devices(configuration: Configuration, launcher: str) -> str:
    """What a launch through a launcher asks for if nobody does: a comma list, "" for nothing."""
    return ",".join(asked_for((), configuration.launcher(launcher)))


def judged(actions: Sequence[A], unsupported: Strictness) -> tuple[A, ...]:
    """Actions in which everything that can't be done is fatal, if that is what the configuration says."""
    if unsupported == "warn":
        return tuple(actions)
    return tuple(replace(action, fatal=True) if isinstance(action, Unsupported) else action for action in actions)


def enforce(rules: Policy, edits: ResolvedEdits, plan: Plan, *, everybody: bool = False) -> None:
    """Refuse a plan that breaks a rule of the site's (CdiError: which, and in which line)."""
    from cdi_hpc.site import identity, policy

    who = None if everybody else identity.this_user()
    policy.enforce(rules, edits, plan, who, {path: os.path.realpath(path) for path in policy.specs(edits)})


def enforce_in_image(rules: Policy | None, plan: Plan, covered: Iterable[Covered], *, everybody: bool = False) -> None:
    """Refuse a plan that covers in its image what a rule forbids (CdiError: which, and in which line).

    Args:
        rules: the site's, None if it has none.
        plan: what has been asked for.
        covered: what an image's :class:`~cdi_hpc.container.stage.Assembly` covers.
        everybody: the plan is for all users.

    """
    if rules is None:
        return
    from cdi_hpc.site import identity, policy

    policy.enforce_in_image(rules, plan, covered, None if everybody else identity.this_user())
