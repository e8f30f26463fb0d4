"""A watch over the host and the images, for a conftest to import: no launch leaves anything behind."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Where a launch might leave something behind.
LEFTOVERS_IN = ("/tmp", "/var/tmp", "/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "/tmp"), os.environ["HOME"])

#: What may stay: compiled plans, that is what they are for; what Apptainer keeps in every home, and
#: Charliecloud in its storage for images.
MAY_STAY = re.compile(r"cdi-hpc(-[0-9]+)?|\.apptainer|[a-z]+\.ch")


@pytest.fixture(autouse=True)
def host_as_it_was(lab, canary, tmp_path) -> Iterator[None]:
    """No launch leaves a mount, a file or a process's directory behind on the host."""
    before = host_state()
    yield
    after = host_state()
    assert after == before, f"left behind: {sorted(after - before)}, gone: {sorted(before - after)}"


def host_state() -> set[str]:
    """A line for each mount and for each name where something might be left."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    names = (f"{place}/{name}" for place in LEFTOVERS_IN for name in os.listdir(place) if not MAY_STAY.fullmatch(name))
    return {*mounts, *names}


@pytest.fixture(autouse=True, scope="module")
def images_as_they_were(lab) -> Iterator[None]:
    """No launch changes anything in an image, the one owned by the user least of all."""
    images = sorted((lab.root / "images").iterdir())
    before = {image.name: tree_state(image) for image in images}
    yield
    after = {image.name: tree_state(image) for image in images}
    for name, state in before.items():
        assert difference(state, after[name]) == {}, f"image {name} was changed"


def tree_state(top: Path) -> dict[str, tuple]:
    """Every name below a directory, or one file, with what stat(2) tells of it. The time of the last change of the
    inode can't be set back by who writes to a file, so it speaks for contents, owners and modes as well."""
    state = {os.fspath(top): file_state(top)}
    for directory, _, _ in os.walk(top):
        state.update((entry.path, file_state(entry)) for entry in os.scandir(directory))
    return state


def file_state(path: str | os.PathLike[str]) -> tuple:
    found = os.lstat(path)
    link = os.readlink(path) if os.path.islink(path) else ""
    return (found.st_ino, found.st_mode, found.st_size, found.st_ctime_ns, link)


def difference(before: dict[str, tuple], after: dict[str, tuple]) -> dict[str, tuple]:
    names = {*before, *after}
    return {name: (before.get(name), after.get(name)) for name in sorted(names) if before.get(name) != after.get(name)}
