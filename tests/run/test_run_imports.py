"""Nothing of the image is run by the launcher itself."""

from __future__ import annotations

import shutil
import sys

import pytest

HOSTILE_MODULE = "import pathlib; pathlib.Path('/tmp/{name}-of-the-image').write_text('run')\n"

#: cdi-hpc with what the kernel says of pivot_root on a diskless node that runs from its initramfs.
ON_ROOTFS = (
    sys.executable,
    "-c",
    """
import errno, sys
from cdi_hpc import cli
from cdi_hpc.launch import kernel
real, calls = kernel.pivot_root, []
def refused(new, old):
    calls.append(new)
    if len(calls) == 1:
        raise OSError(errno.EINVAL, "Invalid argument", new)
    return real(new, old)
kernel.pivot_root = refused
cli.main()
""",
)


@pytest.fixture
def image_with_modules(lab, tmp_path):
    """An image that has a module of its own wherever Python looks for one."""
    image = tmp_path / "image"
    shutil.copytree(lab.image("musl"), image, symlinks=True)
    for directory in {path for path in sys.path if path.startswith("/")} | {"/usr/lib/python3/dist-packages"}:
        place = image / directory.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "encodings").mkdir(exist_ok=True)
        for name in ("prctl", "codecs", "encodings/__init__", "encodings/unicode_escape", "shlex"):
            (place / f"{name}.py").write_text(HOSTILE_MODULE.format(name=name.replace("/", "-")))
    return image


def launch(lab, image, *command):
    return lab.run(["cdi-hpc", "run", "--runner=python", str(image), "--", *command])


def test_python_modules_of_an_image_are_not_imported(lab, image_with_modules):
    done = launch(lab, image_with_modules, "sh", "-c", "grep NoNewPrivs /proc/self/status; ls /tmp")
    assert done.returncode == 0, done.stderr
    assert "NoNewPrivs:\t1" in done.stdout
    assert "-of-the-image" not in done.stdout


@pytest.mark.parametrize("name", ["no\x1bsuch", "no\u200bsuch", "no\nsuch"])
def test_a_command_of_unprintable_characters_is_not_found_like_any_other(lab, image_with_modules, name):
    done = launch(lab, image_with_modules, name)
    assert done.returncode == 127
    assert "not found in the container" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_can_be_opened_in_a_dev_of_its_own(lab):
    script = ["script", "-qec", "tty", "/dev/null"]
    done = lab.run(["cdi-hpc", "run", "--runner=python", "--contain", lab.image("debian-root"), "--", *script])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/dev/pts/" in done.stdout


def test_a_root_that_can_not_be_exchanged_is_covered(lab):
    done = lab.run([*ON_ROOTFS, "run", "--runner=python", lab.image("debian-root"), "--", "unshare", "-Ur", "ls", "/"])
    assert done.returncode == 0, done.stderr
    assert "usr" in done.stdout.split()


def test_covering_the_root_leaves_the_hosts_tmp_as_it_is(lab, tmp_path):
    (tmp_path / "file").write_text("the host's")
    assert str(tmp_path).startswith("/tmp/")
    command = ["sh", "-c", 'cat "$0/file"; ls /tmp', tmp_path]
    done = lab.run([*ON_ROOTFS, "run", "--runner=python", lab.image("debian-root"), "--", *command])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the host's")
    assert "work" not in done.stdout.split()
