from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from spec_directories import specs

from cdi_hpc.spec import validate, version
from cdi_hpc.spec.document import field_text
from cdi_hpc.spec.model import ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec
from cdi_hpc.spec.validate import check

GOOD = {
    "cdiVersion": "1.1.0",
    "kind": "vendor.com/gpu",
    "annotations": {"org.example/a": "b"},
    "devices": [
        {
            "name": "0",
            "annotations": {"c": "d"},
            "containerEdits": {
                "deviceNodes": [
                    {
                        "path": "/dev/x",
                        "hostPath": "/dev/y",
                        "type": "c",
                        "major": 195,
                        "minor": 1,
                        "fileMode": 432,
                        "permissions": "rw",
                        "uid": 0,
                        "gid": 44,
                    }
                ]
            },
        }
    ],
    "containerEdits": {
        "env": ["A=1"],
        "netDevices": [{"hostInterfaceName": "ib0", "name": "eth0"}],
        "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"], "type": "bind"}],
        "hooks": [{"hookName": "createContainer", "path": "/h", "args": ["h"], "env": ["B=2"], "timeout": 3}],
        "additionalGids": [44],
        "intelRdt": {
            "closID": "c",
            "l3CacheSchema": "L3:0=f",
            "memBwSchema": "MB:0=10",
            "schemata": ["L3:0=f"],
            "enableMonitoring": True,
        },
    },
}


def changed(at, new):
    """GOOD with another value at a field; ``...`` removes the field."""
    made = copy.deepcopy(GOOD)
    holder = made
    for part in at[:-1]:
        holder = holder[part]
    if new is ...:
        del holder[at[-1]]
    else:
        holder[at[-1]] = new
    return made


def checked(value, **options):
    text = value if isinstance(value, str) else json.dumps(value)
    return check(text.encode(), "spec.json", **options)


def test_every_field_of_the_specification_arrives_in_the_model():
    result = checked(GOOD, schema=True, strict=True)
    assert (result.errors, result.warnings) == ((), ())
    assert result.spec == Spec(
        "1.1.0",
        "vendor.com/gpu",
        (
            Device(
                "0",
                {"c": "d"},
                ContainerEdits(device_nodes=(DeviceNode("/dev/x", "/dev/y", "c", 195, 1, 0o660, "rw", 0, 44),)),
            ),
        ),
        {"org.example/a": "b"},
        ContainerEdits(
            ("A=1",),
            (),
            (NetDevice("ib0", "eth0"),),
            (Mount("/a", "/b", ("ro",), "bind"),),
            (Hook("createContainer", "/h", ("h",), ("B=2",), 3),),
            (44,),
            IntelRdt("c", "L3:0=f", "MB:0=10", ("L3:0=f",), enable_monitoring=True),
        ),
        "spec.json",
    )


