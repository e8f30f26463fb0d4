"""Launches of our own against the bare kernel and the peers. bubblewrap gets the very overlay and binds of our plan."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from benchmarks.timing import Row, cached_row, cdi_hpc_program, keep_bytecode
from cdi_hpc.cli import find_runner
from cdi_hpc.container.compose import Composition, compose
from cdi_hpc.container.stage import Assembly
from cdi_hpc.container.steps import ROOT, BindHost, MakeDirectory, MakeFile, MakeLink, MountNew, MountOverlay, Step
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import embedded
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.plan import Plan, SetEnv
from cdi_hpc.spec import edits, request
from cdi_hpc.spec.registry import load_registry, spec_directories
from cdi_hpc.translation.translate import translate

BASELINE = "unshare -Ur true"


def bwrap_arguments(plan: Plan, assembly: Assembly, stage: Path) -> list[str]:
    """The plan's overlay and binds for bubblewrap; the staged layer is made in ``stage``."""
    steps = compose(assembly, Composition("overlay", mount_points()))
    layers = {step.path: step.source for step in steps if isinstance(step, BindHost) and step.path.startswith("layer/")}
    arguments: list[str] = []
    for step in steps:
        top, _, rest = step.path.partition("/")
        if top == "stage" and isinstance(step, (MakeDirectory, MakeFile, MakeLink)):
            make(step, stage / step.path)
        elif top == ROOT and (rest or isinstance(step, MountOverlay)):
            arguments += bwrap_argument(step, "/" + rest, layers, stage)
    for action in plan.actions:
        if isinstance(action, SetEnv):
            arguments += ["--setenv", action.name, action.value]
    return arguments


def bwrap_argument(step: Step, target: str, layers: dict[str, str], stage: Path) -> list[str]:
    """One step in bubblewrap's words. It knows no flags but ro: what it does is what we are compared by."""
    if isinstance(step, BindHost):
        how = "--dev-bind" if target.startswith("/dev") else "--ro-bind" if "ro" in step.flags else "--bind"
        return [how, step.source, target]
    if isinstance(step, MountOverlay):
        upper, lower = step.layers
        return ["--overlay-src", layers[lower], "--overlay-src", str(stage / upper), "--ro-overlay", target]
    if isinstance(step, MountNew):
        return ["--tmpfs", target]
    if isinstance(step, MakeLink):
        return ["--symlink", step.points_to, target]
    return ["--dir", target] if isinstance(step, MakeDirectory) else []


def make(step: MakeDirectory | MakeFile | MakeLink, path: Path) -> None:
    """A staged entry on disk."""
    if isinstance(step, MakeDirectory):
        path.mkdir()
    elif isinstance(step, MakeFile):
        path.write_bytes(step.content)
    else:
        path.symlink_to(step.points_to)


def podman_row(device: str, spec_files: Sequence[str], image: str, scratch: Path) -> Row:
    """Rootless podman with the same spec; hooks whose program is not here are left out, and said so."""
    if not shutil.which("podman"):
        return Row("podman run", None, "not installed")
    directory = scratch / "cdi"
    directory.mkdir()
    missing: set[str] = set()
    for number, path in enumerate(spec_files):
        spec = yaml.safe_load(Path(path).read_text())
        for part in (spec, *(spec.get("devices") or [])):
            container_edits = part.get("containerEdits") or {}
            hooks = container_edits.get("hooks") or []
            missing |= {hook["path"] for hook in hooks if not os.path.exists(hook["path"])}
            container_edits["hooks"] = [hook for hook in hooks if os.path.exists(hook["path"])]
        (directory / f"{number}.yaml").write_text(yaml.safe_dump(spec))
    (scratch / "podman.conf").write_text(f'[engine]\ncdi_spec_dirs = ["{directory}"]\n')
    # crun refuses a machine with hybrid cgroups, runc a container without any: take the one that is there.
    has_runc = shutil.which("runc") is not None
    places = ["--root", str(scratch / "root"), "--runroot", str(scratch / "run"), "--cgroup-manager=cgroupfs"]
    command = ["podman", *places, *(["--runtime", "runc"] if has_runc else []), "run", "--rm"]
    command += [] if has_runc else ["--cgroups=disabled"]
    command += ["--network=host", "--device", device, "--rootfs", f"{image}:O", "true"]
    remark = f"without the hooks of {', '.join(sorted(missing))}" if missing else ""
    return Row("podman run", command, remark, env={"CONTAINERS_CONF_OVERRIDE": str(scratch / "podman.conf")})


@contextlib.contextmanager
def rows(image: str, device: str, cdi_dirs: Sequence[str]) -> Iterator[list[Row]]:
    """Everything that is timed, ready to run."""
    host = LiveHost()
    registry = load_registry(spec_directories(os.environ, cdi_dirs))
    resolution = request.resolve([device], registry)
    plan = translate(edits.merge(resolution.devices), host)
    assembly = embedded.prepare(plan, image, host, embedded.RunOptions())
    program = [cdi_hpc_program()]
    named = [word for directory in cdi_dirs for word in ("--cdi-dir", directory)]
    launch = ["-q", *named, "--device", device, image, "true"]
    runner = find_runner(os.environ)
    native = [runner, *launch] if runner else None
    by_front = [*program, "run", *launch] if runner else None
    with tempfile.TemporaryDirectory(prefix="cdi-hpc-bench-") as scratch:
        keep_bytecode(scratch)
        stage = Path(scratch)
        bwrap = shutil.which("bwrap")
        peers = bwrap_arguments(plan, assembly, stage)
        overlay = (
            bwrap
            and "--ro-overlay" in subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False).stdout
        )
        no_bwrap = "not installed" if not bwrap else ""
        yield [
            Row(BASELINE, ["unshare", "-Ur", "true"]),
            Row("bwrap, the image alone", [bwrap, "--ro-bind", image, "/", "true"] if bwrap else None, no_bwrap),
            Row(
                "bwrap, same overlay and binds",
                [bwrap, *peers, "true"] if bwrap and overlay else None,
                no_bwrap or ("" if overlay else "has no overlays (0.11 has)"),
            ),
            podman_row(device, [loaded.spec.path for loaded in registry.specs], image, stage),
            Row("python -c pass", [sys.executable, "-c", "pass"]),
            Row("cdi-hpc resolve (translation, cold)", [*program, "resolve", "--format=json", *named, device]),
            Row("cdi-hpc run, by Python", [*program, "run", "--runner=python", *launch]),
            cached_row("cdi-hpc-run, cold", native, cold=True, scratch=scratch),
            cached_row("cdi-hpc run, warm", by_front, cold=False, scratch=scratch),
            cached_row("cdi-hpc-run, warm", native, cold=False, scratch=scratch),
        ]
