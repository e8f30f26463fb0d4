"""The search path of musl's dynamic loader, which has no cache and no ldconfig.

``/etc/ld-musl-ARCH.path`` lists directories, separated by newlines or colons, in the place of the loader's default
of ``/lib:/usr/local/lib:/usr/lib`` (ldso/dynlink.c).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from cdi_hpc.ldcache.tree import Tree

DEFAULT = ("/lib", "/usr/local/lib", "/usr/lib")
_LOADER = re.compile(r"ld-musl-([A-Za-z0-9_.-]+)\.so\.1")
_MAX_SIZE = 1 << 20


class SearchPath(NamedTuple):
    """The file to write: its canonical path, and what it holds."""

    path: str
    content: bytes


def architecture(tree: Tree, machine: str) -> str | None:
    """The ARCH of the container's musl, None if it has none: told by the loader, or by Alpine's release file."""
    where = tree.resolve("/lib")
    names = [] if where is None else sorted(entry.name for entry in tree.listdir(where))
    found = [match[1] for match in map(_LOADER.fullmatch, names) if match]
    if found:
        return machine if machine in found else found[0]
    status = tree.status("/etc/alpine-release")
    return machine if status is not None and status.kind != "directory" else None


def search_path(tree: Tree, machine: str, folders: Iterable[str], system: Iterable[str]) -> SearchPath | None:
    """The container's search path with ``folders`` and then ``system`` behind what is there; None without musl.

    Where the file does not exist, writing it would take the default away, so the default is in it. NVIDIA's hook
    writes it too, but forgets /usr/local/lib.
    """
    arch = architecture(tree, machine)
    if arch is None:
        return None
    path = f"/etc/ld-musl-{arch}.path"
    before = tree.read(path, _MAX_SIZE)
    present = re.split("[\n:]", os.fsdecode(before)) if before is not None else []
    wanted = [*folders, *(DEFAULT if before is None else ()), *system]
    missing = [folder for folder in dict.fromkeys(wanted) if folder not in present]
    text = before or b""
    if text and not text.endswith(b"\n"):
        text += b"\n"
    content = text + b"".join(os.fsencode(folder) + b"\n" for folder in missing)
    return SearchPath(tree.make_file(path, content), content)
