"""The Python front and the native runner are one program to whoever calls them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from compiled_launch import KIND, Site, front, runner

WAYS = {
    "cdi-hpc run": lambda: [front(), "run"],
    "cdi-hpc run --runner=native": lambda: [front(), "run", "--runner=native"],
    "cdi-hpc run --runner python": lambda: [front(), "run", "--runner", "python"],
    "cdi-hpc-run": lambda: [runner()],
    "cdi-hpc-run --runner=native": lambda: [runner(), "--runner=native"],
    "cdi-hpc-run --runner=python": lambda: [runner(), "--runner=python"],
}


@pytest.fixture(params=WAYS)
def way(request) -> list[str]:
    return WAYS[request.param]()


def start(site: Site, way: list[str], *words: str, **keywords) -> subprocess.CompletedProcess[bytes]:
    """Launch one way; a program that executes itself for ever is stopped."""
    keywords = {"env": site.environment, "stdin": subprocess.DEVNULL, "timeout": 60, **keywords}
    return subprocess.run([*way, *words], capture_output=True, check=False, **keywords)


def twice(site: Site, way: list[str], *words: str, **keywords) -> list[bytes]:
    """What the first launch printed, which compiles, and the second, which does not."""
    outputs = []
    for _ in range(2):
        done = start(site, way, *words, **keywords)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    return outputs


@pytest.mark.parametrize(
    "script, status",
    [("exit 0", 0), ("exit 125", 125), ("kill -TERM $$", -signal.SIGTERM)],
)
def test_the_status_is_the_commands(site, way, script, status):
    for _ in range(2):
        done = start(site, way, *site.argv(["sh", "-c", script]))
        assert (done.returncode, done.stderr) == (status, b"")


@pytest.mark.parametrize(
    "words, status, said",
    [
        (["-d", f"{KIND}=none", "IMAGE", "true"], 125, b"none"),
        (["--no-such-option", "IMAGE", "true"], 125, b"--no-such-option"),
        (["--stage=sideways", "IMAGE", "true"], 125, b"sideways"),
        (["IMAGE"], 125, b"COMMAND"),
        (["IMAGE", "--"], 125, b"COMMAND"),
        ([], 125, b"IMAGE"),
        (["/no/such/image", "true"], 125, b"/no/such/image"),
        (["--workdir=/none", "IMAGE", "true"], 125, b"--workdir /none"),
        (["IMAGE", "no-such-program"], 127, b"no-such-program"),
        (["IMAGE", "/etc/passwd"], 126, b"/etc/passwd"),
    ],
)
def test_what_is_refused_is_refused_alike(site, words, status, said):
    words = [str(site.image) if word == "IMAGE" else word for word in words]
    for way in ("cdi-hpc run --runner python", "cdi-hpc run", "cdi-hpc-run", "cdi-hpc-run --runner=native"):
        done = start(site, WAYS[way](), *words)
        assert (done.returncode, done.stdout) == (status, b""), way
        assert said in done.stderr, way


def test_help_is_the_same(site, way):
    texts = {start(site, way, word).stdout for word in ("--help", "-h")} - {b""}
    assert texts == {start(site, [front(), "run"], "--help").stdout}


def test_the_commands_arguments_are_not_ours(site, way):
    words = ["--runner=python", "--runner", "x", "--compile-and-run", "-d", "--help", "--", "-v", "a b", ""]
    for separator in ([], ["--"]):
        outputs = twice(site, way, str(site.image), *separator, "sh", "-c", 'printf "%s|" "$@"', "sh", *words)
        assert outputs == ["".join(f"{word}|" for word in words).encode()] * 2


def test_the_separator_may_stand_before_the_image(site, way):
    words = ["-d", f"{KIND}=one", "--", str(site.image), "sh", "-c", 'printf "%s|" "$@"', "sh", "--runner=python"]
    assert twice(site, way, *words) == [b"--runner=python|"] * 2


def test_the_command_gets_the_callers_environment_and_the_plans(site, way):
    """Nothing that passes between the two programs, or that Python adds to its own."""
    environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(site.runtime), "CDI_HPC_DIRS": str(site.specs)}
    given = {*(f"{name}={value}" for name, value in environment.items()), "LAB_VARIABLE=from the spec", "A=b"}
    for output in twice(site, way, "--env=A=b", *site.argv(["env"]), env=environment):
        assert set(output.decode().splitlines()) == given


def test_the_command_gets_the_callers_signals(site, way):
    """Python ignores SIGPIPE for itself; a command that is not told so does not end with its pipe."""
    script = 'while read -r name value; do case $name in Sig[BIC]*) echo "$name $value";; esac; done </proc/self/status'
    command = ["sh", "-c", script]
    here = subprocess.run(command, capture_output=True, check=True).stdout
    assert twice(site, way, *site.argv(command)) == [here] * 2
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)}
    here = subprocess.run(command, capture_output=True, check=True, **ignoring).stdout
    assert twice(site, way, *site.argv(command), **ignoring) == [here] * 2


def test_the_command_gets_the_callers_umask_and_files(site, way):
    command = ["sh", "-c", "umask; ls /proc/self/fd"]

    def narrow() -> None:
        os.umask(0o27)

    first, second = twice(site, way, *site.argv(command), preexec_fn=narrow)
    assert first == second
    assert first.split() == [b"0027", b"0", b"1", b"2", b"3"]


def test_the_plan_of_a_launch_with_any_umask_can_be_used(site):
    for mask in (0o777, 0o077, 0o000):
        site.cache.exists() and [path.unlink() for path in site.cache.glob("*.plan")]
        first, second = (
            site.launch("sh", "-c", "cat /opt/lab/file", preexec_fn=lambda mask=mask: os.umask(mask)) for _ in range(2)
        )
        assert (first.returncode, first.stderr, first.stdout) == (0, b"", b"from the host\n")
        assert (second.returncode, second.stderr, second.stdout) == (0, b"", b"from the host\n")
        assert len(site.plans()) == 1


NOTED = {
    "deviceNodes": [{"path": "/dev/null", "fileMode": 0o600}],
    "hooks": [{"hookName": "prestart", "path": "/bin/unknown", "args": ["unknown"]}],
}


@pytest.mark.parametrize("options", ["", "-v", "-q", "-vqv"])
def test_every_launch_says_what_the_first_one_said(site, options):
    site.write_spec(NOTED)
    python, first, second = (
        start(site, WAYS[way](), *options.split(), *site.argv(["true"])).stderr.decode().splitlines()
        for way in ("cdi-hpc run --runner python", "cdi-hpc run", "cdi-hpc run")
    )
    assert first == python
    assert second == first
    level = options.count("v") - options.count("q")
    assert any(": warning: " in line for line in python) == (level >= 0)
    assert any(": note: " in line for line in python) == (level >= 1)
    assert any(": step: " in line for line in python) == (level >= 1)


@pytest.mark.parametrize("options", ["", "-v", "-q"])
def test_what_led_to_a_refusal_is_said_alike(site, options):
    """Notes about specs that could not be read come before the error, whoever reads them."""
    site.write_spec({"env": ["no assignment"]}, name="broken.yaml", device="two")
    site.write_spec({**NOTED, "mounts": [{"hostPath": "/no/such/file", "containerPath": "/opt/lab/file"}]})
    python, native = (
        start(site, WAYS[way](), *options.split(), *site.argv(["true"])).stderr.decode().splitlines()
        for way in ("cdi-hpc run --runner python", "cdi-hpc run")
    )
    assert native == python
    assert any(": error: " in line for line in python)


def test_a_python_without_the_runner_beside_it_launches_by_itself(site, tmp_path):
    """A pure installation: nothing is compiled, everything works."""
    package = tmp_path / "pure"
    source = os.path.dirname(os.path.dirname(sys.modules["cdi_hpc"].__file__))
    package.mkdir()
    (package / "cdi_hpc").symlink_to(f"{source}/cdi_hpc")
    program = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = '/nowhere/cdi-hpc'; from cdi_hpc.cli import main; main()",
    ]
    copy = package / "copied"
    copy.mkdir()
    subprocess.run(["cp", "-rL", f"{source}/cdi_hpc", str(copy)], check=True)
    environment = {**site.environment, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(copy)}
    done = start(site, program, "run", *site.argv(["cat", "/opt/lab/file"]), env=environment, cwd="/")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"from the host\n", b"")
    assert site.plans() == {}
    done = start(site, program, "run", "--runner=native", *site.argv(["true"]), env=environment, cwd="/")
    assert done.returncode == 125
    assert b"cdi-hpc-run is not installed" in done.stderr


def test_the_runner_without_the_front_says_what_is_missing(site):
    environment = {**site.environment, "PATH": "/nowhere"}
    done = subprocess.run([runner(), *site.argv(["true"])], env=environment, capture_output=True, check=False)
    assert done.returncode == 125
    assert b"cdi-hpc" in done.stderr


def test_an_interrupted_compilation_ends_as_an_interrupted_command(site):
    """SIGINT to the whole group, as a terminal sends it, while Python waits for another compiler of the same plan."""
    key = start(site, [runner(), "--print-key"], *site.argv(["true"])).stdout.decode().strip()
    site.cache.mkdir(mode=0o700)
    with (site.cache / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        argv = [runner(), *site.argv(["true"])]
        process = subprocess.Popen(argv, env=site.environment, stderr=subprocess.PIPE, start_new_session=True)
        wait_until(lambda: has_opened(lock.name, process.pid))
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert b"Traceback" not in said
    assert site.launch().returncode == 0


def has_opened(path: str, pid: int) -> bool:
    return any(os.path.realpath(fd) == path for fd in Path(f"/proc/{pid}/fd").iterdir())


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it never happened")
