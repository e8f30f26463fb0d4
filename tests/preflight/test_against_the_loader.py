"""What pre-flight says of real libraries is what the real loader says of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from views import view

from cdi_hpc.container import preflight
from cdi_hpc.container.stage import assemble
from cdi_hpc.errors import CdiError
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import embedded
from cdi_hpc.launch.image import read_image
from cdi_hpc.plan import Bind
from cdi_hpc.resolve.lookup import resolve_devices
from cdi_hpc.spec.model import Origin
from cdi_hpc.translation.translate import translate

LOADER = "/lib64/ld-linux-x86-64.so.2"
ORIGIN = Origin("/etc/cdi/test.yaml", "", "mounts[0]")

IMAGES = ("debian-root", "debian-user", "bare", "links", "musl", "debian.sqfs", "musl.sqfs", "debian.sif")


class Silent:
    """Nobody is told anything."""

    def warn(self, text):
        """Not told."""

    def note(self, text):
        """Not told."""


def elf_files(tree: Path) -> list[Path]:
    files = [path for top in ("usr/lib/x86_64-linux-gnu", "usr/bin") for path in sorted((tree / top).iterdir())]
    return [f for f in files if f.is_file() and not f.is_symlink() and os.access(f, os.R_OK) and is_elf(f)]


def is_elf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def told(files: list[Path]) -> dict[str, str]:
    """Version that pre-flight says each file lacks on this host, by the file's name."""
    binds = [Bind(str(path), f"/opt/libraries/{path.name}", "file", ORIGIN) for path in files]
    found = {}
    for misfit in preflight.check(assemble(binds, "/"), "x86_64"):
        version = re.search(r" needs? (\S+), ", misfit.what)
        names = (
            misfit.what.rpartition(": ")[2].split(", ") if " files need " in misfit.what else [misfit.what.split()[0]]
        )
        found.update(dict.fromkeys(names, version[1]))
    return found


@pytest.mark.parametrize("tree", ["host", "trixie-host", "sid-host"])
def test_it_agrees_with_the_loader_on_every_file_of_a_debian(lab, tree, monkeypatch):
    monkeypatch.setattr(preflight, "_NAMED", 10_000)
    files = elf_files(lab.root / tree)
    lacking = told(files)
    judged = 0
    for path in files:
        done = lab.run([LOADER, "--list", path])
        missing = {
            match[1]
            for match in re.finditer(r"version `(\S+)' not found \(required by (\S+)\)", done.stdout + done.stderr)
            if match[2] == str(path)
        }
        stopped_before = re.search("cannot open shared object file", done.stderr) is not None
        if not stopped_before:
            judged += 1
            assert (path.name in lacking) == bool(missing), path
            assert lacking.get(path.name, "") in {"", *missing}, path
    assert judged > len(files) // 2


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("case", view.CASES, ids=str)
def test_no_view_is_refused_or_warned_about(lab, image, case):
    found = read_image(str(lab.image(image)))
    host = LiveHost()
    resolved = resolve_devices((case.device,), (str(case.directory),), {}, Silent(), strict=False)
    plan = translate(resolved.edits, host)
    try:
        assembly = embedded.prepare(plan, found.place, host, embedded.RunOptions(), files=found.files)
    except CdiError as error:
        pytest.fail(str(error))
    assert preflight.check(assembly) == []
