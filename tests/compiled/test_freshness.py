"""The next launch has the new content, whatever changed and however; and nothing is compiled again for no reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from compiled_launch import KIND, Namespaces, Site, driver_library

Edit = Callable[[Site], object]


def in_place(path: Path, content: bytes | str) -> None:
    """Other content in the same file, by the same name, with the same times as far as a user can have that."""
    data = content.encode() if isinstance(content, str) else content
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(data)
        stream.truncate()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def by_rename(path: Path, content: bytes | str) -> None:
    """Another file in its place, with the old one's times."""
    before = path.stat()
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(path)


def shouted(path: Path) -> str:
    """The spec with another value of the same length."""
    return path.read_text().replace("from the spec", "FROM THE SPEC")


def with_spec(change: Callable[[Path, str], None]) -> Edit:
    return lambda site: change(site.specs / "lab.yaml", shouted(site.specs / "lab.yaml"))


def with_library(change: Callable[[Path, bytes], None]) -> Edit:
    other = driver_library("libcuda").read_bytes
    return lambda site: change(site.driver / "libthing.so.1.5", other())


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("another\n")


def replace_directory(path: Path, points_to: str) -> None:
    """A link where a directory was."""
    path.rename(path.with_name("moved-away"))
    path.symlink_to(points_to)


def set_clock_back(site: Site) -> None:
    """The new content is older than the old one."""
    path = site.specs / "lab.yaml"
    path.write_text(shouted(path))
    os.utime(path, ns=(0, 0))


def passwd_with_us(image: Path) -> str:
    return (image / "etc/passwd").read_text() + f"us:x:{os.getuid()}:{os.getgid()}::/us:/bin/sh\n"


CHANGES: dict[str, Edit] = {
    "spec in place": with_spec(in_place),
    "spec by rename": with_spec(by_rename),
    "clock set back": set_clock_back,
    "spec removed": lambda site: (site.specs / "lab.yaml").unlink(),
    "spec broken": lambda site: in_place(site.specs / "lab.yaml", "cdiVersion: [\n"),
    "conflicting spec added": lambda site: shutil.copy(site.specs / "lab.yaml", site.specs / "second.yaml"),
    "library in place": with_library(in_place),
    "library by rename": with_library(by_rename),
    "library removed": lambda site: (site.driver / "libthing.so.1.5").unlink(),
    "file became a directory": lambda site: [(site.driver / "file").unlink(), (site.driver / "file").mkdir()],
    "directory became a file": lambda site: [
        shutil.rmtree(site.driver / "directory"),
        touch(site.driver / "directory"),
    ],
    "image's loader cache": lambda site: in_place(site.image / "etc/ld.so.cache", b""),
    "image's loader cache gone": lambda site: (site.image / "etc/ld.so.cache").unlink(),
    "image's loader configuration": lambda site: touch(site.image / "etc/ld.so.conf.d/another.conf"),
    "image's passwd": lambda site: in_place(site.image / "etc/passwd", passwd_with_us(site.image)),
    "image's passwd by rename": lambda site: by_rename(site.image / "etc/passwd", passwd_with_us(site.image)),
    "image's group gone": lambda site: (site.image / "etc/group").unlink(),
    "link on the way": lambda site: replace_directory(site.image / "opt", "var"),
    "link on the way, absolute": lambda site: replace_directory(site.image / "opt", "/usr/local"),
    "link on the way, out": lambda site: replace_directory(site.image / "opt", "../../../../../usr/lib"),
    "mount point appeared": lambda site: touch(site.image / "opt/lab/file"),
    "mount point of another kind": lambda site: (site.image / "opt/lab/file").mkdir(parents=True),
    "link's place taken by a directory": lambda site: (site.image / "opt/lab/link").mkdir(parents=True),
    "link's place taken by a file": lambda site: touch(site.image / "opt/lab/link"),
    "library of the image appeared": lambda site: shutil.copy(
        driver_library("libcuda"), site.image / "usr/local/lib/libmine.so.1"
    ),
    "directory's mode": lambda site: (site.image / "opt").chmod(0o711),
    "image replaced": lambda site: [
        shutil.copytree(site.image, site.top / "new", symlinks=True),
        touch(site.top / "new/opt/lab/from-the-new-image"),
        site.image.rename(site.top / "old"),
        (site.top / "new").rename(site.image),
    ],
}


#: Changes that could have mattered, and do not here: the image's own cache just saves reading its libraries.
UNSEEN = ("image's loader cache", "image's loader cache gone", "link's place taken by a file")


