"""Images that want out, or want to hurt: nothing outside of them is bound over, written, read or shown."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from launchers import Request, said, start
from mounts import mount_list
from test_run_views import is_excused
from views import view

UP = "../../../../../../../../../../../.."

#: Says what is mounted, and which files hold what only the canary directory of the host holds.
LOOK = """
cat /proc/self/mountinfo
echo
for top in /*; do
    case $top in /proc | /sys | /dev) continue ;; esac
    find "$top/" -xdev -type f ! -size +64k -exec grep -l '^canary ' {} + 2>/dev/null
done
for file in /etc/passwd /etc/group /etc/resolv.conf /etc/ld.so.conf /usr/bin/nvidia-smi; do
    [ ! -f "$file" ] || head -c 65536 "$file" | grep '^canary '
done
true
"""


def check(done: subprocess.CompletedProcess[bytes]) -> None:
    """A launch of LOOK was refused with reasons, or shows nothing from the canary directory."""
    if done.returncode == 125:
        assert done.stdout == b""
        # What programs that the script calls say comes before.
        assert done.stderr.decode("utf-8", "replace").splitlines()[-1].startswith("cdi-hpc: "), done.stderr
        return
    mountinfo, _, seen = said(done).partition("\n\n")
    mounts = mount_list(mountinfo)
    assert len(mounts) > 1
    assert [mount for mount in mounts if "/srv/canary" in mount.root] == []
    assert seen == ""


@pytest.fixture
def hostile(lab, tmp_path) -> Callable[..., Path]:
    """A copy of an image with traps: links at some paths, or whatever a function makes there."""

    def make(traps: dict[str, str | Callable[[Path], object]], base: str = "musl") -> Path:
        image = tmp_path / "hostile"
        shutil.copytree(lab.image(base), image, symlinks=True)
        for name, trap in traps.items():
            path = image / name
            remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(trap):
                trap(path)
            else:
                path.symlink_to(trap)
        return image

    return make


def remove(path: Path) -> None:
    if not path.is_symlink() and path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def request_of(case: view.Case) -> Request:
    return Request((case.device,), (str(case.directory),))


# The lab's image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_the_hostile_image_shows_nothing_of_the_host(lab, launcher, case, stage):
    """It may be refused: it leads through /proc to what only root may see, and has /tmp where all else is to be."""
    check(start(launcher.argv(request_of(case), lab.image("hostile"), ["sh", "-c", LOOK], stage=stage)))


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_followed_inside_the_image_its_links_hold_what_the_spec_says(launcher, hostile, case, stage):
    # Without a link that only root can follow, two by which the host's /tmp would cover everything else, and two
    # that make one file of what are different ones.
    mended = {"tmp": os.mkdir, "run": os.mkdir, "etc/ld-musl-x86_64.path": lambda path: None}
    image = hostile({"usr/share/nvidia": "/srv/canary/nvidia", **mended}, base="hostile")
    done = start(launcher.argv(request_of(case), image, ["sh", "-c", LOOK], stage=stage))
    assert done.returncode == 0, done.stderr
    check(done)
    argv = launcher.argv(request_of(case), image, ["sh", "-c", view.INSIDE, "sh", *case.questions()], stage=stage)
    comparison = view.compare(case.wanted, case.normalise(said(start(argv, env={"RESOLVE_LINKS": "yes"}))))
    assert [miss for miss in comparison.misses if not is_excused(miss, "musl", case)] == []


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_an_image_of_loops_is_refused_where_they_matter_and_is_else_an_image(lab, launcher, case, stage):
    argv = launcher.argv(request_of(case), lab.image("loops"), ["sh", "-c", "echo begun"], stage=stage)
    done = start(argv)
    if case.directory.name == "nvidia-dgxa100-570":
        assert (done.returncode, done.stdout) == (125, b"")
        assert b"symbolic links" in done.stderr
        assert b"/etc/OpenCL" in done.stderr
    else:
        assert said(done) == "begun\n"


# Traps ------------------------------------------------------------------------------------------------------------

DGX = next(case for case in view.CASES if case.directory.name == "nvidia-dgxa100-570")

#: Where it matters -> what lies there. A launch may refuse these or go around them.
TRAPS: dict[str, dict[str, str]] = {
    "whole-etc": {"etc": f"{UP}/srv/canary"},
    "whole-usr-lib": {"usr/lib": f"{UP}/srv/canary/lib"},
    "absolute-usr-lib": {"usr/lib": "/srv/canary/lib"},
    "proc": {"proc": f"{UP}/srv/canary"},
    "sys": {"sys": f"{UP}/srv/canary/lib"},
    "dev-and-below": {"dev": "usr/dev", "usr/dev": f"{UP}/srv/canary/dev"},
    "self-root": {"usr/lib/x86_64-linux-gnu": "/proc/self/root/srv/canary/lib", "lib/x86_64-linux-gnu": "/srv/canary"},
    "self-cwd": {"etc/OpenCL": "/proc/self/cwd", "etc/vulkan": "/proc/self/cwd/x"},
    "self-fd": {"etc/OpenCL": "/proc/self/fd/0", "etc/vulkan": "/proc/thread-self/root/srv/canary"},
    "into-proc": {"etc/OpenCL": "/proc/sys", "etc/vulkan": "/sys/kernel"},
    "into-dev": {"etc/OpenCL": "/dev/shm", "etc/vulkan": "/dev"},
    "into-tmp": {"etc/OpenCL": "/tmp", "etc/vulkan": "/tmp"},
    "to-itself": {"etc/OpenCL": "../etc", "etc/vulkan": ".", "usr/share/egl": "/"},
    "long-way": {"etc/OpenCL": "../" * 200 + "srv/canary/OpenCL", "etc/vulkan": "a/../" * 50 + "../srv/canary"},
    "dots": {"etc/OpenCL": "....//..../../srv", "etc/vulkan": "//srv//canary//vulkan/"},
    "compat": {"usr/local/cuda/compat": f"{UP}/srv/canary/lib", "etc/ld.so.conf": f"{UP}/srv/canary/conf.d"},
}


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
@pytest.mark.parametrize("name", TRAPS)
def test_a_link_of_an_image_never_leads_out_of_it(launcher, hostile, small, name, stage):
    image = hostile(TRAPS[name])
    both = Request((*request_of(DGX).devices, *small.devices), (*request_of(DGX).directories, *small.directories))
    done = start(launcher.argv(both, image, ["sh", "-c", LOOK], stage=stage), timeout=60)
    assert done.returncode in (0, 125), done.stderr
    check(done)


def endless(path: Path) -> None:
    """A sparse file that nobody could read whole."""
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


def nested(path: Path) -> None:
    path.write_text(f"include {UP}/etc/ld.so.conf\ninclude /etc/ld.so.conf\ninclude ld.so.conf\ninclude /*/*/*\n")


def configuration(path: Path) -> None:
    path.write_text(f"/srv/canary/lib\n{UP}/srv/canary/lib\n../srv\nhwcap 1 x\ninclude /srv/canary/conf.d/*.conf\n")


def closed(path: Path) -> None:
    path.mkdir(mode=0)


def broken_libraries(path: Path) -> None:
    """ELF files that lie about themselves, and things that are no files."""
    path.mkdir(parents=True)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    (path / "libcuda.so.1").write_bytes(head + b"\xff" * 48)
    (path / "libempty.so.1").write_bytes(b"")
    (path / "libshort.so.1").write_bytes(head)
    (path / "libcudadebugger.so.1").write_bytes(head + b"\x03\x00\x3e\x00" + b"\x01" + bytes(300))
    endless(path / "libendless.so.1")
    os.mkfifo(path / "libfifo.so.1")
    (path / "libloop.so.1").symlink_to("libloop.so.1")
    (path / "libout.so.1").symlink_to(f"{UP}/srv/canary/lib/libcuda.so.1")
    (path / "lib\nname.so.1").write_bytes(head)
    (path / "lib\udcff.so.1").write_bytes(head)


#: Path -> what is made there instead of what was: each must be survived, whether or not the launch comes about.
OBSTACLES = {
    "passwd is a FIFO": ("etc/passwd", os.mkfifo),
    "passwd is a directory": ("etc/passwd", os.mkdir),
    "passwd has no end": ("etc/passwd", endless),
    "group is a FIFO": ("etc/group", os.mkfifo),
    "resolv.conf is a directory": ("etc/resolv.conf", os.mkdir),
    "ld.so.cache is a FIFO": ("etc/ld.so.cache", os.mkfifo),
    "ld.so.cache has no end": ("etc/ld.so.cache", endless),
    "ld.so.cache is a directory": ("etc/ld.so.cache", os.mkdir),
    "ld.so.conf is a FIFO": ("etc/ld.so.conf", os.mkfifo),
    "ld.so.conf has no end": ("etc/ld.so.conf", endless),
    "ld.so.conf includes itself": ("etc/ld.so.conf", nested),
    "ld.so.conf leads out": ("etc/ld.so.conf", configuration),
    "etc can't be searched": ("etc", closed),
    "etc is a FIFO": ("etc", os.mkfifo),
    "libraries lie": ("usr/lib/x86_64-linux-gnu", broken_libraries),
    "dev is a file": ("dev", Path.touch),
    "proc is missing": ("proc", lambda path: None),
    "tmp is a file": ("tmp", Path.touch),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_an_image_can_neither_stop_the_clock_nor_fill_the_memory(launcher, hostile, obstacle):
    path, make = OBSTACLES[obstacle]
    image = hostile({path: make})
    argv = launcher.argv(request_of(DGX), image, ["/bin/sh", "-c", LOOK])
    limited = ["bash", "-c", 'ulimit -v 4000000; exec "$@"', "bash", *argv]
    try:
        done = start(limited, timeout=20)
        assert done.returncode in (0, 125), done.stderr[-2000:]
        assert b"Traceback" not in done.stderr
        check(done)
    finally:
        if path == "etc" and obstacle.endswith("searched"):
            (image / "etc").chmod(0o755)


def test_libraries_of_the_host_that_an_images_configuration_names_are_not_in_its_cache(launcher, hostile, canary):
    """/srv/canary/lib holds a library with a SONAME; inside the image there is no such directory."""
    source = Path("/usr/lib/x86_64-linux-gnu/libcuda.so.1")
    library = canary / "lib" / "libcanary.so.1"
    shutil.copy(source.resolve(), library)
    try:
        image = hostile({"etc/ld.so.conf": configuration, "usr/lib/x86_64-linux-gnu": f"{UP}/srv/canary/lib"})
        argv = launcher.argv(request_of(DGX), image, ["cat", "/etc/ld.so.cache"])
        done = start(argv)
        assert done.returncode == 0, done.stderr
        assert b"libcanary" not in done.stdout
        assert b"libcuda.so.1" in done.stdout or launcher.name == "script"
    finally:
        library.unlink()


# Changing while we look -------------------------------------------------------------------------------------------

SWAP = """
cd "$1"
while :; do
    mv OpenCL real && ln -s "$2" OpenCL
    rm OpenCL && mv real OpenCL
done
"""


@pytest.mark.parametrize(
    "stage, target",
    [("overlay", f"{UP}/srv/canary/OpenCL"), ("underlay", "/srv/canary/OpenCL")],
    ids=["overlay", "underlay"],
)
def test_an_image_that_changes_under_a_launch_gains_nothing(launcher, hostile, target, stage):
    image = hostile({"etc/OpenCL/vendors/other": lambda path: path.write_text("image\n")})
    swapping = subprocess.Popen(["sh", "-c", SWAP, "sh", image / "etc", target], stderr=subprocess.DEVNULL)
    try:
        argv = launcher.argv(request_of(DGX), image, ["sh", "-c", LOOK], stage=stage)
        for _ in range(4):
            done = start(argv, timeout=60)
            assert done.returncode in (0, 125), done.stderr
            check(done)
    finally:
        swapping.send_signal(signal.SIGKILL)
        swapping.wait()
