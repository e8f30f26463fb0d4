"""``cdi-hpc exec``."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from typing import NamedTuple

import click

from cdi_hpc import backends
from cdi_hpc.backend import Backend, BackendFaultError
from cdi_hpc.cli import RUNNER, RUNNER_VARIABLE, become, complain, find_runner
from cdi_hpc.cli.options import Reporter
from cdi_hpc.cli.progress import progress
from cdi_hpc.compiled import extract
from cdi_hpc.compiled.cache_key import LauncherLaunch
from cdi_hpc.compiled.cache_place import CacheError
from cdi_hpc.compiled.plan_cache import PlanCache, user_cache
from cdi_hpc.errors import CdiError, Problem, in_short
from cdi_hpc.launch import inheritance, kernel, launcher, launcher_options, native, process, profile, squashfs
from cdi_hpc.launch.launcher_options import DEVICES_VARIABLE
from cdi_hpc.planning import NOTHING, default_devices, load_configuration
from cdi_hpc.witness import ChangedError

#: How much the native program says: a number as of ``-v`` and ``-q``.
VERBOSITY_VARIABLE = "CDI_HPC_VERBOSITY"

#: The same from our own options, handed on to the native program and back; no launcher sees it.
_SAY_VARIABLE = "CDI_HPC_SAY"


def run(name: str, words: tuple[str, ...], verbose: int, quiet: int, runner: str, compile_and_run: bool) -> int:
    """Launch as the command line (:mod:`cdi_hpc.cli.exec_command`) says; returns an exit status if that is all."""
    if not name:
        raise click.UsageError("LAUNCHER is empty.")
    reporter = Reporter(verbose + quiet or _wanted_verbosity())
    if runner == "native" or (runner == "auto" and RUNNER_VARIABLE not in os.environ and not compile_and_run):
        _become_native(runner, name, words, reporter)
    try:
        return _exec(name, words, reporter, compile_and_run=compile_and_run)
    except profile.NotFoundError as error:
        complain("error", str(error))
        return process.NOT_FOUND
    except BackendFaultError as error:
        for line in _way_to(error.__cause__):
            reporter.note(line)
        raise


def _way_to(cause: BaseException | None) -> list[str]:
    """A traceback, line by line: for who writes a backend."""
    text = "" if cause is None else "".join(traceback.format_exception(type(cause), cause, cause.__traceback__))
    return text.splitlines()


def _become_native(runner: str, name: str, words: tuple[str, ...], reporter: Reporter) -> None:
    """Become the native shim, if it is installed; it has to be if it was asked for by name."""
    program = find_runner(os.environ)
    if program is None and runner == "native":
        raise CdiError(Problem("--runner=native", f"{RUNNER} is not installed", "leave the option out"))
    if program is not None:
        become(program, words, _said(reporter), name=name)


def _wanted_verbosity() -> int:
    """As atoi(3) in the native program: what is no number is 0."""
    text = os.environ.get(_SAY_VARIABLE, os.environ.get(VERBOSITY_VARIABLE, ""))
    found = re.match(r"\s*[+-]?[0-9]{1,9}", text, re.ASCII)
    return int(found[0]) if found else 0


def _said(reporter: Reporter) -> dict[str, str]:
    return {_SAY_VARIABLE: f"{reporter.level}"} if reporter.level else {}


class _Wanted(NamedTuple):
    """Devices of a launch whose words name none.

    Attributes:
        devices: a comma list, "" for none.
        by_default: nobody has asked for them but the configuration.
        kept: what is configured.
        wrong: why that is not known.

    """

    devices: str
    by_default: bool
    kept: extract.Kept | None = None
    wrong: CdiError | None = None

    def __bool__(self) -> bool:
        """Whether there may be any."""
        return bool(self.devices) or (self.by_default and self.wrong is not None)


def _wanted(backend: Backend, environ: Mapping[str, str]) -> _Wanted:
    named = environ.get(DEVICES_VARIABLE, "")
    devices = "" if named == NOTHING else named
    try:
        # The native program looks there the next time; without it, nobody does.
        kept = extract.keep(environ) if RUNNER_VARIABLE in environ else extract.Kept(load_configuration(environ))
    except CdiError as error:
        return _Wanted(devices, not named, wrong=error)
    return _Wanted(devices if named else default_devices(kept.configuration, backend.name), not named, kept)


def _exec(name: str, words: tuple[str, ...], reporter: Reporter, *, compile_and_run: bool) -> int:
    found = profile.find_launcher(name, os.environ)
    if RUNNER_VARIABLE not in os.environ:  # the native program has counted it
        profile.count_scripts(found, os.environ)
    environ = inheritance.command_environment()
    backend = backends.for_command(found.command)
    wanted = _wanted(backend, os.environ)
    if wanted.kept is not None and wanted.kept.lost is not None:
        reporter.warn(wanted.kept.lost)
    if not wanted and not any(map(launcher_options.may_be_ours, words)):
        launcher.become_bare(found, words, environ)
    cache = _cache(wanted.kept, reporter) if wanted.kept else None
    with progress(f"asking {name} what it can do", wanted=reporter.level >= 0):
        known = profile.obtain(backend, found, cache.directory if cache else None)
    in_order = launcher_options.in_order(known, environ)
    reading = launcher_options.read(words, known, in_order=in_order, wanted=bool(wanted), by_default=wanted.by_default)
    if isinstance(reading, launcher_options.Leave):
        launcher.become_bare(found, reading.words, environ)
    if isinstance(reading, launcher_options.Help):
        return launcher.show_help(found, reading.words, environ, known.help)
    if wanted.wrong:
        raise wanted.wrong
    by_default = wanted.by_default and not reading.devices
    launch = LauncherLaunch(known, reading, reading.devices or (wanted.devices,), by_default)
    request = launcher.Request(backend, found, launch)
    if cache is None:
        return squashfs.leave_as(_run_in_passing(request, environ, reporter))
    prepared = None
    # Without a profile on disk, the native program could not read the command line again.
    if compile_and_run and profile.kept(backend, found, cache.directory) is not None:
        prepared = _compile_and_become(request, words, cache, environ, reporter, wanted.kept)
    return squashfs.leave_as(launcher.run(request, cache, environ, reporter, prepared, reporter.telling()))


def _cache(kept: extract.Kept, reporter: Reporter) -> PlanCache | None:
    """The user's cache, None if there can't be one."""
    try:
        return user_cache(os.environ, kept.configuration)
    except CacheError as error:
        if RUNNER_VARIABLE not in os.environ or kept.is_news(error):
            reporter.warn(error)
        return None


def _run_in_passing(request: launcher.Request, environ: Mapping[str, str], reporter: Reporter) -> int:
    """Launch with a directory in the place of a cache. The launcher goes on to use it, so we stay to remove it.

    Returns:
        As :func:`cdi_hpc.launch.launcher.run`.

    """
    with tempfile.TemporaryDirectory(prefix="cdi-hpc-") as directory:
        cache = PlanCache(directory)
        prepared = launcher.prepare(request, environ, cache.image_place(), reporter)
        pid = os.fork()
        if pid:
            return squashfs.supervise(pid)
        status = process.FAILED
        try:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            status = squashfs.leave_as(launcher.run(request, cache, environ, reporter, prepared, reporter.telling()))
        except CdiError as error:
            for line in in_short(error.problems):
                complain("error", line)
        finally:
            # Whatever happened, the parent cleans up, not this copy of it.
            sys.stderr.flush()
            os._exit(status)


def _compile_and_become(
    request: launcher.Request,
    words: tuple[str, ...],
    cache: PlanCache,
    environ: Mapping[str, str],
    reporter: Reporter,
    kept: extract.Kept | None,
) -> launcher.Prepared | None:
    """Become the native shim with a plan that is there now.

    Returns:
        If there can't be one, what has been prepared nevertheless.

    """
    program = find_runner(os.environ)
    if program is None:
        return None
    try:
        # What fetches an image shows how far it is.
        image = request.launch.invocation.image
        with progress(f"preparing the launch: {image}", wanted=reporter.level >= 0 and "://" not in image):
            key = launcher.compile_launch(request, cache, environ, reporter, since=inheritance.process_start())
    except launcher.NotKeptError as error:
        return error.prepared
    except CacheError as error:
        reporter.warn(error)
        return None
    except ChangedError as error:
        reporter.note(f"no plan was made: {error}")
        return None
    variables = {native.COMPILED_VARIABLE: key, **(kept.variables if kept else {})}
    return become(program, words, variables, name=request.launcher.typed)
