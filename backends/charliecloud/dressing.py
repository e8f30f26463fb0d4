"""A plan for an invocation of ch-run.

ch-run is executed in a mount namespace of ours. The image with the plan's mounts lies over the image's own path there,
so ch-run finds it where the user said. It binds some of the host over the image itself, /dev above all; what the plan
has there is made in our tree and moved to the host's path, in our namespace, for ch-run to bind.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cdi_hpc.backend import Dressing, Invocation, Located, Peers, Profile, Text, Variable, Word
from cdi_hpc.backends.charliecloud import environment, images, words
from cdi_hpc.backends.charliecloud.wishes import Wishes
from cdi_hpc.container.compose import UNDERLAY, Composition, compose
from cdi_hpc.container.stage import Assembly, PlacedMount, assemble
from cdi_hpc.container.steps import ROOT, MountNew, Step
from cdi_hpc.container.tree import ContainerTree, StagedFile
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.launch import host_dev, peers, runner
from cdi_hpc.launch.base import ORIGIN as BASE
from cdi_hpc.launch.base import base_actions
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.plan import Action, Bind, Directory, MountFilesystem, Plan, SetEnv, Symlink, Unsupported, WriteFile
from cdi_hpc.spec.model import Origin
from cdi_hpc.witness import Witness

ORIGIN = Origin("ch-run", "", "command line")

#: Directories of the host that ch-run binds over every image's, and files that it makes; all have to be there.
_BOUND = ("/dev", "/proc", "/sys", "/tmp")  # noqa: S108  # the name in the image
_BOUND_FILES = ("/etc/passwd", "/etc/group")

#: What else it binds where host and image both have it (its BINDS_DEFAULT).
_BOUND_IF_THERE = (
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/resolv.conf",
    "/etc/opt/cray/wlm_detect",
    "/opt/cray/alps",
    "/opt/cray/udreg",
    "/opt/cray/ugni",
    "/opt/cray/wlm_detect",
    "/opt/cray/xpmem",
    "/var/lib/hugetlbfs",
    "/var/opt/cray/alps",
    "/var/run/munge",
    "/var/spool/slurmd",
)

#: Where ch-run notes that a container for several is begun, less its tag, and what the tag is by default; or else its
#: parent's process id (bin/ch-run.c, join_tag).
_JOIN_FILE = "/dev/shm/ch-run_shm-"  # noqa: S108
_JOIN_VARIABLE = "SLURM_STEP_ID"


@dataclass
class _Fitting:
    """What becomes of an invocation while the plan is put into its image."""

    plan: Plan
    wishes: Wishes
    located: Located
    host: Host
    witness: Witness
    changes: dict[int, tuple[Word, ...]] = field(default_factory=dict)
    first: list[Word] = field(default_factory=list)
    lacks: list[Unsupported] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


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
    fitting = _Fitting(plan, Wishes.of(invocation, profile, environ), located, host, witness)
    stored = images.stored_path(invocation, environ)
    if stored is not None:  # an image of that name would come first
        witness.saw(stored, "name")
    variables = _set_variables(fitting)
    if fitting.wishes.has("--join-pid"):
        return _joining(fitting, variables)
    assembly = _assembled(fitting)
    moves = _moved(assembly, fitting)
    steps = _composed(assembly, fitting)
    messages = (*assembly.messages, *fitting.messages)
    if not steps:
        return Dressing(_words(fitting), variables, lacks=tuple(fitting.lacks), messages=messages, assembly=assembly)
    if located.place == "/":  # our mounts would be over the whole of the host, ch-run with it
        what = "is the host's own root directory, which can't be shown otherwise to ch-run"
        fix = "name an image, or use 'cdi-hpc run --device DEVICE / COMMAND'"
        raise CdiError(Problem(f"image {invocation.image}", what, fix))
    image = located.place if located.place != located.path else ""
    if image:  # --mount is for a file, which ours is none any more
        fitting.changes.update((n, ()) for n in fitting.wishes.numbers("--mount"))
    return Dressing(
        words=_words(fitting, image),
        variables=variables,
        steps=steps,
        place=located.place,
        squashfs=located.path or "" if located.kind == "squashfs" else "",
        moves=tuple(moves),
        peers=_peers(fitting),
        lacks=tuple(fitting.lacks),
        messages=messages,
        assembly=assembly,
    )


def _words(fitting: _Fitting, image: str = "") -> tuple[Word, ...]:
    return tuple(words.rewritten(fitting.wishes.invocation, fitting.changes, tuple(fitting.first), image))


# Variables ------------------------------------------------------------------------------------------------------------


def _set_variables(fitting: _Fitting) -> tuple[Variable, ...]:
    """The plan's variables, in the place of the first option that asked for a device; before all if none did."""
    wishes = fitting.wishes
    ours = [n for n, given in enumerate(wishes.invocation.given) if given.option.use in ("device", "cdi-dirs")]
    asking = [n for n in ours if wishes.invocation.given[n].option.use == "device"]
    at = asking[0] if asking else -1
    made = environment.assignments(
        [action for action in fitting.plan.actions if isinstance(action, SetEnv)],
        expands=not wishes.has("--env-no-expand"),
        unset_before=any(n < at for n in wishes.numbers("--unset-env")),
    )
    fitting.changes.update((n, ()) for n in ours)
    if asking:
        fitting.changes[at] = made.words
    else:
        fitting.first += made.words
    fitting.lacks += made.lacks
    return made.variables


