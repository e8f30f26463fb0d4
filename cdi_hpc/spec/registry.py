"""Which devices the spec files of some directories define: precedence, conflicts, and what could not be read.

The rules are the reference library's (``pkg/cdi``, ``Cache``): a later directory wins; two files of one directory that
define the same device take it from everybody, whatever other directories say; a file with an error counts for nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec import names
from cdi_hpc.spec.document import MAX_BYTES
from cdi_hpc.spec.model import Device, Spec
from cdi_hpc.spec.validate import Checked, check
from cdi_hpc.witness import Witness

#: SPEC.md, "CDI JSON Specification": static specs, then generated ones.
DEFAULT_DIRECTORIES = ("/etc/cdi", "/var/run/cdi")

#: A colon-separated list that replaces the default directories.
ENVIRONMENT_VARIABLE = "CDI_HPC_DIRS"

SUFFIXES = (".json", ".yaml")

#: What somebody may take for one of these.
_LIKE_SUFFIXES = (*SUFFIXES, ".yml")

#: Of an image, as much has bytes that no text has.
_HEAD = 128


class SpecDirectory(NamedTuple):
    """A directory to look for specs in; one that somebody named has to exist."""

    path: str
    named: bool = False


@dataclass(frozen=True)
class LoadedSpec:
    """A spec file without errors.

    Attributes:
        priority: index of its directory; a higher one wins.

    """

    spec: Spec
    priority: int
    directory: str

    @property
    def path(self) -> str:
        """The file."""
        return self.spec.path

    def devices(self) -> tuple[str, ...]:
        """Qualified names of the devices that the file defines, whether they are used or not, in its order."""
        return tuple(f"{self.spec.kind}={device.name}" for device in self.spec.devices)


@dataclass(frozen=True)
class RegisteredDevice:
    """A device of a spec, or with ``index`` None the spec alone: its own edits and no device's."""

    spec: Spec
    index: int | None

    @property
    def device(self) -> Device | None:
        """The device itself."""
        return None if self.index is None else self.spec.devices[self.index]

    @property
    def name(self) -> str:
        """Its qualified name; for a spec alone, the kind."""
        return self.spec.kind if self.device is None else f"{self.spec.kind}={self.device.name}"


@dataclass(frozen=True)
class Shadowed:
    """A device of one file that another file, in a later directory, defines instead."""

    name: str
    path: str
    winner: str


@dataclass(frozen=True)
class Registry:
    """What the spec directories hold.

    Attributes:
        directories: where specs were looked for, later ones win.
        specs: files without errors, in the order in which they were read.
        devices: the devices that can be requested, by qualified name, sorted.
        errors: what is wrong, by file (or directory), sorted; conflicts are listed with every file that has one.
        warnings: what is unusual in files that are used.
        shadowed: devices that lost against a later directory.
        conflicts: devices that nobody gets, and the files that define them in one directory.
        broken: devices of files with errors, and those files, as far as they could be read.
        unread: files that are not read because of their names.

    """

    directories: tuple[SpecDirectory, ...] = ()
    specs: tuple[LoadedSpec, ...] = ()
    devices: Mapping[str, RegisteredDevice] = field(default_factory=dict)
    errors: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    shadowed: tuple[Shadowed, ...] = ()
    conflicts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    broken: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[Problem, ...] = ()

    def vendors(self) -> tuple[str, ...]:
        """Vendors of all specs, sorted."""
        return tuple(sorted({names.split_kind(loaded.spec.kind)[0] for loaded in self.specs}))

    def classes(self) -> tuple[str, ...]:
        """Classes of all specs, sorted."""
        return tuple(sorted({names.split_kind(loaded.spec.kind)[1] for loaded in self.specs}))

    def kinds(self) -> tuple[str, ...]:
        """Kinds of all specs, sorted."""
        return tuple(sorted({loaded.spec.kind for loaded in self.specs}))

    def of_kind(self, kind: str) -> tuple[RegisteredDevice, ...]:
        """Every device of a kind, in the order of the files; specs of that kind without devices as well."""
        return tuple(self._of_kind(kind))

    def _of_kind(self, kind: str) -> Iterator[RegisteredDevice]:
        for loaded in self.specs:
            if loaded.spec.kind != kind:
                continue
            if not loaded.spec.devices:
                yield RegisteredDevice(loaded.spec, None)
            for index in range(len(loaded.spec.devices)):
                candidate = RegisteredDevice(loaded.spec, index)
                registered = self.devices.get(candidate.name)
                if registered is not None and registered.spec is loaded.spec:
                    yield candidate


