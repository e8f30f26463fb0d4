"""What is installed is what the checkout has: the wheel is built, opened, and run from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(lab, tmp_path_factory) -> Path:
    """Built from a copy of the checkout, without the network: the lab has the build system."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    shutil.copytree(CHECKOUT / "cdi_hpc", source / "cdi_hpc", ignore=shutil.ignore_patterns("__pycache__"))
    built = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(built)]
    argv = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(built.glob("*.whl"))


def files_of_package() -> set[str]:
    return {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "cdi_hpc").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == files_of_package()


def test_the_wheel_carries_the_licence(wheel):
    assert [name for name in ZipFile(wheel).namelist() if name.endswith("/LICENSE")]


def test_the_command_runs_from_the_wheel_alone(wheel, tmp_path):
    target = tmp_path / "installed"
    ZipFile(wheel).extractall(target)
    entry = next(target.glob("*.dist-info/entry_points.txt")).read_text()
    assert "cdi-hpc = cdi_hpc.cli:main" in entry
    program = (
        "import sys, cdi_hpc, cdi_hpc.cli\n"
        "assert cdi_hpc.__file__.startswith(sys.argv[1]), cdi_hpc.__file__\n"
        "sys.argv = ['cdi-hpc', 'list', '--format', 'json']\n"
        "cdi_hpc.cli.main()\n"
    )
    argv = [sys.executable, "-c", program, str(target)]
    env = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"nvidia.com/gpu=all"' in done.stdout
