"""Devices for launches through Apptainer that ask for none: what begins a container has them, nothing else does."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from configured_user import NO_PYTHON, ONE, SAY, TWO, User, make_user

NAME = "apptainer"
WAYS = [(NAME,), ("cdi-hpc", "exec", "--runner=python", NAME)]


@pytest.fixture
def user(lab, tmp_path) -> User:
    user = make_user(tmp_path, lab.image("debian.sif"), NAME)
    user.configure(f"launchers: {{singularity: {{devices: [{ONE}]}}}}")
    return user


@pytest.fixture
def instance(user) -> Iterator[str]:
    """An instance that was started by the launcher itself, without devices."""
    name = f"defaults-{os.getpid()}"
    bare = {"CDI_HPC_DEVICES": "none"}
    assert user.do(NAME, "instance", "start", user.image, name, **bare).returncode == 0
    yield name
    user.do(NAME, "instance", "stop", name)


@pytest.mark.parametrize("way", WAYS)
def test_a_launch_that_asks_for_none_has_those_that_are_configured(way, user):
    for _ in range(2):
        assert user.said(*way, "exec", user.image, *SAY) == "one"
    assert user.said(*way, "exec", "--device", TWO, user.image, *SAY) == "two"
    assert user.said(*way, "exec", "--device=none", user.image, *SAY) == "none"
    assert user.said(*way, "exec", user.image, *SAY, CDI_HPC_DEVICES="none") == "none"


def test_a_later_launch_starts_no_python_whatever_its_command(user):
    assert user.said(NAME, "exec", user.image, *SAY) == "one"
    assert user.said(NAME, "exec", user.image, "printenv", "TOOL", **NO_PYTHON) == "one"


def test_a_directory_is_an_image_too(user, lab):
    for env in ({}, NO_PYTHON):
        assert user.said(NAME, "exec", lab.image("debian-root"), *SAY, **env) == "one"


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["cache", "list"],
        ["instance", "list"],
        ["exec"],
        ["exec", "--nonsense", "IMAGE"],
        ["inspect", "/"],
    ],
)
def test_what_begins_no_container_is_the_launchers_alone(words, user):
    user.said(NAME, "exec", user.image, *SAY)
    path = os.environ["PATH"]
    bare = user.do(NAME, *words, PATH=path)
    through = user.do(NAME, *words, **NO_PYTHON)
    assert (through.returncode, through.stdout, through.stderr) == (bare.returncode, bare.stdout, bare.stderr)


@pytest.mark.parametrize("way", WAYS)
def test_who_joins_an_instance_sees_what_that_was_started_with(way, user, instance):
    for _ in range(2):
        assert user.said(*way, "exec", f"instance://{instance}", *SAY) == "none"
    asked = user.do(*way, "exec", "--device", ONE, f"instance://{instance}", *SAY)
    assert asked.returncode == 125
    assert "was started without" in asked.stderr


def test_an_instance_is_started_with_them(user):
    name = f"with-{os.getpid()}"
    join = (NAME, "exec", f"instance://{name}", *SAY)
    try:
        assert user.do(NAME, "instance", "start", user.image, name).returncode == 0
        for env in ({}, NO_PYTHON):
            assert user.said(*join, **env) == "one"
        assert user.do(NAME, "instance", "stop", name).returncode == 0
        assert user.do(NAME, "instance", "start", user.image, name, CDI_HPC_DEVICES="none").returncode == 0
        assert user.said(*join) == "none"
    finally:
        user.do(NAME, "instance", "stop", name)


def test_a_plan_to_join_an_instance_is_for_that_one_and_none_that_has_its_name_later(user):
    name = f"again-{os.getpid()}"
    join = (NAME, "exec", "--device", TWO, f"instance://{name}", *SAY)
    try:
        assert user.do(NAME, "instance", "start", "--device", TWO, user.image, name).returncode == 0
        for env in ({}, NO_PYTHON):
            assert user.said(*join, **env) == "two"
        assert user.do(NAME, "instance", "stop", name).returncode == 0
        assert user.do(NAME, "instance", "start", "--device=none", user.image, name).returncode == 0
        done = user.do(*join)
        assert (done.returncode, done.stdout) == (125, "")
        assert "was started without" in done.stderr
    finally:
        user.do(NAME, "instance", "stop", name)
