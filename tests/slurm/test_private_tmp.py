"""Jobs that have a /tmp of their own (job_container/tmpfs, namespace/tmpfs): their plans are made outside of it."""

from __future__ import annotations

import subprocess

import pytest
from slurm_site import Site

pytestmark = pytest.mark.root

GPU = "--gres=gpu:1"
KIND = "--cdi=nvidia.com/gpu"

#: Whether a task is in an image, has the devices, and is in the job's own /tmp.
LOOK = "test -e /opt/dlprobe && echo image; nvidia-smi; ls /tmp"


def slurm_release() -> tuple[int, ...]:
    said = subprocess.run(["slurmd", "-V"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in said.split()[1].split(".")[:2])


@pytest.fixture
def private_site(private_cluster) -> Site:
    """Its plugin as it is installed."""
    private_cluster.configure()
    return private_cluster


def in_a_job(site: Site, *lines: str) -> subprocess.CompletedProcess[str]:
    """Commands of a batch script, which is the job's own place."""
    status, output = site.batch("\n".join(["#!/bin/sh", *lines, ""]), "-n2", GPU)
    return subprocess.CompletedProcess(lines, status, output, "")


def step(*words: str, look: str = LOOK) -> str:
    return f"srun --quiet {KIND} {' '.join(words)} sh -c '{look}'"


@pytest.mark.parametrize("name", ["debian-root", "debian.sqfs"])
def test_an_image_with_the_jobs_tmp_in_it(private_site, lab, name):
    done = in_a_job(
        private_site, "touch /tmp/mark", *[step(f"--cdi-image={lab.image(name)}", look="nvidia-smi; ls /tmp")] * 2
    )
    assert (done.returncode, sorted(done.stdout.splitlines())) == (
        0,
        [*["mark"] * 4, *["nvidia-smi 570.133.20 of the lab"] * 4],
    )


def test_the_machines_files_with_the_jobs_tmp(private_site):
    done = in_a_job(private_site, "touch /tmp/mark", step("--cdi-mode=mounts"), step(look="printenv CDI_HPC_DEVICES"))
    lines = ["mark", "mark", *["nvidia-smi 570.133.20 of the lab"] * 2, *["nvidia.com/gpu=0"] * 2]
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, lines)


def test_an_image_in_the_jobs_tmp(private_site, lab, request):
    done = in_a_job(
        private_site, f"cp {lab.image('debian.sqfs')} /tmp/image", step("--cdi-image=/tmp/image", look="nvidia-smi")
    )
    if "contained" in request.node.name and slurm_release() >= (24, 5):
        assert (done.returncode, done.stdout) == (0, "nvidia-smi 570.133.20 of the lab\n" * 2)
    else:
        assert done.returncode == 125, done.stdout
        assert "image /tmp/image: it is in a directory of this job's own" in done.stdout