def spec_directories(environ: Mapping[str, str], named: Sequence[str] = ()) -> tuple[SpecDirectory, ...]:
    """Where to look for specs: the named directories, else those of CDI_HPC_DIRS, else the default ones."""
    chosen = list(named) or [path for path in environ.get(ENVIRONMENT_VARIABLE, "").split(":") if path]
    if chosen:
        return tuple(SpecDirectory(os.path.abspath(path), named=True) for path in chosen)
    return tuple(SpecDirectory(path) for path in DEFAULT_DIRECTORIES)


def load_registry(
    directories: Sequence[SpecDirectory],
    *,
    strict: bool = False,
    schema: bool = False,
    witness: Witness | None = None,
) -> Registry:
    """Read all specs of some directories. Never raises for what it finds there: see ``Registry.errors``."""
    builder = _Builder(directories=tuple(directories))
    for priority, directory in enumerate(directories):
        if witness is not None:
            witness.saw(directory.path, "names")
        try:
            paths, others = _listed(directory)
        except CdiError as error:
            builder.errors.setdefault(directory.path, []).extend(error.problems)
            continue
        builder.unread += map(_unread, others)
        for path in paths:
            checked = load_spec(path, strict=strict, schema=schema, witness=witness)
            builder.add(checked, priority, directory.path)
    return builder.finish()


def load_spec(path: str, *, strict: bool = False, schema: bool = False, witness: Witness | None = None) -> Checked:
    """Read one spec file; that it can't be read is an error like any other."""
    if witness is not None:
        witness.saw(path, "content")
    try:
        data = _read(path)
    except CdiError as error:
        return Checked(path, None, errors=error.problems)
    return check(data, path, strict=strict, schema=schema)


def spec_files(directory: SpecDirectory) -> list[str]:
    """Paths of a directory's spec files, by name; subdirectories are not looked into.

    Raises:
        CdiError: the directory can't be read, or is missing although somebody named it.

    """
    return _listed(directory)[0]


def unread_files(directory: SpecDirectory) -> list[Problem]:
    """Files of a directory that look like specs and are not read because of their names (CdiError: as there)."""
    return [*map(_unread, _listed(directory)[1])]


def _listed(directory: SpecDirectory) -> tuple[list[str], list[str]]:
    """The spec files of a directory, and the files that only look like some."""
    found: dict[bool, list[str]] = {True: [], False: []}
    try:
        with os.scandir(directory.path) as entries:
            for entry in entries:
                suffix = os.path.splitext(f"_{entry.name}")[1]
                if suffix.lower() in _LIKE_SUFFIXES and not entry.is_dir(follow_symlinks=False):
                    found[suffix in SUFFIXES].append(entry.path)
    except OSError as error:
        if error.errno == errno.ENOENT and not directory.named:
            return [], []
        raise CdiError(_directory_problem(directory.path, error)) from error
    return sorted(found[True], key=os.fsencode), sorted(found[False], key=os.fsencode)


def _unread(path: str) -> Problem:
    return Problem(path, "not read: the name of a spec ends in .json or .yaml", "rename or remove it")


def _directory_problem(path: str, error: OSError) -> Problem:
    if error.errno == errno.ENOENT:
        fix = f"name another one, there or in {ENVIRONMENT_VARIABLE}, or make it"
        return Problem(path, "the spec directory doesn't exist", fix)
    if error.errno == errno.ENOTDIR:
        fix = "name the directory, or request the file's devices by the file's path"
        return Problem(path, "the spec directory is not a directory", fix)
    if error.errno == errno.EACCES:
        return Problem(path, "Permission denied", f"ask its owner or an administrator to chmod 755 {path}")
    return Problem(path, f"the spec directory can't be read: {os.strerror(error.errno or 0)}")


