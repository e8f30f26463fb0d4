"""Where plans are kept: nothing of anybody else's is used, nothing broken is, and a launch goes on without a cache."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from compiled_launch import Site, front, runner
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.compiled import cache_files, wire
from cdi_hpc.compiled.cache_place import CacheError, UntrustedCacheError, user_directory
from cdi_hpc.compiled.plan_cache import PlanCache
from cdi_hpc.config import CacheBounds
from cdi_hpc.container.steps import MakeDirectory, MakeFile, MakeLink
from cdi_hpc.errors import CdiError

KEY = "0" * 64
DAY = 86400


def age(path: Path, seconds: float) -> None:
    then = (
        path.stat(follow_symlinks=False).st_mtime - seconds
        if sys.version_info >= (3, 10)
        else path.stat().st_mtime - seconds
    )
    os.utime(path, (then, then), follow_symlinks=False)


# Refused, and made again ------------------------------------------------------------------------------------------

Spoil = Callable[[Path], object]

BROKEN: dict[str, Spoil] = {
    "empty": lambda plan: plan.write_bytes(b""),
    "without its end": lambda plan: plan.write_bytes(plan.read_bytes()[:-4]),
    "half of it": lambda plan: plan.write_bytes(plan.read_bytes()[: plan.stat().st_size // 2]),
    "something else": lambda plan: plan.write_bytes(b"#!/bin/sh\n"),
    "something after its end": lambda plan: plan.write_bytes(plan.read_bytes() + b"\0"),
    "another version": lambda plan: plan.write_bytes(plan.read_bytes().replace(b"plan\0002\0", b"plan\0001\0", 1)),
    "of another key": lambda plan: plan.write_bytes(plan.read_bytes().replace(plan.stem.encode(), KEY.encode(), 1)),
    "of another user": lambda plan: plan.write_bytes(
        plan.read_bytes().replace(f"owner\0{os.getuid()}\0".encode(), b"owner\0001\0", 1)
    ),
    "writable by the group": lambda plan: plan.chmod(0o620),
    "writable by others": lambda plan: plan.chmod(0o602),
    "unreadable": lambda plan: plan.chmod(0),
    "a link": lambda plan: [plan.rename(plan.with_name("elsewhere")), plan.symlink_to("elsewhere")],
    "a hard link": lambda plan: os.link(plan, plan.with_name("elsewhere")),
    "a directory": lambda plan: [plan.unlink(), plan.mkdir()],
    "a FIFO": lambda plan: [plan.unlink(), os.mkfifo(plan)],
}


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_plan_that_can_not_be_trusted_is_refused_with_a_reason_and_made_again(site, spoil):
    before, plan = site.view(), site.plan()
    BROKEN[spoil](plan)
    done = site.launch("cat", "/opt/lab/file")
    assert (done.returncode, done.stdout) == (0, b"from the host\n")
    lines = done.stderr.decode().splitlines()
    assert lines
    assert all(line.startswith("cdi-hpc: warning: ") for line in lines), lines
    assert "not used" in lines[0]
    if spoil == "a directory":
        return  # it is not ours to remove
    assert (site.view(), site.launch().stderr) == (before, b"")


STAGES: dict[str, Spoil] = {
    "gone": shutil.rmtree,
    "a link": lambda stage: [stage.rename(stage.with_name("elsewhere")), stage.symlink_to("elsewhere")],
    "writable by others": lambda stage: stage.chmod(0o777),
    "without a link in it": lambda stage: next(path for path in stage.rglob("*") if path.is_symlink()).unlink(),
    "without a mount point in it": lambda stage: next(
        path for path in stage.rglob("*") if path.name == "file" and not path.is_symlink()
    ).unlink(),
    "with a file that is empty": lambda stage: next(stage.rglob("ld.so.cache")).write_bytes(b""),
    "with a file more": lambda stage: next(stage.rglob("etc")).joinpath("more").write_bytes(b""),
}


@pytest.mark.parametrize("spoil", STAGES)
def test_a_plan_whose_stage_is_not_whole_is_made_again(site, spoil):
    """Directories in /tmp are cleaned file by file (tmpfiles.d(5)); after a power failure files may be empty."""
    before, plans = site.view(), site.plans()
    (stage,) = site.stages()
    STAGES[spoil](stage)
    assert site.view() == before
    assert site.plans() != plans
    assert site.launch().stderr == b""


DIRECTORIES: dict[str, Spoil] = {
    "a link": lambda cache: [cache.with_name("elsewhere").mkdir(mode=0o700), cache.symlink_to("elsewhere")],
    "a file": lambda cache: cache.write_bytes(b""),
    "open to the group": lambda cache: [cache.mkdir(), cache.chmod(0o750)],
    "open to others": lambda cache: [cache.mkdir(), cache.chmod(0o701)],
    "unwritable": lambda cache: [cache.mkdir(), cache.chmod(0o500)],
    "unsearchable": lambda cache: [cache.mkdir(), cache.chmod(0o600)],
    "closed": lambda cache: [cache.mkdir(), cache.chmod(0)],
}


@pytest.mark.parametrize("spoil", DIRECTORIES)
def test_without_a_cache_to_trust_or_write_to_a_launch_warns_and_works(site, spoil):
    DIRECTORIES[spoil](site.cache)
    for _ in range(2):
        done = site.launch("cat", "/opt/lab/file")
        assert (done.returncode, done.stdout) == (0, b"from the host\n")
        lines = done.stderr.decode().splitlines()
        # One that can't be entered is noticed twice: the plan can't be read, and can't be written.
        assert len(lines) == (2 if spoil in ("unsearchable", "closed") else 1)
        assert all(line.startswith(f"cdi-hpc: warning: {site.cache}") for line in lines)
    assert site.launch(options=["-q"]).stderr == b""
    site.cache.is_symlink() or site.cache.chmod(0o700)


def test_a_cache_that_can_not_be_made_is_one_warning(site):
    site.runtime.chmod(0o500)
    done = site.launch("cat", "/opt/lab/file")
    site.runtime.chmod(0o700)
    assert (done.returncode, done.stdout) == (0, b"from the host\n")
    assert len(done.stderr.splitlines()) == 1
    assert str(site.cache) in done.stderr.decode()


def test_a_full_file_system_is_one_warning(site, namespaces):
    namespaces.do(f"mount -t tmpfs -o size=16k,mode=700 full {site.runtime}")
    namespaces.do(f"mkdir -m 700 {site.cache} && cat /dev/zero 2>/dev/null >{site.runtime}/zeros; true")
    done = site.launch("cat", "/opt/lab/file", prefix=namespaces.prefix)
    assert (done.returncode, done.stdout) == (0, b"from the host\n")
    (line,) = done.stderr.decode().splitlines()
    assert "No space left on device" in line
    listing = subprocess.run(
        [*namespaces.prefix, "ls", "-A", str(site.cache)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in listing if not name.endswith(".lock")] == []


@pytest.mark.root
def test_the_cache_of_another_user_is_not_used(site):
    """Somebody else has made the directory in /tmp beforehand."""
    (site.top / "tmp").mkdir()
    (site.top / "tmp").chmod(0o1777)
    cache = site.top / "tmp" / f"cdi-hpc-{os.geteuid()}"
    cache.mkdir(mode=0o777)
    os.chown(cache, 12345, 12345)
    environment = {"XDG_RUNTIME_DIR": "", "TMPDIR": str(site.top / "tmp")}
    done = site.launch("cat", "/opt/lab/file", env=environment)
    assert (done.returncode, done.stdout) == (0, b"from the host\n")
    assert b"it belongs to user 12345" in done.stderr
    assert os.listdir(cache) == []


# Where it is ------------------------------------------------------------------------------------------------------


def where_the_runner_looks(site: Site, environment: dict[str, str]) -> str:
    """The cache's directory as the native runner has it: the plan that it reads, or looks for."""
    everything = {"PATH": os.environ["PATH"], "CDI_HPC_DIRS": str(site.specs), **environment}
    argv = ["strace", "-qq", "-e", "trace=open,openat", "-e", "signal=none", runner(), *site.argv(["true"])]
    done = subprocess.run(
        argv, env={**everything, "CDI_HPC_PYTHON_FRONT": "/bin/true"}, capture_output=True, check=False
    )
    opened = [line.split('"')[1] for line in done.stderr.decode().splitlines() if "O_PATH|O_DIRECTORY" in line]
    return next(path for path in opened if "cdi-hpc" in path and not path.startswith("/var/cache/"))


