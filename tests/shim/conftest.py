"""The shim as users have it, the same with sanitizers, and a launcher that shows what it was given."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
NATIVE = CHECKOUT / "native"
sys.path[:0] = [str(HERE), str(HERE.parent / "native")]

import native_programs  # noqa: E402

#: Sources with a part of their own in what is said or executed.
_PROGRAM = ("run.c", "shim.c", "front.c", "launch.c")


@dataclass(frozen=True)
class Programs:
    """Paths of what was built with sanitizers."""

    run: Path
    reading: Path


@pytest.fixture(scope="session")
def programs(lab, tmp_path_factory) -> Programs:
    into = tmp_path_factory.mktemp("shim-programs")
    every = sorted(NATIVE.glob("*.c"))
    library = [path for path in every if path.name not in _PROGRAM]

    def program(name: str, code: Sequence[Path]) -> Path:
        flags = [*native_programs.FLAGS, f"-I{NATIVE}", *native_programs.SANITIZERS]
        done = subprocess.run(["cc", *flags, "-o", into / name, *code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return into / name

    return Programs(
        run=program("cdi-hpc-run", every), reading=program("reading-dump", [HERE / "reading_dump.c", *library])
    )
