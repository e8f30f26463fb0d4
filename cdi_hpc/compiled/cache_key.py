"""The key of a launch: what a compiled plan is found by. ``native/key.c`` computes the same one.

A key is the SHA-256 of NUL-ended fields, in this order: ``cdi-hpc-key-1``, the software's version, the launcher, uid,
gid, supplementary groups (all three empty in a plan for everybody), the image's real path, then devices, what Slurm
gave to a step, spec directories, binds and switches, each with a letter that tells them apart, and last the working
directory if any of them may depend on it. What the user's own configuration is found by (``cdi_hpc.config``) comes
before that, ``g:`` and each variable that is set and not empty, ``NAME=VALUE``; a plan for everybody has none of it.

``--env``, ``--workdir``, ``-v`` and ``-q`` are not in it: they don't change a plan.

That of a launch through a launcher (:class:`LauncherLaunch`) has its backend as the launcher, and after the groups:

- ``p:`` the launcher's real path, ``i:`` the image argument, ``r:`` where that leads as a path (empty: nowhere),
- ``s:`` each word of the subcommand,
- for each option in its order ``D``, ``c`` or ``x``, if it is ours (a device, spec directories, a switch), or else how
  many words it takes and its first name with ``k:`` (it is passed on whatever its value is) or ``o:``,
  and after ``x`` and ``o:`` a field ``=:`` with its value if it has one,
- ``d:`` each device, ``c:`` each spec directory of an option, or ``C:`` the variable that lists them,
- ``default`` if the devices are the configuration's, for launches that ask for none,
- ``v:`` each variable that may change a plan, ``NAME=VALUE``, sorted,
- ``g:`` as above,
- ``cwd:`` the working directory, if the launcher shows it in the container or any path may be relative. What a launcher
  takes for a path, it alone knows: so in a value of an option every piece between colons, commas and equals signs has
  to be an absolute one. Which launchers do not show it, and which of their variables are paths, their profile says
  (``path-variables``).

Words that are passed on are taken from each launch's own command line, by their place in it. So their places are in the
key, and their text is not. The image argument is, besides what it leads to: a launcher may know it as a name.

That of an extract of the configuration (:mod:`cdi_hpc.compiled.extract`) has only ``cdi-hpc-extract-1``, the version,
the user's numbers, ``g:``, and for a user ``host:`` and the machine's name: it may be a part of where his plans are.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cdi_hpc import __version__
from cdi_hpc.backend import Given, Invocation, Profile
from cdi_hpc.spec.registry import ENVIRONMENT_VARIABLE
from cdi_hpc.spec.request import Preflight

#: Capability of a launcher that has nothing to do with its working directory: which of its variables are paths.
PATH_VARIABLES = "path-variables"


@dataclass(frozen=True)
class Caller:
    """Who launches."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @staticmethod
    def present() -> Caller:
        """This process."""
        return Caller(os.geteuid(), os.getegid(), tuple(os.getgroups()))


@dataclass(frozen=True)
class Launch:
    """A launch as it was asked for: the command line of ``cdi-hpc run``, less what does not change a plan.

    Attributes:
        image: its real path.
        launcher: ``handoff``: launchers that somebody starts later take the devices from their environment.
        gres: ``GRES=NUMBERS`` for each GRES of a step of Slurm's.

    """

    image: str
    devices: tuple[str, ...] = ()
    cdi_dirs: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    writable_tmpfs: bool = False
    contain: bool = False
    stage: str = "auto"
    strict: bool = False
    unknown_hooks: str = "warn"
    preflight: Preflight | Literal["auto"] = "auto"
    launcher: Literal["embedded", "handoff"] = "embedded"
    gres: tuple[str, ...] = ()


