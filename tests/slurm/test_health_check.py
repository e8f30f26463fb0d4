"""packaging/slurm/health-check as HealthCheckProgram of a cluster: slurmd runs it, it takes nodes out and back in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_site import PROJECT, Site, wait_until

CHECK = PROJECT / "packaging/slurm/health-check"

#: slurmd gives its program no SLURM_CONF; a cluster has its slurm.conf where programs look for it, and this one not.
HERE = """#!/bin/sh
printf '%s %s\\n' "$SLURMD_NODENAME" "$(env | cut -d= -f1 | grep -v -e PWD -e _ | tr '\\n' ' ')" >>{top}/checked
PATH={programs}
SLURM_CONF={top}/lab/etc/slurm.conf
export PATH SLURM_CONF
exec {check}
"""


@pytest.fixture(scope="module", params=["own", pytest.param("root", marks=pytest.mark.root)])
def checked(request, built, lab) -> Iterator[Site]:
    site = Site(Path(tempfile.mkdtemp(prefix="cdi-slurm-", dir="/tmp")), *built)
    site.top.chmod(0o755)
    (site.top / "home").mkdir(mode=0o755)
    site.configure()
    programs = f"{Path(site.compiler).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    program = site.program(HERE.format(top=site.top, programs=programs, check=CHECK))
    site.start("--nodes=1", f"--conf=HealthCheckProgram={program}", "--conf=HealthCheckInterval=1")
    yield site
    site.stop()
    shutil.rmtree(site.top)


def reason(site: Site) -> str:
    return site.run("sinfo", "--noheader", "--Node", "--format=%E").stdout.strip()


def is_out(site: Site) -> bool:
    return site.node_states() <= {"drained", "draining"}


def is_in(site: Site) -> bool:
    return site.node_states() <= {"idle", "mixed", "allocated", "completing"}


def checks(site: Site) -> int:
    """How often slurmd has run it by now."""
    path = site.top / "checked"
    return len(path.read_text().splitlines()) if path.exists() else 0


def next_checks(site: Site) -> bool:
    """Wait until one has begun after now, and has ended: the one after it has begun."""
    before = checks(site)
    return wait_until(lambda: checks(site) >= before + 2, 60)


def log(site: Site) -> str:
    return (site.lab / "log/slurmd-n1").read_text()


def test_slurmd_runs_it_and_leaves_a_node_where_all_is_well_in_service(checked):
    assert next_checks(checked)
    assert set((checked.top / "checked").read_text().splitlines()) == {"n1 "}
    assert is_in(checked)
    assert "health_check" not in log(checked)


def test_a_node_with_a_problem_gets_no_jobs_until_it_is_repaired(checked):
    checked.configure(timeout="0", cdi_hpc_run="/no/such/program")
    assert wait_until(lambda: is_out(checked), 60), log(checked)
    assert reason(checked) == "cdi-hpc doctor: slurm-arguments"
    assert wait_until(lambda: "/no/such/program can't be executed" in log(checked), 60)
    checked.configure()
    assert wait_until(lambda: is_in(checked), 60), reason(checked)
    done = checked.srun("--gres=gpu:1", "--cdi=nvidia.com/gpu", "printenv", "CDI_HPC_DEVICES")
    assert done.stdout == "nvidia.com/gpu=0\n", done.stderr


def control(site: Site, *words: str) -> None:
    """As the one who runs the cluster."""
    subprocess.run(["scontrol", *words], env={**os.environ, **site.environment()}, check=True)


@pytest.mark.parametrize("arguments", [{}, {"timeout": "0"}])
def test_a_node_that_somebody_else_took_out_stays_out_for_his_reason(checked, arguments):
    control(checked, "update", "NodeName=n1", "State=DRAIN", "Reason=a new fan")
    checked.configure(**arguments)
    assert next_checks(checked)
    assert (reason(checked), is_out(checked)) == ("a new fan", True)
    checked.configure()
    assert next_checks(checked)
    assert is_out(checked)
    control(checked, "update", "NodeName=n1", "State=RESUME")
    assert wait_until(lambda: is_in(checked)), checked.node_states()
    # Some releases keep that reason. It keeps nothing in service.
    checked.configure(timeout="0")
    assert wait_until(lambda: is_out(checked), 60), log(checked)
    assert reason(checked) == "cdi-hpc doctor: slurm-arguments"
    checked.configure()
    assert wait_until(lambda: is_in(checked), 60), reason(checked)


def test_its_own_lines_are_those_of_the_doctors_report(lab):
    """What it takes from the report by its lines is what is there."""
    done = lab.run(["cdi-hpc", "doctor", "--slurm", "--format", "json"], env={"SLURM_CONF": "/no/such/file"})
    problems = sorted({row["check"] for row in json.loads(done.stdout) if row["status"] == "problem"})
    text = CHECK.read_text()
    function = text[text.index("names_of_problems() {") :].partition("\n}\n")[0] + "\n}\n"
    found = lab.run(["sh", "-c", f'{function}names_of_problems "$1"', "sh", done.stdout]).stdout.split()
    assert found == problems
    assert found


@pytest.mark.parametrize("path", [{}, {"PATH": ""}, {"PATH": "/nowhere"}])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_programs_of_the_working_directory_are_not_run(shell, path, tmp_path):
    for name in ("cdi-hpc", "scontrol", "sed", "awk"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/{name}-ran\n")
        (tmp_path / name).chmod(0o755)
    environment = {"SLURMD_NODENAME": "n1", "SLURM_CONF": "/nowhere", **path}
    # The real scontrol, where there is one, looks for its controller for a minute.
    argv = ["/usr/bin/timeout", "2", f"/bin/{shell}", CHECK]
    subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert [*tmp_path.glob("*-ran")] == []
