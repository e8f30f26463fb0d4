"""The plugin's own grammar, and what it takes for allocated, without Slurm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slurm_site import PROJECT

from cdi_hpc import names

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


ALLOCATED = {
    ("nvidia.com/gpu", "0,1"): "nvidia.com/gpu=0,nvidia.com/gpu=1",
    ("nvidia.com/gpu=all", "3"): "nvidia.com/gpu=3",
    ("nvidia.com/gpu=1", "0,1"): "nvidia.com/gpu=1",
    ("nvidia.com/gpu=1,nvidia.com/gpu=10", "1,10"): "nvidia.com/gpu=1,nvidia.com/gpu=10",
    ("amd.com/gpu,hpe.com/cxi=all", "0"): "amd.com/gpu=0,hpe.com/cxi=all",
    ("hpe.com/cxi", "-"): "hpe.com/cxi",
    ("nvidia.com/gpus=0", "-"): "nvidia.com/gpus=0",
}


@pytest.mark.parametrize(("request_", "gpus"), [*ALLOCATED])
def test_what_was_allocated(program, request_, gpus):
    status, lines = ask(program, "devices", gpus, "--", request_)
    expected = ALLOCATED[request_, gpus]
    assert (status, lines) == (0, [expected, *expected.split(",")])


REFUSED = {
    ("nvidia.com/gpu=1", "0,11"): "device 'nvidia.com/gpu=1': it was not allocated to this step",
    ("nvidia.com/gpu=0,nvidia.com/gpu=2", "0"): "device 'nvidia.com/gpu=2': it was not allocated",
    ("nvidia.com/gpu=GPU-0", "0"): "it was not allocated",
    ("nvidia.com/gpu=00", "0"): "it was not allocated",
    ("nvidia.com/gpu", "-"): "this step has no GPUs allocated",
    ("nvidia.com/gpu", ""): "this step has no GPUs allocated",
    ("nvidia.com/gpu=all", "MIG-1"): "and not by numbers",
    ("nvidia.com/gpu", "0,"): "and not by numbers",
    ("nvidia.com/gpu", ",0"): "and not by numbers",
    ("nvidia.com/gpu", "0,,1"): "and not by numbers",
    ("nvidia.com/gpu", "0-3"): "and not by numbers",
}


@pytest.mark.parametrize(("request_", "gpus"), [*REFUSED])
def test_what_was_not_allocated(program, request_, gpus):
    status, lines = ask(program, "devices", gpus, "--", request_)
    assert status == 1
    assert REFUSED[request_, gpus] in lines[0]


def test_gpus_that_are_shared_are_taken_as_they_are_asked_for(program):
    assert ask(program, "devices", "-", "gpus=shared", "--", "nvidia.com/gpu")[1][0] == "nvidia.com/gpu"


def test_other_classes_may_be_refused(program):
    status, lines = ask(program, "devices", "0", "others=refuse", "--", "hpe.com/cxi")
    assert (status, lines[0][:20]) == (1, "device 'hpe.com/cxi'")
    assert ask(program, "devices", "0", "others=refuse", "--", "nvidia.com/gpu")[0] == 0


WRONG = ["", "mode", "mode=", "mode=both", "timeout=0", "timeout=3601", "timeout=1x", "timeout=", "cache=relative"]
WRONG += ["gpus=yes", "others=", "cdi-hpc=cdi-hpc", "=x", "helper=/x", f"cdi-dir=/{'x' * 4096}"]


@pytest.mark.parametrize("argument", WRONG)
def test_arguments_that_are_refused(program, argument):
    status, lines = ask(program, "site", "timeout=3600", argument)
    assert status == 1
    assert lines[0].startswith(f"plugstack.conf: '{argument}': ")


def test_arguments_that_are_taken(program):
    words = ("cdi-hpc=/a", "cdi-hpc-run=/b", "cache=/c", "mode=mounts", "gpus=shared", "others=refuse", "timeout=1")
    assert ask(program, "site", *words, *["cdi-dir=/d"] * 16)[0] == 0
    assert ask(program, "site", *["cdi-dir=/d"] * 17)[0] == 1


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
