"""Builds the native runner where a C compiler is, and installs without it where not.

Everything else is in pyproject.toml. A wheel that carries the runner is for one platform; the runner is linked
statically where that is possible, so it asks nothing of the system's C library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

# After setuptools, which brings its own distutils: the standard library has none any more.
from distutils.command.install_data import install_data  # isort: skip

HERE = Path(__file__).parent.resolve()
NAME = "cdi-hpc-run"


def make_runner() -> Path | None:
    """The runner, made in native/build, or None where it can't be made: then Python does its work."""
    compiler = os.environ.get("CC", "cc").split()[0]
    if not (shutil.which("make") and shutil.which(compiler)):
        sys.stderr.write(f"cdi-hpc: no make or no {compiler}: {NAME} is not built, launches will start Python\n")
        return None
    # Warnings of a compiler that nobody has tried yet are no reason not to install.
    done = subprocess.run(["make", "-C", str(HERE / "native"), "WARNINGS=-Wall"], check=False)
    if done.returncode:
        sys.stderr.write(f"cdi-hpc: {NAME} could not be built, launches will start Python\n")
        return None
    return HERE / "native/build" / NAME


class BuildPython(build_py):
    """``build_py``, and for an editable install the runner where a checkout has it."""

    def run(self) -> None:
        if self.editable_mode:
            make_runner()
        super().run()


class InstallData(install_data):
    """Puts the runner beside the ``cdi-hpc`` command."""

    def run(self) -> None:
        runner = make_runner()
        self.data_files = [("bin", [os.path.relpath(runner, HERE)])] if runner else []
        super().run()


class Wheel(bdist_wheel):
    """A wheel for one platform if the runner is in it."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if make_runner():
            self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        _, _, platform = super().get_tag()
        return "py3", "none", platform


setup(
    cmdclass={"bdist_wheel": Wheel, "build_py": BuildPython, "install_data": InstallData},
    data_files=[("bin", [])],
)
