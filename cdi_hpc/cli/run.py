"""``cdi-hpc run``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Callable

import click

from cdi_hpc.cli import RUNNER, RUNNER_VARIABLE, become, find_runner
from cdi_hpc.cli.options import Reporter
from cdi_hpc.cli.progress import progress
from cdi_hpc.compiled import extract
from cdi_hpc.compiled.cache_key import Launch
from cdi_hpc.compiled.cache_place import CacheError
from cdi_hpc.compiled.plan_cache import user_cache
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import embedded, inheritance, native, squashfs
from cdi_hpc.launch.image import OpenImage, open_image
from cdi_hpc.launch.launcher_options import DEVICES_VARIABLE
from cdi_hpc.plan import Plan
from cdi_hpc.planning import Planned, enforce_in_image, plan_devices
from cdi_hpc.witness import ChangedError, Witness


def run(
    devices: tuple[str, ...],
    cdi_dirs: tuple[str, ...],
    strict: bool,
    unknown_hooks: Any,
    preflight: Any,
    visible: tuple[str, ...],
    image: str,
    arguments: tuple[str, ...],
    verbose: int,
    quiet: int,
    runner: str,
    compile_and_run: bool,
    **options: Any,
) -> int:
    """Launch as the command line (:mod:`cdi_hpc.cli.run_command`) says; returns an exit status if that is all."""
    reporter = Reporter(verbose + quiet)
    words = arguments[1:] if arguments[0] == "--" else arguments
    if not words:
        raise click.UsageError("Missing argument 'COMMAND'.")
    run_options = embedded.RunOptions(**options)
    wanted = os.environ.get(DEVICES_VARIABLE, "")
    launch = Launch(
        image=image,
        devices=devices or ((wanted,) if wanted else ()),
        cdi_dirs=cdi_dirs,
        binds=run_options.binds,
        writable_tmpfs=run_options.writable_tmpfs,
        contain=run_options.contain,
        stage=run_options.stage,
        strict=strict,
        unknown_hooks=unknown_hooks,
        preflight=preflight,
    )
    native_words = _native_words(launch, run_options, reporter.level, words)
    if visible:
        # What its indices mean depends on the job: there is nothing to keep, and the native runner has no such option.
        return _run(launch, words, run_options, reporter, visible)
    if compile_and_run:
        _compile_and_become(launch, native_words, reporter)
    elif runner == "native" or (runner == "auto" and RUNNER_VARIABLE not in os.environ):
        _become_native(runner, native_words)
    return _run(launch, words, run_options, reporter)


def _native_words(launch: Launch, options: embedded.RunOptions, level: int, command: Sequence[str]) -> list[str]:
    """The command line for the native runner. It knows no ``--runner``, and any word may look like one: made anew."""
    values = (
        *(("--device", device) for device in launch.devices),
        *(("--cdi-dir", directory) for directory in launch.cdi_dirs),
        *(("--bind", bind) for bind in launch.binds),
        *(("--env", variable) for variable in options.env),
        *([("--workdir", options.workdir)] if options.workdir is not None else []),
        ("--stage", launch.stage),
        ("--unknown-hooks", launch.unknown_hooks),
        ("--preflight", launch.preflight),
    )
    switches = (
        (launch.writable_tmpfs, "--writable-tmpfs"),
        (launch.contain, "--contain"),
        (launch.strict, "--strict"),
    )
    words = [word for pair in values for word in pair] + [word for given, word in switches if given]
    words += ["-v"] * level + ["-q"] * -level
    return [*words, "--", launch.image, "--", *command]


def _become_native(runner: str, words: Sequence[str]) -> None:
    """Become the native runner, if it is installed; it has to be if it was asked for by name."""
    program = find_runner(os.environ)
    if program is None and runner == "native":
        raise CdiError(Problem("--runner=native", f"{RUNNER} is not installed", "leave the option out"))
    if program is not None:
        become(program, words)


def _compile_and_become(launch: Launch, words: Sequence[str], reporter: Reporter) -> None:
    """Become the native runner with a plan that is there now. Returns if there can't be one."""
    program = find_runner(os.environ)
    if program is None:
        return
    real = replace(launch, image=os.path.realpath(launch.image))
    kept = extract.keep(os.environ)
    if kept.lost is not None:
        reporter.warn(kept.lost)
    try:
        cache = user_cache(os.environ, kept.configuration)
        with progress(f"preparing the launch: {launch.image}", wanted=reporter.level >= 0):
            key = native.compile_launch(real, cache, os.environ, reporter, since=inheritance.process_start())
    except CacheError as error:
        if kept.is_news(error):
            reporter.warn(error)
        return
    except (ChangedError, native.UnreadableImageError, native.JobsOwnPlanError) as error:
        reporter.note(f"no plan was made: {error}")
        return
    become(program, words, {native.COMPILED_VARIABLE: key, **kept.variables})


def _hooks_of(planned: Planned, host: LiveHost, reporter: Reporter) -> Callable[[Plan, OpenImage], Plan]:
    """What has the hooks of a plan run for an image that is open."""
    if not planned.plan.runs_hooks():
        return lambda plan, _: plan
    from cdi_hpc.launch import hook_runs

    circumstances = hook_runs.Circumstances(host, planned.configuration, planned.defaults, reporter, Witness())
    return lambda plan, opened: hook_runs.run_hooks(plan, hook_runs.target_in_use(opened), circumstances)


def _run(
    launch: Launch,
    words: Sequence[str],
    run_options: embedded.RunOptions,
    reporter: Reporter,
    visible: tuple[str, ...] = (),
) -> int:
    """Launch without the native runner."""
    host = LiveHost()
    planned = plan_devices(native.wanted(launch)._replace(visible=visible), os.environ, host, reporter)
    plan, launch = planned.plan, native.configured(launch, planned)
    stage = run_options.stage if run_options.stage != "auto" else planned.defaults.stage
    run_options = replace(run_options, binds=launch.binds, stage=stage)
    run_hooks = _hooks_of(planned, host, reporter)  # who runs them is asked now: the image may need namespaces
    with open_image(launch.image) as opened:
        plan = run_hooks(plan, opened)
        with progress(f"looking into {launch.image}", wanted=reporter.level >= 0):
            assembly = embedded.prepare(plan, opened.directory, host, run_options, files=opened.files)
        enforce_in_image(planned.configuration.policy, plan, assembly.covered)
        native.say_about(plan, assembly.messages, reporter)
        native.check_libraries(assembly, launch, reporter)
        status = embedded.run(plan, assembly, words, run_options, image=opened, telling=reporter.telling())
    return squashfs.leave_as(status)