#: Changes of the image that an underlay sees by another way: it lists the directories that it takes the place of.
LISTED = (
    "spec in place",
    "image's loader configuration",
    "link on the way",
    "mount point appeared",
    "directory's mode",
)


@pytest.mark.parametrize(
    "stage, change",
    [*(("overlay", change) for change in CHANGES), *(("underlay", change) for change in LISTED)],
)
def test_the_next_launch_sees_what_changed(site, change, stage):
    site.more = (f"--stage={stage}",)
    before, plans = site.view(), site.plans()
    CHANGES[change](site)
    after = site.view()
    assert after == site.view(python=True)
    assert after != before or change in UNSEEN
    if "cdi-hpc: error" in after:
        return  # nothing to compile
    assert site.plans() != plans
    compiled = site.plans()
    assert site.view() == after
    assert site.plans() == compiled


def test_what_is_put_right_again_is_launched_again(site):
    before = site.view()
    spec = (site.specs / "lab.yaml").read_bytes()
    (site.specs / "lab.yaml").unlink()
    assert "error" in site.view()
    (site.specs / "lab.yaml").write_bytes(spec)
    assert site.view() == before


# Links on the host ------------------------------------------------------------------------------------------------


def versions(site: Site) -> None:
    """The driver's file is ``current/file``; ``current`` leads to one of two directories that hold the same file."""
    (site.driver / "v1").mkdir()
    (site.driver / "file").rename(site.driver / "v1" / "file")
    (site.driver / "file").symlink_to("current/file")
    (site.driver / "current").symlink_to("v1")


def test_a_source_that_was_moved_and_is_found_by_a_link_still(site):
    """The path leads to the same inode as before, by another way."""
    versions(site)
    before = site.view()
    (site.driver / "v1").rename(site.driver / "v2")
    (site.driver / "current").unlink()
    (site.driver / "current").symlink_to("v2")
    assert site.view() == before == site.view(python=True)


def test_a_link_of_the_host_that_leads_to_another_file(site):
    versions(site)
    before = site.view()
    (site.driver / "v2").mkdir()
    (site.driver / "v2" / "file").write_text("of another version\n")
    (site.driver / "current").unlink()
    (site.driver / "current").symlink_to("v2")
    after = site.view()
    assert after != before
    assert after == site.view(python=True)


# Directories of specs ---------------------------------------------------------------------------------------------


def test_another_directory_of_specs_is_another_plan(site):
    before = site.view()
    shutil.copytree(site.specs, site.top / "other")
    (site.top / "other" / "lab.yaml").write_text(shouted(site.specs / "lab.yaml"))
    environment = {"CDI_HPC_DIRS": f"{site.specs}:{site.top}/other"}
    after = site.view(env=environment)
    assert after != before
    assert after == site.view(env=environment, python=True)
    assert site.view() == before
    assert len(site.plans()) == 2


def test_a_spec_in_a_directory_of_higher_priority(site):
    (site.top / "high").mkdir()
    site.more = ("--cdi-dir", str(site.specs), "--cdi-dir", str(site.top / "high"))
    before = site.view()
    (site.top / "high" / "lab.json").write_text(shouted(site.specs / "lab.yaml"))
    after = site.view()
    assert "FROM THE SPEC" in after
    assert after == site.view(python=True)
    (site.top / "high" / "lab.json").unlink()
    assert site.view() == before


def test_a_default_directory_that_is_made_counts_at_once(site, namespaces):
    """/var/run/cdi is not there on most hosts until a generator makes it."""
    namespaces.do("mount -t tmpfs -o mode=755 etc /etc/cdi && mount -t tmpfs -o mode=755 run /run")
    namespaces.do(f"cp {site.specs}/lab.yaml /etc/cdi/lab.yaml")
    inside = {"prefix": ("env", "--unset=CDI_HPC_DIRS", *namespaces.prefix)}
    before, plans = site.view(**inside), site.plans()
    assert "from the spec" in before
    namespaces.do("mkdir /run/cdi && sed 's/from the spec/FROM THE RUN/' /etc/cdi/lab.yaml >/run/cdi/lab.yaml")
    after = site.view(**inside)
    assert "FROM THE RUN" in after
    assert after == site.view(python=True, **inside)
    assert site.plans() != plans


def test_all_devices_of_a_class_means_those_of_a_new_spec_too(site):
    site.devices = (f"{KIND}=all",)
    before = site.view()
    (site.driver / "second").write_text("second\n")
    mounts = [{"hostPath": f"{site.driver}/second", "containerPath": "/opt/lab/second", "options": ["ro"]}]
    site.write_spec({"mounts": mounts}, name="second.yaml", device="two")
    after = site.view()
    assert after != before
    assert after == site.view(python=True)
    (site.specs / "second.yaml").unlink()
    assert site.view() == before


