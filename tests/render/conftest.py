"""What a script mounts in these tests: a directory of the host, and an image that may be changed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path) -> Path:
    """A directory of the host with a file, a directory and a link in it."""
    directory = tmp_path / "source"
    (directory / "below").mkdir(parents=True)
    (directory / "file").write_text("from the host\n")
    (directory / "below" / "entry").write_text("below\n")
    (directory / "link").symlink_to("file")
    return directory


@pytest.fixture
def image(lab, tmp_path) -> Path:
    """A copy of the lab's smallest image; its shell is ``/bin/busybox sh``."""
    copy = tmp_path / "image"
    subprocess.run(["cp", "-a", lab.image("musl"), copy], check=True)
    return copy
