"""The lab is what its README promises: without that the other tests prove nothing."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from views import view

GLIBC_IMAGES = ("debian-root", "debian-user", "bare", "links")
NULL, ZERO = os.makedev(1, 3), os.makedev(1, 5)


def inside(image: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the image as its root, by a program that is not ours."""
    argv = ["bwrap", "--ro-bind", str(image), "/", "--proc", "/proc", *command]
    return subprocess.run(argv, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("image", GLIBC_IMAGES)
def test_a_glibc_image_runs_programs_and_its_loader_finds_libraries(lab, image):
    answer = inside(lab.image(image), "/opt/dlprobe", "libm.so.6", "libcuda.so.1").stdout
    assert answer == "O libm.so.6 /lib/x86_64-linux-gnu/libm.so.6\nO libcuda.so.1 missing\n"


def test_the_musl_image_has_another_loader_and_no_glibc(lab):
    answer = inside(lab.image("musl"), "/opt/dlprobe", "libc.so", "libcuda.so.1").stdout
    assert answer == "O libc.so /lib/ld-musl-x86_64.so.1\nO libcuda.so.1 missing\n"
    assert not list(lab.image("musl").rglob("ld-linux*"))


@pytest.mark.parametrize("image", [*GLIBC_IMAGES, "musl", "hostile"])
def test_every_image_has_the_tools_that_the_view_is_taken_with(lab, image):
    tools = ("cut", "stat", "readlink", "sha256sum", "base64", "tr")
    script = 'for tool in "$@"; do command -v "$tool"; done'
    found = inside(lab.image(image), "/bin/sh", "-c", script, "sh", *tools).stdout
    assert [Path(line).name for line in found.splitlines()] == list(tools)


def test_the_users_image_is_his_and_the_others_are_not(lab):
    if os.geteuid() != 0:
        assert lab.image("debian-user").stat().st_uid == os.geteuid()
    else:
        assert lab.image("debian-user").stat().st_uid != 0
    assert lab.image("debian-root").stat().st_uid != lab.image("debian-user").stat().st_uid


@pytest.mark.parametrize(
    "image, owner", [("debian.sqfs", "root"), ("debian-user.sqfs", "cdilab"), ("musl.sqfs", "root")]
)
def test_an_image_file_has_the_owners_of_the_directory_that_it_was_made_of(lab, image, owner):
    listing = lab.run(["unsquashfs", "-lls", "-no-progress", lab.image(image), "etc/passwd"]).stdout.splitlines()
    assert [line.split()[1] for line in listing] == [f"{owner}/{owner}"] * 3


@pytest.mark.root
@pytest.mark.parametrize("image", ["debian-root", "bare", "links", "musl", "hostile"])
def test_a_sites_image_is_owned_by_root_to_the_last_file(lab, image):
    owners = {path.lstat().st_uid for path in (lab.image(image) / "usr").rglob("*")}
    assert owners == {0}


def test_the_bare_image_has_no_ldconfig_and_no_cache(lab):
    image = lab.image("bare")
    assert not list(image.glob("usr/sbin/ldconfig*"))
    assert not (image / "etc/ld.so.cache").exists()
    assert (lab.image("debian-root") / "etc/ld.so.cache").exists()


@pytest.mark.parametrize(
    "path, target",
    [
        ("lib", "/usr/lib"),
        ("usr/lib", "../system/lib"),
        ("lib64", "usr/lib64"),
        ("usr/lib64", "/system/lib64"),
    ],
)
def test_the_linked_image_has_absolute_and_relative_links(lab, path, target):
    assert os.readlink(lab.image("links") / path) == target


def test_the_hostile_image_points_out_wherever_a_spec_puts_something(lab):
    image = lab.image("hostile")
    paths = (
        "dev",
        "etc/OpenCL",
        "etc/ld.so.cache",
        "etc/ld.so.conf.d",
        "etc/vulkan",
        "lib/firmware",
        "usr/bin/nvidia-smi",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib64",
        "usr/share/egl",
        "usr/share/glvnd",
        "usr/share/nvidia",
    )
    assert [path for path in paths if not (image / path).is_symlink()] == []


def test_who_follows_a_link_of_the_hostile_image_meets_the_canary(lab):
    assert (lab.image("hostile") / "usr/bin/nvidia-smi").read_text() == "canary nvidia-smi\n"
    assert os.access(lab.canary, os.W_OK)


def test_the_canary_tells_of_a_change(lab):
    before = lab.canary_state()
    added = lab.canary / "added"
    added.write_text("")
    try:
        assert lab.canary_state() != before
    finally:
        added.unlink()
    assert lab.canary_state() == before


@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_the_host_has_every_path_that_a_spec_names(lab, case):
    for edits in view.all_edits(case.load()):
        for mount in edits.get("mounts") or []:
            assert Path(mount["hostPath"]).is_file()
        for node in edits.get("deviceNodes") or []:
            status = Path(node.get("hostPath") or node["path"]).stat()
            assert stat.S_ISCHR(status.st_mode)
            assert status.st_rdev in {NULL, ZERO}


def test_the_driver_s_libraries_load_on_the_host(lab):
    for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-tls.so.570.133.20"):
        assert ctypes.CDLL(name).lab_driver() == 570


def test_the_spec_in_etc_cdi_is_the_one_the_driver_belongs_to(lab):
    assert yaml.safe_load(Path("/etc/cdi/nvidia.yaml").read_text())["kind"] == "nvidia.com/gpu"


def test_user_namespaces_work_on_the_host(lab):
    # In a chroot they would not: the kernel refuses them there.
    assert lab.run(["unshare", "--user", "--map-root-user", "--mount", "id", "-u"]).stdout == "0\n"


def test_the_oracle_answers(lab, tmp_path):
    greeting, answer = lab.run([lab.oracle], stdin=f'{{"dirs": ["{tmp_path}"]}}\n').stdout.splitlines()
    assert json.loads(greeting)["version"] >= "1.0.0"
    assert json.loads(answer)["errors"] == {}


def test_a_second_build_has_nothing_to_do(lab):
    states = lab.run(["python3", "tests/lab/build", "--list"]).stdout.split("\n")
    assert [state for state in states if state.startswith("stale")] == []
