"""What a configuration says, as values; the defaults are those of a machine without any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cdi_hpc.aliases import Alias
from cdi_hpc.allocation import GresMap, Unmapped
from cdi_hpc.policy import Policy

Strictness = Literal["warn", "fail"]
AllMeans = Literal["every", "openable"]
Stage = Literal["auto", "overlay", "underlay"]


@dataclass(frozen=True)
class LauncherDefaults:
    """``launchers.NAME``: what a launch is like where the command line does not say.

    Attributes:
        devices: for a launch that asks for none.
        binds: only ``embedded`` has them; ``SRC[:DST[:ro]]``.
        stage: only ``embedded`` has it.

    """

    devices: tuple[str, ...] = ()
    unknown_hooks: Strictness = "warn"
    preflight: Strictness = "warn"
    binds: tuple[str, ...] = ()
    stage: Stage = "auto"


@dataclass(frozen=True)
class CacheBounds:
    """``cache``: bounds on a directory of compiled plans.

    Attributes:
        max_size: bytes.
        max_plans: how many.
        keep_stages: days.

    """

    max_size: int = 256 << 20
    max_plans: int = 1000
    keep_stages: int = 30


@dataclass(frozen=True)
class Configuration:
    """All values; every key of the schema is one of these.

    Attributes:
        spec_directories: empty: the default ones.
        all_means: what ``VENDOR/CLASS=all`` is.

    """

    spec_directories: tuple[str, ...] = ()
    strict: bool = False
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    all_means: AllMeans = "every"
    preflight: Strictness = "warn"
    unknown_hooks: Strictness = "warn"
    launchers: Mapping[str, LauncherDefaults] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    gres: Mapping[str, GresMap] = field(default_factory=dict)
    unmapped: Unmapped = "refuse"
    cache: CacheBounds = field(default_factory=CacheBounds)

    def launcher(self, name: str) -> LauncherDefaults:
        """Defaults of a launcher, with what holds for all of them: the stricter value counts."""
        own = self.launchers.get(name, LauncherDefaults())
        return LauncherDefaults(
            own.devices,
            "fail" if "fail" in (own.unknown_hooks, self.unknown_hooks) else "warn",
            "fail" if "fail" in (own.preflight, self.preflight) else "warn",
            own.binds,
            own.stage,
        )