RUNTIME = (None, "", "runtime", "own", "link", "file", "missing", "/", "own/", "relative")
TEMPORARY = (None, "", "relative", "own", "/")


def test_the_runner_and_the_compiler_look_in_the_same_place(site):
    (site.top / "own").mkdir()
    (site.top / "link").symlink_to("own")
    (site.top / "file").write_text("")

    def place(word: str) -> str:
        return word if word in ("", "/", "relative") else f"{site.top}/{word}"

    for runtime, temporary in itertools.product(RUNTIME, TEMPORARY):
        words = {"XDG_RUNTIME_DIR": runtime, "TMPDIR": temporary}
        environment = {name: place(word) for name, word in words.items() if word is not None}
        directory, is_chosen = user_directory(environment, os.geteuid())
        assert not is_chosen
        is_ours = runtime in ("runtime", "own", "link", "own/")
        assert (directory == f"{place(runtime or '')}/cdi-hpc") == is_ours
        assert where_the_runner_looks(site, environment) == directory


@pytest.mark.parametrize("chosen", ["/cdi-hpc-own", "/cdi-hpc-own/", "/missing/cdi-hpc"])
def test_the_variable_says_it_to_both(site, chosen):
    environment = {"XDG_RUNTIME_DIR": str(site.runtime), "CDI_HPC_CACHE_DIRECTORY": f"{site.top}{chosen}"}
    directory, is_chosen = user_directory(environment, os.geteuid())
    assert is_chosen
    assert directory == f"{site.top}{chosen.rstrip('/')}" == where_the_runner_looks(site, environment)


