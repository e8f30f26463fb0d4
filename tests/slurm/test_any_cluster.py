"""Jobs that use cdi-hpc on a cluster that knows nothing of it: no plugin, no GRES. On daemons or in containers."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from slurm_providers import Cluster, batch, srun

KIND = "job.example/tool"
SPEC = {
    "cdiVersion": "0.6.0",
    "kind": KIND,
    "devices": [{"name": name, "containerEdits": {"env": [f"TOOL={name}"]}} for name in ("one", "two")],
}


@pytest.fixture
def specs(any_cluster: Cluster) -> str:
    """A directory with a spec that every node sees."""
    return any_cluster.put("specs/tool.json", json.dumps(SPEC)).rpartition("/")[0]


def test_tasks_are_on_two_nodes_and_have_the_program(any_cluster):
    done = srun(any_cluster, "sh", "-c", "echo $SLURMD_NODENAME; cdi-hpc --version >&2")
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 2
    assert done.stderr.count("cdi-hpc") == 2


def test_a_batch_script_takes_a_devices_variables_and_its_steps_inherit_them(any_cluster, specs):
    script = f"""#!/bin/bash
eval "$(cdi-hpc script --only env --cdi-dir {specs} {KIND}=two)"
echo "script $TOOL"
srun -n2 sh -c 'echo "step $TOOL"'
"""
    status, output = batch(any_cluster, script)
    assert (status, Counter(output.splitlines())) == (0, {"script two": 1, "step two": 2})


def test_each_node_resolves_for_itself(any_cluster, specs):
    done = srun(any_cluster, "cdi-hpc", "resolve", "--cdi-dir", specs, f"{KIND}=one")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("TOOL=one") == 2


def test_what_a_launcher_refuses_ends_the_step(any_cluster, specs):
    done = srun(any_cluster, "cdi-hpc", "run", "--cdi-dir", specs, "-d", f"{KIND}=three", "/", "echo", "RAN")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.count("'job.example/tool=three'") == 2, done.stderr


def makes_namespaces(cluster: Cluster) -> bool:
    """Whether jobs may; containers let nobody but root, as they come."""
    return srun(cluster, "unshare", "--user", "--map-root-user", "--mount", "true").returncode == 0


@pytest.mark.parametrize("way", ["run", "script"])
def test_a_launch_on_each_node_has_the_device_or_says_why_not(any_cluster, specs, way):
    if way == "run":
        launch = ["cdi-hpc", "run", "--cdi-dir", specs, "-d", f"{KIND}=two", "/"]
    else:
        text = any_cluster.run("cdi-hpc", "script", "--cdi-dir", specs, f"{KIND}=two")
        assert text.returncode == 0, text.stderr
        launch = ["bash", any_cluster.put("tool.sh", text.stdout), "/"]
    done = srun(any_cluster, *launch, "printenv", "TOOL")
    if makes_namespaces(any_cluster):
        assert (done.returncode, done.stdout) == (0, "two\ntwo\n"), done.stderr
    else:
        assert (done.returncode != 0, done.stdout) == (True, ""), done.stderr
        assert "namespace" in done.stderr
