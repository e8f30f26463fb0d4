"""Actions put into a tree: what is made, what is covered, what is refused."""

from __future__ import annotations

import os
import posixpath
from dataclasses import replace

import pytest
import small_trees

from cdi_hpc.container.stage import CoverFile, assemble
from cdi_hpc.container.tree import StagedDirectory, StagedFile, StagedLink
from cdi_hpc.errors import CdiError
from cdi_hpc.plan import (
    COMMAND_LINE,
    Bind,
    CudaCompat,
    MountFilesystem,
    Note,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.spec.model import Origin

ORIGIN = Origin("/etc/cdi/a.yaml", "v/c=d", "devices[0]")
DIRECTORY, EMPTY = StagedDirectory(), StagedFile(is_mount_point=True)


@pytest.fixture
def place(tmp_path):
    """A function: put actions into an image made of a tree."""

    def assemble_in(tree, *actions):
        return assemble(actions, os.path.realpath(small_trees.make(tmp_path / "image", tree)))

    return assemble_in


@pytest.fixture
def host(tmp_path):
    """Things of the host that can be bound; the path of the directory they are in."""
    tree = {"/d/f": b"host file", "/d/sub/g": b"", "/f": b"host file"}
    return os.path.realpath(small_trees.make(tmp_path / "host", tree))


def bind(source, target, *flags):
    return Bind(source, target, "directory" if os.path.isdir(source) else "file", ORIGIN, flags)


def link(path, points_to):
    return Symlink(path, points_to, ORIGIN)


def tmpfs(target, **fields):
    return MountFilesystem("tmpfs", "tmpfs", target, ORIGIN, **fields)


def write(path, content=b"ours"):
    return WriteFile(path, content, 0o444, ORIGIN)


def targets(assembly):
    return [assembly.tree.regions[mount.region].target for mount in assembly.mounts]


# Binds ----------------------------------------------------------------------------------------------------------


def test_a_mount_point_that_is_there_is_used(place, host):
    assembly = place({"/mnt": None, "/etc/f": b""}, bind(host + "/d", "/mnt"), bind(host + "/f", "/etc/f"))
    assert targets(assembly) == ["/mnt", "/etc/f"]
    assert assembly.tree.staged_in(0) == {}


def test_a_missing_mount_point_is_made_as_what_is_bound(place, host):
    assembly = place({}, bind(host + "/d", "/a/b"), bind(host + "/f", "/c/f"), bind("/dev/null", "/c/null"))
    assert assembly.tree.staged_in(0) == {
        "/a": DIRECTORY,
        "/a/b": DIRECTORY,
        "/c": DIRECTORY,
        "/c/f": EMPTY,
        "/c/null": EMPTY,
    }


@pytest.mark.parametrize(
    "written, real_path",
    [
        ("/lib/libx.so", "/usr/lib/libx.so"),
        ("/usr/lib/alias", "/usr/lib/real"),
        ("/usr/lib/dangling", "/srv/new"),
        ("/usr/lib/out", "/etc/passwd"),
        ("/lib/../x", "/usr/x"),
    ],
)
def test_a_bind_follows_links_and_stays_in_the_image(place, host, written, real_path):
    tree = {
        "/lib": "-> usr/lib",
        "/usr/lib/real": b"",
        "/usr/lib/alias": "-> real",
        "/usr/lib/dangling": "-> /srv/new",
        "/usr/lib/out": "-> ../../../../../../../../etc/passwd",
    }
    assert targets(place(tree, bind(host + "/f", written))) == [real_path]


@pytest.mark.parametrize(
    "source, target, words",
    [
        ("/d", "/etc/f", "is a directory, but '/etc/f' is not a directory in the image"),
        ("/f", "/etc", "is a file, but '/etc' is a directory in the image"),
        ("/f", "/etc/f/x", "'/etc/f' is not a directory inside the image"),
        ("/d", "/l", "is a directory, but '/etc/f' is not a directory in the image"),
        ("/f", "/up", "leads to the container's root"),
        ("/d", "/up", "leads to the container's root"),
        ("/f", "/loop/x", "too many symbolic links"),
    ],
)
def test_a_bind_that_does_not_fit_is_refused_with_its_origin(place, host, source, target, words):
    with pytest.raises(CdiError, match=words) as raised:
        place({"/etc/f": b"", "/l": "-> etc/f", "/up": "-> ..", "/loop": "-> loop"}, bind(host + source, target))
    assert raised.value.problems[0].where.startswith(str(ORIGIN))


def test_a_bind_below_a_bound_directory_is_seen_in_it(place, host):
    assembly = place({}, bind(host + "/d", "/a", "ro"), bind(host + "/f", "/a/f"), bind(host + "/f", "/a/sub/new"))
    assert targets(assembly) == ["/a", "/a/f", "/a/sub/new"]
    assert assembly.tree.staged_in(0) == {"/a": DIRECTORY}
    assert assembly.tree.staged_in(1) == {"/a/sub/new": EMPTY}
    assert assembly.tree.read("/a/sub/new") == b"host file"


def test_a_bind_in_the_place_of_another_covers_it(place, host):
    assembly = place({"/f": b"image"}, bind(host + "/d/sub/g", "/f"), bind(host + "/f", "/f"))
    assert assembly.tree.read("/f") == b"host file"
    assert targets(assembly) == ["/f", "/f"]


def test_a_directory_of_the_image_below_a_bound_one_is_not_there(place, host):
    assembly = place({"/a/only-image": None}, bind(host + "/d", "/a"))
    assert assembly.tree.names("/a") == ["f", "sub"]


# File systems ---------------------------------------------------------------------------------------------------


def test_a_new_file_system_gets_a_directory_and_its_mount_points(place, host):
    assembly = place({"/l": "-> scratch"}, tmpfs("/l"), bind(host + "/f", "/scratch/x/f"), link("/l/y", "x"))
    assert targets(assembly) == ["/scratch", "/scratch/x/f"]
    assert assembly.tree.staged_in(0) == {"/scratch": DIRECTORY}
    assert assembly.tree.staged_in(1) == {"/scratch/x": DIRECTORY, "/scratch/x/f": EMPTY, "/scratch/y": StagedLink("x")}


@pytest.mark.parametrize(
    "target, words", [("/etc/f", "is not a directory inside the image"), ("/up", "leads to the container's root")]
)
def test_a_file_system_that_does_not_fit_is_refused(place, target, words):
    with pytest.raises(CdiError, match=words):
        place({"/etc/f": b"", "/up": "-> .."}, tmpfs(target))


# Links ----------------------------------------------------------------------------------------------------------


def test_a_link_with_the_same_text_needs_nothing(place):
    assert place({"/lib/a": "-> b"}, link("/lib/a", "b")).tree.staged_in(0) == {}


@pytest.mark.parametrize("present", [b"file", "-> elsewhere", "-> /", "-> a"])
def test_a_link_covers_a_file_or_another_link(place, present):
    assembly = place({"/lib/a": present}, link("/lib/a", "b"))
    assert assembly.tree.staged_in(0) == {"/lib/a": StagedLink("b")}


def test_a_link_replaces_the_link_and_not_what_it_leads_to(place):
    assembly = place({"/lib/a": "-> /etc/b", "/etc/b": b""}, link("/lib/a", "c"))
    assert list(assembly.tree.staged_in(0)) == ["/lib/a"]


def test_the_later_of_two_links_in_one_place_is_seen(place):
    assembly = place({"/a": "-> b"}, link("/a", "c"), link("/a", "d"))
    assert assembly.tree.readlink("/a") == "d"


def test_a_link_that_the_first_covered_and_the_second_asks_for_is_there(place):
    assembly = place({"/a": "-> b"}, link("/a", "c"), link("/a", "b"))
    assert assembly.tree.readlink("/a") == "b"


@pytest.mark.parametrize(
    "path, real_path",
    [("/lib/x/a", "/usr/lib/x/a"), ("/out/a", "/etc/a"), ("/new/deep/a", "/new/deep/a")],
)
def test_a_links_parents_are_made_inside_the_image(place, path, real_path):
    tree = {"/lib": "-> /usr/lib", "/usr/lib": None, "/out": "-> ../../../../../../etc"}
    assembly = place(tree, link(path, "t"))
    staged = assembly.tree.staged_in(0)
    assert staged[real_path] == StagedLink("t")
    assert set(staged) - {real_path} <= {"/usr/lib/x", "/etc", "/new", "/new/deep"}


@pytest.mark.parametrize(
    "path, words",
    [
        ("/lib", "'/lib' is a directory in the image and can't be replaced by a file"),
        ("/", "a link can't replace the container's root"),
        ("/etc/f/a", "'/etc/f' is not a directory inside the image"),
    ],
)
def test_a_link_that_does_not_fit_is_refused(place, path, words):
    with pytest.raises(CdiError, match=words):
        place({"/lib/x": b"", "/etc/f": b""}, link(path, "t"))


def test_a_link_does_not_replace_what_another_edit_mounts(place, host):
    with pytest.raises(CdiError, match="another edit mounts something there"):
        place({}, bind(host + "/f", "/lib/a"), link("/lib/a", "t"))


def test_who_has_bound_something_in_a_links_place_is_told_that_it_is_his_bind(place, host):
    theirs = replace(bind(host + "/f", "/lib/a"), origin=Origin(COMMAND_LINE, "", "--bind f:/lib/a"))
    with pytest.raises(CdiError, match=r"/lib/a: your --bind f:/lib/a is there \(leave it out: the device brings it\)"):
        place({}, theirs, link("/lib/a", "t"))


def test_a_bind_goes_where_a_staged_link_leads(place, host):
    assembly = place({}, link("/lib/a", "b"), bind(host + "/f", "/lib/a"))
    assert targets(assembly) == ["/lib/b"]
    assert assembly.tree.staged_in(0) == {"/lib": DIRECTORY, "/lib/a": StagedLink("b"), "/lib/b": EMPTY}


def test_a_link_in_a_bound_directory_is_staged_over_it(place, host):
    assembly = place({}, bind(host + "/d", "/a", "ro"), link("/a/f", "elsewhere"), link("/a/new", "f"))
    assert assembly.tree.staged_in(1) == {"/a/f": StagedLink("elsewhere"), "/a/new": StagedLink("f")}
    assert assembly.tree.names("/a") == ["f", "new", "sub"]


@pytest.mark.parametrize("path, missing", [("/a/new", "new"), ("/a/sub/new", "sub/new"), ("/a/new/deep", "new")])
def test_nothing_is_staged_where_the_user_makes_files_himself(place, host, path, missing):
    """A copy would take the directory's place, and with it every file that he makes there."""
    for action in (bind(host + "/f", path), link(path, "x")):
        with pytest.raises(CdiError, match=f"make '{host}/d/{missing}' first"):
            place({}, bind(host + "/d", "/a"), action)


def test_on_the_host_as_image_the_same_holds_for_his_own_directories(host):
    with pytest.raises(CdiError, match=f"make '{host}/new' first"):
        assemble([bind("/dev/null", host + "/new")], "/")


def test_files_of_tmp_are_not_meant_to_last_so_a_copy_takes_its_place(place, host):
    assembly = place({}, bind(host + "/d", "/tmp"), link("/tmp/new", "f"))
    assert assembly.tree.staged_in(1) == {"/tmp/new": StagedLink("f")}
    assert assembly.tree.regions[1].scratch


# Files ----------------------------------------------------------------------------------------------------------


def test_a_file_is_written_where_links_lead_and_covers_what_is_there(place):
    assembly = place({"/etc/f": b"image", "/l": "-> etc/f"}, write("/l"), write("/new/g"))
    assert assembly.tree.staged_in(0) == {
        "/etc/f": StagedFile(b"ours", 0o444),
        "/new": DIRECTORY,
        "/new/g": StagedFile(b"ours", 0o444),
    }


def test_a_file_does_not_replace_a_directory(place):
    with pytest.raises(CdiError, match="'/etc' is a directory in the image"):
        place({"/etc": None}, write("/etc"))


def test_a_file_does_not_replace_what_another_edit_mounts(place, host):
    with pytest.raises(CdiError, match="another edit mounts something there"):
        place({}, bind(host + "/f", "/etc/f"), write("/etc/f"))


def test_a_file_that_only_the_kernel_makes_is_covered_by_a_bind(place):
    assembly = place({}, bind("/proc", "/proc"), write("/proc/version"))
    assert assembly.mounts[1].what == CoverFile(b"ours", 0o444)
    assert targets(assembly) == ["/proc", "/proc/version"]
    assert assembly.tree.staged_in(1) == {}


@pytest.mark.parametrize(
    "action", [write("/proc/no-such-file"), link("/proc/no-such-link", "x"), tmpfs("/sys/no-such-directory")]
)
def test_nothing_new_is_made_where_only_the_kernel_makes_files(place, action):
    with pytest.raises(CdiError, match="only the kernel makes files below it"):
        place({}, bind("/proc", "/proc"), bind("/sys", "/sys"), action)


def test_with_the_host_as_image_its_kernel_directories_are_known():
    assembly = assemble([write("/proc/version")], "/")
    assert [mount.what for mount in assembly.mounts] == [CoverFile(b"ours", 0o444)]


# The whole ------------------------------------------------------------------------------------------------------


def test_actions_that_do_not_touch_the_tree_leave_it_alone(place):
    assembly = place({"/a": b""}, SetEnv("A", "1", ORIGIN), Note("e", "r", ORIGIN), Unsupported("e", "r", ORIGIN))
    assert (assembly.mounts, assembly.tree.staged_in(0), assembly.messages) == ([], {}, [])


def test_all_problems_are_reported_together_in_order(place, host):
    first, second = Origin("/s", "", "mounts[0]"), Origin("/s", "", "hooks[0]")
    with pytest.raises(CdiError) as raised:
        place(
            {"/etc": None},
            Bind(host + "/f", "/etc", "file", first),
            bind(host + "/f", "/etc/f"),
            Symlink("/etc", "x", second),
        )
    assert [problem.where.split(": /")[0] for problem in raised.value.problems] == [str(first), str(second)]


def test_the_order_of_the_actions_decides(place, host):
    covered = place({}, bind(host + "/f", "/a/f"), tmpfs("/a"))
    assert covered.tree.names("/a") == []
    inside = place({}, tmpfs("/a"), bind(host + "/f", "/a/f"))
    assert inside.tree.names("/a") == ["f"]


def test_the_loaders_cache_comes_after_everything_that_it_lists(place):
    """Whatever its place in the order: links that come later than the hook are there when the cache is made."""
    assembly = place({"/etc": None}, UpdateLdCache(("/lib/x",), ORIGIN), link("/lib/x/liba.so", "liba.so.1"))
    staged = assembly.tree.staged_in(0)
    assert isinstance(staged["/etc/ld.so.cache"], StagedFile)
    assert "/lib/x/liba.so" in staged


def test_a_cuda_compatibility_rule_alone_changes_nothing(place):
    assembly = place({}, CudaCompat("/usr/local/cuda/compat", "1", "", ORIGIN))
    assert (assembly.tree.staged_in(0), assembly.messages) == ({}, [])


@pytest.mark.parametrize("action", [link("/a/b/c", "x"), write("/a/b/c"), tmpfs("/a/b/c")])
def test_every_staged_entry_has_its_parents(place, action):
    tree = place({}, action).tree
    for path in tree.staged_in(0):
        assert tree.entry(posixpath.dirname(path)).kind == "directory"
