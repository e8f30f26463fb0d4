"""The directory where compiled plans are kept: found, written, listed, cleaned.

``KEY.plan`` is a plan, ``KEY.TOKEN.stage`` its stage, ``KEY.lock`` what its compilers wait for, ``.KEY.TOKEN.plan`` and
``.KEY.TOKEN.stage`` are being written; ``image`` is a place for mounts. A plan is written whole, synced and renamed;
its stage is there before. So whoever is killed leaves nothing that looks finished, and :meth:`PlanCache.collect` takes
away what he left. ``KEY.extract`` is what the native programs have to know of the configuration.

A plan depends on its stage as on the files it was made from: what is cleaned away piece by piece in /tmp, or was not
yet on disk when the power failed, makes it stale.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import posixpath
import pwd
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

from cdi_hpc import config
from cdi_hpc.compiled import wire
from cdi_hpc.config import CacheBounds, Configuration
from cdi_hpc.container.steps import MakeDirectory, MakeFile, StageEntry
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.images.image_files import open_regular

#: Where root keeps plans for everybody.
SYSTEM_DIRECTORY = "/var/cache/cdi-hpc"

_HOUR = 3600.0
_DAY = 24 * _HOUR

#: Of a cache where nobody says otherwise.
DEFAULT_BOUNDS = CacheBounds()

#: Nobody writes a plan for so long: what is left was abandoned.
_WRITING_GRACE = _HOUR


#: For how many seconds a compiler waits for another one of the same plan, and how often it looks.
PATIENCE = 60.0
_LONGEST_PAUSE = 0.16


#: Is told the SHA-256 of a plan, in hexadecimal.
Seal = Callable[[str], None]


class CacheError(CdiError):
    """Plans can't be kept; launches go on without."""


class UntrustedCacheError(CacheError):
    """The directory is a link, somebody else's, or open to others. The native runner says so, too."""


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


#: Says where the user's cache is, whatever is configured.
DIRECTORY_VARIABLE = "CDI_HPC_CACHE_DIRECTORY"


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


def user_directory(
    environ: Mapping[str, str], uid: int, configuration: Configuration | None = None
) -> tuple[str, bool]:
    """Where the user's cache is, and whether the variable or the configuration say so.

    Raises:
        CdiError: the configuration is wrong.

    """
    base, is_chosen = first_directory(environ, uid)
    if is_chosen:
        return base, True
    if configuration is None:
        configuration = config.load(environ, uid).configuration
    directory = configuration.cache_directory
    return (expanded(directory, environ, uid), True) if directory else (base, False)


def expanded(directory: str, environ: Mapping[str, str], uid: int) -> str:
    """A directory of the configuration with its placeholders replaced.

    Raises:
        CdiError: the user has no name.

    """
    values: dict[str, Callable[[], str]] = {
        "home": lambda: _home(environ, uid),
        "host": lambda: os.uname().nodename,
        "uid": lambda: str(uid),
        "user": lambda: _account(uid).pw_name,
    }
    for name, value in values.items():
        if f"{{{name}}}" in directory:
            directory = directory.replace(f"{{{name}}}", value().rstrip("/"))
    return directory.rstrip("/") or "/"


def _home(environ: Mapping[str, str], uid: int) -> str:
    home = environ.get("HOME", "")
    return home if home.startswith("/") else _account(uid).pw_dir


