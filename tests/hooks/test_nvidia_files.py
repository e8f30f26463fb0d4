"""The files that NVIDIA's hooks make for the driver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.translation.nvidia import application_profile, is_gpu_node, params_without_device_modification

PARAMS = b"""ResmanDebugLevel: 4294967295
RmLogonRC: 1
ModifyDeviceFiles: 1
DeviceFileUID: 0
DeviceFileMode: 438
RegistryDwords: ""
"""


def test_the_drivers_parameters_are_kept_but_for_one():
    assert params_without_device_modification(PARAMS) == PARAMS.replace(b"Files: 1", b"Files: 0")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"DeviceFileUID: 0\n",
        b"ModifyDeviceFiles: 0\n",
        b"ModifyDeviceFiles: 0",
        b" ModifyDeviceFiles: 1\n",
        b"ModifyDeviceFiles: 1 \n",
        b"ModifyDeviceFiles: 11\n",
        b"ModifyDeviceFiles: 1\nModifyDeviceFiles: 0\n",
    ],
)
def test_parameters_that_do_not_say_exactly_1_need_no_change(text):
    assert params_without_device_modification(text) is None


@pytest.mark.parametrize("text", [b"A: \xff\nModifyDeviceFiles: 1", b"A: \xff\r\nModifyDeviceFiles: 1\r\n"])
def test_every_line_ends_in_one_newline_whatever_it_ended_in(text):
    assert params_without_device_modification(text) == b"A: \xff\nModifyDeviceFiles: 0\n"


@given(st.binary())
def test_no_parameters_make_it_raise_and_a_changed_file_needs_no_change(text):
    changed = params_without_device_modification(text + b"\nModifyDeviceFiles: 1\n")
    assert changed is None or params_without_device_modification(changed) is None


@pytest.mark.parametrize(
    "minors, mask", [([0], "0x1"), ([8], "0x100"), ([15, 0, 15], "0x8001"), ([63, -1, 64, 255], "0x8000000000000000")]
)
def test_the_profile_has_a_bit_for_each_gpu(minors, mask):
    content = application_profile(minors)
    assert content is not None
    assert content.decode() == (
        f'{{"profiles":[{{"name":"_container_","settings":["EGLVisibleDGPUDevices",{mask}]}}],'
        '"rules":[{"pattern":[],"profile":"_container_"}]}'
    )


@pytest.mark.parametrize("minors", [[], [64, 195], [-1]])
def test_without_a_gpu_there_is_no_profile(minors):
    assert application_profile(minors) is None


@pytest.mark.parametrize(
    "path, gpu",
    [
        ("/dev/nvidia0", True),
        ("/dev/nvidia12", True),
        ("/dev/nvidiactl", False),
        ("/dev/nvidia-uvm", False),
        ("/dev/nvidia0\n", False),
        ("/dev/dri/nvidia0", False),
        ("/dev/nvidia", False),
    ],
)
def test_a_gpu_is_told_from_the_drivers_other_nodes(path, gpu):
    assert is_gpu_node(path) is gpu