def test_a_spec_that_is_asked_for_by_its_path_is_watched(site):
    path = site.top / "mine.yaml"
    (site.specs / "lab.yaml").rename(path)
    site.devices = (str(path),)
    assert "from the spec" in site.view()
    in_place(path, shouted(path))
    after = site.view()
    assert "FROM THE SPEC" in after
    assert after == site.view(python=True)


def test_a_relative_path_means_another_spec_in_another_directory(site):
    for name, text in (("a", "from the spec"), ("b", "FROM THE SPEC")):
        (site.top / name).mkdir()
        (site.top / name / "mine.yaml").write_text((site.specs / "lab.yaml").read_text().replace("from the spec", text))
    (site.specs / "lab.yaml").unlink()
    site.devices = ("./mine.yaml",)
    assert "from the spec" in site.view(cwd=site.top / "a")
    assert "FROM THE SPEC" in site.view(cwd=site.top / "b")
    assert len(site.plans()) == 2


# Nodes and mounts -------------------------------------------------------------------------------------------------


def test_a_device_node_that_became_another_device(site, namespaces):
    namespaces.do("mount --bind /dev/null /dev/nvidia0")
    site.write_spec({"deviceNodes": [{"path": "/dev/nvidia0", "type": "c", "major": 1, "minor": 3}]})
    verbose = {"prefix": namespaces.prefix, "options": ["-v"]}
    site.launch(**verbose)
    assert b"1:5" not in site.launch(**verbose).stderr
    namespaces.do("mount --bind /dev/zero /dev/nvidia0")
    assert b"the host's node is 1:5" in site.launch(**verbose).stderr


def test_a_device_node_that_is_gone(site):
    os.mkfifo(site.driver / "node")
    site.write_spec({"deviceNodes": [{"path": "/dev/lab", "hostPath": f"{site.driver}/node"}]})
    assert "/dev/lab" in site.view()
    (site.driver / "node").unlink()
    after = site.view()
    assert f"{site.driver}/node" in after
    assert "error" in after
    assert after == site.view(python=True)


def test_a_file_system_that_is_mounted_in_the_image(site, namespaces):
    """overlayfs refuses a layer with mounts in it; the image is the same, seen with what is mounted there now."""
    (site.image / "opt/lab/mounted").mkdir(parents=True)
    inside = {"prefix": namespaces.prefix}
    before = site.content(**inside)
    namespaces.do(f"mount -t tmpfs -o mode=755 data {site.image}/opt/lab/mounted")
    namespaces.do(f"echo data >{site.image}/opt/lab/mounted/data")
    after = site.content(**inside)
    assert "/opt/lab/mounted/data -> " in after
    assert after == site.content(python=True, **inside)
    compiled = site.plans()
    assert site.content(**inside) == after
    assert site.plans() == compiled
    namespaces.do(f"umount {site.image}/opt/lab/mounted")
    assert site.content(**inside) == before


def test_a_file_system_that_is_mounted_over_the_image(site, namespaces):
    shutil.copytree(site.image, site.top / "other", symlinks=True)
    touch(site.top / "other/opt/lab/from-the-other-image")
    before = site.view(prefix=namespaces.prefix)
    namespaces.do(f"mount --bind {site.top}/other {site.image}")
    after = site.view(prefix=namespaces.prefix)
    assert "from-the-other-image" in after
    assert after == site.view(python=True, prefix=namespaces.prefix)
    namespaces.do(f"umount {site.image}")
    assert site.view(prefix=namespaces.prefix) == before


@pytest.mark.parametrize("after", ["noatime", "strictatime", "nosuid"])
@pytest.mark.parametrize("stage", ["overlay", "underlay"])
def test_a_file_system_that_is_mounted_with_other_flags(site, namespaces, after, stage):
    """Flags are locked in a user namespace: to ask for other ones than a source has is refused."""
    (site.top / "fs").mkdir()
    namespaces.do(f"mount -t tmpfs -o mode=755,relatime fs {site.top}/fs")
    namespaces.do(f"cp -a {site.image} {site.driver} {site.top}/fs")
    site.image = site.top / "fs/image"
    (site.specs / "lab.yaml").write_text((site.specs / "lab.yaml").read_text().replace("/driver/", "/fs/driver/"))
    site.more = (f"--stage={stage}", f"--bind={site.top}/fs/driver:/opt/lab/driver:ro")
    inside = {"prefix": namespaces.prefix}
    before = site.content(**inside)
    assert "from the spec" in before[0]
    namespaces.do(f"mount -o remount,{after} {site.top}/fs")
    assert site.content(**inside) == before == site.content(python=True, **inside)


