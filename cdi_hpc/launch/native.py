"""A launch compiled for the native runner: everything that ``cdi-hpc run`` does before its first mount, kept."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Callable, TypeVar

from cdi_hpc import planning
from cdi_hpc.compiled import wire
from cdi_hpc.compiled.cache_key import Caller, Launch, cache_key
from cdi_hpc.compiled.compile import Compiled, compile_steps, origins
from cdi_hpc.compiled.plan_cache import PlanCache, Seal
from cdi_hpc.config import Configuration, Strictness
from cdi_hpc.container import preflight
from cdi_hpc.container.compose import Composition, compose
from cdi_hpc.container.stage import Assembly, covered_on_host
from cdi_hpc.container.steps import Step
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import embedded, handoff, process, runner, telling
from cdi_hpc.launch.handoff import HandOver
from cdi_hpc.launch.image import Image, read_image
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.plan import Note, Plan, SetEnv
from cdi_hpc.planning import Planned, Wanted, is_this_jobs_alone, load_configuration, plan_devices
from cdi_hpc.resolve.lookup import Report, read_registry
from cdi_hpc.resolve.step_devices import read_grant, step_devices
from cdi_hpc.site import allocation
from cdi_hpc.witness import ChangedError, Recorder, Witness

T = TypeVar("T")


class UnreadableImageError(CdiError):
    """The image is a file that can only be read once it is mounted: there is no plan for it."""


class JobsOwnPlanError(CdiError):
    """The plan is for this job alone: with the next one's device cgroup it would be another."""


#: Set by us for the runner: the key that was compiled, so that a plan which can't be used is not compiled again and
#: again.
COMPILED_VARIABLE = "CDI_HPC_COMPILED"

#: How often a compilation begins anew because a file changed under it.
_TRIES = 5


@dataclass
class Messages:
    """What a launch has to say, kept for every later one."""

    records: list[wire.Warn | wire.Note] = field(default_factory=list)

    def warn(self, text: object) -> None:
        """Something that the user should know."""
        self.records.append(wire.Warn(str(text)))

    def note(self, text: object) -> None:
        """Something for the curious."""
        self.records.append(wire.Note(str(text)))

    def repeat(self, report: Report) -> None:
        """Say it now."""
        for record in self.records:
            if isinstance(record, wire.Warn):
                report.warn(record.text)
            elif isinstance(record, wire.Note):
                report.note(record.text)


def compile_launch(
    launch: Launch,
    cache: PlanCache,
    environ: Mapping[str, str],
    report: Report,
    *,
    since: float | None = None,
    everybody: bool = False,
    hand_over: HandOver | None = None,
    seal: Seal | None = None,
    anew: bool = False,
) -> str:
    """Compile a launch into a cache, unless somebody else has done so meanwhile.

    Args:
        launch: what is to be launched.
        cache: the user's, or with ``everybody`` the system's.
        environ: the environment.
        report: is told what there is to say about a launch that can't be done. The others say it themselves.
        since: when the launch began, seconds since the epoch; default: now.
        everybody: the plan is root's and for every user.
        hand_over: says a plan in variables; a launch for ``handoff`` takes one.
        seal: is told the SHA-256 of the plan, if it is written here.
        anew: also if somebody else has.

    Returns:
        The launch's key.

    Raises:
        CdiError: the launch can't be done, for the same reasons as without a cache.
        CacheError: the plan can't be kept.
        ChangedError: what it is made from changes all the time.
        UnreadableImageError: the image has to be mounted before it can be read.
        JobsOwnPlanError: the plan is not to be kept.

    """
    caller = None if everybody else Caller.present()
    owner = (caller.uid, caller.gid) if caller else (0, 0)
    key = cache_key(launch, caller, process.working_directory(), environ)
    with cache.compiling(key, time.time() if since is None else since) as done:
        if anew or not done:
            place = cache.image_place() if os.path.isfile(launch.image) else ""
            records, steps = settled(
                partial(_translate, launch, environ, place, everybody=everybody, hand_over=hand_over), report
            )
            compiled = compile_steps(steps)
            cache.write(key, owner, [*records, *told(compiled), *compiled.records], compiled.stage, seal)
            cache.collect_if_due(partial(planning.cache_bounds, environ, everybody=everybody))
    return key


