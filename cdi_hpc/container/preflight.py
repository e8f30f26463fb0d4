"""Whether the libraries that devices bring along can work in an image, asked before anything starts.

A library that was linked on a new system needs versions of symbols that an old image's C library does not have. The
dynamic loader finds that out in the middle of a job (``version `GLIBC_2.34' not found``); here the same tables are
compared beforehand (:mod:`cdi_hpc.container.symbol_versions`). What the loader would take for a library's needs is
looked up as it does: the library's own run path, ``ld.so.cache``, the system's directories (ld.so(8)).

Only what is certain is said. A need that nothing provides is no misfit: drivers come with libraries for window systems
that most images do not have. Nor is a library for another ABI of the same machine (32 bit) without its C library.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, get_args

from cdi_hpc.container.loader import LoaderView
from cdi_hpc.container.stage import Assembly
from cdi_hpc.container.symbol_versions import Versions, read_versions
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.ldcache import conf, elf, musl
from cdi_hpc.ldcache import format as cache
from cdi_hpc.ldcache.scan import looks_like_library
from cdi_hpc.ldcache.tree import Tree
from cdi_hpc.plan import Bind
from cdi_hpc.spec.request import PREFLIGHT_VARIABLE, Preflight

_CACHE = "/etc/ld.so.cache"
_MAX_CACHE = 1 << 26
_LIBC = "libc.so.6"

#: As many libraries with one reason are named; beyond that they are counted.
_NAMED = 5

#: Where a glibc of another machine is, if the image is for that one.
_FOREIGN = tuple(
    f"{top}/{name}-linux-gnu/{_LIBC}"
    for name in ("aarch64", "x86_64", "powerpc64le", "i386", "riscv64", "s390x")
    for top in ("/lib", "/usr/lib")
) + tuple(f"{directory}/{_LIBC}" for directory in ("/lib64", "/usr/lib64", "/lib", "/usr/lib"))

#: e_machine of elf(5), by the name in uname(2).
_MACHINES = {3: "i386", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}

#: Whose libraries a machine's processor runs as well.
_ALSO = {"x86_64": ("i386",), "aarch64": ("arm",)}

#: musl with gcompat(7) takes some libraries that were made for glibc, and which ones can't be told.
_GCOMPAT = "/lib/libgcompat.so.0"

_NUMBERED = re.compile(r"(.+_)([0-9]+(?:\.[0-9]+)*)")

_ELF_START, _BIG_ENDIAN = 20, 2

#: The ABI of a machine's own programs; others are for compatibility.
_OWN_ABI = {"x86_64": cache.X86_64, "aarch64": cache.AARCH64, "ppc64le": cache.POWERPC64}

_FIX = "take an image with newer libraries"


@dataclass(frozen=True, order=True)
class Misfit(Problem):
    """A reason why libraries can't work in the image.

    Attributes:
        fatal: the launch is refused unless told otherwise. Where the image has another C library altogether it is
            not: nobody expects these libraries to work there, and the device's nodes and variables may be all that is
            wanted. Nor where another library than glibc is too old: the command may bring a newer one along.

    """

    fatal: bool = True


@dataclass(frozen=True)
class _Reason:
    """Why a library does not fit: it needs ``need``, but ``rest``. Libraries with the same one are told together."""

    need: str
    rest: str
    fatal: bool = True


@dataclass(frozen=True)
class _Provider:
    """A library that others need.

    Attributes:
        path: by which the loader finds it.
        injected: it is not the image's own.

    """

    path: str
    versions: Versions
    injected: bool

    def lacks(self, version: str) -> bool:
        """Whether the loader would refuse it to a library that needs the version."""
        return self.versions.provides is not None and version not in self.versions.provides


def check(assembly: Assembly, machine: str | None = None) -> list[Misfit]:
    """Every reason why injected libraries and programs can't work in the image, the most frequent first.

    Looked at are files that are bound on their own, and libraries in directories that are bound and that an
    ``update-ldcache`` hook makes the loader look into.

    Args:
        assembly: a plan in its place, with the loader's cache staged. Its tree's witness sees what is read.
        machine: as in uname(2); by default this host's.

    Returns:
        Misfits without a ``fix``; the text of each names the library, the need, and what the image has.

    """
    machine = machine or os.uname().machine
    if machine not in elf.FLAGS:
        return []
    injected, foreign = _injected(assembly, machine)
    if not injected and not foreign:
        return []
    image = _Image(Tree(LoaderView(assembly.tree)), machine)
    reasons: dict[_Reason, list[str]] = defaultdict(list)
    for path, reason in (*_reasons(injected, image, machine), *_foreign_reasons(foreign, image, machine)):
        reasons[reason].append(posixpath.basename(path))
    by_frequency = sorted(reasons.items(), key=lambda item: -len(item[1]))
    return [misfit for reason, names in by_frequency for misfit in _told(reason, names)]


def _reasons(injected: dict[str, Versions], image: _Image, machine: str) -> Iterator[tuple[str, _Reason]]:
    """The path of each library that does not fit, and why."""
    without_libc = None
    if not any(image.provider(_LIBC, library.flags) for library in injected.values()):
        without_libc = image.other_libc()
    for path, library in injected.items():
        lacking = image.lacking(path, library)
        if lacking:
            yield path, _worst(lacking)
        elif without_libc and _OWN_ABI[machine] == library.flags & cache.ABI_MASK and library.needs_libc:
            yield path, without_libc


def _foreign_reasons(foreign: dict[str, str], image: _Image, machine: str) -> Iterator[tuple[str, _Reason]]:
    """The path of each library that this machine's loader passes over, unless the image is for the library's."""
    for path, theirs in foreign.items():
        if image.libc_machine() != theirs:
            yield path, _Reason(theirs, f"this machine is {machine}", fatal=False)


def enforce(assembly: Assembly, strictness: Preflight = "fail", fix: str = "") -> list[Misfit]:
    """Look, unless told not to, and refuse what does not fit.

    Args:
        assembly: see :func:`check`.
        strictness: what to do about misfits.
        fix: how to launch all the same, for the error.

    Returns:
        What is worth a warning.

    Raises:
        CdiError: the fatal misfits, if that is what to do about them.

    """
    misfits = check(assembly) if strictness != "off" else []
    fatal = [misfit for misfit in misfits if misfit.fatal and strictness == "fail"]
    if fatal:
        advice = f"{_FIX}, or {fix}" if fix else _FIX
        raise CdiError([*fatal[:-1], replace(fatal[-1], fix=advice)])
    return misfits


def wanted(environ: Mapping[str, str], otherwise: Preflight = "fail") -> Preflight:
    """What the environment wants done about misfits, or else what the configuration says (CdiError: it is no word)."""
    word = environ.get(PREFLIGHT_VARIABLE) or otherwise
    found = next((known for known in get_args(Preflight) if known == word), None)
    if found is None:
        known = ", ".join(get_args(Preflight))
        raise CdiError(Problem(PREFLIGHT_VARIABLE, f"is {word!r}", f"known are {known}"))
    result: Preflight = found
    return result


def _told(reason: _Reason, names: list[str]) -> Iterator[Misfit]:
    """One line for each library; one for all of them where they are many, or where it is no more than a warning."""
    if len(names) == 1 or (reason.fatal and len(names) <= _NAMED):
        for name in names:
            yield Misfit("", f"{name} needs {reason.need}, {reason.rest}", fatal=reason.fatal)
        return
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    yield Misfit("", f"{len(names)} files need {reason.need}, {reason.rest}: {shown}", fatal=reason.fatal)


# What is injected ---------------------------------------------------------------------------------------------


def _injected(assembly: Assembly, machine: str) -> tuple[dict[str, Versions], dict[str, str]]:
    """Of what is injected, by its path in the container: versions, or the machine that a library is for instead."""
    found: dict[str, Versions] = {}
    foreign: dict[str, str] = {}
    seen: set[str] = set()
    for path, source in _candidates(assembly):
        if source in seen:
            continue
        seen.add(source)
        try:
            with assembly.tree.open(path) as file:
                versions = read_versions(file, machine)
                file.seek(0)
                theirs = machine if versions is not None else _machine_in(file)
        except OSError:
            continue  # it is not there any more, or not for us: the launch itself will say it
        if versions is not None:
            found[path] = versions
        # Firmware may be ELF files for the processor of a device.
        elif theirs not in (None, machine, *_ALSO.get(machine, ())) and looks_like_library(posixpath.basename(path)):
            foreign[path] = f"{theirs}"
    return found, foreign


def _candidates(assembly: Assembly) -> Iterator[tuple[str, str]]:
    """Paths in the container of what may be a library or a program, and what tells two of them apart."""
    tree = assembly.tree
    for placed in assembly.mounts:
        region = tree.regions[placed.region]
        if isinstance(placed.what, Bind) and placed.what.kind == "file" and region.source is not None:
            yield region.target, region.source
    view = LoaderView(tree)
    for folder in _bound_folders(assembly):
        for listed in view.listdir(folder):
            path = posixpath.join(folder, listed.name)
            entry = tree.entry(path)
            if listed.injected and listed.kind == "file" and looks_like_library(listed.name) and entry is not None:
                yield path, entry.host_path or path


def _bound_folders(assembly: Assembly) -> Iterator[str]:
    """Directories of the loader that are bound, or lie in one that is."""
    for folder in assembly.loader_folders:
        try:
            where = assembly.tree.resolve(folder)
            entry = assembly.tree.entry(where)
        except (CdiError, OSError):
            continue
        bound = assembly.tree.is_mounted(where) or assembly.tree.region_of(where) != 0
        if bound and entry is not None and entry.kind == "directory" and entry.host_path is not None:
            yield where


# What the image has -------------------------------------------------------------------------------------------


class _Image:
    """What the loader would find in the container."""

    def __init__(self, tree: Tree, machine: str) -> None:
        self._tree = tree
        self._machine = machine
        self._system = conf.system_directories(tree, machine)
        self._cache = _by_name(tree)
        self._read: dict[str, Versions | None] = {}
        self._found: dict[tuple[str, int], _Provider | None] = {}

    def provider(self, soname: str, flags: int) -> _Provider | None:
        """What the loader takes for a SONAME in its cache or the system's directories; None if there is nothing."""
        if (soname, flags) not in self._found:
            listed = [entry.path for entry in self._cache.get(soname, ()) if _same_abi(entry.flags, flags)]
            places = [*listed, *(f"{directory}/{soname}" for directory in self._system)]
            self._found[soname, flags] = self._first(places, flags)
        return self._found[soname, flags]

    def lacking(self, path: str, library: Versions) -> list[tuple[_Provider, str]]:
        """Versions that a library needs and that what provides the others of their kind does not have."""
        lacking = []
        own = _run_path(library, path)
        for soname, version in library.needs:
            provider = self._first([f"{directory}/{soname}" for directory in own], library.flags)
            provider = provider or self.provider(soname, library.flags)
            if provider is not None and provider.lacks(version):
                lacking.append((provider, version))
        return lacking

    def other_libc(self) -> _Reason | None:
        """What the image has in the place of this machine's glibc."""
        arch = musl.architecture(self._tree, self._machine)
        if arch is not None:
            has_gcompat = self._tree.status(_GCOMPAT) is not None
            return (
                None if has_gcompat else _Reason("glibc", f"the image has musl (/lib/ld-musl-{arch}.so.1)", fatal=False)
            )
        for path, machine in self._libcs():
            if machine != self._machine:
                return _Reason(f"an image for {self._machine}", f"this one is for {machine} ({path})")
        return None

    def libc_machine(self) -> str | None:
        """The machine that the image's glibc is for, None if it has none."""
        return next((machine for _, machine in self._libcs()), None)

    def _libcs(self) -> Iterator[tuple[str, str]]:
        """Where a glibc is, and for which machine."""
        for path in _FOREIGN:
            machine = self._machine_of(path)
            if machine is not None:
                yield path, machine

    def _first(self, places: list[str], flags: int) -> _Provider | None:
        found = (self._at(place, flags) for place in places)
        return next((provider for provider in found if provider is not None), None)

    def _at(self, path: str, flags: int) -> _Provider | None:
        where = self._tree.resolve(path)
        if where is None:
            return None
        if where not in self._read:
            file = self._open(where)
            if file is None:
                self._read[where] = None
            else:
                with file:
                    self._read[where] = read_versions(file, self._machine)
        versions = self._read[where]
        if versions is None or not _same_abi(versions.flags, flags):
            return None
        status = self._tree.lstat(where)
        return _Provider(path, versions, injected=status is not None and status.injected)

    def _machine_of(self, path: str) -> str | None:
        """The machine that a file is for, None if it is no ELF file."""
        where = self._tree.resolve(path)
        file = None if where is None else self._open(where)
        if file is None:
            return None
        with file:
            return _machine_in(file)

    def _open(self, where: str) -> BinaryIO | None:
        status = self._tree.lstat(where)
        return self._tree.open(where) if status is not None and status.kind == "file" else None


