"""The script's rule of CUDA forward compatibility, against the library's."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from hooks.compat_library import SHT_PROGBITS, Section, elf, library

from cdi_hpc.container.cuda_compat import read_note, use_compat
from cdi_hpc.plan import Plan
from cdi_hpc.render.bash import script

DRIVERS = {"Format": 1, "CUDA Version": "12.9", "Driver": [535, 550, 570, 575], "Device": [7, 8, 9]}

LIBRARIES = {
    "note": library(DRIVERS),
    "aligned to 8": library(DRIVERS, alignment=8),
    "without drivers": library({"CUDA Version": "13.2"}),
    "no JSON": library(b"not JSON"),
    "no note": elf(Section(".text", SHT_PROGBITS, b"x")),
    "no ELF": b"GROUP ( /lib/libcuda.so.1 )\n",
    "empty": b"",
    "cut off": library(DRIVERS)[:100],
}

VERSIONS = [
    # library's, host's driver, host's CUDA
    ("575.57.08", "570.211.01", ""),
    ("575.57.08", "575.57.8", ""),
    ("575.57.08", "575.57.07", ""),
    ("575.57.08", "545.23.06", ""),
    ("575.57.08", "590.44.01", "12.0"),
    ("575.57.08", "570.211.01", "12.9"),
    ("575.57.08", "", "12.8"),
    ("575.57.08", "", "12.10"),
    ("575.57.08", "unknown", "12.8"),
    ("575.57.08", "unknown", ""),
    ("575.57.08", "", "new"),
    ("a.b", "570.1", "12.8"),
    ("a.b", "570.1", ""),
    ("575.57", "99.55.66", ""),
    ("08.09", "7.1", ""),
]

ASK = r"""
source "$1"
if with_state compat_wanted "$2" "$3" "$4" "$5"; then echo yes; else echo no; fi
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("compat") / "functions.bash"
    path.write_text(script(Plan((), ()), only="mounts"))
    return path


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_script_decides_as_the_library_does(name, functions, tmp_path):
    found, wanted = {}, {}
    for version, driver, cuda in VERSIONS:
        path = tmp_path / f"libcuda.so.{version}"
        path.write_bytes(LIBRARIES[name])
        asked = ["bash", "-c", ASK, "bash", functions, path, version, driver, cuda]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        found[version, driver, cuda] = done.stdout == "yes\n"
        note = read_note(io.BytesIO(LIBRARIES[name]))
        wanted[version, driver, cuda] = use_compat(path.name, note, driver, cuda).use
    assert found == wanted
