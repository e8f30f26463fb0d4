from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path

import pytest

from cdi_hpc.spec.registry import (
    DEFAULT_DIRECTORIES,
    SpecDirectory,
    load_registry,
    load_spec,
    spec_directories,
    spec_files,
    unread_files,
)
from cdi_hpc.witness import Recorder


def spec(*devices, kind="vendor.com/gpu", version="0.5.0"):
    edited = [{"name": name, "containerEdits": {"env": [f"A={name}"]}} for name in devices]
    return json.dumps({"cdiVersion": version, "kind": kind, "devices": edited})


@pytest.fixture
def directory(tmp_path):
    """Writes files into a new directory of this name."""

    def make(name, **files):
        path = tmp_path / name
        path.mkdir()
        for file, text in files.items():
            (path / file.replace("_", ".")).write_text(text)
        return SpecDirectory(str(path), named=True)

    return make


def texts(problems):
    return [str(problem) for problem in problems]


def test_a_later_directory_wins_and_the_loser_is_told(directory):
    first, second = directory("first", a_yaml=spec("0", "1")), directory("second", b_yaml=spec("1", "2"))
    registry = load_registry([first, second])
    assert {name: device.spec.path for name, device in registry.devices.items()} == {
        "vendor.com/gpu=0": f"{first.path}/a.yaml",
        "vendor.com/gpu=1": f"{second.path}/b.yaml",
        "vendor.com/gpu=2": f"{second.path}/b.yaml",
    }
    [shadowed] = registry.shadowed
    assert (shadowed.name, shadowed.path, shadowed.winner) == (
        "vendor.com/gpu=1",
        f"{first.path}/a.yaml",
        f"{second.path}/b.yaml",
    )
    assert registry.errors == {}


def test_two_files_of_one_directory_take_a_device_from_everybody(directory):
    low = directory("low", z_json=spec("0"))
    middle = directory("middle", a_json=spec("0", "1"), b_json=spec("0"))
    high = directory("high", c_json=spec("0"))
    registry = load_registry([low, middle, high])
    assert list(registry.devices) == ["vendor.com/gpu=1"]
    files = (f"{middle.path}/a.json", f"{middle.path}/b.json")
    assert registry.conflicts == {"vendor.com/gpu=0": files}
    assert sorted(registry.errors) == sorted(files)
    for path in files:
        [problem] = registry.errors[path]
        assert all(repr(file) in problem.what for file in files)


def test_a_file_with_an_error_counts_for_nothing_but_its_devices_are_known(directory):
    broken = directory("d", a_json=spec("0", version="9"), b_json=spec("1"))
    registry = load_registry([broken])
    assert list(registry.devices) == ["vendor.com/gpu=1"]
    assert registry.broken == {"vendor.com/gpu=0": (f"{broken.path}/a.json",)}
    assert list(registry.errors) == [f"{broken.path}/a.json"]


def test_vendors_classes_kinds_and_warnings_are_those_of_all_good_files(directory):
    without = '{"cdiVersion": "0.5.0", "kind": "ch/example", "containerEdits": {"env": ["A=b"]}}'
    registry = load_registry([directory("d", a_json=spec("0"), b_json=spec("x", kind="acme/gpu"), c_json=without)])
    assert registry.vendors() == ("acme", "ch", "vendor.com")
    assert registry.classes() == ("example", "gpu")
    assert registry.kinds() == ("acme/gpu", "ch/example", "vendor.com/gpu")
    assert [loaded.devices() for loaded in registry.specs] == [("vendor.com/gpu=0",), ("acme/gpu=x",), ()]
    assert "no 'devices'" in registry.warnings[0].what


def test_only_files_with_the_two_suffixes_are_read_in_the_order_of_their_names(directory):
    place = directory("d")
    for name in [
        "b.yaml",
        "a.json",
        ".json",
        "..yaml",
        "x.yml",
        "x.JSON",
        "x.json.bak",
        "json",
        "\u00e9.yaml",
        "B.json",
    ]:
        (Path(place.path) / name).write_text("")
    (Path(place.path) / "sub.yaml").mkdir()
    found = [os.path.basename(path) for path in spec_files(place)]
    assert found == ["..yaml", ".json", "B.json", "a.json", "b.yaml", "\u00e9.yaml"]
    unread = load_registry([place]).unread
    assert [os.path.basename(problem.where) for problem in unread] == ["x.JSON", "x.yml"]
    assert unread == tuple(unread_files(place))


def test_links_to_files_and_to_directories_are_followed(directory, tmp_path):
    real = directory("real", a_json=spec("0"))
    (tmp_path / "link").symlink_to("real")
    linked = directory("linked")
    (Path(linked.path) / "b.yaml").symlink_to(f"{real.path}/a.json")
    for path in (str(tmp_path / "link"), linked.path):
        assert list(load_registry([SpecDirectory(path, named=True)]).devices) == ["vendor.com/gpu=0"]


