"""``srun``: on a cluster without the plugin, on one with it, and with devices in each of its ways.

Two clusters for each size (scripts/slurm-lab), which differ in plugstack.conf only. A step's time is nearly all Slurm's
own, so what counts is the ratio.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.timing import Row, Target, cdi_hpc_program, keep_bytecode

PROJECT = Path(__file__).resolve().parents[2]

#: What is asked of srun -> the cluster's nodes.
SIZES = {
    "-n1": 2,
    "-N1 -n4": 2,
    "-N2 -n8": 2,
    "-N1 -n64": 2,
    "-N32 -n32": 32,
}

#: Way -> the words that it adds.
WAYS = {
    "plugin, no --cdi": [],
    "handoff": ["--cdi={device}"],
    "mounts": ["--cdi={device}", "--cdi-mode=mounts"],
    "image, directory": ["--cdi={device}", "--cdi-image={image}"],
}

#: How much longer than a plain srun a warm step may take.
MOST = 1.05

#: As many as a node of the cluster has; more than there are device nodes would be refused.
GPUS = 8


def build(top: Path) -> tuple[Path, Path]:
    """The plugin for the Slurm that is here, and the native runner."""
    for directory, output in (("slurm/spank", top / "spank"), ("native", top / "native")):
        subprocess.run(["make", "--silent", "-C", PROJECT / directory, f"BUILD={output}"], check=True)
    return top / "spank/cdi_spank.so", top / "native/cdi-hpc-run"


@contextlib.contextmanager
def cluster(top: Path, nodes: int, plugstack: str) -> Iterator[str]:
    """A running cluster; its SLURM_CONF."""
    top.mkdir()
    stack = top / "plugstack.conf"
    stack.write_text(plugstack)
    lab = [sys.executable, str(PROJECT / "scripts/slurm-lab"), "--dir", str(top / "lab")]
    words = [f"--nodes={nodes}", "--cpus=64", f"--gpus={GPUS}", "--device=/dev/nvidia{}", f"--plugstack={stack}"]
    subprocess.run([*lab, "start", *words], check=True, capture_output=True)
    try:
        yield str(top / "lab/etc/slurm.conf")
    finally:
        subprocess.run([*lab, "stop"], check=False, capture_output=True)


def group_rows(size: str, plain: str, conf: str, image: str, device: str) -> Iterator[Row]:
    """Rows of one size, the plain one first."""
    srun = ["srun", "--quiet", *size.split(), "--gres=gpu:2"]
    yield Row("srun", [*srun, "true"], group=f"srun {size}", env={"SLURM_CONF": plain})
    for way, words in WAYS.items():
        asked = [word.format(device=device, image=image) for word in words]
        yield Row(way, [*srun, *asked, "true"], group=f"srun {size}", env={"SLURM_CONF": conf})


@contextlib.contextmanager
def rows(image: str, device: str, cdi_dirs: Sequence[str]) -> Iterator[list[Row]]:
    """Everything that is timed, ready to run."""
    if shutil.which("srun") is None:
        yield [Row("srun", None, "not installed", "srun")]
        return
    with contextlib.ExitStack() as stack:
        # A short name: sockets lie below it.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cdi-bench-", dir="/tmp")))
        scratch.chmod(0o755)
        keep_bytecode(str(scratch))
        plugin, runner = build(scratch)
        words = [f"cdi-hpc={shutil.which(cdi_hpc_program())}", f"cdi-hpc-run={runner}", f"cache={scratch}/plans"]
        words += [f"cdi-dir={os.path.abspath(directory)}" for directory in cdi_dirs]
        loaded = f"required {plugin} {' '.join(words)}\n"
        found: list[Row] = []
        for nodes in dict.fromkeys(SIZES.values()):
            plain = stack.enter_context(cluster(scratch / f"plain{nodes}", nodes, ""))
            conf = stack.enter_context(cluster(scratch / f"cdi{nodes}", nodes, loaded))
            for size in (size for size, wanted in SIZES.items() if wanted == nodes):
                found += group_rows(size, plain, conf, image, device)
        yield found


def targets(measured: Sequence[Row]) -> list[Target]:
    """Without --cdi the plugin costs nothing that could be told from noise, with it 5 % where the nodes are real."""
    median = {(row.group, row.name): row.median for row in measured if row.command}
    found = []
    for (group, name), taken in median.items():
        base = median.get((group, "srun"))
        # 32 nodes on one machine share its processors: what each adds, one alone would not.
        if base is None or name == "srun" or "-N32" in group:
            continue
        ratio = taken / base
        found.append(Target(f"{group}: {name} {ratio:.2f} x srun <= {MOST}", ratio <= MOST))
    return found
