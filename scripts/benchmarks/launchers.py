"""Launches through ch-run and Apptainer: bare, with what they have themselves for devices, and with us.

Of one image directory a copy of the caller's own is made, with ``/ch``, without which ch-run's own ``--cdi`` takes no
image; of that a SquashFS file and, by Apptainer, a SIF. Everything is measured on these.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.timing import Row, Target, cached_row, cdi_hpc_program, keep_bytecode
from cdi_hpc.spec.registry import load_registry, spec_directories


@dataclass(frozen=True)
class Images:
    """One image in three forms; None where the program that makes it is not installed."""

    directory: Path
    squashfs: Path | None
    sif: Path | None


def make_images(image: str, scratch: Path) -> Images:
    """Copies of an image directory that belong to the caller."""
    directory = scratch / "image"
    # Device nodes and files that the caller may not read are of no use in his own copy.
    subprocess.run(["cp", "--archive", image, directory], stderr=subprocess.DEVNULL, check=False)
    (directory / "ch").mkdir(exist_ok=True)
    squashfs = sif = None
    if shutil.which("mksquashfs"):
        squashfs = scratch / "image.sqfs"
        subprocess.run(["mksquashfs", directory, squashfs, "-quiet", "-no-progress", "-all-root"], check=True)
    if shutil.which("apptainer"):
        sif = scratch / "image.sif"
        environment = {**os.environ, "APPTAINER_TMPDIR": str(scratch), "APPTAINER_CACHEDIR": str(scratch / "cache")}
        subprocess.run(["apptainer", "--silent", "build", sif, directory], env=environment, check=True)
    return Images(directory, squashfs, sif)


def json_specs(cdi_dirs: Sequence[str], scratch: Path) -> Path:
    """The specs as ch-run's own ``--cdi`` reads them."""
    directory = scratch / "json"
    directory.mkdir()
    for number, loaded in enumerate(load_registry(spec_directories(os.environ, cdi_dirs)).specs):
        spec = yaml.safe_load(Path(loaded.spec.path).read_text())
        (directory / f"{number}.json").write_text(json.dumps(spec))
    return directory


@dataclass(frozen=True)
class Bench:
    """What all rows have in common."""

    device: str
    cdi_dirs: tuple[str, ...]
    shims: Path
    json_specs: Path
    scratch: str

    @property
    def ours(self) -> list[str]:
        directories = ["--cdi-dirs", ":".join(self.cdi_dirs)] if self.cdi_dirs else []
        return [*directories, "--device", self.device]

    def shimmed(self, group: str, launcher: str, before: list[str], after: list[str]) -> list[Row]:
        """Our rows: words before and after the options of a launcher's command line."""
        shim = str(self.shims / launcher)
        asked = [*before, *self.ours, *after]
        by_exec = [cdi_hpc_program(), "exec", launcher, *asked]
        return [
            cached_row("shim, no device", [shim, *before, *after], cold=False, scratch=self.scratch, group=group),
            cached_row("shim, warm", [shim, *asked], cold=False, scratch=self.scratch, group=group),
            cached_row("shim, cold", [shim, *asked], cold=True, scratch=self.scratch, group=group),
            cached_row("cdi-hpc exec, warm", by_exec, cold=False, scratch=self.scratch, group=group),
        ]

    def charliecloud(self, form: str, image: Path) -> list[Row]:
        group = f"ch-run, {form}"
        after = [str(image), "--", "true"]
        kind = self.device.partition("=")[0]
        has_cdi = b"--cdi-dirs" in subprocess.run(["ch-run", "--help"], capture_output=True, check=False).stdout
        native = ["ch-run", f"--cdi-dirs={self.json_specs}", f"--cdi={kind}", *after] if has_cdi else None
        return [
            Row("bare", ["ch-run", *after], group=group),
            Row("its own --cdi", native, "" if has_cdi else "this release has none", group),
            *self.shimmed(group, "ch-run", [], after),
        ]

    def apptainer(self, form: str, image: Path) -> list[Row]:
        group = f"apptainer exec, {form}"
        after = [str(image), "true"]
        return [
            Row("bare", ["apptainer", "exec", *after], group=group),
            Row("--nv", ["apptainer", "exec", "--nv", *after], group=group),
            *self.shimmed(group, "apptainer", ["exec"], after),
        ]


@contextlib.contextmanager
def rows(image: str, device: str, cdi_dirs: Sequence[str]) -> Iterator[list[Row]]:
    """Everything that is timed, ready to run."""
    with tempfile.TemporaryDirectory(prefix="cdi-hpc-bench-") as scratch:
        keep_bytecode(scratch)
        images = make_images(image, Path(scratch))
        shims = Path(scratch) / "shims"
        subprocess.run([cdi_hpc_program(), "shims", shims], stdout=subprocess.DEVNULL, check=True)
        bench = Bench(device, tuple(cdi_dirs), shims, json_specs(cdi_dirs, Path(scratch)), scratch)
        forms = {"directory": images.directory, "SquashFS": images.squashfs, "SIF": images.sif}
        launchers = {"directory": ["ch-run", "apptainer"], "SquashFS": ["ch-run"], "SIF": ["apptainer"]}
        made = {"ch-run": bench.charliecloud, "apptainer": bench.apptainer}
        yield [
            row
            for form, path in forms.items()
            for launcher in launchers[form]
            if path and shutil.which(launcher)
            for row in made[launcher](form, path)
        ]
        # Modes that the image's maker chose may keep even its owner from removing it.
        subprocess.run(["chmod", "-R", "u+rwX", scratch], check=False)


def targets(measured: Sequence[Row]) -> list[Target]:
    """What is promised of the medians, and whether it holds; nothing of what was not measured."""
    median = {(row.group, row.name): row.median for row in measured if row.command}
    found: list[Target] = []

    def promise(group: str, name: str, other: str, factor: float, extra: float, text: str) -> None:
        if {(group, name), (group, other)} <= median.keys():
            ours, limit = median[group, name], median[group, other] * factor + extra
            found.append(Target(f"{group}: {name} {ours:.1f} ms <= {text} = {limit:.1f} ms", ours <= limit))

    for group in dict.fromkeys(row.group for row in measured):
        promise(group, "shim, no device", "bare", 1, 1.5, "bare + 1.5 ms")
        if group.startswith("ch-run"):
            promise(group, "shim, warm", "bare", 1, 5, "bare + 5 ms")
            promise(group, "shim, warm", "its own --cdi", 0.6, 0, "0.6 x its own --cdi")
        elif group.endswith("SIF"):  # of a directory a bare launch takes so little that any layer is much
            promise(group, "shim, warm", "bare", 1.05, 0, "1.05 x bare")
            promise(group, "shim, warm", "--nv", 1, 0, "--nv")
    return found
