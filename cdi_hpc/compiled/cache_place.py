"""Where compiled plans are kept: which directory that is, and whether only its user can put something else there."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import pwd
import stat
from collections.abc import Iterator, Mapping
from typing import Callable

from cdi_hpc import config
from cdi_hpc.config import Configuration
from cdi_hpc.errors import CdiError, Problem

#: Where root keeps plans for everybody.
SYSTEM_DIRECTORY = "/var/cache/cdi-hpc"

#: Says where the user's cache is, whatever is configured.
DIRECTORY_VARIABLE = "CDI_HPC_CACHE_DIRECTORY"


class CacheError(CdiError):
    """Plans can't be kept; launches go on without."""


class UntrustedCacheError(CacheError):
    """The directory is a link, somebody else's, or open to others. The native runner says so, too."""


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


#: Where accounts are, as far as a file says so.
ACCOUNTS = "/etc/passwd"


def asks_for_account(directory: str, environ: Mapping[str, str]) -> bool:
    """Whether the user's account says what a directory of the configuration means."""
    return "{user}" in directory or ("{home}" in directory and not environ.get("HOME", "").startswith("/"))


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


def make_way(directory: str) -> Iterator[str]:
    """Walk to a directory as the kernel does, and make what is missing above it; yields directories and links.

    Raises:
        CacheError: somebody else could change the way, or a directory can't be made.

    """
    from cdi_hpc import trusted_program  # most caches are where nobody has chosen

    trusted = trusted_program.roots() | trusted_program.nobodies() | {os.geteuid()}
    here, ahead = "/", [name for name in posixpath.dirname(directory).split("/") if name]
    links = 0
    while True:
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            found = _made(here, directory)
        except OSError as error:
            raise unusable(directory, f"{here}: {error.strerror}") from None
        yield here
        if found.st_uid not in trusted:
            raise unusable(directory, f"{here} belongs to user {found.st_uid}")
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise unusable(directory, f"{here}: {os.strerror(errno.ELOOP)}")
            points_to = os.readlink(here)
            ahead = [name for name in points_to.split("/") if name not in ("", ".")] + ahead
            here = "/" if points_to.startswith("/") else posixpath.dirname(here)
        elif _others_can_rename(found):
            raise unusable(directory, f"others can put something else in the place of what lies in {here}")
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
        raise unusable(directory, f"{path} can't be made: {error.strerror}") from None


def _others_can_rename(found: os.stat_result) -> bool:
    """Whether somebody else can rename what lies in a directory. Whom a user lets into his group is his business."""
    others = stat.S_IWOTH if found.st_uid == os.geteuid() else stat.S_IWGRP | stat.S_IWOTH
    return bool(found.st_mode & others) and not found.st_mode & stat.S_ISVTX


def _problem(directory: str, reason: str) -> Problem:
    fix = f"set XDG_RUNTIME_DIR, TMPDIR or {DIRECTORY_VARIABLE} to a place of your own"
    return Problem(directory, f"plans can't be kept there: {reason}", fix)


def unusable(directory: str, reason: str) -> CacheError:
    """What to raise where plans can't be kept."""
    return CacheError(_problem(directory, reason))


def untrusted(directory: str, reason: str) -> UntrustedCacheError:
    """What to raise where somebody else could have put the plans."""
    return UntrustedCacheError(_problem(directory, reason))


def not_a_place(place: str, reason: str) -> CacheError:
    """What to raise where images can't be mounted."""
    return UntrustedCacheError(Problem(place, f"images can't be mounted there: {reason}", "remove it"))
