"""The native programs, built for these tests with sanitizers, and plans for them."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from native_programs import Cache, Launcher, Programs, build


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Programs:
    return build(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="session")
def dump(programs):
    """What the reader makes of the bytes of a file: the bytes again, or its complaint."""

    def read(path: Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([programs.dump, path], capture_output=True, check=False, timeout=60)

    return read


@pytest.fixture
def cache(tmp_path, programs) -> Iterator[Cache]:
    """A private cache, and a front that says what it was asked for instead of compiling."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    front = tmp_path / "front"
    front.write_text('#!/bin/sh\nprintf "front"; printf " <%s>" "$@"; echo\necho "compiled=$CDI_HPC_COMPILED"\n')
    front.chmod(0o755)
    umask = os.umask(0o022)
    yield Cache(programs, runtime, front)
    os.umask(umask)
    for path in runtime.rglob("*"):  # a stage's directories have the modes of the image's
        if stat.S_ISDIR(path.lstat().st_mode):
            path.chmod(0o700)


@pytest.fixture(params=["new", "old"])
def launcher(request, tmp_path, programs) -> Launcher:
    """Plans for a launcher, replayed with the newer mount calls and with the old ones."""
    (tmp_path / "stage").mkdir(mode=0o755)
    return Launcher(programs, tmp_path, {"CDI_HPC_MOUNT_API": request.param})
