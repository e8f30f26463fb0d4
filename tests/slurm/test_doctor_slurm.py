"""``cdi-hpc doctor --slurm`` finds what would keep the plugin from working, and nothing where all is well."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from slurm_site import PROJECT, Site

from cdi_hpc.doctor import slurm

GPUS = "--cdi=nvidia.com/gpu"


def doctor(site: Site, *before: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, list[dict]]]:
    """Exit status, and findings about Slurm by check."""
    done = site.run(*before, "cdi-hpc", "doctor", "--slurm", "--format", "json", env=env)
    found: dict[str, list[dict]] = {}
    for row in json.loads(done.stdout):
        if row["area"] == "slurm":
            found.setdefault(row["check"], []).append(row)
    return done.returncode, found


def statuses(found: dict[str, list[dict]]) -> dict[str, str]:
    order = ["ok", "note", "warning", "problem"]
    return {check: max((row["status"] for row in rows), key=order.index) for check, rows in found.items()}


def said(found: dict[str, list[dict]], check: str) -> str:
    return " ".join(row["finding"] for row in found[check])


def test_a_node_where_all_is_well_has_no_problem(site):
    status, found = doctor(site)
    assert status == 0, found
    assert statuses(found) == {
        "slurm-release": "ok",
        "slurm-plugin": "ok",
        "slurm-arguments": "ok",
        "slurm-gres": "ok",
        "slurm-constrained": "warning",  # the cluster has no cgroups
    }
    assert "the 8 gpu of Slurm are devices of nvidia.com/gpu, by index" in said(found, "slurm-gres")
    assert "and is required" in said(found, "slurm-plugin")


def test_in_a_step_it_says_what_was_given(site):
    status, found = doctor(site, "srun", "--quiet", "-n1", "--gres=gpu:2", GPUS)
    assert status == 0, found
    assert said(found, "slurm-step") == "this step was given GPUs 0,1: nvidia.com/gpu=0, nvidia.com/gpu=1"


def test_rules_that_hold_for_nobody_who_changes_his_plans_are_warned_of(configured_site):
    configured_site.configure_nodes("policy: {kinds: {rules: [{deny: a/b}]}}")
    step = ("srun", "--quiet", "-n1")
    assert statuses(doctor(configured_site, *step)[1])["slurm-arguments"] == "ok"
    configured_site.configure(cache="")
    found = doctor(configured_site, *step)[1]
    assert statuses(found)["slurm-arguments"] == "warning"
    assert "without 'cache=' steps take plans that users have changed" in said(found, "slurm-arguments")


def test_arguments_are_those_of_the_plugin():
    text = (PROJECT / "slurm/spank/site.c").read_text()
    assert sorted(slurm.ARGUMENTS) == sorted(re.findall(r'IS\("([\w-]+)"\)', text))


def test_an_argument_that_is_none_and_a_program_that_is_not_there(site):
    site.configure(
        tiemout="3", timeout="0", default="nvidia", cdi_hpc_run="/no/such/program", cdi_dir="/no/such/directory"
    )
    status, found = doctor(site)
    assert status == 1
    findings = said(found, "slurm-arguments")
    for text in (
        "'tiemout=3': there is no such argument",
        "'timeout=0': it can't have this value",
        "'default=nvidia': it can't have this value",
        "/no/such/program can't be executed",
        "'cdi-dir=/no/such/directory': not a directory",
    ):
        assert text in findings


#: What a directory for plans is -> how it becomes so, and what is said; the step would be refused.
PLACES = {
    "no parent": ("", "can't be made: {top} is not there"),
    "a file above": ("touch {top}", "Not a directory"),
    "a file": ("mkdir {top}; touch {place}", "is a link, or no directory"),
    "a link": ("mkdir {top}; ln -s /etc {place}", "is a link, or no directory"),
    "open to all": ("mkdir -p {place}; chmod 777 {place}", "others may write to it"),
    "closed": ("mkdir -p {place}; chmod 700 {place}", "users can't enter it"),
    "full": ("mkdir -p {place}; mount -t tmpfs -o size=64k,mode=755 none {place}", "is full: steps that need"),
    "full above": ("mkdir {top}; mount -t tmpfs -o nr_inodes=2,mode=755 none {top}", "is full: steps that need"),
    "read-only": ("mkdir -p {place}; mount -t tmpfs -o ro,mode=755 none {place}", "is read-only"),
}


@pytest.mark.parametrize("what", PLACES)
def test_a_directory_for_plans_that_steps_would_be_refused_for(site, what):
    prepare, finding = PLACES[what]
    top = site.top / "home/place"
    site.configure(cache=str(top / "plans"))
    try:
        status, found = doctor(site, *in_mounts(prepare.format(top=top, place=top / "plans")))
    finally:
        shutil.rmtree(top) if top.is_dir() else top.unlink(missing_ok=True)
    assert (status, statuses(found)["slurm-arguments"]) == (1, "problem")
    assert finding.format(top=top) in said(found, "slurm-arguments")
    assert "are right" not in said(found, "slurm-arguments")


def in_mounts(prepare: str) -> list[str]:
    """Words before a command that mount something first; it goes with the command."""
    script = f'umask 022; {prepare}\nexec "$@"'
    return ["unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "sh", "-euc", script, "sh"]


@pytest.mark.root
def test_a_directory_for_plans_that_is_slurmds_and_nobody_elses(site):
    (site.top / "theirs").mkdir()
    os.chown(site.top / "theirs", site.user.pw_uid, site.user.pw_gid)
    site.configure(cache=str(site.top / "theirs"))
    assert f"belongs to user {site.user.pw_uid}, and slurmd is user 0" in said(doctor(site)[1], "slurm-arguments")


def test_a_directory_for_plans_that_is_not_there_yet_is_made_by_the_plugin(site):
    site.configure(cache=str(site.top / "yet"))
    assert statuses(doctor(site)[1])["slurm-arguments"] == "ok"


def test_a_directory_for_plans_in_run_is_warned_of(site):
    site.configure(cache="/run/cdi-hpc")
    found = doctor(site, *in_mounts("mount -t tmpfs -o mode=755 none /run"))[1]
    assert statuses(found)["slurm-arguments"] == "warning"
    assert "users can fill /run there, and root's programs" in said(found, "slurm-arguments")


def test_as_many_directories_of_specs_as_the_plugin_takes(site):
    (most,) = re.findall(r"SITE_MAX_DIRS = (\d+)", (PROJECT / "slurm/spank/site.h").read_text())
    assert int(most) == slurm.MOST_DIRS
    for count, status in ((slurm.MOST_DIRS, "ok"), (slurm.MOST_DIRS + 1, "problem")):
        site.configure(timeout="20" + " cdi-dir=/etc" * count)
        found = doctor(site)[1]
        assert statuses(found)["slurm-arguments"] == status
    assert f"is there {slurm.MOST_DIRS + 1} times" in said(found, "slurm-arguments")


def test_a_plugin_that_is_optional_is_a_warning(site):
    site.configure("optional")
    status, found = doctor(site)
    assert (status, statuses(found)["slurm-plugin"]) == (0, "warning")


def conf(site: Site, text: str, *more: str, less: str = "PlugStackConfig=") -> dict[str, str]:
    """Another plugstack.conf, named in another slurm.conf, which has these lines as well, and none that begins so."""
    top = site.top / "home/etc"
    top.mkdir(exist_ok=True)
    top.chmod(0o755)
    (top / "plugstack.conf").write_text(text)
    lines = (site.lab / "etc/slurm.conf").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("PlugStackConfig=", less))]
    (top / "slurm.conf").write_text("\n".join([*kept, *more, "PlugStackConfig=plugstack.conf\n"]))
    for name in ("gres.conf", "cgroup.conf"):
        (top / name).write_bytes((site.lab / "etc" / name).read_bytes())
    return {"SLURM_CONF": str(top / "slurm.conf")}


def test_a_prolog_of_tasks_is_a_warning(site):
    line = (site.top / "plugstack.conf").read_text()
    status, found = doctor(site, env=conf(site, line, "TaskProlog=/etc/slurm/prolog"))
    assert (status, statuses(found)["slurm-plugin"]) == (0, "warning")
    assert "TaskProlog=/etc/slurm/prolog runs in the image" in said(found, "slurm-plugin")


def test_a_plugstack_without_the_plugin_is_a_problem(site):
    status, found = doctor(site, env=conf(site, "optional other.so\n"))
    assert status == 1
    assert "plugstack.conf has no cdi_spank.so" in said(found, "slurm-plugin")


def test_a_plugin_of_an_included_file_is_found_once(site):
    site.configure()
    line = (site.top / "plugstack.conf").read_text()
    env = conf(site, "include conf.d/*.conf\n")
    directory = site.top / "home/etc/conf.d"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    (directory / "cdi.conf").write_text(f"# a comment\n{line}")
    assert statuses(doctor(site, env=env)[1])["slurm-plugin"] == "ok"
    (directory / "again.conf").write_text(line)
    status, found = doctor(site, env=env)
    assert status == 1
    assert "again.conf and in " in said(found, "slurm-plugin")


def test_a_plugin_for_another_release_is_a_problem(site):
    other = site.top / "home/cdi_spank.so"
    major, minor, micro = map(int, site.run("slurmd", "-V").stdout.split()[1].partition("-")[0].split("."))
    own, old = ((a << 16 | b << 8 | c).to_bytes(4, "little") for a, b, c in ((major, minor, micro), (19, 5, 0)))
    data = site.plugin.read_bytes().replace(own, old)
    other.write_bytes(data)
    assert slurm.built_for(str(other)) == (19, 5)
    programs = f"cdi-hpc={site.compiler} cdi-hpc-run={site.runner}"
    status, found = doctor(site, env=conf(site, f"required {other} {programs}\n"))
    assert status == 1
    assert "was built for Slurm 19.05, this is " in said(found, "slurm-plugin")


@pytest.mark.parametrize("path", ["/etc/passwd", "/bin/sh"])
def test_what_is_no_plugin_has_no_release(path):
    assert slurm.built_for(path) is None


def test_a_plugin_that_others_can_exchange_is_a_problem(site):
    open_to_all = site.top / "home/open"
    open_to_all.mkdir(exist_ok=True)
    (open_to_all / "cdi_spank.so").write_bytes(site.plugin.read_bytes())
    open_to_all.chmod(0o777)
    programs = f"cdi-hpc={site.compiler} cdi-hpc-run={site.runner}"
    status, found = doctor(site, env=conf(site, f"required {open_to_all}/cdi_spank.so {programs}\n"))
    assert status == 1
    assert f"{open_to_all} can be changed by others than root" in said(found, "slurm-plugin")


def test_numbers_that_mean_other_devices_are_a_problem(site):
    env = conf(site, (site.top / "plugstack.conf").read_text())
    gres = Path(env["SLURM_CONF"]).with_name("gres.conf")
    gres.write_text(
        "AutoDetect=off\nNodeName=n[1-2] Name=gpu File=/dev/nvidia[1-7]\nNodeName=n[1-2] Name=gpu File=/dev/nvidia0\n"
    )
    status, found = doctor(site, env={**env, "SLURMD_NODENAME": "n1"})
    assert status == 1
    assert "Slurm's gpu 0 is /dev/nvidia1, but nvidia.com/gpu=0 is /dev/nvidia0" in said(found, "slurm-gres")


@pytest.mark.parametrize("plugins", ["task/affinity,task/cgroup", "affinity,cgroup", "cgroup", "task/affinity, cgroup"])
def test_a_task_plugin_has_its_name_with_its_kind_or_without(site, plugins):
    env = conf(site, (site.top / "plugstack.conf").read_text(), f"TaskPlugin={plugins}", less="TaskPlugin=")
    Path(env["SLURM_CONF"]).with_name("cgroup.conf").write_text("ConstrainDevices=yes\n")
    assert statuses(doctor(site, env=env)[1])["slurm-constrained"] == "ok"


@pytest.mark.parametrize("plugins", ["task/affinity", "task/cgroups", "cgroup/v1"])
def test_another_task_plugin_does_not_keep_jobs_from_devices(site, plugins):
    env = conf(site, (site.top / "plugstack.conf").read_text(), f"TaskPlugin={plugins}", less="TaskPlugin=")
    Path(env["SLURM_CONF"]).with_name("cgroup.conf").write_text("ConstrainDevices=yes\n")
    assert statuses(doctor(site, env=env)[1])["slurm-constrained"] == "warning"


@pytest.mark.parametrize(
    ("types", "gpus", "status"),
    [("", "", "warning"), ("nic", "allocated", "warning"), ("nic,gpu", "", "ok"), ("", "shared", "note")],
)
def test_a_cluster_that_knows_nothing_of_gpus_leaves_their_numbers_to_users(site, types, gpus, status):
    site.configure(gpus=gpus)
    env = conf(site, (site.top / "plugstack.conf").read_text(), *([f"GresTypes={types}"] if types else []), less="Gres")
    slurm_conf = Path(env["SLURM_CONF"])
    if status != "ok":  # nor do its nodes
        slurm_conf.write_text(re.sub(r"Gres=\S+", "", slurm_conf.read_text()))
        slurm_conf.with_name("gres.conf").write_text("")
    found = doctor(site, env=env)[1]
    assert statuses(found)["slurm-gres"] == status
    assert ("Slurm leaves SLURM_STEP_GPUS to the user" in said(found, "slurm-gres")) is (status == "warning")


def test_a_machine_without_slurm_is_told_so(lab):
    env = {"PATH": "/opt/venv/bin:/usr/local/bin", "SLURM_CONF": "/no/such/file"}
    done = lab.run(["cdi-hpc", "doctor", "--slurm", "--format", "json"], env={**os.environ, **env})
    rows = [row for row in json.loads(done.stdout) if row["area"] == "slurm"]
    assert "without a slurm.conf" in " ".join(row["finding"] for row in rows)
