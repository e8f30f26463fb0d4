"""What goes wrong on a node: a defined message and status, no task that ran, no node out of service, nothing left.

The last two are seen to by the fixture, after each test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_site import PROJECT, Site, errors, wait_until, working_below

GPUS = "--cdi=nvidia.com/gpu"
MOUNTS = (GPUS, "--cdi-mode=mounts")
TWO = "--gres=gpu:2"

#: How a program can fail -> its text, what is said of it.
PROGRAMS = {
    "hanging": ("#!/bin/sh\nexec sleep 600\n", "it has not ended within 1 s"),
    "hanging children": ("#!/bin/sh\nsleep 600 & sleep 600\n", "it has not ended within 1 s"),
    "garbage": ("#!/bin/sh\nhead -c 100000 /dev/urandom\n", "it has not answered with the path of a plan"),
    "endless garbage": ("#!/bin/sh\nexec yes\n", "it has not ended within 1 s"),
    "silence": ("#!/bin/sh\nexit 0\n", "it has not answered with the path of a plan"),
    "killed": ("#!/bin/sh\nkill -9 $$\n", "it was ended by signal 9"),
    "crash": ("#!/bin/sh\necho Traceback; echo 'ValueError: boom' >&2; exit 3\n", "it has failed: ValueError: boom"),
    "no interpreter": ("#!/no/such/interpreter\n", "can't be executed"),
    "terminal": ("#!/bin/sh\nprintf 'cdi-hpc: error: \\033[2Jgone\\n' >&2; exit 125\n", "error: ?[2Jgone"),
}


def assert_refused(site: Site, text: str, *words: str) -> None:
    """A step on two nodes fails with 125, each node says why, once, and nothing runs."""
    done = site.srun("-N2", "-n4", TWO, *(words or (GPUS,)), "echo", "RAN")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert len(errors(done)) == 2, done.stderr
    assert all(f"n{number}: error: " in line and text in line for number, line in enumerate(errors(done), 1)), (
        done.stderr
    )


@pytest.mark.parametrize("which", ["cdi_hpc", "cdi_hpc_run"])
@pytest.mark.parametrize("fault", [*PROGRAMS])
def test_a_program_of_ours_that_fails(site, which, fault):
    text, message = PROGRAMS[fault]
    if which == "cdi_hpc":  # it is called where there is no plan
        shutil.rmtree(site.cache, ignore_errors=True)
    site.configure(timeout="1", **{which: site.program(text)})
    assert_refused(site, message)


@pytest.mark.parametrize("which", ["cdi_hpc", "cdi_hpc_run"])
def test_a_program_of_ours_that_is_missing_or_not_executable(site, which):
    shutil.rmtree(site.cache, ignore_errors=True)
    site.configure(**{which: "/no/such/program"})
    assert_refused(site, "/no/such/program: can't be executed: No such file or directory")
    site.configure(**{which: "/etc/passwd"})
    assert_refused(site, "/etc/passwd: can't be executed")


def test_a_batch_job_fails_and_its_node_goes_on(site):
    site.configure(cdi_hpc_run="/no/such/program")
    status, output = site.batch("#!/bin/sh\necho RAN\n", TWO, GPUS)
    assert status == 125
    assert "RAN" not in output
    assert "can't be executed" in output


def test_a_fault_of_one_node_of_two(site):
    shutil.rmtree(site.cache, ignore_errors=True)
    other = site.program(
        f'#!/bin/sh\n[ "$SLURM_NODEID" = 0 ] || set -- "$@" example.org/broken=1\nexec {site.compiler} "$@"\n'
    )
    runner = site.program("#!/bin/sh\nexit 1\n")
    site.configure(cdi_hpc=other, cdi_hpc_run=runner, gpus="shared")
    done = site.srun("-N2", "-n2", "--kill-on-bad-exit", TWO, GPUS, "sleep", "20")
    assert done.returncode != 0
    assert [line.partition(",")[0] for line in errors(done)] == [
        "n2: error: device 'example.org/broken=1': no spec for the kind 'example.org/broken' in '/etc/cdi'"
    ]


#: What can be wrong with the spec of one node -> how it gets there, what that node says of it.
SPECS = {
    "no YAML": ("echo '{{devices: [' > {spec}", "{spec}:1:"),
    "no spec": ("echo 'just words' > {spec}", "{spec}"),
    "cut off": ("head -c 300 /etc/cdi/nvidia.yaml > {spec}", "{spec}"),
    "empty": (": > {spec}", "{spec}"),
    "not readable": ("cp /etc/cdi/nvidia.yaml {spec}; chmod 0 {spec}", "Permission denied"),
    "not there": (":", "kind 'nvidia.com/gpu': there are no usable CDI specs in '{directory}'"),
    "other devices": ("sed 's/^kind:.*/kind: amd.com\\/gpu/' /etc/cdi/nvidia.yaml > {spec}", "nvidia.com/gpu"),
    "a library that is not there": (
        "sed 's/libcuda.so.570.133.20/libcuda.so.1.2.3/' /etc/cdi/nvidia.yaml > {spec}",
        "1.2.3",
    ),
}


@pytest.mark.parametrize("mode", ["handoff", "mounts"])
@pytest.mark.parametrize("fault", [*SPECS])
def test_a_spec_that_is_broken_on_one_node_of_two(site, fault, mode):
    """The second node's compiler looks into a directory of its own, as on a machine of its own."""
    make, message = SPECS[fault]
    directory = Path(tempfile.mkdtemp(dir=site.top / "home"))
    directory.chmod(0o755)
    names = {"directory": directory, "spec": directory / "nvidia.yaml"}
    subprocess.run(["sh", "-euc", make.format(**names)], check=True)
    own = f'case $SLURM_NODEID in 1) shift; set -- compile --cdi-dir={directory} "$@";; esac'
    compiler = site.program(f'#!/bin/sh\n{own}\nexec {site.compiler} "$@"\n')
    site.configure(cdi_hpc=compiler, cdi_hpc_run=site.finder("exit 1\n"))
    done = site.srun("-N2", "-n4", TWO, GPUS, f"--cdi-mode={mode}", "printenv", "SLURMD_NODENAME")
    assert (done.returncode, set(done.stdout.split())) == (125, {"n1"}), done.stderr
    lines = errors(done)
    assert {line.partition(":")[0] for line in lines} == {"n2"}, done.stderr
    assert message.format(**names) in "\n".join(lines), done.stderr


