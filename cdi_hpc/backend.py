"""What a backend is: one small module that says a plan in the words of a launcher that somebody else made.

A launch through a launcher goes the same way for all of them, and only the three methods of :class:`Backend` differ:

1. :meth:`Backend.probe`: what the installed launcher can do and which options it has, asked of the launcher itself.
2. the command line is read with that table (:mod:`cdi_hpc.launch.launcher_options`): an :class:`Invocation`;
3. :meth:`Backend.locate`: what the image argument leads to;
4. specs, registry, request, edits, policy and plan, as everywhere;
5. :meth:`Backend.adapt`: the plan for this invocation, a :class:`Dressing`;
6. the dressing is compiled and kept, or applied at once (:mod:`cdi_hpc.launch.launcher`), and the launcher executed.

A later launch with the same key is made by the native shim alone: steps 1 to 5 are in the compiled plan.
``docs/backends.md`` shows how to write one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Union, get_args

from cdi_hpc.container.steps import StageEntry, Step
from cdi_hpc.errors import CdiError
from cdi_hpc.host import Host
from cdi_hpc.images.image_files import ImageFiles
from cdi_hpc.plan import Plan, Unsupported
from cdi_hpc.witness import Witness

if TYPE_CHECKING:  # it takes libraries that a listing of backends does without
    from cdi_hpc.container.stage import Assembly

#: What an image argument may lead to.
Kind = Literal["directory", "squashfs", "sif", "reference", "instance", "other"]
#: Whether an option takes a value.
Arity = Literal["none", "required", "optional"]

#: What an option means to us.
#:
#: ``plan``: the launcher's; it may change what has to be done, so its value is part of the plan's key.
#: ``keep``: the launcher's; it is passed on, and its value changes nothing for us (a variable's, verbosity).
#: ``device``: ours; its value is a device, or several with commas. Without a value: every known kind.
#: ``cdi-dirs``: ours; its value is a list of spec directories with colons or commas between them.
#: ``switch``: ours, and the backend's own business; its value is part of the key, and it is not passed on.
#: ``leave``: the launcher is executed as if we were not there (``--version``).
#: ``help``: the launcher's help, and then ours.
Use = Literal["plan", "keep", "device", "cdi-dirs", "switch", "leave", "help"]

#: How a launcher reads its command line. ``getopt``: options and other words in any order until ``--``
#: (getopt_long(3), with abbreviations; POSIXLY_CORRECT is obeyed). ``pflag``: options first, ``-x=value``,
#: no abbreviations, a switch may be ``--name=false`` (Go's pflag).
Style = Literal["getopt", "pflag"]


def _require_word(of: object, name: str, words: Any) -> None:
    """Raise ValueError for a field that is none of the words of a Literal: a slip of the pen would mean something."""
    found, known = getattr(of, name), get_args(words)
    if found not in known:
        raise ValueError(f"{type(of).__name__}.{name} is {found!r}, not {' or '.join(map(repr, known))}")


def _require_text(of: object, *names: str) -> None:
    for name in names:
        _require(of, name, getattr(of, name), str)


def _require_tuple(of: object, **kinds: type | tuple[type, ...]) -> None:
    """Raise TypeError for a field that is no tuple of such things: a text is a sequence of texts as well."""
    for name, kind in kinds.items():
        found = getattr(of, name)
        _require(of, name, found, tuple)
        for item in found:
            _require(of, name, item, kind)


def _require(of: object, name: str, found: object, kind: type | tuple[type, ...]) -> None:
    if not isinstance(found, kind):
        wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise TypeError(f"{type(of).__name__}.{name} has a {type(found).__name__}, not a {wanted}")


@dataclass(frozen=True)
class Option:
    """An option of a launcher.

    Attributes:
        names: ``-b`` and ``--bind``; all mean the same.
        arity: whether it takes a value. An optional one is joined to the name (``--cdi=KIND``, ``-dKIND``).
        use: what it means to us.

    """

    names: tuple[str, ...]
    arity: Arity = "none"
    use: Use = "plan"

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for what is none."""
        _require_tuple(self, names=str)
        _require_word(self, "arity", Arity)
        _require_word(self, "use", Use)


@dataclass(frozen=True)
class Subcommand:
    """A way to call a launcher that begins a container.

    Attributes:
        words: what comes first, for example ``("instance", "start")``; empty where there are none.
        options: of this subcommand.

    """

    words: tuple[str, ...]
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        """Raise TypeError for what is none."""
        _require_tuple(self, words=str, options=Option)


