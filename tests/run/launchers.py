"""Ways to launch a command in an image with devices: what every one of them promises is tested on each."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Union

import yaml

from cdi_hpc.cli import FRONT_VARIABLE, find_runner

#: Images that commands can be run in. "/" is the host itself.
IMAGES = ("debian-root", "debian-user", "bare", "links", "musl", "/")

Words = Sequence[Union[str, bytes]]


@dataclass(frozen=True)
class Request:
    """Devices, and the CDI directories that they are looked up in (none: the host's)."""

    devices: tuple[str, ...]
    directories: tuple[str, ...] = ()


class Launcher(Protocol):
    """A way to launch.

    Attributes:
        name: what tests are called by.
        takes_files: a SquashFS file is an image, not only a directory.
        needs: variables that it needs to be found by itself in a checkout; an installed one needs none.

    """

    name: str
    takes_files: bool
    needs: Mapping[str, str]

    def argv(self, request: Request, image: str | Path, command: Sequence[str | bytes], *, stage: str) -> list: ...


class Run:
    """``cdi-hpc run`` by Python."""

    name = "run"
    takes_files = True
    needs: Mapping[str, str] = {}

    def words(self) -> list[str]:
        return [program(), "run", "--runner=python"]

    def argv(
        self,
        request: Request,
        image: str | Path,
        command: Sequence[str | bytes],
        *,
        stage: str = "auto",
        options: Sequence[str | bytes] = (),
    ) -> list:
        devices = [word for device in request.devices for word in ("--device", device)]
        directories = [word for directory in request.directories for word in ("--cdi-dir", directory)]
        return [*self.words(), "--stage", stage, *directories, *devices, *options, image, "--", *command]


class Native(Run):
    """``cdi-hpc-run``: the first launch of a kind compiles its plan, later ones replay it."""

    name = "native"

    @property
    def needs(self) -> Mapping[str, str]:
        return {FRONT_VARIABLE: program()}

    def words(self) -> list[str]:
        runner = find_runner({})
        assert runner is not None, "the native runner is not built: make -C native"
        return [runner]


class Script:
    """The bash script of ``cdi-hpc script``, made once for each request."""

    name = "script"
    takes_files = False
    needs: Mapping[str, str] = {}

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def argv(self, request: Request, image: str | Path, command: Sequence[str | bytes], *, stage: str = "auto") -> list:
        return [shutil.which("bash"), self.script(request), f"--stage={stage}", image, *command]

    def script(self, request: Request) -> Path:
        path = self.directory / f"{hashlib.sha256(repr(request).encode()).hexdigest()[:16]}.sh"
        if not path.exists():
            directories = [word for directory in request.directories for word in ("--cdi-dir", directory)]
            made = subprocess.run(
                [program(), "script", *directories, *request.devices], capture_output=True, check=False
            )
            assert made.returncode == 0, made.stderr.decode()
            path.write_bytes(made.stdout)
        return path


class Through:
    """A launcher that somebody else made, with our options among its own.

    Attributes:
        launcher: its command.
        takes: images that it is tested with, as the fixture ``lab`` names them.

    """

    launcher = ""
    takes: tuple[str, ...] = ()

    def __init__(self, how: str, words: Sequence[str]) -> None:
        self.how = how
        self.words = tuple(words)
        self.needs: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        return f"{self.launcher}-{self.how}"

    def argv(
        self,
        request: Request,
        image: str | Path,
        command: Sequence[str | bytes],
        *,
        options: Sequence[str | bytes] = (),
    ) -> list:
        """With the request's devices."""
        return self.line([*self.words], [*our_words(request), *options], image, command)

    def bare(
        self,
        image: str | Path,
        command: Sequence[str | bytes],
        *,
        options: Sequence[str | bytes] = (),
        program: str = "",
    ) -> list:
        """The same launch without us."""
        return self.line([program or self.launcher], options, image, command)

    def line(self, words: Words, options: Words, image: str | Path, command: Words) -> list:
        raise NotImplementedError


class ChRun(Through):
    """Charliecloud's ``ch-run``."""

    launcher = "ch-run"
    takes = ("debian-user", "debian-root", "debian.sqfs")

    def line(self, words: Words, options: Words, image: str | Path, command: Words) -> list:
        return [*words, *options, image, "--", *command]


class Apptainer(Through):
    """``apptainer exec``."""

    launcher = "apptainer"
    takes = ("debian-user", "debian-root", "debian.sqfs", "debian.sif")

    def line(self, words: Words, options: Words, image: str | Path, command: Words) -> list:
        return [*words, "exec", *options, image, *command]


def our_words(request: Request) -> list[str]:
    """A request as options that every shim knows."""
    directories = ["--cdi-dirs", ":".join(request.directories)] if request.directories else []
    return [*directories, *(word for device in request.devices for word in ("--device", device))]


def program() -> str:
    """Where cdi-hpc is: a test may run it with another PATH, or none."""
    found = shutil.which("cdi-hpc")
    assert found is not None, "cdi-hpc is not on the PATH"
    return os.path.realpath(found)


def start(
    argv: Sequence[str | bytes | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = 120,
    **options,
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end, as bytes; ``env`` is added to the environment."""
    return subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        input=stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
        **options,
    )


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Standard output of a command that succeeded."""
    assert done.returncode == 0, done.stderr.decode("utf-8", "backslashreplace")
    return done.stdout.decode("utf-8", "surrogateescape")


def place_of(lab, image: str) -> str:
    """The argument that names an image."""
    return image if image == "/" else str(lab.image(image))


def write_spec(
    directory: Path, devices: Mapping[str, dict], *, kind: str = "lab.example/thing", edits: dict | None = None
) -> Request:
    """A spec file of these devices; the request asks for the first of them."""
    spec = {
        "cdiVersion": "0.6.0",
        "kind": kind,
        "devices": [{"name": name, "containerEdits": value} for name, value in devices.items()],
        "containerEdits": edits or {},
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{kind.replace('/', '-')}.yaml").write_text(yaml.safe_dump(spec))
    return Request((f"{kind}={next(iter(devices))}",), (str(directory),))


def write_small_spec(directory: Path, source: Path) -> Request:
    """One device that wants a bit of everything: a variable, a device node, a file, a directory and a link.

    Args:
        directory: for the spec.
        source: empty directory for what it mounts.

    """
    (source / "file").write_text("from the host\n")
    (source / "directory").mkdir()
    (source / "directory" / "entry").write_text("in a directory of the host\n")
    edits = {
        "env": ["LAB_VARIABLE=from the spec"],
        "deviceNodes": [{"path": "/dev/null"}],
        "mounts": [
            {"hostPath": f"{source}/file", "containerPath": "/opt/lab/file", "options": ["ro", "nosuid", "nodev"]},
            {"hostPath": f"{source}/directory", "containerPath": "/opt/lab/directory", "options": ["ro", "rbind"]},
        ],
        "hooks": [
            {
                "hookName": "createContainer",
                "path": "/usr/bin/nvidia-cdi-hook",
                "args": ["nvidia-cdi-hook", "create-symlinks", "--link", "file::/opt/lab/link"],
            }
        ],
    }
    return write_spec(directory, {"one": edits})
