"""The last steps to the command: environment, working directory, privileges, exec."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from in_child import in_child

from cdi_hpc.errors import CdiError
from cdi_hpc.launch import process, runner
from cdi_hpc.launch.process import environment

# Environment ----------------------------------------------------------------------------------------------------

PATH = {"PATH": "/bin"}


@pytest.mark.parametrize(
    "inherited, planned, given, expected",
    [
        ({"A": "1"}, [], [], {"A": "1"}),
        ({"A": "1"}, [("A", "2")], [], {"A": "2"}),
        ({"A": "1"}, [("A", "2")], ["A=3"], {"A": "3"}),
        ({"A": "1"}, [("A", "2")], ["A"], {"A": "1"}),
        ({}, [("A", "2")], ["A"], {"A": "2"}),
        ({}, [], ["A"], {}),
        ({}, [], ["A="], {"A": ""}),
        ({}, [], ["A=b=c"], {"A": "b=c"}),
        ({}, [("A", "1"), ("A", "2")], [], {"A": "2"}),
        ({"PATH": "/x"}, [("PATH", "/y")], [], {"PATH": "/y"}),
    ],
)
def test_what_is_given_wins_over_the_plan_and_the_plan_over_the_caller(inherited, planned, given, expected):
    assert environment({**PATH, **inherited}, planned, given) == {**PATH, **expected}


def test_there_is_always_a_search_path():
    assert environment({}, [], [])["PATH"].split(":")[-1] == "/bin"


@pytest.mark.parametrize("given", ["", "=x"])
def test_a_variable_without_a_name_is_refused(given):
    with pytest.raises(CdiError, match="has no name"):
        environment({}, [], [given])


# Working directory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted, current, arrived",
    [
        (None, "here", "here"),
        (None, "missing", "/"),
        (None, "file", "/"),
        ("there", "here", "there"),
        ("there", "missing", "there"),
    ],
)
def test_the_working_directory_is_the_wanted_one_or_the_present_one_or_the_root(tmp_path, wanted, current, arrived):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()

    def enter() -> str:
        process.enter_directory(wanted and str(tmp_path / wanted), str(tmp_path / current))
        return os.getcwd()

    assert in_child(enter) == (os.path.realpath(tmp_path / arrived) if arrived != "/" else "/")


@pytest.mark.parametrize("wanted, words", [("missing", "No such file or directory"), ("file", "Not a directory")])
def test_a_wanted_directory_that_is_not_there_is_an_error(tmp_path, wanted, words):
    (tmp_path / "file").touch()
    with pytest.raises(CdiError, match=f"--workdir .*{wanted}: can't be entered: {words}"):
        process.enter_directory(str(tmp_path / wanted), "/")


# Privileges -----------------------------------------------------------------------------------------------------


def test_no_capability_is_left_and_none_can_come_back():
    def status() -> dict[str, str]:
        runner.enter_namespaces()
        process.drop_privileges()
        lines = Path("/proc/self/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines)

    after = in_child(status)
    assert {after[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert after["NoNewPrivs"] == "1"


def test_the_user_is_the_same_inside_and_no_more():
    def identity() -> tuple[object, ...]:
        runner.enter_namespaces()
        maps = [Path(f"/proc/self/{kind}_map").read_text().split() for kind in ("uid", "gid")]
        return os.getuid(), os.geteuid(), os.getgid(), maps

    uid, gid = os.geteuid(), os.getegid()
    assert in_child(identity) == (uid, uid, gid, [[str(uid), str(uid), "1"], [str(gid), str(gid), "1"]])


@pytest.mark.parametrize("kind", ["user", "mnt"])
def test_a_machine_without_namespaces_is_said_so_with_the_setting(kind):
    """The limit of a namespace of our own, which is the same setting as the machine's."""
    setting = f"/proc/sys/user/max_{kind}_namespaces"

    def enter_again() -> None:
        runner.enter_namespaces()
        Path(setting).write_text("0")
        runner.enter_namespaces()

    with pytest.raises(CdiError) as raised:
        in_child(enter_again)
    (problem,) = raised.value.problems
    assert (problem.where, problem.what.endswith("it is 0")) == (setting, True)
    assert f"max_{kind}_namespaces" in problem.fix


