"""Where the contract of a launch holds: a way to launch, an image, and options of the launcher's own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from run.launchers import Apptainer, ChRun, Native, Request, Run, Script, Through, Words, program

Way = Union[Run, Script, Through]


@dataclass(frozen=True)
class Case:
    """Which setting to make: known when tests are collected, before there is a shim.

    Attributes:
        launcher: ch-run, apptainer, or one of our own ways.
        how: ``shim`` or ``exec`` for a launcher that somebody else made.
        image: name of an image of the lab.
        options: of the launcher, in every launch.

    """

    launcher: str
    how: str
    image: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join(
            filter(None, (self.launcher, self.how, self.image, *(word.strip("-") for word in self.options)))
        )


@dataclass(frozen=True)
class Setting:
    """A case, ready to launch.

    Attributes:
        needs: variables that the way needs in a checkout.

    """

    case: Case
    way: Way
    image: Path
    needs: Mapping[str, str] = field(default_factory=dict)

    @property
    def launcher(self) -> str:
        return self.case.launcher

    @property
    def is_through(self) -> bool:
        """A launcher that somebody else made does it."""
        return isinstance(self.way, Through)

    def argv(self, request: Request, command: Words, *, options: Words = (), image: str | Path = "") -> list:
        """A launch with the request's devices."""
        words = [*self.case.options, *options]
        if words:
            return self.way.argv(request, image or self.image, command, options=words)
        return self.way.argv(request, image or self.image, command)

    def bare(self, command: Words, *, options: Words = (), image: str | Path = "") -> list:
        """The same launch by the launcher alone."""
        assert isinstance(self.way, Through)
        return self.way.bare(image or self.image, command, options=[*self.case.options, *options])

    def line(self, words: Words) -> list:
        """The launcher's command line as it is written, after its name."""
        assert isinstance(self.way, Through)
        return [*self.way.words, *words]


#: Every sort of image that a launcher takes, by its drop-in.
THROUGH = (
    Case("ch-run", "shim", "debian-user"),
    Case("ch-run", "shim", "debian-root"),
    Case("ch-run", "shim", "debian.sqfs"),
    Case("apptainer", "shim", "debian-user"),
    Case("apptainer", "shim", "debian-root"),
    Case("apptainer", "shim", "debian.sqfs"),
    Case("apptainer", "shim", "debian.sif"),
    Case("apptainer", "shim", "debian.sif", ("--contain",)),
)

#: The other way, which does the same.
BY_EXEC = (Case("ch-run", "exec", "debian-root"), Case("apptainer", "exec", "debian.sif"))

EMBEDDED = (
    Case("run", "", "debian-root"),
    Case("native", "", "debian.sqfs"),
    Case("script", "", "debian-user"),
)


#: What a way needs, where it is not a program of its own name. Debian 14 has pivot_root in util-linux-extra.
NEEDS = {"run": "cdi-hpc", "native": "cdi-hpc", "script": "pivot_root"}


def installed(cases: tuple[Case, ...]) -> list[Case]:
    """Those whose launcher this machine has."""
    return [case for case in cases if shutil.which(NEEDS.get(case.launcher, case.launcher))]


def one_per_way(cases: list[Case]) -> list[Case]:
    """For what does not depend on the image: the last case of each way that needs no further option."""
    plain = {(case.launcher, case.how): case for case in cases if not case.options}
    return list(plain.values())


def make(case: Case, image: Path, shims: Path, scripts: Path) -> Setting:
    """The setting of a case.

    Args:
        image: path of the case's image.
        shims: directory with the drop-ins.
        scripts: directory for scripts that are made once.

    """
    way = way_of(case, shims, scripts)
    return Setting(case, way, image, way.needs)


def way_of(case: Case, shims: Path, scripts: Path) -> Way:
    if case.launcher == "run":
        return Run()
    if case.launcher == "native":
        return Native()
    if case.launcher == "script":
        return Script(scripts)
    kind = {"ch-run": ChRun, "apptainer": Apptainer}[case.launcher]
    words = [str(shims / case.launcher)] if case.how == "shim" else [program(), "exec", case.launcher]
    return kind(case.how, words)
