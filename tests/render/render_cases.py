"""Plans to be rendered: the cases under golden/, and strings that a spec may hold to do harm."""

from __future__ import annotations

import random

from cdi_hpc.plan import (
    Bind,
    CudaCompat,
    MountFilesystem,
    Note,
    Plan,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.spec.model import Origin

SPEC = "/etc/cdi/vendor.yaml"


def at(field: str, device: str = "") -> Origin:
    return Origin(SPEC, device, field)


RO = ("ro", "nosuid", "nodev")

LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so.570.133.20"

GPU = Plan(
    devices=("nvidia.com/gpu=0",),
    actions=(
        SetEnv("NVIDIA_VISIBLE_DEVICES", "void", at("containerEdits.env[0]")),
        Bind("/dev/nvidia0", "/dev/nvidia0", "device", at("devices[0].containerEdits.deviceNodes[0]")),
        Bind(LIBRARY, LIBRARY, "file", at("containerEdits.mounts[0]"), RO, ("relatime",)),
        Bind(
            "/usr/share/vendor", "/usr/share/vendor", "directory", at("containerEdits.mounts[1]"), RO, recursive=False
        ),
        Symlink("/usr/lib/x86_64-linux-gnu/libcuda.so", "libcuda.so.1", at("containerEdits.hooks[0]")),
        CudaCompat("/usr/local/cuda/compat", "570.133.20", "", at("containerEdits.hooks[1]")),
        UpdateLdCache(("/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/vdpau"), at("containerEdits.hooks[2]")),
        WriteFile("/proc/driver/nvidia/params", b"ModifyDeviceFiles: 0\n", 0o444, at("containerEdits.hooks[3]")),
        Note("hook chmod", "the bind keeps the host's mode", at("containerEdits.hooks[4]")),
    ),
)

PRIVATE_DEV = Plan(
    devices=("vendor.example/device=renamed",),
    actions=(
        Bind("/dev/accel/accel3", "/dev/accel0", "device", at("devices[0].containerEdits.deviceNodes[0]")),
        Symlink("/dev/accel-by-name/first", "../accel0", at("devices[0].containerEdits.hooks[0]")),
        MountFilesystem(
            "tmpfs",
            "scratch",
            "/scratch",
            at("containerEdits.mounts[0]"),
            ("nosuid", "nodev"),
            ("size=64m", "mode=1777"),
        ),
    ),
    private_dev="/dev/accel/accel3 is to be seen as /dev/accel0",
)

REFUSED = Plan(
    devices=("vendor.example/nic=all",),
    actions=(
        Unsupported("intelRdt", "resctrl groups need privilege; the host's own apply", at("containerEdits.intelRdt")),
        Unsupported(
            "netDevices eth0",
            "a network device can't be moved without privilege",
            at("containerEdits.netDevices[0]"),
            fatal=True,
        ),
    ),
)

HOSTILE_ORIGIN = Origin("/etc/cdi/x\nreboot #$(reboot)`reboot`.yaml", "v/c=0", "containerEdits.env[0]\r\nreboot")

HOSTILE = Plan(
    devices=("v/c=0\nreboot",),
    actions=(
        SetEnv("A", "it's $(reboot) `reboot` ${HOME} \\ \"\n!! -n %s \udcff\x1b[2J \u202e", HOSTILE_ORIGIN),
        Bind("/-n/$(reboot)\n", "/it's\t'; reboot; '", "file", HOSTILE_ORIGIN, ("ro",)),
        Symlink("/--help", "-n\nreboot", HOSTILE_ORIGIN),
        WriteFile("/%s", b"%s \\n \\\\ \0 \xff\n'", 0o600, HOSTILE_ORIGIN),
        UpdateLdCache(("/lib/$(reboot)",), HOSTILE_ORIGIN),
        Note("hook\nreboot", "why\nreboot", HOSTILE_ORIGIN),
        Unsupported("x\nreboot", "$(reboot)\n'", HOSTILE_ORIGIN, fatal=True),
    ),
    private_dev="because\nreboot",
)

EMPTY = Plan((), ())

CASES = {
    "gpu": GPU,
    "private-dev": PRIVATE_DEV,
    "refused": REFUSED,
    "hostile": HOSTILE,
    "empty": EMPTY,
}

#: Pieces of strings with a meaning for a shell, a terminal, printf, mount(8), fstab(5) or a decoder.
PIECES = (
    *"'\"`$\\!#&;|<>(){}[]*?~^=%,:@-+/ \n\r\t\v\f\x01\x1b\x7fAz09_.",
    "$(", "${", "$((", "$'", "\\n", "\\0", "\\134", "\\x41", "%s", "%b", "%n", "--", "-n", "-e", "..", "!!",
    "é", "ß", "字", "\u202e", "\u2028", "\ufeff", "\U0001f600", "\udc80", "\udcff", "\udcc3", "EOF", "reboot",
)  # fmt: skip


def hostile_strings(count: int, seed: int, without: str = "") -> list[str]:
    """The same strings every time."""
    choose = random.Random(seed)  # noqa: S311 - not for secrets
    pieces = [piece for piece in PIECES if not set(piece) & set(without)]
    return ["".join(choose.choices(pieces, k=choose.randint(1, 12))) for _ in range(count)]


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
