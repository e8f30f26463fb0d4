"""A launch through a launcher before anybody has typed it: the plainest command line that asks for some devices."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from cdi_hpc.backend import Backend, Invocation, Option, Profile, Subcommand, Use
from cdi_hpc.compiled.cache_key import LauncherLaunch
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.launch.launcher import Request
from cdi_hpc.launch.launcher_options import read
from cdi_hpc.launch.profile import Launcher, NotFoundError, find_launcher, obtain

#: The subcommand that stands for all where a launcher has several.
_EXEC = ("exec",)


def request_for(
    backend: Backend,
    devices: Sequence[str],
    image: str,
    cdi_dirs: Sequence[str],
    environ: Mapping[str, str],
    cache: str | None = None,
) -> Request:
    """``LAUNCHER [exec] --device=DEVICE... [--cdi-dirs=DIR:...] IMAGE``.

    Args:
        backend: whose launcher it is; the first of its programs that is installed is taken.
        devices: values of one option each.
        image: the image argument.
        cdi_dirs: spec directories.
        environ: the environment.
        cache: where the launcher's profile is kept; None: nowhere.

    Raises:
        CdiError: none of the programs is installed, or it can't be asked for its options.

    """
    found = _installed(backend, environ)
    known = obtain(backend, found, cache)
    subcommand = _plainest(known)
    options = subcommand.options if subcommand else known.options
    words = [*(subcommand.words if subcommand else ())]
    words += [f"{_name(options, 'device')}={device}" for device in devices]
    words += [f"{_name(options, 'cdi-dirs')}={':'.join(cdi_dirs)}"] if cdi_dirs else []
    reading = read([*words, "--", image], known, wanted=True)
    if not isinstance(reading, Invocation):
        raise CdiError(Problem(found.path, f"its options leave no way to be given devices by {' '.join(words)!r}"))
    return Request(backend, found, LauncherLaunch(known, reading, reading.devices))


def _installed(backend: Backend, environ: Mapping[str, str]) -> Launcher:
    for command in backend.commands:
        with contextlib.suppress(NotFoundError):
            return find_launcher(command, environ)
    programs = " nor ".join(backend.commands)
    raise NotFoundError(Problem(f"launcher {backend.name!r}", f"{programs} is not on the PATH", "install it"))


def _plainest(known: Profile) -> Subcommand | None:
    exec_ = (each for each in known.subcommands if each.words == _EXEC)
    return next(exec_, known.subcommands[0] if known.subcommands else None)


def _name(options: Sequence[Option], use: Use) -> str:
    """The longest name of the options with a use; a value follows after ``=``."""
    return max((name for option in options if option.use == use for name in option.names), key=len, default=f"--{use}")
