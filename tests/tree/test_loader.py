"""The loader's view of an assembled tree, and what is staged for it."""

from __future__ import annotations

import os

import pytest
import small_trees

from cdi_hpc.container.loader import LoaderView, decide_compat, update_ld_cache
from cdi_hpc.container.tree import ContainerTree, StagedFile, StagedLink
from cdi_hpc.errors import CdiError
from cdi_hpc.ldcache import Listed
from cdi_hpc.plan import COMMAND_LINE, THE_LAUNCHER, CudaCompat, UpdateLdCache
from cdi_hpc.spec.model import Origin

ORIGIN = Origin("/etc/cdi/a.yaml", "", "hooks[0]")


@pytest.fixture
def tree(tmp_path):
    image = {"/lib/a.so": b"image's", "/lib/l": "-> a.so", "/lib/sub": None, "/etc": None}
    return ContainerTree(os.path.realpath(small_trees.make(tmp_path / "image", image)))


@pytest.fixture
def driver(tmp_path):
    return os.path.realpath(small_trees.make(tmp_path / "driver", {"/b.so": b"host's", "/a.so": b"host's"}))


def listed(tree, directory):
    return sorted(LoaderView(tree).listdir(directory))


def test_the_images_own_names_are_not_injected(tree):
    expected = [Listed("a.so", "file"), Listed("l", "link"), Listed("sub", "directory")]
    assert listed(tree, "/lib") == expected


def test_what_is_staged_or_mounted_in_a_directory_is_injected(tree, driver):
    tree.put("/lib/new", StagedLink("a.so"))
    tree.put("/lib/l", StagedLink("b.so"))
    tree.put("/lib/b.so", StagedFile())
    tree.mount("/lib/b.so", driver + "/b.so")
    tree.mount("/lib/a.so", driver + "/a.so")
    assert listed(tree, "/lib") == [
        Listed("a.so", "file", injected=True),
        Listed("b.so", "file", injected=True),
        Listed("l", "link", injected=True),
        Listed("new", "link", injected=True),
        Listed("sub", "directory"),
    ]


def test_everything_in_a_bound_directory_is_injected(tree, driver):
    tree.mount("/lib/sub", driver)
    assert listed(tree, "/lib/sub") == [Listed("a.so", "file", injected=True), Listed("b.so", "file", injected=True)]
    status = LoaderView(tree).lstat("/lib/sub/a.so")
    assert status is not None
    assert status.injected


@pytest.mark.parametrize(
    "path, kind, injected",
    [("/", "directory", False), ("/lib", "directory", False), ("/lib/a.so", "file", False), ("/lib/l", "link", False)],
)
def test_a_status_is_the_images(tree, path, kind, injected):
    status = LoaderView(tree).lstat(path)
    assert status is not None
    assert (status.kind, status.injected) == (kind, injected)


def test_what_is_not_there_has_no_status(tree):
    assert LoaderView(tree).lstat("/lib/missing") is None


def test_one_file_in_two_places_is_one_object(tree, driver):
    tree.mount("/lib/a.so", driver + "/a.so")
    tree.mount("/lib/sub", driver)
    view = LoaderView(tree)
    first, second, other = (view.lstat(path) for path in ("/lib/a.so", "/lib/sub/a.so", "/lib/sub/b.so"))
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.identity == second.identity != other.identity


def test_the_content_is_what_the_container_sees(tree, driver):
    tree.mount("/lib/a.so", driver + "/a.so")
    with LoaderView(tree).open("/lib/a.so") as stream:
        assert stream.read() == b"host's"
    tree.put("/lib/l", StagedLink("elsewhere"))
    assert LoaderView(tree).readlink("/lib/l") == "elsewhere"


# Staging --------------------------------------------------------------------------------------------------------


def test_the_cache_is_staged_whatever_is_at_its_name(tree):
    tree.put("/etc/ld.so.cache", StagedLink("/outside"))
    update_ld_cache([UpdateLdCache(("/lib",), ORIGIN)], [], tree)
    assert isinstance(tree.staged_in(0)["/etc/ld.so.cache"], StagedFile)
    assert "/outside" not in tree.staged_in(0)