# Exec -----------------------------------------------------------------------------------------------------------


def executed(tmp_path: Path, command: list[str], **env: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a process that becomes the command."""
    out, err = tmp_path / "stdout", tmp_path / "stderr"
    child = os.fork()
    if child == 0:
        try:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stderr = os.fdopen(2, "w")
            process.execute(command, env)
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), out.read_text(), err.read_text()


@pytest.fixture
def bin_directory(tmp_path):
    """A directory on the PATH with a program, a script without a first line, and things that are neither."""
    place = tmp_path / "bin"
    (place / "directory").mkdir(parents=True)
    files = {
        "program": ("#!/bin/sh\necho program $1 $A\n", 0o755),
        "script": ('echo "script $1 $A"\n', 0o755),
        "not-executable": ("#!/bin/sh\n", 0o644),
        "no-interpreter": ("#!/missing/interpreter\n", 0o755),
    }
    for name, (text, mode) in files.items():
        (place / name).write_text(text)
        (place / name).chmod(mode)
    return place


@pytest.mark.parametrize("name, line", [("program", "program x y\n"), ("script", "script x y\n")])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_program_and_a_plain_script_are_run_with_their_arguments(tmp_path, bin_directory, name, line, absolute):
    command = [str(bin_directory / name) if absolute else name, "x"]
    assert executed(tmp_path, command, PATH=f"/missing:{bin_directory}", A="y") == (0, line, "")


@pytest.mark.parametrize(
    "name, status, words",
    [
        ("missing", 127, "missing: not found in the container"),
        ("", 127, "the command's name is empty"),
        ("/missing/program", 127, "/missing/program: not found in the container"),
        ("not-executable", 126, "not-executable: can't be executed: Permission denied"),
        ("directory", 126, "directory: can't be executed: Permission denied"),
        ("no-interpreter", 126, "no-interpreter: can't be executed: its interpreter is not in the image"),
        ("mis\nsing", 127, "mis\\nsing: not found in the container"),
    ],
)
def test_a_command_that_can_not_be_run_is_one_line_and_a_shells_status(tmp_path, bin_directory, name, status, words):
    assert executed(tmp_path, [name], PATH=str(bin_directory)) == (status, "", f"cdi-hpc: {words}\n")


def test_the_first_that_can_be_executed_on_the_path_is_run(tmp_path, bin_directory):
    for name, text in (("first", None), ("second", "#!/bin/sh\necho second\n"), ("third", "#!/bin/sh\necho third\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text(text or "")
        (tmp_path / name / "tool").chmod(0o755 if text else 0o644)
    path = ":".join(str(tmp_path / name) for name in ("first", "second", "third"))
    assert executed(tmp_path, ["tool"], PATH=path) == (0, "second\n", "")


def test_an_empty_entry_of_the_path_is_the_working_directory(tmp_path, bin_directory, monkeypatch):
    monkeypatch.chdir(bin_directory)
    assert executed(tmp_path, ["program", "x"], PATH="/missing:", A="y") == (0, "program x y\n", "")


def test_signals_that_python_ignores_are_not_ignored_by_the_command(tmp_path):
    _, out, _ = executed(tmp_path, ["grep", "SigIgn", "/proc/self/status"], PATH=os.environ["PATH"])
    ignored = int(out.split()[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored & 1 << number - 1


def test_nothing_but_the_given_environment_reaches_the_command(tmp_path):
    env = {"PATH": os.environ["PATH"], "B": "two\nlines"}
    status, out, _ = executed(tmp_path, ["env", "--null"], **env)
    assert (status, sorted(out.split("\0"))) == (0, sorted(["", *(f"{name}={value}" for name, value in env.items())]))