# An overlay that the kernel refuses ----------------------------------------------------------------------------------


def stack_overlays(site: Site, namespaces: Namespaces) -> None:
    """An image on two overlays: on top of them the kernel takes no third (FILESYSTEM_MAX_STACK_DEPTH)."""
    lower = site.image
    for number in (1, 2):
        (site.top / f"empty{number}").mkdir()
        place = site.top / f"overlay{number}"
        place.mkdir()
        namespaces.do(f"mount -t overlay overlay -o lowerdir={lower}:{site.top}/empty{number} {place}")
        lower = place
    site.image = lower


def test_where_the_kernel_refuses_the_overlay_the_plan_has_none(site, namespaces):
    stack_overlays(site, namespaces)
    inside = {"prefix": namespaces.prefix}
    before, plans = site.view(**inside), site.plans()
    assert before == site.view(python=True, **inside)
    assert len(plans) == 1
    assert site.view(**inside) == before
    assert site.plans() == plans
    site.write_spec({"env": ["LAB_VARIABLE=changed"], "mounts": site.usual_edits()["mounts"]})
    assert "LAB_VARIABLE=changed" in site.view(**inside)
    assert len(site.plans()) == 1
    assert site.plans() != plans


@pytest.mark.parametrize("option", ["--stage=overlay", "--writable-tmpfs"])
def test_an_overlay_that_was_asked_for_and_is_refused_is_an_error(site, namespaces, option):
    stack_overlays(site, namespaces)
    for python in (False, False, True):
        done = site.launch(options=[option], prefix=namespaces.prefix, python=python)
        assert done.returncode == 125
        assert option in done.stderr.decode()
        assert "overlay" in done.stderr.decode()


# What a launch depends on besides files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [("--contain",), ("--writable-tmpfs",), ("--stage=underlay",), ("--bind=/srv:/opt/lab/srv",)], ids=str
)
def test_options_that_change_the_view_have_plans_of_their_own(site, options):
    before = site.view()
    site.more = options
    after = site.view()
    assert after == site.view(python=True)
    site.more = ()
    assert site.view() == before
    assert len(site.plans()) == 2


def test_what_does_not_change_a_plan_shares_it(site):
    site.view()
    plans = site.plans()
    for options in (["--env", "A=B"], ["--workdir", "/opt"], ["-v"], ["-q"], ["-vq"]):
        assert site.launch(options=options).returncode == 0
    assert site.launch(cwd=site.driver).returncode == 0
    assert site.launch("sh", "-c", "exit 3").returncode == 3
    assert site.launch(env={"SOME_VARIABLE": "x", "OLDPWD": "/nowhere", "LANG": "de_DE.UTF-8"}).returncode == 0
    assert site.plans() == plans


def test_the_image_is_known_by_its_real_path(site):
    site.view()
    plans = site.plans()
    (site.top / "link").symlink_to("image")
    site.image = site.top / "link"
    site.view()
    assert site.plans() == plans


# What is no reason to compile again -------------------------------------------------------------------------------

IRRELEVANT: dict[str, Edit] = {
    "a new file in the image": lambda site: touch(site.image / "var/new"),
    "a new directory in the image": lambda site: touch(site.image / "var/directory/new"),
    "a file of the image that nobody asked for": lambda site: by_rename(site.image / "usr/bin/sleep", b"other"),
    "/tmp": lambda site: touch(Path("/tmp") / f"lab-{os.getpid()}"),
    "the image's /tmp": lambda site: touch(site.image / "tmp/new"),
    "another directory of specs": lambda site: touch(site.top / "other-specs/lab.yaml"),
    "beside the image": lambda site: touch(site.top / "beside"),
    "beside the driver's files": lambda site: touch(site.driver / "beside"),
    "in a directory that is bound": lambda site: touch(site.driver / "directory/new"),
    "reading": lambda site: [path.read_bytes() for path in (*site.specs.iterdir(), site.image / "etc/passwd")],
    "another plan": lambda site: site.launch(options=["--contain"]),
    "in the cache's directory": lambda site: touch(site.runtime / "something"),
}


@pytest.mark.parametrize("change", IRRELEVANT)
def test_nothing_is_compiled_again_for(site, change):
    site.view()
    compiled = site.plan().stat().st_ino
    plan = site.plan()
    try:
        IRRELEVANT[change](site)
        assert site.view() == site.view(python=True)
        assert plan.stat().st_ino == compiled
    finally:
        (Path("/tmp") / f"lab-{os.getpid()}").unlink(missing_ok=True)
