"""The contract of a launch is held in every setting that this machine has the launcher for: nothing is skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from run.launchers import Request, program, write_small_spec, write_spec
from run.watch import host_as_it_was, images_as_they_were
from settings import BY_EXEC, EMBEDDED, THROUGH, Case, Setting, installed, make, one_per_way

__all__ = ["host_as_it_was", "images_as_they_were"]

#: Fixture -> the cases it takes: every setting, those of other people's launchers, and one for each way.
CASES: dict[str, list[Case]] = {
    "setting": installed((*EMBEDDED, *THROUGH)),
    "through": installed(THROUGH),
    "way": one_per_way(installed((*EMBEDDED, *THROUGH, *BY_EXEC))),
    "launcher": one_per_way(installed((*THROUGH, *BY_EXEC))),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, cases in CASES.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, cases, indirect=True, ids=str)


@pytest.fixture(scope="session")
def shims(tmp_path_factory) -> Path:
    """The drop-ins, as a user has them written."""
    directory = tmp_path_factory.mktemp("shims")
    made = subprocess.run([program(), "shims", directory], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return directory


@pytest.fixture(scope="session")
def setting_of(lab, request, tmp_path_factory) -> Callable[[Case], Setting]:
    scripts = tmp_path_factory.mktemp("scripts")

    def setting(case: Case) -> Setting:
        shims = request.getfixturevalue("shims") if case.how == "shim" else Path()
        return make(case, lab.image(case.image), shims, scripts)

    return setting


@pytest.fixture
def setting(request, setting_of) -> Setting:
    """Any setting."""
    return setting_of(request.param)


@pytest.fixture
def through(request, setting_of) -> Setting:
    """Any setting of a launcher that somebody else made."""
    return setting_of(request.param)


@pytest.fixture
def way(request, setting_of) -> Setting:
    """Each way to launch, with one image."""
    return setting_of(request.param)


@pytest.fixture
def launcher(request, setting_of) -> Setting:
    """Each way to launch through somebody else's launcher, with one image."""
    return setting_of(request.param)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Request:
    """One device that wants a bit of everything: a variable, a device node, a file, a directory and a link.

    What it mounts lies where no launcher puts anything by itself.
    """
    return write_small_spec(tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("small-source"))


@pytest.fixture
def spec(tmp_path) -> Callable[..., Request]:
    """Write a spec: ``spec({"name": edits})``."""
    return lambda devices, **options: write_spec(tmp_path / "cdi", devices, **options)


@pytest.fixture
def recorded(tmp_path, monkeypatch) -> Callable[[], list[str]]:
    """The real launchers come first on PATH as programs that write down how they are started, then start.

    Returns a function for what was written: a line for each start.
    """
    log = tmp_path / "started"
    log.touch()
    directory = tmp_path / "recording"
    directory.mkdir()
    for case in one_per_way(installed(THROUGH)):
        path = directory / case.launcher
        real = next(
            folder + "/" + case.launcher for folder in os.get_exec_path() if os.path.exists(f"{folder}/{case.launcher}")
        )
        path.write_text(f'#!/bin/sh\necho "$0 $*" >>{log}\nexec {real} "$@"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return lambda: log.read_text().splitlines()
