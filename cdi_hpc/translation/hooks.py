"""What a hook of a CDI spec would do to the container, read from its arguments. Nothing is executed.

A hook is a program for an OCI runtime: it expects a runtime's state on its standard input, a writable root and
often privilege. Its *effect* needs none of that, so the arguments are read as the program itself reads them and
the effect becomes actions of the plan. What is not in the tables below is :class:`UnknownHook`, with the very
argument that was not understood; nothing is skipped and nothing is guessed.

The tables follow the hooks of NVIDIA's container toolkit, releases 1.12 to 1.20, under both of their names, and
ldconfig(8). Where releases differ, the newest decides. docs/hooks.md is this module for readers who do not
program.
"""

from __future__ import annotations

import getopt
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Callable, Literal, NamedTuple, Union

from cdi_hpc.spec.model import Hook

#: Where enable-cuda-compat looks when it is not told otherwise.
DEFAULT_COMPAT_DIRECTORY = "/usr/local/cuda/compat"


class Link(NamedTuple):
    """A symbolic link: ``path`` in the container holds ``points_to``.

    ``points_to`` is kept as it was written. ``path`` is absolute and lexically normalised, not resolved.
    """

    points_to: str
    path: str


@dataclass(frozen=True)
class CreateSymlinks:
    """Make these links, in this order.

    A link that already points there stays; a file, or a link that points elsewhere, is replaced, so of two
    links with the same path the later one is seen. Missing parents are directories of mode 755. Parents are
    resolved inside the container's root. The vendor's program fails where a directory is in the place of the
    link; whoever applies this may cover it instead.
    """

    links: tuple[Link, ...]


@dataclass(frozen=True)
class UpdateLdcache:
    """Make the dynamic loader find the libraries in ``folders``, in this order, each once.

    The vendor's program writes a drop-in ``/etc/ld.so.conf.d/00-nvcr-*.conf``, which sorts before most of the
    image's own but after ``00-compat-*.conf`` of :class:`EnableCudaCompat`, and runs the host's ldconfig on the
    container's root. Since release 1.18.1 it leaves out the folders that the image's ld.so.conf or the loader's
    system directories have already: those keep their place in the order. Without folders it is run all the same,
    and the cache lists what was mounted into the directories that the image has configured.
    """

    folders: tuple[str, ...]


@dataclass(frozen=True)
class EnableCudaCompat:
    """Prefer the image's CUDA forward-compatibility libraries if :mod:`cdi_hpc.container.cuda_compat` says so.

    At least one version is not empty. It takes effect only with an :class:`UpdateLdcache`, before whose folders
    ``directory`` comes.
    """

    directory: str
    host_driver_version: str
    host_cuda_version: str


@dataclass(frozen=True)
class DisableDeviceNodeModification:
    """Show a /proc/driver/nvidia/params that forbids making device nodes: see :mod:`cdi_hpc.translation.nvidia`."""


@dataclass(frozen=True)
class UpdateApplicationProfile:
    """Tell EGL and Vulkan which GPUs are in the container: see :mod:`cdi_hpc.translation.nvidia`."""


@dataclass(frozen=True)
class Chmod:
    """Give ``paths`` these permission bits, where they exist.

    The vendor's program was made for /dev/dri under runtimes that created it too closed. It ignores a path that
    isn't there and a refusal by the kernel (EPERM). Bits above 0777 have no effect there, and are not in ``mode``.
    """

    mode: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class NoOperation:
    """The hook changes nothing in the container, and why."""

    reason: str


@dataclass(frozen=True)
class UnknownHook:
    """The hook's effect is not known. ``reason`` names the program, verb or argument, quoted."""

    reason: str


HookMeaning = Union[
    CreateSymlinks,
    UpdateLdcache,
    EnableCudaCompat,
    DisableDeviceNodeModification,
    UpdateApplicationProfile,
    Chmod,
    NoOperation,
    UnknownHook,
]


class _NotUnderstood(Exception):  # noqa: N818  # not an error of ours: interpret() turns it into UnknownHook
    """Carries the reason from the depth of a parser to interpret()."""


# --- flags ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Flag:
    """How one flag is read.

    Attributes:
        takes: ``nothing`` (a switch, which may still have ``=true``), ``one`` value, of which the last counts, or
            ``list``: values that add up, each split at commas.
        only: if not empty, the values that leave the hook's meaning as it is; any other is refused.
        refusal: why another value is refused.

    """

    takes: Literal["nothing", "one", "list"]
    only: tuple[str, ...] = ()
    refusal: str = ""


_LIST = _Flag("list")
_ONE = _Flag("one")
_SWITCH = _Flag("nothing")

