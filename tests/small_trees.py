"""Small directory trees: written in one line each, or drawn by hypothesis."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Union

from hypothesis import strategies as st

#: What is at a path: None or a mode for a directory, bytes for a file, "-> TEXT" for a link.
Thing = Union[None, int, bytes, str]
Tree = Mapping[str, Thing]


def make(root: Path, tree: Tree) -> Path:
    """Make a tree below a directory, parents first; parents that are not mentioned are made."""
    root.mkdir(exist_ok=True)
    root.chmod(0o755)
    for path, thing in tree.items():
        place = os.path.join(root, path.lstrip("/"))
        os.makedirs(posixpath.dirname(place), exist_ok=True)
        _make_one(place, thing)
    # Modes last: a directory may be one that its owner can't write to.
    for path, thing in tree.items():
        if isinstance(thing, int):
            os.chmod(os.path.join(root, path.lstrip("/")), thing)
    return root


def _make_one(place: str, thing: Thing) -> None:
    if thing is None or isinstance(thing, int):
        os.makedirs(place, exist_ok=True)
    elif isinstance(thing, bytes):
        Path(place).write_bytes(thing)
    else:
        os.symlink(thing[len("-> ") :], place)


#: Names that say what they are meant to be, so that failures can be read.
DIRECTORY_NAMES = ("bin", "etc", "lib", "usr")
NAMES = (*DIRECTORY_NAMES, "a", "b")

directories = st.lists(st.sampled_from(DIRECTORY_NAMES), max_size=3).map(lambda names: "/" + "/".join(names))
paths = st.builds(posixpath.join, directories, st.sampled_from(NAMES))

#: Link texts: relative and absolute, up and out, to what is there and to what is not.
texts = st.one_of(
    paths,
    st.builds(
        lambda up, path: "../" * up + path[1:],
        st.integers(0, 4),
        paths,
    ),
    st.sampled_from(["/", ".", "..", "/..", "./a", "//etc//a", "a/../b", "/etc/../usr", "missing/x"]),
)


@st.composite
def trees(draw: st.DrawFn, *, modes: bool = False, link_texts: st.SearchStrategy[str] = texts) -> dict[str, Thing]:
    """A tree in which every parent is a directory of that tree."""
    made: dict[str, Thing] = {"/": None}
    directory_modes = st.sampled_from([0o755, 0o755, 0o555, 0o1777, 0o700]) if modes else st.none()
    things = st.one_of(
        directory_modes,
        st.sampled_from([b"", b"one", b"two"]),
        link_texts.map("-> {}".format),
    )
    for path in draw(st.lists(paths, max_size=12)):
        missing = [path]
        while posixpath.dirname(missing[-1]) not in made:
            missing.append(posixpath.dirname(missing[-1]))
        if path in made or not _is_directory(made[posixpath.dirname(missing[-1])]):
            continue
        for parent in reversed(missing[1:]):
            made[parent] = draw(directory_modes)
        made[path] = draw(things)
    del made["/"]
    return made


def _is_directory(thing: Thing) -> bool:
    return thing is None or isinstance(thing, int)


def contents(root: str, skip: tuple[str, ...] = ()) -> dict[str, str]:
    """What is below a directory: path -> what it is. Names, kinds, link texts and contents, for comparison."""
    found: dict[str, str] = {}
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(root + directory) as entries:
            for entry in entries:
                path = f"{directory}/{entry.name}"
                found[path] = describe(entry.path)
                if entry.is_dir(follow_symlinks=False) and path not in skip:
                    waiting.append(path)
    return found


def describe(path: str) -> str:
    if os.path.islink(path):
        return f"link {os.readlink(path)}"
    if os.path.isdir(path):
        return "directory"
    if os.path.isfile(path):
        return f"file {Path(path).read_bytes()!r}"
    return "special"


def fingerprint(root: str) -> dict[str, tuple[object, ...]]:
    """Everything that a write would change below a directory, times included (but for those of access)."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for path in [directory, *(os.path.join(directory, name) for name in (*names, *files))]:
            status = os.lstat(path)
            identity = (status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_nlink)
            found[path] = (*identity, status.st_mtime_ns, status.st_ctime_ns, describe(path))
    return found
