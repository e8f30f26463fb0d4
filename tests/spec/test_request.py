from __future__ import annotations

import json

import pytest

from cdi_hpc.errors import CdiError
from cdi_hpc.spec.registry import Registry, SpecDirectory, load_registry
from cdi_hpc.spec.request import resolve
from cdi_hpc.witness import Recorder


def spec(kind, *devices):
    edited = [{"name": name, "containerEdits": {"env": [f"A={name}"]}} for name in devices]
    return json.dumps({"cdiVersion": "0.5.0", "kind": kind, "devices": edited})


FILES = {
    "gpu.json": spec("vendor.com/gpu", "1", "0", "all"),
    "nic.json": spec("vendor.com/nic", "b", "a"),
    "whole.json": '{"cdiVersion": "0.5.0", "kind": "ch/example", "containerEdits": {"env": ["A=b"]}}',
    "one.json": spec("acme/x", "0", "1"),
    "two.json": spec("acme/x", "0"),
    "broken.json": spec("broken/gpu", "0").replace("0.5.0", "7"),
}


@pytest.fixture
def registry(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return load_registry([SpecDirectory(str(tmp_path), named=True)])


def resolved(registry, *arguments):
    return [device.name for device in resolve(arguments, registry).devices]


def refused(registry, *arguments):
    with pytest.raises(CdiError) as error:
        resolve(arguments, registry)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("arguments", "devices"),
    [
        (["vendor.com/gpu=0"], ["vendor.com/gpu=0"]),
        (["vendor.com/gpu=0,vendor.com/nic=a", "acme/x=1"], ["vendor.com/gpu=0", "vendor.com/nic=a", "acme/x=1"]),
        (["vendor.com/gpu=all"], ["vendor.com/gpu=all"]),
        (["vendor.com/nic=all"], ["vendor.com/nic=b", "vendor.com/nic=a"]),
        (["vendor.com/gpu"], ["vendor.com/gpu=1", "vendor.com/gpu=0", "vendor.com/gpu=all"]),
        (["ch/example"], ["ch/example"]),
        (["ch/example=all"], ["ch/example"]),
        ([], []),
    ],
)
def test_a_request_means_these_devices(registry, arguments, devices):
    assert resolved(registry, *arguments) == devices


def test_what_is_asked_for_twice_is_applied_twice_since_its_last_place_counts(registry):
    twice = ["vendor.com/nic=a", "vendor.com/nic=b", "vendor.com/nic=a"]
    assert resolved(registry, *twice) == twice


