"""What all packages are made of: one layout, one version, and no page, unit or drop-in that is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

import cdi_hpc
from cdi_hpc import backends
from cdi_hpc.cli.commands import cdi_hpc as program

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGING = CHECKOUT / "packaging"


@pytest.fixture(scope="module")
def installed(lab, tmp_path_factory) -> Path:
    """``make install`` into a directory, of a copy in which nothing was built."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "build")
    for name in ("cdi_hpc", "backends", "native", "packaging"):
        shutil.copytree(CHECKOUT / name, source / name, symlinks=True, ignore=ignored)
    top = tmp_path_factory.mktemp("installed")
    vendored = source / "vendored"
    (vendored / "PySquashfsImage").mkdir(parents=True)
    (vendored / "PySquashfsImage/__init__.py").write_text("")
    argv = ["make", "-C", source / "packaging", "install", f"DESTDIR={top}", f"VENDORED={vendored}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return top


def test_every_package_has_the_version_of_the_program():
    versions = {
        "debian": re.match(r"cdi-hpc \(([^-]+)-", (PACKAGING / "debian/changelog").read_text()),
        "rpm": re.search(r"^Version: *(\S+)$", (PACKAGING / "rpm/cdi-hpc.spec").read_text(), re.MULTILINE),
        "rpm's changes": re.search(
            r"^%changelog\n\*.* - (\S+)-", (PACKAGING / "rpm/cdi-hpc.spec").read_text(), re.MULTILINE
        ),
    }
    assert {name: found and found[1] for name, found in versions.items()} == dict.fromkeys(
        versions, cdi_hpc.__version__
    )


def test_what_python_requires_is_asked_for_by_each_package_in_the_same_version():
    names = {"PyYAML": ("python3-yaml", "python3-pyyaml"), "pyelftools": ("python3-pyelftools",) * 2}
    required = re.findall(r'^    "([A-Za-z-]+)>=([0-9.]+)",$', (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE)
    wanted = dict(required[: [name for name, _ in required].index("rich") + 1])
    assert len(wanted) == 6
    pin = re.search(r"PySquashfsImage==([0-9.]+)", (PACKAGING / "vendored.txt").read_text())
    assert pin
    assert [int(n) for n in pin[1].split(".")] >= [int(n) for n in wanted.pop("PySquashfsImage").split(".")]
    control, spec = (PACKAGING / "debian/control").read_text(), (PACKAGING / "rpm/cdi-hpc.spec").read_text()
    assert f"pysquashfsimage-{pin[1]}" in spec
    for name, version in wanted.items():
        debian, rpm = names.get(name, (f"python3-{name}",) * 2)
        assert control.count(f"{debian} (>= {version})") == 2, name
        assert f"Requires:       {rpm} >= {version}\n" in spec, name


def test_the_installed_program_runs_from_its_own_modules_and_has_a_page_for_each_command(installed):
    command = (installed / "usr/bin/cdi-hpc").read_text()
    assert command.startswith("#!/usr/bin/python3 -IB\n")
    assert '"/usr/share/cdi-hpc/python"' in command
    assert (installed / "usr/share/cdi-hpc/python/cdi_hpc/backends/charliecloud/__init__.py").is_file()
    assert not list(installed.rglob("__pycache__"))
    pages = {path.name for path in (installed / "usr/share/man/man1").iterdir()}
    assert pages >= {f"cdi-hpc-{name}.1" for name in program.list_commands(click.Context(program))}
    assert (installed / "usr/share/man/man5/cdi-hpc.config.5").is_file()


def test_there_is_a_drop_in_for_every_launcher_and_it_is_the_installed_runner(installed):
    shims = installed / "usr/lib/cdi-hpc/shims"
    for name in backends.commands():
        assert os.readlink(shims / name) == "../../../bin/cdi-hpc-run"
        assert os.path.samefile(shims / name, installed / "usr/bin/cdi-hpc-run")
    assert '"/usr/lib/cdi-hpc/shims"' in (shims / "modulefiles/cdi-hpc.lua").read_text().replace("\\047", "/")


def test_units_start_programs_that_are_installed(installed):
    units = installed / "usr/lib/systemd/system"
    started = re.findall(
        r"^ExecStart=(\S+)", "".join(path.read_text() for path in units.glob("*.service")), re.MULTILINE
    )
    assert started
    for program_path in started:
        assert (installed / "usr/bin" / Path(program_path).name).is_file(), program_path
    rule = (installed / "usr/share/cdi-hpc/udev/60-cdi-hpc.rules").read_text()
    (wanted,) = re.findall(r'SYSTEMD_WANTS\}\+="([^"]+)"', rule)
    assert (units / wanted).is_file()


def test_the_configuration_that_is_installed_changes_nothing(installed, lab):
    done = lab.run(["cdi-hpc", "config", "check", installed / "etc/cdi-hpc/config.yaml"])
    assert done.returncode == 0, done.stderr
    lines = (installed / "etc/cdi-hpc/config.yaml").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


def test_completions_are_installed_where_each_shell_looks(installed):
    share = installed / "usr/share"
    for name in (
        "bash-completion/completions/cdi-hpc",
        "zsh/site-functions/_cdi-hpc",
        "fish/vendor_completions.d/cdi-hpc.fish",
    ):
        assert "_CDI_HPC_COMPLETE" in (share / name).read_text()
