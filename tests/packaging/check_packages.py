"""Built packages are installed, used and removed: scripts/release runs this on what it has made.

    tests/lab/enter --root -- env CDI_HPC_PACKAGES=DIRECTORY python -m pytest tests/packaging/check_packages.py

Not collected with the other tests: see README.md.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from machine import Machine

import cdi_hpc

pytestmark = pytest.mark.root

PACKAGES = Path(os.environ.get("CDI_HPC_PACKAGES", "dist")).resolve()
GPU = ("--device", "nvidia.com/gpu=0")
SMI = "nvidia-smi 570.133.20 of the lab\n"

#: Debian packages that the lab has for each suite, and the tree they are installed to.
TREES = {"bookworm": "bookworm-fresh", "trixie": "trixie-host", "sid": "sid-host"}

#: Besides what a package asks for: launchers, and Slurm as scripts/slurm-lab wants it.
COMPANY = "charliecloud, squashfuse, slurmctld, slurmd, slurm-client, munge"

#: What package managers and the linker write down for themselves.
BOOKS = re.compile(
    r"/(var/lib/(dpkg|apt|rpm|systemd)|var/log|var/cache/(apt|debconf|ldconfig)|etc/ld\.so\.cache|run|tmp|root)(/|$)"
)

APT = (
    *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--yes", "--no-install-recommends"),
    *("--option", "Dir::Cache::archives=/var/cache/lab-debs", "--option", "Dpkg::Options::=--force-unsafe-io"),
)


def deb(suite: str, name: str) -> Path:
    (path,) = (PACKAGES / suite).glob(f"{name}_*.deb")
    return path


def field(package: Path, name: str) -> str:
    done = subprocess.run(["dpkg-deb", "--field", package, name], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def others_than_books(files: dict[str, str]) -> dict[str, str]:
    return {path: what for path, what in files.items() if not BOOKS.match(path)}


@pytest.fixture
def machine(lab, tmp_path, request) -> Machine:
    return Machine(lab.root, request.param, tmp_path / "layer")


@pytest.fixture
def newcomer(lab, tmp_path) -> Machine:
    return Machine(lab.root, "bookworm-fresh", tmp_path / "layer")


def use_as_ordinary_user(machine: Machine) -> None:
    """What docs/install.md promises right after the installation."""
    run = machine.run
    command = "/usr/bin/cdi-hpc"
    assert run(command, "--version") == f"cdi-hpc, version {cdi_hpc.__version__}\n"
    assert "nvidia.com/gpu=all" in run(command, "list")
    for image in ("debian-root", "debian.sqfs"):
        assert run(command, "run", *GPU, f"/lab/images/{image}", "nvidia-smi") == SMI
    shims = "/usr/lib/cdi-hpc/shims"
    launch = f"PATH={shims}:$PATH ch-run {' '.join(GPU)} /lab/images/debian-user -- nvidia-smi"
    assert run("sh", "-c", launch) == SMI
    assert "ch-run" in run("sh", "-c", f"cat {shims}/modulefiles/cdi-hpc; ls {shims}")
    assert "/etc/cdi-hpc/config.yaml" in run(command, "doctor", fails=False)
    # Modules of the user's own, made for another Python, are not in the way.
    spoilt = 'mkdir "$HOME/lib" && echo "raise SystemExit(77)" >"$HOME/lib/yaml.py" && PYTHONPATH=$HOME/lib'
    assert "nvidia.com/gpu=0" in run("sh", "-c", f"{spoilt} {command} list")


def use_by_slurm(machine: Machine) -> None:
    """A step has the device by the installed plugin, and one directory in plugstack.conf is all that it takes."""
    stack = "/etc/slurm/plugstack.conf"
    include = "include /usr/share/cdi-hpc-slurm/plugstack.conf.d/*.conf"
    machine.run("sh", "-c", f"echo '{include}' >{stack}", root=True)
    step = ("srun", "--gres=gpu:1", "--cdi=nvidia.com/gpu", "printenv", "CDI_HPC_DEVICES")
    assert on_a_cluster(machine, *step).endswith("nvidia.com/gpu=0\n")


def on_a_cluster(machine: Machine, *argv: str) -> str:
    cluster = ("--nodes", "1", "--gpus", "2", "--device", "/dev/nvidia{}", "--plugstack", "/etc/slurm/plugstack.conf")
    lab = ("/src/scripts/slurm-lab", "--dir", "/tmp/cluster", "run", *cluster, "--user", "cdilab")
    return machine.run(*lab, *argv, root=True)


@pytest.mark.parametrize(("suite", "machine"), TREES.items(), ids=TREES, indirect=["machine"])
def test_debian_packages_are_installed_used_and_purged_without_a_trace(suite, machine):
    package, plugin = deb(suite, "cdi-hpc"), deb(suite, "cdi-hpc-slurm")
    others = f"{field(package, 'Depends')}, {COMPANY}"
    machine.run(*APT, "satisfy", others, root=True)
    machine.run("sh", "-c", ": >/etc/slurm/plugstack.conf", root=True)
    before = others_than_books(machine.files())
    machine.run("dpkg", "--install", package, plugin, root=True)
    use_as_ordinary_user(machine)
    use_by_slurm(machine)
    machine.run("/usr/bin/cdi-hpc", "compile", "--system", "nvidia.com/gpu=0", "--image", "/lab/images/bare", root=True)
    machine.run("dpkg", "--remove", "cdi-hpc-slurm", root=True)
    # A line for plugstack.conf that outlived its plugin would stop every job.
    assert on_a_cluster(machine, "srun", "echo", "still running").endswith("still running\n")
    machine.run("sh", "-c", ": >/etc/slurm/plugstack.conf", root=True)
    machine.run("dpkg", "--purge", "cdi-hpc-slurm", "cdi-hpc", root=True)
    assert others_than_books(machine.files()) == before


@pytest.mark.parametrize("suite", TREES)
def test_the_plugin_is_installed_with_the_release_of_slurm_only_that_it_was_built_for(suite):
    wanted = field(deb(suite, "cdi-hpc-slurm"), "Depends")
    low, high = re.findall(r"slurm-wlm-basic-plugins \((?:>=|<<) ([0-9.]+)~\)", wanted)
    assert [int(part) for part in high.split(".")] == [int(low.split(".")[0]), int(low.split(".")[1]) + 1]


@pytest.mark.parametrize("machine", ["trixie-host", "sid-host"], indirect=True)
def test_the_package_of_an_older_debian_works_on_a_newer_one(machine):
    machine.run("dpkg", "--install", deb("bookworm", "cdi-hpc"), root=True)
    use_as_ordinary_user(machine)
    # The lab's trees leave out pages of every package.
    left_out = re.compile(r"missing +/usr/share/(doc|man)/")
    changed = machine.run("dpkg", "--verify", "cdi-hpc", root=True).splitlines()
    assert [line for line in changed if not left_out.match(line)] == []


@pytest.mark.parametrize("machine", ["sid-builder"], indirect=True)
def test_lintian_systemd_and_udev_have_nothing_to_say(machine):
    files = [*(PACKAGES / "sid").glob("*.deb"), *(PACKAGES / "sid").glob("*.dsc")]
    assert len(files) == 3
    assert machine.run("lintian", "--fail-on", "error,warning", "--display-level", ">=warning", *files) == ""
    machine.run("dpkg", "--force-depends", "--install", deb("sid", "cdi-hpc"), root=True)
    units = machine.run("sh", "-c", "echo /usr/lib/systemd/system/cdi-hpc-*").split()
    assert len(units) == 4
    assert machine.run("systemd-analyze", "verify", "--man=no", *units, root=True) == ""
    machine.run("udevadm", "verify", "/usr/share/cdi-hpc/udev/60-cdi-hpc.rules")
    assert machine.run("systemd-tmpfiles", "--create", "--root=/", "cdi-hpc.conf", root=True) == ""


def test_the_wheel_and_the_source_distribution_are_installed_by_pip_and_run(lab, tmp_path):
    for made in sorted((PACKAGES / "python").iterdir()):
        prefix = tmp_path / made.suffix
        pip = ("python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
        done = lab.run([*pip, "--ignore-installed", "--prefix", prefix, made])
        assert done.returncode == 0, done.stderr
        (modules,) = prefix.glob("lib/python3*/site-packages")
        command = ["env", f"PYTHONPATH={modules}", prefix / "bin/cdi-hpc"]
        assert lab.run([*command, "--version"]).stdout == f"cdi-hpc, version {cdi_hpc.__version__}\n"
        assert lab.run([*command, "run", *GPU, lab.image("debian-root"), "nvidia-smi"]).stdout == SMI
        assert f"{prefix}/bin/cdi-hpc-run" in lab.run([*command, "doctor"]).stdout


def test_apt_installs_the_package_and_what_it_needs_on_a_fresh_debian_and_a_newcomer_can_begin(newcomer):
    newcomer.run("sh", "-c", "command -v python3", fails=True)
    newcomer.run(*APT, "install", deb("bookworm", "cdi-hpc"), root=True)
    assert "ok" in newcomer.run("cdi-hpc", "doctor")
    assert "nvidia" in newcomer.run("cdi-hpc", "generate", "--list")
    assert "libcuda.so" in newcomer.run("cdi-hpc", "explain", "nvidia.com/gpu=0")
    assert newcomer.run("cdi-hpc", "run", *GPU, "/lab/images/debian-root", "nvidia-smi") == SMI
    # No unit runs, no rule of udev is active and nothing is configured before an administrator says so.
    places = "/etc/systemd /etc/udev /lib/udev"
    assert newcomer.run("sh", "-c", f"for at in {places}; do [ ! -e $at ] || find $at -name '*cdi-hpc*'; done") == ""
    assert newcomer.run("cdi-hpc", "config", "show").startswith("nothing is configured")


def test_an_upgrade_keeps_the_configuration_and_a_removal_keeps_it_until_the_purge(newcomer):
    newcomer.run(*APT, "install", deb("bookworm", "cdi-hpc"), root=True)
    mine = "aliases: {mine: nvidia.com/gpu=0}"
    newcomer.run("sh", "-c", f"echo '{mine}' >>/etc/cdi-hpc/config.yaml", root=True)
    newcomer.run("dpkg", "--install", deb("bookworm", "cdi-hpc"), root=True)
    assert newcomer.run("cdi-hpc", "run", "--device", "mine", "/lab/images/debian-root", "nvidia-smi") == SMI
    newcomer.run("dpkg", "--remove", "cdi-hpc", root=True)
    assert mine in newcomer.run("cat", "/etc/cdi-hpc/config.yaml")
    newcomer.run("dpkg", "--purge", "cdi-hpc", root=True)
    newcomer.run("ls", "/etc/cdi-hpc", fails=True)


def test_rpm_packages_are_installed_used_and_erased_without_a_trace(newcomer):
    # Python's libraries come from Debian, whose packages rpm does not know of.
    newcomer.run(*APT, "satisfy", f"{field(deb('bookworm', 'cdi-hpc'), 'Depends')}, {COMPANY}", root=True)
    before = others_than_books(newcomer.files())
    names = [path.name for path in sorted((PACKAGES / "rpm").glob("*.rpm")) if not path.name.endswith(".src.rpm")]
    assert len(names) == 2
    said = newcomer.rpm("bookworm-builder", PACKAGES / "rpm", "--install", "--nodeps", *names)
    assert "failed" not in said
    use_as_ordinary_user(newcomer)
    assert newcomer.run("find", "/usr/share/cdi-hpc", "-name", "*.pyc"), "not compiled for this Python"
    assert newcomer.rpm("bookworm-builder", PACKAGES / "rpm", "--verify", "--nodeps", "cdi-hpc", "cdi-hpc-slurm") == ""
    newcomer.rpm("bookworm-builder", PACKAGES / "rpm", "--erase", "cdi-hpc-slurm", "cdi-hpc")
    left = {path: what for path, what in others_than_books(newcomer.files()).items() if before.get(path) != what}
    # Directories of an RPM system's own packages, which are not here, were made by rpm and stay.
    assert {path for path, what in left.items() if not what.startswith("40") or "cdi" in path} == set()
