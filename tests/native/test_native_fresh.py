"""A plan is used exactly as long as everything it was made from is as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from native_programs import HOST_ROOT, is_fresh, state_of

from cdi_hpc.compiled import wire


def rewrite_in_place(path: Path) -> None:
    """Same inode and size, and the times set back."""
    before = path.stat()
    path.write_text(path.read_text().swapcase())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_rename(path: Path) -> None:
    before = path.stat()
    new = path.with_name("new")
    new.write_text(path.read_text())
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(path)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a file is rewritten in place, size and mtime as before": ("file", rewrite_in_place),
    "a file is replaced by rename, size and mtime as before": ("file", replace_by_rename),
    "a file grows": ("file", lambda path: path.open("a").write("more")),
    "a file's clock is set back": ("file", lambda path: os.utime(path, (0, 0))),
    "a file gets another mode": ("file", lambda path: path.chmod(0o600)),
    "a file goes away": ("file", Path.unlink),
    "a file becomes a directory": ("file", replace_by_directory),
    "a directory gets an entry": ("directory", lambda path: (path / "new").touch()),
    "a directory loses an entry": ("directory", lambda path: (path / "entry").unlink()),
    "a directory is another one of that name": ("directory", lambda path: (path.rename(f"{path}2"), path.mkdir())),
    "a directory goes away": ("directory", lambda path: path.rename(f"{path}2")),
    "an absent file appears": ("absent", Path.touch),
    "an absent directory appears": ("absent", Path.mkdir),
    "a link leads elsewhere": ("link", lambda path: (path.unlink(), path.symlink_to("directory/entry2"))),
    "a link's text is longer": ("link", lambda path: (path.unlink(), path.symlink_to("file/"))),
    "a link becomes a file": ("link", lambda path: (path.unlink(), path.touch())),
    "a node gets another mode": ("fifo", lambda path: path.chmod(0o600)),
    "a node is another one": ("fifo", lambda path: (path.rename(f"{path}2"), os.mkfifo(path))),
    "a node becomes a file": ("fifo", lambda path: (path.unlink(), path.touch())),
    "a node goes away": ("fifo", Path.unlink),
}

NO_CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "nothing happens": ("file", lambda path: None),
    "a file is read": ("file", Path.read_text),
    "a directory is listed": ("directory", lambda path: list(path.iterdir())),
    "a file in a directory changes": ("directory", lambda path: (path / "entry").write_text("x")),
    "an absent file's directory is a file": ("absent", lambda path: path.with_name("absent-2").touch()),
    "a node's times change": ("fifo", lambda path: os.utime(path, (0, 0))),
}


@pytest.fixture
def things(tmp_path) -> dict[str, Path]:
    top = tmp_path / "things"
    (top / "directory").mkdir(parents=True)
    (top / "directory" / "entry").touch()
    (top / "file").write_text("Content")
    (top / "link").symlink_to("file")
    os.mkfifo(top / "fifo")
    return {name: top / name for name in ("file", "directory", "link", "fifo", "absent")}


@pytest.mark.parametrize("what", CHANGES)
def test_a_plan_is_stale_when(what, things, cache):
    name, change = CHANGES[what]
    cache.write(state_of(things[name]), HOST_ROOT)
    assert is_fresh(cache.start(["/", "true"]))
    change(things[name])
    assert not is_fresh(cache.start(["/", "true"]))


@pytest.mark.parametrize("what", NO_CHANGES)
def test_a_plan_stays_fresh_when(what, things, cache):
    name, change = NO_CHANGES[what]
    cache.write(state_of(things[name]), HOST_ROOT)
    change(things[name])
    assert is_fresh(cache.start(["/", "true"]))


def test_below_a_file_nothing_is(things, cache):
    cache.write(wire.Absent(f"{things['file']}/below"), HOST_ROOT)
    assert is_fresh(cache.start(["/", "true"]))


def test_a_link_is_followed_to_the_file_that_counts(things, cache):
    record = state_of(things["file"])
    cache.write(wire.SameFile(str(things["link"]), *list(vars(record).values())[1:]), HOST_ROOT)
    assert is_fresh(cache.start(["/", "true"]))
    rewrite_in_place(things["file"])
    assert not is_fresh(cache.start(["/", "true"]))


@pytest.mark.parametrize("field", ["device", "inode", "size", "mtime", "ctime"])
def test_each_number_of_a_file_counts(field, things, cache):
    values = vars(state_of(things["file"]))
    cache.write(wire.SameFile(**{**values, field: values[field] + 1}), HOST_ROOT)
    assert not is_fresh(cache.start(["/", "true"]))


@pytest.mark.parametrize("field", ["device", "inode", "rdev", "st_mode", "uid", "gid"])
def test_each_number_of_a_node_counts(field, cache):
    values = vars(state_of("/dev/null"))
    cache.write(wire.SameNode(**{**values, field: values[field] ^ 1}), HOST_ROOT)
    assert not is_fresh(cache.start(["/", "true"]))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stage: stage.rename(f"{stage}2"),
        lambda stage: stage.chmod(0o770),
        lambda stage: stage.chmod(0o707),
        lambda stage: (stage.rename(f"{stage}2"), stage.symlink_to(f"{stage}2")),
        lambda stage: (stage.rmdir(), stage.touch()),
    ],
    ids=["gone", "group may write", "others may write", "a link", "a file"],
)
def test_a_plan_whose_stage_is_not_ours_alone_is_stale(spoil, cache):
    cache.write(HOST_ROOT, staged=True)
    assert is_fresh(cache.start(["/", "true"]))
    spoil(cache.stage)
    assert not is_fresh(cache.start(["/", "true"]))


def test_the_reason_is_a_note(things, cache):
    cache.write(state_of(things["file"]), HOST_ROOT)
    things["file"].unlink()
    assert cache.start(["-q", "/", "true"]).stderr == ""
    noted = cache.start(["-v", "/", "true"]).stderr
    assert noted == f"cdi-hpc: note: {things['file']}: it has changed since the plan was made\n"
