"""From what somebody asked for to the devices meant: all of them, or every reason why not.

A request is a list of arguments. Each is a comma-separated list of
    VENDOR/CLASS=NAME  that device,
    VENDOR/CLASS=all   the device named ``all``, or if there is none, every device of the kind,
    VENDOR/CLASS       every device of the kind, or the spec's own edits if its file defines no devices,
    FILE               every device of that spec file, whether or not a spec directory has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cdi_hpc import variables
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec import names
from cdi_hpc.spec.registry import ENVIRONMENT_VARIABLE, SUFFIXES, RegisteredDevice, Registry, is_no_text, load_spec
from cdi_hpc.witness import Witness

#: The device name that stands for the whole kind where no device has it.
ALL = "all"

#: What is to be done about libraries that can't work in the image: no launch, or a warning, or nobody looks.
Preflight = Literal["fail", "warn", "off"]
PREFLIGHT_VARIABLE = variables.PREFLIGHT_VARIABLE


@dataclass(frozen=True)
class Resolution:
    """What a request means.

    Attributes:
        devices: in the order of the request; one that is asked for twice is there twice (``edits.merge`` says why).
        warnings: what is unusual about the files that were requested by path, and about kinds that lack a device.

    """

    devices: tuple[RegisteredDevice, ...]
    warnings: tuple[Problem, ...] = ()


def resolve(
    arguments: Sequence[str], registry: Registry, *, strict: bool = False, witness: Witness | None = None
) -> Resolution:
    """The devices that a request means.

    Raises:
        CdiError: with one problem for each thing that can't be resolved; what it is, where it was looked for, and
            what was perhaps meant.

    """
    resolver = _Resolver(registry, strict=strict, witness=witness)
    for argument in arguments:
        for wanted in parts(argument):
            resolver.add(wanted, argument)
    if resolver.problems:
        raise CdiError(dict.fromkeys(resolver.problems))
    return Resolution(tuple(resolver.devices), tuple(dict.fromkeys(resolver.warnings)))


def is_file_request(wanted: str) -> bool:
    """Whether a request means a spec file: a path that can't be a device, or a file that looks like a spec."""
    if wanted.startswith(names.PATHS):
        return True
    return wanted.endswith(SUFFIXES) and os.path.isfile(wanted)


def parts(argument: str) -> list[str]:
    """What is between the commas of an argument."""
    if is_file_request(argument) and os.path.exists(argument):
        return [argument]  # a file's name may hold a comma
    return [part.strip() for part in argument.split(",")]


