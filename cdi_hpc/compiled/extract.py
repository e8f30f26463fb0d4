"""What the native programs have to know of the configuration: an extract, which they can read and know to be fresh.

They look for a plan, and know whether a launch concerns them, before anybody has read YAML: where plans are kept, and
which devices a launch through a launcher gets that asks for none. So Python leaves the answers where those programs
look first. The file has the form of a compiled plan that does nothing: what it was made from, and an environment record
for each answer, ``devices.ch-run=nvidia.com/gpu=all`` or ``cache.directory=/local/me``. ``native/extract.c`` reads it.

Where there are no configuration files, there is none, and nobody looks for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cdi_hpc import backends, config
from cdi_hpc.compiled import wire
from cdi_hpc.compiled.cache_key import Caller, extract_key
from cdi_hpc.compiled.cache_place import (
    ACCOUNTS,
    SYSTEM_DIRECTORY,
    CacheError,
    UntrustedCacheError,
    asks_for_account,
    first_directory,
)
from cdi_hpc.compiled.compile import origins
from cdi_hpc.compiled.plan_cache import PlanCache, user_cache
from cdi_hpc.config import Configuration
from cdi_hpc.errors import Problem
from cdi_hpc.planning import default_devices
from cdi_hpc.witness import ChangedError, Recorder, Witness

#: A plan has a tree; that of this one is the host's own.
_HOST = wire.Bind("/", "/")


#: Tells the native programs, for a launch that has just been compiled, where its extract is.
DIRECTORY_VARIABLE = "CDI_HPC_EXTRACT_IN"


@dataclass(frozen=True)
class Kept:
    """What is configured, and what became of its extract.

    Attributes:
        elsewhere: the directory where it was left, if that is not where the native programs look first.
        lost: why it could not be left there, if there is one: they don't say so.

    """

    configuration: Configuration
    elsewhere: str = ""
    lost: Problem | None = None

    @property
    def variables(self) -> dict[str, str]:
        """For the native program that goes on with this launch."""
        return {DIRECTORY_VARIABLE: self.elsewhere} if self.elsewhere else {}

    def is_news(self, error: CacheError) -> bool:
        """Whether it has not been said that plans can't be kept there: by who had this, or by the native program."""
        if self.lost is not None and error.problems[0].where == self.lost.where:
            return False
        return not isinstance(error, UntrustedCacheError) or self.lost is not None


def keep(environ: Mapping[str, str]) -> Kept:
    """Leave one for this user where the native programs look, or else where his plans are.

    That it can't be kept is no reason not to launch.

    Raises:
        CdiError: the configuration is wrong.

    """
    recorder = Recorder()
    loaded = config.load(environ, os.geteuid(), recorder)
    if not any(map(os.path.lexists, (config.SITE_DIRECTORY, config.user_directory(environ)))):
        return Kept(loaded.configuration)
    keys = [*_devices(loaded.configuration), *_directory(loaded.configuration, environ, recorder)]
    directory, is_chosen = first_directory(environ, os.geteuid())
    caller = Caller.present()
    try:
        records = (*origins(recorder.states()), *keys, _HOST)
    except ChangedError:
        return Kept(loaded.configuration)
    extract = (extract_key(caller, environ), (caller.uid, caller.gid), records)
    try:
        PlanCache(directory, is_chosen=is_chosen).write_extract(*extract)
    except CacheError as error:
        lost = None if _systems_serves(environ) else _lost(error)
    else:
        return Kept(loaded.configuration)
    with contextlib.suppress(CacheError):  # who needs a plan will say so
        cache = user_cache(environ, loaded.configuration)
        cache.write_extract(*extract)
        return Kept(loaded.configuration, cache.directory, lost)
    return Kept(loaded.configuration, lost=lost)


def _systems_serves(environ: Mapping[str, str]) -> bool:
    """Whether root has left one for a user who has no configuration of his own."""
    systems = f"{SYSTEM_DIRECTORY}/{extract_key(None, {})}.extract"
    return not os.path.lexists(config.user_directory(environ)) and os.path.exists(systems)


def _lost(error: CacheError) -> Problem:
    (problem,) = error.problems
    _, _, reason = problem.what.partition(": ")
    what = f"what is configured can't be noted there, so that each launch has to start Python: {reason}"
    return Problem(problem.where, what, "set XDG_RUNTIME_DIR or CDI_HPC_CACHE_DIRECTORY, or have it removed")


def keep_for_everybody(cache: PlanCache) -> None:
    """Leave one of the administrator's files for users who have none of their own.

    Args:
        cache: the system's.

    Raises:
        CdiError: the configuration is wrong.
        CacheError: it can't be kept.

    """
    recorder = Recorder()
    loaded = config.load({}, os.geteuid(), recorder)
    if not os.path.lexists(config.SITE_DIRECTORY) or "{" in loaded.configuration.cache_directory:
        return  # a place that has the user's name in it is each one's to find out
    keys = [*_devices(loaded.configuration)]
    if loaded.configuration.cache_directory:
        keys.append(wire.Env(f"cache.directory={loaded.configuration.cache_directory}"))
    records = (*origins(recorder.states()), *keys, _HOST)
    cache.write_extract(extract_key(None, {}), (0, 0), records)


def _devices(configuration: Configuration) -> Iterator[wire.Env]:
    for name in configuration.launchers:
        devices = default_devices(configuration, name)
        if devices:
            yield from (wire.Env(f"devices.{command}={devices}") for command in backends.commands_of(name))


def _directory(configuration: Configuration, environ: Mapping[str, str], witness: Witness) -> Iterator[wire.Env]:
    """Where plans are, if they can be there, for as long as the way to it is as it was."""
    if not configuration.cache_directory:
        return
    with contextlib.suppress(CacheError):  # who needs a plan will say so
        cache = user_cache(environ, configuration)
        for path in cache.way:
            witness.saw(path, "link")
        if asks_for_account(configuration.cache_directory, environ):
            witness.saw(ACCOUNTS, "content")
        yield wire.Env(f"cache.directory={cache.directory}")