EDITS = ("containerEdits",)
NODE = ("devices", 0, "containerEdits", "deviceNodes", 0)
MOUNT = (*EDITS, "mounts", 0)
HOOK = (*EDITS, "hooks", 0)
RDT = (*EDITS, "intelRdt")
NET = (*EDITS, "netDevices", 0)
TYPED_MOUNT = {"hostPath": "/a", "containerPath": "/b", "type": "x"}
MISTAKES = [
    (("cdiVersion",), ..., "the version is missing"),
    (("cdiVersion",), "1.1", "unknown version '1.1'"),
    (("cdiVersion",), [], "expected text, found a list"),
    (("kind",), ..., "the kind is missing"),
    (("kind",), "gpu", "'gpu' is not a kind of the form 'VENDOR/CLASS'"),
    (("kind",), "vendor/gpu-", "invalid class 'gpu-'"),
    (("devices",), ..., None),
    (("devices",), [], "the spec has no devices"),
    (("devices",), {}, "expected a list, found a mapping"),
    (("devices", 0), None, "expected a mapping (a device), found null"),
    (("devices", 0, "name"), ..., "the device name is empty"),
    (("devices", 0, "name"), "a b", "invalid device name 'a b'"),
    (("devices", 0, "containerEdits"), ..., "the device '0' edits nothing"),
    (("devices", 0, "containerEdits"), {}, "the device '0' edits nothing"),
    (("annotations",), ["a"], "expected a mapping of texts, found a list"),
    (("annotations", "org.example/a"), ["b"], "expected text, found a list"),
    (EDITS, "x", "expected a mapping (containerEdits), found the text 'x'"),
    ((*EDITS, "env"), "A=1", "expected a list of texts, found the text 'A=1'"),
    ((*EDITS, "env", 0), "A", "'A' is not an environment variable of the form 'NAME=VALUE'"),
    ((*EDITS, "env", 0), "=1", "'=1' is not an environment variable"),
    ((*EDITS, "env", 0), "A=\0", "the text holds a NUL character"),
    ((*NODE, "path"), "", "the path of the device node is missing or empty"),
    ((*NODE, "type"), "d", "unknown device type 'd'"),
    ((*NODE, "major"), "195", "expected a number, found the text '195'"),
    ((*NODE, "minor"), 1.5, "expected a whole number, found the number 1.5"),
    ((*NODE, "uid"), -1, "expected a number from 0 to 4294967295, found the number -1"),
    ((*NODE, "permissions"), "rx", "invalid permissions 'rx'"),
    ((*MOUNT, "hostPath"), ..., "the host path of the mount is missing or empty"),
    ((*MOUNT, "containerPath"), "", "the container path of the mount is missing or empty"),
    ((*MOUNT, "options"), {}, "expected a list of texts, found a mapping"),
    ((*HOOK, "hookName"), "CreateContainer", "unknown hook name 'CreateContainer'"),
    ((*HOOK, "path"), ..., "the path of the hook is missing or empty"),
    ((*HOOK, "env", 0), "B", "'B' is not an environment variable"),
    ((*HOOK, "timeout"), "3s", "expected a number, found the text '3s'"),
    ((*EDITS, "additionalGids"), 44, "expected a list of numbers, found the number 44"),
    ((*EDITS, "additionalGids", 0), 1 << 32, "expected a number from 0 to 4294967295"),
    ((*RDT, "closID"), "a/b", "'a/b' is not a file name"),
    ((*RDT, "closID"), "..", "'..' is not a file name"),
    ((*RDT, "enableMonitoring"), "yes", "expected true or false, found the text 'yes'"),
    ((*NET, "hostInterfaceName"), "", "the name of the interface is missing or empty"),
    ((*NET, "name"), ..., "the name of the interface is missing or empty"),
]


@pytest.mark.parametrize(("at", "new", "message"), MISTAKES)
def test_a_mistake_is_found_where_it_is_and_by_the_schema_as_well(at, new, message):
    result = checked(changed(at, new), strict=True)
    assert result.spec is None
    assert len(result.errors) == 1
    [problem] = result.errors
    assert (message or "the spec has no devices") in problem.what
    assert problem.where.startswith("spec.json:1:")
    assert problem.where.endswith(f": {field_text(at)}")
    assert schema_findings(changed(at, new))


def schema_findings(value):
    return list(validate._schema_findings(value))


def test_all_problems_of_a_file_are_told_at_once_in_the_order_of_their_lines():
    text = "\n".join(
        [
            "devices:",
            *[f"- name: '{n}'\n  containerEdits: {{env: [x{n}]}}" for n in range(9)],
            "- name: 0 0",
            "  containerEdits: {hooks: [{hookname: poststop, path: ''}]}",
            "cdiVersion: 2",
        ]
    )
    wheres = [problem.where for problem in checked(text).errors]
    assert wheres == [
        "spec.json:1:1: kind",
        *[f"spec.json:{3 + 2 * n}:26: devices[{n}].containerEdits.env[0]" for n in range(9)],
        "spec.json:20:3: devices[9].name",
        "spec.json:21:49: devices[9].containerEdits.hooks[0].path",
        "spec.json:22:1: cdiVersion",
    ]


