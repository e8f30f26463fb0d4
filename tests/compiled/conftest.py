"""A site of each test's own, with an image that it may change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from compiled_launch import Namespaces, Site, make_site, make_small_image


@pytest.fixture(scope="session")
def template(lab, tmp_path_factory) -> Path:
    """A small Debian image, to be copied."""
    return make_small_image(tmp_path_factory.mktemp("template") / "image", lab.image("debian-root"))


@pytest.fixture
def site(template, tmp_path) -> Iterator[Site]:
    top = tmp_path / "site"
    top.mkdir()
    yield make_site(top, template)
    shutil.rmtree(top, ignore_errors=True)  # ten megabytes each, in memory


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    made = Namespaces()
    yield made
    made.leave()