@dataclass(frozen=True)
class LauncherLaunch:
    """A launch through a launcher that somebody else made.

    Attributes:
        profile: of the launcher.
        invocation: its command line.
        devices: those asked for there, or else by the environment, or else by the configuration.
        by_default: they are the configuration's.

    """

    profile: Profile
    invocation: Invocation
    devices: tuple[str, ...]
    by_default: bool = False

    def directory_list(self, environ: Mapping[str, str]) -> str | None:
        """Value of the variable that names spec directories where no option does; None if none is set."""
        if self.invocation.cdi_dirs:
            return None
        own = dict(self.profile.capabilities).get("cdi-dirs-variable")
        value = environ.get(own) if own else None
        return value or environ.get(ENVIRONMENT_VARIABLE)

    def directories(self, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Spec directories that an option or a variable names."""
        return self.invocation.cdi_dirs or tuple(_colon_list(self.directory_list(environ)))


def cache_key(launch: Launch | LauncherLaunch, caller: Caller | None, cwd: str, environ: Mapping[str, str]) -> str:
    """64 hexadecimal digits.

    Args:
        launch: what is asked for.
        caller: who asks; None for a plan that serves everybody (the system's cache).
        cwd: the working directory, "" if it has no path any more.
        environ: the environment; CDI_HPC_DIRS is looked at, and a launcher's own variables.

    """
    if isinstance(launch, Launch):
        return _digest(_fields(launch, caller, cwd, environ))
    return _digest(_launcher_fields(launch, caller, cwd, environ))


def extract_key(caller: Caller | None, environ: Mapping[str, str]) -> str:
    """The key of an extract of the configuration, for a user or for everybody."""
    host = () if caller is None else (f"host:{os.uname().nodename}",)
    return _digest(("cdi-hpc-extract-1", __version__, *_caller(caller), *_configuration(caller, environ), *host))


def _digest(fields: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for field in fields:
        digest.update(os.fsencode(field) + b"\0")
    return digest.hexdigest()


def _fields(launch: Launch, caller: Caller | None, cwd: str, environ: Mapping[str, str]) -> Iterator[str]:
    directories = None if launch.cdi_dirs else environ.get(ENVIRONMENT_VARIABLE)
    yield from ("cdi-hpc-key-1", __version__, launch.launcher)
    yield from _caller(caller)
    yield launch.image
    yield from (f"d:{device}" for device in launch.devices)
    yield from (f"a:{gres}" for gres in launch.gres)
    yield from (f"c:{directory}" for directory in launch.cdi_dirs)
    if directories is not None:
        yield f"C:{directories}"
    yield from (f"b:{bind}" for bind in launch.binds)
    if launch.writable_tmpfs:
        yield "w"
    if launch.contain:
        yield "n"
    yield f"s:{launch.stage}"
    if launch.strict:
        yield "S"
    yield f"h:{launch.unknown_hooks}"
    yield f"f:{launch.preflight}"
    yield from _configuration(caller, environ)
    if _depends_on_directory(launch, directories or ""):
        yield f"cwd:{cwd}"


def _launcher_fields(
    launch: LauncherLaunch, caller: Caller | None, cwd: str, environ: Mapping[str, str]
) -> Iterator[str]:
    profile, invocation = launch.profile, launch.invocation
    variable = launch.directory_list(environ)
    variables = sorted(_relevant(profile.variables, environ), key=os.fsencode)
    yield from ("cdi-hpc-key-1", __version__, profile.backend)
    yield from _caller(caller)
    yield f"p:{profile.program}"
    yield f"i:{invocation.image}"
    yield f"r:{real_path(invocation.image)}"
    yield from (f"s:{word}" for word in invocation.subcommand)
    for option in invocation.given:
        yield from _option(option)
    yield from (f"d:{device}" for device in launch.devices)
    yield from (f"c:{directory}" for directory in invocation.cdi_dirs)
    if variable is not None:
        yield f"C:{variable}"
    if launch.by_default:
        yield "default"
    yield from (f"v:{assignment}" for assignment in variables)
    yield from _configuration(caller, environ)
    if _launcher_depends_on_directory(launch, environ):
        yield f"cwd:{cwd}"


#: Variables that set keys of the configuration, or say where the user's is; sorted. The others that do are in the key
#: for reasons of their own.
CONFIGURATION_VARIABLES = (
    "CDI_HPC_ALL_MEANS",
    "CDI_HPC_STRICT",
    "CDI_HPC_UNKNOWN_HOOKS",
    "CDI_HPC_UNSUPPORTED",
    "HOME",
    "XDG_CONFIG_HOME",
)


def _configuration(caller: Caller | None, environ: Mapping[str, str]) -> Iterator[str]:
    if caller is not None:
        yield from (f"g:{name}={environ[name]}" for name in CONFIGURATION_VARIABLES if environ.get(name))


#: What stands for an option of ours: its place, not how it was called.
_OUR_MARKS = {"device": "D", "cdi-dirs": "c", "switch": "x"}


def _option(given: Given) -> Iterator[str]:
    use = given.option.use
    name = f"{given.count}:{given.option.names[0]}"
    yield _OUR_MARKS.get(use) or f"{'k' if use == 'keep' else 'o'}:{name}"
    if use == "switch":
        yield given.option.names[0]
    if use in ("switch", "plan") and given.value is not None:
        yield f"=:{given.value}"


def real_path(image: str) -> str:
    """Where an image argument leads as a path, "" if nowhere."""
    return os.path.realpath(image) if os.path.exists(image) else ""


def _relevant(patterns: Iterable[str], environ: Mapping[str, str]) -> Iterator[str]:
    """``NAME=VALUE`` of variables that may change a plan."""
    patterns = tuple(patterns)
    for name, value in environ.items():
        if any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in patterns):
            yield f"{name}={value}"


def _caller(caller: Caller | None) -> tuple[str, str, str]:
    if caller is None:
        return "", "", ""
    return str(caller.uid), str(caller.gid), ",".join(str(gid) for gid in sorted(set(caller.groups)))


def _depends_on_directory(launch: Launch, directories: str) -> bool:
    paths = (*launch.cdi_dirs, *launch.binds, *_colon_list(directories))
    return any(not path.startswith("/") for path in paths) or any(map(may_be_relative_file, launch.devices))


def _launcher_depends_on_directory(launch: LauncherLaunch, environ: Mapping[str, str]) -> bool:
    """Whether a launcher shows its working directory, or any path may be relative: of a value, every piece is asked."""
    paths = dict(launch.profile.capabilities).get(PATH_VARIABLES)
    if paths is None:
        return True
    invocation = launch.invocation
    uses = ("plan", "switch")
    values = [given.value for given in invocation.given if given.option.use in uses and given.value is not None]
    absolute = (
        invocation.image,
        *(piece for value in values for piece in re.split("[:,=]", value)),
        *launch.directories(environ),
        *(environ[name] for name in paths.split(",") if name in environ),
    )
    return any(not path.startswith("/") for path in absolute) or any(map(may_be_relative_file, launch.devices))


def _colon_list(directories: str | None) -> list[str]:
    return [path for path in (directories or "").split(":") if path]


def may_be_relative_file(device: str) -> bool:
    """Whether a device argument may name a file by a relative path (``request.is_file_request``).

    Asked of the text alone, and rather yes than no: one key too many costs one compilation, one too few a wrong plan.
    """
    like_a_file = any(mark in device for mark in ("./", ".json", ".yaml", ".lock"))
    return like_a_file and (not device.startswith("/") or "," in device)