def test_a_device_name_that_is_there_twice_is_refused_with_the_place_of_both():
    [problem] = checked({**GOOD, "devices": GOOD["devices"] * 2}).errors
    assert "the device name '0' is there twice, also as devices[0]" in problem.what
    assert problem.where.endswith("devices[1].name")


def test_two_interfaces_of_one_name_are_refused():
    twice = [{"hostInterfaceName": "a", "name": "x"}, {"hostInterfaceName": "b", "name": "x"}]
    [problem] = checked(changed((*EDITS, "netDevices"), twice)).errors
    assert "'x' is there twice, also as netDevices[0].name" in problem.what


@pytest.mark.parametrize(
    ("at", "new", "message"),
    [
        (("unknown",), {"a": 1}, "unknown field 'unknown' in a spec"),
        ((*MOUNT, "hostpaht"), "/c", "unknown field 'hostpaht' in a mount (did you mean 'hostPath'?)"),
        ((*NODE, "links"), [], "unknown field 'links' in a device node"),
        (("cdiVersion",), "1.2.0", "the version '1.2.0' is newer than 1.1.0, the newest known here"),
        ((*RDT, "enableCMT"), True, "CDI 1.1.0 has no field 'enableCMT' any more (use 'enableMonitoring')"),
        (("devices",), ..., "the spec has no 'devices'"),
        (("devices",), None, "the spec has no 'devices'"),
    ],
)
def test_what_a_newer_or_laxer_writer_wrote_is_a_warning_and_strictly_an_error(at, new, message):
    tolerant, strict = checked(changed(at, new)), checked(changed(at, new), strict=True)
    assert tolerant.spec is not None
    assert [message in str(problem) for problem in tolerant.warnings] == [True]
    assert strict.spec is None
    assert len(strict.errors) == 1


@pytest.mark.parametrize(
    ("at", "new", "attribute"),
    [
        (("devices", 0, "name"), 0, lambda spec: spec.devices[0].name == "0"),
        (("annotations", "org.example/a"), True, lambda spec: spec.annotations == {"org.example/a": "true"}),
        ((*MOUNT, "options"), [1.10, None], lambda spec: spec.container_edits.mounts[0].options == ("1.1", "")),
    ],
)
def test_a_number_or_boolean_in_place_of_text_is_text_as_in_the_reference_and_noted_by_the_schema(at, new, attribute):
    assert attribute(checked(changed(at, new), strict=True).spec)
    assert checked(changed(at, new)).warnings == ()
    assert any("the CDI schema wants" in problem.what for problem in checked(changed(at, new), schema=True).warnings)


def test_field_names_in_other_capitals_are_read_with_a_warning():
    made = changed((*MOUNT, "options"), ...)
    made["containerEdits"]["mounts"][0]["OPTIONS"] = ["rw"]
    result = checked(made, strict=True)
    assert result.spec.container_edits.mounts[0].options == ("rw",)
    assert [problem.what for problem in result.warnings] == ["the field 'OPTIONS' is read as 'options'"]


def test_a_field_given_twice_in_different_capitals_is_refused():
    made = changed((*MOUNT, "Type"), "none")
    [problem] = checked(made).errors
    assert "the field 'type' is there twice, also as 'type'" in problem.what


def test_annotations_that_break_the_rules_of_kubernetes_are_a_warning_even_if_strict():
    long = {"inva$$lid": "x" * (256 << 10)}
    result = checked(changed(("annotations",), long), strict=True)
    assert result.spec is not None
    assert ["invalid annotation key" in problem.what for problem in result.warnings] == [False, True]
    assert "the annotations have 262153 bytes" in result.warnings[0].what


@pytest.mark.parametrize(
    ("text", "message"), [("", "it is empty"), ("# only\n", "it is empty"), ("[]", "found a list")]
)
def test_a_file_without_a_mapping_is_no_spec(text, message):
    [problem] = checked(text).errors
    assert message in problem.what


