"""What is known of an installed launcher, on disk: asked once of the launcher, read by every launch.

A profile's file is written by this module alone and read by ``native/profile.c`` as well. It is made of fields that end
with NUL, as a compiled plan is: a header with the version of the format, the release of this program, then records.

==============  ===================================  ===================================================================
record          fields                               meaning
==============  ===================================  ===================================================================
``program``     path, inode, size, mtime, ctime      the launcher's file, as it was when it was asked; times in ns
``present``     path, inode, size, mtime, ctime      the same of another file that was looked at
``absent``      path                                 nothing was there
``backend``     name                                 whose launcher it is
``style``       ``getopt`` or ``pflag``              how it reads its command line
``option``      use, arity, names with commas        an option, of the ``subcommand`` before it or of none
``subcommand``  words with blanks                    one that begins a container
``variable``    name                                 one that may change a plan; ``*`` at its end stands for any text
``capability``  name, value                          what else the backend wants to know
``help``        text                                 what is added to the launcher's help
``end``                                              the last record
==============  ===================================  ===================================================================

The file system's number is no part of a file's identity here: that of a network file system differs from node to node,
and one file in a directory that all nodes see serves them all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from cdi_hpc import __version__
from cdi_hpc.backend import Arity, Backend, Option, Profile, Style, Subcommand, Use
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.images.image_files import open_regular
from cdi_hpc.spec.request import PREFLIGHT_VARIABLE

_HEADER = ("cdi-hpc-launcher", "2", __version__)

#: The reader's bound on a file.
MAX_BYTES = 1 << 20

#: Name of the native program, which drop-ins are links to.
RUNNER = "cdi-hpc-run"

#: A drop-in where the native program is not installed: it begins with these lines.
SCRIPT_HEAD = "#!/bin/sh\n# A drop-in of cdi-hpc: see 'cdi-hpc shims --help'.\n"

#: An ELF note in the native program, in its first page: a copy of it has it under any name (``native/locate.c``).
PROGRAM_MARK = b"cdi-hpc\0drop-in\0"
_FIRST_PAGE = 4096

#: Counts how often a launcher that is a script has been started, and how often it may be: one that finds a drop-in
#: where it looks for the launcher would never end. Only scripts see it.
SCRIPTS_VARIABLE = "CDI_HPC_SCRIPTS"
MOST_SCRIPTS = 8

#: How an error of ours begins on standard error.
OWN_ERROR = "cdi-hpc: error: "

#: Where profiles are kept beside drop-ins.
PROFILES = "profiles"

_OPTION_NAME = re.compile(r"-[!-~]|--[!-~]+", re.ASCII)


class NotFoundError(CdiError):
    """There is no such launcher."""


# The launcher ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launcher:
    """A launcher on this machine.

    Attributes:
        typed: what was typed for it.
        command: base name of that: ``ch-run``.
        path: where it was found.
        argv0: what it is told of its own name: the word that was typed, so that it speaks of itself as it always does.
            It is the path if a path to a drop-in was typed: some launchers look for their own files there.
        drop_ins: directories of drop-ins that come before it on the PATH.

    """

    typed: str
    command: str
    path: str
    argv0: str
    drop_ins: tuple[str, ...] = ()


def find_launcher(name: str, environ: Mapping[str, str]) -> Launcher:
    """The first executable file on the PATH with a launcher's name that is none of our drop-ins.

    Args:
        name: as it was typed; a path to anything but a drop-in is the launcher itself.
        environ: PATH is looked at.

    Raises:
        NotFoundError: there is none.

    """
    command = posixpath.basename(name)
    if "/" in name and not is_drop_in(name):
        if _is_executable(name):
            return Launcher(name, command, name, name)
        raise NotFoundError(Problem(name, "not there, or not executable"))
    drop_ins = [posixpath.dirname(name)] if "/" in name else []
    for directory in environ.get("PATH", os.defpath).split(":"):
        path = posixpath.join(directory or ".", command)
        if not _is_executable(path):
            continue
        if not is_drop_in(path):
            argv0 = path if "/" in name else name
            return Launcher(name, command, path, argv0, tuple(dict.fromkeys(drop_ins)))
        drop_ins.append(directory or ".")
    what = f"{command!r} is not on the PATH" + (", only a drop-in for it" if drop_ins else "")
    raise NotFoundError(Problem("", what, "install it, or add its directory to the PATH"))


def _is_executable(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
    except OSError:
        return False


def is_drop_in(path: str) -> bool:
    """Whether a program is the native runner under another name, a copy of it, or our script."""
    if posixpath.basename(os.path.realpath(path)) == RUNNER:
        return True
    page = _first_page(path)
    return page.startswith(SCRIPT_HEAD.encode()) or (page.startswith(b"\x7fELF") and PROGRAM_MARK in page)


def _first_page(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_FIRST_PAGE)
    except OSError:
        return b""


def count_scripts(launcher: Launcher, environ: MutableMapping[str, str]) -> None:
    """Count a launcher that is a script, before it is executed.

    Raises:
        CdiError: it was executed by itself again and again, with us between.

    """
    count = environ.pop(SCRIPTS_VARIABLE, "0")
    if not _first_page(launcher.path).startswith(b"#!"):
        return
    rounds = int(count) if re.fullmatch(r"[0-9]{1,4}", count, re.ASCII) else 0
    if rounds >= MOST_SCRIPTS:
        what = f"this script executes {launcher.command}, which is the drop-in that executes it"
        raise CdiError(Problem(launcher.path, what, "let it name the launcher by its path"))
    environ[SCRIPTS_VARIABLE] = f"{rounds + 1}"


def own_refusal(said: str) -> CdiError | None:
    """The error of ours that a launcher's standard error ends with: a script that is the launcher found a drop-in.

    It is said once, not wrapped again by each of the launches between.
    """
    last = said.strip().rpartition("\n")[2]
    return CdiError(Problem("", last[len(OWN_ERROR) :])) if last.startswith(OWN_ERROR) else None


# Its profile ----------------------------------------------------------------------------------------------------------


#: Variables that may change a plan, whatever the launcher.
_EVERYBODYS_VARIABLES = (PREFLIGHT_VARIABLE,)


def obtain(backend: Backend, launcher: Launcher, cache: str | None) -> Profile:
    """The launcher's profile: from a drop-in's directory or the user's cache if it is there and fresh, else probed.

    Args:
        backend: whose launcher it is.
        launcher: where it is.
        cache: the user's cache, a directory of his alone, where a new profile is kept; None: nowhere.

    Raises:
        CdiError: the launcher can't be probed.

    """
    profile = kept(backend, launcher, cache)
    if profile is not None:
        return profile
    program = os.path.realpath(launcher.path)
    profile = checked(backend.probe(launcher.path), backend.name, program)
    if cache is not None:
        with contextlib.suppress(OSError):  # it will be probed again
            write(profile, f"{cache}/{file_name(launcher.command, program)}")
    return profile


def kept(backend: Backend, launcher: Launcher, cache: str | None) -> Profile | None:
    """The same if it is on disk where the native program takes it; None where it has to be asked for."""
    program = os.path.realpath(launcher.path)
    name = file_name(launcher.command, program)
    paths = [f"{directory}/{PROFILES}/{name}" for directory in launcher.drop_ins]
    if cache is not None and _is_own(f"{cache}/{name}"):
        paths.append(f"{cache}/{name}")
    for path in paths:
        profile = load(path)
        if profile is not None and (profile.program, profile.backend) == (program, backend.name):
            return profile
    return None


def _is_own(path: str) -> bool:
    """Whether a file is the caller's and nobody else could have changed it (``cache_open_file`` in native/cache.c)."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_nlink > 1
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not others