def _joining(fitting: _Fitting, variables: tuple[Variable, ...]) -> Dressing:
    message = "--join-pid: the container has the devices that it was started with, and no others"
    return Dressing(_words(fitting), variables, lacks=tuple(fitting.lacks), messages=(message,))


def _peers(fitting: _Fitting) -> Peers | None:
    """Which other launches share the container (``--join``), by the tag that ch-run knows them by."""
    wishes, plan = fitting.wishes, fitting.plan
    if not any(wishes.has(name) for name in ("--join", "--join-ct", "--join-tag")):
        return None
    tags = wishes.values("--join-tag")
    prefix, variable = (_JOIN_FILE + tags[-1], "") if tags else (_JOIN_FILE, _JOIN_VARIABLE)
    return Peers(prefix, variable, ", ".join(map(repr, plan.devices)), peers.fingerprint(plan.actions))


# The tree -------------------------------------------------------------------------------------------------------------


def _assembled(fitting: _Fitting) -> Assembly:
    """The plan in its image, with everything that ch-run needs there."""
    located = fitting.located
    lacks = [(action, _covered(action, fitting.host)) for action in fitting.plan.actions]
    fitting.lacks += [lack for _, lack in lacks if lack is not None]
    planned = (action for action, lack in lacks if lack is None and not _is_shown(action, fitting))
    before = list(_before(fitting))
    actions = [*before, *_rest_of_dev(before, fitting), *_home(fitting), *planned]
    assembly = assemble(actions, _image_directory(located), fitting.witness, located.files)
    _make_mount_points(assembly.tree, fitting)
    _refuse_hidden(assembly.tree, fitting)
    return assembly


def _is_shown(action: Action, fitting: _Fitting) -> bool:
    """Whether a bind is of something in the host's /tmp to where ch-run shows it anyway: an MPS daemon's pipes."""
    if not isinstance(action, Bind) or action.flags or fitting.wishes.has("--private-tmp"):
        return False
    temporary = _host_tmp(fitting)
    name = posixpath.relpath(action.target, "/tmp")  # noqa: S108
    return not name.startswith("..") and temporary is not None and action.source == posixpath.join(temporary, name)


def _image_directory(located: Located) -> str:
    """Where the image's directories are while the steps are applied."""
    return located.place if located.kind == "squashfs" else located.path or located.place


def _before(fitting: _Fitting) -> Iterator[Action]:
    """What ch-run binds over every image, as far as it is known to the launch: the plan's edits may be below it."""
    located = fitting.located
    base = base_actions(
        _image_directory(located),
        fitting.host,
        private_dev=fitting.plan.private_dev is not None,
        contain=False,
        accounts=False,
        witness=fitting.witness,
        files=located.files,
    )
    for action in base:
        if isinstance(action, Bind) and action.target == "/tmp":  # noqa: S108
            yield from _tmp(fitting)
        elif not (isinstance(action, Bind) and action.target in _BOUND_IF_THERE and fitting.wishes.writes_through):
            yield action  # a mount point that is not needed would keep the user from writing beside it


def _rest_of_dev(before: Iterable[Action], fitting: _Fitting) -> Iterator[Action]:
    """The host's own nodes, links and directories, where its /dev is not bound as a whole."""
    if fitting.plan.private_dev is not None:
        taken = frozenset(_place_of(action) for action in (*before, *fitting.plan.actions))
        yield from host_dev.brought_back(taken, fitting.host, fitting.witness)


def _tmp(fitting: _Fitting) -> Iterator[Action]:
    temporary = _host_tmp(fitting)
    if fitting.wishes.has("--private-tmp"):
        yield MountFilesystem("tmpfs", "tmpfs", "/tmp", BASE, ("nodev", "nosuid"), ("mode=1777",))  # noqa: S108
    elif temporary is not None:
        yield Bind(temporary, "/tmp", "directory", BASE)  # noqa: S108


def _host_tmp(fitting: _Fitting) -> str | None:
    """Real path of the host's directory that ch-run binds to /tmp; None if it is not there."""
    node = fitting.host.node(posixpath.abspath(fitting.wishes.environ.get("TMPDIR", "/tmp")))  # noqa: S108
    return None if node is None else node.real_path