def test_a_refused_file_still_tells_which_devices_it_would_have_had():
    made = changed(("cdiVersion",), "0.1.0")
    made["devices"].append({"name": "a b"})
    assert checked(made).claimed == ("vendor.com/gpu=0",)
    assert checked({**made, "kind": "x"}).claimed == ()


@pytest.mark.parametrize(
    ("at", "new", "field", "needed"),
    [
        ((*EDITS, "netDevices"), [{"hostInterfaceName": "a", "name": "b"}], "containerEdits.netDevices", "1.1.0"),
        (RDT, {"schemata": ["x"]}, "containerEdits.intelRdt.schemata", "1.1.0"),
        (RDT, {"enableMonitoring": True}, "containerEdits.intelRdt.enableMonitoring", "1.1.0"),
        (RDT, {"enableMonitoring": False}, "containerEdits.intelRdt", "0.7.0"),
        ((*EDITS, "additionalGids"), [0], "containerEdits.additionalGids", "0.7.0"),
        (("annotations",), {"a": "b"}, "annotations", "0.6.0"),
        (("devices", 0, "annotations"), {"a": "b"}, "devices[0].annotations", "0.6.0"),
        (("kind",), "vendor.com/a.b", "kind", "0.6.0"),
        (("devices", 0, "name"), "0", "devices[0].name", "0.5.0"),
        ((*NODE, "hostPath"), "/dev/y", "devices[0].containerEdits.deviceNodes[0].hostPath", "0.5.0"),
        (
            (*EDITS, "mounts"),
            [{"hostPath": "/a", "containerPath": "/b", "type": "x"}],
            "containerEdits.mounts[0].type",
            "0.4.0",
        ),
        (("kind",), "vendor.com/gpu", "", "0.3.0"),
    ],
)
def test_a_field_needs_the_version_that_brought_it(at, new, field, needed):
    plain = {
        "cdiVersion": needed,
        "kind": "vendor.com/gpu",
        "devices": [{"name": "a", "containerEdits": {"deviceNodes": [{"path": "/dev/x"}]}}],
        "containerEdits": {},
    }
    holder = plain
    for part in at[:-1]:
        holder = holder[part]
    holder[at[-1]] = new
    assert version.minimum(checked(plain, strict=True).spec) == (needed, field)
    older = version.RELEASED[version.RELEASED.index(needed) + 1]
    [problem] = checked({**plain, "cdiVersion": older}).errors
    assert f"at least {needed}" in problem.what
    assert field in problem.what


@pytest.mark.parametrize("text", ["1.1.0", "v1.1.0", "0.3.0", "v0.1.0"])
def test_a_version_may_start_with_a_v(text):
    assert version.is_released(text)


@pytest.mark.parametrize("text", ["1.1.1", "v2.0.0", "1.10.0", "10.0.0-rc1"])
def test_a_version_to_come_is_newer(text):
    assert version.is_newer(text)


@pytest.mark.parametrize("text", ["", "1.1.0", "1.1", "1.0.0", "x", "1.1.0.0", "01.2.0", "\u0661.2.0", "9" * 5000])
def test_what_is_no_version_to_come_is_not_newer(text):
    assert not version.is_newer(text)


@given(specs(newest=True, wrong=False))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_schema_has_nothing_to_say_about_a_spec_without_mistakes(made):
    text = json.dumps(made)
    if "@@" in text:  # a scalar in place of text: the schema's business
        return
    result = checked(made, schema=True)
    assert result.errors == ()
    assert [problem for problem in result.warnings if "annotation key" not in problem.what] == []


# Specs as vendors and their documentation write them, reduced to what is peculiar about each.