def test_every_path_that_is_staged_is_named(tree):
    before = set(tree.staged_in(0))
    _, paths = update_ld_cache([UpdateLdCache(("/opt/lib",), ORIGIN)], [], tree)
    staged = tree.staged_in(0)
    assert set(paths) == {path for path in staged if path not in before and isinstance(staged[path], StagedFile)}
    assert "/etc/ld.so.cache" in paths


def test_a_cache_that_another_edit_mounts_is_refused(tree, driver):
    tree.put("/etc/ld.so.cache", StagedFile())
    tree.mount("/etc/ld.so.cache", driver + "/a.so")
    with pytest.raises(CdiError, match=r"/etc/ld\.so\.cache: another edit mounts something there \(correct"):
        update_ld_cache([UpdateLdCache((), ORIGIN)], [], tree)


@pytest.mark.parametrize(
    "origin, told",
    [
        (Origin(COMMAND_LINE, "", "--bind /a:/etc/ld.so.cache"), r"your --bind /a:\S+ is there \(leave it out"),
        (Origin(THE_LAUNCHER, "", "its mount of /etc"), r"its mount of /etc is there \(keep that out"),
    ],
)
def test_who_mounts_something_in_the_caches_place_is_named(tree, driver, origin, told):
    tree.put("/etc/ld.so.cache", StagedFile())
    tree.mount("/etc/ld.so.cache", driver + "/a.so", origin=origin)
    with pytest.raises(CdiError, match=rf"/etc/ld\.so\.cache: {told}"):
        update_ld_cache([UpdateLdCache((), ORIGIN)], [], tree)


def test_a_directory_in_the_caches_place_is_refused(tree):
    tree.make_directory("/etc/ld.so.cache")
    with pytest.raises(CdiError, match="is a directory in the image"):
        update_ld_cache([UpdateLdCache((), ORIGIN)], [], tree)


def test_the_caches_directory_is_found_inside_the_image(tmp_path):
    image = {"/etc": "-> ../../../../../../../../system/etc", "/system": None}
    tree = ContainerTree(os.path.realpath(small_trees.make(tmp_path / "image", image)))
    update_ld_cache([UpdateLdCache((), ORIGIN)], [], tree)
    assert "/system/etc/ld.so.cache" in tree.staged_in(0)


# CUDA compatibility ---------------------------------------------------------------------------------------------


def test_an_image_without_compatibility_libraries_says_so(tree):
    rule = CudaCompat("/usr/local/cuda/compat", "570.1", "", ORIGIN)
    decision, directory = decide_compat(rule, tree)
    assert (decision.use, decision.reason) == (False, "the image has no such directory")
    assert directory == rule.directory
    assert update_ld_cache([UpdateLdCache((), ORIGIN)], [rule], tree)[0][0].startswith(rule.directory + ": ")


def test_compatibility_libraries_are_found_through_links(tmp_path):
    image = {"/usr/local/cuda": "-> cuda-12", "/usr/local/cuda-12/compat/libcuda.so.570.2.1": b"", "/etc": None}
    tree = ContainerTree(os.path.realpath(small_trees.make(tmp_path / "image", image)))
    _, directory = decide_compat(CudaCompat("/usr/local/cuda/compat", "570.1", "", ORIGIN), tree)
    assert directory == "/usr/local/cuda-12/compat"


@pytest.mark.parametrize("thing", ["-> /etc/passwd", None])
def test_only_a_file_of_the_image_counts_as_a_compatibility_library(tmp_path, thing):
    image = {"/compat/libcuda.so.999.1.1": thing, "/etc": None}
    tree = ContainerTree(os.path.realpath(small_trees.make(tmp_path / "image", image)))
    assert not decide_compat(CudaCompat("/compat", "1.1", "", ORIGIN), tree)[0].use
