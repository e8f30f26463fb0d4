"""The real ldconfig, run on a directory as its root, and what it leaves there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

LAB = Path(os.environ.get("CDI_HPC_LAB", Path.home() / ".cache" / "cdi-hpc-lab"))


def _programs() -> list[str]:
    """The host's ldconfig and those of the lab's images; it is a static program and runs anywhere."""
    host = [path for path in ("/sbin/ldconfig", "/usr/sbin/ldconfig") if Path(path).exists()][:1]
    return host + [str(path) for path in sorted(LAB.glob("*/usr/sbin/ldconfig")) if os.access(path, os.X_OK)]


PROGRAMS = _programs()


def _images() -> list[str]:
    """The host itself, and the lab's images that have a cache."""
    return ["/", *(str(path.parents[1]) for path in sorted(LAB.glob("*/etc/ld.so.cache")))]


IMAGES = _images()


def version(program: str) -> tuple[int, int]:
    text = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"(\d+)\.(\d+)$", text.splitlines()[0])
    assert match, text
    return int(match[1]), int(match[2])


class Done(NamedTuple):
    cache: bytes
    warnings: str


def run(program: str, root: Path) -> Done:
    """Update links and cache of a root. chroot(2) needs a user namespace if not root."""
    argv = [program, "-r", str(root), "-f", "/etc/ld.so.conf", "-C", "/etc/ld.so.cache"]
    if os.geteuid():
        argv = ["unshare", "--user", "--map-root-user", *argv]
    (root / "etc").mkdir(exist_ok=True)
    done = subprocess.run(argv, check=True, capture_output=True)
    return Done((root / "etc/ld.so.cache").read_bytes(), os.fsdecode(done.stderr))


def printed(program: str, root: Path) -> list[str]:
    """The lines of libraries of ``ldconfig -p``."""
    argv = [program, "-p", "-C", str(root / "etc/ld.so.cache")]
    done = subprocess.run(argv, check=True, capture_output=True)
    return [line for line in os.fsdecode(done.stdout).split("\n") if line.startswith("\t")]


def links(root: Path) -> dict[str, str]:
    """All symbolic links below a root: path inside it, and what they hold."""
    found = {}
    for above, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(above, name)
            if os.path.islink(path):
                found[path[len(str(root)) :]] = os.readlink(path)
    return found
