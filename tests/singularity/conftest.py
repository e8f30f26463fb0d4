"""What the tests of the backend share. Real launches are tested where Apptainer is installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from run.launchers import Request, our_words, program, said, start, write_spec
from run.watch import host_as_it_was, images_as_they_were

__all__ = ["host_as_it_was", "images_as_they_were"]

collect_ignore = (
    []
    if shutil.which("apptainer")
    else [
        "test_singularity_defaults.py",
        "test_singularity_fetch.py",
        "test_singularity_launch.py",
    ]
)


@dataclass(frozen=True)
class Launches:
    """Launches by ``cdi-hpc exec apptainer``.

    Attributes:
        words: before the launcher's own.
        image: path of the image, unless another one is named.

    """

    words: tuple[str, ...]
    image: Path

    def run(
        self, request: Request | None, options: Sequence[str | Path], command: Sequence[str], **others
    ) -> CompletedProcess[bytes]:
        """``exec`` (or another ``subcommand``) with the request's devices, which come first."""
        subcommand = others.pop("subcommand", ("exec",))
        image = others.pop("image", self.image)
        asked = [] if request is None else our_words(request)
        return start([*self.words, "-q", *subcommand, *asked, *options, image, *command], **others)

    def said(self, request: Request | None, options: Sequence[str | Path], command: Sequence[str], **others) -> str:
        """Standard output of a launch that went well."""
        return said(self.run(request, options, command, **others))


@pytest.fixture(params=["native", "python"])
def apptainer(request, lab) -> Launches:
    """With the compiled plan and without, on a SIF."""
    words = (program(), "exec", f"--runner={request.param}", "apptainer")
    return Launches(words, lab.image("debian.sif"))


@pytest.fixture
def by_python(lab) -> Launches:
    """For what does not depend on who does the mounts."""
    return Launches((program(), "exec", "--runner=python", "apptainer"), lab.image("debian.sif"))


@pytest.fixture
def bare(lab) -> Launches:
    """Apptainer alone."""
    found = shutil.which("apptainer")
    assert found is not None
    return Launches((found,), lab.image("debian.sif"))


@pytest.fixture
def source(tmp_path) -> Path:
    """A directory that specs mount from."""
    path = tmp_path / "source"
    (path / "directory" / "inner").mkdir(parents=True)
    (path / "file").write_text("from the host\n")
    (path / "directory" / "entry").write_text("in a directory of the host\n")
    (path / "directory" / "inner" / "deep").write_text("deep\n")
    (path / "directory" / "link").symlink_to("entry")
    return path


@pytest.fixture
def spec(tmp_path) -> Callable[[dict], Request]:
    """Write a spec with one device."""
    return lambda edits: write_spec(tmp_path / "cdi", {"one": edits})


@pytest.fixture
def small(spec, source) -> Request:
    """A device with a variable, a node, a file and a link."""
    mount = {"hostPath": f"{source}/file", "containerPath": "/opt/lab/file", "options": ["ro", "nosuid", "nodev"]}
    link = ["nvidia-cdi-hook", "create-symlinks", "--link", "file::/opt/lab/link"]
    hook = {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": link}
    edits = {"env": ["LAB_VARIABLE=from the spec"], "deviceNodes": [{"path": "/dev/nvidia0"}], "mounts": [mount]}
    return spec({**edits, "hooks": [hook]})
