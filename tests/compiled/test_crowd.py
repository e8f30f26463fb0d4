"""Many at once, and some that are killed: nobody fails, nothing broken is used, what is left behind is collected.

``CDI_HPC_LONG=1`` runs as many as the project promises: 200 launches, 300 that are killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from compiled_launch import Site, front, runner

from cdi_hpc.compiled.plan_cache import PlanCache

LONG = "CDI_HPC_LONG" in os.environ
CROWD = 200 if LONG else 20
KILLED = 300 if LONG else 30

HOST_FILE = b"from the host\n"
GOING_ON = b"the plan that was compiled this moment can't be used; going on without one\n"


def start(site: Site, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [runner(), *site.argv(["cat", "/opt/lab/file"], options=options)],
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def results(processes: list[subprocess.Popen[bytes]]) -> set[tuple[int, bytes, bytes]]:
    """Status and output of each, every different one once."""
    outputs = [process.communicate(timeout=600) for process in processes]
    return {(process.returncode, *output) for process, output in zip(processes, outputs)}


def host_mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def test_a_crowd_on_an_empty_cache_compiles_once_or_little_more(site):
    """Each compilation leaves a stage; the last one's is in use."""
    assert results([start(site) for _ in range(CROWD)]) == {(0, HOST_FILE, b"")}
    assert len(site.plans()) == 1
    assert 1 <= len(site.stages()) <= 3


def test_a_crowd_of_different_launches_does_not_disturb_each_other(site):
    """Their caches are cleaned meanwhile, as the first compilation of an hour does."""
    options = [("--contain",), ("--writable-tmpfs",), ("--stage=underlay",), ("--strict",), (), ("--bind=/srv",)]
    processes = [start(site, *options[number % len(options)]) for number in range(CROWD)]
    for _ in range(5):
        cleaned = subprocess.run([front(), "cache", "clean"], env=site.environment, capture_output=True, check=False)
        assert (cleaned.returncode, cleaned.stderr) == (0, b"")
    assert results(processes) == {(0, HOST_FILE, b"")}
    assert len(site.plans()) == len(options)


def test_a_crowd_while_the_spec_is_rewritten_sees_one_spec_or_the_other(site):
    spec = site.specs / "lab.yaml"
    texts = [spec.read_text().replace("from the spec", value) for value in ("first", "second")]
    spec.write_text(texts[0])
    command = ["sh", "-c", 'echo "$LAB_VARIABLE"']
    processes = []
    for number in range(CROWD):
        new = site.specs / ".new"
        new.write_text(texts[number % 2])
        new.rename(spec)
        processes.append(
            subprocess.Popen([runner(), *site.argv(command)], env=site.environment, stdout=-1, stderr=-1, text=False)
        )
    assert results(processes) <= {(0, b"first\n", b""), (0, b"second\n", b"")}
    done = site.launch(*command)
    assert (done.returncode, done.stdout) == (0, b"second\n" if CROWD % 2 == 0 else b"first\n")


def test_what_never_stops_changing_is_launched_without_a_plan(site):
    """A file appears and goes in a directory of the image, all the time."""
    busy = site.image / "etc" / "busy"
    changer = subprocess.Popen(["sh", "-c", f"while :; do : >{busy}; rm {busy}; done"])
    try:
        done = site.launch("cat", "/opt/lab/file")
    finally:
        changer.kill()
        changer.wait()
    assert (done.returncode, done.stdout) == (0, HOST_FILE)
    # It may have rested for as long as a compilation takes, and then gone on.
    assert done.stderr in (b"", b"cdi-hpc: warning: " + GOING_ON)


def kill_one(site: Site, seconds: float) -> None:
    """Kill a launch and everything that it started."""
    process = start(site)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def test_whoever_is_killed_leaves_nothing_that_is_used_and_nothing_that_stays(site):
    """Compilers and runners, at random points of what takes a tenth of a second or two."""
    chance = random.Random(3)  # noqa: S311  # any points in time will do
    site.launch()
    fresh = site.plan().read_bytes()
    site.plan().unlink()
    mounts = host_mounts()
    spec = site.specs / "lab.yaml"
    for number in range(KILLED):
        os.utime(spec)  # what there is is stale
        kill_one(site, chance.uniform(0, 0.4))
        if number % 10 == 9:
            done = site.launch("cat", "/opt/lab/file")
            assert (done.returncode, done.stdout, done.stderr) == (0, HOST_FILE, b"")
            kill_one(site, chance.uniform(0, 0.01))  # a runner, with a plan
    assert host_mounts() == mounts
    done = site.launch("cat", "/opt/lab/file")
    assert (done.returncode, done.stdout, done.stderr) == (0, HOST_FILE, b"")
    assert fresh[-4:] == site.plan().read_bytes()[-4:] == b"end\0"
    left = {*site.cache.iterdir()} - {site.plan()}
    for path in left:
        os.utime(path, (0, 0), follow_symlinks=False)
    cleaned = subprocess.run([front(), "cache", "clean"], env=site.environment, capture_output=True, check=False)
    assert (cleaned.returncode, cleaned.stderr) == (0, b"")
    assert {path.name.rpartition(".")[2] for path in site.cache.iterdir()} == {"plan", "stage", "collected"}
    assert len(site.stages()) == len(site.plans()) == 1
    assert site.launch().stderr == b""


def test_a_compiler_that_is_stopped_does_not_hold_up_launches_of_other_plans(site):
    first = start(site)
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        done = site.launch("cat", "/opt/lab/file", options=["--contain"])
        assert (done.returncode, done.stdout, done.stderr) == (0, HOST_FILE, b"")
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert results([first]) == {(0, HOST_FILE, b"")}


def test_nor_for_ever_those_of_the_same_plan(tmp_path, monkeypatch):
    monkeypatch.setattr("cdi_hpc.compiled.cache_files.PATIENCE", 0.1)
    cache = PlanCache(f"{tmp_path}/cache")
    with cache.compiling("0" * 64, 0), cache.compiling("0" * 64, 0) as done:
        assert not done
