"""Images that Apptainer fetches: looked into before they are run, and not kept."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from oci_images import OciImage
from run.launchers import our_words

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


@pytest.fixture
def left(temporary) -> Path:
    """What a killed launch left."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    directory = temporary / f"cdi-hpc-image-{boot}-left"
    directory.mkdir()
    for name in ("image.sif", "lock"):
        (directory / name).touch()
    let_age(directory)
    return directory


def let_age(directory: Path) -> None:
    """As if its launch had begun an hour ago."""
    os.utime(directory / "lock", (time.time() - 3600,) * 2)


def test_what_a_killed_launch_left_goes_with_the_next_one(by_python, small, oci, tmp_path, temporary, left):
    image = f"oci:{oci.write_layout(tmp_path / 'layout')}"
    assert by_python.run(small, [], ["true"], image=image).returncode == 0
    assert is_empty_soon(temporary)


def test_what_another_launch_has_just_made_stays(by_python, small, oci, tmp_path, temporary, left):
    """It has made its lock, and not yet taken it."""
    (left / "lock").touch()
    image = f"oci:{oci.write_layout(tmp_path / 'layout')}"
    assert by_python.run(small, [], ["true"], image=image).returncode == 0
    assert (left / "image.sif").exists()


def test_what_another_process_or_machine_has_in_use_stays(by_python, small, oci, tmp_path, temporary, left):
    elsewhere = temporary / "cdi-hpc-image-00000000-0000-4000-8000-000000000000-left"
    shutil.copytree(left, elsewhere)  # with its times
    image = f"oci:{oci.write_layout(tmp_path / 'layout')}"
    with (left / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert by_python.run(small, [], ["true"], image=image).returncode == 0
    assert (left / "image.sif").exists()
    assert (elsewhere / "image.sif").exists()


def test_an_image_is_not_taken_for_a_killed_launchs_while_it_is_in_use(by_python, small, oci, tmp_path, temporary):
    image = f"oci:{oci.write_layout(tmp_path / 'layout')}"
    outer = by_python.words
    command = ["sh", "-c", "read line; echo done"]
    with subprocess.Popen(
        [*outer, "-q", "exec", *our_words(small), image, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as launch:
        deadline = time.monotonic() + 60
        while not list(temporary.glob("cdi-hpc-image-*/*.sif")) and time.monotonic() < deadline:
            time.sleep(0.02)
        in_use = {path.parent.name for path in temporary.glob("cdi-hpc-image-*/*.sif")}
        for name in in_use:
            let_age(temporary / name)
        assert by_python.run(small, [], ["true"], image=image).returncode == 0
        assert in_use
        assert in_use <= {*os.listdir(temporary)}
        assert launch.communicate(b"\n")[0] == b"done\n"
    assert is_empty_soon(temporary)