# Plans --------------------------------------------------------------------------------------------------------------


def one_plan(site: Site) -> Path:
    shutil.rmtree(site.cache, ignore_errors=True)
    done = site.srun(TWO, *MOUNTS, "true")
    assert done.returncode == 0, done.stderr
    (plan,) = site.cache.glob("*.plan")
    return plan


def test_a_plan_that_is_cut_off_is_made_again(site):
    plan = one_plan(site)
    plan.write_bytes(plan.read_bytes()[:-5])
    assert site.srun(TWO, *MOUNTS, "nvidia-smi").returncode == 0
    assert plan.read_bytes().endswith(b"\0end\0")


def test_a_plan_that_is_stale_is_made_again(site):
    before = one_plan(site)
    inode = before.stat().st_ino
    shutil.rmtree(next(site.cache.glob("*.stage")))
    assert site.srun(TWO, *MOUNTS, "nvidia-smi").returncode == 0
    assert before.stat().st_ino != inode


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ('head -c 100 "$plan" > "$plan.new"; mv "$plan.new" "$plan"', "the plan ends inside of record"),
        ('chmod 666 "$plan"', "others may write to it"),
        ('ln "$plan" "$plan.link"', "it has other names"),
        ('ln -sf /etc/passwd "$plan"', "it is a link"),
        ('rm "$plan"', "the plan is gone"),
        (
            'mv "$plan" "${plan%/*}/$(printf %064d 0).plan"; plan=${plan%/*}/$(printf %064d 0).plan',
            "it is not the plan",
        ),
        ('rm -r "${plan%.plan}".*.stage', "it has changed since the plan was made"),
        ("plan=/etc/passwd", "that is no plan's name"),
        ('plan=$(dirname "$(dirname "$plan")")/$(basename "$plan")', "the plan is gone"),
    ],
)
def test_a_plan_that_is_spoilt_after_it_was_found(site, damage, message):
    """Between the search and the tasks, as root or another job of the user could do it."""
    one_plan(site)
    script = f'said=$({site.runner} "$@") || exit 1\nplan=${{said#*  }}\n{damage}\necho "${{said%%  *}}  $plan"\n'
    site.configure(cdi_hpc_run=site.finder(script))
    done = site.srun("-N1", "-n3", TWO, *MOUNTS, "echo", "RAN")
    shutil.rmtree(site.cache, ignore_errors=True)
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert len(errors(done)) == 1, done.stderr
    assert message in errors(done)[0]


