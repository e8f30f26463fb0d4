"""Which devices of a kind somebody was given."""

from __future__ import annotations

import contextlib
import errno

import pytest
from fake_host import FakeHost, host
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.errors import CdiError
from cdi_hpc.site.allocation import (
    Choice,
    GresMap,
    Member,
    gpu_uuids,
    granted,
    indices_of,
    members,
    openable,
    select,
    visible,
)
from cdi_hpc.site.globs import path_pattern
from cdi_hpc.spec.model import ContainerEdits, Device, DeviceNode, Spec
from cdi_hpc.spec.registry import LoadedSpec, RegisteredDevice, Registry

KIND = "nvidia.com/gpu"


def registry(*specs: Spec) -> Registry:
    """A registry of these specs."""
    devices = {
        f"{spec.kind}={device.name}": RegisteredDevice(spec, index)
        for spec in specs
        for index, device in enumerate(spec.devices)
    }
    return Registry((), tuple(LoadedSpec(spec, 0, "/etc/cdi") for spec in specs), devices)


def device(name: str, *nodes: str) -> Device:
    """A device with these nodes."""
    return Device(name, container_edits=ContainerEdits(device_nodes=tuple(DeviceNode(path) for path in nodes)))


def gpus(count: int) -> Spec:
    """A spec as nvidia-ctk makes it: each GPU by index and by UUID, and one device for all of them."""
    by_index = [device(str(n), f"/dev/nvidia{n}", f"/dev/dri/card{n + 1}") for n in range(count)]
    by_uuid = [device(f"GPU-{n}a{n}b", f"/dev/nvidia{n}", f"/dev/dri/card{n + 1}") for n in range(count)]
    every = device("all", *(f"/dev/nvidia{n}" for n in range(count)))
    return Spec("0.6.0", KIND, (*by_index, *by_uuid, every), path="/etc/cdi/nvidia.yaml")


def machine(count: int, *, closed: tuple[int, ...] = (), code: int = errno.EPERM) -> FakeHost:
    """A host with GPUs of which the job's device cgroup closes some."""
    nodes = {f"/dev/nvidia{n}": f"c 195:{n}" for n in range(count)}
    nodes.update({f"/dev/dri/card{n + 1}": f"c 226:{n + 1}" for n in range(count)})
    return host(nodes, open_errors={f"/dev/nvidia{n}": code for n in closed})


SPEC = gpus(4)
REGISTRY = registry(SPEC)
ALL = members(REGISTRY, KIND, machine(4))


def names(found: tuple[Member, ...]) -> list[str]:
    return [member.name for member in found]


def test_members_are_the_devices_of_a_kind_without_the_one_for_all_and_know_their_minors():
    assert [(m.name, m.node, m.minor) for m in ALL[:2]] == [("0", "/dev/nvidia0", 0), ("1", "/dev/nvidia1", 1)]
    assert len(ALL) == 8


def test_a_pattern_says_by_which_node_a_device_is_known():
    found = members(REGISTRY, KIND, machine(4), path_pattern("/dev/dri/card*"))
    assert [(m.node, m.minor) for m in found[:2]] == [("/dev/dri/card1", 1), ("/dev/dri/card2", 2)]


def test_a_node_that_the_host_lacks_or_hides_has_no_minor():
    assert members(REGISTRY, KIND, host())[0].minor is None
    assert members(REGISTRY, KIND, host(look_errors={"/dev/nvidia0": errno.EACCES}))[0].minor is None


def test_what_the_device_cgroup_closes_is_not_openable():
    there = machine(4, closed=(0, 3))
    assert names(openable(ALL, there)) == ["1", "2", "GPU-1a1b", "GPU-2a2b"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOENT, errno.ENXIO, errno.EBUSY])
def test_other_reasons_hide_nothing(code):
    assert openable(ALL, machine(4, closed=(0,), code=code)) == ALL


# Lists --------------------------------------------------------------------------------------------------------

LISTS = [
    ("0", ["0"]),
    ("0,2", ["0", "2"]),
    (" 3 , 1 ", ["3", "1"]),
    ("2,2,0", ["2", "0"]),
    ("GPU-1a1b", ["GPU-1a1b"]),
    ("GPU-1", ["GPU-1a1b"]),
    ("1,GPU-1", ["1"]),
    ("0,-1,2", ["0"]),
    ("-1", []),
    ("1,NoDevFiles,2", ["1"]),
    ("NoDevFiles", []),
    ("", []),
    ("  ", []),
    ("void", []),
    ("none", []),
    ("all", ["0", "1", "2", "3"]),
]


