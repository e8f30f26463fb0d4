"""What an image argument leads to; a plan for a file is the plan for its directory."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import pytest
import squashed
from views import view

from cdi_hpc.container.compose import Composition, compose
from cdi_hpc.container.steps import BindHost
from cdi_hpc.errors import CdiError
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import embedded
from cdi_hpc.launch.image import read_image
from cdi_hpc.resolve.lookup import resolve_devices
from cdi_hpc.translation.translate import translate
from cdi_hpc.witness import Recorder


@pytest.fixture(scope="session", params=["squashfs", "sif"])
def debian_file(request, lab, tmp_path_factory):
    """The image debian-root as a file. A SIF that Apptainer builds has other files in it: this one has just those."""
    squashfs = lab.image("debian.sqfs")
    if request.param == "squashfs":
        return squashfs
    file = tmp_path_factory.mktemp("sif") / "debian.sif"
    file.write_bytes(squashed.sif_of([(b"text", 4, 3), (squashfs.read_bytes(), 1, 2)]))
    return file


class Silent:
    """Nobody is told anything."""

    def warn(self, text):
        """Not told."""

    def note(self, text):
        """Not told."""


def test_a_directory_is_its_own_place(lab):
    image = read_image(str(lab.image("debian-root")))
    assert (image.kind, image.place, image.mountable) == ("directory", image.path, False)


@pytest.mark.parametrize("name, kind", [("debian.sqfs", "squashfs"), ("debian.sif", "sif")])
def test_a_file_is_known_by_what_is_in_it(lab, tmp_path, name, kind):
    other = tmp_path / "no.extension"
    other.symlink_to(lab.image(name))
    image = read_image(str(other), "/place")
    assert (image.kind, image.path, image.place) == (kind, os.path.realpath(lab.image(name)), "/place")


@pytest.mark.parametrize("content", [b"", b"hs", b"text" * 100, b"x" * 41])
def test_another_file_has_a_reason(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    image = read_image(str(tmp_path / "file"))
    assert (image.kind, image.files, image.mountable) == ("other", None, False)
    assert image.reason == "is a file, but neither of SquashFS nor of SIF"


def test_what_is_no_image_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "secret").write_bytes(b"hsqs")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    cases = {
        "missing": "No such file or directory",
        "fifo": "is neither a directory nor a file",
        "secret": "Permission denied",
        "closed": "Permission denied",
    }
    for name, what in cases.items():
        with pytest.raises(CdiError, match=f"^image {tmp_path}/{name}: {what}"):
            read_image(str(tmp_path / name))


def test_a_damaged_file_is_refused_in_one_line(squash, tmp_path):
    data = bytearray(squash().read_bytes())
    data[12:16] = (3000).to_bytes(4, "little")  # the block size
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(CdiError) as caught:
        read_image(str(tmp_path / "image"))
    assert len(caught.value.problems) == 1
    assert "is damaged: a block size of 3000 (make or copy it again)" in str(caught.value)


def test_a_compression_that_can_not_be_undone_is_a_reason(squash, monkeypatch):
    monkeypatch.setitem(sys.modules, "lz4.block", None)
    image = read_image(str(squash("-comp", "lz4")))
    assert (image.files, image.mountable) == (None, True)
    assert (image.reason, image.fix) == ("is compressed with lz4, which can't be read here", "pip install lz4")


def composed(image, case, mode):
    """The steps of a launch, and what it depends on."""
    recorder = Recorder()
    host = LiveHost(recorder)
    resolved = resolve_devices((case.device,), (str(case.directory),), {}, Silent(), strict=False, witness=recorder)
    plan = translate(resolved.edits, host)
    assembly = embedded.prepare(plan, image.place, host, embedded.RunOptions(), recorder, image.files)
    return compose(assembly, Composition(mode, ())), recorder.states()


def moved(steps, place):
    """The same steps with the image at another place, and without what a mount there has for flags."""
    for step in steps:
        if isinstance(step, BindHost) and (step.source + "/").startswith(place + "/"):
            yield replace(step, source="IMAGE" + step.source[len(place) :], flags=())
        else:
            yield replace(step, flags=()) if hasattr(step, "flags") else step


@pytest.mark.parametrize("case", view.CASES, ids=str)
@pytest.mark.parametrize("mode", ["overlay", "underlay"])
def test_steps_for_a_file_are_those_for_its_directory(debian_file, lab, case, mode):
    directory, file = read_image(str(lab.image("debian-root"))), read_image(str(debian_file), "/run/user")
    expected, _ = composed(directory, case, mode)
    steps, states = composed(file, case, mode)
    assert list(moved(steps, "/run/user")) == list(moved(expected, directory.path))
    assert [state.path for state in states if state.path.startswith(str(debian_file))] == [file.path]
    assert [state.path for state in states if state.path.startswith("/run/user/")] == []


def test_a_plan_for_a_file_is_told_without_squashfuse(debian_file, lab, tmp_path):
    def told(image):
        argv = [sys.executable, "-m", "cdi_hpc", "plan", "nvidia.com/gpu=all", "--format", "json", "--image", image]
        done = lab.run(argv, env={"PATH": str(tmp_path)})
        assert (done.returncode, done.stderr) == (0, "")
        return {**json.loads(done.stdout), "image": None}

    assert told(debian_file) == told(lab.image("debian-root"))


def test_an_image_that_can_not_be_planned_for_says_why(lab, tmp_path):
    (tmp_path / "image.sif").write_bytes(squashed.sif_of([(b"x", 2, 2)]))
    done = lab.run(["cdi-hpc", "plan", "nvidia.com/gpu=all", "--image", tmp_path / "image.sif"])
    assert done.returncode != 0
    said = "is a SIF file whose root file system is ext3, and only SquashFS is read"
    fix = "unpack it: apptainer build --sandbox DIRECTORY FILE"
    assert done.stderr == f"cdi-hpc: error: image {tmp_path}/image.sif: {said} ({fix})\n"