#: What only changes the program's log. Read from the environment too (NVIDIA_CTK_DEBUG), with as little effect.
_LOG_FLAGS: Mapping[str, _Flag] = {"debug": _SWITCH, "d": _SWITCH, "quiet": _SWITCH}

#: Every verb takes these.
_COMMON_FLAGS: Mapping[str, _Flag] = {
    **_LOG_FLAGS,
    "container-spec": _Flag("one", ("", "-"), "it names another container than the one being started"),
}

#: What Go's strconv.ParseBool takes.
_TRUTHS = frozenset({"1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"})


class _Values:
    """The flags of one hook and their values, in the order given."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        self._values.setdefault(name, []).append(value)

    def all(self, name: str) -> tuple[str, ...]:
        """Each value once: a repeated link or folder is made once."""
        return tuple(dict.fromkeys(self._values.get(name, ())))

    def last(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[-1]


def _parse_flags(arguments: Sequence[str], flags: Mapping[str, _Flag]) -> _Values:
    """Read ``-flag``, ``--flag``, ``--flag=value`` and ``--flag value``; anything else is not understood.

    A value is taken as it comes, also when it begins with a dash. Refused, since releases disagree about them: a
    positional argument, after which older ones ignore every flag, and blanks at the end of ``--flag=value``,
    which newer ones cut off.
    """
    values = _Values()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = _split_flag(argument)
        flag = flags.get(name)
        if flag is None:
            raise _NotUnderstood(f"argument {argument!r} is not known")
        if equals and argument != argument.rstrip():
            raise _NotUnderstood(f"argument {argument!r} ends in a blank")
        if flag.takes == "nothing":
            _check_switch(argument, value)
            continue
        if not equals:
            if not rest:
                raise _NotUnderstood(f"argument {argument!r} has no value")
            value = rest.pop(0)
        _check_value(name, flag, value)
        # The vendor's command-line library splits every list at commas, for both programs.
        for part in value.split(",") if flag.takes == "list" else [value]:
            values.add(name, part)
    return values


def _split_flag(argument: str) -> tuple[str, str, str]:
    """``(name, "=" or "", value)``; the name is "" for what is not a flag."""
    match = re.match(r"--?(?=[^-=])", argument)
    return argument[match.end() :].partition("=") if match else ("", "", "")


def _check_switch(argument: str, value: str) -> None:
    if value and value not in _TRUTHS:
        raise _NotUnderstood(f"argument {argument!r} is neither true nor false")


def _check_value(name: str, flag: _Flag, value: str) -> None:
    if flag.only and value not in flag.only:
        raise _NotUnderstood(f"argument --{name} has the value {value!r}: {flag.refusal}")


# --- paths ----------------------------------------------------------------------------------------------------


def _in_container(path: str) -> str:
    """An absolute, lexically normalised path; a relative one starts at the container's root."""
    return posixpath.normpath("/" + path.lstrip("/"))


#: A folder that a line of ld.so.conf can name: ldconfig(8) reads ``#`` as a comment and ``=`` as a library type.
#: It follows links before it goes up by ``..``, so a path with one has no normal form that is sure to be the same.
_FOLDER = re.compile(r"(?!.*/\.\.(/|$))/[^#=\x00-\x1f\x7f]*(?<! )")


def _folder(path: str, argument: str) -> str:
    if not _FOLDER.fullmatch(path):
        raise _NotUnderstood(f"{argument} names {path!r}, which is no absolute path that ldconfig could read")
    return _in_container(path)


# --- verbs: from values to a meaning --------------------------------------------------------------------------


def _create_symlinks(values: _Values) -> HookMeaning:
    links = tuple(map(_link, values.all("link")))
    return CreateSymlinks(links) if links else NoOperation("create-symlinks names no --link")


def _link(written: str) -> Link:
    """``TARGET::PATH``. A single colon belongs to the name: ``pci-0000:07:00.0``."""
    parts = written.split("::")
    if len(parts) != 2:  # noqa: PLR2004  # a target and a path
        raise _NotUnderstood(f"argument --link has the value {written!r}, which is not TARGET::PATH")
    points_to, path = parts
    if not points_to:
        raise _NotUnderstood(f"argument --link has the value {written!r}, whose target is empty")
    if posixpath.basename(path) in {"", ".", ".."}:
        raise _NotUnderstood(f"argument --link has the value {written!r}, whose path does not end in a name")
    return Link(points_to, _in_container(path))


def _update_ldcache(values: _Values) -> HookMeaning:
    if not values.last("ldconfig-path", "/sbin/ldconfig"):
        raise _NotUnderstood("argument --ldconfig-path is empty")
    folders = (_folder(path, "argument --folder") for path in values.all("folder"))
    return UpdateLdcache(tuple(dict.fromkeys(folders)))