@pytest.mark.root
@pytest.mark.parametrize("when", ["before it is looked for", "after it was found"])
def test_a_plan_of_somebody_else(site, when):
    plan = one_plan(site)
    if when == "before it is looked for":
        os.chown(plan, 65534, 65534)
        runner = str(site.runner)
    else:
        # The runner is the user's and can't give a file away; the machine's root, who can, is us.
        held, go = site.top / "home/held", site.top / "home/go"
        for path in (held, go):
            path.unlink(missing_ok=True)
        wait = f"touch {held}; until [ -e {go} ]; do sleep 0.02; done"
        runner = site.finder(f'plan=$({site.runner} "$@") || exit 1\n{wait}\necho "$plan"\n')
    site.configure(cdi_hpc_run=runner)
    process = site.begin("srun", "--quiet", "-n2", TWO, *MOUNTS, "echo", "RAN")
    if when == "after it was found":
        assert wait_until(held.exists)
        os.chown(plan, 65534, 65534)
        plan.chmod(0o644)  # he could read it
        go.touch()
    out, err = process.communicate(timeout=60)
    if when == "before it is looked for":  # it is no plan of his, and he may replace it in his own directory
        assert (process.returncode, out) == (0, "RAN\nRAN\n"), err
        assert plan.stat().st_uid == site.user.pw_uid
    else:
        assert (process.returncode, out) == (125, ""), err
        assert "it belongs to user 65534" in err
    shutil.rmtree(site.cache)


# Directories --------------------------------------------------------------------------------------------------------


def test_a_directory_for_plans_that_others_can_write_to(site):
    open_to_all = site.top / "open"
    open_to_all.mkdir(exist_ok=True)
    open_to_all.chmod(0o777)
    site.configure(cache=str(open_to_all))
    assert_refused(site, "others may write to it")


def test_a_directory_for_plans_that_is_a_link(site):
    link = site.top / "link"
    if not link.is_symlink():
        link.symlink_to("/etc")
    site.configure(cache=str(link))
    assert_refused(site, "no directory for plans")


def test_a_directory_for_plans_that_is_missing_with_its_parent(site):
    site.configure(cache=str(site.top / "no/such/directory"))
    assert_refused(site, "no directory for plans: No such file or directory")


def configured_place(site: Site, name: str) -> Path:
    """Where a new directory for plans, configured, would have the user's."""
    place = site.top / name
    place.mkdir()
    site.configure(cache=str(place))
    return place / str(site.user.pw_uid)


@pytest.mark.root
def test_a_directory_for_plans_in_which_somebody_else_has_the_users_name(site):
    configured_place(site, "squatted").symlink_to("/etc")
    assert_refused(site, "no directory for the user's plans: it is a link, or no directory")


@pytest.mark.root
def test_a_directory_for_plans_that_is_somebody_elses(site):
    directory = configured_place(site, "occupied")
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    assert_refused(site, "no directory for the user's plans: it belongs to somebody else")


@pytest.mark.root
def test_a_directory_for_plans_that_another_step_is_making(site):
    """Or that it was killed over: it has been made, and not yet given to the user."""
    directory = configured_place(site, "half-made")
    directory.mkdir(mode=0o700)
    assert site.srun("-n1", TWO, *MOUNTS, "echo", "RAN").stdout == "RAN\n"
    assert directory.stat().st_uid == site.user.pw_uid


@pytest.mark.root
def test_a_directory_for_plans_that_root_has_opened_to_others(site):
    """It was not made for this: it stays as it is."""
    directory = configured_place(site, "opened")
    directory.mkdir(mode=0o755)
    assert_refused(site, "no directory for the user's plans: it belongs to somebody else")
    assert directory.stat().st_uid == 0


def test_a_directory_of_plans_that_can_not_be_written(site):
    one_plan(site)
    shutil.rmtree(site.cache)
    site.cache.parent.chmod(0o500)
    try:
        assert_refused(site, "Permission denied")
    finally:
        site.cache.parent.chmod(0o700)


