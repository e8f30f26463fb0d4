"""What was seen is known by states that change with it, and with nothing else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc import witness
from cdi_hpc.host import LiveHost
from cdi_hpc.spec.registry import SpecDirectory, load_registry
from cdi_hpc.witness import (
    AbsentState,
    ChangedError,
    DirectoryState,
    FileState,
    LinkState,
    NodeState,
    Recorder,
    State,
)


@pytest.fixture
def top(tmp_path) -> Path:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").write_text("content")
    (tmp_path / "link").symlink_to("directory/file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def states(*looks: tuple[Path | str, witness.Aspect]) -> tuple[State, ...]:
    recorder = Recorder()
    for path, aspect in looks:
        recorder.saw(str(path), aspect)
    return recorder.states()


def kinds(*looks: tuple[Path | str, witness.Aspect]) -> list[tuple[type, str]]:
    return [(type(state), state.path) for state in states(*looks)]


def test_a_name_is_covered_by_its_directory(top):
    here = str(top)
    assert kinds((top / "directory", "name"), (top / "missing", "name"), (top / "link", "name")) == [
        (DirectoryState, here)
    ]


def test_a_name_in_a_missing_directory_is_covered_by_that_it_is_missing(top):
    assert kinds((top / "no" / "such", "name")) == [(AbsentState, f"{top}/no")]


@pytest.mark.parametrize(
    "name, aspect, kind",
    [
        ("directory", "names", DirectoryState),
        ("directory", "node", NodeState),
        ("directory/file", "content", FileState),
        ("directory/file", "node", FileState),
        ("link", "content", FileState),
        ("link", "node", FileState),
        ("link", "link", LinkState),
        ("dangling", "link", LinkState),
        ("dangling", "content", AbsentState),
        ("dangling", "node", AbsentState),
        ("loop", "node", AbsentState),
        ("loop", "link", LinkState),
        ("fifo", "node", NodeState),
        ("fifo", "content", NodeState),
        ("missing", "content", AbsentState),
        ("missing", "names", AbsentState),
        ("missing", "link", AbsentState),
        ("directory/file", "names", NodeState),
        ("directory/file/below", "node", AbsentState),
        ("x" * 300, "node", AbsentState),
        # That something is no link is a state too, and not that of nothing being there.
        ("directory", "link", NodeState),
        ("directory/file", "link", NodeState),
    ],
)
def test_each_look_has_its_kind_of_state(top, name, aspect, kind):
    assert kinds((top / name, aspect)) == [(kind, f"{top}/{name}")]


def test_what_is_below_a_restless_directory_stands_for_itself():
    assert kinds(("/dev/null", "name"), ("/proc/version", "name"), ("/dev/none", "name")) == [
        (NodeState, "/dev/null"),
        (NodeState, "/proc/version"),
        (AbsentState, "/dev/none"),
    ]


def test_what_is_in_a_directory_for_everybody_stands_for_itself(top):
    (top / "tmp").mkdir()
    (top / "tmp").chmod(0o1777)
    (top / "tmp" / "file").write_text("")
    looks = [(top / "tmp" / "file", "name"), (top / "tmp" / "missing", "name"), ("/run/x", "name"), ("/tmp/x", "name")]
    before = states(*looks)
    assert [state.path for state in before] == [str(path) for path, _ in looks]
    (top / "tmp" / "another").write_text("")
    (top / "tmp" / "file").write_text("its content was not looked at")
    assert states(*looks) == before
    (top / "tmp" / "missing").write_text("")
    assert states(*looks) != before


def test_a_directory_that_only_begins_like_a_restless_one_is_none(top):
    assert kinds(("/development/x", "name")) == [(AbsentState, "/development")]


def rewrite(path: Path) -> None:
    """Same size, same times, same inode."""
    before = path.stat()
    path.write_text(path.read_text()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(path: Path) -> None:
    """The same file, as far as its content and its times tell."""
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


CHANGES: list[tuple[str, witness.Aspect, Callable[[Path], object]]] = [
    ("directory/file", "content", rewrite),
    ("directory/file", "content", swap),
    ("directory/file", "content", os.unlink),
    ("directory/file", "content", lambda path: path.chmod(0o600)),
    ("directory/file", "name", os.unlink),
    ("directory/file", "name", swap),
    ("directory/other", "name", lambda path: path.write_text("")),
    ("directory/other", "name", lambda path: path.symlink_to("nowhere")),
    ("directory", "names", lambda path: (path / "other").mkdir()),
    ("directory", "names", lambda path: path.chmod(0o700)),
    ("directory", "node", lambda path: path.chmod(0o700)),
    ("directory", "node", lambda path: [path.rename(path.with_name("old")), path.mkdir()]),
    ("link", "content", lambda path: rewrite(path.parent / "directory/file")),
    ("link", "link", lambda path: [path.unlink(), path.symlink_to("elsewhere")]),
    ("link", "link", lambda path: [path.unlink(), path.write_text("")]),
    ("dangling", "content", lambda path: (path.parent / "nowhere").write_text("")),
    ("missing", "node", lambda path: path.mkdir()),
    ("missing", "names", lambda path: path.write_text("")),
    ("fifo", "node", lambda path: path.chmod(0o600)),
    ("fifo", "node", lambda path: [path.unlink(), path.write_text("")]),
]


@pytest.mark.parametrize("name, aspect, change", CHANGES)
def test_what_changes_has_another_state(top, name, aspect, change):
    before = states((top / name, aspect))
    change(top / name)
    assert states((top / name, aspect)) != before


@pytest.mark.parametrize("name, aspect, change", CHANGES)
def test_what_changes_while_it_is_translated_is_noticed(top, name, aspect, change):
    recorder = Recorder()
    recorder.saw(str(top / name), aspect)
    change(top / name)
    with pytest.raises(ChangedError, match="changed while it was being translated"):
        recorder.states()


UNCHANGED: list[tuple[str, witness.Aspect, Callable[[Path], object]]] = [
    ("directory/file", "content", Path.read_text),
    ("directory/file", "name", rewrite),
    ("directory", "node", lambda path: (path / "other").write_text("")),
    ("directory", "names", lambda path: rewrite(path / "file")),
    ("directory", "names", lambda path: (path.parent / "other").mkdir()),
    ("link", "link", lambda path: rewrite(path.parent / "directory/file")),
    ("fifo", "node", os.utime),
    ("missing", "node", lambda path: (path.parent / "other").mkdir()),
]


@pytest.mark.parametrize("name, aspect, change", UNCHANGED)
def test_what_does_not_matter_leaves_the_state_alone(top, name, aspect, change):
    recorder = Recorder()
    recorder.saw(str(top / name), aspect)
    before = recorder.states()
    change(top / name)
    assert recorder.states() == before == states((top / name, aspect))


def test_what_changed_a_moment_ago_is_looked_at_a_moment_later(top):
    """A file's times stand still for a tick of the clock: a second change in it would have the same ones."""
    path = top / "directory" / "file"
    recorder = Recorder()
    path.write_text("changed")
    recorder.saw(str(path), "content")
    assert time.time_ns() - path.stat().st_ctime_ns >= witness._TICK
    assert recorder.states()


