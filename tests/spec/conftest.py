"""The reference library as a fixture: a program that the test lab builds from tests/oracle/main.go."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest


def _oracle_path() -> Path:
    named = os.environ.get("CDI_HPC_ORACLE")
    lab = os.environ.get("CDI_HPC_LAB", "/var/cache/cdi-hpc-lab")
    path = Path(named) if named else Path(lab) / "oracle" / "oracle"
    if not os.access(path, os.X_OK):
        pytest.fail(
            f"the reference library's program is not at {path}: run scripts/test, which builds it, "
            "or name one in CDI_HPC_ORACLE",
            pytrace=False,
        )
    return path


class Oracle:
    """Asks the reference library.

    Attributes:
        version: the newest CDI version that it knows.

    """

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version: str = self._answer()["version"]

    def ask(self, directories, devices=()):
        """The answer for these spec directories and this request, as tests/oracle/main.go describes it."""
        question = {"dirs": [str(path) for path in directories], "devices": list(devices)}
        assert self._process.stdin
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self):
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the oracle ended"
        return json.loads(line)

    def close(self):
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="session")
def oracle():
    asked = Oracle(_oracle_path())
    yield asked
    asked.close()
