"""Our cache against the real ldconfig's, over generated trees and over images."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path

import generated_tree
import pytest
import real_ldconfig
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cdi_hpc import ldcache
from cdi_hpc.ldcache import format as cache

_SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
_FOLDERS = st.lists(st.sampled_from(["/opt/a", "/opt/b", "/usr/lib/x86_64-linux-gnu/vdpau", "/nowhere"]), max_size=3)


def _without_generator(data: bytes) -> bytes:
    """A cache up to its extensions: header, entries, strings."""
    return data[: struct.unpack_from("=I", data, 32)[0]]


def _check(program: str, root: Path, update: ldcache.Update) -> None:
    """Let the real ldconfig do in ``root`` what was worked out, and compare all of it."""
    for path, content in update.files:
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / path[1:]).write_bytes(content)
    before = real_ldconfig.links(root)
    real = real_ldconfig.run(program, root).cache
    after = real_ldconfig.links(root)
    assert [str(entry) for entry in ldcache.entries(update.cache)] == real_ldconfig.printed(program, root)
    assert _without_generator(update.cache) == _without_generator(real)
    assert {path: text for path, text in after.items() if before.get(path) != text} == dict(update.links)
    assert before.keys() - after.keys() == set(update.stale) - dict(update.links).keys()


def _update(root: Path, **arguments: object) -> ldcache.Update:
    with ldcache.DirectoryView(str(root), arguments.pop("injected", frozenset())) as view:
        return ldcache.update(view, **arguments)


@pytest.mark.parametrize("program", real_ldconfig.PROGRAMS)
@given(
    tree=generated_tree.files(15),
    conf=generated_tree.configurations(),
    folders=_FOLDERS,
    compat=_FOLDERS,
)
@_SETTINGS
def test_links_and_cache_are_those_of_ldconfig(program, tree, conf, folders, compat):
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        generated_tree.make(root, {**tree, **conf})
        _check(program, root, _update(root, folders=folders, compat_folders=compat))


@pytest.mark.parametrize("program", real_ldconfig.PROGRAMS)
@given(
    tree=generated_tree.files(15),
    conf=generated_tree.configurations(),
    injected=generated_tree.files(4),
    folders=_FOLDERS,
)
@_SETTINGS
def test_believing_the_images_cache_gives_the_same_as_reading_every_file(program, tree, conf, injected, folders):
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        generated_tree.make(root, {**tree, **conf})
        warnings = real_ldconfig.run(program, root).warnings
        # Then the cache names a file for another's sake, and what is injected may hide that other.
        assume("is not a symbolic link" not in warnings)
        assume("same soname but different type" not in warnings)
        generated_tree.put(root, injected)
        believing = _update(root, injected=frozenset(injected), folders=folders)
        assert believing == _update(root, folders=folders, trust_image_cache=False)
        _check(program, root, believing)


@pytest.mark.parametrize("program", real_ldconfig.PROGRAMS)
@given(tree=generated_tree.files(15))
@_SETTINGS
def test_a_cache_that_is_read_and_written_again_is_the_same(program, tree):
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        generated_tree.make(root, tree)
        real = real_ldconfig.run(program, root).cache
        entries = cache.entries(real)
        assert cache.entries(cache.render(entries)) == entries
        assert [str(entry) for entry in entries] == real_ldconfig.printed(program, root)


@pytest.mark.parametrize("image", real_ldconfig.IMAGES)
def test_an_image_gets_the_cache_that_its_own_ldconfig_made(image):
    """The images' caches are what their installation left; the host's is made anew, it may be out of date."""
    with ldcache.DirectoryView(image) as view:
        believing = ldcache.update(view)
        reading = ldcache.update(view, trust_image_cache=False)
    if image == "/":
        with tempfile.TemporaryDirectory() as directory:
            cache_file = Path(directory, "cache")
            subprocess.run([real_ldconfig.PROGRAMS[0], "-X", "-C", str(cache_file)], check=True, capture_output=True)
            real = cache_file.read_bytes()
    else:
        real = Path(image, "etc/ld.so.cache").read_bytes()
    assert [str(entry) for entry in ldcache.entries(reading.cache)] == [str(e) for e in ldcache.entries(real)]
    assert believing.cache == reading.cache
    assert reading.links == ()
