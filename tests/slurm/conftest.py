"""A cluster for each file of tests, on the machine where the tests run, as root and as an ordinary user.

Slurm is whatever release is there: the suite is run in each of the lab's trees that has one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_providers import Cluster, LacksError, NotAskedForError, choose
from slurm_site import ConfiguredSite, PrivateTmpSite, Site, build, wait_until, working_below

#: Who runs the daemons. As root, jobs are those of another user; else all is one user's.
DAEMONS = ["own", pytest.param("root", marks=pytest.mark.root)]


DAEMON_NAMES = {"munged", "slurmctld", "slurmscriptd", "slurmd"}


@pytest.fixture(scope="session")
def built() -> Iterator[tuple[Path, Path]]:
    """Plugin and runner, in a directory that every user can enter and with a short name: pytest's has neither."""
    top = Path(tempfile.mkdtemp(prefix="cdi-spank-", dir="/tmp"))
    top.chmod(0o755)
    yield build(top)
    shutil.rmtree(top)


def begun(kind: type[Site], built: tuple[Path, Path], *words: str, below: str = "/tmp") -> Iterator[Site]:
    """Two nodes with eight GPUs each, until the end."""
    site = kind(Path(tempfile.mkdtemp(prefix="cdi-slurm-", dir=below)), *built)
    site.top.chmod(0o755)
    home = site.top / "home"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    site.configure()
    site.start(*words)
    yield site
    site.stop()
    shutil.rmtree(site.top)


def ours(cluster: Site) -> set[Path]:
    """What there is of ours where programs leave things behind, less the plans that a user's own launches keep."""
    found = {path for top in ("/tmp", "/var/tmp", "/run", "/dev/shm") for path in Path(top).glob("*cdi*")}
    return found - {Path(f"/tmp/cdi-hpc-{cluster.user.pw_uid}")}


def watched(cluster: Site) -> Iterator[Site]:
    """The cluster with the plugin as it is installed. Afterwards every node is in service, and nothing is left."""
    mounts, entries = Path("/proc/self/mountinfo").read_text(), ours(cluster)
    cluster.configure()
    yield cluster
    assert ours(cluster) == entries
    assert not {state for state in cluster.node_states() if "drain" in state or "down" in state}
    assert Path("/proc/self/mountinfo").read_text() == mounts
    # Namespaces live in processes alone, if nothing is mounted.
    assert wait_until(lambda: working_below(cluster.top) <= DAEMON_NAMES), working_below(cluster.top)


@pytest.fixture(scope="module", params=DAEMONS)
def cluster(request, built, lab) -> Iterator[Site]:
    """A cluster as root's, and one that is all an ordinary user's."""
    yield from begun(Site, built)


@pytest.fixture
def site(cluster) -> Iterator[Site]:
    """A cluster whose nodes have no site configuration."""
    yield from watched(cluster)


@pytest.fixture(scope="module", params=DAEMONS)
def hidden_cluster(request, built, lab) -> Iterator[Site]:
    """A cluster with its files where no container has them. The shell that salloc starts on a node runs ``shell``."""
    below = "/run/user" if os.geteuid() == 0 else f"/run/user/{os.geteuid()}"
    shell = '--conf=InteractiveStepOptions="--interactive --preserve-env /bin/sh shell"'
    yield from begun(Site, built, "--conf=LaunchParameters=use_interactive_step", shell, below=below)


@pytest.fixture(scope="module", params=[False, True], ids=["outside", "contained"])
def private_cluster(request, built, lab) -> Iterator[Site]:
    """A node whose jobs have a /tmp of their own; with contain_spank, the plugin is called in it."""
    contained = ["--conf=SlurmdParameters=config_overrides,contain_spank"] if request.param else []
    with tempfile.TemporaryDirectory(prefix="cdi-spank-", dir="/run/user") as top:
        Path(top).chmod(0o755)
        plugin, runner = (Path(shutil.copy(path, top)) for path in built)
        yield from begun(PrivateTmpSite, (plugin, runner), "--nodes=1", "--private-tmp", *contained, below="/run/user")


@pytest.fixture
def hidden_site(hidden_cluster) -> Iterator[Site]:
    """As ``site``, with slurmd's files in no image."""
    yield from watched(hidden_cluster)


@pytest.fixture(scope="module", params=DAEMONS)
def configured_cluster(request, built, lab) -> Iterator[Site]:
    """As ``cluster``, with a place for a site configuration on the nodes."""
    yield from begun(ConfiguredSite, built)


@pytest.fixture
def configured_site(configured_cluster) -> Iterator[Site]:
    """A cluster whose nodes believe what a test gives to ``configure_nodes``; nothing, to begin with."""
    configured_cluster.forget()
    yield from watched(configured_cluster)


@pytest.fixture(
    scope="module",
    params=[
        "local",
        pytest.param("local", marks=pytest.mark.root, id="local-root"),
        pytest.param(
            "docker",
            marks=pytest.mark.impossible_in_ci("the lab's host has no Docker engine, and the images are a registry's"),
        ),
    ],
)
def any_cluster(request) -> Iterator[Cluster]:
    """A cluster without the plugin, from the provider that --slurm-cluster names."""
    try:
        provider = choose(request.param, request.config.getoption("--slurm-cluster"))
    except NotAskedForError as error:
        pytest.skip(f"not asked for: {error}")
    except LacksError as error:
        pytest.fail(f"{error}", pytrace=False)
    yield from provider.begin(request)
