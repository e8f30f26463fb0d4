"""Where a cluster comes from, for tests of jobs that need no plugin: daemons of this machine, or containers.

``local`` is scripts/slurm-lab. ``docker`` is the package pytest-slurm (extra ``slurm-docker``), which starts containers
of fixed images; it is used where ``--slurm-cluster=docker`` asks for it. No plugin can be loaded there, so the plugin's
own tests have daemons of this machine in any case (docs/decisions/015-slurm-in-tests.md).
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Protocol

import pytest
from slurm_site import Done, Site

#: What --slurm-cluster may be (tests/conftest.py).
NAMES = ("local", "docker")


class Cluster(Protocol):
    """Two nodes at least, a user with a directory that all of them see, and cdi-hpc on the PATH of his jobs."""

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> Done:
        """Run a command where jobs are submitted, as that user, in that directory."""

    def put(self, name: str, text: str) -> str:
        """Write a file of the user's; the path, on each node."""


def srun(cluster: Cluster, *words: str, env: Mapping[str, str] | None = None) -> Done:
    """A step of two tasks on two nodes, if the words don't say otherwise."""
    return cluster.run("srun", "--quiet", "-N2", "-n2", *words, env=env)


def batch(cluster: Cluster, script: str, *words: str) -> tuple[int, str]:
    """Submit a script and wait for its end: exit status, output."""
    path = cluster.put("script", script)
    done = cluster.run("sbatch", "--wait", "--quiet", "-N2", f"--output={path}.output", *words, path)
    return done.returncode, cluster.run("cat", f"{path}.output").stdout


# Daemons of this machine ----------------------------------------------------------------------------------------------


class LocalCluster(Site):
    """scripts/slurm-lab, with an empty plugstack.conf."""

    def put(self, name: str, text: str) -> str:
        path = self.top / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return str(path)


def begin_local(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Takes the lab's host, as the tests of the plugin do."""
    request.getfixturevalue("lab")
    cluster = LocalCluster(Path(tempfile.mkdtemp(prefix="cdi-slurm-", dir="/tmp")), *request.getfixturevalue("built"))
    cluster.top.chmod(0o755)
    (cluster.top / "home").mkdir()
    (cluster.top / "home").chmod(0o777)
    (cluster.top / "plugstack.conf").touch()
    cluster.start()
    yield cluster
    cluster.stop()
    shutil.rmtree(cluster.top)


# Containers -----------------------------------------------------------------------------------------------------------


class Connection(Protocol):
    """``pytest_slurm.connection.SlurmLocal``: docker exec in the head node, as root if it is not told otherwise."""

    def run(self, command: str, **arguments: Any) -> Any:
        """The words of a command, quoted as for a shell; exit_code, stdout and stderr of it."""


@dataclass(frozen=True)
class DockerCluster:
    """Head node and workers of pytest-slurm, which installs the checkout in the virtual environment that they share."""

    connection: Connection
    user: str
    partition: str

    #: Its ``slurm_python`` is there.
    PATH = "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

    @property
    def home(self) -> str:
        """On a volume of all containers."""
        return f"/home/{self.user}"

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> Done:
        partition = {f"{name}_PARTITION": self.partition for name in ("SLURM", "SBATCH", "SALLOC")}
        environment = {"PATH": self.PATH, "HOME": self.home, "USER": self.user, **partition, **(env or {})}
        result = self.connection.run(shlex.join(argv), user=self.user, workdir=self.home, environment=environment)
        texts = ((stream or b"").decode("utf-8", "surrogateescape") for stream in (result.stdout, result.stderr))
        return subprocess.CompletedProcess(argv, result.exit_code, *texts)

    def put(self, name: str, text: str) -> str:
        path = f"{self.home}/cdi-hpc-tests/{name}"
        # A command with an input would be root's: docker exec is given no user then.
        script = 'mkdir -p "${1%/*}" && printf %s "$2" >"$1" && chmod 755 "$1"'
        self.run("sh", "-c", script, "sh", path, text).check_returncode()
        return path


def begin_docker(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Lets pytest-slurm start its containers, with the checkout in them."""
    # It looks for the fixture among the arguments of tests, where it is not.
    request.config.option.slurm_mount_project = True
    connection = request.getfixturevalue("slurm_project")
    raw = request.getfixturevalue("slurm_raw")
    yield DockerCluster(connection, raw["username"], raw["partition"])


def docker_lacks() -> list[str]:
    """What the containers would need and is not here."""
    lacks = []
    if importlib.util.find_spec("pytest_slurm") is None:
        lacks.append("pytest-slurm is not installed (pip install '.[slurm-docker]', Python 3.11 or later)")
    if shutil.which("docker") is None:
        return [*lacks, "there is no docker command"]
    for words, what in (
        (("version", "--format", "{{.Server.Version}}"), "no Docker engine answers"),
        (("compose", "version"), "docker has no compose"),
    ):
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            lacks.append(f"{what}: {' '.join(done.stderr.split())[:200]}")
    return lacks


# Which one ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Provider:
    """One way to a cluster."""

    begin: Callable[[pytest.FixtureRequest], Iterator[Cluster]]
    lacks: Callable[[], list[str]]


PROVIDERS: Mapping[str, Provider] = {
    "local": Provider(begin_local, list),
    "docker": Provider(begin_docker, docker_lacks),
}


class NotAskedForError(Exception):
    """Another provider was asked for."""


class LacksError(Exception):
    """What was asked for can't be had here."""


def choose(name: str, asked: str) -> Provider:
    """The provider of a name, if it is the one that was asked for and has what it needs.

    Asking for what is not there is an error, not a reason to skip: somebody wanted to know.
    """
    if name != asked:
        raise NotAskedForError(f"--slurm-cluster={asked}")
    lacks = PROVIDERS[name].lacks()
    if lacks:
        raise LacksError(f"--slurm-cluster={name}: {'; '.join(lacks)}")
    return PROVIDERS[name]