def told(compiled: Compiled) -> Iterator[wire.Note]:
    """What the stage holds, for launches with ``-v``: they only see that it is laid over the image."""
    return map(wire.Note, telling.staged(compiled))


def settled(translate_once: Callable[[Messages], T], report: Report) -> T:
    """What a translation gives when nothing changes under it; it is done again if something does.

    Args:
        translate_once: is given somebody to tell what there is to say, and raises ChangedError.
        report: is told it if there is no result.

    Raises:
        ChangedError: what it is made from changes all the time.

    """
    for number in range(_TRIES):
        messages = Messages()
        try:
            return translate_once(messages)
        except ChangedError:
            if number == _TRIES - 1:
                raise
        except CdiError:
            messages.repeat(report)
            raise
    raise AssertionError("unreachable")


def _translate(
    launch: Launch,
    environ: Mapping[str, str],
    place: str,
    messages: Messages,
    *,
    everybody: bool,
    hand_over: HandOver | None,
) -> tuple[list[wire.Record], Sequence[Step]]:
    recorder = Recorder()
    host = LiveHost(recorder)
    launch, configuration = _as_given(launch, environ, host, recorder, everybody=everybody)
    asked = wanted(launch, everybody=everybody)
    if hand_over is not None:
        planned = plan_devices(asked, environ, host, messages, witness=recorder, configuration=configuration)
        rules = planned.configuration.policy
        if rules is not None:  # the image is known to the launcher alone: as the machine itself has the paths
            planning.enforce_in_image(rules, planned.plan, covered_on_host(planned.plan.actions), everybody=everybody)
        records = handoff.records(launch, planned.plan, hand_over(planned.plan.actions), environ, messages)
        return [*origins(recorder.states()), *messages.records, *records], handoff.STEPS
    image = _read_image(launch.image, place, recorder, messages)
    planned = plan_devices(asked, environ, host, messages, witness=recorder, configuration=configuration)
    if is_this_jobs_alone(planned.configuration):
        what = "what can be opened is known only in the job: 'all-means: openable' is configured"
        raise JobsOwnPlanError(Problem("compiled plan", what))
    plan, launch = (
        _with_hooks(planned, image, host, recorder, messages, everybody=everybody),
        configured(launch, planned),
    )
    options = embedded.RunOptions(
        binds=launch.binds,
        writable_tmpfs=launch.writable_tmpfs,
        contain=launch.contain,
        everybody=everybody,
    )
    files = image.files if image.mountable else None  # a directory is read as the recorder wants it
    assembly = embedded.prepare(plan, image.place, host, options, recorder, files)
    planning.enforce_in_image(planned.configuration.policy, plan, assembly.covered, everybody=everybody)
    say_about(plan, assembly.messages, messages)
    check_libraries(assembly, launch, messages)
    steps = _composed(launch, assembly, options)
    env = [wire.Env(f"{action.name}={action.value}") for action in plan.actions if isinstance(action, SetEnv)]
    served = [wire.Squashfs(image.path, image.place, image.offset)] if image.mountable else []
    return [*origins(recorder.states()), *messages.records, *env, *served], steps


def _with_hooks(
    planned: Planned, image: Image, host: LiveHost, witness: Witness, report: Report, *, everybody: bool
) -> Plan:
    """The plan with what the site's hooks wrote. Most sites have none run, and don't wait for what would run them."""
    if not planned.plan.runs_hooks():
        return planned.plan
    from cdi_hpc.launch import hook_runs

    target = hook_runs.Target(image.path, image.place, image.files, image.offset if image.mountable else None)
    return hook_runs.run_hooks(
        planned.plan,
        target,
        hook_runs.Circumstances(host, planned.configuration, planned.defaults, report, witness, everybody),
    )