def test_a_path_means_every_device_of_that_file_wherever_it_is(registry, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere, 1"
    elsewhere.mkdir()
    (elsewhere / "my.yaml").write_text(spec("my/gpu", "b", "a"))
    (elsewhere / "odd.spec").write_text(spec("my/odd", "c"))
    monkeypatch.chdir(elsewhere)
    for argument in (str(elsewhere / "my.yaml"), "./my.yaml", "my.yaml", "../elsewhere, 1/my.yaml"):
        recorder = Recorder()
        resolution = resolve([argument], registry, witness=recorder)
        assert [device.name for device in resolution.devices] == ["my/gpu=b", "my/gpu=a"]
        assert str(elsewhere / "my.yaml") in {state.path for state in recorder.states()}
    assert resolved(registry, "./odd.spec,my.yaml,vendor.com/gpu=0") == [
        "my/odd=c",
        "my/gpu=b",
        "my/gpu=a",
        "vendor.com/gpu=0",
    ]


def test_a_file_that_cannot_be_used_is_refused_with_all_its_problems(registry, tmp_path):
    assert refused(registry, "/does/not/exist.json") == ["/does/not/exist.json: the spec file doesn't exist"]
    assert len(refused(registry, str(tmp_path / "broken.json"))) == 1
    (tmp_path / "new.json").write_text(spec("a/b", "c").replace("env", "enw"))
    assert len(resolve([str(tmp_path / "whole.json")], registry).warnings) == 1
    with pytest.raises(CdiError):
        resolve([str(tmp_path / "whole.json")], registry, strict=True)


@pytest.mark.parametrize("head", [b"hsqs\x01\0\0", b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0", None])
def test_an_image_in_the_place_of_a_device_is_told_as_a_device_that_was_left_out(registry, tmp_path, head):
    image = tmp_path / "image"
    image.mkdir() if head is None else image.write_bytes(head + bytes(1 << 20))
    assert refused(registry, str(image)) == [f"{image}: is no spec (was the device left out, and is this the image?)"]


def test_a_spec_file_that_is_not_there_is_no_misspelt_kind(registry):
    assert refused(registry, "no-such.json") == [
        "device 'no-such.json': there is no such file (correct the path, which begins where you are)"
    ]


def test_a_kind_lacks_the_devices_of_a_conflict_and_says_so(registry, tmp_path):
    resolution = resolve(["acme/x"], registry)
    assert [device.name for device in resolution.devices] == ["acme/x=1"]
    [warning] = resolution.warnings
    assert str(warning) == (
        f"kind 'acme/x': without 'acme/x=0', which '{tmp_path}/one.json' and '{tmp_path}/two.json' define "
        "(remove or rename the device in one of them)"
    )


def test_everything_that_cannot_be_resolved_is_told_at_once(registry, tmp_path):
    assert refused(
        registry, "vendor.com/gpu=2,gpu0", "vendor.com/gpu=0", "", "acme/x=0", "broken/gpu=0", "vendr.com/gpu"
    ) == [
        (
            f"device 'vendor.com/gpu=2': no such device of the kind 'vendor.com/gpu' in '{tmp_path}' "
            "(did you mean 'vendor.com/gpu=1' or 'vendor.com/gpu=0' or 'vendor.com/gpu'?)"
        ),
        (
            "device 'gpu0': 'gpu0' is neither a device 'VENDOR/CLASS=NAME' nor a kind 'VENDOR/CLASS' "
            "(there is 'acme/x', 'ch/example', 'vendor.com/gpu', 'vendor.com/nic')"
        ),
        "device '': an empty device name (remove the extra comma)",
        (
            f"device 'acme/x=0': both '{tmp_path}/one.json' and '{tmp_path}/two.json' define it, so nobody gets it "
            "(remove or rename the device in one of them)"
        ),
        (
            f"device 'broken/gpu=0': defined only in '{tmp_path}/broken.json', which can't be used "
            "('cdi-hpc validate' says what is wrong there)"
        ),
        (
            f"kind 'vendr.com/gpu': no spec of this kind in '{tmp_path}' (did you mean 'vendor.com/gpu' or "
            "'vendor.com/gpu=1' or 'vendor.com/gpu=0'?)"
        ),
    ]


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("vendor.com/nic=c", "did you mean 'vendor.com/nic=b' or 'vendor.com/nic=a' or 'vendor.com/nic'?"),
        ("vendor.com/gpu:0", "did you mean 'vendor.com/gpu=0'"),
        ("b", "did you mean 'vendor.com/nic=b'?"),
        ("vendor.com/gpu=", "the device name is empty"),
        ("vendor.com/gpu=0 1", "invalid device name '0 1'"),
        ("vendor.com=0", "'vendor.com' is not a kind"),
        ("broken/gpu", "broken.json', which can't be used"),
        ("broken/gpu=all", "broken.json', which can't be used"),
        ("vendor.com/gpu=\x1b[31m", "\\x1b[31m"),
    ],
)
def test_a_wrong_name_gets_a_hint(registry, wanted, hint):
    [message] = refused(registry, wanted)
    assert hint in message
    assert "\x1b" not in message


def test_without_any_spec_the_answer_is_where_specs_come_from():
    registry = Registry(directories=(SpecDirectory("/etc/cdi"), SpecDirectory("/var/run/cdi")))
    [message] = refused(registry, "nvidia.com/gpu=0")
    assert message == (
        "device 'nvidia.com/gpu=0': there are no usable CDI specs in '/etc/cdi', '/var/run/cdi' "
        "('cdi-hpc generate --output DIR' or the vendor's generator makes one; --cdi-dir or CDI_HPC_DIRS names "
        "its directory)"
    )