@dataclass(frozen=True)
class Profile:
    """What the installed launcher is and can do.

    It is kept on disk, and good for as long as the program's file and all that was looked at are as they were.

    Attributes:
        backend: name of the backend.
        program: real path of the launcher.
        style: how it reads its command line.
        options: those before the subcommand (all of them where there are no subcommands).
        subcommands: those that can take devices; the launcher is left alone with any other. ``getopt`` has none.
        variables: environment variables that may change a plan; ``APPTAINER_*`` stands for all that begin so.
        capabilities: what else the backend wants to know later, for example ``("squashfs", "yes")``. One is
            everybody's: ``("cdi-dirs-variable", NAME)`` names a variable with spec directories, for where no option
            names any. Another is ``("path-variables", "NAME,NAME")``: the container does not show the working
            directory, and these of the variables are paths. Then a plan is good for every directory, unless a path is
            relative.
        help: text that is added to the launcher's own help.
        looked_at: absolute paths of what else the answers came from, there or not.

    """

    backend: str
    program: str
    style: Style
    options: tuple[Option, ...] = ()
    subcommands: tuple[Subcommand, ...] = ()
    variables: tuple[str, ...] = ()
    capabilities: tuple[tuple[str, str], ...] = ()
    help: str = ""
    looked_at: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for what is none."""
        _require_text(self, "backend", "program", "help")
        _require_word(self, "style", Style)
        _require_tuple(self, options=Option, subcommands=Subcommand, variables=str, capabilities=tuple, looked_at=str)


@dataclass(frozen=True)
class Given:
    """An option as it was given.

    Attributes:
        option: which one.
        value: its value, None if it has none.
        index: of its first word in the invocation's ``words``.
        count: how many words it takes: 1, or 2 if its value is a word of its own.

    """

    option: Option
    value: str | None
    index: int
    count: int


@dataclass(frozen=True)
class Invocation:
    """A launcher's command line, understood, and put in order.

    ``words`` say what was typed in one order of many: options before the subcommand, the subcommand, options, the
    image, the command. Each option has words of its own (``-vt`` has become ``-v -t``), ``--`` is gone, and an option
    that is not passed on is one word, its first name. So a plan with :class:`Keep` fits however a launch is spelled.

    Attributes:
        words: all of it, after the program's name.
        subcommand: the words that name it.
        given: options in their order.
        image: the image argument.
        image_index: where it stands in ``words``.
        command: everything after the image that is no option: the command and its arguments, as the launcher will
            find them.
        devices: values of ``device`` options, each perhaps a comma list; ``""`` stands for every known kind.
        cdi_dirs: values of ``cdi-dirs`` options, split.
        subcommand_index: where the subcommand begins in ``words``.

    """

    words: tuple[str, ...]
    subcommand: tuple[str, ...]
    given: tuple[Given, ...]
    image: str
    image_index: int
    command: tuple[str, ...]
    devices: tuple[str, ...] = ()
    cdi_dirs: tuple[str, ...] = ()
    subcommand_index: int = 0


@dataclass(frozen=True)
class Located:
    """What an image argument leads to.

    Attributes:
        path: real path of the directory or file, or None if the launcher has to fetch it first.
        kind: what it is.
        files: the image's files for reading, or None if they can't be read beforehand.
        place: absolute path without links where the image's directories are, or will be, while the steps are
            applied: the directory itself, or where the native runner mounts the file.
        reason: why ``files`` is None.
        offset: where in the file a SquashFS begins that can be mounted, None if there is none.

    """

    path: str | None
    kind: Kind
    files: ImageFiles | None = None
    place: str = ""
    reason: str = ""
    offset: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for what is none."""
        _require_word(self, "kind", Kind)
        _require_text(self, "place", "reason")


@dataclass(frozen=True)
class Text:
    """A word of the launcher's command line."""

    text: str

    def __post_init__(self) -> None:
        """Raise TypeError for what is none."""
        _require_text(self, "text")


@dataclass(frozen=True)
class Keep:
    """The word of the invocation with this index, whatever it is in a later launch with the same key."""

    index: int

    def __post_init__(self) -> None:
        """Raise TypeError for what is none."""
        _require(self, "index", self.index, int)


@dataclass(frozen=True)
class StagePath:
    """A word with the path of something in the stage: ``prefix``, the path, ``suffix``."""

    prefix: str
    path: str
    suffix: str = ""

    def __post_init__(self) -> None:
        """Raise TypeError for what is none."""
        _require_text(self, "prefix", "path", "suffix")


Word = Union[Text, Keep, StagePath]


@dataclass(frozen=True)
class Variable:
    """A variable in the launcher's own environment.

    Attributes:
        default: it is only set where the user has not set it himself.

    """

    name: str
    value: str
    default: bool = False

    def __post_init__(self) -> None:
        """Raise TypeError for what is none."""
        _require_text(self, "name", "value")


