"""Mount steps of small trees, one by one."""

from __future__ import annotations

import os

import pytest
import small_trees

from cdi_hpc.container.compose import Composition, compose
from cdi_hpc.container.stage import assemble
from cdi_hpc.container.steps import (
    BindHost,
    BindStaged,
    MakeDirectory,
    MakeFile,
    MakeLink,
    MountNew,
    MountOverlay,
    Restrict,
)
from cdi_hpc.host import mount_flags
from cdi_hpc.plan import Bind, MountFilesystem, Symlink, WriteFile
from cdi_hpc.spec.model import Origin

ORIGIN = Origin("/etc/cdi/a.yaml", "", "x")
WORKSPACE = [MakeDirectory(name) for name in ("root", "stage", "layer", "write")]


@pytest.fixture
def image(tmp_path):
    root = tmp_path / "image"
    tree = {"/etc": 0o755, "/etc/a": b"", "/etc/l": "-> a", "/usr": 0o555, "/usr/b": b"", "/lib": "-> usr"}
    return os.path.realpath(small_trees.make(root, tree))


@pytest.fixture
def closed(image):
    """Flags of everything that is shown of the image."""
    return tuple(sorted({*mount_flags(image), "nodev", "nosuid", "ro"}))


def steps(image, mode, *actions, submounts=(), writable=False):
    found = compose(assemble(actions, image), Composition(mode, submounts, writable=writable))
    assert list(found[:4]) == WORKSPACE
    return list(found[4:])


def link(path, points_to="x"):
    return Symlink(path, points_to, ORIGIN)


def bind(source, target, **fields):
    return Bind(source, target, "directory" if os.path.isdir(source) else "device", ORIGIN, **fields)


@pytest.mark.parametrize("mode", ["overlay", "underlay"])
def test_an_image_alone_is_one_bind(image, closed, mode):
    assert steps(image, mode) == [BindHost(image, "root", recursive=True, flags=closed)]


def test_an_overlay_has_the_staged_directories_with_the_images_modes(image, closed):
    assert steps(image, "overlay", link("/usr/sub/new"), link("/lib/b", "c")) == [
        MakeDirectory("stage/1", 0o755),
        MakeDirectory("layer/2"),
        BindHost(image, "layer/2"),
        MakeDirectory("stage/1/usr", 0o555),
        MakeLink("stage/1/usr/b", "c"),
        MakeDirectory("stage/1/usr/sub"),
        MakeLink("stage/1/usr/sub/new", "x"),
        MountOverlay("root", ("stage/1", "layer/2"), "", closed),
    ]


def test_an_underlay_brings_back_what_it_covers_and_is_closed_at_the_end(image, closed):
    assert steps(image, "underlay", link("/etc/new")) == [
        MountNew("tmpfs", "underlay", "root", ("nodev", "nosuid"), ("mode=755",)),
        MakeDirectory("root/etc"),
        MountNew("tmpfs", "underlay", "root/etc", ("nodev", "nosuid"), ("mode=755",)),
        MakeFile("root/etc/a"),
        BindHost(f"{image}/etc/a", "root/etc/a", recursive=False, flags=closed),
        MakeLink("root/etc/l", "a"),
        MakeLink("root/etc/new", "x"),
        MakeLink("root/lib", "usr"),
        MakeDirectory("root/usr"),
        BindHost(f"{image}/usr", "root/usr", recursive=True, flags=closed),
        Restrict("root", ("nodev", "nosuid", "ro")),
        Restrict("root/etc", ("nodev", "nosuid", "ro")),
    ]


def test_a_staged_entry_takes_the_place_of_the_images_in_an_underlay(image):
    assert MakeLink("root/etc/a", "x") in steps(image, "underlay", link("/etc/a"))
    assert not any(
        isinstance(step, BindHost) and step.path == "root/etc/a" for step in steps(image, "underlay", link("/etc/a"))
    )


def test_a_file_system_in_the_image_makes_an_overlay_an_underlay_just_there(image, closed):
    found = steps(image, "overlay", link("/etc/new"), submounts=(image + "/usr",))
    assert found[0] == MountNew("tmpfs", "underlay", "root", ("nodev", "nosuid"), ("mode=755",))
    assert MountOverlay("root/etc", ("stage/1", "layer/2"), "", closed) in found
    assert not any(step.path == "root/usr" for step in found if isinstance(step, MountOverlay))


@pytest.mark.parametrize("submount", ["-other", "", "2"])
def test_a_file_system_beside_the_image_changes_nothing(image, submount):
    assert isinstance(steps(image, "overlay", link("/etc/new"), submounts=(image + submount,))[-1], MountOverlay)


