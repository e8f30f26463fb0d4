"""A plan in the words of Apptainer or Singularity.

What is staged over the image becomes a read-only layer (``--overlay``), mounts become binds, variables those that the
launcher takes from its own environment for the container. That needs no namespace of ours and goes for set-user-ID
installations as well. What no option can say is mounted in a namespace of our own before (:mod:`.own_mounts`).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cdi_hpc.backend import Dressing, Invocation, Keep, Located, Profile, StagePath, Text, Variable, Word
from cdi_hpc.backends.singularity import (
    blind,
    devices,
    environment,
    hiding,
    instances,
    layer,
    own_mounts,
    serving,
    surroundings,
)
from cdi_hpc.backends.singularity.binds import Source, Staged, bind_words, refuse_too_many
from cdi_hpc.backends.singularity.settings import Configuration, Settings, read_configuration
from cdi_hpc.container.compose import making
from cdi_hpc.container.stage import Assembly, CoverFile, PlacedMount, assemble
from cdi_hpc.container.steps import MakeFile, StageEntry
from cdi_hpc.container.tree import ContainerTree
from cdi_hpc.errors import CdiError, Problem, assert_never
from cdi_hpc.host import Host
from cdi_hpc.plan import Action, Bind, MountFilesystem, Plan, SetEnv, Symlink, Unsupported, WriteFile
from cdi_hpc.witness import Witness

#: Flags that the launcher puts on every bind.
_ALWAYS = frozenset({"nodev", "nosuid"})

#: Characters of a stage's path that an option would take for its own.
_NOT_IN_STAGE = ',:"\n\r'


def dress(
    plan: Plan,
    invocation: Invocation,
    profile: Profile,
    located: Located,
    host: Host,
    environ: Mapping[str, str],
    witness: Witness,
) -> Dressing:
    """See :meth:`cdi_hpc.backend.Backend.adapt`."""
    settings = settings_of(invocation, profile, environ, witness)
    _refuse_options(settings)
    variables, lacks = environment.variables(settings, _planned(plan))
    if located.kind == "instance":
        instances.check(settings, plan.devices, witness)
        return Dressing(_command_line(invocation, (), ""), tuple(variables), lacks=tuple(lacks))
    dresser = _Dresser(plan, settings, located, host, witness, variables=variables, lacks=lacks)
    return dresser.dress()


def settings_of(invocation: Invocation, profile: Profile, environ: Mapping[str, str], witness: Witness) -> Settings:
    """What the command line, the environment and the configuration file say."""
    settings = Settings(invocation, profile, environ, Configuration({}))
    named = settings.values("config") if settings.capability("setuid") == "no" else []
    path = os.path.abspath(named[-1]) if named else settings.capability("configuration")
    return Settings(invocation, profile, environ, read_configuration(path, witness))


def _planned(plan: Plan) -> Iterator[SetEnv]:
    return (action for action in plan.actions if isinstance(action, SetEnv))


def _refuse_options(settings: Settings) -> None:
    problems = []
    if settings.is_on("oci"):
        what = "with it, Singularity starts another runtime, which is not dressed"
        problems.append(Problem("--oci", what, "leave it out, or let Singularity do the devices: it has a --device"))
    if settings.configuration.says("user bind control") == "no":
        what = "'user bind control = no': the administrator lets no user bind anything"
        problems.append(Problem(settings.configuration.path, what, "ask the administrator"))
    if problems:
        raise CdiError(problems)


@dataclass
class _Dresser:
    plan: Plan
    settings: Settings
    located: Located
    host: Host
    witness: Witness
    variables: list[Variable]
    lacks: list[Unsupported]
    words: list[Word] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    stage: list[StageEntry] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    assembly: Assembly | None = None
    own: own_mounts.OwnMounts = field(init=False)
    namespaces: devices.Namespaces = field(init=False)

    def dress(self) -> Dressing:
        self.own = own_mounts.OwnMounts(self.located.place)
        self.namespaces = self._namespaces()
        served = (
            serving.serve(self.settings, self.located, self.own, self.host, self.witness)
            if self.namespaces == "yes"
            else None
        )
        if served:
            self._tell_of_image(served.known_as)
        in_dev = [action for action in self.plan.actions if devices.is_in_dev(action)]
        self._dev(in_dev)
        rest = [action for action in self.plan.actions if not devices.is_in_dev(action)]
        if self.located.files is None:
            self._blindly(rest)
        else:
            self._into_image(rest)
        self._refuse_fatal()
        refuse_too_many(self.settings, self.targets)
        if self.own.steps and self._is_setuid_of_a_user():
            # In a user namespace nobody is root, so its set-user-ID program would be none, and it would stop.
            self._without_setuid()
        return Dressing(
            words=_command_line(self.settings.invocation, self.words, served.image if served else _image(self.located)),
            variables=tuple(self.variables),
            steps=tuple(self.own.steps),
            place=self.located.place if self.own.steps else "",
            squashfs=served.path if served else "",
            offset=served.offset if served else 0,
            owned=served is not None and served.is_owned,
            moves=tuple(self.own.moves),
            stage=tuple(self.stage),
            lacks=tuple(lack for lack in self.lacks if not lack.fatal),
            messages=tuple(self.messages),
            assembly=self.assembly,
        )

    def _tell_of_image(self, path: str) -> None:
        """Have ``$APPTAINER_CONTAINER`` name the user's file, not the directory where we mount it."""
        told = (SetEnv(f"{prefix}_CONTAINER", path, surroundings.ORIGIN) for prefix in self.settings.prefixes)
        variables, lacks = environment.variables(self.settings, told)
        self.variables += variables
        self.lacks += lacks

    def _namespaces(self) -> devices.Namespaces:
        """What a namespace of ours costs a set-user-ID launcher is its privilege: only where nothing else does.

        With --sharens later launches join the first one's namespaces, which they can't from others of their own.
        """
        if any(map(self.settings.is_on, ("fakeroot", "sharens"))) or not own_mounts.are_possible():
            return "no"
        return "needed" if self.settings.is_setuid else "yes"

    def _refuse_fatal(self) -> None:
        fatal = [lack for lack in (*self.plan.unsupported(), *self.lacks) if lack.fatal]
        if fatal:
            raise CdiError(Problem(str(lack.origin), f"{lack.edit}: {lack.reason}") for lack in fatal)

    def _lack(self, action: Bind | MountFilesystem, reason: str, *, fatal: bool = False) -> None:
        edit = "deviceNodes" if isinstance(action, Bind) and action.kind == "device" else "mounts"
        self.lacks.append(Unsupported(f"{edit} {action.target}", reason, action.origin, fatal=fatal))

    # /dev -------------------------------------------------------------------------------------------------------

    def _dev(self, actions: Iterable[Action]) -> None:
        wanted = [action for action in actions if not isinstance(action, (SetEnv, Unsupported))]
        if not wanted:
            return
        dev = self.settings.dev
        if dev == "no":
            raise CdiError(self.settings.left_out("dev", "the container has no /dev to show a device in"))
        known = [action for action in wanted if isinstance(action, (Bind, MountFilesystem, Symlink, WriteFile))]
        hiding.refuse_in_dev(known, self.settings, self.host)
        # A small /dev shows a node by a bind already, so there is nothing to be gained by another.
        namespaces = "needed" if dev == "minimal" and self.namespaces == "yes" else self.namespaces
        self.lacks += devices.put_on_host(known, self.host, self.own, namespaces, self.witness)
        if dev == "minimal":
            for path in map(devices.place_of, known):
                if path in devices.IN_MINIMAL:
                    continue
                self._bind(path, path, read_only=False)

    # An image that can be read ------------------------------------------------------------------------------------

    def _into_image(self, actions: Iterable[Action]) -> None:
        located = self.located
        root = located.path if located.kind == "directory" and located.path else located.place
        first = surroundings.own_mounts(self.settings, self.host, ContainerTree(root, self.witness, located.files))
        assembly = self.assembly = assemble([*first, *actions], root, self.witness, located.files)
        self.messages += assembly.messages
        hiding.refuse(assembly)
        for placed in assembly.mounts:
            self._mount(assembly, placed)
        if self.settings.invocation.subcommand[:1] == ("instance",):
            instances.record(assembly.tree, self.plan.devices)
        self._lay_over(assembly)

    def _lay_over(self, assembly: Assembly) -> None:
        regions = assembly.tree.regions
        own = (regions[placed.region].target for placed in assembly.mounts if surroundings.is_own(placed.what))
        entries = layer.layer_entries(assembly.tree, own)
        if not entries:
            return
        self._refuse_layer()
        self.stage += entries
        self.words[:0] = [*self._user_overlays(), Text("--overlay"), self._staged(layer.LAYER, ":ro")]

    def _refuse_layer(self) -> None:
        settings = self.settings
        where = settings.configuration.path
        if settings.is_on("writable"):
            what = (
                f"{settings.name} lays nothing over an image that it writes to, and mount points or links are missing"
            )
            fix = "use --writable-tmpfs, or --overlay DIRECTORY to keep what is written"
            raise CdiError(Problem("--writable", what, fix))
        if settings.configuration.says("enable overlay") == "no":
            what = "'enable overlay = no': what the image lacks can't be laid over it"
            raise CdiError(Problem(where, what, "ask the administrator"))
        if self._is_setuid_of_a_user() and settings.capability("overlay-driver") == "no":
            if self.namespaces == "no":
                what = f"a set-user-ID {settings.name} takes no directory as an overlay without fuse-overlayfs"
                raise CdiError(Problem(where, what, "ask for fuse-overlayfs, or for user namespaces"))
            # Slower for a SIF, which is then mounted by squashfuse, but it has the whole view.
            self._without_setuid()

    def _is_setuid_of_a_user(self) -> bool:
        return self.settings.is_setuid and os.geteuid() != 0

    def _without_setuid(self) -> None:
        if Text("--userns") not in self.words:
            self.words.append(Text("--userns"))

    def _user_overlays(self) -> list[Word]:
        """The variable counts for nothing once the option is given: say it as an option, before ours."""
        if self.settings.given("overlay"):
            return []
        values = list(self.settings.from_environment("overlay"))[:1]
        return [word for value in values for word in (Text("--overlay"), Text(value))]

    def _staged(self, path: str, suffix: str = "") -> StagePath:
        self._refuse_stage_path()
        return StagePath("", path, suffix)

    def _refuse_stage_path(self) -> None:
        directory = posixpath.dirname(self.located.place)
        if any(character in directory for character in _NOT_IN_STAGE):
            what = f"plans are kept there, and {self.settings.name} can't be told such a path"
            raise CdiError(Problem(directory, what, "set XDG_RUNTIME_DIR or TMPDIR to a plainer one"))

    # Mounts -------------------------------------------------------------------------------------------------------

    def _mount(self, assembly: Assembly, placed: PlacedMount) -> None:
        what, number = placed.what, placed.region
        target = assembly.tree.regions[number].target
        if surroundings.is_own(what):
            self._check_surroundings(assembly, number)
            if surroundings.is_working_directory(what) and isinstance(what, Bind):
                self._mount_before(what, target, _targets_of_plan(assembly))
        elif isinstance(what, CoverFile):
            self._bind(self._stage_file(what), target, read_only=True)
        elif isinstance(what, Bind):
            self._bind_host(assembly, number, what, target)
        elif isinstance(what, MountFilesystem):
            self._mount_new(assembly, number, what, target)
        else:
            assert_never(what)

    def _mount_before(self, directory: Bind, target: str, others: Iterable[str]) -> None:
        """Have the working directory mounted before the plan's mounts, where the launcher would cover those with it."""
        listed = list(others)
        is_covered = any(_is_within(target, other) for other in listed)
        if not is_covered and not any(_is_within(other, target) for other in listed):
            return
        # The option takes the place of the variable for it.
        without = [] if self.settings.given("no-mount") else self.settings.values("no-mount")
        self.words += (Text("--no-mount"), Text(",".join([*without, "cwd"])))
        if not is_covered:  # the launcher mounts what is above first, whatever the order of the options
            self._bind(directory.source, target, read_only=False)

    def _check_surroundings(self, assembly: Assembly, number: int) -> None:
        """In its own directories the launcher makes mount points, and nobody anything else."""
        region = assembly.tree.regions[number]
        missing = list(assembly.tree.staged_in(number)) if region.source is not None else []
        missing = missing or list(layer.staged_paths(assembly.tree, number))
        if missing:
            what = f"not there, and {self.settings.name} mounts {region.target} itself"
            fix = f"make it first, or keep {region.target} out of the container"
            raise CdiError(Problem(path, what, fix) for path in missing)

    def _stage_file(self, cover: CoverFile) -> Staged:
        return self._stage_new(MakeFile("", cover.content, cover.mode))

    def _stage_new(self, entry: MakeFile) -> Staged:
        path = f"file-{len(self.stage)}"
        self.stage.append(MakeFile(path, entry.content, entry.mode))
        return Staged(path)

    def _bind(self, source: Source, target: str, *, read_only: bool) -> None:
        if isinstance(source, Staged):
            self._refuse_stage_path()
        self.words += bind_words(self.settings, source, target, read_only=read_only)
        self.targets.append(target)

    def _bind_host(self, assembly: Assembly, number: int, action: Bind, target: str) -> None:
        if action.kind == "device":
            reason = f"{self.settings.name} mounts everything outside /dev with nodev: it could not be opened"
            self._lack(action, reason, fatal=True)
            return
        if action.propagation.lstrip("r") in ("shared", "unbindable"):
            self._lack(action, f"{self.settings.name} decides on propagation, not {action.propagation!r}")
        read_only = "ro" in action.flags
        if assembly.tree.staged_in(number):
            self._underlay(assembly, number, action, target)
            return
        unsaid = {*action.flags} - {*action.kept} - _ALWAYS - {"ro"}
        if unsaid and self.namespaces != "no":
            self._bind(self.own.on_host(self.own.bind(action)), target, read_only=read_only)
            return
        if unsaid:
            self._lack(action, f"{self.settings.name} has no word for {', '.join(sorted(unsaid))}: left out")
        self._bind(action.source, target, read_only=read_only)

    def _underlay(self, assembly: Assembly, number: int, action: Bind, target: str) -> None:
        top = f"directory-{len(self.stage)}"
        made = layer.underlay(assembly, number, action, top)
        self.stage += made.stage
        self._bind(Staged(top), target, read_only=True)
        covered = {assembly.tree.regions[placed.region].target for placed in assembly.mounts if placed.region != number}
        for source, path in made.binds:
            if path not in covered:
                self._bind(source, path, read_only="ro" in action.flags)

    def _mount_new(self, assembly: Assembly, number: int, action: MountFilesystem, target: str) -> None:
        if self.namespaces == "no":
            reason = f"{self.settings.name} has no word for a new {action.fstype}, and user namespaces are refused here"
            self._lack(action, f"{reason} or do not go with --fakeroot or --sharens", fatal=True)
            return
        if any(layer.staged_paths(assembly.tree, number)):
            self._lack(action, "another edit makes a file or link in it, which can't be done from outside", fatal=True)
            return
        name = self.own.mount(action)
        for path, what in assembly.tree.staged_in(number).items():
            self.own.steps.append(making(f"root{name}{path[len(target) :]}", what))
        self._bind(self.own.on_host(name), target, read_only="ro" in action.flags)

    # An image that can't be read --------------------------------------------------------------------------------

    def _blindly(self, actions: Iterable[Action]) -> None:
        made = blind.place(actions, self.settings)
        hiding.refuse_blindly(made.binds, self.settings, self.host)
        targets = [target for _, target, _ in made.binds]
        for directory in surroundings.working_directory(self.settings, self.host):
            self._mount_before(directory, directory.target, targets)
        self.messages.append(f"image {self.located.path}: {self.located.reason}; {blind.CONSEQUENCE}")
        self.lacks += made.lacks
        self.variables += made.variables
        self.stage += made.stage
        for source, target, read_only in made.binds:
            self._bind(source, target, read_only=read_only)


def _targets_of_plan(assembly: Assembly) -> Iterator[str]:
    regions = assembly.tree.regions
    return (regions[placed.region].target for placed in assembly.mounts if not surroundings.is_own(placed.what))


def _is_within(path: str, top: str) -> bool:
    return f"{path}/".startswith(f"{top}/")


def _image(located: Located) -> str:
    """The image argument where it is not the user's: what was fetched."""
    return located.path or "" if located.kind == "reference" else ""


def _command_line(invocation: Invocation, added: Iterable[Word], image: str) -> tuple[Word, ...]:
    """The user's words without ours, what is added as the last options, and the image, another one if it is named."""
    ours = {
        index
        for given in invocation.given
        if given.option.use in ("device", "cdi-dirs", "switch")
        for index in range(given.index, given.index + given.count)
    }
    before = [Keep(index) for index in range(invocation.image_index) if index not in ours]
    # "--" was there, or it would have been taken for an option.
    end = (Text("--"),) if invocation.image.startswith("-") else ()
    return (*before, *added, *end, Text(image) if image else Keep(invocation.image_index))
