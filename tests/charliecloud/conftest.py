"""What the tests of the backend share: launches by ``cdi-hpc exec``, small specs, an image of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from run.launchers import Request, program, said, start, write_spec


@dataclass(frozen=True)
class Launches:
    """Launches with a request's devices.

    Attributes:
        words: before ch-run's own.
        image: path of the image, unless another one is named.

    """

    words: tuple[str, ...]
    image: Path

    def argv(
        self, request: Request | None, options: Sequence[str | Path], command: Sequence[str], *, image: str | Path = ""
    ) -> list[str | Path]:
        """With the devices as the first options."""
        asked = [] if request is None else [f"--cdi-dirs={request.directories[0]}", f"--cdi={request.devices[0]}"]
        return [*self.words, *asked, *options, image or self.image, "--", *command]

    def run(
        self, request: Request | None, options: Sequence[str | Path], command: Sequence[str], **others
    ) -> CompletedProcess[bytes]:
        return start(self.argv(request, options, command, image=others.pop("image", "")), **others)

    def said(self, request: Request | None, options: Sequence[str | Path], command: Sequence[str], **others) -> str:
        """Standard output of a launch that went well."""
        return said(self.run(request, options, command, **others))


@pytest.fixture(params=["native", "python"])
def ch_run(request, lab) -> Launches:
    """``cdi-hpc exec ch-run``, with the compiled plan and without, in an image that somebody else owns."""
    words = (program(), "exec", f"--runner={request.param}", "ch-run")
    return Launches(words, lab.image("debian-root"))


@pytest.fixture
def bare(lab) -> Launches:
    """ch-run alone."""
    found = shutil.which("ch-run")
    assert found is not None
    return Launches((found,), lab.image("debian-root"))


@pytest.fixture
def own_image(lab, tmp_path) -> Path:
    """A small image that is ours to write to."""
    copy = tmp_path / "image"
    shutil.copytree(lab.image("musl"), copy, symlinks=True)
    return copy


@pytest.fixture
def source(tmp_path) -> Path:
    """A file that specs mount."""
    path = tmp_path / "source"
    path.write_text("from the host\n")
    return path


@pytest.fixture
def spec(tmp_path) -> Callable[[dict], Request]:
    """Write a spec with one device."""
    return lambda edits: write_spec(tmp_path / "cdi", {"one": edits})


@pytest.fixture
def small(spec, source) -> Request:
    """A device with a file and a variable."""
    mount = {"hostPath": str(source), "containerPath": "/opt/lab/file", "options": ["ro", "nosuid", "nodev"]}
    return spec({"env": ["LAB_VARIABLE=from the spec"], "mounts": [mount]})