def _enable_cuda_compat(values: _Values) -> HookMeaning:
    driver, cuda = values.last("host-driver-version"), values.last("host-cuda-version")
    if not driver and not cuda:
        return NoOperation("enable-cuda-compat is given no version of the host's driver")
    directory = values.last("cuda-compat-container-root", DEFAULT_COMPAT_DIRECTORY)
    return EnableCudaCompat(_in_container(directory), driver, cuda)


def _chmod(values: _Values) -> HookMeaning:
    mode = values.last("mode")
    if not re.fullmatch(r"[0-7]+", mode) or int(mode, 8) > 0o7777:  # noqa: PLR2004  # all bits of chmod(2)
        raise _NotUnderstood(f"argument --mode has the value {mode!r}, which is no octal mode")
    for path in values.all("path"):
        if not path.strip():
            raise _NotUnderstood(f"argument --path has the value {path!r}, which names nothing")
    paths = tuple(dict.fromkeys(map(_in_container, values.all("path"))))
    return Chmod(int(mode, 8) & 0o777, paths) if paths else NoOperation("chmod names no --path")


@dataclass(frozen=True)
class _Verb:
    """One hook of the vendor's program: its flags beside the common ones, and what they amount to."""

    meaning: Callable[[_Values], HookMeaning]
    flags: Mapping[str, _Flag]


_VERBS: Mapping[str, _Verb] = {
    "create-symlinks": _Verb(
        _create_symlinks,
        {
            "link": _LIST,
            # Up to release 1.16; NVIDIA's generator never wrote them into a spec.
            "host-root": _Flag("one", ("", "/"), "only the host's own root is known"),
            "csv-filename": _Flag("list", ("",), "lists of links in CSV files are not read: use --link"),
        },
    ),
    "update-ldcache": _Verb(
        _update_ldcache,
        # Since release 1.15 the path of the host's ldconfig, which is not run here.
        {"folder": _LIST, "ldconfig-path": _ONE},
    ),
    # Since release 1.17.5; the version of CUDA and the directory since 1.19.
    "enable-cuda-compat": _Verb(
        _enable_cuda_compat,
        {"host-driver-version": _ONE, "host-cuda-version": _ONE, "cuda-compat-container-root": _ONE},
    ),
    # Since release 1.17.8.
    "disable-device-node-modification": _Verb(lambda _: DisableDeviceNodeModification(), {}),
    # Since release 1.20.
    "update-application-profile": _Verb(lambda _: UpdateApplicationProfile(), {}),
    "chmod": _Verb(_chmod, {"path": _LIST, "mode": _ONE}),
    "noop": _Verb(lambda _: NoOperation("noop is the vendor's hook that does nothing"), {}),
}


# --- programs: from an argument vector to a meaning -----------------------------------------------------------


def _nvidia(words: tuple[str, ...]) -> Callable[[Sequence[str]], HookMeaning]:
    """A reader for ``PROGRAM WORDS... VERB FLAGS...``; flags for the log may come before each word."""

    def read(args: Sequence[str]) -> HookMeaning:
        try:
            return _call_verb(words, list(args[1:]))
        except _NotUnderstood as reason:
            raise _NotUnderstood(f"{reason}{_hint(args)}") from None

    return read


def _call_verb(words: Sequence[str], rest: list[str]) -> HookMeaning:
    for word in words:
        found = _next_word(rest)
        if found != word:
            raise _NotUnderstood(f"command {found!r} is not {word!r}")
    name = _next_word(rest)
    verb = _VERBS.get(name)
    if verb is None:
        raise _NotUnderstood(f"hook {name!r} is not known")
    try:
        return verb.meaning(_parse_flags(rest, {**_COMMON_FLAGS, **verb.flags}))
    except _NotUnderstood as reason:
        raise _NotUnderstood(f"{name}: {reason}") from None


def _next_word(rest: list[str]) -> str:
    """Take flags for the log and then one word from the front of ``rest``."""
    while rest and rest[0].startswith("-"):
        _parse_flags([rest.pop(0)], _LOG_FLAGS)
    if not rest:
        raise _NotUnderstood("the arguments name no hook")
    return rest.pop(0)


def _hint(args: Sequence[str]) -> str:
    """What probably happened to arguments that were not understood: the program's name was left out."""
    if args and (args[0] in _VERBS or args[0] == "hook"):
        return f"; args[0] is {args[0]!r}, but that place is the program's name, which is not read"
    return ""


#: ldconfig's options that are known: those that leave the cache as it would be, namely more output (-v), no
#: auxiliary cache (-i) and no links (-X, since the links are needed here either way), and those of the next table.
_LDCONFIG_SHORT = "viXC:f:r:c:"
_LDCONFIG_LONG = ["verbose", "ignore-aux-cache", "format="]

