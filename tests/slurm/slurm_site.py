"""A real Slurm cluster for tests: scripts/slurm-lab with the plugin loaded, and commands in it as the job's user."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

#: Whose jobs they are where root runs the cluster; else they are the caller's own.
JOB_USER = "cdilab"

PATH = "/opt/venv/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Done = subprocess.CompletedProcess[str]


@dataclass
class Site:
    """The directory of a cluster, with what an administrator would install, and its plugstack.conf."""

    top: Path
    plugin: Path
    runner: Path
    compiler: str = field(default_factory=lambda: shutil.which("cdi-hpc", path=PATH) or "")

    @property
    def lab(self) -> Path:
        return self.top / "lab"

    @property
    def user(self) -> pwd.struct_passwd:
        return pwd.getpwnam(JOB_USER) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())

    @property
    def caches(self) -> Path:
        """Where the plugin keeps plans."""
        return self.top / "plans"

    @property
    def cache(self) -> Path:
        """The job's user's plans."""
        return self.caches / str(self.user.pw_uid) / "cdi-hpc"

    def configure(self, word: str = "required", **arguments: str) -> None:
        """Write plugstack.conf; commands and slurmstepd read it each time. Underscores in names stand for hyphens."""
        values = {"cdi-hpc": self.compiler, "cdi-hpc-run": str(self.runner), "cache": str(self.caches)}
        values.update({name.replace("_", "-"): value for name, value in arguments.items()})
        words = " ".join(f"{name}={value}" for name, value in values.items() if value)
        (self.top / "plugstack.conf").write_text(f"{word} {self.plugin} {words}\n")

    def control(self, *words: str) -> None:
        """Call scripts/slurm-lab."""
        argv = ["python3", str(PROJECT / "scripts/slurm-lab"), "--dir", str(self.lab), *words]
        subprocess.run(argv, check=True, timeout=120, capture_output=True, text=True)

    def start(self, *words: str, device: str = "/dev/nvidia{}") -> None:
        plugstack = str(self.top / "plugstack.conf")
        self.control("start", "--cpus=64", "--gpus=8", f"--device={device}", f"--plugstack={plugstack}", *words)

    def stop(self) -> None:
        self.control("stop")

    def environment(self) -> dict[str, str]:
        home = str(self.top / "home")
        user = {"USER": self.user.pw_name}  # ch-run wants it
        return {**user, "PATH": PATH, "HOME": home, "LANG": "C.UTF-8", "SLURM_CONF": str(self.lab / "etc/slurm.conf")}

    def as_user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        return ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups", "--"]

    def begin(self, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command as the job's user."""
        return subprocess.Popen(
            [*self.as_user(), *argv],
            env={**self.environment(), **(env or {})},
            cwd=self.top / "home",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )

    def run(self, *argv: str, env: Mapping[str, str] | None = None, timeout: float = 60) -> Done:
        """Run a command as the job's user."""
        process = self.begin(*argv, env=env)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def srun(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        """Srun, silent about waiting for a job before that is not quite gone."""
        return self.run("srun", "--quiet", *words, env=env)

    def batch(self, script: str, *words: str) -> tuple[int, str]:
        """Submit a script and wait for its end: exit status, output."""
        path, output = self.top / "home/script", self.top / "home/output"
        output.unlink(missing_ok=True)
        path.write_text(script)
        done = self.run("sbatch", "--wait", f"--output={output}", *words, str(path))
        assert "Submitted" in done.stdout, done.stderr
        return done.returncode, output.read_text() if output.exists() else ""

    def node_states(self) -> set[str]:
        return set(self.run("sinfo", "--noheader", "--Node", "--format=%T").stdout.split())

    def program(self, text: str) -> str:
        """A program of the site's, in place of one of ours."""
        path = self.top / f"program{len(list(self.top.glob('program*')))}"
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def finder(self, text: str) -> str:
        """A program of the site's that is asked for plans in place of ours. The rest of cdi-hpc-run is ours."""
        return self.program(f'#!/bin/sh\n[ "$1" = --print-plan ] || exec {self.runner} "$@"\n{text}')


#: Keeps the nodes' mounts: it makes them anew for each line that it reads, and removes them at the end of its input.
#: A file of root's takes root, or an image in which files are root's: in a user namespace without a number for root,
#: these are the overflow user's, as root's own are.
KEEPER = """
set -e
top=$1; shift
add() {
    nodes=$top/nodes
    if [ "$(id -u)" != 0 ]; then
        rm -f "$top/nodes.sqfs"
        mksquashfs "$nodes" "$top/nodes.sqfs" -all-root -quiet -no-progress >/dev/null
        nodes=$top/room
        squashfuse -o allow_other "$top/nodes.sqfs" "$nodes"
    fi
    # No mount below /etc, which steps may have to layer.
    mount -t overlay -o "lowerdir=$nodes/etc:/etc" overlay /etc
    mount --bind "$nodes/driver" /proc/driver
}
take_away() {
    umount --lazy /etc /proc/driver
    [ "$(id -u)" = 0 ] || umount --lazy "$top/room"
}
add
"$@" >&2
echo
while read -r _; do take_away; add; echo; done
take_away
"""


@dataclass
class ConfiguredSite(Site):
    """A cluster whose nodes have a site configuration, believed as any administrator's: it is in their /etc/cdi-hpc.

    The nodes' daemons, and so the steps, are in a mount namespace in which it is there. Commands that are not started
    by a step (srun, a test's own) are outside, as on a login node without one.
    """

    keeper: subprocess.Popen[str] | None = None
    written = 0

    @property
    def nodes(self) -> Path:
        return self.top / "nodes"

    def configure_nodes(self, text: str, name: str = "config.yaml", mode: int = 0o644) -> None:
        """Write a file of the site's, such as config.d/10.yaml. It counts from now on."""
        self._write(self.nodes / "etc/cdi-hpc" / name, text)
        (self.nodes / "etc/cdi-hpc" / name).chmod(mode)
        self._renew()

    def give_uuids(self, uuids: Mapping[int, str]) -> None:
        """Let NVIDIA's driver say this of the nodes' GPUs, minor number to UUID."""
        for minor, uuid in uuids.items():
            path = self.nodes / f"driver/nvidia/gpus/0000:{minor:02x}:00.0/information"
            self._write(path, f"Model: \t\t NVIDIA of the lab\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n")
        self._renew()

    def forget(self) -> None:
        """No configuration, and no driver."""
        shutil.rmtree(self.nodes, ignore_errors=True)
        for name in ("etc/cdi-hpc/config.d", "driver"):
            (self.nodes / name).mkdir(parents=True)
        for path in [self.nodes, *self.nodes.rglob("*")]:
            path.chmod(0o755)
        self._renew()

    def control(self, *words: str) -> None:
        if words[0] != "start":
            super().control(*words)
            return
        self.forget()
        (self.top / "room").mkdir(exist_ok=True)
        own = ["unshare", "--mount", "--propagation=private"]
        less: list[str] = []
        if os.geteuid() != 0:
            own += ["--user", "--map-current-user", "--keep-caps"]
            less = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--"]
        lab = ["python3", str(PROJECT / "scripts/slurm-lab"), "--dir", str(self.lab), *words]
        with open(self.top / "keeper", "w", encoding="utf-8") as said:
            argv = [*own, "--", "sh", "-c", KEEPER, "keeper", str(self.top), *less, *lab]
            pipe = subprocess.PIPE
            self.keeper = subprocess.Popen(argv, cwd="/", stdin=pipe, stdout=pipe, stderr=said, text=True)
        self._hear()

    def stop(self) -> None:
        """Take away what the nodes have, then the nodes."""
        if self.keeper is not None:
            self.keeper.communicate(timeout=60)
        super().stop()

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        # An image has whole seconds only, and the next one the same inode numbers.
        self.written += 1
        os.utime(path, (self.written, self.written))

    def _renew(self) -> None:
        if self.keeper is not None:
            assert self.keeper.stdin is not None
            self.keeper.stdin.write("\n")
            self.keeper.stdin.flush()
            self._hear()

    def _hear(self) -> None:
        assert self.keeper is not None
        assert self.keeper.stdout is not None
        assert self.keeper.stdout.readline() == "\n", (self.top / "keeper").read_text()


@dataclass
class PrivateTmpSite(Site):
    """A cluster of one node whose jobs have a /tmp of their own.

    The mounts that it makes are in a namespace of its own. That and the jobs' are made on one processor: Slurm binds a
    job's to a file, which Linux refuses if it takes it for the older one, and 6.18 numbers them for each processor.
    """

    def control(self, *words: str) -> None:
        if words[0] != "start":
            super().control(*words)
            return
        alone = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), "unshare", "--mount"]
        argv = [*alone, "python3", str(PROJECT / "scripts/slurm-lab"), "--dir", str(self.lab), *words]
        subprocess.run(argv, check=True, timeout=120, capture_output=True, text=True)


def build(top: Path) -> tuple[Path, Path]:
    """The plugin for the Slurm that is here, and the native runner."""
    for directory, output in (("slurm/spank", top / "spank"), ("native", top / "native")):
        argv = ["make", "--silent", "-C", str(PROJECT / directory), f"BUILD={output}"]
        subprocess.run(argv, check=True, capture_output=True, text=True)
    return top / "spank/cdi_spank.so", top / "native/cdi-hpc-run"


def errors(done: Done) -> list[str]:
    """What the plugin says, each line once for each time it is said, sorted."""
    return sorted(line.partition("cdi: ")[2] for line in done.stderr.splitlines() if "cdi: n" in line)


def working_below(directory: Path) -> set[str]:
    """Names of the processes whose working directory is below this one."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if os.readlink(process / "cwd").startswith(f"{directory}/"):
                found.add((process / "comm").read_text().strip())
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    """Look again and again; whether it came to hold."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def words_of(pattern: str, text: str) -> list[str]:
    return re.findall(pattern, text)