def _as_given(
    launch: Launch, environ: Mapping[str, str], host: LiveHost, witness: Witness, *, everybody: bool
) -> tuple[Launch, Configuration]:
    """A launch in a step of Slurm's asks for the devices that the step was given; any other for what it says."""
    configuration = load_configuration(environ, witness, everybody=everybody)
    if not launch.gres:
        return launch, configuration
    registry = read_registry(
        launch.cdi_dirs, environ, strict=launch.strict, witness=witness, configuration=configuration
    )
    grant = read_grant(launch.gres, _gpu_uuids(host))
    devices = step_devices(launch.devices, grant, configuration, registry, host)
    # What is meant by a kind is decided: nobody has to ask the device cgroup again, which is not the job's yet.
    return replace(launch, devices=devices), configuration._replace(all_means="every")


def _gpu_uuids(host: LiveHost) -> dict[int, str]:
    """Of NVIDIA's GPUs, by their minor numbers; none where there is no driver of theirs."""
    files = sorted(glob.glob(f"{allocation.GPU_DIRECTORY}/*/information"))
    return allocation.gpu_uuids([host.read(path) or b"" for path in files])


def wanted(launch: Launch, *, everybody: bool = False) -> Wanted:
    """What a launch asks for."""
    unknown_hooks: Strictness = "fail" if launch.unknown_hooks == "fail" else "warn"
    return Wanted("embedded", launch.devices, launch.cdi_dirs, launch.strict, unknown_hooks, everybody)


def configured(launch: Launch, planned: Planned) -> Launch:
    """A launch with what the configuration says where the command line does not."""
    defaults = planned.defaults
    return replace(
        launch,
        binds=(*defaults.binds, *launch.binds),
        stage=defaults.stage if launch.stage == "auto" else launch.stage,
        preflight=(defaults.preflight or "fail") if launch.preflight == "auto" else launch.preflight,
    )


def _read_image(path: str, place: str, witness: Witness, report: Report) -> Image:
    if place:
        witness.saw(os.path.realpath(path), "content")  # before it is read: it may be exchanged meanwhile
    image = read_image(path, place)
    if image.files is None:
        raise UnreadableImageError(Problem(f"image {path}", image.reason, image.fix))
    for note in image.notes:
        report.note(note)
    return image


def _composed(launch: Launch, assembly: Assembly, options: embedded.RunOptions) -> Sequence[Step]:
    """Steps by overlay where the kernel takes it: found out here, since a plan for nothing would be made every time."""
    points = mount_points()
    if launch.stage != "underlay":
        steps = compose(assembly, Composition("overlay", points, writable=launch.writable_tmpfs))
        if launch.stage == "overlay" or not runner.overlay_is_refused(steps):
            return steps
    embedded.check_mode("underlay", options)
    return compose(assembly, Composition("underlay", points, writable=launch.writable_tmpfs))


def say_about(plan: Plan, messages: Sequence[str], report: Report) -> None:
    """What a launch of this plan tells its user."""
    for action in plan.actions:
        if isinstance(action, Note):
            report.note(f"{action.origin}: {action.edit}: {action.reason}")
    for lack in plan.unsupported():
        report.warn(f"{lack.origin}: {lack.edit}: {lack.reason}")
    for message in messages:
        report.note(message)


def check_libraries(assembly: Assembly, launch: Launch, report: Report) -> None:
    """Hold the injected libraries against the image (CdiError: they can't work there, and the launch has to say so)."""
    strictness = "fail" if launch.preflight == "auto" else launch.preflight
    for misfit in preflight.enforce(assembly, strictness, "--preflight=warn"):
        report.warn(misfit)
