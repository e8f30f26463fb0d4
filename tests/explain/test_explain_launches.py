"""What ``explain`` says is held against what a launch really shows, on every launcher that is installed here."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

#: The edit, what the spec has, a command that shows whether it was done, and what that prints then.
EDITS = {
    "env LAB_PLAIN=$HOME:'x'": ({"env": ["LAB_PLAIN=$HOME:'x'"]}, 'printf %s "$LAB_PLAIN"', "$HOME:'x'"),
    "env CH_RUNNING=lab": ({"env": ["CH_RUNNING=lab"]}, 'printf %s "$CH_RUNNING"', "lab"),
    "env HOME=/lab": ({"env": ["HOME=/lab"]}, 'printf %s "$HOME"', "/lab"),
    "env UID=lab": ({"env": ["UID=lab"]}, "env | grep ^UID=", "UID=lab"),
    "deviceNodes /dev/nvidia0": ({"deviceNodes": [{"path": "/dev/nvidia0"}]}, "test -c /dev/nvidia0 && echo it", "it"),
    "deviceNodes /dev/null -> /dev/lab/null": (
        {"deviceNodes": [{"path": "/dev/lab/null", "hostPath": "/dev/null"}]},
        "stat -c %t:%T /dev/lab/null",
        "1:3",
    ),
    "mounts /usr/bin/nvidia-smi -> /opt/lab/smi": (
        {"mounts": [{"hostPath": "/usr/bin/nvidia-smi", "containerPath": "/opt/lab/smi"}]},
        "test -s /opt/lab/smi && echo it",
        "it",
    ),
    "mounts /usr/bin/nvidia-smi -> /etc/passwd": (
        {"mounts": [{"hostPath": "/usr/bin/nvidia-smi", "containerPath": "/etc/passwd"}]},
        "grep -q ^root /etc/passwd || echo it",
        "it",
    ),
    "mounts tmpfs -> /opt/scratch (size=1m)": (
        {"mounts": [{"hostPath": "tmpfs", "containerPath": "/opt/scratch", "type": "tmpfs", "options": ["size=1m"]}]},
        "stat -f -c %T /opt/scratch",
        "tmpfs",
    ),
    "hooks createContainer: nvidia-cdi-hook create-symlinks --link smi::/opt/lab/link": (
        {
            "hooks": [
                {
                    "hookName": "createContainer",
                    "path": "/usr/bin/nvidia-cdi-hook",
                    "args": ["nvidia-cdi-hook", "create-symlinks", "--link", "smi::/opt/lab/link"],
                }
            ]
        },
        "readlink /opt/lab/link",
        "smi",
    ),
    "hooks createContainer: touch /opt/lab/touched": (
        {"hooks": [{"hookName": "createContainer", "path": "/usr/bin/touch", "args": ["touch", "/opt/lab/touched"]}]},
        "test -e /opt/lab/touched && echo it",
        "it",
    ),
    "additionalGids 4711": ({"additionalGids": [4711]}, "id -G | tr ' ' '\\n' | grep 4711", "4711"),
}


def run(spec: Path, image: Path, command: str) -> Sequence[str | Path]:
    return ["cdi-hpc", "run", "-d", str(spec), image, "--", "sh", "-c", command]


def bash(spec: Path, image: Path, command: str) -> Sequence[str | Path]:
    words = shlex.join([str(image), "sh", "-c", command])
    return ["sh", "-c", f"cdi-hpc script -q {spec} >script.bash || exit 125; bash script.bash {words}"]


def ch_run(spec: Path, image: Path, command: str) -> Sequence[str | Path]:
    return ["cdi-hpc", "exec", "ch-run", f"--device={spec}", image, "--", "sh", "-c", command]


def apptainer(spec: Path, image: Path, command: str) -> Sequence[str | Path]:
    return ["cdi-hpc", "exec", "apptainer", "exec", f"--device={spec}", image, "sh", "-c", command]


WAYS: dict[str, Callable[[Path, Path, str], Sequence[str | Path]]] = {
    "embedded": run,
    "bash": bash,
    "ch-run": ch_run,
    "apptainer": apptainer,
}

#: The program that each needs on the machine: the script says what it lacks, which is the machine's matter.
PROGRAMS = {"embedded": "cdi-hpc", "bash": "pivot_root", "ch-run": "ch-run", "apptainer": "apptainer"}
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
LAUNCHERS = [name for name, program in PROGRAMS.items() if shutil.which(program, path=PATH)]


def write_spec(directory: Path, edits: dict) -> Path:
    spec = {
        "cdiVersion": "1.1.0",
        "kind": "lab.example/truth",
        "devices": [{"name": "one", "containerEdits": edits}],
    }
    path = directory / "truth.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_an_edit_is_seen_if_and_only_if_it_is_said_to_be_done(launcher: str, edit: str, tmp_path: Path, lab):
    edits, question, answer = EDITS[edit]
    spec, image = write_spec(tmp_path, edits), lab.image("debian-user")
    told = lab.run(["cdi-hpc", "explain", spec, "--for", launcher, "--image", image, "--format", "json"])
    document = json.loads(told.stdout)
    (row,) = document["edits"]
    assert row["edit"] == edit
    verdict = row["launchers"][launcher]["verdict"]
    launched = lab.run(WAYS[launcher](spec, image, question), cwd=tmp_path)
    said = f"{verdict} ({row['launchers'][launcher]['how']}); {launched}"
    assert (launched.stdout.strip() == answer) == (verdict in ("done", "emulated")), said
    assert (launched.returncode == 125) == bool(document["launchers"][0]["stops"]), said
    assert (told.returncode == 1) == bool(document["launchers"][0]["stops"])