@pytest.mark.parametrize("text, chosen", LISTS)
def test_a_list_means_what_it_means_to_cuda(text, chosen):
    assert names(visible(text, ALL)) == chosen


def test_indices_count_what_can_be_opened():
    left = openable(ALL, machine(4, closed=(0, 2)))
    assert names(visible("0,1", left)) == ["1", "3"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("4", "there is no device '4': 4 can be opened, counted from 0"),
        ("GPU-", "no device is 'GPU-' or can be opened"),
        ("GPU-9", "no device is 'GPU-9'"),
        ("gpu-1", "no device is 'gpu-1'"),
        ("0,,1", "no device is ''"),
        ("0-3", "no device is '0-3'"),
        ("9" * 5000, "there is no device"),
        ("x\x1b[2J", r"no device is 'x\x1b[2J'"),
    ],
)
def test_what_is_not_there_is_an_error_and_not_silently_less(text, message):
    with pytest.raises(CdiError) as caught:
        visible(text, ALL)
    assert message in str(caught.value)


def test_every_wrong_entry_is_reported():
    with pytest.raises(CdiError) as caught:
        visible("7,0,GPU-x", ALL)
    assert len(caught.value.problems) == 2


def test_a_short_uuid_that_two_devices_have_is_an_error():
    spec = Spec("0.6.0", KIND, (device("GPU-ab1", "/dev/nvidia0"), device("GPU-ab2", "/dev/nvidia1")))
    found = members(registry(spec), KIND, machine(2))
    with pytest.raises(CdiError, match="'GPU-ab' could be 'GPU-ab1' and 'GPU-ab2' \\(write more of the UUID\\)"):
        visible("GPU-ab", found)


def test_mig_devices_are_found_by_name_and_by_uuid():
    spec = Spec(
        "0.6.0",
        KIND,
        (
            device("0:0", "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap21"),
            device("0:1", "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap30"),
            device("MIG-7c1f", "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap30"),
        ),
    )
    found = members(registry(spec), KIND, machine(1))
    assert names(visible("0:1", found)) == ["0:1"]
    assert names(visible("MIG-7c", found)) == ["MIG-7c1f"]
    assert names(visible("0:0,MIG-7c1f", found)) == ["0:0", "MIG-7c1f"]


@given(st.text(max_size=40))
def test_any_list_means_devices_or_is_refused(text):
    with contextlib.suppress(CdiError):
        found = visible(text, ALL)
        assert all(member in ALL for member in found)
        assert len({member.nodes for member in found}) == len(found)


# Requests -----------------------------------------------------------------------------------------------------

TWO_KINDS = registry(SPEC, Spec("0.6.0", "hpe.com/cxi", (device("cxi0", "/dev/cxi0"),), path="/etc/cdi/cxi.json"))
ALLOCATED = machine(4, closed=(0, 1))

REQUESTS = [
    (["nvidia.com/gpu=all"], Choice(), ["nvidia.com/gpu=all"]),
    (["nvidia.com/gpu=all"], Choice(openable=True), ["nvidia.com/gpu=2", "nvidia.com/gpu=3"]),
    (["nvidia.com/gpu"], Choice(openable=True), ["nvidia.com/gpu=2", "nvidia.com/gpu=3"]),
    (["hpe.com/cxi=all,nvidia.com/gpu=all"], Choice(openable=True), ["hpe.com/cxi=all", *"23"]),
    (["nvidia.com/gpu=0"], Choice(openable=True), ["nvidia.com/gpu=0"]),
    (["nvidia.com/gpu=all"], Choice(lists=("1",)), ["nvidia.com/gpu=3"]),
    (["nvidia.com/gpu=all"], Choice(lists=("",)), []),
    (["nvidia.com/gpu=all", "hpe.com/cxi"], Choice(lists=("nvidia.com/gpu=0",)), ["nvidia.com/gpu=2", "hpe.com/cxi"]),
    (["./a,nvidia.com/gpu.yaml"], Choice(openable=True), ["./a,nvidia.com/gpu.yaml"]),
]


@pytest.mark.parametrize("arguments, choice, selected", REQUESTS)
def test_a_whole_kind_is_replaced_by_what_is_left_of_it(arguments, choice, selected):
    expected = [f"{KIND}={word}" if word.isdigit() else word for word in selected]
    assert list(select(arguments, TWO_KINDS, ALLOCATED, choice)) == expected


