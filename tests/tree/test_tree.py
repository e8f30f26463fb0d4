"""The container's tree: paths are resolved as the kernel would with the image as its root, and never out of it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
import small_trees
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.container.tree import (
    MAX_LINKS,
    ContainerTree,
    Region,
    StagedDirectory,
    StagedFile,
    StagedLink,
    host_path,
    is_kernels,
)
from cdi_hpc.errors import CdiError
from cdi_hpc.launch import kernel


@pytest.fixture
def image(tmp_path):
    """A function that makes an image of a tree."""
    return lambda tree: ContainerTree(os.path.realpath(small_trees.make(tmp_path / "image", tree)))


RESOLVE_IN_ROOT = 0x10


def resolved_by_kernel(root: str, path: str) -> str:
    """Where the kernel arrives with ``root`` as the root directory (openat2(2) RESOLVE_IN_ROOT)."""
    top = os.open(root, os.O_PATH)
    try:
        found = kernel._openat2(top, path, os.O_PATH, RESOLVE_IN_ROOT)
    finally:
        os.close(top)
    try:
        real = os.readlink(f"/proc/self/fd/{found}")
    finally:
        os.close(found)
    assert real == root or real.startswith(root + "/")
    return real[len(root) :] or "/"


hostile_paths = st.one_of(
    small_trees.paths,
    st.lists(st.sampled_from([*small_trees.NAMES, "..", ".", ""]), max_size=6).map("/".join),
)


@given(small_trees.trees(), st.lists(hostile_paths, min_size=1, max_size=6))
def test_a_path_leads_where_the_kernel_says_it_leads(tree, paths):
    with tempfile.TemporaryDirectory() as scratch:
        root = os.path.realpath(small_trees.make(Path(scratch, "image"), tree))
        seen = ContainerTree(root)
        for path in paths:
            try:
                expected = resolved_by_kernel(root, path or "/")
            except FileNotFoundError:
                continue  # see below
            except OSError as error:
                if not (error.errno == errno.ENOTDIR and path.endswith(("/", "/.", "/.."))):
                    with pytest.raises(CdiError):
                        seen.resolve(path)
                continue
            assert seen.resolve(path) == expected
            entry = seen.entry(expected)
            assert entry is not None
            assert entry.host_path == (root + expected).rstrip("/")


#: Links that go up before they go down: after a component that is missing, ".." has no meaning to the kernel.
upward_first = st.one_of(
    small_trees.paths,
    st.builds(lambda up, path: "../" * up + path[1:], st.integers(0, 4), small_trees.paths),
    st.sampled_from(["/", "..", "/missing", "missing/x"]),
)


@given(small_trees.trees(link_texts=upward_first), small_trees.paths)
def test_a_directory_made_where_a_path_leads_is_found_by_the_path(tree, path):
    with tempfile.TemporaryDirectory() as scratch:
        root = os.path.realpath(small_trees.make(Path(scratch, "image"), tree))
        seen = ContainerTree(root)
        try:
            real_path = seen.make_directory(path)
        except CdiError:
            with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
                resolved_by_kernel(root, path + "/.")
            return
        for staged in seen.staged_in(0):
            os.mkdir(root + staged)
        assert resolved_by_kernel(root, path) == real_path


@given(small_trees.trees(), hostile_paths, st.booleans())
def test_no_path_leads_out_of_the_image(tree, path, follow):
    with tempfile.TemporaryDirectory() as scratch:
        root = os.path.realpath(small_trees.make(Path(scratch, "image"), tree))
        seen = ContainerTree(root)
        try:
            real_path = seen.resolve(path, follow=follow)
        except CdiError:
            return
        assert real_path.startswith("/")
        assert ".." not in real_path.split("/")
        entry = seen.entry(real_path)
        if entry is not None:
            inside = os.path.realpath(os.path.dirname(root + real_path))
            assert real_path == "/" or inside == os.path.dirname((root + real_path).rstrip("/"))


@pytest.mark.parametrize("links, allowed", [(MAX_LINKS, True), (MAX_LINKS + 1, False)])
def test_as_many_links_are_followed_as_the_kernel_follows(image, links, allowed):
    chain = {f"/{number}": f"-> {number + 1}" for number in range(links)}
    tree = image({**chain, f"/{links}": b""})
    if allowed:
        assert tree.resolve("/0") == resolved_by_kernel(tree.regions[0].source, "/0") == f"/{links}"
    else:
        with pytest.raises(CdiError, match="too many symbolic links inside the image"):
            tree.resolve("/0")
        with pytest.raises(OSError, match="Too many levels"):
            resolved_by_kernel(tree.regions[0].source, "/0")


def test_the_last_link_is_followed_only_on_request(image):
    tree = image({"/a": "-> etc", "/etc/b": "-> c", "/etc/c": b""})
    assert tree.resolve("/a/b") == "/etc/c"
    assert tree.resolve("/a/b", follow=False) == "/etc/b"


@pytest.mark.parametrize(
    "path, real_path",
    [("/missing", "/missing"), ("/lib/x", "/usr/lib/x"), ("/lib/x/y", "/usr/lib/x/y"), ("/out", "/srv/x"), ("", "/")],
)
def test_components_that_are_missing_stay_as_they_are(image, path, real_path):
    tree = image({"/lib": "-> usr/lib", "/usr/lib": None, "/out": "-> ../../srv/x"})
    assert tree.resolve(path) == real_path
    assert tree.entry(real_path) is None or path == ""


def test_a_file_on_the_way_is_named(image):
    with pytest.raises(CdiError, match="'/etc/a' is not a directory inside the image"):
        image({"/etc/a": b""}).resolve("/etc/a/b")


@pytest.mark.parametrize("name", ["x" * 256, "/".join(["x" * 200] * 25)], ids=["component", "path"])
def test_a_name_that_the_kernel_does_not_take_is_a_problem_and_not_a_crash(image, name):
    with pytest.raises(CdiError, match="File name too long"):
        image({}).resolve("/" + name)


# Mounts and staged entries --------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path):
    return os.path.realpath(small_trees.make(tmp_path / "other", {"/x": b"other", "/lib/y": b"", "/l": "-> /etc/a"}))


def test_a_mount_covers_what_is_below_it_and_shows_its_source(image, other):
    tree = image({"/etc/a": b"", "/mnt/z": b""})
    tree.mount("/mnt", other)
    assert tree.names("/mnt") == ["l", "lib", "x"]
    assert tree.read("/mnt/x") == b"other"
    assert tree.entry("/mnt/z") is None
    assert (tree.is_mounted("/mnt"), tree.is_mounted("/mnt/lib")) == (True, False)


def test_absolute_links_in_a_mount_start_at_the_containers_root(image, other):
    tree = image({"/etc/a": b"the image's", "/mnt": None})
    tree.mount("/mnt", other)
    assert tree.resolve("/mnt/l") == "/etc/a"
    assert tree.read("/mnt/l") == b"the image's"


def test_a_tmpfs_is_empty_but_for_what_is_staged_in_it(image):
    tree = image({"/mnt/z": b""})
    tree.mount("/mnt", None)
    assert tree.names("/mnt") == []
    tree.make_directory("/mnt/a/b")
    assert tree.names("/mnt") == ["a"]
    assert tree.staged_in(1) == {"/mnt/a": StagedDirectory(), "/mnt/a/b": StagedDirectory()}
    assert tree.staged_in(0) == {}


def test_a_mount_covers_what_was_staged_and_mounted_below_it(image, other):
    tree = image({})
    tree.make_directory("/mnt/deep")
    tree.mount("/mnt/deep", other)
    tree.mount("/mnt", None)
    assert tree.entry("/mnt/deep") is None
    assert not tree.is_mounted("/mnt/deep")
    assert tree.names("/mnt") == []


def test_what_is_staged_under_a_mount_is_still_made_before_it(image, other):
    """The mount point of the first mount has to be there, although a second mount covers it and has one as well."""
    tree = image({"/mnt": None})
    tree.make_directory("/mnt/deep")
    tree.mount("/mnt/deep", other)
    tree.mount("/mnt", None)
    tree.make_directory("/mnt/deep")
    tree.mount("/mnt/deep", other)
    assert tree.staged_in(0) == {"/mnt/deep": StagedDirectory()}
    assert tree.staged_in(2) == {"/mnt/deep": StagedDirectory()}
    assert tree.names("/mnt") == ["deep"]


def test_the_newest_of_two_mounts_in_one_place_is_seen(image, other):
    tree = image({"/mnt/z": b""})
    tree.mount("/mnt", None)
    tree.mount("/mnt", other)
    assert tree.names("/mnt") == ["l", "lib", "x"]


def test_a_file_can_be_mounted_and_is_read_from_its_source(image, other):
    tree = image({"/etc/a": b"image"})
    tree.mount("/etc/a", other + "/x")
    assert tree.read("/etc/a") == b"other"
    assert tree.names("/etc") == ["a"]


def test_staged_entries_are_seen_among_those_of_the_image(image):
    tree = image({"/etc/a": b"image", "/etc/b": b""})
    tree.put("/etc/a", StagedFile(b"ours"))
    tree.put("/etc/l", StagedLink("a"))
    assert tree.names("/etc") == ["a", "b", "l"]
    assert tree.added_names("/etc") == {"a", "l"}
    assert (tree.read("/etc/l"), tree.readlink("/etc/l")) == (b"ours", "a")
    assert tree.entry("/etc/l").kind == "link"


def test_names_are_those_of_one_directory_and_not_of_its_neighbours(image):
    tree = image({"/etc/a": b"", "/etc-b/c": b""})
    tree.put("/etc/x", StagedFile())
    tree.put("/etc-b/y", StagedFile())
    assert tree.names("/etc") == ["a", "x"]
    assert tree.names("/") == ["etc", "etc-b"]


@pytest.mark.parametrize("path", ["/etc/a", "/etc/missing"])
def test_only_a_directory_has_names(image, path):
    with pytest.raises(OSError, match="Not a directory"):
        image({"/etc/a": b""}).names(path)


@pytest.mark.parametrize("path", ["/etc", "/fifo", "/l"])
def test_only_a_regular_file_is_opened(image, path):
    tree = image({"/etc": None, "/l": "-> fifo"})
    os.mkfifo(tree.regions[0].source + "/fifo")
    with pytest.raises(OSError, match="not a regular file"):
        tree.open(path)
    assert tree.read(path) is None


def test_what_can_not_be_read_is_none(image):
    tree = image({"/a/b": b"", "/loop": "-> loop"})
    assert [tree.read(path) for path in ("/missing", "/loop", "/a/b/c", "/a")] == [None] * 4


def test_reading_stops_at_the_limit(image):
    assert image({"/a": b"123456"}).read("/a", limit=3) == b"123"


def test_only_a_link_has_a_text(image):
    with pytest.raises(OSError, match="Invalid argument"):
        image({"/a": b""}).readlink("/a")


@pytest.mark.parametrize("path", ["/etc/a", "/etc/a/b", "/l"])
def test_a_directory_is_not_made_over_or_below_a_file(image, path):
    with pytest.raises(CdiError, match="is not a directory inside the image"):
        image({"/etc/a": b"", "/l": "-> etc/a"}).make_directory(path)


def test_missing_parents_are_made_where_links_lead(image):
    tree = image({"/lib": "-> /usr/lib", "/usr": None, "/out": "-> ../../../srv"})
    assert tree.make_directory("/lib/x") == "/usr/lib/x"
    assert tree.make_directory("/out/y") == "/srv/y"
    assert list(tree.staged_in(0)) == ["/srv", "/srv/y", "/usr/lib", "/usr/lib/x"]


@pytest.mark.parametrize("path", ["/proc/driver", "/sys/x/y"])
def test_only_the_kernel_makes_files_in_its_own_file_systems(image, path):
    top = "/" + path.split("/")[1]
    tree = image({top: None})
    tree.mount(top, top)
    with pytest.raises(CdiError, match="only the kernel makes files below it"):
        tree.make_directory(path + "/no-such-thing")


@pytest.mark.parametrize("top", ["/proc", "/sys"])
def test_an_image_may_lack_the_kernels_directories(image, top):
    tree = image({})
    tree.make_directory(top)
    assert tree.staged_in(0) == {top: StagedDirectory()}


@pytest.mark.parametrize(
    "region, path, expected",
    [
        (Region("/", "/"), "/", "/"),
        (Region("/", "/"), "/etc/a", "/etc/a"),
        (Region("/", "/img"), "/", "/img"),
        (Region("/", "/img"), "/etc/a", "/img/etc/a"),
        (Region("/mnt", "/srv/d"), "/mnt", "/srv/d"),
        (Region("/mnt", "/srv/d"), "/mnt/x", "/srv/d/x"),
        (Region("/mnt", "/"), "/mnt/x", "/x"),
        (Region("/mnt/a", "/dev/null"), "/mnt/a", "/dev/null"),
    ],
)
def test_a_region_says_where_the_host_keeps_it(region, path, expected):
    assert host_path(region, path) == expected


@pytest.mark.parametrize(
    "path, kernels",
    [("/proc/1", True), ("/sys/x", True), ("/proc", False), ("/process/x", False), ("/srv/proc/x", False)],
)
def test_only_paths_below_proc_and_sys_are_the_kernels(path, kernels):
    assert is_kernels(path) is kernels
