"""What NVIDIA's hooks do around ldconfig, and what hostile images can't do to us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny_elf

from cdi_hpc import ldcache
from cdi_hpc.errors import CdiError
from cdi_hpc.ldcache import elf, musl


def _write(root: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / path[1:]).write_bytes(content)


def _link(root: Path, path: str, points_to: str) -> None:
    (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
    (root / path[1:]).symlink_to(points_to)


def _update(root: Path, **arguments: object) -> ldcache.Update:
    injected = arguments.pop("injected", frozenset())
    with ldcache.DirectoryView(str(root), injected) as view:
        return ldcache.update(view, machine="x86_64", **arguments)


def _listed(update: ldcache.Update) -> list[str]:
    return [f"{entry.name} => {entry.path}" for entry in ldcache.entries(update.cache)]


DEBIAN = {
    "/etc/debian_version": b"12.0\n",
    "/etc/ld.so.conf": b"include /etc/ld.so.conf.d/*.conf\n",
    "/etc/ld.so.conf.d/x86_64.conf": b"/usr/lib/x86_64-linux-gnu\n",
}
DEBIAN_SYSTEM = b"/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu\n/lib\n/usr/lib\n"
CUDA = tiny_elf.shared_object("libcuda.so.1")


def test_an_image_without_configuration_gets_one_that_includes_the_drop_ins(tmp_path):
    update = _update(tmp_path, folders=["/opt/driver"])
    assert dict(update.files) == {
        "/etc/ld.so.conf": b"include /etc/ld.so.conf.d/*.conf\n",
        "/etc/ld.so.conf.d/00-nvcr-cdi-hpc.conf": b"/opt/driver\n",
        "/etc/ld.so.conf.d/zz-nvcr-cdi-hpc.conf": b"/lib\n/lib64\n/libx32\n/usr/lib\n/usr/lib64\n/usr/libx32\n",
    }


def test_a_folder_that_is_configured_or_built_in_is_not_named_again(tmp_path):
    _write(tmp_path, {**DEBIAN, "/etc/ld.so.conf.d/o.conf": b"/opt/own/ # ours\n"})
    update = _update(tmp_path, folders=["/usr/lib", "/opt/own", "/opt/new/", "/opt/new"])
    assert dict(update.files) == {
        "/etc/ld.so.conf.d/00-nvcr-cdi-hpc.conf": b"/opt/new\n",
        "/etc/ld.so.conf.d/zz-nvcr-cdi-hpc.conf": DEBIAN_SYSTEM,
    }


def test_compatibility_libraries_come_before_folders_and_those_before_the_image(tmp_path):
    _write(tmp_path, DEBIAN)
    for folder in ("/compat", "/driver", "/usr/lib/x86_64-linux-gnu"):
        _write(tmp_path, {f"{folder}/libcuda.so.1": CUDA})
    update = _update(tmp_path, folders=["/driver"], compat_folders=["/compat"])
    assert _listed(update) == [
        "libcuda.so.1 => /compat/libcuda.so.1",
        "libcuda.so.1 => /driver/libcuda.so.1",
        "libcuda.so.1 => /usr/lib/x86_64-linux-gnu/libcuda.so.1",
    ]


def test_a_configuration_without_drop_ins_makes_folders_ineffective_and_says_so(tmp_path):
    _write(tmp_path, {**DEBIAN, "/etc/ld.so.conf": b"/opt/own\n", "/driver/libcuda.so.1": CUDA})
    update = _update(tmp_path, folders=["/driver"])
    assert _listed(update) == []
    assert any(note.startswith("/driver: not searched") for note in update.notes)


def test_a_driver_gets_the_links_that_no_hook_made(tmp_path):
    _write(tmp_path, {**DEBIAN, "/usr/lib/x86_64-linux-gnu/libcuda.so.570.1": CUDA})
    _link(tmp_path, "/usr/lib/x86_64-linux-gnu/libcuda.so", "libcuda.so.1")
    update = _update(tmp_path)
    assert update.links == (("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "libcuda.so.570.1"),)
    assert _listed(update) == [
        "libcuda.so.1 => /usr/lib/x86_64-linux-gnu/libcuda.so.1",
    ]


def test_a_link_to_an_older_library_is_turned_to_the_newest(tmp_path):
    library = "/usr/lib/x86_64-linux-gnu/libcuda.so"
    _write(tmp_path, {**DEBIAN, f"{library}.535.9": CUDA, f"{library}.535.10": CUDA})
    _link(tmp_path, f"{library}.1", "libcuda.so.535.9")
    assert _update(tmp_path).links == ((f"{library}.1", "libcuda.so.535.10"),)


def test_a_file_in_the_place_of_a_link_stays_and_is_noted(tmp_path):
    library = "/usr/lib/x86_64-linux-gnu/libcuda.so"
    _write(tmp_path, {**DEBIAN, f"{library}.570.1": CUDA, f"{library}.1": b"not a library" * 9})
    update = _update(tmp_path)
    assert update.links == ()
    assert any("is not a link" in note for note in update.notes)


def test_links_are_made_where_the_directory_really_is(tmp_path):
    _write(tmp_path, {"/usr/lib64/libcuda.so.570.1": CUDA})
    _link(tmp_path, "/lib64", "/usr/lib64")
    update = _update(tmp_path, folders=["/lib64"])
    assert update.links == (("/usr/lib64/libcuda.so.1", "libcuda.so.570.1"),)
    assert _listed(update) == ["libcuda.so.1 => /lib64/libcuda.so.1"]


@pytest.mark.parametrize("folder", ["lib", "", "/a\n/b", "/a#b", "/a:/b", "/a ", "/a\0b"])
def test_a_folder_that_a_configuration_would_read_as_something_else_is_refused(tmp_path, folder):
    with pytest.raises(CdiError, match="can't be named"):
        _update(tmp_path, folders=[folder])


def test_a_machine_whose_rules_are_not_known_is_refused_by_name(tmp_path):
    with ldcache.DirectoryView(str(tmp_path)) as view, pytest.raises(CdiError, match="'vax'"):
        ldcache.update(view, machine="vax")


def test_other_machines_have_their_own_directories_and_flags(tmp_path):
    library = tiny_elf.shared_object("libcuda.so.1", machine=tiny_elf.EM_AARCH64)
    _write(tmp_path, {"/usr/lib64/libcuda.so.1": library, "/etc/ld.so.conf": b""})
    with ldcache.DirectoryView(str(tmp_path)) as view:
        update = ldcache.update(view, machine="aarch64")
    (entry,) = ldcache.entries(update.cache)
    assert str(entry) == "\tlibcuda.so.1 (libc6,AArch64) => /usr/lib64/libcuda.so.1"


# -- musl -----------------------------------------------------------------------------------------------------


def test_musl_without_a_path_file_keeps_its_default_directories(tmp_path):
    _write(tmp_path, {"/lib/ld-musl-x86_64.so.1": b""})
    update = _update(tmp_path, folders=["/driver"])
    assert update.musl is not None
    assert update.musl.path == "/etc/ld-musl-x86_64.path"
    lines = update.musl.content.decode().splitlines()
    assert lines[:4] == ["/driver", *musl.DEFAULT]
    assert len(lines) == len(set(lines))


def test_musl_keeps_what_its_path_file_names_and_adds_what_is_missing(tmp_path):
    _write(tmp_path, {"/lib/ld-musl-aarch64.so.1": b"", "/etc/ld-musl-aarch64.path": b"/own:/usr/lib"})
    update = _update(tmp_path, folders=["/driver", "/own"])
    assert update.musl is not None
    assert update.musl.path == "/etc/ld-musl-aarch64.path"
    lines = update.musl.content.decode().splitlines()
    assert lines[:2] == ["/own:/usr/lib", "/driver"]
    assert "/own" not in lines
    assert "/usr/lib" not in lines


def test_alpines_release_file_tells_musl_too(tmp_path):
    _write(tmp_path, {"/etc/alpine-release": b"3.20\n"})
    update = _update(tmp_path)
    assert update.musl is not None
    assert update.musl.path == "/etc/ld-musl-x86_64.path"


def test_an_image_with_glibc_gets_no_path_file(tmp_path):
    _write(tmp_path, DEBIAN)
    assert _update(tmp_path).musl is None


# -- hostile images -------------------------------------------------------------------------------------------


def test_links_out_of_the_root_stay_inside(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    _write(outside, {"/libevil.so.1": tiny_elf.shared_object("libevil.so.1")})
    _write(root, {**DEBIAN, "/etc/ld.so.conf": b"/a\n/b\n/c\n"})
    _link(root, "/a", str(outside))
    _link(root, "/b", "../outside")
    _link(root, "/c", "../../../../../../../.." + str(outside))
    _link(root, "/usr/lib/libevil.so.1", str(outside / "libevil.so.1"))
    assert _listed(_update(root)) == []


def test_pipes_and_circles_are_not_waited_for(tmp_path):
    _write(tmp_path, DEBIAN)
    libraries = tmp_path / "usr/lib"
    libraries.mkdir(parents=True)
    os.mkfifo(libraries / "libpipe.so.1")
    os.mkfifo(tmp_path / "etc/ld.so.conf.d/pipe.conf")
    os.mkfifo(tmp_path / "etc/ld.so.cache")
    _link(tmp_path, "/usr/lib/libpiped.so.1", "libpipe.so.1")
    _link(tmp_path, "/usr/lib/libcircle.so.1", "libcircle.so.1")
    _link(tmp_path, "/usr/lib/libdirectory.so.1", ".")
    assert _listed(_update(tmp_path)) == []


def test_configurations_that_include_each_other_are_read_once(tmp_path):
    again = b"include /etc/ld.so.conf\ninclude /etc/ld.so.conf.d/*.conf\n"
    _write(tmp_path, {"/etc/ld.so.conf": again + b"/own\n", "/own/libcuda.so.1": CUDA})
    _write(tmp_path, {f"/etc/ld.so.conf.d/{i}.conf": again * 9 for i in range(40)})
    assert _listed(_update(tmp_path)) == ["libcuda.so.1 => /own/libcuda.so.1"]


def test_a_pattern_that_matches_everywhere_ends(tmp_path):
    _write(tmp_path, {"/etc/ld.so.conf": b"include " + b"/*" * 30 + b"\ninclude /" + b"*a" * 200 + b"\n/own\n"})
    _write(tmp_path, {"/own/libcuda.so.1": CUDA, "/" + "a" * 250: b""})
    _link(tmp_path, "/loop", ".")
    _link(tmp_path, "/pool", ".")
    assert _listed(_update(tmp_path)) == ["libcuda.so.1 => /own/libcuda.so.1"]


@pytest.mark.parametrize("soname", ["../../etc/x.so", "/etc/ld.so.preload", "sub/liba.so"])
def test_a_soname_with_a_slash_makes_no_link(tmp_path, soname):
    _write(tmp_path, {**DEBIAN, "/usr/lib/liba.so.1": tiny_elf.shared_object(soname)})
    update = _update(tmp_path)
    assert update.links == ()
    assert any(repr(soname) in note for note in update.notes)


@pytest.mark.parametrize("cache", [b"", b"x" * 100, b"glibc-ld.so.cache1.1" + b"\xff" * 100])
def test_a_corrupt_cache_is_ignored_with_a_note(tmp_path, cache):
    _write(tmp_path, {**DEBIAN, "/usr/lib/libcuda.so.1": CUDA, "/etc/ld.so.cache": cache})
    update = _update(tmp_path)
    assert _listed(update) == ["libcuda.so.1 => /usr/lib/libcuda.so.1"]
    assert any("/etc/ld.so.cache: ignored" in note for note in update.notes)


def test_entries_of_the_images_cache_whose_files_are_gone_are_dropped(tmp_path):
    old = ldcache.format.render([ldcache.Entry("libgone.so.1", "/usr/lib/libgone.so.1", 0x303)])
    _write(tmp_path, {**DEBIAN, "/usr/lib/libcuda.so.1": CUDA, "/etc/ld.so.cache": old})
    assert _listed(_update(tmp_path)) == ["libcuda.so.1 => /usr/lib/libcuda.so.1"]


def test_an_injected_library_is_read_whatever_the_images_cache_says_of_its_name(tmp_path):
    old = ldcache.format.render([ldcache.Entry("libcuda.so.1", "/usr/lib/libcuda.so.1", 0x303)])
    other = tiny_elf.shared_object("libother.so.1")
    _write(tmp_path, {**DEBIAN, "/usr/lib/libcuda.so.1": other, "/etc/ld.so.cache": old})
    update = _update(tmp_path, injected={"/usr/lib/libcuda.so.1"})
    assert _listed(update) == ["libother.so.1 => /usr/lib/libother.so.1"]


def test_no_truncation_and_no_changed_byte_of_a_library_does_harm(tmp_path):
    library = tiny_elf.shared_object("libcuda.so.1", isa_needed=5)
    path = tmp_path / "library"
    for size in range(len(library)):
        path.write_bytes(library[:size])
        with path.open("rb") as file:
            elf.read(file, "x86_64")
    for at in range(len(library)):
        for value in (0, 0x7F, 0xFF):
            path.write_bytes(library[:at] + bytes([value]) + library[at + 1 :])
            with path.open("rb") as file:
                elf.read(file, "x86_64")
    path.write_bytes(library)
    with path.open("rb") as file:
        assert elf.read(file, "x86_64") == elf.Library("libcuda.so.1", 0x303, 2)


def test_a_sparse_library_of_a_terabyte_is_no_effort(tmp_path):
    _write(tmp_path, {**DEBIAN, "/usr/lib/libcuda.so.1": CUDA, "/usr/lib/libbig.so.1": b""})
    os.truncate(tmp_path / "usr/lib/libbig.so.1", 1 << 40)
    assert _listed(_update(tmp_path)) == ["libcuda.so.1 => /usr/lib/libcuda.so.1"]


def test_a_view_gives_back_every_descriptor(tmp_path):
    _write(tmp_path, {**DEBIAN, **{f"/d{i}/d/liba.so.1": CUDA for i in range(100)}})
    _write(tmp_path, {"/etc/ld.so.conf": b"".join(b"/d%d/d\n" % i for i in range(100))})
    before = len(os.listdir("/proc/self/fd"))
    assert len(_listed(_update(tmp_path))) == 100
    assert len(os.listdir("/proc/self/fd")) == before