PECULIAR = {
    "amd: uid, gid and mode on nodes": """{"cdiVersion": "0.6.0", "kind": "amd.com/gpu", "containerEdits": {},
        "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/kfd", "type": "c", "major": 510,
         "minor": 0,          "fileMode": 432, "permissions": "rwm", "uid": 0, "gid": 44}]}}]}""",
    "intel: mounts of type none, a PCI address as name": """
cdiVersion: 0.5.0
kind: intel.com/gpu
devices:
- name: 0000-0f-00-0-0x0bda
  containerEdits:
    mounts:
    - {hostPath: "/dev/dri/by-path/pci-0000:0f:00.0-card", containerPath: /c, type: none, options: [bind, rw]}
""",
    "hpe: the letter of ls as the type of a mount": """{"cdiVersion": "0.6.0", "kind": "hpe.com/cxi",
        "devices": [{"name": "all", "containerEdits": {"mounts": [
            {"hostPath": "/opt/x", "containerPath": "/opt/x", "type": "-"},
            {"hostPath": "/opt/y", "containerPath": "/opt/y", "type": "L"}]}}]}""",
    "docker desktop: YAML with a comment in a .json file": """
cdiVersion: "0.6.0"
kind: "docker.com/gpu"
devices:
- name: venus
  containerEdits:
    deviceNodes:
    # made by hand
    - path: /dev/dri/card0
""",
    "docker's documentation: a boolean annotation": """
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
devices:
- name: foo
  containerEdits: {env: [FOO=injected]}
  annotations: {org.mobyproject.buildkit.device.autoallow: true}
""",
    "nvidia: a document marker, names that look like numbers": """---
cdiVersion: 0.5.0
kind: nvidia.com/imex-channel
devices:
    - name: "2047"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia-caps-imex-channels/channel2047
containerEdits:
    env:
        - NVIDIA_VISIBLE_DEVICES=void
""",
    "tabs in JSON": """{
\t"cdiVersion": "0.3.0",
\t"kind": "a.b/c",
\t"devices": [{"name": "x",\t"containerEdits": {"env": ["A=b"]}}]}""",
    "CDI 1.0: cache monitoring": """
cdiVersion: "1.0.0"
kind: vendor.com/device
containerEdits: {intelRdt: {closID: legacy, enableCMT: true, enableMBM: true}}
devices: [{name: gpu0, containerEdits: {deviceNodes: [{path: /dev/null}]}}]
""",
}


@pytest.mark.parametrize("text", PECULIAR.values(), ids=PECULIAR.keys())
def test_specs_as_vendors_write_them_are_accepted_even_if_strict(text):
    assert checked(text, strict=True).errors == ()


def test_charliecloud_documentation_without_devices_is_accepted_and_can_be_requested_by_kind():
    text = '{"cdiVersion": "0.5.0", "kind": "ch/example", "containerEdits": {"env": ["FI_PROVIDER=cxi"]}}'
    result = checked(text, schema=True)
    [warning] = result.warnings
    assert str(warning) == (
        "spec.json:1:1: devices: the spec has no 'devices'; other CDI readers than Charliecloud refuse it "
        "(request it as the kind 'ch/example')"
    )


def test_charliecloud_documentation_with_commas_missing_is_refused_with_its_place():
    text = '{"cdiVersion": "0.5.0",\n "kind": "nvidia.com/gpu"\n "containerEdits": {"env": [ "A=b", ] }\n}'
    assert [str(problem) for problem in checked(text).errors] == [
        "spec.json:3:2: not valid JSON: expecting ',' delimiter"
    ]


def test_json_after_the_end_of_the_spec_is_refused():
    """Half of a file with a brace too many would be lost."""
    text = json.dumps(GOOD) + '\n"containerEdits": {}'
    assert [str(problem) for problem in checked(text).errors] == ["spec.json:2:1: not valid JSON: extra data"]


def test_a_version_that_never_was_is_refused():
    [problem] = checked({**GOOD, "cdiVersion": "0.9.0"}).errors
    assert str(problem).startswith("spec.json:1:2: cdiVersion: unknown version '0.9.0' (the versions are 0.1.0, 0.2.0,")
