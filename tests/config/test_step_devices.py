"""What a step of Slurm's was given, of what it asks for: by number, minor, UUID, a table, and by what the site says."""

from __future__ import annotations

import errno

import pytest
from site_files import site
from test_allocation import device, gpus, machine, registry

from cdi_hpc.errors import CdiError
from cdi_hpc.resolve.step_devices import read_grant, step_devices
from cdi_hpc.spec.model import Spec

UUIDS = {0: "GPU-0a0b", 1: "GPU-1a1b", 2: "GPU-2a2b", 3: "GPU-3a3b"}
REGISTRY = registry(
    gpus(4),
    Spec("0.6.0", "amd.com/gpu", (device("0", "/dev/dri/card1"),), path="/etc/cdi/amd.yaml"),
    Spec("0.6.0", "hpe.com/cxi", (device("cxi0"), device("cxi1")), path="/etc/cdi/cxi.yaml"),
)
KIND = "nvidia.com/gpu"


def devices(asked: str, given: str, text: str = "", *, closed: tuple[int, ...] = ()) -> list[str]:
    grant = read_grant([f"gpu={given}"], UUIDS)
    return [*step_devices(asked.split(","), grant, site(text), REGISTRY, machine(4, closed=closed))]


def mapped(by: str, **more: str) -> str:
    return f"slurm: {{gres: {{gpu: {{kind: {KIND}, by: {by}{''.join(f', {k}: {v}' for k, v in more.items())}}}}}}}"


#: Asked for, given by Slurm, the site's file -> the step's devices.
GIVEN = {
    (KIND, "0,1", ""): [f"{KIND}=0", f"{KIND}=1"],
    (f"{KIND}=all", "3", ""): [f"{KIND}=3"],
    (f"{KIND}=all", "1-3", ""): [f"{KIND}=1", f"{KIND}=2", f"{KIND}=3"],
    (f"{KIND}=1", "0,1", ""): [f"{KIND}=1"],
    (f"{KIND}=1,{KIND}", "0,1", ""): [f"{KIND}=1", f"{KIND}=0"],
    (f"{KIND}=GPU-1a1b", "1", ""): [f"{KIND}=GPU-1a1b"],
    (f"{KIND},amd.com/gpu", "0", ""): [f"{KIND}=0", "amd.com/gpu=0"],
    (KIND, "2", mapped("minor")): [f"{KIND}=2"],
    (KIND, "2", mapped("minor", node="/dev/dri/card*")): [f"{KIND}=1"],
    (KIND, "2", mapped("uuid")): [f"{KIND}=GPU-2a2b"],
    (f"{KIND}=2", "2", mapped("uuid")): [f"{KIND}=2"],
    (KIND, "0,1", mapped("table", table="{0: '3', 1: GPU-2a2b}")): [f"{KIND}=3", f"{KIND}=GPU-2a2b"],
    ("hpe.com/cxi", "0", "slurm: {unmapped: all}"): ["hpe.com/cxi"],
    (f"{KIND},hpe.com/cxi", "0", "slurm: {unmapped: none}"): [f"{KIND}=0"],
    ("hpe.com/cxi=cxi1", "", "slurm: {unmapped: all}"): ["hpe.com/cxi=cxi1"],
    ("intel.com/gpu", "0", ""): ["intel.com/gpu"],  # not known: whoever resolves it says what there is instead
}


@pytest.mark.parametrize(("asked", "given", "text"), [*GIVEN])
def test_what_a_step_has(asked, given, text):
    assert devices(asked, given, text) == GIVEN[asked, given, text]


REFUSED = {
    (f"{KIND}=1", "0,3", ""): f"device '{KIND}=1': it was not allocated to this step, which has {KIND}=0,3",
    (f"{KIND}=00", "0", ""): "it was not allocated",
    (f"{KIND}=GPU-0a0b", "1", ""): "it was not allocated",
    (f"{KIND}=GPU-9", "1", ""): "it was not allocated",
    (f"{KIND}=0,{KIND}=2", "0", ""): f"device '{KIND}=2': it was not allocated",
    (KIND, "", ""): "this step has no GPUs allocated (ask for some: --gres=gpu:1",
    (f"{KIND}=0", "", ""): "this step has no GPUs allocated",
    (KIND, "9", ""): f"allocated device 9: can't be found in the kind '{KIND}'",
    (KIND, "9", mapped("minor")): "no device of it has a node with the minor number 9",
    ("hpe.com/cxi", "0", ""): "device 'hpe.com/cxi': no GRES of Slurm's stands for its kind",
    ("amd.com/gpu", "0", mapped("index")): "device 'amd.com/gpu': no GRES of Slurm's stands for its kind",
    ("hpe.com/cxi", "0", "slurm: {gres: {nic: {kind: hpe.com/cxi}}}"): "it is of the GRES 'nic', and Slurm does not",
    (KIND, "MIG-1", ""): "'MIG-1' in 'MIG-1' is neither a number nor a range",
}


@pytest.mark.parametrize(("asked", "given", "text"), [*REFUSED])
def test_what_a_step_can_not_have(asked, given, text):
    with pytest.raises(CdiError) as raised:
        devices(asked, given, text)
    assert REFUSED[asked, given, text] in str(raised.value)


def test_everything_that_is_refused_is_said_at_once():
    with pytest.raises(CdiError) as raised:
        devices(f"{KIND}=1,hpe.com/cxi,{KIND}=2", "0")
    assert len(raised.value.problems) == 3


@pytest.mark.parametrize("asked", [KIND, f"{KIND}=1"])
def test_what_was_given_and_can_not_be_opened_is_refused(asked):
    with pytest.raises(CdiError, match=f"the job's device cgroup does not let it open {KIND}=1, which Slurm gave it"):
        devices(asked, "0,1", closed=(1,))


def test_what_was_not_given_may_well_be_closed():
    assert devices(KIND, "0,1", closed=(2, 3)) == [f"{KIND}=0", f"{KIND}=1"]


def test_a_missing_group_is_said_by_the_plan_and_not_here():
    grant = read_grant(["gpu=0"], {})
    host = machine(4, closed=(0,), code=errno.EACCES)
    assert step_devices([KIND], grant, site(""), REGISTRY, host) == (f"{KIND}=0",)


@pytest.mark.parametrize("text", ["gpu", "=0", "gpu=x", "gpu=0,", "gpu=-1", "0,1"])
def test_a_grant_that_is_none_is_refused(text):
    with pytest.raises(CdiError):
        read_grant([text], {})
