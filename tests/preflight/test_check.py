"""What is certain about libraries in an image is said, in the words of the loader's own complaint; nothing else is."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import linked
import pytest
from linked import LIBRARIES, OLD_GLIBC

from cdi_hpc.container.preflight import check, enforce, wanted
from cdi_hpc.errors import CdiError
from cdi_hpc.witness import Recorder

LIBC = "/lib/x86_64-linux-gnu/libc.so.6"


def test_a_library_that_needs_a_newer_glibc_is_named_with_what_it_needs_and_what_there_is(world):
    world.bind(world.library("libcuda.so.570.133.20", {"libc.so.6": ["GLIBC_2.2.5", "GLIBC_2.34"]}))
    assert world.said() == [f"libcuda.so.570.133.20 needs GLIBC_2.34, the image has 2.28 ({LIBC})"]


def test_a_library_that_needs_what_there_is_fits(world):
    world.bind(world.library("libcuda.so.1", {"libc.so.6": list(OLD_GLIBC)}))
    assert world.said() == []


def test_of_several_needs_the_newest_is_told(world):
    world.bind(world.library("liba.so", {"libc.so.6": ["GLIBC_2.9", "GLIBC_2.100", "GLIBC_2.34"]}))
    assert world.said() == [f"liba.so needs GLIBC_2.100, the image has 2.28 ({LIBC})"]


def test_a_program_is_looked_at_as_well(world):
    world.bind(world.library("nvidia-smi", {"libc.so.6": ["GLIBC_2.34"]}), "/usr/bin/nvidia-smi")
    assert world.said() == [f"nvidia-smi needs GLIBC_2.34, the image has 2.28 ({LIBC})"]


def test_five_libraries_are_five_lines_and_six_are_one(world):
    for number in range(5):
        world.bind(world.library(f"lib{number}.so", {"libc.so.6": ["GLIBC_2.34"]}))
    assert len(world.said()) == 5
    world.bind(world.library("libmore.so", {"libc.so.6": ["GLIBC_2.34"]}))
    assert world.said() == [
        f"6 files need GLIBC_2.34, the image has 2.28 ({LIBC}): lib0.so, lib1.so, lib2.so, lib3.so, lib4.so and 1 more"
    ]


def test_glibcs_versions_are_told_before_others(world):
    world.provides("libstdc++.so.6", "GLIBCXX_3.4", "GLIBCXX_3.4.28")
    needs = {"libstdc++.so.6": ["GLIBCXX_3.4.30"], "libc.so.6": ["GLIBC_2.34"]}
    world.bind(world.library("liba.so", needs))
    assert world.said() == [f"liba.so needs GLIBC_2.34, the image has 2.28 ({LIBC})"]


def test_another_library_that_is_too_old_is_a_warning(world):
    world.provides("libstdc++.so.6", "GLIBCXX_3.4", "GLIBCXX_3.4.28")
    world.bind(world.library("liba.so", {"libstdc++.so.6": ["GLIBCXX_3.4.30"]}))
    (misfit,) = world.misfits()
    assert str(misfit) == f"liba.so needs GLIBCXX_3.4.30, the image has 3.4.28 ({LIBRARIES}/libstdc++.so.6)"
    assert not misfit.fatal


def test_a_version_that_is_no_number_is_not_there_at_all(world):
    world.bind(world.library("liba.so", {"libc.so.6": ["GLIBC_PRIVATE"]}))
    assert world.said() == [f"liba.so needs GLIBC_PRIVATE, the image does not have it ({LIBC})"]


def test_one_host_library_can_lack_what_another_needs(world):
    world.bind(linked.provider(world.host / "lib/libfabric.so.1", "libfabric.so.1", ["FABRIC_1.0", "FABRIC_1.1"]))
    world.bind(world.library("libmpi.so", {"libfabric.so.1": ["FABRIC_1.8"]}))
    assert world.said() == [
        f"libmpi.so needs FABRIC_1.8, the host's libfabric.so.1 has 1.1 ({LIBRARIES}/libfabric.so.1)"
    ]


# Where the loader looks ---------------------------------------------------------------------------------------


def test_what_the_images_configuration_puts_first_is_what_counts(world):
    world.provides("libstdc++.so.6", "GLIBCXX_3.4", "GLIBCXX_3.4.28")
    world.provides("libstdc++.so.6", "GLIBCXX_3.4", "GLIBCXX_3.4.30", where="/usr/local/lib64")
    world.bind(world.library("liba.so", {"libstdc++.so.6": ["GLIBCXX_3.4.30"]}))
    assert len(world.said()) == 1
    (world.image / "etc/ld.so.conf").write_text("/usr/local/lib64\n")
    assert world.said() == []


def test_without_a_cache_the_systems_directories_count(world):
    world.bind(world.library("libcuda.so.1", {"libc.so.6": ["GLIBC_2.34"]}))
    assert world.said(cache=False) == [f"libcuda.so.1 needs GLIBC_2.34, the image has 2.28 ({LIBC})"]


@pytest.mark.parametrize("path", ["$ORIGIN", "${ORIGIN}/../x86_64-linux-gnu", "/opt/own:/no", LIBRARIES])
def test_a_librarys_own_run_path_comes_first(world, path):
    world.provides("libown.so", "OWN_1", where="/usr/lib/x86_64-linux-gnu")
    world.provides("libown.so", "OWN_1", "OWN_2", where="/opt/own" if path.startswith("/opt") else LIBRARIES)
    world.bind(world.library("liba.so", {"libown.so": ["OWN_2"]}, run_path=path))
    (world.image / "etc/ld.so.conf").write_text("/usr/lib/x86_64-linux-gnu\n")
    assert world.said() == []


def test_a_link_is_followed_inside_the_image(world):
    (world.image / "lib/x86_64-linux-gnu/libc.so.6").rename(world.image / "lib/x86_64-linux-gnu/libc-2.28.so")
    (world.image / "lib/x86_64-linux-gnu/libc.so.6").symlink_to("/lib/x86_64-linux-gnu/libc-2.28.so")
    world.bind(world.library("libcuda.so.1", {"libc.so.6": ["GLIBC_2.34"]}))
    assert world.said() == [f"libcuda.so.1 needs GLIBC_2.34, the image has 2.28 ({LIBC})"]


def test_libraries_of_a_directory_are_looked_at_if_the_loader_looks_into_it(world):
    library = world.library("libfabric.so.1", {"libc.so.6": ["GLIBC_2.34"]})
    (library.parent / "notes.txt").write_text("text")
    (library.parent / "libfabric.so").symlink_to("libfabric.so.1")
    world.bind(library.parent, LIBRARIES + "/fabric")
    assert world.said() == []
    from cdi_hpc.plan import UpdateLdCache

    world.actions.append(UpdateLdCache((LIBRARIES + "/fabric",), world.actions[0].origin))
    assert world.said() == [f"libfabric.so.1 needs GLIBC_2.34, the image has 2.28 ({LIBC})"]


def test_one_file_at_two_places_is_told_once(world):
    library = world.library("libcuda.so.1", {"libc.so.6": ["GLIBC_2.34"]})
    world.bind(library)
    world.bind(library, "/opt/cuda/libcuda.so.1")
    assert len(world.said()) == 1


# What is not certain ------------------------------------------------------------------------------------------


def test_a_weak_need_is_none(world):
    world.bind(linked.weaken(world.library("liba.so", {"libc.so.6": ["GLIBC_2.34"]})))
    assert world.said() == []


def test_a_library_without_versions_has_every_one(world):
    world.provides("libfoo.so.1")
    world.bind(world.library("liba.so", {"libfoo.so.1": ["FOO_2"]}))
    assert world.said() == []


def test_a_library_that_is_missing_altogether_is_no_misfit(world):
    world.bind(world.library("libnvidia-egl-wayland.so.1", {"libwayland-server.so.0": ["WAYLAND_1"]}))
    assert world.said() == []


def test_a_32_bit_library_without_a_32_bit_glibc_is_no_misfit(world):
    world.bind(world.library("libcuda.so.1", {"libc.so.6": ["GLIBC_2.34"]}, flags=["-m32"]), "/usr/lib32/libcuda.so.1")
    assert world.said() == []


def test_a_32_bit_library_is_held_against_the_32_bit_glibc(world):
    world.provides("libc.so.6", "GLIBC_2.0", "GLIBC_2.28", where="/lib32", flags=("-m32",))
    world.bind(world.library("libcuda.so.1", {"libc.so.6": ["GLIBC_2.34"]}, flags=["-m32"]), "/usr/lib32/libcuda.so.1")
    (world.image / "etc/ld.so.conf").write_text("/lib32\n")
    assert world.said() == ["libcuda.so.1 needs GLIBC_2.34, the image has 2.28 (/lib32/libc.so.6)"]


def of_another_machine(path, machine=183):
    """The same file as one of AArch64; only its header says so."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, 18, machine)
    path.write_bytes(data)


