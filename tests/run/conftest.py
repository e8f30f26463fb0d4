"""What the launch tests share: a small spec, the ways to launch, and a watch over the host and the images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launchers import Launcher, Native, Request, Run, Script, write_spec

#: Where a launch might leave something behind.
LEFTOVERS_IN = ("/tmp", "/var/tmp", "/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "/tmp"), os.environ["HOME"])


@pytest.fixture(scope="session")
def ways(tmp_path_factory) -> dict[str, Launcher]:
    return {"run": Run(), "native": Native(), "script": Script(tmp_path_factory.mktemp("scripts"))}


@pytest.fixture(params=["run", "native", "script"])
def launcher(request, ways) -> Launcher:
    return ways[request.param]


@pytest.fixture(params=["run", "native"])
def run(request, ways) -> Launcher:
    """``cdi-hpc run``, by either of its runners."""
    return ways[request.param]


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Request:
    """One device that wants a bit of everything: a variable, a device node, a file, a directory and a link."""
    directory = tmp_path_factory.mktemp("small")
    source = tmp_path_factory.mktemp("small-source")
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


@pytest.fixture
def spec(tmp_path) -> Callable[..., Request]:
    """Write a spec: ``spec({"name": edits})``."""
    return lambda devices, **options: write_spec(tmp_path / "cdi", devices, **options)


# The watch --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def host_as_it_was(lab, canary, tmp_path) -> Iterator[None]:
    """No launch leaves a mount, a file or a process's directory behind on the host."""
    before = host_state()
    yield
    assert host_state() == before


def is_leftover(name: str) -> bool:
    return re.fullmatch(r"cdi-hpc(-[0-9]+)?", name) is None


def host_state() -> dict[str, object]:
    # Compiled plans stay: that is what they are for.
    listings = {directory: sorted(filter(is_leftover, os.listdir(directory))) for directory in LEFTOVERS_IN}
    return {"mounts": Path("/proc/self/mountinfo").read_text().splitlines(), **listings}


@pytest.fixture(autouse=True, scope="module")
def images_as_they_were(lab) -> Iterator[None]:
    """No launch changes anything in an image, the one owned by the user least of all."""
    images = [path for path in sorted((lab.root / "images").iterdir()) if path.is_dir()]
    before = {image.name: tree_state(image) for image in images}
    yield
    after = {image.name: tree_state(image) for image in images}
    for name, state in before.items():
        assert difference(state, after[name]) == {}, f"image {name} was changed"


def tree_state(top: Path) -> dict[str, tuple]:
    """Every name below a directory with what stat(2) tells of it. The time of the last change of the inode can't be
    set back by who writes to a file, so it speaks for contents, owners and modes as well."""
    state = {}
    for directory, _, _ in os.walk(top):
        for entry in [Path(directory), *os.scandir(directory)]:
            found = os.lstat(entry)
            link = os.readlink(entry) if os.path.islink(entry) else ""
            state[os.fspath(entry)] = (found.st_ino, found.st_mode, found.st_size, found.st_ctime_ns, link)
    return state


def difference(before: dict[str, tuple], after: dict[str, tuple]) -> dict[str, tuple]:
    names = {*before, *after}
    return {name: (before.get(name), after.get(name)) for name in sorted(names) if before.get(name) != after.get(name)}
