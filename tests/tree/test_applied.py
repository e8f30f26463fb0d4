"""Composed steps, done by the kernel: what is seen in the container is what the tree says, however it is made."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tempfile
from pathlib import Path
from typing import Any, Callable

import pytest
import small_trees
from hypothesis import given, settings
from hypothesis import strategies as st
from in_child import in_child

from cdi_hpc.container.compose import Composition, Mode, compose
from cdi_hpc.container.stage import Assembly, assemble
from cdi_hpc.container.steps import ROOT
from cdi_hpc.container.tree import ContainerTree, StagedFile
from cdi_hpc.errors import CdiError
from cdi_hpc.launch import kernel, runner
from cdi_hpc.mountinfo import mount_points
from cdi_hpc.plan import Action, Bind, MountFilesystem, Symlink, WriteFile
from cdi_hpc.spec.model import Origin

ORIGIN = Origin("/etc/cdi/a.yaml", "", "x")
MODES: tuple[Mode, ...] = ("overlay", "underlay")


def look_inside(assembly: Assembly, mode: Mode, look: Callable[[], Any], *, writable: bool = False) -> Any:
    """What ``look`` finds with the container's root as the root directory."""

    def enter_and_look() -> Any:
        points = mount_points()
        os.umask(0)
        runner.enter_namespaces()
        workspace = runner.Workspace()
        workspace.apply(compose(assembly, Composition(mode, points, runner.HOST_PREFIX, writable=writable)))
        workspace.become_root(ROOT)
        return look()

    return in_child(enter_and_look)


def everything() -> dict[str, str]:
    return small_trees.contents("/.")


def expected(tree: ContainerTree) -> dict[str, str]:
    """The tree's own account of what :func:`everything` finds."""
    found: dict[str, str] = {}
    waiting = ["/"]
    while waiting:
        directory = waiting.pop()
        for name in tree.names(directory):
            path = posixpath.join(directory, name)
            found[path] = _expected_at(tree, path)
            if found[path] == "directory":
                waiting.append(path)
    return found


def _expected_at(tree: ContainerTree, path: str) -> str:
    entry = tree.entry(path)
    assert entry is not None
    if entry.kind == "link":
        return f"link {tree.readlink(path)}"
    if entry.kind == "file":
        with tree.open(path) as stream:
            return f"file {stream.read()!r}"
    return entry.kind


# Any plan on any image ------------------------------------------------------------------------------------------


def bind(source: str, target: str, *flags: str) -> Bind:
    kind = "directory" if os.path.isdir(source) else "file"
    kept = tuple(name for name in ("relatime", "noatime") if name in _flags_of(source))
    return Bind(source, target, kind, ORIGIN, flags, kept)  # type: ignore[arg-type]


def _flags_of(path: str) -> str:
    from cdi_hpc.host import mount_flags

    return " ".join(mount_flags(path))


def actions(host: str) -> st.SearchStrategy[Action]:
    sources = st.sampled_from([host, f"{host}/usr", f"{host}/usr/a", f"{host}/l"])
    flags = st.sampled_from([(), ("ro",), ("nodev", "nosuid", "ro")])
    # A link of the host is never a source: translation resolves it.
    real_sources = sources.map(os.path.realpath)
    return st.one_of(
        st.builds(lambda source, target, flags: bind(source, target, *flags), real_sources, small_trees.paths, flags),
        st.builds(lambda path, text: Symlink(path, text, ORIGIN), small_trees.paths, small_trees.texts),
        st.builds(lambda path: WriteFile(path, b"ours", 0o644, ORIGIN), small_trees.paths),
        st.builds(lambda target: MountFilesystem("tmpfs", "tmpfs", target, ORIGIN), small_trees.paths),
    )


HOST_TREE = {"/usr/a": b"host's", "/usr/lib/b": b"", "/etc/x": None, "/l": "-> usr/a", "/bin": "-> /usr"}


def accepted(drawn: list[Action], image: str) -> list[Action]:
    """The actions that fit; those that do not are refused by name elsewhere."""
    kept: list[Action] = []
    for action in drawn:
        try:
            assemble([*kept, action], image)
        except CdiError:
            continue
        kept.append(action)
    return kept