def test_firmware_that_is_an_elf_file_is_no_library(world):
    firmware = world.library("gsp_ga10x.bin", {"libc.so.6": ["GLIBC_2.34"]})
    of_another_machine(firmware, 243)
    world.bind(firmware, "/lib/firmware/gsp_ga10x.bin")
    assert world.said() == []


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"text", b"\x7fELF\x02\x01\x01" + bytes(100), os.urandom(4096)])
def test_what_is_no_library_is_left_alone(world, content):
    (world.host / "lib").mkdir(parents=True)
    (world.host / "lib/file").write_bytes(content)
    world.bind(world.host / "lib/file")
    assert world.said() == []


def test_an_image_without_any_c_library_is_not_judged(world):
    (world.image / "lib/x86_64-linux-gnu/libc.so.6").unlink()
    world.bind(world.library("libcuda.so.1", {"libc.so.6": ["GLIBC_2.34"]}))
    assert world.said() == []


@pytest.mark.parametrize("damage", range(0, 600, 23))
def test_a_damaged_library_of_the_image_is_judged_or_not_but_never_believed_to_crash(world, damage):
    libc = world.image / "lib/x86_64-linux-gnu/libc.so.6"
    data = bytearray(libc.read_bytes())
    data[damage : damage + 4] = b"\xff\xff\xff\x7f"
    libc.write_bytes(data)
    world.bind(world.library("libcuda.so.1", {"libc.so.6": ["GLIBC_2.34"]}))
    assert len(world.said()) <= 1