def test_a_writable_root_has_an_upper_directory_and_is_not_closed(image, closed):
    found = steps(image, "overlay", writable=True)
    assert found[-1] == MountOverlay(
        "root", ("stage/1", "layer/2"), "write/3", tuple(flag for flag in closed if flag != "ro")
    )
    assert MakeDirectory("write/3/upper", 0o755) in found


@pytest.mark.parametrize(
    "fields, flags, propagation",
    [
        ({}, (), ""),
        ({"kept": ("nosuid", "relatime")}, (), ""),
        ({"flags": ("ro",), "kept": ("nosuid", "relatime")}, ("nosuid", "relatime", "ro"), ""),
        ({"propagation": "private"}, (), ""),
        ({"propagation": "rslave"}, (), "rslave"),
    ],
)
def test_a_bind_with_flags_repeats_those_of_its_source(image, fields, flags, propagation):
    last = steps(image, "overlay", bind("/dev/null", "/etc/a", recursive=False, **fields))[-1]
    assert last == BindHost("/dev/null", "root/etc/a", recursive=False, flags=flags, propagation=propagation)


def test_mounts_come_in_their_order_after_the_image(image, tmp_path):
    found = steps(
        image,
        "overlay",
        bind(str(tmp_path), "/etc"),
        MountFilesystem("tmpfs", "none", "/usr", ORIGIN, ("nosuid",), ("size=1m",)),
        link("/usr/x/y"),
        bind("/dev/null", "/usr/n", recursive=False),
    )
    assert found[1:] == [
        BindHost(str(tmp_path), "root/etc"),
        MountNew("tmpfs", "none", "root/usr", ("nosuid",), ("size=1m",)),
        MakeFile("root/usr/n", is_mount_point=True),
        MakeDirectory("root/usr/x"),
        MakeLink("root/usr/x/y", "x"),
        BindHost("/dev/null", "root/usr/n", recursive=False),
    ]


def test_a_read_only_file_system_is_closed_when_its_entries_are_made(image):
    found = steps(image, "overlay", MountFilesystem("tmpfs", "none", "/usr", ORIGIN, ("nodev", "ro")), link("/usr/x"))
    assert found[1:] == [
        MountNew("tmpfs", "none", "root/usr", ("nodev",)),
        MakeLink("root/usr/x", "x"),
        Restrict("root/usr", ("nodev", "ro")),
    ]


def test_a_file_of_the_kernel_is_covered_by_one_of_the_workspace(image):
    found = steps(image, "overlay", bind("/proc", "/usr"), WriteFile("/usr/version", b"ours", 0o444, ORIGIN))
    assert found[-2:] == [
        MakeFile("stage/1", b"ours", 0o444),
        BindStaged("stage/1", "root/usr/version", ("nodev", "ro")),
    ]


@pytest.mark.parametrize(
    "flags, is_layer",
    [((), False), (("ro",), False), (("nodev",), False), (("nodev", "ro"), True), (("nodev", "nosuid", "ro"), True)],
)
def test_a_bound_directory_is_a_layer_only_if_it_is_neither_for_writing_nor_for_devices(image, flags, is_layer):
    found = steps(image, "overlay", bind(image + "/usr", "/etc", flags=flags), link("/etc/new"))
    assert any(isinstance(step, MountOverlay) for step in found) is is_layer
    assert any(isinstance(step, MountNew) for step in found) is not is_layer


@pytest.mark.parametrize(
    "path, is_layer", [("/etc/cdi-hpc-test", True), ("/usr/cdi-hpc-test", True), ("/var/cdi-hpc-test", False)]
)
def test_with_the_host_as_image_only_software_is_a_layer(path, is_layer):
    # As if nothing were mounted but the kernel's own: where this test runs is not its point.
    found = steps("/", "overlay", link(path), submounts=("/", "/dev", "/proc", "/sys"))
    assert [step.path for step in found if isinstance(step, MountOverlay)] == (
        ["root" + os.path.dirname(path)] if is_layer else []
    )
    assert not any(step.flags for step in found if isinstance(step, BindHost))


@pytest.mark.parametrize("mode", ["overlay", "underlay"])
def test_no_path_of_a_step_goes_up_or_begins_at_the_root(image, mode):
    for step in steps(image, mode, link("/../../etc/../new"), bind("/dev/null", "/lib/deep/n", recursive=False)):
        assert not step.path.startswith("/")
        assert ".." not in step.path.split("/")