@settings(max_examples=150)
@given(st.data())
def test_the_container_shows_what_the_tree_says_by_overlay_and_by_underlay(data):
    with tempfile.TemporaryDirectory() as scratch:
        image = os.path.realpath(
            small_trees.make(Path(scratch, "image"), data.draw(small_trees.trees(modes=True), "image"))
        )
        host = os.path.realpath(small_trees.make(Path(scratch, "host"), HOST_TREE))
        assembly = assemble(accepted(data.draw(st.lists(actions(host), max_size=6), "actions"), image), image)
        before = small_trees.fingerprint(scratch)
        tree = expected(assembly.tree)
        for mode in MODES:
            assert look_inside(assembly, mode, everything) == tree, mode
        assert small_trees.fingerprint(scratch) == before


# One thing at a time --------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path):
    """A function that makes an image of a tree; its path without links."""
    return lambda tree: os.path.realpath(small_trees.make(tmp_path / "image", tree))


@pytest.fixture
def host(tmp_path):
    """A directory of the host with something in it; its path without links."""
    return os.path.realpath(small_trees.make(tmp_path / "host", {"/f": b"host's", "/sub/g": b"", "/l": "-> f"}))


def tmpfs(target: str, *flags: str) -> MountFilesystem:
    return MountFilesystem("tmpfs", "tmpfs", target, ORIGIN, flags)


def link(path: str, points_to: str) -> Symlink:
    return Symlink(path, points_to, ORIGIN)


def written(path: str) -> int:
    """Errno of making or changing a file, 0 when it worked."""
    try:
        Path(path).write_bytes(b"written")
    except OSError as error:
        return error.errno or errno.EIO
    return 0


@pytest.mark.parametrize("mode", MODES)
def test_the_image_can_not_be_written_to(image, mode):
    assembly = assemble([link("/etc/new", "a")], image({"/etc/a": b"", "/usr/a": b""}))
    places = ("/new", "/etc/a", "/etc/other", "/usr/a", "/usr/new")
    assert look_inside(assembly, mode, lambda: {written(path) for path in places}) == {errno.EROFS}


@pytest.mark.parametrize("mode", MODES)
def test_without_anything_staged_the_image_is_bound_as_it_is(image, mode):
    root = image({"/etc/a": b"x"})
    assembly = assemble([], root)
    assert look_inside(assembly, mode, everything) == small_trees.contents(root)
    assert look_inside(assembly, mode, lambda: written("/etc/a")) == errno.EROFS


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flags, errors", [((), {0}), (("ro",), {errno.EROFS})])
def test_a_bound_directory_is_as_writable_as_was_asked(image, host, mode, flags, errors):
    assembly = assemble([bind(host, "/mnt", *flags)], image({}))
    places = ("/mnt/f", "/mnt/new", "/mnt/sub/g")
    assert look_inside(assembly, mode, lambda: {written(path) for path in places}) == errors
    assert Path(host, "f").read_bytes() == (b"host's" if flags else b"written")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flags, error", [(("ro",), errno.EROFS), (("nodev", "nosuid", "ro"), errno.EROFS)])
def test_a_bound_directory_stays_read_only_when_something_is_staged_in_it(image, host, mode, flags, error):
    assembly = assemble([bind(host, "/mnt", *flags), bind(host + "/f", "/mnt/point")], image({}))
    assert look_inside(assembly, mode, lambda: [written(f"/mnt/{name}") for name in ("f", "sub/g", "sub/new")]) == [
        error,
        error,
        error,
    ]
    assert Path(host, "f").read_bytes() == (b"host's" if error else b"written")
    assert sorted(os.listdir(host)) == ["f", "l", "sub"]


