"""The two files that NVIDIA's hooks write for the driver, as content: nothing here reads or writes.

Who applies them is told the paths; docs/hooks.md says when they are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: The driver's parameters, on the host and in the container. procfs has no room for a new file: it is bound over.
PARAMS_PATH = "/proc/driver/nvidia/params"

#: The driver's application profile of the container.
APPLICATION_PROFILE_PATH = "/etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf"

#: Mode of both files.
FILE_MODE = 0o444

_GPU_NODE = re.compile(r"/dev/nvidia[0-9]+")
_PARAMETER = b"ModifyDeviceFiles: "
_MASK_BITS = 64


def params_without_device_modification(text: bytes) -> bytes | None:
    """The driver's parameters with ``ModifyDeviceFiles: 0``; None if they say so already or don't say 1.

    With 1, libnvidia-ml and nvidia-smi make the nodes of all GPUs in the container's /dev if they can. Only the
    exact line counts; every line of the result ends in a newline.

    Args:
        text: content of :data:`PARAMS_PATH` on the host. Where that file is absent there is nothing to do.

    """
    lines = [line[:-1] if line.endswith(b"\r") else line for line in text.split(b"\n")]
    if not lines[-1]:
        lines.pop()
    # A 0 anywhere settles it for the vendor's hook, whatever else the file says.
    settings = [line for line in lines if line in {_PARAMETER + b"0", _PARAMETER + b"1"}]
    if not settings or _PARAMETER + b"0" in settings:
        return None
    changed = (_PARAMETER + b"0" if line == _PARAMETER + b"1" else line for line in lines)
    return b"".join(line + b"\n" for line in changed)


def is_gpu_node(path: str) -> bool:
    """Whether a device node's container path is that of a physical GPU: /dev/nvidia0, not /dev/nvidiactl."""
    return _GPU_NODE.fullmatch(path) is not None


def application_profile(minors: Iterable[int]) -> bytes | None:
    """The profile that shows EGL and Vulkan just these GPUs; None if there are none to show.

    Args:
        minors: minor numbers of the character devices in the container for which :func:`is_gpu_node` holds, in
            any order. The driver's mask has 64 bits; other numbers are left out.

    """
    mask = 0
    for minor in minors:
        if 0 <= minor < _MASK_BITS:
            mask |= 1 << minor
    if not mask:
        return None
    # Not JSON: the driver's notation has hexadecimal numbers. The vendor's hook writes these very bytes.
    setting = f'["EGLVisibleDGPUDevices",{mask:#x}]'
    profile = f'{{"name":"_container_","settings":{setting}}}'
    rule = '{"pattern":[],"profile":"_container_"}'
    return f'{{"profiles":[{profile}],"rules":[{rule}]}}'.encode()