def test_times_in_the_future_hold_up_nobody(top):
    path = top / "directory" / "file"
    later = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(later, later))
    (state,) = states((path, "content"))
    assert state.mtime == later


def test_what_never_rests_is_no_state(top, monkeypatch):
    """As if a tick took an hour."""
    monkeypatch.setattr(witness, "_WAITS", 2)
    monkeypatch.setattr(witness, "_TICK", 3600 * 10**9)
    monkeypatch.setattr(witness.time, "sleep", lambda _: None)
    recorder = Recorder()
    recorder.saw(str(top / "directory"), "names")
    with pytest.raises(ChangedError):
        recorder.states()


def test_the_first_look_counts(top):
    recorder = Recorder()
    path = top / "directory" / "file"
    recorder.saw(str(path), "content")
    rewrite(path)
    recorder.saw(str(path), "content")
    with pytest.raises(ChangedError):
        recorder.states()


def test_a_node_that_a_link_leads_to_is_known_by_both_paths(top):
    recorder = Recorder()
    node = LiveHost(recorder).node(f"{top}/link")
    assert node is not None
    assert {state.path for state in recorder.states()} == {f"{top}/link", node.real_path}


def test_the_registry_watches_directories_that_are_not_there(top):
    def seen() -> tuple[State, ...]:
        recorder = Recorder()
        load_registry([SpecDirectory(f"{top}/absent"), SpecDirectory(f"{top}/directory")], witness=recorder)
        return recorder.states()

    before = seen()
    assert AbsentState(f"{top}/absent") in before
    (top / "absent").mkdir()
    assert seen() != before


@given(
    looks=st.lists(st.tuples(st.sampled_from(["a", "a/b", "c", "a/b/c"]), st.sampled_from(["name", "node", "link"])))
)
def test_looking_changes_nothing(tmp_path_factory, looks):
    top = tmp_path_factory.mktemp("looking")
    (top / "a" / "b").mkdir(parents=True)
    (top / "c").symlink_to("a")
    found = [(top / name, aspect) for name, aspect in looks]
    assert states(*found) == states(*found)


@pytest.mark.parametrize("path", ["/proc", "/sys", "/dev", "/dev/shm", "/tmp"])
def test_what_every_container_has_by_its_name_may_be_another(path):
    recorder = Recorder()
    node = LiveHost(recorder).node(path)
    assert node is not None
    assert recorder.states() == ()


def test_a_link_is_no_directory_that_counts_by_its_name(top, monkeypatch):
    (top / "tmp").symlink_to(top / "directory")
    monkeypatch.setattr(witness, "_BY_NAME", frozenset((str(top / "tmp"),)))
    recorder = Recorder()
    LiveHost(recorder).node(str(top / "tmp"))
    assert {state.path for state in recorder.states()} == {str(top / "tmp"), str(top / "directory")}