# Another C library, another machine ---------------------------------------------------------------------------


def test_musl_is_one_warning(world):
    (world.image / "lib/x86_64-linux-gnu/libc.so.6").unlink()
    (world.image / "lib/ld-musl-x86_64.so.1").write_bytes(b"")
    world.bind(world.library("liba.so", {"libc.so.6": ["GLIBC_2.2.5"]}))
    world.bind(world.library("libb.so", {"libc.so.6": ["GLIBC_2.2.5"]}))
    (misfit,) = world.misfits()
    assert str(misfit) == "2 files need glibc, the image has musl (/lib/ld-musl-x86_64.so.1): liba.so, libb.so"
    assert not misfit.fatal


def test_musl_with_gcompat_is_not_judged(world):
    (world.image / "lib/x86_64-linux-gnu/libc.so.6").unlink()
    (world.image / "lib/ld-musl-x86_64.so.1").write_bytes(b"")
    (world.image / "lib/libgcompat.so.0").write_bytes(b"")
    world.bind(world.library("liba.so", {"libc.so.6": ["GLIBC_2.2.5"]}))
    assert world.said() == []


@pytest.fixture
def foreign(world):
    """An image for AArch64."""
    path = world.provides("libc.so.6", *OLD_GLIBC, where="/lib/aarch64-linux-gnu")
    of_another_machine(path)
    (world.image / "lib/x86_64-linux-gnu/libc.so.6").unlink()
    return world


def foreign_library(world, name: str, machine: int) -> Path:
    path = world.library(name, {"libc.so.6": ["GLIBC_2.2.5"]})
    of_another_machine(path, machine)
    return path