#: The values with which they are accepted: the files, root and format that ldconfig uses by itself.
_LDCONFIG_DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "-C": ("/etc/ld.so.cache",),
    "-f": ("/etc/ld.so.conf",),
    "-r": ("/",),
    "-c": ("new", "compat"),
    "--format": ("new", "compat"),
}


def _ldconfig(args: Sequence[str]) -> HookMeaning:
    """``ldconfig [OPTION...] [DIRECTORY...]``, ldconfig(8): the directories come before the configured ones."""
    try:
        parsed = list(_getopt(args[1:]))
    except getopt.GetoptError as error:
        option = ("--" if len(error.opt) > 1 else "-") + error.opt
        raise _NotUnderstood(f"argument {option!r} is unknown, incomplete or changes what is done") from None
    for option, value in parsed:
        if value not in _LDCONFIG_DEFAULTS.get(option, (value,)):
            raise _NotUnderstood(f"argument {option} has the value {value!r}: only its default is known")
    folders = (_folder(value, "an argument") for option, value in parsed if not option)
    return UpdateLdcache(tuple(dict.fromkeys(folders)))


def _getopt(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``(option, value)`` pairs in order, ``("", argument)`` for the others, which may stand anywhere.

    ``getopt.gnu_getopt`` would do, but for asking the environment of this process about POSIXLY_CORRECT.
    """
    rest = list(arguments)
    while rest:
        options, others = getopt.getopt(rest, _LDCONFIG_SHORT, _LDCONFIG_LONG)
        yield from options
        ended = rest[: len(rest) - len(others)][-1:] == ["--"]
        yield from (("", other) for other in (others if ended else others[:1]))
        rest = [] if ended else others[1:]


def _legacy(args: Sequence[str]) -> HookMeaning:
    """NVIDIA's hook from before CDI, which injects a whole driver by a daemon's rules."""
    del args
    raise _NotUnderstood("this program is not for CDI specs: generate the spec with 'nvidia-ctk cdi generate'")


#: Programs by the last component of ``path``. ``.real`` is the toolkit container's spelling, where a wrapper
#: script has the plain name, and Debian's for ldconfig.
_PROGRAMS: Mapping[str, Callable[[Sequence[str]], HookMeaning]] = {
    "nvidia-cdi-hook": _nvidia(()),
    "nvidia-cdi-hook.real": _nvidia(()),
    "nvidia-ctk": _nvidia(("hook",)),
    "nvidia-ctk.real": _nvidia(("hook",)),
    "ldconfig": _ldconfig,
    "ldconfig.real": _ldconfig,
    "nvidia-container-runtime-hook": _legacy,
    "nvidia-container-toolkit": _legacy,
}

#: The OCI runtime's hook points, and why a hook there has no part in what the process sees, or "".
_POINTS: Mapping[str, str] = {
    "prestart": "",
    "createRuntime": "",
    "createContainer": "",
    "startContainer": "",
    "poststart": "runs when the process has already started, which can't be done here",
    "poststop": "runs when the container has stopped, when nothing is left of it",
}


def interpret(hook: Hook) -> HookMeaning:
    """What ``hook`` would do to the container before its process starts. Never raises, never runs anything.

    The program is known by the last component of ``hook.path``, whatever its directory; ``args[0]`` is the name
    that the program is told, and is not read (execve(2)). ``env`` and ``timeout`` don't matter to a program that
    is not run. A plain ldconfig is taken to mean the container's cache at every point before the process,
    although an OCI runtime runs it inside the container at ``startContainer`` alone.
    """
    try:
        return _interpret(hook)
    except _NotUnderstood as reason:
        return UnknownHook(f"{hook.path!r}: {reason}" if hook.path else str(reason))


def _interpret(hook: Hook) -> HookMeaning:
    for text in (hook.path, *hook.args):
        if "\0" in text:
            raise _NotUnderstood(f"{text!r} holds a NUL byte, which can't be passed to a program")
    program = _PROGRAMS.get(posixpath.basename(hook.path))
    if program is None:
        raise _NotUnderstood("this program is not known")
    obstacle = _POINTS.get(hook.hook_name)
    if obstacle is None:
        raise _NotUnderstood(f"hook point {hook.hook_name!r} is not known")
    meaning = program(hook.args)
    if not obstacle or isinstance(meaning, NoOperation):
        return meaning
    return _too_late(hook.hook_name, obstacle)


def _too_late(point: str, obstacle: str) -> HookMeaning:
    if point == "poststop":
        return NoOperation(f"{point} {obstacle}")
    raise _NotUnderstood(f"{point} {obstacle}: use createContainer")