def test_a_kind_of_which_everything_can_be_opened_stays_as_it_is():
    assert select([f"{KIND}=all"], REGISTRY, machine(4), Choice(openable=True)) == (f"{KIND}=all",)


@pytest.mark.parametrize(
    "arguments, choice, message",
    [
        (["nvidia.com/gpu", "hpe.com/cxi"], Choice(lists=("0",)), "'0' could be for 'nvidia.com/gpu' or 'hpe.com/cxi'"),
        (["nvidia.com/gpu=0"], Choice(lists=("0",)), "no whole kind is asked for"),
        (["nvidia.com/gpu"], Choice(lists=("amd.com/gpu=0",)), "'amd.com/gpu', which is not asked for as a whole"),
        (["nvidia.com/gpu"], Choice(lists=("2",)), "there is no device '2': 2 can be opened"),
    ],
)
def test_a_list_that_can_not_be_placed_is_an_error(arguments, choice, message):
    with pytest.raises(CdiError) as caught:
        select(arguments, TWO_KINDS, ALLOCATED, choice)
    assert message in str(caught.value)


def test_a_job_that_may_open_nothing_of_a_kind_is_told_so():
    with pytest.raises(CdiError, match="the job's device cgroup allows none of its 8 devices"):
        select([f"{KIND}=all"], REGISTRY, machine(4, closed=(0, 1, 2, 3)), Choice(openable=True))


# GRES ---------------------------------------------------------------------------------------------------------

UUIDS = {0: "GPU-2a2b", 2: "GPU-0a0b"}
MAPS = [
    (GresMap(KIND), (0, 2), ["0", "2"]),
    (GresMap(KIND), (2, 0, 2), ["2", "0"]),
    (GresMap(KIND, "minor"), (3,), ["3"]),
    (GresMap(KIND, "uuid"), (0, 2), ["GPU-2a2b", "GPU-0a0b"]),
    (GresMap(KIND, "table", {"0": "3", "1": "GPU-1a1b"}), (0, 1), ["3", "GPU-1a1b"]),
    (GresMap(KIND), (), []),
]


@pytest.mark.parametrize("gres, indices, given_out", MAPS)
def test_indices_of_a_gres_become_devices_as_the_site_maps_them(gres, indices, given_out):
    assert names(granted(gres, indices, ALL, UUIDS)) == given_out


def test_a_gres_is_mapped_by_the_minor_of_the_node_that_the_site_names():
    found = members(REGISTRY, KIND, machine(4), path_pattern("/dev/dri/card*"))
    assert names(granted(GresMap(KIND, "minor"), (4,), found, {})) == ["3"]


@pytest.mark.parametrize(
    "gres, message",
    [
        (GresMap(KIND), "mapped by index): it has no device '7' (there is '0' or '1'"),
        (GresMap(KIND, "minor"), "no device of it has a node with the minor number 7"),
        (GresMap(KIND, "uuid"), "no GPU has the minor number 7"),
        (GresMap(KIND, "table", {"0": "3"}), "the table has no such entry"),
        (GresMap(KIND, "table", {"7": "9"}), "it has no device '9'"),
    ],
)
def test_an_index_that_means_no_device_is_refused_and_says_how_it_was_looked_for(gres, message):
    with pytest.raises(CdiError) as caught:
        granted(gres, (7,), ALL, UUIDS)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text, indices", [("0", (0,)), ("0,2", (0, 2)), ("0-3", (0, 1, 2, 3)), ("1,0-2", (1, 0, 2)), ("", ()), (" ", ())]
)
def test_slurms_lists_are_numbers_and_ranges(text, indices):
    assert indices_of(text) == indices


@pytest.mark.parametrize("text", ["a", "0,", "3-1", "-1", "0-99999999", "9" * 20, "0;1", "٣", "0-70000,70001-140000"])
def test_what_is_no_list_of_slurm_is_refused(text):
    with pytest.raises(CdiError, match="neither a number nor a range"):
        indices_of(text)


def test_uuids_are_read_from_the_drivers_files():
    text = b"Model: \t\t NVIDIA A100\nIRQ: 42\nGPU UUID: \t GPU-8f6c\nDevice Minor: \t 3\n"
    assert gpu_uuids([text, b"", b"\xff\xfe: \xff", b"Device Minor: x\nGPU UUID: GPU-1"]) == {3: "GPU-8f6c"}