def in_namespaces(built: tuple[Path, Path], prepare: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A step on two nodes of a machine that something is done to: it is in namespaces of the test's own.

    Whatever happens to the step, the nodes are in service afterwards.
    """
    top = Path(tempfile.mkdtemp(prefix="cdi-slurm-", dir="/tmp"))
    site = Site(top, *built)
    site.caches.mkdir()
    site.configure()
    srun = " ".join(("srun", "--quiet", "-N2", "-n4", TWO, *words, "echo", "RAN"))
    lab = f"python3 {PROJECT}/scripts/slurm-lab --dir {site.lab} run --gpus 2 --plugstack {top}/plugstack.conf"
    states = f"sinfo --noheader --Node --format=%T > {top}/states"
    script = f"{prepare.format(caches=site.caches)}\nexec {lab} -- sh -c '{srun}; status=$?; {states}; exit $status'"
    argv = ["unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "sh", "-euc", script]
    done = subprocess.run(argv, env=site.environment(), capture_output=True, text=True, check=False, timeout=120)
    found = (top / "states").read_text().split()
    assert len(found) == 2, done.stderr
    assert not [state for state in found if "drain" in state or "down" in state], found
    shutil.rmtree(top)
    return done


#: What the plans' directory is -> how it gets so, what is said.
FILE_SYSTEMS = {
    "full": ("mount -t tmpfs -o size=4k,mode=755 tmpfs {caches}", "No space left on device"),
    "out of inodes": ("mount -t tmpfs -o nr_inodes=1,mode=755 tmpfs {caches}", "No space left on device"),
    "read-only": ("mount -t tmpfs -o ro,mode=755 tmpfs {caches}", "Read-only file system"),
    "read-only later": (
        "mount -t tmpfs -o mode=755 tmpfs {caches}; mkdir -m 700 {caches}/$(id -u); mount -o remount,ro {caches}",
        "Read-only file system",
    ),
}


@pytest.mark.parametrize("mode", ["handoff", "mounts"])
@pytest.mark.parametrize("fault", [*FILE_SYSTEMS])
def test_a_directory_of_plans_that_is_full_or_read_only(built, fault, mode):
    prepare, message = FILE_SYSTEMS[fault]
    done = in_namespaces(built, prepare, GPUS, f"--cdi-mode={mode}")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert len(errors(done)) == 2, done.stderr
    assert all(message in line for line in errors(done))
    # A variable of the user's is no way out: it does not count here.
    assert not any("CDI_HPC_CACHE_DIRECTORY" in line for line in errors(done))
    assert all("ask the administrator: " in line for line in errors(done))


@pytest.fixture
def small_place(site) -> Iterator[Path]:
    """A file system of its own for plans, with room for some."""
    place = site.top / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", place], check=True)
    site.configure(cache=str(place))
    yield place
    subprocess.run(["umount", place], check=True)
    place.rmdir()


@pytest.mark.root
def test_a_user_who_fills_the_directory_is_named_by_what_fails(site, small_place):
    one = ("-n1", "--gres=gpu:1", GPUS, *MOUNTS, "echo", "RAN")
    assert site.srun(*one).stdout == "RAN\n"
    site.srun("-n1", "sh", "-c", f"cat /dev/zero >{small_place}/$(id -u)/x")
    done = site.srun("-n1", TWO, GPUS, *MOUNTS, "echo", "RAN")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    (line,) = errors(done)
    assert f"{small_place}/{site.user.pw_uid}/cdi-hpc" in line
    assert "No space left on device (remove what is yours there, or ask the administrator: " in line
    # A plan that is there needs no room.
    assert site.srun(*one).stdout == "RAN\n"
    (small_place / str(site.user.pw_uid) / "x").unlink()
    assert site.srun("-n1", TWO, GPUS, *MOUNTS, "echo", "RAN").stdout == "RAN\n"


@pytest.mark.root
def test_a_plan_that_can_not_be_sealed_is_not_taken(site, small_place):
    (small_place / f"{site.user.pw_uid}.seals").mkdir()
    done = site.srun("-n1", TWO, GPUS, *MOUNTS, "echo", "RAN")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    (line,) = errors(done)
    assert "the plan can't be sealed: Is a directory (ask the administrator: cache= in plugstack.conf)" in line


# What users can do ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["$(id)", "nvidia.com/gpu=0;id", "", "/etc/shadow", "a" * 5000, "\x1b[2J"])
def test_an_option_that_is_brought_past_srun(site, value):
    forged = {"_SLURM_SPANK_OPTION_cdi_cdi": value}
    done = site.srun("-n2", TWO, "echo", "RAN", env=forged)
    assert "\x1b" not in done.stderr
    if done.returncode == 0:  # this release does not take it from there
        assert done.stdout == "RAN\n" * 2
    else:
        assert (done.returncode, done.stdout) == (125, "")
        assert "is not a device" in done.stderr


@pytest.mark.parametrize("name", ["cdi_mode", "cdi_image"])
@pytest.mark.parametrize("value", ["", "magic", "/no/such/image", "x" * 5000])
def test_another_option_that_is_brought_past_srun(site, name, value):
    done = site.srun("-n2", TWO, GPUS, "printenv", "CDI_HPC_PLAN", env={f"_SLURM_SPANK_OPTION_cdi_{name}": value})
    if done.returncode == 0:  # this release does not take it from there
        assert len(done.stdout.splitlines()) == 2
    else:
        assert (done.returncode, done.stdout) == (125, ""), done.stderr


@pytest.mark.parametrize("name", ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"])
@pytest.mark.parametrize("forged", ["0,1,2,3,4,5,6,7", "7", "", "x"])
def test_forged_variables_do_not_say_what_was_allocated(site, name, forged):
    done = site.srun("-n2", TWO, GPUS, "printenv", "CDI_HPC_DEVICES", env={name: forged})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nvidia.com/gpu=0,nvidia.com/gpu=1\n" * 2


def test_plugstack_arguments_that_are_wrong_stop_only_who_asks_for_devices(site):
    site.configure(tiemout="3")
    assert site.srun("echo", "RAN").stdout == "RAN\n"
    done = site.srun(TWO, GPUS, "echo", "RAN")
    assert (done.returncode, done.stdout) == (125, "")
    assert "'tiemout=3': there is no such argument" in done.stderr


# Ends ----------------------------------------------------------------------------------------------------------------


def kill(name: str, directory: Path) -> None:
    """Every process of this name that works in the directory."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if os.readlink(process / "cwd") == str(directory) and (process / "comm").read_text() == f"{name}\n":
                os.kill(int(process.name), signal.SIGKILL)


@pytest.mark.parametrize("mode", ["handoff", "mounts"])
def test_slurmstepd_is_killed(site, mode):
    process = site.begin("srun", "--quiet", TWO, GPUS, f"--cdi-mode={mode}", "sleep", "600")
    assert wait_until(lambda: "sleep" in working_below(site.top))
    kill("slurmstepd", site.lab)
    process.terminate()
    process.communicate(timeout=60)
    site.run("scancel", "--partition=lab")
    kill("sleep", site.top / "home")  # as Slurm would, had it a cgroup to find it by
    assert wait_until(lambda: not site.run("squeue", "--noheader").stdout)


def test_a_step_is_cancelled(site):
    process = site.begin("srun", "--quiet", "-N2", "-n4", TWO, *MOUNTS, "sleep", "600")
    assert wait_until(lambda: "sleep" in working_below(site.top))
    site.run("scancel", "--partition=lab")
    process.communicate(timeout=60)
    assert process.returncode != 0


FORBIDDEN = "echo 0 > /proc/sys/user/max_user_namespaces"


def test_user_namespaces_are_forbidden_on_a_node(built):
    """In a user namespace of the test's own, whose limit is its own as well."""
    done = in_namespaces(built, FORBIDDEN, *MOUNTS)
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert len(errors(done)) == 2, done.stderr
    assert all("/proc/sys/user/max_user_namespaces: a user and mount namespace" in line for line in errors(done))


def test_where_user_namespaces_are_forbidden_launchers_are_told_of_the_devices_still(built):
    """Those that are setuid need none."""
    done = in_namespaces(built, FORBIDDEN, GPUS)
    assert (done.returncode, done.stdout) == (0, "RAN\n" * 4), done.stderr
