"""What a configuration says, as values; the defaults are those of a machine without any.

Every launch imports this. So they are named tuples, which are made six times faster than frozen dataclasses, and
nothing is imported here that only a configuration needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from cdi_hpc.site.aliases import Alias
    from cdi_hpc.site.allocation import GresMap
    from cdi_hpc.site.policy import Policy

Strictness = Literal["warn", "fail"]
Preflight = Literal["off", "warn", "fail"]
AllMeans = Literal["every", "openable"]
Stage = Literal["auto", "overlay", "underlay"]
Unmapped = Literal["refuse", "all", "none"]


#: What braces in ``cache.directory`` may hold.
PLACEHOLDERS = ("home", "host", "uid", "user")


class BindWords(NamedTuple):
    """``SRC[:DST[:ro]]``: the target is "" where none is named."""

    source: str
    target: str
    read_only: bool


def bind_words(text: str) -> BindWords | None:
    """What a bind says, for options and configurations; None: it can't be understood."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    return BindWords(source, target, mode == "ro") if source and mode in ("", "ro", "rw") else None


class LauncherDefaults(NamedTuple):
    """``launchers.NAME``: what a launch is like where the command line does not say.

    Attributes:
        devices: for a launch that asks for none.
        preflight: None: as for all launchers.
        binds: only ``embedded`` has them; ``SRC[:DST[:ro]]``.
        stage: only ``embedded`` has it.

    """

    devices: tuple[str, ...] = ()
    unknown_hooks: Strictness = "warn"
    unsupported: Strictness = "warn"
    preflight: Preflight | None = None
    binds: tuple[str, ...] = ()
    stage: Stage = "auto"


class CacheBounds(NamedTuple):
    """``cache``: bounds on a directory of compiled plans.

    Attributes:
        max_size: bytes.
        max_plans: how many.
        keep_stages: days.

    """

    max_size: int = 256 << 20
    max_plans: int = 1000
    keep_stages: int = 30


class Configuration(NamedTuple):
    """All values; every key of the schema is one of these.

    Attributes:
        spec_directories: empty: the default ones.
        all_means: what ``VENDOR/CLASS=all`` is.
        unsupported: what is done if an edit can't be done, or a device can't be opened.
        preflight: what is done about libraries that can't work in the image.
        policy: None where there are no rules.
        unmapped: what a Slurm step gets of a kind that no GRES stands for.
        cache_directory: where a user's plans are kept, with placeholders; "": where nobody says.

    """

    spec_directories: tuple[str, ...] = ()
    strict: bool = False
    aliases: Mapping[str, Alias] = {}
    all_means: AllMeans = "every"
    unsupported: Strictness = "warn"
    preflight: Preflight = "fail"
    unknown_hooks: Strictness = "warn"
    launchers: Mapping[str, LauncherDefaults] = {}
    policy: Policy | None = None
    gres: Mapping[str, GresMap] = {}
    unmapped: Unmapped = "refuse"
    cache: CacheBounds = CacheBounds()
    cache_directory: str = ""

    def launcher(self, name: str) -> LauncherDefaults:
        """Defaults of a launcher, together with what holds for all of them."""
        own = self.launchers.get(name, LauncherDefaults())
        return own._replace(
            unknown_hooks=stricter(own.unknown_hooks, self.unknown_hooks),
            unsupported=stricter(own.unsupported, self.unsupported),
            preflight=own.preflight or self.preflight,
        )


def stricter(first: Strictness, second: Strictness) -> Strictness:
    """The stricter of two values."""
    return "fail" if "fail" in (first, second) else "warn"