def test_what_is_no_regular_file_is_refused_without_being_opened(directory):
    place = directory("d")
    root = Path(place.path)
    os.mkfifo(root / "fifo.yaml")
    (root / "null.json").symlink_to("/dev/null")
    (root / "dir.json").symlink_to("/")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket.yaml"))
        registry = load_registry([place])
    assert {os.path.basename(path): problems[0].what for path, problems in registry.errors.items()} == {
        "fifo.yaml": "a spec must be a regular file, this is a FIFO",
        "null.json": "a spec must be a regular file, this is a character device",
        "dir.json": "a spec must be a regular file, this is a directory",
        "socket.yaml": "a spec must be a regular file, this is a socket",
    }


def test_a_link_to_nowhere_is_an_error_that_names_the_target(directory):
    place = directory("d")
    (Path(place.path) / "a.yaml").symlink_to("gone.yaml")
    [problems] = load_registry([place]).errors.values()
    assert "the link points to 'gone.yaml', which doesn't exist" in problems[0].what


def test_a_named_directory_must_exist_and_a_default_one_need_not(tmp_path):
    absent = str(tmp_path / "absent")
    assert load_registry([SpecDirectory(absent)]).errors == {}
    [problem] = load_registry([SpecDirectory(absent, named=True)]).errors[absent]
    assert str(problem) == (
        f"{absent}: the spec directory doesn't exist (name another one, there or in CDI_HPC_DIRS, or make it)"
    )


def test_a_file_named_as_a_directory_is_told_apart(directory):
    path = f"{directory('d', a_json=spec('0')).path}/a.json"
    [problem] = load_registry([SpecDirectory(path, named=True)]).errors[path]
    assert problem.what == "the spec directory is not a directory"


def test_a_file_that_does_not_exist_is_an_error_of_its_own(tmp_path):
    assert texts(load_spec(str(tmp_path / "a.json")).errors) == [f"{tmp_path}/a.json: the spec file doesn't exist"]


def test_what_may_not_be_read_is_an_error_that_says_what_to_ask_for():
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o711)  # noqa: S103 - the ordinary user has to get to what it may not read
        closed, locked = Path(root, "closed"), Path(root, "locked")
        closed.mkdir()
        (closed / "a.json").write_text(spec("0"))
        (closed / "a.json").chmod(0o000)
        locked.mkdir(0o000)
        directories = [SpecDirectory(str(closed), named=True), SpecDirectory(str(locked))]
        assert as_an_ordinary_user(lambda: errors_of(directories)) == {
            f"{closed}/a.json": [
                f"{closed}/a.json: Permission denied (ask its owner or an administrator to chmod 644 {closed}/a.json)"
            ],
            str(locked): [f"{locked}: Permission denied (ask its owner or an administrator to chmod 755 {locked})"],
        }


def errors_of(directories):
    return {path: texts(problems) for path, problems in load_registry(directories).errors.items()}


def as_an_ordinary_user(function):
    """The function's result, computed by a process without root's rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as result:
        text = result.read()
    os.waitpid(child, 0)
    return json.loads(text)


def test_the_same_directory_twice_wins_against_itself(directory):
    place = directory("d", a_json=spec("0"))
    registry = load_registry([place, place])
    assert list(registry.devices) == ["vendor.com/gpu=0"]
    assert (registry.errors, registry.shadowed) == ({}, ())
    assert len(registry.of_kind("vendor.com/gpu")) == 1


def test_every_path_that_decided_something_is_remembered(directory, tmp_path):
    place = directory("d", a_json=spec("0"), b_json="", c_txt="")
    absent = SpecDirectory(str(tmp_path / "absent"))
    recorder = Recorder()
    load_registry([place, absent], witness=recorder)
    seen = {state.path for state in recorder.states()}
    assert seen >= {place.path, f"{place.path}/a.json", f"{place.path}/b.json", absent.path}
    assert f"{place.path}/c.txt" not in seen


def test_the_environment_and_the_command_line_replace_the_default_directories():
    assert spec_directories({}) == tuple(SpecDirectory(path) for path in DEFAULT_DIRECTORIES)
    environ = {"CDI_HPC_DIRS": "/a:/b//c:"}
    assert spec_directories(environ) == (SpecDirectory("/a", named=True), SpecDirectory("/b/c", named=True))
    assert spec_directories(environ, ["/d"]) == (SpecDirectory("/d", named=True),)
    assert spec_directories({"CDI_HPC_DIRS": ""}) == spec_directories({})