# Written whole ----------------------------------------------------------------------------------------------------

ROOT = wire.Bind("/", "/")

STAGE = (
    MakeDirectory("1", 0o555),
    MakeDirectory("1/usr", 0o500),
    MakeDirectory("1/usr/lib", 0o2755),
    MakeFile("1/usr/lib/file", b"content", 0o444),
    MakeFile("1/usr/empty", b"", 0o000),
    MakeLink("1/link", "usr/lib"),
)


@pytest.fixture
def cache(tmp_path) -> PlanCache:
    return PlanCache(f"{tmp_path}/cache")


def written(cache: PlanCache, stage: tuple = STAGE) -> str:
    return cache.write(KEY, (os.geteuid(), os.getegid()), [ROOT], stage)


def test_every_file_of_a_stage_is_remembered_but_mount_points(tmp_path):
    stage = (MakeDirectory("1"), MakeFile("1/full", b"x"), MakeFile("1/empty"), MakeFile("1/over", is_mount_point=True))
    place = str(tmp_path / "stage")
    cache_files.fill_stage(place, stage)
    found = cache_files.stage_origins(place, stage)
    files = {os.path.relpath(origin.path, place) for origin in found if isinstance(origin, wire.SameFile)}
    assert files == {"1/full", "1/empty"}


