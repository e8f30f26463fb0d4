"""Which devices a GRES means is the site's to say: a step has what Slurm gave it, by the nodes' own configuration.

The devices are terminals: of all devices that an ordinary user can make, they have the numbers that he wants.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_site import ConfiguredSite, errors

KIND = "lab.example/gpu"
NIC = "lab.example/nic"
MAP = "slurm: {{gres: {{gpu: {{kind: {kind}, by: {by}{more}}}}}}}".format
MIG = MAP(kind=KIND, by="table", more=', table: {0: "0:0", 1: "0:1", 2: MIG-9c3f}')
UUIDS = {number: f"GPU-{number}f6c" for number in range(8)}


@pytest.fixture(scope="module")
def minors() -> Iterator[dict[int, str]]:
    """Character devices by their minor numbers, 0 to 7 (pts(4))."""
    found: dict[int, str] = {}
    with contextlib.ExitStack() as open_files:
        while not found.keys() >= set(range(8)):
            master, slave = os.openpty()
            open_files.callback(os.close, master)
            found[os.minor(os.fstat(slave).st_rdev)] = path = os.ttyname(slave)
            os.close(slave)
            Path(path).chmod(0o666)
        yield found


def spec(kind: str, devices: dict[str, str]) -> str:
    """A spec of devices with a node and a variable each."""
    lines = ["cdiVersion: 0.5.0", f"kind: {kind}", "devices:"]
    for name, path in devices.items():
        edits = f"{{env: ['HAS_{path.rpartition('/')[2]}=yes'], deviceNodes: [{{path: {path}}}]}}"
        lines.append(f"- {{name: '{name}', containerEdits: {edits}}}")
    return "\n".join(lines)


@pytest.fixture
def site(configured_site, minors) -> ConfiguredSite:
    """Devices that are called otherwise than they are numbered: "0" has the minor number 7, and so on."""
    specs = configured_site.top / "cdi"
    specs.mkdir(mode=0o755, exist_ok=True)
    named = {f"{number}": minors[7 - number] for number in range(8)}
    named |= {UUIDS[number]: minors[number] for number in range(8)}
    named |= {"0:0": minors[1], "0:1": minors[2], "MIG-9c3f": minors[3], "all": minors[4]}
    (specs / "gpu.yaml").write_text(spec(KIND, named))
    (specs / "nic.yaml").write_text(spec(NIC, {"eth0": "/dev/null", "eth1": "/dev/zero"}))
    for path in specs.iterdir():
        path.chmod(0o644)
    configured_site.configure(cdi_dir=str(specs))
    return configured_site


#: The site's file, GRES, what is asked for -> what the tasks of a node have.
MEANT = {
    "nothing said": ("", 2, KIND, ["0", "1"]),
    "nothing said, all": ("", 3, f"{KIND}=all", ["0", "1", "2"]),
    "index": (MAP(kind=KIND, by="index", more=""), 2, KIND, ["0", "1"]),
    "minor": (MAP(kind=KIND, by="minor", more=""), 2, KIND, ["7", "6"]),
    "minor, all": (MAP(kind=KIND, by="minor", more=""), 2, f"{KIND}=all", ["7", "6"]),
    "minor, one of them": (MAP(kind=KIND, by="minor", more=""), 3, f"{KIND}=5", ["5"]),
    "uuid": (MAP(kind=KIND, by="uuid", more=""), 2, KIND, ["GPU-0f6c", "GPU-1f6c"]),
    "uuid, by its other name": (MAP(kind=KIND, by="uuid", more=""), 2, f"{KIND}=6", ["6"]),
    "table": (MAP(kind=KIND, by="table", more=", table: {0: '5', 1: GPU-4f6c}"), 2, KIND, ["5", "GPU-4f6c"]),
    "parts of a GPU": (MIG, 3, KIND, ["0:0", "0:1", "MIG-9c3f"]),
    "a part of a GPU by its name": (MIG, 3, f"{KIND}=0:1", ["0:1"]),
    "a part of a GPU by its UUID": (MIG, 3, f"{KIND}=MIG-9c3f,{KIND}=0:0", ["MIG-9c3f", "0:0"]),
}


@pytest.mark.parametrize("case", [*MEANT])
def test_what_a_step_has_on_each_node(site, case):
    text, count, asked, names = MEANT[case]
    site.configure_nodes(text)
    site.give_uuids(UUIDS)
    done = site.srun("-N2", "-n4", f"--gres=gpu:{count}", f"--cdi={asked}", "printenv", "CDI_HPC_DEVICES")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [",".join(f"{KIND}={name}" for name in names)] * 4


@pytest.mark.parametrize("way", ["--cdi-mode=mounts", "--cdi-image={image}"])
def test_tasks_that_have_the_devices_themselves_have_the_same(site, minors, lab, way):
    site.configure_nodes(MAP(kind=KIND, by="minor", more=""))
    words = ("--gres=gpu:2", f"--cdi={KIND}=all", way.format(image=lab.image("debian-root")))
    done = site.srun("-N2", "-n2", *words, "sh", "-c", "env | grep ^HAS_ | sort | tr '\\n' ' '")
    given = sorted(f"HAS_{Path(minors[number]).name}=yes" for number in (0, 1))
    assert done.stdout == f"{' '.join(given)} " * 2, done.stderr


def test_jobs_side_by_side_have_different_devices(site):
    site.configure_nodes(MAP(kind=KIND, by="minor", more=""))
    words = ("srun", "--quiet", "-w", "n1", "--gres=gpu:3", f"--cdi={KIND}=all", "sh", "-c")
    both = [site.begin(*words, "echo $CDI_HPC_DEVICES; sleep 1") for _ in range(2)]
    devices = [set(process.communicate(timeout=60)[0].strip().split(",")) for process in both]
    assert devices[0] | devices[1] == {f"{KIND}={number}" for number in range(2, 8)}
    assert not devices[0] & devices[1]


def test_a_later_configuration_counts_for_the_next_step(site):
    found = []
    for by in ("index", "minor", "index"):
        site.configure_nodes(MAP(kind=KIND, by=by, more=""))
        found.append(site.srun("--gres=gpu:1", f"--cdi={KIND}", "printenv", "CDI_HPC_DEVICES").stdout)
    assert found == [f"{KIND}=0\n", f"{KIND}=7\n", f"{KIND}=0\n"]


#: The site's file, GRES, what is asked for -> what is said on each node.
REFUSED = {
    "another one": (
        MAP(kind=KIND, by="minor", more=""),
        2,
        f"{KIND}=0",
        f"device '{KIND}=0': it was not allocated to this step, which has {KIND}=7,6 (ask for {KIND}, what was",
    ),
    "another one by its UUID": (
        MAP(kind=KIND, by="uuid", more=""),
        1,
        f"{KIND}=GPU-7f6c",
        f"device '{KIND}=GPU-7f6c': it was not allocated to this step, which has {KIND}=GPU-0f6c",
    ),
    "another part of a GPU": (MIG, 1, f"{KIND}=0:1", f"which has {KIND}=0:0"),
    "the one that stands for all of them, by the number of another": (MIG, 1, f"{KIND}=4", f"which has {KIND}=0:0"),
    "more than the table has": (MIG, 4, KIND, "allocated device 3: can't be found in the kind"),
    "some, where Slurm gave none": (
        MAP(kind=KIND, by="uuid", more=""),
        0,
        KIND,
        "this step has no GPUs allocated (ask for some: --gres=gpu:1",
    ),
    "a kind without a GRES": (
        MAP(kind=KIND, by="index", more=""),
        1,
        f"{KIND},{NIC}",
        f"device '{NIC}': no GRES of Slurm's stands for its kind, and such are not given out here (ask the admin",
    ),
    "a GRES that Slurm does not tell": (
        f"slurm: {{gres: {{nic: {{kind: {NIC}}}}}}}",
        1,
        NIC,
        "it is of the GRES 'nic', and Slurm does not tell a step which of those it has",
    ),
    "by a rule": (
        "policy: {kinds: {rules: [{deny: 'lab.example/*', because: they are being repaired}]}}",
        1,
        KIND,
        "they are being repaired",
    ),
    "a configuration that is wrong": ("slurm: {unmaped: all}", 1, KIND, "/etc/cdi-hpc/config.yaml:1"),
}


@pytest.mark.parametrize("case", [*REFUSED])
def test_what_a_step_can_not_have_is_refused_on_each_node(site, case):
    text, count, asked, message = REFUSED[case]
    site.configure_nodes(text)
    site.give_uuids(UUIDS)
    done = site.srun("-N2", "-n4", f"--gres=gpu:{count}", f"--cdi={asked}", "echo", "RAN")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    lines = errors(done)
    assert [line[:2] for line in lines] == ["n1", "n2"], done.stderr
    assert all(message in line for line in lines), done.stderr


@pytest.mark.parametrize(
    ("unmapped", "devices"),
    [("all", f"{KIND}=0,{NIC}=eth0,{NIC}=eth1"), ("none", f"{KIND}=0")],
)
def test_kinds_that_slurm_does_not_give_out_are_the_sites_to_decide(site, unmapped, devices):
    site.configure_nodes(f"slurm: {{unmapped: {unmapped}}}")
    done = site.srun("--gres=gpu:1", f"--cdi={KIND},{NIC}", "printenv", "CDI_HPC_DEVICES")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {devices, devices.replace(f"{NIC}=eth0,{NIC}=eth1", NIC)}


def test_what_a_user_configures_for_himself_does_not_count(site):
    site.configure_nodes("slurm: {unmapped: refuse}")
    own = site.top / "home/.config/cdi-hpc/config.yaml"
    own.parent.mkdir(parents=True, mode=0o755)
    own.write_text("aliases: {mine: lab.example/nic=eth0}\n")
    try:
        done = site.srun("--gres=gpu:1", f"--cdi={NIC}", "echo", "RAN")
        assert (done.returncode, done.stdout) == (125, ""), done.stderr
        assert "no GRES of Slurm's stands for its kind" in done.stderr
    finally:
        shutil.rmtree(site.top / "home/.config")


def test_a_configuration_that_others_could_have_written_stops_the_step(site):
    site.configure_nodes("slurm: {unmapped: all}", mode=0o666)
    done = site.srun("--gres=gpu:1", f"--cdi={KIND}", "echo", "RAN")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert "/etc/cdi-hpc/config.yaml: not believed: others can write to it (mode 666)" in done.stderr


def test_the_doctor_says_what_the_numbers_mean(site):
    site.configure_nodes(MAP(kind=KIND, by="minor", more=""))
    done = site.srun("--gres=gpu:2", "cdi-hpc", "doctor", "--slurm")
    line = next(line for line in done.stdout.splitlines() if "slurm-step" in line)
    assert f"this step was given GPUs 0,1: {KIND}=7, {KIND}=6" in line, done.stdout