@dataclass(frozen=True)
class Peers:
    """Launches that share one container, known by a file that the launcher makes when it begins it.

    Attributes:
        prefix: path of the file, or its beginning.
        variable: name of a variable whose value ends the path, or where it is not set, the launcher's parent's process
            id; "" if the prefix is all of it.
        devices: what this launch asks for, in words.
        edits: stands for everything that a container gets by it, 64 hexadecimal digits: only who asks for the same is
            let in.

    """

    prefix: str
    variable: str = ""
    devices: str = ""
    edits: str = ""


@dataclass(frozen=True)
class Dressing:
    """A plan in the words of a launcher.

    If there are ``steps``, they are applied in new user and mount namespaces (:mod:`cdi_hpc.container.compose` makes
    them of an assembled tree), the tree is put at ``place`` of the host's tree as this process sees it, and each of
    ``moves`` takes a mount of the tree, named by its place in it, to a path of the host: a /dev of our own to ``/dev``.

    Attributes:
        words: command line of the launcher after the program's name, up to the command; the invocation's command
            follows.
        variables: changes of the launcher's environment.
        steps: mount steps, none if the launcher's own options do everything.
        place: host path of the directory that the tree covers; "" if there are no steps.
        squashfs: real path of the file with a SquashFS that is mounted at ``place`` before the steps, or "".
        offset: where in that file it begins.
        owned: its files are shown as the caller's (squashfuse's options uid and gid; not every squashfuse has them).
        moves: pairs of a place in the tree and a host path.
        stage: files, directories and links on disk that ``words`` refer to by :class:`StagePath`, parents first;
            paths are relative to the stage and do not begin with a digit (those names are the steps').
        peers: if there are, only the first launch of them applies the steps (:mod:`cdi_hpc.launch.peers`).
        lacks: what this launcher can't do although the plan can, and why.
        messages: what is worth telling.
        assembly: the plan in its image, where that could be read: the site's rules are held against the paths that it
            covers there (without one, against the plan's alone), and the libraries in it against the image
            (:mod:`cdi_hpc.container.preflight`).

    """

    words: tuple[Word, ...]
    variables: tuple[Variable, ...] = ()
    steps: tuple[Step, ...] = ()
    place: str = ""
    squashfs: str = ""
    offset: int = 0
    owned: bool = False
    moves: tuple[tuple[str, str], ...] = ()
    stage: tuple[StageEntry, ...] = ()
    peers: Peers | None = None
    lacks: tuple[Unsupported, ...] = ()
    messages: tuple[str, ...] = field(default_factory=tuple)
    assembly: Assembly | None = None

    def __post_init__(self) -> None:
        """Raise TypeError for what is none."""
        _require_text(self, "place", "squashfs")
        _require_tuple(self, words=get_args(Word), variables=Variable, moves=tuple, messages=str, lacks=Unsupported)
        _require_tuple(self, steps=get_args(Step), stage=get_args(StageEntry))


@dataclass(frozen=True)
class Ways:
    """How a launcher does each kind of action, in general: what ``explain`` says where it is not installed."""

    variable: str
    node: str
    mount: str
    filesystem: str
    link: str
    file: str
    loader_cache: str


class BegunWithoutError(CdiError):
    """A container that is joined was begun without the devices. Where nobody has asked for them, that is no error."""


class BackendFaultError(CdiError):
    """Somebody else's backend did what none may do. Its ``__cause__``, if there is one, is what was raised in it."""


class Backend(Protocol):
    """A launcher that somebody else made, as the rest of the program sees it.

    A backend may also have an attribute ``ways`` (:class:`Ways`).

    Attributes:
        name: of the backend: ``charliecloud``.
        commands: programs it stands for: ``("ch-run",)``. Shims have these names.

    """

    name: str
    commands: tuple[str, ...]

    def probe(self, program: str) -> Profile:
        """Ask the installed launcher for its options and abilities.

        Raises:
            CdiError: it can't be executed, or its answer is not understood.

        """
        ...

    def locate(self, invocation: Invocation, profile: Profile, environ: Mapping[str, str], image_place: str) -> Located:
        """Find the image.

        Args:
            invocation: the command line.
            profile: of the launcher.
            environ: the environment.
            image_place: where a SquashFS file would be mounted by the native runner.

        Raises:
            CdiError: there is no such image, or it can't be read.

        """
        ...

    def adapt(
        self,
        plan: Plan,
        invocation: Invocation,
        profile: Profile,
        located: Located,
        host: Host,
        environ: Mapping[str, str],
        witness: Witness,
    ) -> Dressing:
        """Say the plan in the launcher's words.

        Raises:
            BegunWithoutError: the container is there already, and has not got them.
            CdiError: an option of the invocation and the plan can't go together, or an edit can't be put in its place.

        """
        ...