@pytest.mark.parametrize("machine, told", [(183, "aarch64"), (250, "machine 250")])
def test_a_library_for_another_machine_is_a_warning(world, machine, told):
    world.bind(foreign_library(world, "libcuda.so.1", machine))
    (misfit,) = world.misfits()
    assert str(misfit) == f"libcuda.so.1 needs {told}, this machine is x86_64"
    assert not misfit.fatal


def test_firmware_and_libraries_that_the_processor_runs_as_well_are_none(world):
    world.bind(foreign_library(world, "gsp_ga10x.bin", 243), "/lib/firmware/nvidia/gsp_ga10x.bin")
    world.bind(foreign_library(world, "lib32.so.1", 3))
    assert world.said() == []


def test_a_library_for_the_images_own_machine_is_none(foreign):
    foreign.bind(foreign_library(foreign, "libcuda.so.1", 183))
    assert foreign.said() == []


def test_an_image_for_another_machine_is_named(foreign):
    foreign.bind(foreign.library("libcuda.so.1", {"libc.so.6": ["GLIBC_2.2.5"]}))
    (misfit,) = foreign.misfits()
    where = "/lib/aarch64-linux-gnu/libc.so.6"
    assert str(misfit) == f"libcuda.so.1 needs an image for x86_64, this one is for aarch64 ({where})"
    assert misfit.fatal


def test_libraries_of_two_abis_fit_an_image_that_has_one_of_them(world):
    """A 32-bit image takes the 32-bit libraries; the others are for programs that it does not have."""
    (world.image / "lib/x86_64-linux-gnu/libc.so.6").unlink()
    world.provides("libc.so.6", *OLD_GLIBC, where="/lib", flags=("-m32",))
    world.bind(world.library("libcuda.so.1", {"libc.so.6": ["GLIBC_2.2.5"]}))
    narrow = linked.library(world.host / "lib32/libcuda.so.1", {"libc.so.6": ["GLIBC_2.2.5"]}, flags=["-m32"])
    world.bind(narrow, "/lib/libcuda.so.1")
    assert world.said() == []


# What is done about it ----------------------------------------------------------------------------------------


def test_misfits_are_an_error_with_the_way_out_in_the_last_line(world):
    world.bind(world.library("liba.so", {"libc.so.6": ["GLIBC_2.34"]}))
    world.bind(world.library("libb.so", {"libc.so.6": ["GLIBC_2.34"]}))
    with pytest.raises(CdiError) as caught:
        enforce(world.assembly(), "fail", "--preflight=warn")
    first, last = str(caught.value).splitlines()
    assert first == f"liba.so needs GLIBC_2.34, the image has 2.28 ({LIBC})"
    assert last.endswith(f"({LIBC}) (take an image with newer libraries, or --preflight=warn)")


def test_as_warnings_they_are_only_told(world):
    world.bind(world.library("liba.so", {"libc.so.6": ["GLIBC_2.34"]}))
    assert enforce(world.assembly(), "warn") == check(world.assembly())


def test_nothing_is_read_if_nobody_wants_to_know(world, monkeypatch):
    world.bind(world.library("liba.so", {"libc.so.6": ["GLIBC_2.34"]}))
    assembly = world.assembly()
    monkeypatch.setattr(type(assembly.tree), "open", lambda *_: pytest.fail("opened"))
    assert enforce(assembly, "off") == []


def test_a_witness_sees_both_sides(world):
    library = world.library("liba.so", {"libc.so.6": ["GLIBC_2.34"]})
    world.bind(library)
    from cdi_hpc.container.stage import assemble

    recorder = Recorder()
    check(assemble(world.actions, os.path.realpath(world.image), recorder))
    seen = {state.path for state in recorder.states()}
    assert {str(library), f"{world.image}{LIBC}"} <= seen


@pytest.mark.parametrize("environ, word", [({}, "fail"), ({"CDI_HPC_PREFLIGHT": "off"}, "off"), ({"X": "off"}, "fail")])
def test_the_environment_says_what_to_do(environ, word):
    assert wanted(environ) == word


def test_a_word_that_is_not_known_is_refused():
    with pytest.raises(CdiError, match=r"^CDI_HPC_PREFLIGHT: is 'no' \(known are fail, warn, off\)$"):
        wanted({"CDI_HPC_PREFLIGHT": "no"})