def file_name(command: str, program: str) -> str:
    """Name of a profile's file: of the command, and of the program that it is."""
    return f"{command}-{hashlib.sha256(os.fsencode(program)).hexdigest()[:16]}.profile"


def checked(profile: Profile, backend: str, program: str) -> Profile:
    """A profile that can be written, as the backend's and the program's.

    Raises:
        CdiError: the backend says something that can't be: a fault of the backend.

    """
    if profile.style == "getopt" and profile.subcommands:
        raise _faulty(backend, "'getopt' has no subcommands")
    for subcommand in profile.subcommands:
        if not subcommand.words or not all(re.fullmatch(r"[^-\s]\S*", word) for word in subcommand.words):
            raise _faulty(backend, f"subcommand {subcommand.words!r}")
    for option in (*profile.options, *(option for each in profile.subcommands for option in each.options)):
        if not option.names or not all(_OPTION_NAME.fullmatch(name) and "," not in name for name in option.names):
            raise _faulty(backend, f"option names {option.names!r}")
    for path in profile.looked_at:
        if not path.startswith("/"):
            raise _faulty(backend, f"relative path {path!r}")
    variables = tuple(dict.fromkeys((*profile.variables, *_EVERYBODYS_VARIABLES)))
    profile = replace(profile, backend=backend, program=program, variables=variables)
    if any("\0" in text for text in _fields(profile, (0, 0, 0, 0), {})):
        raise _faulty(backend, "a text with a NUL")
    return profile


def _faulty(backend: str, what: str) -> CdiError:
    return CdiError(Problem(f"backend {backend!r}", f"a profile can't hold {what}", "that is a fault of the backend"))


def write(profile: Profile, path: str, mode: int = 0o600) -> None:
    """Write a profile, whole or not at all.

    Raises:
        OSError: it can't be written, or the launcher has gone.

    """
    found = os.stat(profile.program)
    fields = _fields(profile, _identity(found), {each: _state(each) for each in profile.looked_at})
    data = b"".join(os.fsencode(text) + b"\0" for text in fields)
    new = f"{posixpath.dirname(path)}/.{posixpath.basename(path)}.{secrets.token_hex(4)}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as stream:
            os.fchmod(fd, mode)  # whatever the umask
            stream.write(data)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise


