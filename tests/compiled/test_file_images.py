"""Images that are files: planned without mounting them, served without Python, and planned again when exchanged."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from compiled_launch import Site, runner

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def squash(tree: Path, file: Path) -> Path:
    """Make a file anew; its files are of who they were."""
    new = file.with_name("new.sqfs")
    argv = ["mksquashfs", tree, new, "-quiet", "-no-progress", "-no-xattrs", "-noI", "-noD", "-noF", "-noappend"]
    subprocess.run(argv, check=True, capture_output=True)
    new.rename(file)
    return file


@pytest.fixture
def squashed(site) -> Site:
    """A site whose image is a file; the tree that it was made from is beside it."""
    site.image = squash(site.image, site.top / "image.sqfs")
    return site


def programs(site: Site, *command: str, env: dict[str, str] | None = None) -> list[str]:
    """Names of all programs that a launch executes, each as often as it does."""
    argv = ["strace", "-f", "-qq", "-e", "trace=execve", "-e", "signal=none", runner(), *site.argv(command)]
    environ = {**site.environment, **(env or {})}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
    calls = [line for line in done.stderr.splitlines() if "execve(" in line and line.endswith("= 0")]
    return sorted(Path(QUOTED.findall(call)[0]).name for call in calls)


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
def test_a_file_shows_what_its_directory_shows(site, stage):
    site.more = (f"--stage={stage}",)
    wanted = site.content()
    site.image = squash(site.image, site.top / "image.sqfs")
    assert site.content() == wanted
    assert site.content() == wanted
    assert len(site.plans()) == 2


def test_a_later_launch_starts_squashfuse_and_the_command_and_nothing_else(squashed):
    squashed.launch()
    assert programs(squashed, "true") == ["cdi-hpc-run", "squashfuse_ll", "true"]


def test_a_later_launch_of_a_sif_does_so_as_well(site, lab):
    site.image = lab.image("debian.sif")
    assert site.launch("test", "-e", "/opt/lab/link").returncode == 0
    assert programs(site, "test", "-e", "/opt/lab/link") == ["cdi-hpc-run", "squashfuse_ll", "test"]


def test_a_file_that_was_exchanged_is_planned_again(squashed):
    squashed.launch()
    plans = squashed.plans()
    tree = squashed.top / "image"
    (tree / "etc" / "new").write_text("new\n")
    squash(tree, squashed.image)
    done = squashed.launch("cat", "/etc/new")
    assert (done.returncode, done.stdout) == (0, b"new\n")
    assert squashed.plans().keys() == plans.keys()
    assert squashed.plans() != plans


def test_the_file_is_not_written_to(squashed):
    before = squashed.image.read_bytes(), squashed.image.stat().st_mtime_ns
    squashed.launch()
    done = squashed.launch("sh", "-c", "echo >/etc/x || echo refused")
    assert done.stdout == b"refused\n"
    assert (squashed.image.read_bytes(), squashed.image.stat().st_mtime_ns) == before


def test_a_writable_root_forgets_over_a_file_as_well(squashed):
    squashed.more = ("--writable-tmpfs",)
    for _ in range(2):
        done = squashed.launch("sh", "-c", "test ! -e /etc/x && echo new >/etc/x && cat /etc/x")
        assert (done.returncode, done.stdout) == (0, b"new\n"), done.stderr


def path_without(directory: Path, *names: str) -> str:
    directory.mkdir()
    for place in os.environ["PATH"].split(":"):
        for name in os.listdir(place) if os.path.isdir(place) else ():
            if name not in names and not (directory / name).is_symlink():
                (directory / name).symlink_to(f"{place}/{name}")
    return str(directory)


def test_where_squashfuse_has_gone_python_has_other_means(squashed):
    squashed.launch()
    path = path_without(squashed.top / "bin", "squashfuse", "squashfuse_ll")
    done = squashed.launch("cat", "/opt/lab/link", env={"PATH": path})
    assert done.returncode == 0, done.stderr
    assert b"unpacking" in done.stderr


@pytest.mark.parametrize("content", [b"", b"no image\n" * 999], ids=["empty", "text"])
def test_a_file_that_is_no_image_is_refused_in_one_line(site, content):
    site.image = site.top / "broken"
    site.image.write_bytes(content)
    done = site.launch()
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert b"neither of SquashFS nor of SIF" in done.stderr
    assert site.plans() == {}


def test_a_file_that_is_cut_off_is_refused(squashed):
    whole = squashed.image.read_bytes()
    squashed.image.write_bytes(whole[: len(whole) // 2])
    done = squashed.launch()
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.count(b"\n") == 1, done.stderr


def test_a_file_that_can_not_be_read_is_refused(squashed):
    squashed.image.chmod(0)
    done = squashed.launch()
    assert done.returncode == 125
    assert b"Permission denied" in done.stderr


def test_only_one_of_a_crowd_reads_the_file(squashed):
    environment = squashed.environment
    argv = [runner(), *squashed.argv(["cat", "/opt/lab/link"])]
    crowd = [subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) for _ in range(8)]
    assert [process.communicate(timeout=120)[0] for process in crowd] == [b"from the host\n"] * 8
    assert len(squashed.stages()) == 1


def test_the_image_is_mounted_nowhere_on_the_host(squashed):
    before = Path("/proc/self/mountinfo").read_text()
    squashed.launch()
    squashed.launch()
    assert Path("/proc/self/mountinfo").read_text() == before
    assert os.listdir(squashed.cache / "image") == []
