"""default= in plugstack.conf: what steps with GPUs have where nobody has said anything."""

from __future__ import annotations

import subprocess

import pytest
from slurm_site import Site

KIND = "nvidia.com/gpu"
GPU = "--gres=gpu:1"

#: Whether it has devices.
TELL = 'test -n "$CDI_HPC_DEVICES" && echo devices || echo none'


@pytest.fixture
def giving(site) -> Site:
    """A site that gives GPUs to whoever was allocated some."""
    site.configure(default=KIND)
    return site


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((GPU,), "devices"),
        ((GPU, "--cdi=none"), "none"),
        ((), "none"),
        (("--gres=none",), "none"),
    ],
)
def test_a_step_has_devices_if_it_has_gpus(giving, words, said):
    done = giving.srun("-N2", "-n2", *words, "sh", "-c", TELL)
    assert (done.returncode, done.stdout.splitlines()) == (0, [said] * 2), done.stderr
    assert done.stderr == ""


def test_what_is_asked_for_is_what_a_step_gets(giving):
    done = giving.srun("-n1", "--cdi=nvidia.com/gpu=7", "true")
    assert done.returncode == 125
    assert "this step has no GPUs allocated" in done.stderr
    done = giving.srun("-n1", "--gres=gpu:8", "--cdi=nvidia.com/gpu=7", "printenv", "CDI_HPC_DEVICES")
    assert done.stdout == "nvidia.com/gpu=7\n", done.stderr


def test_a_step_without_gpus_in_one_that_has_some(giving):
    inner = f'{TELL}; srun --quiet -n1 --overlap --gres=none sh -c "$1"'
    done = giving.srun("-n1", GPU, "sh", "-c", inner, "sh", TELL)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["devices", "none"]), done.stderr


def test_forged_variables_are_no_gpus(giving):
    forged = {"SLURM_STEP_GPUS": "0,1", "SLURM_JOB_GPUS": "0,1", "CUDA_VISIBLE_DEVICES": "0"}
    done = giving.srun("-n1", "sh", "-c", TELL, env=forged)
    assert (done.returncode, done.stdout) == (0, "none\n"), done.stderr


@pytest.mark.parametrize(("words", "first"), [((), "none"), ((GPU,), "devices"), ((GPU, "--cdi=none"), "none")])
def test_a_batch_script_has_them_as_its_steps(giving, words, first):
    status, output = giving.batch(f"#!/bin/sh\n{TELL}\nsrun --quiet sh -c '{TELL}'\n", "-n2", *words)
    assert (status, output.splitlines()) == (0, [f"{first}"] * 3), output


def test_an_image_has_the_default_devices_or_is_refused(giving, lab):
    image = f"--cdi-image={lab.image('debian-root')}"
    done = giving.srun("-n1", GPU, image, "sh", "-c", "test -e /opt/dlprobe && nvidia-smi")
    assert done.stdout == "nvidia-smi 570.133.20 of the lab\n", done.stderr
    done = giving.srun("-n1", image, "true")
    assert done.returncode == 125
    assert "this step has no GPUs allocated" in done.stderr


def test_where_slurm_gives_out_no_gpus_every_step_has_the_default(site):
    site.configure(default="nvidia.com/gpu=3", gpus="shared")
    assert site.srun("printenv", "CDI_HPC_DEVICES").stdout == "nvidia.com/gpu=3\n"


def test_none_is_no_default(site):
    site.configure(default="none")
    done = site.srun("-n1", GPU, "sh", "-c", TELL)
    assert done.stdout == "none\n", done.stderr


@pytest.mark.root
def test_jobs_of_root_have_none(giving):
    words = ["srun", "--quiet", GPU, "sh", "-c", TELL]
    done = subprocess.run(words, env=giving.environment(), cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "none\n"), done.stderr
