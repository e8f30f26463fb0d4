"""Make the host paths that CDI specs name, so that the lab's host looks like the machine they were generated on.

    hostpaths.py DEVICES SPEC...

Run as root with the lab's host as the root directory. What exists stays as it is. A library is a real ELF file with
the SONAME that its vendor gives it; every file has content of its own. Device nodes are only listed, in the file
DEVICES as "PATH MAJOR MINOR": nodes made here might not be usable on the file system that holds the lab.
"""

from __future__ import annotations

import posixpath
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

#: Libraries whose SONAME is their whole file name: parts of a driver that only fit their own version.
EXACT_VERSION = re.compile(r"eglcore|glcore|glsi|glvkspirv|gpucomp|nvidia-tls|pkcs11|present|rtcore|wayland|nvidia-gtk")

#: ABI number at the end of the SONAME, where it is not 1.
ABI = {"libEGL_nvidia": 0, "libGLX_nvidia": 0, "libGLESv2_nvidia": 2, "libnvidia-nvvm": 4}

#: (major, minor) of harmless nodes: zero for the nodes in the pattern, null for the others.
ZERO_NODE = re.compile(r"/nvidia-uvm(-tools)?$")
NULL, ZERO = (1, 3), (1, 5)


def all_edits(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The container edits of a spec and of each of its devices."""
    yield spec.get("containerEdits") or {}
    for device in spec.get("devices") or []:
        yield device.get("containerEdits") or {}


def links(spec: dict[str, Any]) -> dict[str, str]:
    """File name that a link points to -> name of the link, from the hooks' TARGET::LINK arguments."""
    result: dict[str, str] = {}
    for edits in all_edits(spec):
        for hook in edits.get("hooks") or []:
            for argument in hook.get("args") or []:
                target, separator, link = argument.partition("::")
                if separator:
                    result.setdefault(posixpath.basename(target), posixpath.basename(link))
    return result


def soname(path: str, spec: dict[str, Any]) -> str:
    """The SONAME of a library: what a link of the spec says, else what its vendor does."""
    name = posixpath.basename(path)
    if name in links(spec):
        return links(spec)[name]
    if ".so." not in name or EXACT_VERSION.search(name):
        return name
    stem = name.partition(".so")[0]
    return f"{stem}.so.{ABI.get(stem, 1)}"


def make_library(path: str, name: str) -> None:
    source = f'const char *lab_origin(void) {{ return "{path}"; }}\n'
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", path, "-xc", "-"]
    subprocess.run(command, input=source, text=True, check=True)


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def make_program(path: str) -> None:
    Path(path).write_text(f"#!/bin/sh\necho {path} of the lab\n")
    Path(path).chmod(0o755)


def make(path: str, spec: dict[str, Any]) -> None:
    """One path that a mount names; its name tells what it is."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if re.search(r"\.so(\.|$)", path):
        make_library(path, soname(path, spec))
    elif path.endswith(".sock") or "/socket" in path:
        make_socket(path)
    elif "/bin/" in path:
        make_program(path)
    elif path.endswith("-mps") or path.startswith("/dev/"):
        Path(path).mkdir()
    else:
        Path(path).write_text(f"{path} of the lab\n")


def main(devices: str, specs: list[str]) -> None:
    nodes: dict[str, tuple[int, int]] = {}
    for name in specs:
        spec = yaml.safe_load(Path(name).read_text())
        for edits in all_edits(spec):
            for node in edits.get("deviceNodes") or []:
                path = node.get("hostPath") or node["path"]
                nodes[path] = ZERO if ZERO_NODE.search(path) else NULL
            for mount in edits.get("mounts") or []:
                if not Path(mount["hostPath"]).exists():
                    make(mount["hostPath"], spec)
    Path(devices).write_text("".join(f"{p} {major} {minor}\n" for p, (major, minor) in sorted(nodes.items())))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
