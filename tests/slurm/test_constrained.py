"""Where the kernel keeps jobs from devices that were not given to them, what a step has is what it can open."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_site import Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.impossible_in_ci("a hosted runner has cgroups of version 2, in which Slurm wants systemd"),
    pytest.mark.skipif(not os.path.isdir("/sys/fs/cgroup/devices"), reason="no device cgroups of version 1"),
]

KIND = "lab.example/gpu"

#: A device number that no driver has: open(2) fails with ENXIO where the cgroup allows it, else with EPERM.
MAJOR = 240

#: The GPUs that a task may open, and their numbers as Slurm tells them.
OPENED = """
for n in 0 1 2 3 4 5 6 7; do
    (: < /dev/labgpu$n) 2>&1 | grep -q "not permitted" || printf "$n "
done
echo "| $SLURM_STEP_GPUS"
"""


@pytest.fixture(scope="module")
def constrained(built, lab) -> Iterator[Site]:
    """A cluster with device cgroups, and GPUs with a number each: the lab's share one."""
    site = Site(Path(tempfile.mkdtemp(prefix="cdi-slurm-", dir="/tmp")), *built)
    site.top.chmod(0o755)
    (site.top / "home").mkdir(mode=0o777)
    (site.top / "home").chmod(0o777)
    specs = site.top / "cdi"
    specs.mkdir(mode=0o755)
    lines = ["cdiVersion: 0.5.0", f"kind: {KIND}", "devices:"]
    for number in range(8):
        path = f"/dev/labgpu{number}"
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(MAJOR, number))
        Path(path).chmod(0o666)
        lines += [f"- name: '{number}'", f"  containerEdits: {{deviceNodes: [{{path: {path}}}]}}"]
    (specs / "lab.yaml").write_text("\n".join(lines))
    (specs / "lab.yaml").chmod(0o644)
    site.configure(cdi_dir=str(specs))
    site.start("--constrain-devices", "--nodes=1", device="/dev/labgpu{}")
    yield site
    site.stop()
    for number in range(8):
        os.unlink(f"/dev/labgpu{number}")
    assert list(Path("/sys/fs/cgroup").glob("*/slurm_n*")) == []
    shutil.rmtree(site.top)


@pytest.mark.parametrize("way", [(), ("--cdi-mode=mounts",), ("--cdi-image={image}",)])
def test_a_step_can_open_what_it_has_and_nothing_else(constrained, lab, way):
    words = [word.format(image=lab.image("debian-root")) for word in way]
    other = constrained.begin("srun", "--quiet", "--gres=gpu:1", "sleep", "3")
    done = constrained.srun("--gres=gpu:2", f"--cdi={KIND}", *words, "sh", "-c", f'echo "$CDI_HPC_DEVICES"; {OPENED}')
    other.communicate(timeout=60)
    assert done.returncode == 0, done.stderr
    devices, opened = done.stdout.splitlines()
    can, _, given = opened.partition("| ")
    assert can.split() == given.split(",")
    assert devices == ("" if way else ",".join(f"{KIND}={number}" for number in given.split(",")))


def test_tasks_with_a_gpu_each_can_open_one_each(constrained):
    words = ("-n2", "--gpus-per-task=1", f"--cdi={KIND}", "--cdi-mode=mounts")
    done = constrained.srun(*words, "sh", "-c", OPENED)
    can = sorted(line.partition("|")[0].strip() for line in done.stdout.splitlines())
    assert can == ["0", "1"], done.stdout + done.stderr


def test_the_doctor_sees_that_they_agree(constrained):
    done = constrained.srun("--gres=gpu:2", "cdi-hpc", "doctor", "--slurm")
    lines = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines() if "slurm-" in line}
    assert lines == {
        "slurm-release": "ok",
        "slurm-plugin": "ok",
        "slurm-arguments": "ok",
        "slurm-gres": "ok",
        "slurm-constrained": "ok",
        "slurm-step": "ok",
    }, done.stdout