def _open(path: str) -> BinaryIO:
    """Open a regular file. Anything else is refused before it is opened: a FIFO would block."""
    _require_regular(path, os.stat(path))
    # O_NONBLOCK for what may have taken its place since.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_regular(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _read(path: str) -> bytes:
    try:
        with _open(path) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CdiError(_file_problem(path, error)) from error


def is_no_text(path: str) -> bool:
    """Whether something can't be a spec at all: a directory, or a file that begins with what no text has."""
    if os.path.isdir(path):
        return True
    try:
        with _open(path) as file:
            return b"\0" in file.read(_HEAD)
    except (OSError, CdiError):
        return False


def _require_regular(path: str, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    is_a = next((word for test, word in _FILE_TYPES if test(status.st_mode)), "no regular file")
    raise CdiError(Problem(path, f"a spec must be a regular file, this is {is_a}", "rename or remove it"))


_FILE_TYPES = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


def _file_problem(path: str, error: OSError) -> Problem:
    if error.errno == errno.EACCES:
        return Problem(path, "Permission denied", f"ask its owner or an administrator to chmod 644 {path}")
    if error.errno == errno.ENOENT and os.path.islink(path):
        return Problem(path, f"the link points to {os.readlink(path)!r}, which doesn't exist", "repair or remove it")
    if error.errno == errno.ENOENT:
        return Problem(path, "the spec file doesn't exist")
    return Problem(path, f"the spec file can't be read: {os.strerror(error.errno or 0)}")


@dataclass
class _Builder:
    """The registry while files are being added, in order of priority and name."""

    directories: tuple[SpecDirectory, ...]
    specs: list[LoadedSpec] = field(default_factory=list)
    holders: dict[str, tuple[int, RegisteredDevice]] = field(default_factory=dict)
    errors: dict[str, list[Problem]] = field(default_factory=dict)
    warnings: dict[Problem, None] = field(default_factory=dict)
    lost: dict[Shadowed, None] = field(default_factory=dict)
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    broken: dict[str, list[str]] = field(default_factory=dict)
    unread: list[Problem] = field(default_factory=list)

    def add(self, checked: Checked, priority: int, directory: str) -> None:
        """Take a file in, or what is wrong with it."""
        if checked.spec is None:
            self._note(checked.path, checked.errors)
            for name in checked.claimed:
                self.broken.setdefault(name, []).append(checked.path)
            return
        self.warnings.update(dict.fromkeys(checked.warnings))
        self.specs.append(LoadedSpec(checked.spec, priority, directory))
        for index in range(len(checked.spec.devices)):
            self._add_device(RegisteredDevice(checked.spec, index), priority)

    def _add_device(self, device: RegisteredDevice, priority: int) -> None:
        held_priority, holder = self.holders.get(device.name, (-1, device))
        if held_priority == priority:
            self._add_conflict(device.name, holder.spec.path, device.spec.path)
            return
        if held_priority >= 0 and holder.spec.path != device.spec.path:
            self.lost[Shadowed(device.name, holder.spec.path, device.spec.path)] = None
        self.holders[device.name] = (priority, device)

    def _add_conflict(self, name: str, first: str, second: str) -> None:
        files = self.conflicts.setdefault(name, [first])
        files.append(second)
        what = f"conflicting device {name!r}: both {first!r} and {second!r} define it, so nobody gets it"
        for path in (first, second):
            self._note(path, [Problem(path, what, "remove or rename the device in one of the two")])

    def _note(self, path: str, problems: Iterable[Problem]) -> None:
        known = self.errors.setdefault(path, [])
        known.extend(problem for problem in problems if problem not in known)

    def finish(self) -> Registry:
        """The registry of everything that was added."""
        return Registry(
            directories=self.directories,
            specs=tuple(self.specs),
            devices={name: self.holders[name][1] for name in sorted(self.holders) if name not in self.conflicts},
            errors={path: tuple(self.errors[path]) for path in sorted(self.errors)},
            warnings=tuple(self.warnings),
            shadowed=tuple(self.lost),
            conflicts={name: tuple(dict.fromkeys(paths)) for name, paths in sorted(self.conflicts.items())},
            broken={name: tuple(dict.fromkeys(paths)) for name, paths in sorted(self.broken.items())},
            unread=tuple(self.unread),
        )
