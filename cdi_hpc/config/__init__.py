"""The configuration of a site and of a user: read, put together, and where each value came from.

The administrator's files, then the user's, then variables; options of the command line come last and are not seen
here. docs/configuration.md explains the keys, ``schema.json`` defines them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Callable, NamedTuple, TypeVar

from cdi_hpc.config.values import CacheBounds, Configuration, LauncherDefaults, Strictness, stricter
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.witness import Witness

if TYPE_CHECKING:
    from cdi_hpc.config.files import ConfigFile, Places
    from cdi_hpc.config.settings import Setting

T = TypeVar("T")

__all__ = [
    "SITE_DIRECTORY",
    "VARIABLES",
    "CacheBounds",
    "Configuration",
    "LauncherDefaults",
    "Loaded",
    "Strictness",
    "load",
    "stricter",
    "user_directory",
    "variables",
]


class Loaded(NamedTuple):
    """A configuration and where it is from.

    Attributes:
        files: paths of the files that were read, in the order in which they count.
        settings: for each key that was set, the settings that count (:mod:`cdi_hpc.config.settings`).

    """

    configuration: Configuration = Configuration()
    files: tuple[str, ...] = ()
    settings: Mapping[tuple[str, ...], tuple[Setting, ...]] = {}


#: The administrator's directory.
SITE_DIRECTORY = "/etc/cdi-hpc"

#: Variables that set keys. All that may change a plan are in its key, so they are here as well as in the schema, which
#: takes time to read.
VARIABLES = (
    "CDI_HPC_ALL_MEANS",
    "CDI_HPC_CACHE_DIRECTORY",
    "CDI_HPC_DIRS",
    "CDI_HPC_PREFLIGHT",
    "CDI_HPC_STRICT",
    "CDI_HPC_UNKNOWN_HOOKS",
    "CDI_HPC_UNSUPPORTED",
)

_READ_BY_OTHERS = ("CDI_HPC_CACHE_DIRECTORY", "CDI_HPC_DIRS", "CDI_HPC_PREFLIGHT")


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that set keys and are set, by name."""
    return {name: environ[name] for name in VARIABLES if environ.get(name)}


def user_directory(environ: Mapping[str, str]) -> str:
    """``$XDG_CONFIG_HOME/cdi-hpc`` or ``$HOME/.config/cdi-hpc``, "" where neither is known.

    XDG Base Directory Specification: a path that is not absolute is none.
    """
    configured, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if configured.startswith("/"):
        return f"{configured.rstrip('/')}/cdi-hpc"
    return f"{home.rstrip('/')}/.config/cdi-hpc" if home.startswith("/") else ""


def load(
    environ: Mapping[str, str],
    uid: int,
    witness: Witness | None = None,
    *,
    where: Places | None = None,
    to_show: bool = False,
) -> Loaded:
    """The configuration of this process. Where there are neither files nor variables, that is two calls of lstat(2).

    Args:
        environ: the environment. An empty one leaves only the administrator's files: for what is made for everybody.
        uid: of the user.
        witness: is told of every file, also of those that are not there.
        where: the files; default: :data:`SITE_DIRECTORY` and :func:`user_directory`.
        to_show: also where nothing is set but what launches read without us (CDI_HPC_DIRS and others).

    Raises:
        CdiError: with everything that is wrong, each with file and line; a file that somebody else could have written
            is not read.

    """
    told = witness or Witness()
    site, user = (where.site, where.user) if where else (SITE_DIRECTORY, user_directory(environ))
    is_there = [directory for directory in (site, user) if _is_there(directory, told)]
    if not is_there and not (variables(environ).keys() - (() if to_show else _READ_BY_OTHERS)):
        return Loaded()
    # Imported only now: most machines have no configuration, and nobody should wait for what reads it.
    from cdi_hpc.config import files

    found = where or files.places(environ, uid)
    problems: list[Problem] = []
    of_site = _collected(partial(files.read_site, found, told), problems)
    of_user = _collected(partial(files.read_user, found, told), problems)
    if problems:
        raise CdiError(problems)
    return _loaded(of_site, of_user, environ)


def _is_there(directory: str, witness: Witness) -> bool:
    """Whether there may be a configuration; a link that leads nowhere is for others to judge."""
    if directory:
        witness.saw(directory, "names")
    return bool(directory) and os.path.lexists(directory)


def _collected(read: Callable[[], Iterable[T]], problems: list[Problem]) -> list[T]:
    """Everything that is read, or nothing and one problem more."""
    try:
        return list(read())
    except CdiError as error:
        problems += error.problems
        return []


def _loaded(site: Sequence[ConfigFile], user: Sequence[ConfigFile], environ: Mapping[str, str]) -> Loaded:
    from cdi_hpc.config.build import build
    from cdi_hpc.config.settings import join, of_environment, of_file

    problems: list[Problem] = []
    found = [setting for file in site for setting in _collected(partial(of_file, file, "site"), problems)]
    found += [setting for file in user for setting in _collected(partial(of_file, file, "user"), problems)]
    found += _collected(partial(of_environment, environ), problems)
    if problems:
        raise CdiError(problems)
    joined = join(found)
    return Loaded(build(joined), tuple(file.path for file in (*site, *user)), joined)