def _machine_in(file: BinaryIO) -> str | None:
    """The machine that a file is for, None if it is no ELF file."""
    start = file.read(_ELF_START)
    if len(start) < _ELF_START or not start.startswith(b"\x7fELF"):
        return None
    number = int.from_bytes(start[18:20], "big" if start[5] == _BIG_ENDIAN else "little")
    return _MACHINES.get(number, f"machine {number}")


def _by_name(tree: Tree) -> dict[str, list[cache.Entry]]:
    """The cache's entries that any processor takes; none if there is no cache that the loader would read."""
    content = tree.read(_CACHE, _MAX_CACHE)
    found: dict[str, list[cache.Entry]] = defaultdict(list)
    try:
        entries = cache.entries(content) if content is not None else ()
    except cache.CorruptCacheError:
        return {}
    for entry in entries:
        if entry.hwcaps is None and not entry.legacy_hwcap:
            found[entry.name].append(entry)
    return found


def _same_abi(one: int, other: int) -> bool:
    return one & cache.ABI_MASK == other & cache.ABI_MASK


def _run_path(library: Versions, path: str) -> list[str]:
    """Directories of a library's run path. Those with tokens that only the loader itself can replace are left out."""
    origin = posixpath.dirname(path)
    replaced = (re.sub(r"\$(ORIGIN|\{ORIGIN\})", lambda _: origin, directory) for directory in library.run_path)
    return [directory for directory in replaced if directory.startswith("/") and "$" not in directory]


def _worst(lacking: list[tuple[_Provider, str]]) -> _Reason:
    """The one that says most: glibc's own versions before others', then the newest."""
    provider, version = max(lacking, key=lambda one: (_is_glibcs(one[1]), _numbers(one[1])))
    family = _family(version)
    same = [other for other in provider.versions.provides or () if family and _family(other) == family]
    has = f"has {max(same, key=_numbers)[len(family) :]}" if same else "does not have it"
    whose = f"the host's {posixpath.basename(provider.path)}" if provider.injected else "the image"
    return _Reason(version, f"{whose} {has} ({provider.path})", fatal=_is_glibcs(version))


def _is_glibcs(version: str) -> bool:
    """Whether a version is one of the C library, of which a process can have but the image's."""
    return version.startswith("GLIBC_")


def _family(version: str) -> str:
    """``GLIBC_`` of ``GLIBC_2.34``; "" for a version that is no number."""
    match = _NUMBERED.fullmatch(version)
    return match[1] if match else ""


def _numbers(version: str) -> tuple[int, ...]:
    match = _NUMBERED.fullmatch(version)
    return tuple(int(part[:9]) for part in match[2].split(".")) if match else ()
