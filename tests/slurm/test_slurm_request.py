"""The plugin's own grammar, without Slurm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slurm_site import PROJECT

from cdi_hpc.spec import names

SOURCES = [PROJECT / "slurm/spank/request.c", PROJECT / "slurm/spank/site.c", PROJECT / "native/plan_read.c"]
SOURCES += [PROJECT / "native/mount_flags.c", Path(__file__).with_name("request_main.c")]


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("request") / "request"
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    includes = [f"-I{PROJECT}/slurm/spank", f"-I{PROJECT}/native"]
    argv = [
        "cc",
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        *sanitizers,
        *includes,
        "-o",
        path,
    ]
    subprocess.run([*argv, *SOURCES], check=True)
    return path


def ask(program: Path, *words: str) -> tuple[int, list[str]]:
    done = subprocess.run([program, *map(os.fsencode, words)], capture_output=True, check=False)
    assert done.returncode in {0, 1}, done.stderr.decode()
    return done.returncode, done.stdout.decode(errors="surrogateescape").splitlines()


@pytest.mark.parametrize("request_", ["nvidia.com/gpu", "nvidia.com/gpu=0,nvidia.com/gpu=1,hpe.com/cxi"])
def test_devices_are_passed_on_one_by_one_as_they_were_asked_for(program, request_):
    assert ask(program, "split", request_) == (0, request_.split(","))


WRONG = ["", "mode", "mode=", "mode=both", "timeout=0", "timeout=3601", "timeout=1x", "timeout=", "cache=relative"]
WRONG += ["default=", "default=nvidia", "default=none,a/b", "default=a/b=c,"]
WRONG += ["gpus=yes", "others=allow", "cdi-hpc=cdi-hpc", "=x", "helper=/x", f"cdi-dir=/{'x' * 4096}"]


@pytest.mark.parametrize("argument", WRONG)
def test_arguments_that_are_refused(program, argument):
    status, lines = ask(program, "site", "timeout=3600", argument)
    assert status == 1
    assert lines[0].startswith(f"plugstack.conf: '{argument}': ")


def test_arguments_that_are_taken(program):
    words = ("cdi-hpc=/a", "cdi-hpc-run=/b", "cache=/c", "mode=mounts", "gpus=shared", "timeout=1")
    words += ("default=nvidia.com/gpu,a/b=c", "default=none")
    assert ask(program, "site", *words, *["cdi-dir=/d"] * 16)[0] == 0
    assert ask(program, "site", *["cdi-dir=/d"] * 17)[0] == 1


@pytest.mark.parametrize("text", ["a/b.json", "a/b=c.json", "a/b.yaml", "a/b.lock", "nvidia.com/gpu=0,a/b=c.lock"])
def test_no_name_is_taken_that_cdi_hpc_takes_for_a_file(program, text):
    assert ask(program, "valid", text)[0] == 1


def is_device_or_kind(text: str) -> bool:
    if "=" in text:
        return not isinstance(names.parse_qualified(text), str)
    return not names.kind_complaint(text)


PIECES = st.sampled_from(
    ["nvidia.com", "gpu", "a", "0", "/", "=", ",", "-", "_", ".", ":", "all", "none", " ", "é", "\x1b"]
)


@settings(max_examples=150)
@given(st.lists(PIECES, max_size=9).map("".join))
def test_the_grammar_is_the_librarys(program, text):
    valid = text == "none" or all(map(is_device_or_kind, text.split(",")))
    assert (ask(program, "valid", text)[0] == 0) is valid
