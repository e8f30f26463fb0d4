"""What a recipe can ask of the machine: udev's devices, files, libraries, programs. Everything here only looks."""

from __future__ import annotations

import fnmatch
import glob
import os
import platform
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cdi_hpc import ldcache
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.ldcache import elf
from cdi_hpc.ldcache.format import AARCH64, ABI_MASK, POWERPC64, X86_64

#: Where programs of a driver are, in this order; the caller's PATH is no business of a spec for everybody.
PROGRAM_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

#: ABI of the machine's own libraries in the ld.so.cache.
_ABI = {"x86_64": X86_64, "aarch64": AARCH64, "ppc64le": POWERPC64}

#: proc(5) and sysfs files are small; what is not is none of them.
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Found:
    """A device that udev knows.

    Attributes:
        syspath: its directory in sysfs.
        name: its kernel name, for example ``renderD128``; of a PCI device its address.
        node: its device node, or "".
        pci: address of the PCI device that it is or belongs to, or "".

    """

    syspath: str
    name: str
    subsystem: str
    node: str
    pci: str


class Machine:
    """The machine, as far as recipes look at it."""

    def __init__(self) -> None:
        """Look at nothing yet."""
        self._context: Any = None

    def devices(self, subsystem: str) -> list[Found]:
        """Devices of a udev subsystem by name, 2 before 10.

        Raises:
            CdiError: pyudev is not installed.

        """
        if self._context is None:
            self._context = udev_context()
        found = [
            Found(device.sys_path, device.sys_name, subsystem, device.device_node or "", _pci_address(device))
            for device in self._context.list_devices(subsystem=subsystem)
        ]
        return sorted(found, key=lambda device: natural(device.name))

    def attribute(self, device: Found, name: str) -> str:
        """A sysfs attribute of a device without surrounding space, "" if it has none; ``driver`` is a link's name."""
        if name == "driver":
            try:
                return os.path.basename(os.readlink(f"{device.syspath}/driver"))
            except OSError:
                return ""
        return self.read(f"{device.syspath}/{name}").strip()

    @staticmethod
    def read(path: str) -> str:
        """The beginning of a file as text; "" if it can't be read."""
        try:
            with open(path, "rb") as stream:
                return stream.read(_MOST_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    @staticmethod
    def paths(pattern: str) -> list[str]:
        """Paths that match a glob, 2 before 10."""
        return sorted(glob.glob(pattern), key=natural)

    @staticmethod
    def is_node(path: str) -> bool:
        """Whether a path leads to a device node."""
        try:
            mode = os.stat(path).st_mode
        except OSError:
            return False
        return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)

    @staticmethod
    def program(name: str) -> str:
        """Path of a program in the system's directories, or ""."""
        candidates = (f"{directory}/{name}" for directory in PROGRAM_DIRECTORIES)
        return next((path for path in candidates if os.access(path, os.X_OK) and os.path.isfile(path)), "")

    def libraries(self, pattern: str) -> list[str]:
        """Regular files below the loader's directories whose path there matches a glob; each file once."""
        found: dict[str, None] = {}
        for directory in self._library_directories:
            for path in self.paths(os.path.join(glob.escape(directory), pattern)):
                if os.path.isfile(path):
                    found.setdefault(os.path.realpath(path))
        return [*found]

    def library_links(self, pattern: str) -> list[tuple[str, str]]:
        """Symbolic links below the loader's directories whose path there matches a glob: path and text of each."""
        return [
            (path, os.readlink(path))
            for directory in self._library_directories
            for path in self.paths(os.path.join(glob.escape(directory), pattern))
            if os.path.islink(path)
        ]

    @staticmethod
    def links_to(path: str) -> list[tuple[str, str]]:
        """Symbolic links beside a file that lead to it, directly or by each other: path and text, by path."""
        directory = os.path.dirname(path)
        with os.scandir(directory) as entries:
            links = sorted(entry.path for entry in entries if entry.is_symlink())
        return [(link, os.readlink(link)) for link in links if os.path.realpath(link) == path]

    @staticmethod
    def soname(path: str) -> str:
        """SONAME of a library of this machine, "" if it has none."""
        try:
            with open(path, "rb") as stream:
                library = elf.read(stream, platform.machine(), isa_level=False)
        except (OSError, KeyError):
            return ""
        return (library.soname or "") if library else ""

    @cached_property
    def _library_directories(self) -> list[str]:
        """Directories that the ld.so.cache names for the machine's own ABI, links resolved, in its order."""
        try:
            with open("/etc/ld.so.cache", "rb") as stream:
                entries = ldcache.entries(stream.read())
        except (OSError, ldcache.CorruptCacheError):
            return []
        abi = _ABI.get(platform.machine())
        paths = (entry.path for entry in entries if abi is None or entry.flags & ABI_MASK == abi)
        return [*dict.fromkeys(os.path.realpath(os.path.dirname(path)) for path in paths)]


def udev_context() -> Any:
    """A connection to udev (CdiError: pyudev is not installed)."""
    try:
        import pyudev
    except ImportError as error:
        what = f"needs pyudev: {error}"
        raise CdiError(Problem("generate", what, "pip install pyudev, or Debian's python3-pyudev")) from None
    return pyudev.Context()


def _pci_address(device: Any) -> str:
    if device.subsystem == "pci":
        return str(device.sys_name)
    parent = device.find_parent("pci")
    return str(parent.sys_name) if parent is not None else ""


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts numbers in a text by value."""
    parts: Iterator[str] = iter(re.findall(r"[0-9]+|[^0-9]+", text))
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def matches(value: str, pattern: str) -> bool:
    """Whether all of a value matches a glob; case matters."""
    return fnmatch.fnmatchcase(value, pattern)
