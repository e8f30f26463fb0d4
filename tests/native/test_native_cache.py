"""Whose plans are used, and from where. What can't be trusted is refused with the reason, and the launch goes on."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable

import pytest
from native_programs import HOST_ROOT, Cache, is_fresh

from cdi_hpc.compiled import wire

LAUNCH = ["/", "true"]


def spoil_by_link(cache: Cache) -> None:
    plan = next(cache.directory.glob("*.plan"))
    plan.rename(cache.runtime / "elsewhere")
    plan.symlink_to(cache.runtime / "elsewhere")


def spoil_by_directory_link(cache: Cache) -> None:
    cache.directory.rename(cache.runtime / "elsewhere")
    cache.directory.symlink_to("elsewhere")


def spoil_by_fifo(cache: Cache) -> None:
    plan = next(cache.directory.glob("*.plan"))
    plan.unlink()
    os.mkfifo(plan, 0o600)


def spoil_bytes(cache: Cache) -> None:
    plan = next(cache.directory.glob("*.plan"))
    plan.write_bytes(plan.read_bytes()[:-1])


def spoil_by_mode(mode: int) -> Callable[[Cache], None]:
    return lambda cache: next(cache.directory.glob("*.plan")).chmod(mode)


REFUSALS: dict[str, tuple[Callable[[Cache], object], str]] = {
    "group may write to it": (spoil_by_mode(0o620), "not used: others may write to it (mode 620)"),
    "others may write to it": (spoil_by_mode(0o602), "not used: others may write to it (mode 602)"),
    "it is a link": (spoil_by_link, "not used: it is a link"),
    "it has a second name": (
        lambda cache: os.link(next(cache.directory.glob("*.plan")), cache.runtime / "second"),
        "not used: it has other names (hard links)",
    ),
    "it is a FIFO": (spoil_by_fifo, "not used: it is not a regular file"),
    "it is cut off": (spoil_bytes, "not used: byte"),
    "its directory is a link": (spoil_by_directory_link, "not used for plans: it is a link, or no directory"),
    "its directory is open to the group": (
        lambda cache: cache.directory.chmod(0o750),
        "not used for plans: others have access to it (mode 750)",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_plan_is_refused_when(what, cache):
    spoil, reason = REFUSALS[what]
    cache.write()
    assert is_fresh(cache.start(LAUNCH))
    spoil(cache)
    done = cache.start(LAUNCH)
    assert not is_fresh(done)
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("cdi-hpc: warning: ")


@pytest.mark.parametrize("change", [{"uid": 12345}, {"gid": 12345}, {"key": "0" * 64}])
def test_a_plan_that_says_it_is_anothers_is_refused(change, cache):
    cache.write(**change)
    done = cache.start(LAUNCH)
    assert not is_fresh(done)
    assert "not used: it was made for key" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("what", ["plan", "directory", "stage"])
def test_a_plan_is_refused_when_somebody_else_owns_its(what, cache):
    plan = cache.write(staged=True)
    os.chown({"plan": plan, "directory": cache.directory, "stage": cache.stage}[what], 12345, -1)
    done = cache.start(["-v", *LAUNCH])
    assert not is_fresh(done)
    assert "user 12345" in done.stderr


@pytest.mark.root
def test_a_plan_of_the_systems_is_for_everybody(cache, programs, tmp_path):
    system = programs.system_cache
    shutil.rmtree(system, ignore_errors=True)
    system.mkdir(mode=0o755)
    key = cache.key(LAUNCH, "--print-system-key")
    (system / f"{key}.plan").write_bytes(wire.encode(wire.WirePlan(key, 0, 0, None, (HOST_ROOT,))))
    for directory in (system.parent, *system.parent.parents, tmp_path):
        directory.chmod(directory.stat().st_mode | 0o055)
    done = cache.start(LAUNCH, user=12345, group=12345)
    system.chmod(0o775)
    system_is_open = cache.start(LAUNCH)
    shutil.rmtree(system)
    assert is_fresh(done)
    assert not is_fresh(system_is_open)
    assert "others have access to it" in system_is_open.stderr


@pytest.mark.root
def test_a_plan_of_the_systems_that_can_not_be_applied_gives_way_to_the_users_own(cache, programs, tmp_path):
    user = {"user": 12345, "group": 12345}
    system = programs.system_cache
    shutil.rmtree(system, ignore_errors=True)
    system.mkdir(mode=0o755)
    key = cache.key(LAUNCH, "--print-system-key")
    plan, note = system / f"{key}.plan", cache.directory / f"{key}.passed-over"
    own = cache.directory / f"{cache.key(LAUNCH, **user)}.plan"
    os.chown(cache.runtime, 12345, 12345)
    for directory in (system.parent, *system.parent.parents, tmp_path):
        directory.chmod(directory.stat().st_mode | 0o055)

    def compile_for_all(*steps: wire.Record) -> None:
        plan.write_bytes(wire.encode(wire.WirePlan(key, 0, 0, None, (HOST_ROOT, *steps))))
        plan.chmod(0o644)

    try:
        compile_for_all(wire.Bind("/no/such", "/mnt"))
        failed, later = cache.start(LAUNCH, **user), cache.start(LAUNCH, **user)
        assert failed.stdout.startswith("front <run> <--runner=python> </> <true>")
        what = "not used: /mnt: can't bind /no/such there: No such file or directory"
        fix = "ask the administrator to compile it again: cdi-hpc compile --system"
        assert failed.stderr == f"cdi-hpc: warning: {plan}: {what} ({fix})\n"
        assert later.stdout.startswith("front <run> <--compile-and-run> </> <true>")
        assert later.stderr == ""
        own.write_bytes(wire.encode(wire.WirePlan(own.stem, 12345, 12345, None, (HOST_ROOT,))))
        os.chown(own, 12345, 12345)
        assert is_fresh(cache.start(LAUNCH, **user))
        assert (plan.exists(), note.exists()) == (True, True)
        own.unlink()
        os.utime(note, (0, 0))  # before the plan that is there now
        compile_for_all()
        assert is_fresh(cache.start(LAUNCH, **user))
    finally:
        shutil.rmtree(system)


def test_only_root_writes_the_systems_plans(cache, programs):
    owner = os.geteuid() or 12345
    shutil.rmtree(programs.system_cache, ignore_errors=True)
    programs.system_cache.mkdir(mode=0o755)
    os.chown(programs.system_cache, owner, -1)
    done = cache.start(LAUNCH)
    programs.system_cache.rmdir()
    assert not is_fresh(done)
    assert f"user {owner}, not to 0" in done.stderr


def test_without_a_runtime_directory_plans_are_below_tmpdir(cache, tmp_path):
    plan = cache.write()
    own = tmp_path / f"cdi-hpc-{os.geteuid()}"
    cache.directory.rename(own)
    assert (own / plan.name).exists()
    cache.env = {"TMPDIR": str(tmp_path)}
    assert not is_fresh(cache.start(LAUNCH))
    # Not absolute, not there, or not a directory: then it is no runtime directory.
    for wrong in ("", "runtime", str(tmp_path / "missing"), str(cache.front)):
        cache.env["XDG_RUNTIME_DIR"] = wrong
        assert is_fresh(cache.start(LAUNCH))


@pytest.mark.root
def test_somebody_elses_runtime_directory_is_none(cache, tmp_path):
    cache.write()
    cache.directory.rename(tmp_path / "cdi-hpc-0")
    os.chown(cache.runtime, 12345, -1)
    cache.env = {"TMPDIR": str(tmp_path)}
    assert is_fresh(cache.start(LAUNCH))


def test_nothing_cached_is_no_reason_to_complain(cache):
    done = cache.start(LAUNCH)
    assert not is_fresh(done)
    assert done.stderr == ""


def test_the_front_is_told_where_the_runner_is(cache, tmp_path):
    cache.front.write_text('#!/bin/sh\necho "$CDI_HPC_NATIVE"\n')
    assert cache.start(LAUNCH).stdout.strip() == str(cache.programs.run)


def test_the_front_beside_the_runner_comes_first_then_the_path(cache, tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    for directory in (own, other):
        directory.mkdir()
        (directory / "cdi-hpc").write_text(f"#!/bin/sh\necho {directory.name}\n")
        (directory / "cdi-hpc").chmod(0o755)
    run = shutil.copy(cache.programs.run, own / "cdi-hpc-run")
    cache.env = {"CDI_HPC_PYTHON_FRONT": "", "PATH": f"{other}:{os.environ['PATH']}"}
    assert cache.start(LAUNCH, run=run).stdout == "own\n"
    (own / "cdi-hpc").unlink()
    assert cache.start(LAUNCH, run=run).stdout == "other\n"


def test_without_a_front_the_runner_says_what_is_missing(cache, tmp_path):
    cache.env = {"CDI_HPC_PYTHON_FRONT": str(tmp_path / "none")}
    done = cache.start(LAUNCH)
    assert done.returncode == 125
    assert done.stderr.startswith(f"cdi-hpc: error: {tmp_path}/none: can't be executed, and is needed to compile plans")


def test_a_plan_that_was_just_compiled_and_is_unusable_is_not_compiled_again(cache):
    cache.env = {"CDI_HPC_COMPILED": cache.key(LAUNCH)}
    done = cache.start(LAUNCH)
    assert done.stdout.startswith("front <run> <--runner=python> </> <true>")
    assert done.stdout.endswith("compiled=\n")
    assert "going on without one" in done.stderr
    # A front of another release computes another key, every time.
    cache.env = {"CDI_HPC_COMPILED": "0" * 64}
    assert cache.start(LAUNCH).stdout.startswith("front <run> <--runner=python> </> <true>")


@pytest.mark.root
@pytest.mark.parametrize("bit", [stat.S_ISUID, stat.S_ISGID])
def test_a_runner_with_somebody_elses_rights_refuses(bit, cache, tmp_path):
    run = tmp_path / "run"
    shutil.copy(cache.programs.plain_run, run)
    os.chown(run, 12345, 12345)
    run.chmod(0o755 | bit)
    done = cache.start(LAUNCH, run=run)
    assert done.returncode == 125
    assert "must not be set-user-ID or set-group-ID" in done.stderr