@pytest.mark.parametrize("mask", [0, 0o77, 0o777])
def test_a_stage_is_as_it_was_asked_for_whatever_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        cache = PlanCache(f"{tmp_path}/cache")
        written(cache)
    finally:
        os.umask(before)
    (place,) = Path(cache.directory).glob("*.stage")
    for entry in STAGE:
        path = place / entry.path
        if isinstance(entry, MakeLink):
            assert os.readlink(path) == entry.points_to
        else:
            assert stat.S_IMODE(path.stat().st_mode) == entry.mode
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert stat.S_IMODE(os.stat(cache.path_of(KEY)).st_mode) == (0o600 if os.geteuid() else 0o644)
    assert stat.S_IMODE(os.stat(cache.directory).st_mode) == 0o700


def test_a_plan_that_can_not_be_written_leaves_nothing(cache):
    with pytest.raises(CdiError, match="bind"):
        cache.write(KEY, (os.geteuid(), os.getegid()), [wire.Bind("relative", "/")], STAGE)
    with pytest.raises(CacheError):
        written(cache, (*STAGE, MakeFile("1/no/such/directory", b"", 0o644)))
    assert os.listdir(cache.directory) == []


def test_a_plan_is_the_same_bytes_each_time_but_for_its_stage(site):
    """Whatever the order of Python's sets."""
    plans = []
    for seed in ("0", "1", "2"):
        done = site.launch(env={"PYTHONHASHSEED": seed})
        assert (done.returncode, done.stderr) == (0, b"")
        (stage,) = site.stages()
        records = site.plan().read_bytes().replace(str(stage).encode(), b"STAGE").split(b"\0")
        for number, field in enumerate(records):
            if field.startswith(b"STAGE") and number > 8:  # numbers of the stage's own files follow
                count = {b"dir": 4, b"file": 5}[records[number - 1]]
                records[number + 1 : number + 1 + count] = [b""] * count
        plans.append(records)
        site.plan().unlink()
        shutil.rmtree(stage)
    assert plans[0] == plans[1] == plans[2]


# Cleaned ----------------------------------------------------------------------------------------------------------


def names(cache: PlanCache) -> set[str]:
    """Endings of what is in the cache: a plan's and a stage's name have random parts."""
    return {name.rpartition(".")[2] if not name.startswith(".") else "." for name in os.listdir(cache.directory)}


def leave(cache: PlanCache) -> dict[str, Path]:
    """What a compiler that was killed may leave, and a stage whose plan was replaced."""
    top = Path(cache.directory)
    written(cache)
    (replaced,) = top.glob("*.stage")
    written(cache)
    left = {
        "plan being written": top / f".{KEY}.abc.plan",
        "stage being made": top / f".{KEY}.abc.stage",
        "replaced stage": replaced,
        "lock": top / f"{KEY}.lock",
    }
    left["plan being written"].write_text("")
    (left["stage being made"] / "1").mkdir(parents=True)
    (left["stage being made"] / "1").chmod(0o500)
    left["lock"].write_text("")
    return left


def test_what_may_still_be_in_use_is_left(cache):
    left = leave(cache)
    cache.collect()
    assert all(path.exists() for path in left.values())
    assert len(cache.plans()) == 1


def test_what_was_abandoned_is_collected(cache):
    left = leave(cache)
    for path in left.values():
        age(path, DAY)
    assert cache.collect() == 3
    assert [name for name, path in left.items() if path.exists()] == ["replaced stage"]
    age(left["replaced stage"], 31 * DAY)
    assert cache.collect() == 1
    assert names(cache) == {"plan", "stage"}


def test_a_site_says_for_how_long_stages_are_kept(cache):
    left = leave(cache)
    age(left["replaced stage"], 2 * DAY)
    cache.collect(CacheBounds(keep_stages=3))
    assert left["replaced stage"].exists()
    cache.collect(CacheBounds(keep_stages=1))
    assert not left["replaced stage"].exists()


def test_everything_means_plans_and_stages(cache):
    left = leave(cache)
    cache.collect(everything=True)
    assert names(cache) == {".", "lock"}  # somebody may be compiling this moment
    for path in (left["plan being written"], left["stage being made"], left["lock"]):
        age(path, DAY)
    cache.collect(everything=True)
    assert os.listdir(cache.directory) == []


