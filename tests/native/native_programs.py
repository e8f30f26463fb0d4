"""Build the native programs, write plans for them, and run them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdi_hpc import __version__
from cdi_hpc.compiled import wire

HERE = Path(__file__).parent.resolve()
NATIVE = HERE.parent.parent / "native"

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f'-DVERSION="{__version__}"']
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

#: A leak at exec is none: the memory goes with the program.
QUIET_SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=0"}


@dataclass(frozen=True)
class Programs:
    """Paths of what was built: the runner with sanitizers and without, and the test programs."""

    run: Path
    plain_run: Path
    dump: Path
    launch: Path
    units: Path
    system_cache: Path


def build(into: Path) -> Programs:
    sources = sorted(NATIVE.glob("*.c"))
    library = [path for path in sources if path.name not in ("run.c", "shim.c", "front.c", "launch.c")]
    system_cache = into / "system-cache"
    defines = [f'-DSYSTEM_CACHE="{system_cache}"', f"-I{NATIVE}"]

    def program(name: str, code: Iterable[Path], flags: Sequence[str]) -> Path:
        argv = ["cc", *FLAGS, *defines, *flags, "-o", into / name, *code]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return into / name

    return Programs(
        run=program("cdi-hpc-run", sources, SANITIZERS),
        plain_run=program("cdi-hpc-run-plain", sources, ()),
        dump=program("plan-dump", [HERE / "plan_dump.c", *library], SANITIZERS),
        launch=program("plan-launch", [HERE / "plan_launch.c", *library], SANITIZERS),
        units=program("units", [HERE / "units.c", *library], SANITIZERS),
        system_cache=system_cache,
    )


#: A container that is the host: what a step adds to it is all that differs.
HOST_ROOT = wire.Bind("/", "/")


@dataclass
class Cache:
    """A cache directory of the caller's own, with plans for a launch of image "/" unless another one is named."""

    programs: Programs
    runtime: Path
    front: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return self.runtime / "cdi-hpc"

    @property
    def stage(self) -> Path:
        return self.directory / "stage"

    def environ(self) -> dict[str, str]:
        own = {
            **QUIET_SANITIZERS,
            "XDG_RUNTIME_DIR": str(self.runtime),
            "CDI_HPC_PYTHON_FRONT": str(self.front),
        }
        return {**os.environ, **own, **self.env}

    def start(
        self, words: Sequence[str | bytes], *, run: Path | None = None, **options
    ) -> subprocess.CompletedProcess[str]:
        """Run cdi-hpc-run with these arguments."""
        return subprocess.run(
            [run or self.programs.run, *words],
            env=options.pop("env", None) or self.environ(),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=120,
            check=False,
            **options,
        )

    def key(self, words: Sequence[str | bytes], option: str = "--print-key", **options) -> str:
        done = self.start([option, *words], **options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(
        self,
        *records: wire.Record,
        words: Sequence[str | bytes] = ("/", "true"),
        staged: bool = False,
        env: dict[str, str] | None = None,
        **changes,
    ) -> Path:
        """A plan for the command line ``words`` in an environment, of the caller's, and trustworthy."""
        key = self.key(words, env=env)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if staged:
            self.stage.mkdir(mode=0o700, exist_ok=True)
        values = {
            "key": key,
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "stage": str(self.stage) if staged else None,
            **changes,
        }
        path = self.directory / f"{key}.plan"
        path.write_bytes(wire.encode(wire.WirePlan(records=records or (HOST_ROOT,), **values)))
        path.chmod(0o600)
        return path

    def launch(
        self, *steps: wire.Record, command: Sequence[str] = ("true",), image: str = "/", **options
    ) -> subprocess.CompletedProcess[str]:
        """Write a plan and launch a command with it."""
        staged = options.pop("staged", False)
        before = options.pop("options", [])
        self.write(*steps, words=[*before, image, "true"], staged=staged, env=options.get("env"))
        return self.start([*before, image, "--", *command], **options)


@dataclass
class Launcher:
    """Writes plans for a launcher, and replays them with plan-launch."""

    programs: Programs
    directory: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def stage(self) -> Path:
        return self.directory / "stage"

    def write(self, *records: wire.Record) -> Path:
        plan = wire.WirePlan("0" * 64, os.geteuid(), os.getegid(), str(self.stage), records)
        path = self.directory / "plan"
        path.write_bytes(wire.encode(plan))
        return path

    def argv(self, *records: wire.Record, words: Sequence[str] = (), command: Sequence[str] = ()) -> list[str]:
        ends = ["--", *command] if command else []
        return [str(self.programs.launch), str(self.write(*records)), *words, *ends]

    def run(
        self,
        *records: wire.Record,
        words: Sequence[str] = (),
        command: Sequence[str] = (),
        env: dict[str, str] | None = None,
        **options,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*records, words=words, command=command),
            env={**os.environ, **QUIET_SANITIZERS, **self.env, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **options,
        )

    def said(self, *records: wire.Record, **options) -> str:
        done = self.run(*records, **options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Standard output of a command that ran in a container, not of the front."""
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith("front"), done.stdout + done.stderr
    return done.stdout


def is_fresh(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a launch of ``true`` went from the plan; False if the front was called to compile."""
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("front <run> <--compile-and-run>"):
        return False
    assert done.stdout == ""
    return True


def state_of(path: Path | str) -> wire.Record:
    """The record that holds as long as ``path`` is as it is now."""
    name = os.fspath(path)
    if os.path.islink(name):
        return wire.SameLink(name, os.readlink(name))
    if not os.path.exists(name):
        return wire.Absent(name)
    found = os.stat(name)
    times = (found.st_mtime_ns, found.st_ctime_ns)
    if stat.S_ISREG(found.st_mode):
        return wire.SameFile(name, found.st_dev, found.st_ino, found.st_size, *times)
    if stat.S_ISDIR(found.st_mode):
        return wire.SameDirectory(name, found.st_dev, found.st_ino, *times)
    return wire.SameNode(name, found.st_dev, found.st_ino, found.st_rdev, found.st_mode, found.st_uid, found.st_gid)


def which(program: str) -> str:
    found = shutil.which(program)
    assert found, f"{program} is not on the PATH"
    return found
