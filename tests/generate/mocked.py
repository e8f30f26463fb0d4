"""Machines that are not there: devices as umockdev describes them, and files below /proc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Mocked:
    """A machine.

    Attributes:
        description: for umockdev-run --device (umockdev's README, "device description").
        proc: files below /proc/driver.

    """

    description: str = ""
    proc: dict[str, str] = field(default_factory=dict)

    def pci(self, address: str, driver: str, vendor: str, class_: str = "0x000000") -> str:
        """A PCI function; returns its path in sysfs."""
        path = f"/devices/pci{address[:7]}/{address}"
        self._add(path, {"SUBSYSTEM": "pci", "DRIVER": driver}, {"vendor": vendor, "class": class_}, driver)
        return path

    def node(
        self, path: str, subsystem: str, node: str, attributes: Mapping[str, str] | None = None, link: str = ""
    ) -> str:
        """A device with a node below /dev; returns its path in sysfs."""
        lines = [f"P: {path}", f"N: {node}", *([f"S: {link}"] if link else [])]
        lines += [f"E: DEVNAME=/dev/{node}", f"E: SUBSYSTEM={subsystem}"]
        lines += [f"A: {name}={value}\\n" for name, value in (attributes or {}).items()]
        self.description += "\n".join(lines) + "\n\n"
        return path

    def device(self, path: str, subsystem: str) -> str:
        """A device without a node."""
        self._add(path, {"SUBSYSTEM": subsystem}, {}, "")
        return path

    def _add(self, path: str, properties: Mapping[str, str], attributes: Mapping[str, str], driver: str) -> None:
        lines = [f"P: {path}", *(f"E: {name}={value}" for name, value in properties.items())]
        lines += [f"A: {name}={value}\\n" for name, value in attributes.items()]
        lines += [f"L: driver=../../../bus/pci/drivers/{driver}"] if driver else []
        self.description += "\n".join(lines) + "\n\n"


def amd() -> Mocked:
    """Two AMD GPUs; the DRM numbers run the other way than the PCI addresses do."""
    machine = Mocked()
    for address, card in (("0000:41:00.0", 2), ("0000:c1:00.0", 1)):
        gpu = machine.pci(address, "amdgpu", "0x1002", "0x038000")
        render = 127 + card
        machine.node(f"{gpu}/drm/card{card}", "drm", f"dri/card{card}", link=f"dri/by-path/pci-{address}-card")
        machine.node(
            f"{gpu}/drm/renderD{render}", "drm", f"dri/renderD{render}", link=f"dri/by-path/pci-{address}-render"
        )
    machine.node("/devices/virtual/kfd/kfd", "kfd", "kfd")
    # The board's own graphics is no GPU of AMD's.
    bmc = machine.pci("0000:03:00.0", "ast", "0x1a03", "0x030000")
    machine.node(f"{bmc}/drm/card0", "drm", "dri/card0")
    return machine


def intel() -> Mocked:
    """An Intel GPU of each kernel driver."""
    machine = Mocked()
    for number, (address, driver) in enumerate((("0000:03:00.0", "i915"), ("0000:0f:00.0", "xe"))):
        gpu = machine.pci(address, driver, "0x8086", "0x038000")
        machine.node(f"{gpu}/drm/card{number}", "drm", f"dri/card{number}", link=f"dri/by-path/pci-{address}-card")
        machine.node(f"{gpu}/drm/renderD{128 + number}", "drm", f"dri/renderD{128 + number}")
    return machine


def gaudi() -> Mocked:
    """Two Gaudi accelerators."""
    machine = Mocked()
    for number, address in enumerate(("0000:19:00.0", "0000:1a:00.0")):
        card = machine.pci(address, "habanalabs", "0x1da3", "0x120000")
        machine.node(f"{card}/accel/accel{number}", "accel", f"accel/accel{number}")
        machine.node(f"{card}/accel/accel_controlD{number}", "accel", f"accel/accel_controlD{number}")
        machine.node(f"{card}/infiniband_verbs/uverbs{number}", "infiniband_verbs", f"infiniband/uverbs{number}")
    return machine


def infiniband() -> Mocked:
    """A two-port adapter, which is two PCI functions, and a RoCE device without management nodes."""
    machine = Mocked()
    for number, address in enumerate(("0000:17:00.0", "0000:17:00.1")):
        name = f"mlx5_{number}"
        card = machine.pci(address, "mlx5_core", "0x15b3", "0x020700")
        machine.device(f"{card}/infiniband/{name}", "infiniband")
        for subsystem, node in (("verbs", "uverbs"), ("mad", "umad"), ("mad", "issm")):
            path = f"{card}/infiniband_{subsystem}/{node}{number}"
            machine.node(path, f"infiniband_{subsystem}", f"infiniband/{node}{number}", {"ibdev": name})
    rxe = "/devices/virtual/infiniband/rxe0"
    machine.device(rxe, "infiniband")
    machine.node(
        "/devices/virtual/infiniband_verbs/uverbs2", "infiniband_verbs", "infiniband/uverbs2", {"ibdev": "rxe0"}
    )
    machine.node("/devices/virtual/misc/rdma_cm", "misc", "infiniband/rdma_cm")
    return machine


def nvidia() -> Mocked:
    """Two GPUs, the second one split by MIG; the minor numbers run the other way than the PCI addresses do."""
    machine = Mocked()
    machine.proc["nvidia/version"] = (
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build\nGCC version: 12.2.0\n"
    )
    for address, minor in (("0000:07:00.0", 1), ("0000:0f:00.0", 0)):
        machine.pci(address, "nvidia", "0x10de", "0x030200")
        machine.proc[f"nvidia/gpus/{address}/information"] = (
            f"Model: \t\t NVIDIA A100\nGPU UUID: \t GPU-00000000-0000-4000-8000-00000000000{minor}\n"
            f"Bus Location: \t {address}\nDevice Minor: \t {minor}\n"
        )
        machine.node(f"/devices/virtual/nvidia/nvidia{minor}", "nvidia", f"nvidia{minor}")
    for name in ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"):
        machine.node(f"/devices/virtual/nvidia/{name}", "nvidia", name)
    for capability, path in ((30, "gi3/access"), (31, "gi3/ci0/access")):
        machine.proc[f"nvidia/capabilities/gpu1/mig/{path}"] = f"DeviceFileMinor: {capability}\nDeviceFileMode: 292\n"
        machine.node(f"/devices/virtual/nvidia/nvidia-cap{capability}", "nvidia", f"nvidia-caps/nvidia-cap{capability}")
    # A GPU that is passed through to a virtual machine.
    machine.pci("0000:47:00.0", "vfio-pci", "0x10de", "0x030200")
    return machine


def fabrics() -> Mocked:
    """Single nodes of modules for communication."""
    machine = Mocked()
    for node in ("cxi0", "cxi1", "xpmem", "knem", "gdrdrv", "fuse", "kvm"):
        machine.node(f"/devices/virtual/misc/{node}", "misc", node)
    for channel in (0, 1):
        path = f"/devices/virtual/nvidia/channel{channel}"
        machine.node(path, "nvidia", f"nvidia-caps-imex-channels/channel{channel}")
    return machine
