"""A launch through a launcher that somebody else made, from its command line to its exec.

The native shim does the same from a compiled plan (``native/shim.c``). What is done here is what has to be found out
first, and everything where that program is not installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from cdi_hpc import planning
from cdi_hpc.backend import Backend, BegunWithoutError, Dressing, Given, Keep, Located, Peers, StagePath, Text, Word
from cdi_hpc.compiled import wire
from cdi_hpc.compiled.cache_key import Caller, LauncherLaunch, cache_key
from cdi_hpc.compiled.compile import compile_dressing, origins
from cdi_hpc.compiled.plan_cache import PlanCache
from cdi_hpc.config import Configuration, LauncherDefaults
from cdi_hpc.container import preflight
from cdi_hpc.errors import CdiError, Problem, assert_never
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import native, peers, placing, process
from cdi_hpc.launch.profile import Launcher
from cdi_hpc.plan import Plan, Unsupported
from cdi_hpc.planning import Wanted, asked_for, is_this_jobs_alone, judged, load_configuration, plan_devices
from cdi_hpc.resolve.lookup import Report, read_registry
from cdi_hpc.spec.names import parse_qualified
from cdi_hpc.spec.request import PREFLIGHT_VARIABLE
from cdi_hpc.witness import Recorder, Witness

if TYPE_CHECKING:
    from cdi_hpc.container.stage import Assembly
    from cdi_hpc.launch.telling import Telling


@dataclass(frozen=True)
class Request:
    """A launch through a launcher, with who knows how.

    Attributes:
        launcher: where it is.
        launch: what is asked of it.

    """

    backend: Backend
    launcher: Launcher
    launch: LauncherLaunch


@dataclass(frozen=True)
class Prepared:
    """What a launch does.

    Attributes:
        plan: what the devices ask for.
        dressing: the same in the launcher's words.

    """

    plan: Plan
    located: Located
    dressing: Dressing


class NotKeptError(Exception):
    """A launch is prepared, and nothing of it can be kept: its image was fetched for it alone."""

    def __init__(self, prepared: Prepared) -> None:
        """Hand on what has been prepared."""
        super().__init__()
        self.prepared = prepared


def compile_launch(
    request: Request,
    cache: PlanCache,
    environ: Mapping[str, str],
    report: Report,
    *,
    since: float | None = None,
    everybody: bool = False,
) -> str:
    """Compile a launch into a cache, unless somebody else has done so meanwhile; returns its key.

    Arguments and errors are those of :func:`cdi_hpc.launch.native.compile_launch`.

    Raises:
        NotKeptError: there is nothing to compile.

    """
    caller = None if everybody else Caller.present()
    key = cache_key(request.launch, caller, process.working_directory(), environ)
    with cache.compiling(key, time.time() if since is None else since) as done:
        if not done:
            translate_once = partial(_records, request, environ, cache.image_place(), report, everybody=everybody)
            records, dressing = native.settled(translate_once, report)
            compiled = compile_dressing(dressing, request.launch.profile.program)
            owner = (caller.uid, caller.gid) if caller else (0, 0)
            cache.write(key, owner, [*records, *native.told(compiled), *compiled.records], compiled.stage)
            cache.collect_if_due(partial(planning.cache_bounds, environ, everybody=everybody))
    return key


def _records(
    request: Request,
    environ: Mapping[str, str],
    image_place: str,
    report: Report,
    messages: native.Messages,
    *,
    everybody: bool,
) -> tuple[list[wire.Record], Dressing]:
    recorder = Recorder()
    configuration = load_configuration(environ, recorder, everybody=everybody)
    prepared = prepare(
        request, environ, image_place, messages, recorder, configuration=configuration, everybody=everybody
    )
    if prepared.located.kind == "reference" or is_this_jobs_alone(configuration):
        messages.repeat(report)
        raise NotKeptError(prepared)
    return [*origins(recorder.states()), *messages.records], prepared.dressing


def prepare(
    request: Request,
    environ: Mapping[str, str],
    image_place: str,
    report: Report,
    witness: Witness | None = None,
    *,
    configuration: Configuration | None = None,
    everybody: bool = False,
) -> Prepared:
    """Translate a request, and say it in the launcher's words. Nothing is changed on the host.

    Args:
        request: what is asked for.
        environ: the environment.
        image_place: where a SquashFS file would be mounted.
        report: is told what a launch tells its user.
        witness: is told of everything that is looked at.
        configuration: if it has been read already.
        everybody: the plan is for all users.

    Raises:
        CdiError: the launch can't be done; the launcher is not to be started.

    """
    witness = witness or Witness()
    profile, invocation = request.launch.profile, request.launch.invocation
    witness.saw(profile.program, "content")
    host = LiveHost(witness)
    if configuration is None:
        configuration = load_configuration(environ, witness, everybody=everybody)
    wanted = _wanted(request, environ, witness, configuration)._replace(everybody=everybody)
    planned = plan_devices(wanted, environ, host, report, witness=witness, configuration=configuration)
    plan, defaults = planned.plan, planned.defaults
    _refuse_fatal(plan.unsupported())
    if not asked_for(wanted.devices, defaults):
        return Prepared(plan, Located(None, "other"), _as_typed(request))
    located = _located(request, environ, image_place)
    if located.path is not None:
        witness.saw(located.path, "node" if located.kind == "directory" else "content")
    if plan.runs_hooks():
        from cdi_hpc.launch import hook_runs

        circumstances = hook_runs.Circumstances(host, configuration, defaults, report, witness, everybody)
        plan = hook_runs.run_hooks(plan, hook_runs.target_of(located), circumstances)
        _refuse_fatal(plan.unsupported())
    try:
        dressing = request.backend.adapt(plan, invocation, profile, located, host, environ, witness)
    except BegunWithoutError:
        if request.launch.by_default:
            return Prepared(plan, located, _as_typed(request))
        raise
    if dressing.assembly is not None:
        planning.enforce_in_image(configuration.policy, plan, dressing.assembly.covered, everybody=everybody)
    dressing = replace(dressing, lacks=judged(dressing.lacks, defaults.unsupported))
    _refuse_fatal(iter(dressing.lacks))
    native.say_about(plan, dressing.messages, report)
    for lack in dressing.lacks:
        report.warn(f"{lack.origin}: {lack.edit}: {lack.reason}")
    if dressing.assembly is not None:
        _check_libraries(dressing.assembly, environ, defaults, report)
    return Prepared(plan, located, dressing)


def _check_libraries(
    assembly: Assembly, environ: Mapping[str, str], defaults: LauncherDefaults, report: Report
) -> None:
    strictness = preflight.wanted(environ, defaults.preflight or "fail")
    for misfit in preflight.enforce(assembly, strictness, f"{PREFLIGHT_VARIABLE}=warn"):
        report.warn(misfit)


def _located(request: Request, environ: Mapping[str, str], image_place: str) -> Located:
    """Where the image is (CdiError: there is none, and perhaps a device was taken for it)."""
    invocation = request.launch.invocation
    try:
        return request.backend.locate(invocation, request.launch.profile, environ, image_place)
    except CdiError as error:
        names = [each.option.names[-1] for each in invocation.given if _lacks_device(each)]
        if not names or isinstance(parse_qualified(invocation.image), str) or len(error.problems) > 1:
            raise
        fix = f"a device is joined to its option: write {names[-1]}={invocation.image}"
        raise CdiError(replace(error.problems[0], fix=fix)) from None


def _lacks_device(given: Given) -> bool:
    return given.option.use == "device" and given.value is None


def _as_typed(request: Request) -> Dressing:
    """The launcher with its own words: no device is wanted."""
    invocation = request.launch.invocation
    ours = {
        index
        for given in invocation.given
        if given.option.use in ("device", "cdi-dirs", "switch")
        for index in range(given.index, given.index + given.count)
    }
    words: list[Word] = [Keep(index) for index in range(invocation.image_index) if index not in ours]
    if request.launch.profile.style == "getopt" or invocation.image.startswith("-"):
        words.append(Text("--"))
    return Dressing(words=(*words, Keep(invocation.image_index)))


def _refuse_fatal(lacks: Iterator[Unsupported]) -> None:
    fatal = [Problem(str(lack.origin), f"{lack.edit}: {lack.reason}") for lack in lacks if lack.fatal]
    if fatal:
        raise CdiError(fatal)


def _wanted(request: Request, environ: Mapping[str, str], witness: Witness, configuration: Configuration) -> Wanted:
    directories = request.launch.directories(environ)
    devices = _named(request.launch.devices, directories, environ, witness, configuration)
    return Wanted(request.backend.name, tuple(devices), directories)


def _named(
    devices: Sequence[str],
    directories: Sequence[str],
    environ: Mapping[str, str],
    witness: Witness,
    configuration: Configuration,
) -> Iterator[str]:
    """Devices with every known kind in the place of "" (CdiError: there is none)."""
    for device in devices:
        if device:
            yield device
            continue
        registry = read_registry(directories, environ, witness=witness, configuration=configuration)
        if not registry.kinds():
            where = ", ".join(repr(directory.path) for directory in registry.directories)
            fix = "'cdi-hpc list' shows what there is; name a spec's directory with --cdi-dirs"
            raise CdiError(Problem("all kinds of devices", f"there are no usable CDI specs in {where}", fix))
        yield from registry.kinds()


# Becoming the launcher ------------------------------------------------------------------------------------------------


def run(
    request: Request,
    cache: PlanCache,
    environ: Mapping[str, str],
    report: Report,
    prepared: Prepared | None = None,
    telling: Telling | None = None,
) -> int:
    """Launch without the native runner: become the launcher, or wait for it where its image has to be served.

    Args:
        request: what is asked for.
        cache: where the stage is put.
        environ: the environment.
        report: is told what a launch tells its user.
        prepared: what is done, if that is known already.
        telling: is told of each step.

    Returns:
        Exit status, or the negative number of the signal that ended it (:func:`squashfs.leave_as`).

    Raises:
        CdiError: the launch can't be done; the launcher was not started.

    """
    prepared = prepared or prepare(request, environ, cache.image_place(), report)
    dressing = prepared.dressing
    stage = ""
    if dressing.stage:
        key = cache_key(request.launch, Caller.present(), process.working_directory(), environ)
        stage = cache.make_stage(key, dressing.stage)
    argv = [request.launcher.argv0, *(_text(word, request, stage) for word in dressing.words)]
    argv += request.launch.invocation.command
    env = launcher_environment(dressing, environ)
    if dressing.steps and dressing.peers and not _is_first(dressing.peers, dressing.squashfs, env):
        dressing = replace(dressing, steps=(), squashfs="", moves=())
    if telling is not None:
        planned = (v for v in dressing.variables if not (v.default and v.name in environ))
        telling.begin(dressing.steps, dressing.stage, (f"{each.name}={each.value}" for each in planned))
    return placing.become_launcher(request.launch.profile.program, argv, env, dressing, telling)


def _is_first(which: Peers, served: str, environ: Mapping[str, str]) -> bool:
    """Whether this launch makes the container that several share."""
    if served and which.variable and which.variable not in environ:
        # We stay while the file is served, so the launcher's parent would be another than that of the others.
        what = f"launches that share a container of it can't be told from others without {which.variable}"
        raise CdiError(Problem(f"image {served}", what, "set it to something that they have in common"))
    return peers.is_first(which, peers.path_of(which, environ, os.getppid()))


def _text(word: Word, request: Request, stage: str) -> str:
    if isinstance(word, Text):
        return word.text
    if isinstance(word, Keep):
        return request.launch.invocation.words[word.index]
    if isinstance(word, StagePath):
        return f"{word.prefix}{stage}/{word.path}{word.suffix}"
    return assert_never(word)


def launcher_environment(dressing: Dressing, environ: Mapping[str, str]) -> dict[str, str]:
    """A launcher's environment: the caller's with the dressing's variables."""
    result = dict(environ)
    for variable in dressing.variables:
        if not (variable.default and variable.name in environ):
            result[variable.name] = variable.value
    return result


def become_bare(launcher: Launcher, words: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Become the launcher with these words, and nothing of ours."""
    placing.become_launcher(launcher.path, [launcher.argv0, *words], environ, Dressing(words=()))
    sys.exit(process.FAILED)  # not reached: without steps it becomes the launcher or exits


def show_help(launcher: Launcher, words: Sequence[str], environ: Mapping[str, str], ours: str) -> int:
    """Show the launcher's help and then ours; returns the launcher's exit status."""
    sys.stdout.flush()
    done = subprocess.run(
        [launcher.argv0, *words],
        executable=launcher.path,
        env=environ,
        check=False,
    )
    if done.returncode == 0:
        sys.stdout.write(f"\n{ours}" if ours else "")
        sys.stdout.flush()
    return done.returncode
