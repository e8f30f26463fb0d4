"""A plan in words and as JSON."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from cdi_hpc.plan import (
    Action,
    Bind,
    CudaCompat,
    Directory,
    MountFilesystem,
    Note,
    Plan,
    RunHook,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.spec.model import Origin
from cdi_hpc.translation import describe

ORIGIN = Origin("/etc/cdi/a.yaml", "v/c=d", "devices[0].containerEdits.env[0]")

#: action, its line, whether a launcher does something for it.
LINES: list[tuple[Action, str, bool]] = [
    (SetEnv("A", "b=c", ORIGIN), "env A=b=c", True),
    (Bind("/x", "/x", "file", ORIGIN), "file /x", True),
    (Bind("/x", "/y", "device", ORIGIN), "device /x -> /y", True),
    (Bind("/x", "/y", "directory", ORIGIN, ("nodev", "ro")), "directory /x -> /y (nodev,ro)", True),
    (Bind("/x", "/x", "socket", ORIGIN, kept=("ro",)), "socket /x", True),
    (MountFilesystem("tmpfs", "none", "/s", ORIGIN), "tmpfs /s", True),
    (MountFilesystem("tmpfs", "none", "/s", ORIGIN, ("ro",), ("size=1m",)), "tmpfs /s (ro,size=1m)", True),
    (Symlink("/a", "../b", ORIGIN), "link /a -> ../b", True),
    (WriteFile("/a", b"12\n", 0o444, ORIGIN), "file /a (3 bytes)", True),
    (Directory("/d", 0o755, ORIGIN), "directory /d", True),
    (RunHook("hooks x", "/x", ("x", "y"), (), 1, fatal=True, rule="", origin=ORIGIN), "hooks x (x y)", True),
    (CudaCompat("/compat", "1", "", ORIGIN), "CUDA compatibility libraries /compat", True),
    (UpdateLdCache(("/a", "/b"), ORIGIN), "ld.so.cache /a /b", True),
    (UpdateLdCache((), ORIGIN), "ld.so.cache", True),
    (Note("mounts /x", "skipped", ORIGIN), "mounts /x", False),
    (Unsupported("intelRdt", "needs privilege", ORIGIN), "intelRdt", False),
]


def test_every_kind_of_action_is_in_the_table():
    assert {type(action) for action, _, _ in LINES} == set(get_args(Action))


@pytest.mark.parametrize("action, line, _", LINES)
def test_an_action_is_one_line(action, line, _):
    assert describe.what(action) == line


@pytest.mark.parametrize("launcher", get_args(describe.Launcher))
@pytest.mark.parametrize("action, _, done", LINES)
def test_every_launcher_says_what_it_does(action, _, done, launcher):
    words = describe.how(action, launcher)
    assert words
    assert words.startswith(("note: ", "not done: ")) is not done


def test_what_stops_a_launch_says_so():
    assert describe.how(Unsupported("x", "missing", ORIGIN, fatal=True), "embedded") == "stops the launch: missing"
    assert describe.how(Unsupported("x", "missing", ORIGIN), "embedded") == "not done: missing"
    assert describe.how(Note("x", "skipped", ORIGIN), "bash") == "note: skipped"


def camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


def test_the_document_has_every_field_of_every_action():
    plan = Plan(("v/c=d",), tuple(action for action, _, _ in LINES), "renamed")
    document = describe.plan_document(plan, "bash")
    assert {name: document[name] for name in ("devices", "launcher", "privateDev")} == {
        "devices": ["v/c=d"],
        "launcher": "bash",
        "privateDev": "renamed",
    }
    for action, shown in zip(plan.actions, document["actions"]):
        assert shown["action"] == type(action).__name__
        assert set(shown) == {*map(camel_case, vars(action)), "action", "what", "how"}
        assert shown["origin"] == {"spec": ORIGIN.spec, "device": ORIGIN.device, "field": ORIGIN.field}


@pytest.mark.parametrize("text", ["\udcff", "a\nb\0", '"\\', "\N{SNOWMAN}"])
def test_any_value_can_be_written_as_json_and_read_back(text):
    plan = Plan((text,), (SetEnv("A", text, ORIGIN), Symlink("/" + text, text, ORIGIN)))
    document = describe.plan_document(plan, "embedded")
    assert json.loads(json.dumps(document)) == document


def test_content_that_is_not_text_can_be_written_as_json():
    document = describe.plan_document(Plan((), (WriteFile("/a", b"\xff\0", 0o644, ORIGIN),)), "embedded")
    assert json.loads(json.dumps(document))["actions"][0]["content"] == "\\xff\0"
