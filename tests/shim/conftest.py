"""The shim with sanitizers, and a launcher with a backend that somebody else wrote, on a site of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "native"
sys.path[:0] = [str(HERE), str(HERE.parent / "native")]

import native_programs  # noqa: E402
from lab_backend import KIND  # noqa: E402

#: Sources that are a program, not a part of one.
_PROGRAM = ("run.c", "shim.c", "front.c", "launch.c")

#: A distribution that brings the backend, as a site's own would.
METADATA = "Metadata-Version: 2.1\nName: lab-backend\nVersion: 1.0\n"
ENTRY_POINTS = "[cdi_hpc.backends]\nlab-run = lab_backend:LabBackend\n"


@dataclass(frozen=True)
class Programs:
    """Paths of what was built."""

    run: Path
    reading: Path
    launcher: Path


@pytest.fixture(scope="session")
def programs(lab, tmp_path_factory) -> Programs:
    into = tmp_path_factory.mktemp("shim-programs")
    every = sorted(NATIVE.glob("*.c"))
    library = [path for path in every if path.name not in _PROGRAM]
    flags = [*native_programs.FLAGS, f"-I{NATIVE}", *native_programs.SANITIZERS]

    def program(name: str, code: Sequence[Path], flags: Sequence[str | Path]) -> Path:
        done = subprocess.run(["cc", *flags, "-o", into / name, *code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return into / name

    return Programs(
        run=program("cdi-hpc-run", every, flags),
        reading=program("reading-dump", [HERE / "reading_dump.c", *library], flags),
        launcher=program("lab-run", [HERE / "lab_run.c"], []),
    )


@dataclass
class Site:
    """Launcher, drop-in, backend, specs and image of one test."""

    top: Path
    programs: Programs
    env: dict[str, str] = field(default_factory=dict)

    @property
    def image(self) -> Path:
        return self.top / "image"

    @property
    def launcher(self) -> Path:
        """The launcher itself."""
        return self.top / "bin/lab-run"

    @property
    def shim(self) -> Path:
        return self.top / "shims/lab-run"

    @property
    def cache(self) -> Path:
        return self.top / "runtime/cdi-hpc"

    @property
    def probes(self) -> list[str]:
        """How often the launcher was asked what it can do."""
        path = self.top / "probes"
        return path.read_text().splitlines() if path.exists() else []

    def plans(self) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in self.cache.glob("*.plan")}

    def environ(self, **env: str) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CDI_HPC_", "LAB_"))},
            "PATH": f"{self.top}/shims:{self.top}/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.top}/site",
            "XDG_RUNTIME_DIR": f"{self.top}/runtime",
            "CDI_HPC_DIRS": f"{self.top}/cdi",
            "LAB_PROBES": f"{self.top}/probes",
            **native_programs.QUIET_SANITIZERS,
            **self.env,
            **env,
        }

    def run(
        self, program: str | Path, *words: str | Path, env: Mapping[str, str] | None = None, stdin: str = "", **how
    ) -> subprocess.CompletedProcess[str]:
        """Run a program, found on the PATH of the site's users."""
        environ = self.environ(**(env or {}))
        path = shutil.which(program, path=environ["PATH"]) or program
        return subprocess.run(
            [program, *words],
            executable=path,
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **how,
        )

    def write_spec(self, **edits: object) -> None:
        spec = {
            "cdiVersion": "0.6.0",
            "kind": KIND,
            "devices": [{"name": "one", "containerEdits": {"env": ["LAB_DEVICE=one"], **edits}}],
        }
        (self.top / "cdi").mkdir(exist_ok=True)
        (self.top / "cdi/lab.yaml").write_text(yaml.safe_dump(spec))


@pytest.fixture
def site(tmp_path, programs) -> Site:
    site = Site(tmp_path, programs)
    for directory in ("bin", "shims", "site/lab_backend-1.0.dist-info", "image/opt"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "runtime").mkdir(mode=0o700)
    shutil.copy(programs.launcher, site.launcher)
    site.shim.symlink_to(programs.run)
    shutil.copy(HERE / "lab_backend.py", tmp_path / "site")
    (tmp_path / "site/lab_backend-1.0.dist-info/METADATA").write_text(METADATA)
    (tmp_path / "site/lab_backend-1.0.dist-info/entry_points.txt").write_text(ENTRY_POINTS)
    site.write_spec()
    return site