def test_a_lock_that_is_held_is_left(cache):
    with cache.compiling(KEY, 0):
        (lock,) = Path(cache.directory).iterdir()
        age(lock, DAY)
        cache.collect()
        assert lock.exists()
    cache.collect()
    assert not lock.exists()


def test_what_is_not_ours_is_left(cache):
    foreign = Path(cache.directory, "notes.txt")
    foreign.write_text("")
    age(foreign, 100 * DAY)
    cache.collect(everything=True)
    assert foreign.exists()


def test_images_have_a_place_that_is_never_collected(cache):
    old = os.umask(0)
    try:
        place = Path(cache.image_place())
    finally:
        os.umask(old)
    assert (place.parent, stat.S_IMODE(place.stat().st_mode)) == (Path(cache.directory), 0o700)
    age(place, 1000 * DAY)
    cache.collect(everything=True)
    assert cache.image_place() == str(place)
    assert os.listdir(place) == []


def test_the_place_of_images_is_a_real_path(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert PlanCache(f"{tmp_path}/link/cache").image_place() == f"{tmp_path}/real/cache/image"


@pytest.mark.parametrize("there", ["a link", "a file"])
def test_nothing_is_mounted_on_what_is_no_directory_of_ours(there, cache, tmp_path):
    path = Path(cache.directory, "image")
    (tmp_path / "elsewhere").mkdir()
    {"a link": lambda: path.symlink_to(tmp_path / "elsewhere"), "a file": path.touch}[there]()
    with pytest.raises(UntrustedCacheError, match=r"images can't be mounted there: it is a link, or no directory"):
        cache.image_place()


def test_nothing_is_mounted_on_a_directory_of_somebody_else(cache, monkeypatch):
    cache.image_place()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UntrustedCacheError, match=f"it belongs to user {os.getuid()}"):
        cache.image_place()


def test_a_place_that_can_not_be_made_is_told_of(cache):
    os.chmod(cache.directory, 0o500)
    try:
        with pytest.raises(CacheError, match="Permission denied"):
            cache.image_place()
    finally:
        os.chmod(cache.directory, 0o700)


@pytest.mark.parametrize("content", [b"", b"\0", b"stage", b"cdi-hpc-plan\0002\0key\0" + b"x\0owner\0001\0001\0stage"])
def test_a_broken_plan_does_not_stop_the_cleaning(cache, content):
    written(cache)
    Path(cache.path_of("1" * 64)).write_bytes(content)
    Path(cache.path_of("2" * 64)).mkdir()
    assert len(cache.plans()) == 3
    cache.collect()
    assert os.path.exists(cache.path_of(KEY))
    cache.collect(everything=True)
    assert cache.plans() == []


def test_the_least_recently_used_go_beyond_the_bound(cache):
    for number in range(4):
        path = Path(cache.path_of(f"{number}" * 64))
        path.write_bytes(b"")
        age(path, number * 100)
    cache.collect(CacheBounds(max_plans=2))
    assert sorted(plan.key[0] for plan in cache.plans()) == ["0", "1"]


def test_a_stage_is_kept_from_when_its_plan_was_taken_away_beyond_the_bound(cache):
    written(cache)
    (stage,) = Path(cache.directory).glob("*.stage")
    age(stage, 400 * DAY)  # a running container may have been started by its plan just before
    assert cache.collect(CacheBounds(max_plans=0)) == 1
    assert names(cache) == {"stage"}
    cache.collect(CacheBounds(keep_stages=30))
    assert names(cache) == {"stage"}
    age(stage, 31 * DAY)
    cache.collect(CacheBounds(keep_stages=30))
    assert names(cache) == set()


def test_the_largest_cache_is_bounded_in_bytes(cache):
    for number in range(4):
        path = Path(cache.path_of(f"{number}" * 64))
        path.write_bytes(bytes(1000))
        age(path, number * 100)
    cache.collect(CacheBounds(max_size=2500))
    assert sorted(plan.key[0] for plan in cache.plans()) == ["0", "1"]