_Identity = tuple[int, int, int, int]


def _identity(found: os.stat_result) -> _Identity:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _state(path: str) -> _Identity | None:
    """None if nothing can be found there."""
    try:
        return _identity(os.stat(path))
    except OSError:
        return None


def _fields(profile: Profile, identity: _Identity, states: Mapping[str, _Identity | None]) -> Iterator[str]:
    yield from _HEADER
    yield from ("program", profile.program, *map(str, identity))
    for path in profile.looked_at:
        state = states.get(path)
        yield from ("present", path, *map(str, state)) if state else ("absent", path)
    yield from ("backend", profile.backend, "style", profile.style)
    yield from _option_fields(profile.options)
    for name in profile.variables:
        yield from ("variable", name)
    for name, value in profile.capabilities:
        yield from ("capability", name, value)
    yield from ("help", profile.help)
    for subcommand in profile.subcommands:
        yield from ("subcommand", " ".join(subcommand.words))
        yield from _option_fields(subcommand.options)
    yield "end"


def _option_fields(options: Sequence[Option]) -> Iterator[str]:
    for option in options:
        yield from ("option", option.use, option.arity, ",".join(option.names))


def load(path: str) -> Profile | None:
    """A profile from its file; None where it is not there, of another release, damaged, or stale."""
    try:
        with open_regular(path) as stream:
            data = stream.read(MAX_BYTES + 1)
        fields = os.fsdecode(data).split("\0")
        found = _parse(fields) if len(data) <= MAX_BYTES else None
        if found is None or any(_state(path) != state for path, state in found.states.items()):
            return None
    except (OSError, ValueError, IndexError):
        return None
    return found.profile


@dataclass
class _Parsed:
    """A profile that is being put together."""

    profile: Profile = field(default_factory=lambda: Profile("", "", "getopt"))
    states: dict[str, tuple[int, ...] | None] = field(default_factory=dict)

    def program(self, path: str, *identity: str) -> None:
        self.profile = replace(self.profile, program=path)
        self.states[path] = tuple(map(int, identity))

    def present(self, path: str, *identity: str) -> None:
        self.profile = replace(self.profile, looked_at=(*self.profile.looked_at, path))
        self.states[path] = tuple(map(int, identity))

    def absent(self, path: str) -> None:
        self.profile = replace(self.profile, looked_at=(*self.profile.looked_at, path))
        self.states[path] = None

    def backend(self, name: str) -> None:
        self.profile = replace(self.profile, backend=name)

    def style(self, name: str) -> None:
        self.profile = replace(self.profile, style=_one_of(name, get_args(Style)))

    def option(self, use: str, arity: str, names: str) -> None:
        option = Option(tuple(names.split(",")), _one_of(arity, get_args(Arity)), _one_of(use, get_args(Use)))
        if not self.profile.subcommands:
            self.profile = replace(self.profile, options=(*self.profile.options, option))
            return
        *before, last = self.profile.subcommands
        last = replace(last, options=(*last.options, option))
        self.profile = replace(self.profile, subcommands=(*before, last))

    def subcommand(self, words: str) -> None:
        new = Subcommand(tuple(words.split(" ")), ())
        self.profile = replace(self.profile, subcommands=(*self.profile.subcommands, new))

    def variable(self, name: str) -> None:
        self.profile = replace(self.profile, variables=(*self.profile.variables, name))

    def capability(self, name: str, value: str) -> None:
        self.profile = replace(self.profile, capabilities=(*self.profile.capabilities, (name, value)))

    def help(self, text: str) -> None:
        self.profile = replace(self.profile, help=text)


#: Record -> number of fields, and who takes them.
_RECORDS: dict[str, tuple[int, Callable[..., None]]] = {
    "program": (5, _Parsed.program),
    "present": (5, _Parsed.present),
    "absent": (1, _Parsed.absent),
    "backend": (1, _Parsed.backend),
    "style": (1, _Parsed.style),
    "option": (3, _Parsed.option),
    "subcommand": (1, _Parsed.subcommand),
    "variable": (1, _Parsed.variable),
    "capability": (2, _Parsed.capability),
    "help": (1, _Parsed.help),
}


def _parse(fields: Sequence[str]) -> _Parsed | None:
    """Raises ValueError or IndexError for what is damaged."""
    if tuple(fields[: len(_HEADER)]) != _HEADER or fields[-2:] != ["end", ""]:
        return None
    parsed, at = _Parsed(), len(_HEADER)
    while fields[at] != "end":
        count, take = _RECORDS.get(fields[at], (0, None))
        if take is None:
            return None
        take(parsed, *fields[at + 1 : at + 1 + count])
        at += 1 + count
    return parsed if parsed.profile.program and at == len(fields) - 2 else None


def _one_of(word: str, words: Sequence[str]) -> Any:
    if word not in words:
        raise ValueError(word)
    return word
