"""What the launch tests share: a small spec, the ways to launch, and a watch over the host and the images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from launchers import Launcher, Native, Request, Run, Script, write_small_spec, write_spec
from watch import host_as_it_was, images_as_they_were

__all__ = ["host_as_it_was", "images_as_they_were"]


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
    return write_small_spec(tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("small-source"))


@pytest.fixture
def spec(tmp_path) -> Callable[..., Request]:
    """Write a spec: ``spec({"name": edits})``."""
    return lambda devices, **options: write_spec(tmp_path / "cdi", devices, **options)