def _home(fitting: _Fitting) -> Iterator[Action]:
    """What ch-run does for ``--home`` where that makes the image writable."""
    wishes = fitting.wishes
    if not wishes.home_on_fake:
        return
    home, user = wishes.environ.get("HOME"), wishes.environ.get("USER")
    node = fitting.host.node(posixpath.abspath(home)) if home else None
    if node is None or not user:
        raise CdiError(Problem("--home", f"$HOME is {home!r} and $USER {user!r}", "set both to what they are"))
    inside = f"/home/{user}"
    fitting.first.insert(0, environment.set_env("HOME", inside))
    yield Bind(node.real_path, inside, "directory", ORIGIN)


def _make_mount_points(tree: ContainerTree, fitting: _Fitting) -> None:
    """What ch-run wants to find in the image, and can't make in one that is read-only."""
    if not fitting.wishes.has("--no-passwd"):
        for path in _BOUND_FILES:
            _make_missing(tree, path, is_directory=False)
    if fitting.wishes.has("--home"):
        _make_missing(tree, "/home", is_directory=True)
    for text in fitting.wishes.values("--bind"):
        source, _, target = text.partition(":")
        node = fitting.host.node(posixpath.abspath(source)) if source else None
        if node is not None:
            # What can't be, ch-run says itself, in the words that its users know.
            with contextlib.suppress(CdiError):
                _make_missing(tree, target or source, is_directory=node.kind == "directory")


def _make_missing(tree: ContainerTree, path: str, *, is_directory: bool) -> None:
    real_path = tree.resolve(path)
    if tree.entry(real_path) is not None:
        return
    if is_directory:
        tree.make_directory(real_path)
    else:
        tree.make_directory(posixpath.dirname(real_path))
        tree.put(real_path, StagedFile(is_mount_point=True))


def _refuse_hidden(tree: ContainerTree, fitting: _Fitting) -> None:
    """What the user has ch-run bind comes over everything of ours: no edit is to vanish below it without a word."""
    hidden: list[Problem] = []
    for option, source, target in _user_binds(fitting):
        with contextlib.suppress(CdiError):  # a place that can't be: ch-run says so itself
            hidden += _hidden(tree, fitting, option, source, tree.resolve(target))
    if hidden:
        raise CdiError(hidden)


def _hidden(tree: ContainerTree, fitting: _Fitting, option: str, source: str, top: str) -> Iterator[Problem]:
    for action in fitting.plan.actions:
        path = _place_of(action)
        if not path or _covered(action, fitting.host) is not None:
            continue
        real_path = tree.resolve(path, follow=not isinstance(action, Symlink))
        if real_path != top and not _is_below(real_path, top):
            continue
        if not _shows(posixpath.normpath(source + real_path[len(top) :]), real_path, action):
            yield Problem(option, f"would hide {path!r}, which {action.origin} asks for", "bind to another place")


def _user_binds(fitting: _Fitting) -> Iterator[tuple[str, str, str]]:
    """What the user has ch-run bind: by which option, the host's real path, and where in the image."""
    host, environ = fitting.host, fitting.wishes.environ
    for text in fitting.wishes.values("--bind"):
        source, _, target = text.partition(":")
        node = host.node(posixpath.abspath(source)) if source else None
        if node is not None:
            yield f"--bind {text}", node.real_path, target or source
    if fitting.wishes.has("--home") and not fitting.wishes.home_on_fake:
        home, user = environ.get("HOME"), environ.get("USER")
        node = host.node(posixpath.abspath(home)) if home else None
        if node is not None and user:
            yield "--home", node.real_path, f"/home/{user}"


def _shows(host_path: str, path: str, action: Action) -> bool:
    """Whether a path of the host is what the edit is about: ch-run takes a moved /dev, too, from the host's path."""
    if isinstance(action, Bind) and action.source == host_path:  # by other flags: as the user has it
        return True
    return host_path == path and any(_is_below(path, top) for top in ("/dev", "/proc", "/sys"))


def _place_of(action: Action) -> str:
    """Container path that an action is about, "" if none."""
    if isinstance(action, (Bind, MountFilesystem)):
        return action.target
    return action.path if isinstance(action, (Symlink, WriteFile, Directory)) else ""


def _covered(action: Action, host: Host) -> Unsupported | None:
    """Why an edit would not be seen: ch-run binds something else over it, later than anything of ours."""
    path = _place_of(action)
    top = next((top for top in (*_BOUND_FILES, *_BOUND_IF_THERE) if path == top or _is_below(path, top)), None)
    node = host.node(top) if top is not None else None
    if top is None or node is None:
        return None
    if isinstance(action, Bind) and action.source == node.real_path + path[len(top) :]:
        return None
    return Unsupported(f"edit of {path}", f"ch-run binds the host's {top} over it", action.origin)


