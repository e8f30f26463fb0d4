"""``cdi-hpc explain`` as people and programs meet it: tables, Markdown, JSON, colours, differences, statuses."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from explained import write_spec

VIEW = Path(__file__).parent.parent / "views/nvidia-dgxa100-570/nvidia.yaml"
EDITS = {"env": ["A=b", "UID=0"], "additionalGids": [4711]}


def run(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["cdi-hpc", "explain", *map(str, arguments)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def on_terminal(*arguments: object, env: Mapping[str, str]) -> str:
    """What is shown on a terminal."""
    main, terminal = pty.openpty()
    with subprocess.Popen(["cdi-hpc", "explain", *map(str, arguments)], stdout=terminal, env={**os.environ, **env}):
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(main, 1 << 16):
                shown += piece
        except OSError:  # EIO: the program has ended (pty(7))
            pass
    os.close(main)
    return shown.decode()


def test_one_launcher_has_its_reasons_in_the_table(tmp_path: Path):
    done = run(write_spec(tmp_path, EDITS), "--for", "embedded")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["EDIT", "FROM", "VERDICT", "HOW"]
    assert lines[1].split(None, 4)[:4] == ["env", "A=b", "devices[0].containerEdits.env[0]", "done"]
    assert lines[1].endswith("set in the command's environment")
    assert "ask the administrator to add you to it" in lines[3]
    assert done.returncode == 0


def test_several_launchers_are_side_by_side_with_numbered_reasons(tmp_path: Path):
    done = run(write_spec(tmp_path, EDITS), "--for", "embedded,bash")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["EDIT", "FROM", "EMBEDDED", "BASH"]
    assert lines[1].split()[-4:] == ["done", "(1)", "done", "(2)"]
    assert "(1) set in the command's environment" in lines
    assert "(2) export" in lines
    assert [line for line in lines if line.startswith("bash stops: ")] != []
    assert done.returncode == 1


def test_all_launchers_are_explained_where_none_is_named(lab):
    done = run(VIEW, "--format", "json")
    document = json.loads(done.stdout)
    names = [each["launcher"] for each in document["launchers"]]
    assert names == ["embedded", "charliecloud", "singularity", "bash", "slurm"]
    assert [sorted(row["launchers"]) for row in document["edits"]] == [sorted(names)] * 71


def test_a_launcher_can_be_asked_for_by_its_program(tmp_path: Path):
    document = json.loads(run(write_spec(tmp_path, EDITS), "--for", "ch-run", "--format", "json").stdout)
    assert document["launchers"][0]["launcher"] == "ch-run"


def test_an_unknown_launcher_is_refused_with_what_was_perhaps_meant(tmp_path: Path):
    done = run(write_spec(tmp_path, EDITS), "--for", "charliecloudd")
    assert done.returncode == 1
    assert "did you mean 'charliecloud'?" in done.stderr


def test_markdown_is_a_table_whatever_a_spec_holds(tmp_path: Path):
    spec = write_spec(tmp_path, {"env": ["A=a|b`c` <img> *x* [y](z)\n| evil |"]})
    lines = run(spec, "--for", "embedded,bash", "--format", "markdown").stdout.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 3
    cells = [re.split(r"(?<!\\)\|", line) for line in table]
    assert [len(row) for row in cells] == [6, 6, 6]
    assert "\\<img\\>" in table[2]
    assert "\\n" in table[2]


def test_verdicts_have_colours_on_a_terminal_and_none_with_no_color(tmp_path: Path):
    spec = write_spec(tmp_path, EDITS)
    environ = {"TERM": "xterm-256color", "COLUMNS": "200"}
    coloured = on_terminal(spec, "--for", "embedded", env=environ)
    assert "\x1b[32mdone" in coloured
    assert "\x1b[1;31mimpossible" in coloured
    plain = on_terminal(spec, "--for", "embedded", env={**environ, "NO_COLOR": "1"})
    assert "done" in plain
    assert re.search(r"\x1b\[[\d;]*3\d", plain) is None


def test_control_characters_of_a_spec_never_reach_a_terminal(tmp_path: Path):
    spec = write_spec(tmp_path, {"env": ["A=\x1b[2Jgone"]})
    assert "\x1b[2J" not in on_terminal(spec, "--for", "embedded", env={"TERM": "xterm", "COLUMNS": "200"})
    assert "\x1b" not in run(spec, "--format", "markdown").stdout


def test_two_launchers_are_compared(tmp_path: Path):
    done = run(write_spec(tmp_path, EDITS), "--diff", "embedded", "bash")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["EDIT", "FROM", "EMBEDDED", "BASH"]
    assert "env UID=0" in lines[1]
    assert "env A=b" not in done.stdout


def test_two_spec_files_are_compared(tmp_path: Path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old = write_spec(tmp_path / "old", {"env": ["A=1", "B=1"]})
    new = write_spec(tmp_path / "new", {"env": ["A=2", "C=1"]})
    lines = run("--diff", old, new).stdout.splitlines()
    assert lines[0].split() == ["CHANGE", "LAUNCHER", "OLD", "NEW", "OLD", "VERDICT", "NEW", "VERDICT"]
    assert [line.split()[:2] for line in lines[1:4]] == [["changed", "all"], ["removed", "all"], ["added", "all"]]
    document = json.loads(run("--diff", old, new, "--for", "embedded", "--format", "json").stdout)
    assert [each["change"] for each in document["differences"]] == ["changed", "removed", "added"]


def test_a_spec_does_not_differ_from_itself():
    assert run("--diff", VIEW, VIEW, "--for", "embedded").stdout == "no differences\n"


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "Missing argument"),
        (("--diff", "embedded", "bash"), "Missing argument"),
        (("--diff", "embedded", str(VIEW)), "neither a spec file nor a launcher"),
        (("--diff", "embeded", str(VIEW)), "neither a spec file nor a launcher (did you mean 'embedded'?)"),
        (("--diff", str(VIEW), "/nope.yaml"), "--diff /nope.yaml: there is no such file"),
        (("--diff", "nope.yaml", str(VIEW)), "--diff nope.yaml: there is no such file"),
        (("--diff", "/etc", str(VIEW)), "--diff /etc: is no file"),
        (("x", "--diff", str(VIEW), str(VIEW)), "With --diff"),
        (("no.such/thing=1",), "no.such/thing=1"),
        ((str(VIEW), "--image", "/no/such"), "No such file"),
        ((str(VIEW), "--image", "/etc/hostname"), "neither of SquashFS nor of SIF"),
        ((str(VIEW), "--image", "docker://alpine"), "No such file"),
    ],
)
def test_what_can_not_be_explained_is_said(arguments: tuple[str, ...], said: str):
    done = run(*arguments)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode in (1, 2)


@pytest.mark.parametrize("name", ["debian.sqfs", "debian.sif", "bare", "musl", "links"])
def test_every_kind_of_image_is_looked_into(name: str, lab):
    document = json.loads(run(VIEW, "--image", lab.image(name), "--format", "json").stdout)
    assert document["image"] == str(lab.image(name))
    for row in document["edits"]:
        assert all(fate["verdict"] and fate["how"] for fate in row["launchers"].values())


def test_an_image_that_is_a_file_stops_what_takes_directories_only(lab):
    document = json.loads(run(VIEW, "--image", lab.image("debian.sqfs"), "--format", "json").stdout)
    stopped = {each["launcher"] for each in document["launchers"] if each["stops"]}
    assert {"bash", "slurm"} <= stopped
    assert "embedded" not in stopped


def test_libraries_that_can_not_work_in_the_image_are_told(tmp_path: Path, lab):
    library = next(Path("/usr/lib").glob("*-linux-gnu/libz.so.1.*"))
    mount = {"hostPath": str(library), "containerPath": str(library)}
    spec = write_spec(tmp_path, {"mounts": [mount]})
    document = json.loads(run(spec, "--image", lab.image("musl"), "--for", "embedded", "--format", "json").stdout)
    (embedded,) = document["launchers"]
    assert [text for text in (*embedded["stops"], *embedded["messages"]) if library.name in text] != []