def _account(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        problem = Problem("cache.directory", f"user {uid} has no name and no home directory here", "use {uid}")
        raise CdiError(problem) from None


def first_directory(environ: Mapping[str, str], uid: int) -> tuple[str, bool]:
    """Where the native programs look before anything is known of the configuration, and whether the variable says so.

    ``$CDI_HPC_CACHE_DIRECTORY``, ``$XDG_RUNTIME_DIR/cdi-hpc`` if that is the user's own, else ``cdi-hpc-UID`` below
    ``$TMPDIR``. The rule is that of ``native/cache.c``.

    Raises:
        CdiError: the variable names no absolute path.

    """
    chosen = environ.get(DIRECTORY_VARIABLE, "")
    if chosen:
        if not chosen.startswith("/") or "{" in chosen:
            what = f"expected an absolute path, found {chosen!r}"
            raise CdiError(Problem(f"variable {DIRECTORY_VARIABLE}", what, "write the path itself"))
        return chosen.rstrip("/") or "/", True
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        with contextlib.suppress(OSError):
            found = os.stat(runtime)
            if stat.S_ISDIR(found.st_mode) and found.st_uid == uid:
                return f"{runtime}/cdi-hpc", False
    temporary = environ.get("TMPDIR", "")
    top = temporary if temporary.startswith("/") else "/tmp"  # noqa: S108  # what TMPDIR stands for
    return f"{top}/cdi-hpc-{uid}", False


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
        self.way = tuple(_make_way(directory)) if is_chosen else ()
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, mode)
                os.chmod(directory, mode)  # whatever the umask
            found = os.lstat(directory)
        except OSError as error:
            raise _unusable(directory, f"{error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode):
            raise _untrusted(directory, "it is a link, or no directory")
        if found.st_uid != os.geteuid():
            raise _untrusted(directory, f"it belongs to user {found.st_uid}")
        if found.st_mode & 0o777 & ~mode:
            raise _untrusted(directory, f"others have access to it (chmod {mode:o} it)")

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
            raise _unusable(place, f"{error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode):
            raise _not_a_place(place, "it is a link, or no directory")
        if found.st_uid != os.geteuid():
            raise _not_a_place(place, f"it belongs to user {found.st_uid}")
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
            raise _unusable(error.filename or self.directory, f"{error.strerror}") from None
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
            _wait_for(fd)
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
            raise _unusable(error.filename or self.directory, f"{error.strerror}") from None

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
                _write_synced(new, data, 0o600 if owner[0] else 0o644)
                os.rename(new, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    _remove(new)
                raise
        except OSError as error:
            raise _unusable(error.filename or self.directory, f"{error.strerror}") from None

    def make_stage(self, key: str, stage: Sequence[StageEntry]) -> str:
        """Make a stage without a plan, for one launch; returns its path. It is kept as long as a replaced plan's.

        Raises:
            CacheError: the file system refuses.

        """
        try:
            return self._make_stage(key, secrets.token_hex(4), stage)
        except OSError as error:
            raise _unusable(error.filename or self.directory, f"{error.strerror}") from None

    def _make_stage(self, key: str, token: str, stage: Sequence[StageEntry]) -> str:
        place, new = f"{self.directory}/{key}.{token}.stage", f"{self.directory}/.{key}.{token}.stage"
        try:
            _fill_stage(new, stage)
            os.rename(new, place)
        except BaseException:
            with contextlib.suppress(OSError):
                _remove(new)
            raise
        return place

    def _touch_stage_of(self, key: str) -> None:
        """From now on nothing names the old plan's stage; how long it has been so is what :meth:`collect` asks."""
        with contextlib.suppress(OSError, ValueError):
            os.utime(_stage_of(self.path_of(key)))

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
                records = [*_stage_origins(place), *records]
            data = wire.encode(wire.WirePlan(key, uid, gid, place if stage else None, tuple(records)))
            if seal is not None:
                seal(hashlib.sha256(data).hexdigest())
            _write_synced(new, data, 0o600 if uid else 0o644)
            self._touch_stage_of(key)
            os.rename(new, self.path_of(key))
        except BaseException:
            for path in (place, new):
                with contextlib.suppress(OSError):
                    _remove(path)
            raise
        _sync_directory(self.directory)
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
                removed += _remove(plan.path)
        named = {_stage_of(plan.path) for plan in self.plans()}
        now = time.time()
        for name, status in _entries(self.directory):
            path = f"{self.directory}/{name}"
            grace = _grace(name, -math.inf if everything else bounds.keep_stages * _DAY)
            if path not in named and now - status.st_mtime > grace and _is_idle(path):
                removed += _remove(path)
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
            sizes[key] = sizes.get(key, 0) + _tree_size(f"{directory}/{name}")
    return sizes


def _make_way(directory: str) -> Iterator[str]:
    """Walk to a directory as the kernel does, and make what is missing above it; yields directories and links.

    Raises:
        CacheError: somebody else could change the way, or a directory can't be made.

    """
    from cdi_hpc.config import files  # most caches are where nobody has chosen

    trusted = files.roots() | files.nobodies() | {os.geteuid()}
    here, ahead = "/", [name for name in posixpath.dirname(directory).split("/") if name]
    links = 0
    while True:
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            found = _made(here, directory)
        except OSError as error:
            raise _unusable(directory, f"{here}: {error.strerror}") from None
        yield here
        if found.st_uid not in trusted:
            raise _unusable(directory, f"{here} belongs to user {found.st_uid}")
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise _unusable(directory, f"{here}: {os.strerror(errno.ELOOP)}")
            points_to = os.readlink(here)
            ahead = [name for name in points_to.split("/") if name not in ("", ".")] + ahead
            here = "/" if points_to.startswith("/") else posixpath.dirname(here)
        elif _others_can_rename(found):
            raise _unusable(directory, f"others can put something else in the place of what lies in {here}")
        if not ahead:
            return
        name = ahead.pop(0)
        here = posixpath.dirname(here) if name == ".." else posixpath.join(here, name)


#: On one way, as for the kernel (path_resolution(7)).
_MOST_LINKS = 40


def _made(path: str, directory: str) -> os.stat_result:
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        return os.lstat(path)
    except OSError as error:
        raise _unusable(directory, f"{path} can't be made: {error.strerror}") from None


def _others_can_rename(found: os.stat_result) -> bool:
    """Whether somebody else can rename what lies in a directory. Whom a user lets into his group is his business."""
    others = stat.S_IWOTH if found.st_uid == os.geteuid() else stat.S_IWGRP | stat.S_IWOTH
    return bool(found.st_mode & others) and not found.st_mode & stat.S_ISVTX


def _grace(name: str, of_stages: float) -> float:
    """For how many seconds something in the cache is left alone although no plan names it."""
    if name.startswith(".") or name.endswith(".lock"):
        return _WRITING_GRACE
    if name.endswith((".stage", ".extract")):
        return of_stages
    return math.inf


def _stage_of(plan: str) -> str:
    """The stage that a plan names, from its head: header, key and owner come before it."""
    try:
        with open_regular(plan) as stream:
            fields = stream.read(16384).split(b"\0")
    except OSError:
        return ""
    return os.fsdecode(fields[8]) if fields[7:8] == [b"stage"] and len(fields) > 9 else ""  # noqa: PLR2004  # as encoded


def _problem(directory: str, reason: str) -> Problem:
    fix = f"set XDG_RUNTIME_DIR, TMPDIR or {DIRECTORY_VARIABLE} to a place of your own"
    return Problem(directory, f"plans can't be kept there: {reason}", fix)


def _unusable(directory: str, reason: str) -> CacheError:
    return CacheError(_problem(directory, reason))


def _untrusted(directory: str, reason: str) -> UntrustedCacheError:
    return UntrustedCacheError(_problem(directory, reason))


def _not_a_place(place: str, reason: str) -> CacheError:
    return UntrustedCacheError(Problem(place, f"images can't be mounted there: {reason}", "remove it"))


def _wait_for(fd: int) -> None:
    """Get a file's lock, or give up: whoever has it may have been stopped, and two compilers do no harm."""
    pause, end = 0.01, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return


def _is_idle(path: str) -> bool:
    """Whether nobody holds a lock file's lock."""
    if not path.endswith(".lock"):
        return True
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _remove(path: str) -> int:
    """Remove a file or a tree, unwritable directories included; returns 1, or 0 if it was gone."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return 1
        os.chmod(path, 0o700)
        for parent, directories, _ in os.walk(path):
            for name in directories:
                if not os.path.islink(f"{parent}/{name}"):
                    os.chmod(f"{parent}/{name}", 0o700)
        shutil.rmtree(path)
    except FileNotFoundError:
        return 0
    return 1


def _fill_stage(place: str, stage: Sequence[StageEntry]) -> None:
    os.mkdir(place)
    os.chmod(place, 0o755)  # noqa: S103  # whatever the umask; the cache's own mode decides who gets here
    directories: list[tuple[str, int]] = []
    for entry in stage:
        path = f"{place}/{entry.path}"
        if isinstance(entry, MakeDirectory):
            os.mkdir(path)
            os.chmod(path, 0o700)
            directories.append((path, entry.mode))
        elif isinstance(entry, MakeFile):
            with open(path, "xb") as stream:
                stream.write(entry.content)
                os.fchmod(stream.fileno(), entry.mode)
        else:
            os.symlink(entry.points_to, path)
    # Only now: an image may have directories that nobody can write to, and so have the layers over them.
    for path, mode in reversed(directories):
        os.chmod(path, mode)


def _stage_origins(place: str) -> Iterator[wire.Origin]:
    """What tells that a stage is whole: its directories, and the files that are more than mount points."""
    for parent, _, names in os.walk(place):
        found = os.lstat(parent)
        yield wire.SameDirectory(parent, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        for name in names:
            path = f"{parent}/{name}"
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_size:
                times = (found.st_mtime_ns, found.st_ctime_ns)
                yield wire.SameFile(path, found.st_dev, found.st_ino, found.st_size, *times)


def _write_synced(path: str, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as stream:
        os.fchmod(fd, mode)  # whatever the umask
        stream.write(data)
        stream.flush()
        os.fsync(fd)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _tree_size(top: str) -> int:
    size = 0
    for parent, _, names in os.walk(top):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(f"{parent}/{name}").st_size
    return size