class _Resolver:
    """Collects devices and problems, one part of the request after the other."""

    def __init__(self, registry: Registry, *, strict: bool, witness: Witness | None) -> None:
        self.witness = witness
        self.registry = registry
        self.strict = strict
        self.devices: list[RegisteredDevice] = []
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def add(self, wanted: str, argument: str) -> None:
        """Resolve one part of one argument."""
        if not wanted:
            self.problems.append(Problem(f"device {argument!r}", "an empty device name", "remove the extra comma"))
        elif is_file_request(wanted):
            self._add_file(wanted)
        elif "=" in wanted:
            self._add_device(wanted)
        else:
            self._add_kind(wanted)

    def _add_file(self, path: str) -> None:
        absolute = os.path.abspath(path)
        checked = load_spec(absolute, strict=self.strict, witness=self.witness)
        if checked.errors and is_no_text(absolute):
            self.problems.append(Problem(absolute, "is no spec", "was the device left out, and is this the image?"))
            return
        self.warnings += checked.warnings
        self.problems += checked.errors
        if checked.spec is not None and checked.spec.devices:
            self.devices += (RegisteredDevice(checked.spec, index) for index in range(len(checked.spec.devices)))
        elif checked.spec is not None:
            self.devices.append(RegisteredDevice(checked.spec, None))

    def _add_device(self, wanted: str) -> None:
        registered = self.registry.devices.get(wanted)
        if registered is not None:
            self.devices.append(registered)
            return
        name = names.parse_qualified(wanted)
        if isinstance(name, str):
            self.problems.append(Problem(f"device {wanted!r}", name, self._near(wanted)))
        elif name.device == ALL and wanted not in self.registry.conflicts and self._members(name.kind):
            self.devices += self._members(name.kind)
        else:
            self.problems.append(self._missing(wanted, name.kind))

    def _add_kind(self, kind: str) -> None:
        complaint = names.kind_complaint(kind)
        members = self._members(kind)
        if complaint and kind.endswith(SUFFIXES):
            fix = "correct the path, which begins where you are"
            self.problems.append(Problem(f"device {kind!r}", "there is no such file", fix))
        elif complaint:
            what = f"{kind!r} is neither a device 'VENDOR/CLASS=NAME' nor a kind 'VENDOR/CLASS'"
            self.problems.append(Problem(f"device {kind!r}", what, self._near(kind)))
        elif members:
            self.devices += members
        else:
            self.problems.append(self._missing(kind, kind))

    def _members(self, kind: str) -> tuple[RegisteredDevice, ...]:
        self.warnings += (
            Problem(f"kind {kind!r}", f"without {name!r}, which {_both(paths)} define", _CONFLICT_FIX)
            for name, paths in self.registry.conflicts.items()
            if name.startswith(f"{kind}=")
        )
        return self.registry.of_kind(kind)

    def _missing(self, wanted: str, kind: str) -> Problem:
        """Why a well-formed name is not there."""
        where = f"device {wanted!r}" if "=" in wanted else f"kind {wanted!r}"
        if wanted in self.registry.conflicts:
            what = f"both {_both(self.registry.conflicts[wanted])} define it, so nobody gets it"
            return Problem(where, what, _CONFLICT_FIX)
        broken = self._broken(wanted)
        if broken:
            what = f"defined only in {_both(broken)}, which can't be used"
            return Problem(where, what, "'cdi-hpc validate' says what is wrong there")
        if not self.registry.specs:
            return Problem(where, f"there are no usable CDI specs in {self._places()}", _NO_SPECS_FIX)
        if "=" in wanted and kind in self.registry.kinds():
            what = f"no such device of the kind {kind!r} in {self._places()}"
        elif "=" in wanted:
            what = f"no spec for the kind {kind!r} in {self._places()}"
        else:
            what = f"no spec of this kind in {self._places()}"
        return Problem(where, what, self._near(wanted))

    def _broken(self, wanted: str) -> tuple[str, ...]:
        prefix = wanted if "=" in wanted and not wanted.endswith(f"={ALL}") else f"{wanted.partition('=')[0]}="
        files = (
            path
            for name, paths in self.registry.broken.items()
            if name == wanted or (prefix.endswith("=") and name.startswith(prefix))
            for path in paths
        )
        return tuple(dict.fromkeys(files))

    def _places(self) -> str:
        return _list(directory.path for directory in self.registry.directories) or "no directory"

    def _near(self, wanted: str) -> str:
        """The most similar things that do exist, as a question, or what exists."""
        candidates = list(dict.fromkeys(self._requestable()))
        near = names.near_misses(wanted, candidates, at_most=3)
        # Somebody who writes only the name of a device means the device.
        near = near or [name for name in self.registry.devices if name.partition("=")[2] == wanted][:3]
        if near:
            return f"did you mean {' or '.join(repr(name) for name in near)}?"
        return f"there is {_list(self.registry.kinds())}" if self.registry.kinds() else _NO_SPECS_FIX

    def _requestable(self) -> Iterator[str]:
        yield from self.registry.devices
        for kind in self.registry.kinds():
            yield kind
            yield f"{kind}={ALL}"


_CONFLICT_FIX = "remove or rename the device in one of them"
_NO_SPECS_FIX = (
    "'cdi-hpc generate --output DIR' or the vendor's generator makes one; --cdi-dir or "
    f"{ENVIRONMENT_VARIABLE} names its directory"
)


def _both(paths: Iterable[str]) -> str:
    return " and ".join(repr(path) for path in paths)


def _list(values: Iterable[str]) -> str:
    return ", ".join(repr(value) for value in values)
