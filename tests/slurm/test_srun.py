"""srun, sbatch and salloc with --cdi: what the tasks have, on each node."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter

import pytest
from slurm_site import errors, words_of

GPUS = "--cdi=nvidia.com/gpu"
MOUNTS = (GPUS, "--cdi-mode=mounts")
TWO = "--gres=gpu:2"


def test_help_names_the_options(site):
    text = site.run("srun", "--help").stdout
    assert set(words_of(r"--cdi[\w-]*", text)) == {"--cdi", "--cdi-mode", "--cdi-image"}


def test_without_the_option_nothing_is_added(site):
    done = site.srun("-n2", TWO, "env")
    assert done.returncode == 0
    assert "CDI" not in done.stdout
    assert done.stderr == ""


# Handing over to launchers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", ["nvidia.com/gpu", "nvidia.com/gpu=all"])
def test_the_whole_kind_is_what_was_allocated(site, request_):
    done = site.srun("-N2", "-n4", TWO, f"--cdi={request_}", "printenv", "CDI_HPC_DEVICES", "SLURM_STEP_GPUS")
    assert done.returncode == 0, done.stderr
    devices, gpus = sorted(set(done.stdout.split()), key=len, reverse=True)
    assert devices == ",".join(f"nvidia.com/gpu={number}" for number in gpus.split(","))
    assert len(gpus.split(",")) == 2


def test_a_plan_is_named_that_belongs_to_the_user(site):
    done = site.srun(TWO, GPUS, "sh", "-c", 'stat -c "%u %a" "$CDI_HPC_PLAN"; head -c 12 "$CDI_HPC_PLAN"')
    assert done.stdout == f"{site.user.pw_uid} 600\ncdi-hpc-plan"


def test_a_second_step_uses_the_plan_of_the_first(site):
    first = site.srun(TWO, GPUS, "stat", "-c", "%i %Y", str(site.cache))
    plans = {path.name: path.stat().st_mtime_ns for path in site.cache.glob("*.plan")} if os.geteuid() == 0 else {}
    second = site.srun(TWO, GPUS, "stat", "-c", "%i %Y", str(site.cache))
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout
    assert plans == ({path.name: path.stat().st_mtime_ns for path in site.cache.glob("*.plan")} if plans else {})


def test_two_jobs_side_by_side_have_different_devices(site):
    words = ("srun", "--quiet", "-w", "n1", TWO, GPUS, "sh", "-c", "echo $CDI_HPC_DEVICES; sleep 1")
    both = [site.begin(*words), site.begin(*words)]
    devices = [process.communicate(timeout=60)[0].strip().split(",") for process in both]
    assert [len(names) for names in devices] == [2, 2]
    assert len({name for names in devices for name in names}) == 4


def test_what_slurm_does_not_give_out_is_refused_if_the_site_says_nothing_of_it(site):
    done = site.srun(TWO, "--cdi=nvidia.com/gpu,example.org/nope=1", "true")
    assert done.returncode == 125
    assert "device 'example.org/nope=1': no GRES of Slurm's stands for its kind" in done.stderr


def test_with_shared_gpus_all_of_the_machine_are_meant(site):
    site.configure(gpus="shared")
    done = site.srun("--cdi=nvidia.com/gpu=7", "printenv", "CDI_HPC_DEVICES")
    assert done.stdout == "nvidia.com/gpu=7\n"


# Tasks that have the devices themselves -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["--cdi-mode=mounts", "--cdi-image={image}"])
def test_all_tasks_of_a_node_are_in_one_namespace(site, lab, way):
    script = "echo $SLURMD_NODENAME $(readlink /proc/self/ns/mnt); sleep 1"
    done = site.srun("-N2", "-n8", TWO, GPUS, way.format(image=lab.image("debian-root")), "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    counts = Counter(done.stdout.splitlines())
    assert sum(counts.values()) == 8
    assert {line.split()[0] for line in counts} == {"n1", "n2"}
    assert len({line.split()[1] for line in counts}) == 2
    assert len(counts) == 2


def test_tasks_see_what_the_spec_adds(site):
    script = "id -u; pwd; nvidia-smi; printenv NVIDIA_VISIBLE_DEVICES; grep CapEff /proc/self/status"
    done = site.srun("-n2", TWO, *MOUNTS, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    own = f"{site.user.pw_uid}\n{site.top}/home\nnvidia-smi 570.133.20 of the lab\nvoid\nCapEff:\t0000000000000000\n"
    assert sorted(done.stdout.splitlines()) == sorted((own * 2).splitlines())


def test_tasks_can_write_where_they_could(site):
    done = site.srun("-n1", TWO, *MOUNTS, "sh", "-c", "echo 1 > mark; echo 1 > /dev/null; echo 1 > /tmp/mark-$$")
    assert done.returncode == 0, done.stderr
    assert (site.top / "home/mark").read_text() == "1\n"


READ_MEMORY = """
import ctypes, os, pathlib, sys, time
libc, here = ctypes.CDLL(None, use_errno=True), pathlib.Path(sys.argv[1])
class Area(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
own, rank = ctypes.create_string_buffer(os.environ["SLURM_PROCID"].encode(), 8), int(os.environ["SLURM_LOCALID"])
(here / f"new{rank}").write_text(f"{os.getpid()} {ctypes.addressof(own)}")
(here / f"new{rank}").rename(here / f"rank{rank}")
while not (here / f"rank{1 - rank}").exists():
    time.sleep(0.01)
pid, address = map(int, (here / f"rank{1 - rank}").read_text().split())
seen = ctypes.create_string_buffer(8)
into, other = Area(ctypes.addressof(seen), 8), Area(address, 8)
count = libc.process_vm_readv(pid, ctypes.byref(into), 1, ctypes.byref(other), 1, 0)
print(rank, "read", count, seen.value.decode())
(here / f"done{rank}").touch()
while not (here / f"done{1 - rank}").exists():
    time.sleep(0.01)
"""


def test_tasks_of_a_node_can_read_each_others_memory(site):
    shared = site.top / "home/memory"
    for path in shared.glob("*"):
        path.unlink()
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)
    done = site.srun("-N1", "-n2", TWO, *MOUNTS, "python3", "-c", READ_MEMORY, str(shared))
    assert sorted(done.stdout.splitlines()) == ["0 read 8 1", "1 read 8 0"], done.stderr


def test_many_tasks_on_a_node_start_together(site):
    done = site.srun("-N1", "-n64", TWO, *MOUNTS, "readlink", "/proc/self/ns/mnt")
    assert done.returncode == 0, done.stderr
    assert list(Counter(done.stdout.split()).values()) == [64]


def test_tasks_run_in_an_image(site, lab):
    image = lab.image("debian-root")
    done = site.srun("-N2", "-n4", TWO, GPUS, f"--cdi-image={image}", "sh", "-c", "nvidia-smi; ls /opt; cat /lab/x")
    assert Counter(done.stdout.splitlines()) == {"nvidia-smi 570.133.20 of the lab": 4, "dlprobe": 4}
    assert "No such file" in done.stderr


def test_a_command_is_looked_up_in_the_image(site, lab):
    done = site.srun("-n1", TWO, GPUS, f"--cdi-image={lab.image('debian-root')}", "/opt/dlprobe", "libcuda.so.1")
    assert done.returncode == 0, done.stderr
    assert "libcuda" in done.stdout


def test_an_image_named_relative_to_the_working_directory(site, lab):
    link = site.top / "home/image"
    if not link.is_symlink():
        link.symlink_to(lab.image("debian-root"))
    done = site.srun("-n1", TWO, GPUS, "--cdi-image=image", "ls", "/opt")
    assert done.stdout == "dlprobe\n", done.stderr


def test_the_site_chooses_the_mode_that_users_get(site):
    site.configure(mode="mounts")
    assert site.srun(TWO, GPUS, "nvidia-smi").stdout == "nvidia-smi 570.133.20 of the lab\n"
    done = site.srun(TWO, GPUS, "--cdi-mode=handoff", "printenv", "CDI_HPC_DEVICES")
    assert done.stdout.startswith("nvidia.com/gpu=")


# Ways to start a step -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["handoff", "mounts"])
def test_a_batch_script_and_its_steps(site, mode):
    script = """#!/bin/sh
#SBATCH --cdi=nvidia.com/gpu --nodes=2 --ntasks=4 --gres=gpu:2
tell() { echo "$1 $(printenv CDI_HPC_DEVICES NVIDIA_VISIBLE_DEVICES | tr '\\n' ' ')"; }
tell script
srun --quiet sh -c 'echo step $(printenv CDI_HPC_DEVICES NVIDIA_VISIBLE_DEVICES)'
srun --quiet -n1 -N1 --cdi=none sh -c 'echo none $(env | grep -c -e CDI_HPC -e NVIDIA)'
"""
    status, output = site.batch(script, f"--cdi-mode={mode}")
    assert status == 0, output
    lines = Counter(line.split()[0] for line in output.splitlines())
    assert lines == {"script": 1, "step": 4, "none": 1}, output
    assert "none 0" in output.splitlines()
    wanted = "void" if mode == "mounts" else "nvidia.com/gpu="
    assert all(wanted in line for line in output.splitlines() if not line.startswith("none")), output


def test_an_allocation_hands_the_option_to_its_steps(site):
    done = site.run("salloc", "--quiet", "-N1", TWO, GPUS, "srun", "--quiet", "printenv", "CDI_HPC_DEVICES")
    assert done.stdout.startswith("nvidia.com/gpu="), done.stderr


def test_a_step_overrides_what_its_allocation_asked_for(site):
    inner = """
first=$(srun --quiet printenv SLURM_STEP_GPUS | cut -d, -f1)
srun --quiet --cdi=nvidia.com/gpu=$first printenv CDI_HPC_DEVICES"""
    done = site.run("salloc", "--quiet", "-N1", "-n1", TWO, GPUS, "sh", "-c", inner)
    assert re.fullmatch(r"nvidia\.com/gpu=\d+\n", done.stdout), done.stderr


def test_several_programs_in_one_step(site):
    conf = site.top / "home/multi"
    conf.write_text("0 printenv CDI_HPC_DEVICES\n1-3 readlink /proc/self/ns/mnt\n")
    done = site.srun("-N1", "-n4", TWO, GPUS, "--multi-prog", str(conf))
    assert done.returncode == 0, done.stderr
    done = site.srun("-N1", "-n4", TWO, "--cdi-mode=mounts", GPUS, "--multi-prog", str(conf))
    assert len(set(words_of(r"mnt:\S+", done.stdout))) == 1


def test_a_heterogeneous_job(site):
    component = ("-N1", "-n1", "--gres=gpu:1", GPUS)
    script = "echo $SLURMD_NODENAME $CDI_HPC_DEVICES"
    done = site.srun(*component, "sh", "-c", script, ":", *component, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert len(words_of(r"n\d nvidia\.com/gpu=\d", done.stdout)) == 2


def test_without_the_users_environment(site):
    done = site.srun("--export=NONE", TWO, GPUS, "/usr/bin/printenv", "CDI_HPC_DEVICES")
    assert done.stdout.startswith("nvidia.com/gpu="), done.stderr


@pytest.mark.root
def test_a_batch_job_without_the_users_environment(site):
    """Its steps have the devices; the script itself loses the option in some releases (docs/slurm.md).

    26.05 holds such a job, unless slurmd is root's and su(1) gives it the user's login environment.
    """
    script = "#!/bin/sh\nsrun --quiet -n2 -N2 /usr/bin/printenv CDI_HPC_DEVICES\n"
    status, output = site.batch(script, "--export=NONE", "-N2", TWO, GPUS)
    lines = [line for line in output.splitlines() if line.startswith("nvidia.com/gpu=")]
    assert (status, len(lines)) == (0, 2), output


@pytest.mark.parametrize("count", [1, 3, 8])
def test_as_many_gpus_as_were_asked_for(site, count):
    done = site.srun("-N2", "-n2", f"--gres=gpu:{count}", GPUS, "printenv", "CDI_HPC_DEVICES")
    assert [len(line.split(",")) for line in done.stdout.splitlines()] == [count] * 2, done.stderr


def test_gpus_for_each_task(site):
    done = site.srun("-N1", "-n2", "--gpus-per-task=1", *MOUNTS, "nvidia-smi")
    assert done.stdout == "nvidia-smi 570.133.20 of the lab\n" * 2, done.stderr


def test_the_sites_default_is_a_variable(site):
    default = {"SLURM_SPANK__SLURM_SPANK_OPTION_cdi_cdi": "nvidia.com/gpu"}
    done = site.srun(TWO, "printenv", "CDI_HPC_DEVICES", env=default)
    assert done.stdout.startswith("nvidia.com/gpu="), done.stderr
    assert site.srun(TWO, "--cdi=none", "env", env=default).stdout.count("CDI_HPC_DEVICES") == 0


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nvidia",
        "nvidia.com/gpu=",
        "nvidia.com/gpu,",
        ",nvidia.com/gpu",
        "/etc/cdi/nvidia.yaml",
        "a/b=c/d",
        "a/b=c d",
        "none,a/b=c",
    ],
)
def test_what_is_no_device_is_refused_before_anything_is_allocated(site, value):
    done = site.srun(f"--cdi={value}", "echo", "RAN")
    assert done.returncode not in {0, 125}
    assert "RAN" not in done.stdout
    assert "cdi: --cdi: " in done.stderr


def test_options_that_do_not_go_together_are_refused(site):
    assert "there are no devices for it" in site.srun("--cdi-image=/", "true").stderr
    both = site.srun(GPUS, "--cdi-image=/", "--cdi-mode=handoff", "true")
    assert both.returncode == 1
    assert "leave one of them out" in both.stderr
    assert "neither handoff nor mounts" in site.srun(GPUS, "--cdi-mode=magic", "true").stderr


def test_an_image_that_holds_the_plans_is_refused(site):
    done = site.srun(TWO, GPUS, f"--cdi-image={site.top}", "true")
    assert done.returncode == 125
    assert f"image {site.top}: plans are kept in it, in {site.cache}, and can't be laid over it" in done.stderr


def test_an_option_that_is_given_twice_is_refused(site):
    done = site.srun("--cdi=nvidia.com/gpu=0", "--cdi=nvidia.com/gpu=1", "true")
    assert done.returncode == 255
    assert "given twice" in done.stderr


@pytest.mark.parametrize("word", ["required", "optional"])
def test_a_device_that_was_not_allocated_is_refused_once_for_each_node(site, word):
    site.configure(word)
    done = site.srun("-N2", "-n8", TWO, "--cdi=nvidia.com/gpu=7", "echo", "RAN")
    assert (done.returncode, done.stdout) == (125, "")
    assert [line.partition(" (")[0] for line in errors(done)] == [
        f"{node}: error: device 'nvidia.com/gpu=7': it was not allocated to this step, which has nvidia.com/gpu=0,1"
        for node in ("n1", "n2")
    ]


def test_a_step_without_gpus_has_none_whatever_its_variables_say(site):
    forged = {"SLURM_STEP_GPUS": "0,1,2,3", "SLURM_JOB_GPUS": "0,1", "CUDA_VISIBLE_DEVICES": "0"}
    done = site.srun("-n1", GPUS, "echo", "RAN", env=forged)
    assert (done.returncode, done.stdout) == (125, "")
    assert "this step has no GPUs allocated" in done.stderr


@pytest.mark.root
def test_jobs_of_root_are_refused(site):
    words = ["srun", "--quiet", TWO, GPUS, "echo", "RAN"]
    done = subprocess.run(words, env=site.environment(), cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "not for jobs of root" in done.stderr