@pytest.mark.parametrize("mode", MODES)
def test_devices_in_a_bound_directory_can_be_used_when_something_is_staged_in_it(image, mode):
    assembly = assemble([bind("/dev", "/dev"), link("/dev/new", "null")], image({}))
    assert look_inside(assembly, mode, lambda: [written("/dev/null"), written("/dev/new")]) == [0, 0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flags, error", [((), 0), (("nodev", "ro"), errno.EROFS)])
def test_a_new_file_system_gets_its_flags_when_its_mount_points_are_made(image, host, mode, flags, error):
    assembly = assemble([tmpfs("/s", *flags), bind(host + "/f", "/s/deep/f"), link("/s/l", "deep/f")], image({}))

    def look() -> Any:
        return Path("/s/l").read_bytes(), written("/s/new")

    assert look_inside(assembly, mode, look) == (b"host's", error)


@pytest.mark.parametrize("mode", MODES)
def test_merged_directories_keep_their_modes(image, mode):
    modes = {"/a": 0o555, "/a/b": 0o1777, "/a/b/c": 0o711, "/d": 0o2755}
    assembly = assemble([link("/a/b/c/new", "x"), link("/d/new/deep", "y")], image(modes))

    def look() -> dict[str, int]:
        return {path: stat.S_IMODE(os.stat(path).st_mode) for path in modes}

    assert look_inside(assembly, mode, look) == modes


@pytest.mark.parametrize("mode", MODES)
def test_what_only_the_kernel_makes_is_covered_in_place(image, mode):
    assembly = assemble([bind("/proc", "/proc"), WriteFile("/proc/version", b"ours", 0o444, ORIGIN)], image({}))
    assert look_inside(assembly, mode, lambda: Path("/proc/version").read_bytes()) == b"ours"


@pytest.mark.parametrize("mode", MODES)
def test_a_mount_that_a_later_one_covers_does_not_stop_the_launch(image, host, mode):
    actions = [bind(host, "/mnt/deep"), tmpfs("/mnt"), bind(host + "/f", "/mnt/deep")]
    assert look_inside(assemble(actions, image({})), mode, everything) == {
        "/mnt": "directory",
        "/mnt/deep": 'file b"host\'s"',
    }


def test_a_writable_root_takes_changes_and_forgets_them(image):
    root = image({"/etc/a": b"image's", "/etc/b": b"", "/usr/c": 0o555})
    before = small_trees.fingerprint(root)
    assembly = assemble([link("/etc/new", "a")], root)

    def look() -> Any:
        os.unlink("/etc/b")
        results = [written(path) for path in ("/etc/a", "/etc/made", "/top", "/etc/new")]
        return results, Path("/etc/a").read_bytes(), sorted(os.listdir("/etc"))

    assert look_inside(assembly, "overlay", look, writable=True) == ([0] * 4, b"written", ["a", "made", "new"])
    assert small_trees.fingerprint(root) == before


@pytest.mark.parametrize("mode", MODES)
def test_propagation_does_not_keep_a_mount_from_being_made(image, host, mode):
    for propagation in ("private", "rslave", "rshared", "unbindable"):
        action = Bind(host, "/mnt", "directory", ORIGIN, propagation=propagation)
        assert look_inside(assemble([action], image({})), mode, lambda: os.listdir("/mnt"))


# The host as image ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_host_as_image_is_seen_whole_with_what_is_staged(host, mode):
    assembly = assemble([link("/etc/cdi-hpc-test", "passwd"), bind(host, "/cdi-hpc-test/mnt")], "/")

    def look() -> Any:
        return os.listdir("/"), os.listdir("/etc"), Path("/etc/cdi-hpc-test").read_bytes(), os.listdir(host)

    top, etc, passwd, there = look_inside(assembly, mode, look)
    assert set(top) == {*os.listdir("/"), "cdi-hpc-test"}
    assert set(etc) == {*os.listdir("/etc"), "cdi-hpc-test"}
    assert passwd == Path("/etc/passwd").read_bytes()
    assert there == os.listdir(host)


@pytest.mark.parametrize("mode", MODES)
def test_on_the_host_as_image_the_users_files_stay_writable(host, mode):
    """Also those beside a mount point."""
    assembly = assemble([bind("/dev/null", host + "/l"), bind("/dev/null", "/usr/bin/env")], "/")
    assert look_inside(assembly, mode, lambda: [written(host + "/new"), written(host + "/sub/new")]) == [0, 0]
    assert sorted(os.listdir(host)) == ["f", "l", "new", "sub"]


# File systems mounted in the image ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flags", [0, kernel.MS_NOEXEC, kernel.MS_NOATIME, kernel.MS_NOEXEC | kernel.MS_NODIRATIME])
@pytest.mark.parametrize("staged", ["/new", "/sub/new", "/other/new"])
def test_a_file_system_mounted_in_the_image_comes_along(image, mode, flags, staged):
    """With flags of its own, which are locked: whoever mounted it is outside of our user namespace."""
    root = image({"/sub": None, "/other/a": b""})

    def look() -> Any:
        runner.enter_namespaces()
        kernel.mount("tmpfs", root + "/sub", "tmpfs", flags)
        Path(root, "sub/inner").write_bytes(b"mounted")
        Path(root, "sub/mount").mkdir()
        kernel.mount("tmpfs", root + "/sub/mount", "tmpfs", flags | kernel.MS_NOSUID)
        return look_inside(assemble([link(staged, "x")], root), mode, everything)

    assert in_child(look) == {
        "/sub": "directory",
        "/sub/inner": "file b'mounted'",
        "/sub/mount": "directory",
        "/other": "directory",
        "/other/a": "file b''",
        staged: "link x",
    }


def test_a_refused_overlay_can_be_taken_back_and_made_an_underlay(image):
    root = image({"/sub": None, "/a": b""})
    actions = [link("/new", "a")]

    def look() -> Any:
        runner.enter_namespaces()
        kernel.mount("tmpfs", root + "/sub", "tmpfs", 0)
        runner.enter_namespaces()
        workspace = runner.Workspace()
        assembly = assemble(actions, runner.HOST_PREFIX + root)
        assembly.tree.regions[0] = type(assembly.tree.regions[0])("/", root)
        # Not told of the mount, compose() makes an overlay, which the kernel refuses over a locked mount.
        with pytest.raises(runner.OverlayRefusedError):
            workspace.apply(compose(assembly, Composition("overlay", (), runner.HOST_PREFIX)))
        workspace.discard()
        workspace.apply(compose(assembly, Composition("underlay", (), runner.HOST_PREFIX)))
        workspace.become_root(ROOT)
        return everything()

    assert in_child(look) == {"/sub": "directory", "/a": "file b''", "/new": "link a"}


# An image that changes, or belongs to somebody else -------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_link_that_takes_a_directorys_place_afterwards_is_not_followed(image, host, tmp_path, mode):
    root = image({"/etc/sub": None})
    assembly = assemble([bind(host + "/f", "/etc/sub/f"), bind(host + "/f", "/etc/g")], root)
    os.rename(root + "/etc", root + "/was-etc")
    (tmp_path / "outside" / "sub").mkdir(parents=True)
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    os.symlink("../outside", root + "/etc")
    try:
        seen = look_inside(assembly, mode, everything)
    except CdiError:
        return
    finally:
        assert os.listdir(tmp_path / "outside" / "sub") == []
    assert "file b'secret'" not in seen.values()
    assert os.listdir(tmp_path / "outside" / "sub") == []


@pytest.mark.parametrize("mode", MODES)
def test_an_image_that_becomes_a_link_is_not_followed(image, tmp_path, mode):
    root = image({"/a": b"image's"})
    assembly = assemble([link("/new", "a")], root)
    small_trees.make(tmp_path / "outside", {"/a": b"secret"})

    def look() -> Any:
        points = mount_points()
        runner.enter_namespaces()
        workspace = runner.Workspace()
        steps = compose(assembly, Composition(mode, points, runner.HOST_PREFIX))
        os.rename(runner.HOST_PREFIX + root, f"{runner.HOST_PREFIX}{root}-before")
        os.symlink("outside", runner.HOST_PREFIX + root)
        workspace.apply(steps)

    with pytest.raises(CdiError, match="Too many levels of symbolic links"):
        in_child(look)


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_another_owner_is_merged_all_the_same(image, host, mode):
    root = image({"/etc/a": b"x", "/usr/lib/b": b"y", "/usr/lib": 0o555, "/tmp": 0o1777})
    for directory, names, files in os.walk(root):
        for path in [directory, *(os.path.join(directory, name) for name in (*names, *files))]:
            os.lchown(path, 12345, 12345)
    before = small_trees.fingerprint(root)
    assembly = assemble([link("/usr/lib/new", "b"), bind(host + "/f", "/etc/deep/f"), link("/etc/a", "b")], root)
    assert look_inside(assembly, mode, everything) == expected(assembly.tree)
    assert small_trees.fingerprint(root) == before


def test_the_models_account_has_every_kind_of_entry(image, host):
    """So that the comparison above can fail."""
    assembly = assemble([bind(host, "/mnt"), link("/new", "x")], image({"/a": b"1"}))
    assembly.tree.put("/f", StagedFile(b"2"))
    assert expected(assembly.tree) == {
        "/a": "file b'1'",
        "/f": "file b'2'",
        "/mnt": "directory",
        "/mnt/f": 'file b"host\'s"',
        "/mnt/l": "link f",
        "/mnt/sub": "directory",
        "/mnt/sub/g": "file b''",
        "/new": "link x",
    }