def test_a_launch_collects_but_not_each_one(site):
    site.launch()
    stamp = site.cache / "collected"
    first = stamp.stat().st_mtime_ns
    left = site.cache / f".{KEY}.abc.plan"
    left.write_text("")
    age(left, DAY)
    site.launch(options=["--contain"])
    assert left.exists()
    assert stamp.stat().st_mtime_ns == first
    age(stamp, DAY)
    site.launch(options=["--writable-tmpfs"])
    assert not left.exists()


# Listed and cleaned from the command line -------------------------------------------------------------------------


def cdi_hpc(site: Site, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [front(), *words], env={**site.environment, **environment}, capture_output=True, text=True, check=False
    )


def test_a_launch_that_was_compiled_beforehand_compiles_nothing(site):
    done = cdi_hpc(site, "compile", "--image", str(site.image), *site.devices)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{site.plan()}\n", "")
    plans = site.plans()
    assert site.view() == site.view(python=True)
    assert site.plans() == plans


@pytest.mark.parametrize("options", [("--strict",), ("--unknown-hooks=fail",), ("--cdi-dir", "cdi")])
def test_options_of_compile_are_those_of_the_launch(site, options):
    done = subprocess.run(
        [front(), "compile", *options, "--image", str(site.image), *site.devices],
        env=site.environment,
        cwd=site.top,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    plans = site.plans()
    assert len(plans) == 1
    assert site.launch(options=options, cwd=site.top).returncode == 0
    assert site.plans() == plans


@pytest.mark.parametrize(
    "words, status, said",
    [
        ((), 2, "DEVICE"),
        (("none/such=1",), 1, "none/such"),
        (("--image", "/no/such/image", "lab.example/thing=one"), 1, "/no/such/image"),
        (("--image", "/etc/passwd", "lab.example/thing=one"), 1, "/etc/passwd"),
        (("--for", "nothing", "lab.example/thing=one"), 1, "nothing"),
        (("--system", "lab.example/thing=one"), 1, "root"),
    ],
)
def test_what_can_not_be_compiled_is_said(site, words, status, said):
    done = cdi_hpc(site, "compile", *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert site.plans() == {}


def test_a_list_of_launches_is_compiled(site):
    lines = [f"--image {site.image} {site.devices[0]}  # comment", "", f"--image / '{site.devices[0]}'"]
    (site.top / "list").write_text("\n".join(lines))
    done = cdi_hpc(site, "compile", "--list", str(site.top / "list"))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.splitlines()) == {str(site.cache / name) for name in site.plans()}
    assert len(site.plans()) == 2


def test_plans_are_listed_and_cleaned(site):
    assert "no plans" in cdi_hpc(site, "cache", "list").stdout
    site.launch()
    site.launch(options=["--contain"])
    listed = cdi_hpc(site, "cache", "list")
    assert all(name[:-5] in listed.stdout for name in site.plans())
    as_json = cdi_hpc(site, "cache", "list", "--format=json")
    assert {f'"{site.cache / name}"' in as_json.stdout for name in site.plans()} == {True}
    assert cdi_hpc(site, "cache", "clean").returncode == 0
    assert len(site.plans()) == 2
    assert cdi_hpc(site, "cache", "clean", "--all").returncode == 0
    assert site.plans() == {}
    assert site.stages() == []
    assert site.launch().returncode == 0


# What a random name in the cache does -----------------------------------------------------------------------------


@given(name=st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=20))
def test_collecting_takes_any_name(tmp_path_factory, name):
    if name in (".", ".."):
        return
    cache = PlanCache(f"{tmp_path_factory.mktemp('cache')}/cache")
    Path(cache.directory, name).write_bytes(b"")
    cache.plans()
    cache.collect()
    cache.collect(everything=True)
