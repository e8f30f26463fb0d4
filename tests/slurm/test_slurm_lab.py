"""scripts/slurm-lab removes nothing but a cluster's own, believes nobody else's files, and can always be stopped."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from slurm_site import JOB_USER, PATH, PROJECT, Done, wait_until, working_below

PROGRAM = PROJECT / "scripts/slurm-lab"


@pytest.fixture
def place(lab) -> Iterator[Path]:
    """A directory with a short name, which others can enter."""
    top = Path(tempfile.mkdtemp(prefix="cdi-slurm-", dir="/tmp"))
    top.chmod(0o755)
    yield top
    assert wait_until(lambda: not working_below(top)), working_below(top)
    shutil.rmtree(top)


def slurm_lab(*words: str, cwd: Path | None = None, path: str = PATH) -> Done:
    argv = [sys.executable, str(PROGRAM), *words]
    environ = {"PATH": path, "LANG": "C.UTF-8"}
    return subprocess.run(argv, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=120)


def assert_refused(done: Done, why: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("slurm-lab: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert why in done.stderr


# The directory --------------------------------------------------------------------------------------------------------

WAYS = {"start": ["start"], "run": ["run", "true"]}


@pytest.mark.parametrize("way", WAYS)
def test_files_that_are_no_clusters_stay(place, way):
    (place / "src").mkdir()
    (place / "src/a.c").write_text("precious")
    assert_refused(slurm_lab("--dir", ".", *WAYS[way], cwd=place), "they are no cluster's")
    assert (place / "src/a.c").read_text() == "precious"


def test_a_list_of_daemons_that_is_no_clusters_is_no_list(place):
    """Else stop would end whatever somebody has written there."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        start = Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(") ")[2].split()[19]
        (place / "daemons").write_text(f"{bystander.pid} slurmd-n1 {start}\n")
        for verb in ("stop", "status", "env"):
            assert_refused(slurm_lab("--dir", str(place), verb), "they are no cluster's")
        assert bystander.poll() is None
        assert (place / "daemons").exists()
        bystander.kill()


def test_a_directory_is_a_clusters_again_and_again(place):
    top = place / "lab"
    top.mkdir()
    top.chmod(0o775)  # as many umasks have it
    for _ in range(2):
        done = slurm_lab("--dir", str(top), "run", "--nodes=1", "srun", "--quiet", "printenv", "SLURM_JOB_ID")
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
        assert top.stat().st_mode & 0o777 == 0o755
        (top / "state/more").mkdir()


def test_where_no_cluster_is_there_is_none_to_stop(place):
    assert slurm_lab("--dir", str(place / "lab"), "stop").returncode == 0
    assert_refused(slurm_lab("--dir", str(place / "lab"), "status"), "no cluster in")
    assert not any(place.iterdir())


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_link_or_a_file_is_no_directory(place, kind):
    (place / "real").mkdir()
    if kind == "link":
        (place / "lab").symlink_to("real")
    else:
        (place / "lab").touch()
    for verb in ("start", "stop", "status", "env"):
        assert_refused(slurm_lab("--dir", str(place / "lab"), verb), "a link to one will not do")


def test_links_above_are_followed_once(place):
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    done = slurm_lab("--dir", str(place / "link/lab"), "env")
    assert done.stdout == f"export SLURM_CONF={place}/real/lab/etc/slurm.conf\n"


@pytest.mark.parametrize("name", ["x y", "x%n", "x#", "x,y", "x'y"])
def test_a_name_that_slurms_files_can_not_hold(place, name):
    assert_refused(slurm_lab("--dir", str(place / name), "start"), "Slurm's files can't name it")
    assert not any(place.iterdir())


@pytest.mark.root
@pytest.mark.parametrize(("what", "why"), [("directory", "it belongs to {}"), ("link", "a link to one will not do")])
def test_root_is_not_led_to_what_a_user_has_made(place, what, why):
    user = pwd.getpwnam(JOB_USER)
    lab = place / "lab"
    if what == "directory":
        lab.mkdir()
        (lab / ".slurm-lab").touch()
        os.chown(lab / ".slurm-lab", user.pw_uid, user.pw_gid)
    else:
        lab.symlink_to("/etc")
    os.chown(lab, user.pw_uid, user.pw_gid, follow_symlinks=False)
    for verb in ("start", "stop", "status", "env"):
        assert_refused(slurm_lab("--dir", str(lab), verb), why.format(user.pw_name))


@pytest.mark.root
@pytest.mark.parametrize(("mode", "owner"), [(0o777, 0), (0o775, 0), (0o755, 59999)])
def test_root_is_nowhere_below_what_somebody_else_could_exchange(place, mode, owner):
    above = place / "above"
    above.mkdir()
    above.chmod(mode)
    os.chown(above, owner, owner)
    for verb in ("start", "stop"):
        assert_refused(slurm_lab("--dir", str(above / "lab"), verb), f"{above}: not root's alone")
    assert not any(above.iterdir())


# Options --------------------------------------------------------------------------------------------------------------


def test_a_plugstack_that_is_not_there(place):
    done = slurm_lab("--dir", str(place / "lab"), "start", "--plugstack", str(place / "none"))
    assert_refused(done, f"--plugstack: {place}/none: not there")
    assert not any(place.iterdir())


@pytest.mark.root
def test_a_user_that_is_not_there(place):
    assert_refused(slurm_lab("--dir", str(place / "lab"), "run", "--user", "nosuch", "true"), "there is no such user")
    assert not any(place.iterdir())


def test_a_user_that_one_can_not_be(place):
    if os.geteuid() != 0:
        done = slurm_lab("--dir", str(place / "lab"), "run", "--user", "root", "true")
        assert_refused(done, "only root can be somebody else")


# Daemons that end -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def module() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("slurm_lab", str(PROGRAM))
    spec = importlib.util.spec_from_loader("slurm_lab", loader)
    assert spec
    found = importlib.util.module_from_spec(spec)
    sys.modules["slurm_lab"] = found  # where dataclasses look for it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        loader.exec_module(found)
    return found


def test_a_daemon_that_has_ended_before_anybody_looks_is_none(module, place, monkeypatch):
    cluster = module.Cluster(place)
    (place / "log").mkdir()
    (place / "etc").mkdir()
    monkeypatch.setattr(module, "start_time", lambda pid: "")
    module.spawn(cluster, "munged", ["true"])
    assert cluster.daemons() == []


def test_half_a_line_of_a_full_disk_is_no_daemon(module, place):
    (place / "daemons").write_text(f"{os.getpid()} munged {module.start_time(os.getpid())}\n{os.getpid()} slu")
    assert module.Cluster(place).daemons() == [(os.getpid(), "munged")]


@pytest.mark.parametrize("daemon", ["munged", "slurmctld", "slurmd"])
def test_a_daemon_that_ends_at_once_leaves_none_running(place, daemon):
    (place / "bin").mkdir()
    fake = place / "bin" / daemon
    # What asks for its release is answered.
    real = shutil.which(daemon, path=f"{PATH}:/usr/sbin")
    fake.write_text(f'#!/bin/sh\n[ "$1" != -V ] || exec {real} -V\necho it is ill >&2\nexit 1\n')
    fake.chmod(0o755)
    lab = str(place / "lab")
    for _ in range(2):
        done = slurm_lab("--dir", lab, "start", "--nodes=1", path=f"{place}/bin:{PATH}")
        assert done.returncode == 1
        assert f"{daemon} did not come up" in done.stderr
        assert "it is ill" in done.stderr
        assert wait_until(lambda: not working_below(place))
    assert slurm_lab("--dir", lab, "stop").returncode == 0
