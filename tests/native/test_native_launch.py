"""Environment, working directory and exec: as the Python runner has them, message for message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_programs import HOST_ROOT, said

from cdi_hpc.compiled import wire
from cdi_hpc.launch import inheritance, process

#: The Python runner's last step, as a program: the reference for ours.
EXECUTE = "import os, sys; from cdi_hpc.launch import process; process.execute(sys.argv[1:], dict(os.environ))"

COMMANDS = {
    "a program": ["echo", "hello"],
    "a path": ["/bin/echo", "hello"],
    "nothing of that name": ["no-such-command"],
    "no such path": ["/no/such/command"],
    "an empty name": [""],
    "a directory": ["/etc"],
    "a directory on the PATH": ["directory"],
    "a file that is not executable": ["./plain"],
    "a file on the PATH that is not executable": ["plain"],
    "a script without an interpreter line": ["script", "a", "b c"],
    "a script whose interpreter is not there": ["orphan"],
    "below a file": ["./plain/x"],
    "a name that controls terminals": ["no\x1b[1m\nsuch"],
    "a name that is not UTF-8": ["no\udcffsuch"],
    "a name with letters of the world": ["kein-größeres-програма"],
    "a name that is too long": ["x" * 300],
    "a dash": ["-"],
}


@pytest.fixture
def programs_on_path(tmp_path) -> Path:
    directory = tmp_path / "bin"
    (directory / "directory").mkdir(parents=True)
    for name, text, mode in [
        ("plain", "no program\n", 0o644),
        ("script", 'echo "script $*"\n', 0o755),
        ("orphan", "#!/no/such/interpreter\n", 0o755),
    ]:
        (directory / name).write_text(text)
        (directory / name).chmod(mode)
    return directory


@pytest.mark.parametrize("path", ["{bin}:/usr/bin:/bin", "/usr/bin:/bin:{bin}/", ":/bin", "/no/such", ""])
@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_is_found_or_not_as_with_the_python_runner(what, path, cache, programs_on_path):
    cache.env["PATH"] = path.format(bin=programs_on_path)
    env = {**cache.environ(), "LANG": "C.UTF-8"}
    ours = cache.launch(HOST_ROOT, command=COMMANDS[what], env=env, cwd=programs_on_path)
    theirs = subprocess.run(
        [sys.executable, "-c", EXECUTE, *COMMANDS[what]],
        env=env,
        cwd=programs_on_path,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


def test_a_command_ends_as_it_likes(cache):
    assert cache.launch(HOST_ROOT, command=["sh", "-c", "exit 42"]).returncode == 42
    assert cache.launch(HOST_ROOT, command=["sh", "-c", "kill -9 $$"]).returncode == -9


NAMES = st.sampled_from(["A", "B", "PATH_", "AB", "LC_X"])
VALUES = st.text(st.sampled_from("ab= \n\udcff"), max_size=4)


@given(
    inherited=st.dictionaries(NAMES, VALUES),
    planned=st.lists(st.tuples(NAMES, VALUES), max_size=4),
    given_=st.lists(NAMES | st.builds("{}={}".format, NAMES, VALUES), max_size=4),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_the_environment_is_the_python_runners(inherited, planned, given_, cache):
    environ = {**inherited, "XDG_RUNTIME_DIR": str(cache.runtime), "PATH": os.environ["PATH"]}
    records = [wire.Env(f"{name}={value}") for name, value in planned]
    options = [f"--env={text}" for text in given_]
    done = cache.launch(
        *records, HOST_ROOT, command=["env", "-0"], options=options, env=environ, run=cache.programs.plain_run
    )
    found = [entry.partition("=")[::2] for entry in said(done).split("\0")[:-1]]
    assert found == list(process.environment(environ, planned, given_).items())


def test_without_a_path_there_is_a_usual_one(cache):
    environ = {"XDG_RUNTIME_DIR": str(cache.runtime)}
    done = cache.launch(HOST_ROOT, command=["env"], env=environ, run=cache.programs.plain_run)
    assert f"PATH={process.environment({}, [], [])['PATH']}" in said(done).splitlines()


def test_a_variable_that_is_there_twice_is_set_once(cache):
    """Programs differ in which one they take: none may find the old value."""
    cache.write(wire.Env("A=new"), HOST_ROOT, env={"PATH": os.environ["PATH"]})
    words = [str(cache.programs.plain_run), "/", "env"]
    old = [f"XDG_RUNTIME_DIR={cache.runtime}", "A=1", "X=1", "A=2", "no assignment", f"PATH={os.environ['PATH']}"]
    done = execute_with(words, old)
    assert [line for line in done.splitlines() if line.startswith(("A", "no"))] == ["A=new"]


def execute_with(words: list[str], environment: list[str]) -> str:
    """Output of a program executed with exactly these entries; Python's own exec would not take them."""
    code = (
        "import ctypes, sys; n = int(sys.argv[1]) + 2;"
        "pack = lambda words: (ctypes.c_char_p * (len(words) + 1))(*map(str.encode, words));"
        "ctypes.CDLL(None).execve(sys.argv[2].encode(), pack(sys.argv[2:n]), pack(sys.argv[n:]))"
    )
    argv = [sys.executable, "-c", code, str(len(words)), *words, *environment]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_what_runner_and_front_tell_each_other_is_not_the_commands_business(cache):
    private = inheritance.PRIVATE_VARIABLES
    cache.env = {**dict.fromkeys(private, "x"), "CDI_HPC_DIRS": ""}
    names = {line.partition("=")[0] for line in said(cache.launch(HOST_ROOT, command=["env"])).splitlines()}
    assert {name for name in names if name.startswith("CDI_HPC_")} <= {"CDI_HPC_DIRS", "CDI_HPC_LAB"}


def test_the_working_directory_is_the_one_asked_for(cache, tmp_path):
    done = cache.launch(HOST_ROOT, command=["pwd"], options=[f"--workdir={tmp_path}"], cwd="/")
    assert said(done) == f"{tmp_path}\n"


def test_one_that_is_not_there_is_an_error(cache, tmp_path):
    done = cache.launch(HOST_ROOT, options=["--workdir", "/no/such"])
    assert done.returncode == 125
    assert done.stderr == "cdi-hpc: error: --workdir /no/such: can't be entered: No such file or directory\n"


def test_a_directory_that_the_container_lacks_becomes_the_root(cache, tmp_path):
    steps = [HOST_ROOT, wire.Mount("tmpfs", "tmpfs", str(tmp_path))]
    (tmp_path / "gone").mkdir()
    assert said(cache.launch(*steps, command=["pwd"], cwd=tmp_path / "gone")) == "/\n"


def test_signals_that_the_caller_ignores_stay_ignored(cache):
    """As with every program that only executes another one; nohup(1) relies on it."""
    cache.write(HOST_ROOT)
    done = cache.start(
        ["/", "grep", "^SigIgn", "/proc/self/status"],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        run=cache.programs.plain_run,
        restore_signals=True,
    )
    assert int(said(done).split()[1], 16) == 1 << (signal.SIGHUP - 1)
