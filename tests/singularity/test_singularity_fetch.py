"""Images that Apptainer fetches: looked into before they are run, and not kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from oci_images import OciImage

COMMAND = ["sh", "-c", "cat /opt/lab/link; echo $APPTAINER_NAME"]


@pytest.fixture(scope="module")
def oci(lab) -> OciImage:
    return OciImage(lab.image("musl"))


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where images are put while they are used."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("APPTAINER_TMPDIR", str(directory))
    monkeypatch.setenv("APPTAINER_CACHEDIR", str(tmp_path / "apptainer"))
    return directory


def is_empty_soon(directory: Path) -> bool:
    """What removes it only begins when the launch has ended."""
    deadline = time.monotonic() + 30
    while os.listdir(directory) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not os.listdir(directory)


def test_a_layout_and_an_archive(apptainer, small, oci, tmp_path, temporary):
    images = {
        f"oci:{oci.write_layout(tmp_path / 'layout')}": "layout.sif",
        f"docker-archive:{oci.write_archive(tmp_path / 'archive.tar')}": "archive.tar.sif",
    }
    for image, name in images.items():
        assert apptainer.said(small, [], COMMAND, image=image) == f"from the host\n{name}\n"
        assert is_empty_soon(temporary)


def test_a_registry_is_reached_as_the_user_says(apptainer, small, oci, temporary):
    with oci.served("lab/image") as registry:
        said = apptainer.said(small, ["--no-https"], COMMAND, image=registry.reference)
    assert said == "from the host\nimage_latest.sif\n"
    assert "/v2/lab/image/manifests/latest" in registry.asked
    assert is_empty_soon(temporary)


def test_each_launch_asks_again_which_image_it_is(apptainer, small, oci, temporary):
    with oci.served("lab/image") as registry:
        for _ in range(2):
            registry.asked.clear()
            assert apptainer.run(small, ["--no-https"], ["true"], image=registry.reference).returncode == 0
            assert "/v2/lab/image/manifests/latest" in registry.asked


def test_what_cannot_be_fetched_is_named_after_the_launchers_own_words(by_python, small, oci, temporary):
    with oci.served("lab/image") as registry:
        reference = registry.reference.replace("/image", "/nothing")
        done = by_python.run(small, ["--no-https"], ["true"], image=reference)
    assert done.returncode == 125
    assert f"image {reference}: apptainer pull failed" in done.stderr.decode().splitlines()[-1]
    assert is_empty_soon(temporary)


def test_nothing_is_fetched_for_a_device_that_is_not_there(by_python, oci, temporary):
    with oci.served("lab/image") as registry:
        options = ["--no-https", "--device", "nvidia.com/gpu=99"]
        assert by_python.run(None, options, ["true"], image=registry.reference).returncode == 125
    assert registry.asked == []


def test_what_a_killed_launch_left_goes_with_the_next_one(by_python, small, oci, tmp_path, temporary):
    left = temporary / "cdi-hpc-image-999999999-left"
    left.mkdir()
    (left / "image.sif").touch()
    image = f"oci:{oci.write_layout(tmp_path / 'layout')}"
    assert by_python.run(small, [], ["true"], image=image).returncode == 0
    assert is_empty_soon(temporary)
