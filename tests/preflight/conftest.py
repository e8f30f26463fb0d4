"""An image with an old C library, a host with new libraries, and the plan that brings them together."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, field
from pathlib import Path

import linked
import pytest
from linked import LIBRARIES, OLD_GLIBC

from cdi_hpc.container.preflight import Misfit, check
from cdi_hpc.container.stage import Assembly, assemble
from cdi_hpc.plan import Action, Bind, UpdateLdCache
from cdi_hpc.spec.model import Origin

ORIGIN = Origin("/etc/cdi/test.yaml", "", "mounts[0]")


@dataclass
class World:
    """An image and a host, both small and real.

    Attributes:
        actions: of the plan.

    """

    image: Path
    host: Path
    actions: list[Action] = field(default_factory=list)

    def provides(self, soname: str, *versions: str, where: str = LIBRARIES, flags: tuple[str, ...] = ()) -> Path:
        """Put a library into the image."""
        return linked.provider(Path(f"{self.image}{where}/{soname}"), soname, versions, flags=flags)

    def library(self, name: str, needs: dict[str, list[str]], **options) -> Path:
        """A library of the host."""
        return linked.library(self.host / "lib" / name, needs, **options)

    def bind(self, source: Path, target: str = "") -> None:
        """Have a file or a directory of the host in the container."""
        kind = "directory" if source.is_dir() else "file"
        target = target or posixpath.join(LIBRARIES, source.name)
        self.actions.append(Bind(os.path.realpath(source), target, kind, ORIGIN))

    def assembly(self) -> Assembly:
        return assemble(self.actions, os.path.realpath(self.image))

    def misfits(self, *, cache: bool = True) -> list[Misfit]:
        """What pre-flight says, with or without a hook that makes the loader's cache anew."""
        if cache:
            self.actions.append(UpdateLdCache((LIBRARIES,), ORIGIN))
        return check(self.assembly(), "x86_64")

    def said(self, **options) -> list[str]:
        return [str(misfit) for misfit in self.misfits(**options)]


@pytest.fixture
def world(tmp_path) -> World:
    """An image with glibc 2.28."""
    made = World(tmp_path / "image", tmp_path / "host")
    made.image.mkdir(mode=0o755)
    (made.image / "etc").mkdir()
    (made.image / "etc/debian_version").write_text("10.13\n")
    made.provides("libc.so.6", *OLD_GLIBC)
    return made
