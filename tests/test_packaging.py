"""What is installed is what the checkout has: wheels are built, opened, installed, and run from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from zipfile import ZipFile

import elftools
import pytest

import cdi_hpc

CHECKOUT = Path(__file__).resolve().parent.parent

#: What the build reads besides the two trees.
BUILD_FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")

#: The build system is there, and nothing comes from the network.
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index")


@dataclass(frozen=True)
class Built:
    """A wheel, and what the build said."""

    wheel: Path
    output: str

    def names(self) -> set[str]:
        return set(ZipFile(self.wheel).namelist())

    def modules(self) -> set[str]:
        """What goes to site-packages (a wheel for one platform has it a folder further down), less the metadata."""
        names = {name.partition(".data/purelib/")[2] or name for name in self.names()}
        return {name for name in names if ".dist-info/" not in name and ".data/" not in name}

    def programs(self) -> set[str]:
        """What goes to bin, less what pip makes of the entry points."""
        return {name.partition(".data/data/bin/")[2] for name in self.names()} - {""}


def pip(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    argv = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(argv, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy_of_checkout(lab, tmp_path_factory) -> Callable[[], Path]:
    """Makes copies of the checkout in which nothing was built."""

    def copy() -> Path:
        source = tmp_path_factory.mktemp("source")
        for name in BUILD_FILES:
            shutil.copy(CHECKOUT / name, source)
        for tree in ("cdi_hpc", "backends", "native"):
            ignored = shutil.ignore_patterns("__pycache__", "build")
            shutil.copytree(CHECKOUT / tree, source / tree, symlinks=True, ignore=ignored)
        return source

    return copy


@pytest.fixture(scope="module")
def build(copy_of_checkout, tmp_path_factory) -> Callable[..., Built]:
    """Builds a wheel from a copy of the checkout."""

    def build_wheel(**env: str) -> Built:
        built = tmp_path_factory.mktemp("wheel")
        output = pip("wheel", "--verbose", *OFFLINE, "--wheel-dir", built, copy_of_checkout(), env=env)
        return Built(next(built.glob("*.whl")), output)

    return build_wheel


@pytest.fixture(scope="module")
def native_wheel(build) -> Built:
    """Built where a compiler is."""
    return build()


@pytest.fixture(scope="module")
def pure_wheel(build) -> Built:
    """Built where none is."""
    return build(CC="no-such-compiler")


@pytest.fixture(params=["native_wheel", "pure_wheel"])
def any_wheel(request) -> Built:
    return request.getfixturevalue(request.param)


@dataclass(frozen=True)
class Installed:
    """A directory that a wheel was installed to."""

    prefix: Path

    def run(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of its programs as a user does, with its package and not the checkout's."""
        package = next(self.prefix.glob("lib/python*/site-packages"))
        path = f"{self.prefix / 'bin'}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "PYTHONPATH": str(package), "XDG_RUNTIME_DIR": str(self.plans)}
        return subprocess.run(
            [self.prefix / "bin" / argv[0], *argv[1:]],
            env=env,
            cwd=self.prefix,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def plans(self) -> Path:
        return self.prefix / "run"


@pytest.fixture
def install(tmp_path) -> Callable[[Built], Installed]:
    def install_wheel(built: Built) -> Installed:
        prefix = tmp_path / "installed"
        pip("install", *OFFLINE, "--ignore-installed", "--prefix", prefix, built.wheel)
        installed = Installed(prefix)
        installed.plans.mkdir(mode=0o700)
        return installed

    return install_wheel


def files_of_package() -> set[str]:
    """What is below cdi_hpc, links followed: backends is one."""
    return {
        os.path.relpath(os.path.join(parent, name), CHECKOUT)
        for parent, _, names in os.walk(CHECKOUT / "cdi_hpc", followlinks=True)
        for name in names
        if "__pycache__" not in parent
    }


def test_the_backends_are_a_link_to_the_tree_beside_the_package():
    assert os.readlink(CHECKOUT / "cdi_hpc/backends") == "../backends"
    assert "cdi_hpc/backends/charliecloud/__init__.py" in files_of_package()


def test_a_wheel_holds_every_file_of_the_package_and_nothing_else_but_the_runner(any_wheel):
    assert any_wheel.modules() == files_of_package()


def test_a_wheel_carries_the_licence(any_wheel):
    assert [name for name in any_wheel.names() if name.endswith("/LICENSE")]


def test_a_wheel_built_with_a_compiler_holds_the_runner_and_is_for_one_platform_and_every_python(native_wheel):
    assert native_wheel.programs() == {"cdi-hpc-run"}
    _, _, python, abi, platform = native_wheel.wheel.stem.split("-")
    assert (python, abi) == ("py3", "none")
    assert platform.startswith("linux_")


def test_a_wheel_built_without_a_compiler_is_for_every_platform_and_the_build_says_what_is_missing(pure_wheel):
    assert pure_wheel.programs() == set()
    assert pure_wheel.wheel.stem.endswith("-py3-none-any")
    assert "no no-such-compiler: cdi-hpc-run is not built" in pure_wheel.output


def test_a_runner_that_does_not_compile_is_no_reason_not_to_install(build):
    # A compiler that is there and fails.
    assert build(CC="false").wheel.stem.endswith("-py3-none-any")


def test_the_installed_runner_runs_and_asks_for_no_library_of_the_system(native_wheel, install):
    installed = install(native_wheel)
    runner = installed.prefix / "bin/cdi-hpc-run"
    assert os.access(runner, os.X_OK)
    answer = installed.run("cdi-hpc-run", "--version")
    assert (answer.returncode, answer.stdout) == (0, f"cdi-hpc, version {cdi_hpc.__version__}\n"), answer.stderr
    kind = subprocess.run(["file", "--brief", runner], capture_output=True, text=True, check=True).stdout
    assert "statically linked" in kind


def test_an_installed_launch_keeps_its_plan_where_there_is_a_runner(native_wheel, install, lab):
    installed = install(native_wheel)
    for program in (["cdi-hpc", "run"], ["cdi-hpc-run"]):
        done = installed.run(*program, "--device", "nvidia.com/gpu=0", lab.image("debian-root"), "nvidia-smi")
        assert (done.returncode, done.stdout) == (0, "nvidia-smi 570.133.20 of the lab\n"), done.stderr
    assert len(list(installed.plans.glob("cdi-hpc/*.plan"))) == 1


def test_a_command_of_an_installed_wheel_finds_its_own_package(any_wheel, install):
    installed = install(any_wheel)
    done = installed.run("cdi-hpc", "list", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert '"nvidia.com/gpu=all"' in done.stdout
    where = "import cdi_hpc, sys; sys.exit(not cdi_hpc.__file__.startswith(sys.argv[1]))"
    (installed.prefix / "bin/where").write_text(f"#!{sys.executable}\n{where}\n")
    (installed.prefix / "bin/where").chmod(0o755)
    assert installed.run("where", str(installed.prefix)).returncode == 0


def test_a_launch_without_the_runner_is_made_by_python_and_asking_for_the_runner_says_so(pure_wheel, install, lab):
    installed = install(pure_wheel)
    launch = ["--device", "nvidia.com/gpu=0", lab.image("debian-root"), "nvidia-smi"]
    done = installed.run("cdi-hpc", "run", *launch)
    assert (done.returncode, done.stdout) == (0, "nvidia-smi 570.133.20 of the lab\n"), done.stderr
    assert list(installed.plans.iterdir()) == []
    done = installed.run("cdi-hpc", "run", "--runner=native", *launch)
    assert done.returncode == 125
    assert "--runner=native: cdi-hpc-run is not installed" in done.stderr


def find_backends(python_path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Import every backend, in a Python that sees one directory of ours."""
    program = "from cdi_hpc import backends; print(*(backends.of_name(name).name for name in backends.backend_names()))"
    argv = [sys.executable, "-c", program]
    env = {**os.environ, "PYTHONPATH": str(python_path)}
    return subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, check=False)


def test_backends_are_found_in_a_checkout_that_was_not_installed(copy_of_checkout, tmp_path):
    done = find_backends(copy_of_checkout(), tmp_path)
    assert (done.returncode, done.stdout) == (0, "charliecloud singularity\n"), done.stderr


def test_backends_are_found_in_an_editable_install(copy_of_checkout, tmp_path):
    source, prefix = copy_of_checkout(), tmp_path / "prefix"
    pip("install", *OFFLINE, "--ignore-installed", "--prefix", prefix, "--editable", source)
    (package,) = prefix.glob("lib/python*/site-packages")
    # Its .pth files count, but none beside the libraries that it needs: there is another editable install of ours.
    program = (
        f"import site, sys; site.addsitedir({str(package)!r}); sys.path.append({str(libraries())!r}); "
        "import cdi_hpc, cdi_hpc.backends.charliecloud, cdi_hpc.backends.singularity; print(cdi_hpc.__file__)"
    )
    argv = [sys.executable, "-S", "-c", program]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{source}/cdi_hpc/__init__.py\n"), done.stderr


def libraries() -> Path:
    """Where the libraries that we need are installed."""
    return Path(elftools.__file__).parents[1]


def test_drop_ins_of_an_installed_wheel_are_the_launcher_and_with_a_device_more_than_that(any_wheel, install, lab):
    installed = install(any_wheel)
    shims = installed.prefix / "shims"
    made = installed.run("cdi-hpc", "shims", shims)
    assert made.returncode == 0, made.stderr
    (shims / "ch-run").rename(installed.prefix / "bin/ch-run")
    assert (installed.prefix / "bin/ch-run").is_symlink() == bool(any_wheel.programs())
    launch = ["--device", "nvidia.com/gpu=0", lab.image("debian-user"), "--", "nvidia-smi"]
    done = installed.run("ch-run", *launch)
    assert (done.returncode, done.stdout) == (0, "nvidia-smi 570.133.20 of the lab\n"), done.stderr
    bare = subprocess.run(["/usr/bin/ch-run", "--version"], capture_output=True, text=True, check=True)
    version = installed.run("ch-run", "--version")
    assert (version.stdout, version.stderr) == (bare.stdout, bare.stderr)


def test_a_source_distribution_holds_what_the_runner_is_built_from(copy_of_checkout, tmp_path):
    program = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    source = copy_of_checkout()
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        members = [PurePath(*PurePath(member.name).parts[1:]) for member in archive if member.isfile()]
    native = {path.name for path in members if path.parts[:-1] == ("native",)}
    assert native == {path.name for path in (CHECKOUT / "native").iterdir() if path.name != "build"}
    assert {str(path) for path in members if path.parts[:1] == ("cdi_hpc",)} == files_of_package()
