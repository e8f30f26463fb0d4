"""What ch-run's image argument leads to: found as ch-run finds it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from releases import EARLY, LATE, invocation

from cdi_hpc.backend import Located
from cdi_hpc.backends.charliecloud.images import locate, stored_path
from cdi_hpc.errors import CdiError

PLACE = "/run/user/1/cdi-hpc/image"


@pytest.fixture
def storage(tmp_path) -> Path:
    storage = tmp_path / "storage"
    for name in ("plain", "debian+12", "a%b%c+latest"):
        (storage / "img" / name).mkdir(parents=True)
    return storage


def located(words: list[str], environ: dict[str, str], profile=LATE) -> Located:
    return locate(invocation([*words, "--", "true"], profile), profile, environ, PLACE)


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("plain", "plain"),
        ("debian:12", "debian+12"),
        ("debian+12", "debian+12"),
        ("a/b/c:latest", "a%b%c+latest"),
        ("a%b%c+latest", "a%b%c+latest"),
    ],
)
def test_a_name_is_looked_up_in_storage(name, directory, storage):
    found = located([name], {"CH_IMAGE_STORAGE": str(storage)})
    assert (found.kind, found.path, found.place) == ("directory", *[f"{storage}/img/{directory}"] * 2)


def test_storage_is_that_of_the_option_then_of_the_environment_then_the_users(storage):
    environ = {"CH_IMAGE_STORAGE": "/elsewhere", "USER": "me"}
    assert stored_path(invocation(["-s", "/other", "-s", str(storage), "plain", "true"]), environ) == (
        f"{storage}/img/plain"
    )
    assert stored_path(invocation(["plain", "true"]), environ) == "/elsewhere/img/plain"
    assert stored_path(invocation(["plain", "true"]), {"USER": "me"}) == "/var/tmp/me.ch/img/plain"
    assert stored_path(invocation(["plain", "true"]), {}) is None


def test_a_name_comes_before_a_path(storage, tmp_path, monkeypatch):
    (tmp_path / "work" / "plain").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    environ = {"CH_IMAGE_STORAGE": str(storage)}
    assert located(["plain"], environ).path == f"{storage}/img/plain"
    assert located(["./plain"], environ).path == f"{tmp_path}/work/plain"


def test_a_path_is_relative_and_through_links_as_any_other(tmp_path, monkeypatch):
    (tmp_path / "images" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to("images/real")
    monkeypatch.chdir(tmp_path / "images" / "real")
    for argument in ("../real", str(tmp_path / "link"), str(tmp_path / "link") + "/"):
        assert located([argument], {}).place == f"{tmp_path}/images/real"


def test_a_squashfs_file_is_told_by_its_content(lab, tmp_path):
    shutil.copy(lab.image("debian-root").with_name("musl.sqfs"), tmp_path / "any.name")
    found = located([str(tmp_path / "any.name")], {})
    assert (found.kind, found.path, found.place) == ("squashfs", f"{tmp_path}/any.name", PLACE)
    assert found.files is not None
    assert "bin" in {name for name, _ in found.files.scan("/")}


def test_an_image_by_name_that_is_written_to_is_put_elsewhere(storage):
    environ = {"CH_IMAGE_STORAGE": str(storage)}
    for word in ("-W", "--write-fake=1g", "--home"):
        assert located([word, "plain"], environ).place == PLACE
    assert located(["--home", "plain"], environ, EARLY).place == f"{storage}/img/plain"
    assert located(["-W", str(storage)], environ).place == str(storage)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_bytes(b"#!/bin/sh\n"), "is a file, but not of SquashFS"),
        (lambda path: path.write_bytes(b""), "is a file, but not of SquashFS"),
        (lambda path: path.write_bytes(b"hsqs" + bytes(200)), "image .*/image: "),
        (lambda path: (path.write_bytes(b"hsqs"), path.chmod(0)), "Permission denied"),
        (lambda path: path.mkdir(mode=0o300), "Permission denied"),
        (os.mkfifo, "is neither a directory nor a file"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(make, complaint, tmp_path):
    path = tmp_path / "image"
    make(path)
    with pytest.raises(CdiError, match=complaint) as error:
        located([str(path)], {})
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in str(error.value)
