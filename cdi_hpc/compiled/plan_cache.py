"""The directory where compiled plans are kept: found, written, listed, cleaned.

``KEY.plan`` is a plan, ``KEY.TOKEN.stage`` its stage, ``KEY.lock`` what its compilers wait for, ``.KEY.TOKEN.plan`` and
``.KEY.TOKEN.stage`` are being written; ``image`` is a place for mounts. A plan is written whole, synced and renamed;
its stage is there before. So whoever is killed leaves nothing that looks finished, and :meth:`PlanCache.collect` takes
away what he left. ``KEY.extract`` is what the native programs have to know of the configuration, ``KEY.passed-over``
their note that a plan of the system's can't be applied.

A plan depends on its stage as on the files it was made from: what is cleaned away piece by piece in /tmp, or was not
yet on disk when the power failed, makes it stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

from cdi_hpc.compiled import cache_files, wire
from cdi_hpc.compiled.cache_place import make_way, not_a_place, untrusted, unusable, user_directory
from cdi_hpc.config import CacheBounds, Configuration
from cdi_hpc.container.steps import StageEntry
from cdi_hpc.images.image_files import open_regular

_HOUR = 3600.0
_DAY = 24 * _HOUR

#: Of a cache where nobody says otherwise.
DEFAULT_BOUNDS = CacheBounds()

#: Nobody writes a plan for so long: what is left was abandoned.
_WRITING_GRACE = _HOUR

#: Is told the SHA-256 of a plan, in hexadecimal.
Seal = Callable[[str], None]


@dataclass(frozen=True)
class CachedPlan:
    """A plan in the cache.

    Attributes:
        size: bytes of the plan and its stage.
        used: when it was last written or read, as far as the file system keeps that; seconds since the epoch.

    """

    key: str
    path: str
    size: int
    used: float


def user_cache(environ: Mapping[str, str], configuration: Configuration | None = None) -> PlanCache:
    """The cache of this process's user.

    Args:
        environ: the environment.
        configuration: if it has been read already.

    Raises:
        CdiError: the configuration is wrong.
        CacheError: as :class:`PlanCache`.

    """
    directory, is_chosen = user_directory(environ, os.geteuid(), configuration)
    return PlanCache(directory, is_chosen=is_chosen)


#: Name of the directory that images are mounted on.
_IMAGE_PLACE = "image"


class PlanCache:
    """A cache directory that belongs to us alone."""

    def __init__(self, directory: str, *, mode: int = 0o700, is_chosen: bool = False) -> None:
        """Open the directory, made if it is not there.

        Args:
            directory: absolute path.
            mode: the most that anybody may do there.
            is_chosen: somebody has named it: directories on the way are made, too, and have to be such that nobody
                else can put another one in its place. They are listed in ``way``.

        Raises:
            UntrustedCacheError: it is a link, or somebody else's, or others have access to it.
            CacheError: it can't be made, or others can exchange it.

        """
        self.directory = directory
        self.way = tuple(make_way(directory)) if is_chosen else ()
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, mode)
                os.chmod(directory, mode)  # whatever the umask
            found = os.lstat(directory)
        except OSError as error:
            raise unusable(directory, f"{error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode):
            raise untrusted(directory, "it is a link, or no directory")
        if found.st_uid != os.geteuid():
            raise untrusted(directory, f"it belongs to user {found.st_uid}")
        if found.st_mode & 0o777 & ~mode:
            raise untrusted(directory, f"others have access to it (chmod {mode:o} it)")

    def image_place(self) -> str:
        """A directory that is always empty: the native runner mounts images on it, in namespaces of its own.

        It is a real path, made if it is not there, and never collected: a place that went away would make plans fail
        that are right otherwise.

        Raises:
            UntrustedCacheError: something else is there.
            CacheError: it can't be made.

        """
        place = f"{os.path.realpath(self.directory)}/{_IMAGE_PLACE}"
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o700)
                os.chmod(place, 0o700)  # whatever the umask
            found = os.lstat(place)
        except OSError as error:
            raise unusable(place, f"{error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode):
            raise not_a_place(place, "it is a link, or no directory")
        if found.st_uid != os.geteuid():
            raise not_a_place(place, f"it belongs to user {found.st_uid}")
        return place

    def path_of(self, key: str) -> str:
        """Where a key's plan is, or would be."""
        return f"{self.directory}/{key}.plan"

    @contextlib.contextmanager
    def compiling(self, key: str, since: float) -> Iterator[bool]:
        """Be the only one who compiles a key, or nearly so.

        Args:
            key: the key.
            since: when the launch began that needs the plan; seconds since the epoch.

        Yields:
            Whether somebody else has written the plan after that.

        Raises:
            CacheError: the file system refuses a lock.

        """
        try:
            fd = self._lock(key)
        except OSError as error:
            raise unusable(error.filename or self.directory, f"{error.strerror}") from None
        try:
            yield self._written_since(key, since)
        finally:
            os.close(fd)

    def _written_since(self, key: str, since: float) -> bool:
        try:
            written = os.lstat(self.path_of(key)).st_mtime
        except OSError:
            return False
        return since <= written <= time.time()  # a time in the future was another clock's

    def _lock(self, key: str) -> int:
        fd = os.open(f"{self.directory}/{key}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)  # whatever the umask
            cache_files.wait_for(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def write(
        self,
        key: str,
        owner: tuple[int, int],
        records: Sequence[wire.Record],
        stage: Sequence[StageEntry],
        seal: Seal | None = None,
    ) -> str:
        """Write a plan and its stage; returns the plan's path. ``seal`` is told of it before anybody can find it.

        Raises:
            CdiError: a value can't be written.
            CacheError: the file system refuses.

        """
        try:
            return self._write(key, owner, records, stage, seal)
        except OSError as error:
            raise unusable(error.filename or self.directory, f"{error.strerror}") from None

    def write_extract(self, key: str, owner: tuple[int, int], records: Sequence[wire.Record]) -> None:
        """Write an extract of the configuration, unless that is what is there.

        Raises:
            CacheError: the file system refuses.

        """
        path, new = f"{self.directory}/{key}.extract", f"{self.directory}/.{key}.{secrets.token_hex(4)}.extract"
        data = wire.encode(wire.WirePlan(key, *owner, None, tuple(records)))
        try:
            with contextlib.suppress(OSError), open_regular(path) as stream:
                if stream.read(len(data) + 1) == data:
                    return
            try:
                cache_files.write_synced(new, data, 0o600 if owner[0] else 0o644)
                os.rename(new, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    cache_files.remove(new)
                raise
        except OSError as error:
            raise unusable(error.filename or self.directory, f"{error.strerror}") from None

    def make_stage(self, key: str, stage: Sequence[StageEntry]) -> str:
        """Make a stage without a plan, for one launch; returns its path. It is kept as long as a replaced plan's.

        Raises:
            CacheError: the file system refuses.

        """
        try:
            return self._make_stage(key, secrets.token_hex(4), stage)
        except OSError as error:
            raise unusable(error.filename or self.directory, f"{error.strerror}") from None

    def _make_stage(self, key: str, token: str, stage: Sequence[StageEntry]) -> str:
        place, new = f"{self.directory}/{key}.{token}.stage", f"{self.directory}/.{key}.{token}.stage"
        try:
            cache_files.fill_stage(new, stage)
            os.rename(new, place)
        except BaseException:
            with contextlib.suppress(OSError):
                cache_files.remove(new)
            raise
        return place

    def _touch_stage_of(self, key: str) -> None:
        """From now on nothing names the old plan's stage; how long it has been so is what :meth:`collect` asks."""
        with contextlib.suppress(OSError, ValueError):
            os.utime(cache_files.stage_of(self.path_of(key)))

    def _write(
        self,
        key: str,
        owner: tuple[int, int],
        records: Sequence[wire.Record],
        stage: Sequence[StageEntry],
        seal: Seal | None,
    ) -> str:
        token = secrets.token_hex(4)
        place = f"{self.directory}/{key}.{token}.stage"
        new = f"{self.directory}/.{key}.{token}.plan"
        uid, gid = owner
        try:
            if stage:
                self._make_stage(key, token, stage)
                records = [*cache_files.stage_origins(place, stage), *records]
            data = wire.encode(wire.WirePlan(key, uid, gid, place if stage else None, tuple(records)))
            if seal is not None:
                seal(hashlib.sha256(data).hexdigest())
            cache_files.write_synced(new, data, 0o600 if uid else 0o644)
            self._touch_stage_of(key)
            os.rename(new, self.path_of(key))
        except BaseException:
            for path in (place, new):
                with contextlib.suppress(OSError):
                    cache_files.remove(path)
            raise
        cache_files.sync_directory(self.directory)
        return self.path_of(key)

    def plans(self) -> list[CachedPlan]:
        """Every plan, the most recently used first."""
        return plans_in(self.directory)

    def collect_if_due(self, bounds: Callable[[], CacheBounds]) -> None:
        """Collect if nobody has for an hour: a compilation should not pay for the size of the cache.

        That something can't be removed is no reason not to launch.

        Args:
            bounds: what is to be left; asked only if it is time.

        """
        stamp = f"{self.directory}/collected"
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.lstat(stamp).st_mtime < _HOUR:
                return
        with contextlib.suppress(OSError):
            os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            os.utime(stamp, follow_symlinks=False)
            self.collect(bounds())

    def collect(self, bounds: CacheBounds = DEFAULT_BOUNDS, *, everything: bool = False) -> int:
        """Take away what nobody needs, and the least recently used beyond the bounds; returns how many files.

        A stage that no plan names may still be the layer of a running container: it is kept for as long as jobs run,
        from when its plan was replaced or taken away.
        """
        removed = 0
        size = 0
        for number, plan in enumerate(self.plans(), 1):
            size += plan.size
            if everything or size > bounds.max_size or number > bounds.max_plans:
                self._touch_stage_of(plan.key)
                removed += cache_files.remove(plan.path)
        named = {cache_files.stage_of(plan.path) for plan in self.plans()}
        now = time.time()
        for name, status in _entries(self.directory):
            path = f"{self.directory}/{name}"
            grace = _grace(name, -math.inf if everything else bounds.keep_stages * _DAY)
            if path not in named and now - status.st_mtime > grace and cache_files.is_idle(path):
                removed += cache_files.remove(path)
        return removed


def plans_in(directory: str) -> list[CachedPlan]:
    """Every plan in a cache, the most recently used first; none if there is no such directory. Nothing is believed.

    Raises:
        OSError: the directory can't be read.

    """
    stages = _stage_sizes(directory)
    found = []
    for name, status in _entries(directory):
        key, dot, suffix = name.partition(".")
        if key and dot and suffix == "plan":
            size = status.st_size + stages.get(key, 0)
            found.append(CachedPlan(key, f"{directory}/{name}", size, max(status.st_atime, status.st_mtime)))
    return sorted(found, key=lambda plan: plan.used, reverse=True)


def _entries(directory: str) -> list[tuple[str, os.stat_result]]:
    """What is there now; others come and go meanwhile."""
    found: list[tuple[str, os.stat_result]] = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                found.append((name, os.lstat(f"{directory}/{name}")))
    return found


def _stage_sizes(directory: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, _ in _entries(directory):
        if name.endswith(".stage"):
            key = name.partition(".")[0]
            sizes[key] = sizes.get(key, 0) + cache_files.tree_size(f"{directory}/{name}")
    return sizes


def _grace(name: str, of_stages: float) -> float:
    """For how many seconds something in the cache is left alone although no plan names it."""
    if name.startswith(".") or name.endswith(".lock"):
        return _WRITING_GRACE
    if name.endswith((".stage", ".extract", ".passed-over")):
        return of_stages
    return math.inf