# Moves ----------------------------------------------------------------------------------------------------------------


def _moved(assembly: Assembly, fitting: _Fitting) -> list[tuple[str, str]]:
    """Take out what ch-run binds over the tree anyway; what the plan added to it goes to where that comes from."""
    tree = assembly.tree
    moves: list[tuple[str, str]] = []
    dropped: set[int] = set()
    for placed in assembly.mounts:
        top = tree.regions[placed.region].target
        if not _is_base(placed) or any(_is_below(top, place) for place, _ in moves):
            continue
        is_used = any(_is_below(tree.regions[other.region].target, top) for other in assembly.mounts)
        host_path = _bound_from(placed, fitting) if is_used or tree.staged_in(placed.region) else None
        if host_path is None:
            dropped.add(placed.region)
        else:
            moves.append((top, host_path))
            fitting.messages += _told_of(placed, fitting, has_staged=bool(tree.staged_in(placed.region)))
    assembly.mounts = [placed for placed in assembly.mounts if placed.region not in dropped]
    return moves


def _told_of(placed: PlacedMount, fitting: _Fitting, *, has_staged: bool) -> Iterator[str]:
    """What is otherwise than ch-run's users know it."""
    target = placed.what.target if isinstance(placed.what, (Bind, MountFilesystem)) else ""
    if target == "/dev" and fitting.plan.private_dev is not None:
        yield f"/dev is made anew, of the host's nodes and the requested ones: {fitting.plan.private_dev}"
    if target == "/tmp" and has_staged and not fitting.wishes.has("--private-tmp"):  # noqa: S108
        yield "what is made in /tmp is gone afterwards, since mount points had to be made beside it"


def _is_base(placed: PlacedMount) -> bool:
    return isinstance(placed.what, (Bind, MountFilesystem)) and placed.what.origin == BASE


def _bound_from(placed: PlacedMount, fitting: _Fitting) -> str | None:
    """Where ch-run takes from what it binds there; None for what it can be left to."""
    target = placed.what.target if isinstance(placed.what, (Bind, MountFilesystem)) else ""
    if target != "/tmp":  # noqa: S108
        return target if target in _BOUND else None
    temporary = _host_tmp(fitting)
    if temporary is not None and _is_below(fitting.located.place, temporary):
        what = f"the plan has something in /tmp, and so does ch-run: the image itself, below {temporary}"
        raise CdiError(Problem(f"image {fitting.located.path}", what, "keep the image elsewhere"))
    # It takes the place of the host's /tmp by then; ch-run's own would be empty.
    fitting.changes.update((n, ()) for n in fitting.wishes.numbers("--private-tmp"))
    return temporary


def _is_below(path: str, top: str) -> bool:
    return path.startswith(top.rstrip("/") + "/")


# Steps ----------------------------------------------------------------------------------------------------------------


def _composed(assembly: Assembly, fitting: _Fitting) -> tuple[Step, ...]:
    """Mount steps, and the options of ch-run that go with them; none if the image is to be as it is."""
    wishes, tree = fitting.wishes, assembly.tree
    size = wishes.fake_size
    if size is not None:
        _write_to_ours(fitting)
    elif not assembly.mounts and not tree.staged_in(0):
        return ()
    if wishes.writes_through:
        return _written_through(assembly, fitting)
    points = mount_points()
    steps = compose(assembly, Composition("overlay", points, writable=size is not None, size=size or ""))
    if not runner.overlay_is_refused(steps):
        return steps
    if size is not None:
        what = "needs an overlay, which the kernel refuses on this image"
        raise CdiError(Problem("--write-fake", what, "leave it out, or --home where that was given"))
    return compose(assembly, Composition("underlay", points))


def _write_to_ours(fitting: _Fitting) -> None:
    """ch-run's own tmpfs needs an image without mounts below it. Ours is part of the tree, which is written to."""
    given = fitting.wishes.numbers("--write-fake", "--home", "--write")
    fitting.changes.update((n, ()) for n in given)
    fitting.changes[given[0]] = (Text("--write"),)


def _written_through(assembly: Assembly, fitting: _Fitting) -> tuple[Step, ...]:
    """With the image's own directories: what is in a layer can't be written to."""
    steps = compose(assembly, Composition("underlay", mount_points(), writes_through=True))
    covered = [
        step.path[len(ROOT) :] or "/" for step in steps if isinstance(step, MountNew) and step.source == UNDERLAY
    ]
    if covered:
        places = ", ".join(covered)
        fitting.messages.append(f"--write: no file can be made, removed or renamed in {places}: mount points are there")
    return steps
