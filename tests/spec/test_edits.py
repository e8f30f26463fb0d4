from __future__ import annotations

from cdi_hpc.spec.edits import merge
from cdi_hpc.spec.encode import resolved_to_json
from cdi_hpc.spec.model import ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Origin, Spec
from cdi_hpc.spec.registry import RegisteredDevice

LINK = Hook("createContainer", "/bin/hook", ("hook", "link"))
CACHE = Hook("createContainer", "/bin/hook", ("hook", "cache"))


def spec_of(path, common, *devices):
    made = tuple(Device(str(index), container_edits=edits) for index, edits in enumerate(devices))
    return Spec("1.1.0", "v/c", made, container_edits=common, path=path)


def values(sourced):
    return [each.value for each in sourced]


def test_the_edits_of_a_spec_come_once_before_its_first_device():
    one = spec_of("/1", ContainerEdits(hooks=(LINK,)), ContainerEdits(hooks=(CACHE,)), ContainerEdits(env=("A=1",)))
    two = spec_of("/2", ContainerEdits(env=("B=2",)), ContainerEdits(env=("C=3",)))
    request = [RegisteredDevice(two, 0), RegisteredDevice(one, 1), RegisteredDevice(one, 0)]
    merged = merge(request)
    assert merged.devices == ("v/c=0", "v/c=1")
    assert values(merged.env) == ["B=2", "C=3", "A=1"]
    assert values(merged.hooks) == [LINK, CACHE]


def test_every_edit_knows_where_it_was_written():
    common = ContainerEdits(env=("A=1", "B=2"), intel_rdt=IntelRdt("x"))
    device = ContainerEdits(mounts=(Mount("/a", "/a"),))
    merged = merge([RegisteredDevice(spec_of("/s.json", common, device), 0)])
    assert merged.env[1].origin == Origin("/s.json", "", "containerEdits.env[1]")
    assert merged.mounts[0].origin == Origin("/s.json", "v/c=0", "devices[0].containerEdits.mounts[0]")
    assert merged.intel_rdt.origin == Origin("/s.json", "", "containerEdits.intelRdt")


def test_a_later_variable_takes_the_place_of_an_earlier_one_of_its_name():
    edits = ContainerEdits(env=("A=1", "B=1", "A=2", "AB=3", "B="))
    assert values(merge([RegisteredDevice(spec_of("", edits), None)]).env) == ["A=2", "B=", "AB=3"]


def test_a_later_node_or_mount_of_a_path_replaces_the_earlier_one_and_comes_last():
    nodes = (DeviceNode("/dev/a"), DeviceNode("/dev/b"), DeviceNode("/dev/a", "/dev/c"))
    mounts = (Mount("/1", "/a"), Mount("/2", "/b"), Mount("/3", "/a"))
    merged = merge([RegisteredDevice(spec_of("", ContainerEdits(device_nodes=nodes, mounts=mounts)), None)])
    assert values(merged.device_nodes) == [nodes[1], nodes[2]]
    assert values(merged.mounts) == [mounts[1], mounts[2]]


def test_mounts_are_sorted_by_depth_and_otherwise_keep_their_order():
    paths = ["/a/b/c", "//z", "/b", "/a/b/", "/x/../c", "rel", "/", "/a//b//d", "/a"]
    mounts = tuple(Mount("/x", path) for path in paths)
    merged = merge([RegisteredDevice(spec_of("", ContainerEdits(mounts=mounts)), None)])
    assert [mount.container_path for mount in values(merged.mounts)] == [
        "rel",
        "//z",
        "/b",
        "/x/../c",
        "/",
        "/a",
        "/a/b/",
        "/a/b/c",
        "/a//b//d",
    ]


def test_groups_and_hooks_come_once_and_group_0_never():
    edits = ContainerEdits(additional_gids=(44, 0, 109, 44), hooks=(LINK, CACHE, LINK))
    merged = merge([RegisteredDevice(spec_of("", edits), None)])
    assert values(merged.additional_gids) == [44, 109]
    assert values(merged.hooks) == [LINK, CACHE]


def test_the_last_place_of_a_device_that_is_there_twice_counts():
    spec = spec_of("", ContainerEdits(), ContainerEdits(env=("A=0",)), ContainerEdits(env=("A=1",)))
    first, second = RegisteredDevice(spec, 0), RegisteredDevice(spec, 1)
    merged = merge([first, second, first])
    assert merged.devices == ("v/c=0", "v/c=1")
    assert values(merged.env) == ["A=0"]


def test_the_last_intel_rdt_and_the_last_name_of_an_interface_win():
    one = ContainerEdits(intel_rdt=IntelRdt("a", "b"), net_devices=(NetDevice("ib0", "x"),))
    two = ContainerEdits(intel_rdt=IntelRdt("c"), net_devices=(NetDevice("ib1", "z"), NetDevice("ib0", "y")))
    spec = spec_of("", ContainerEdits(), one, two)
    merged = merge([RegisteredDevice(spec, 0), RegisteredDevice(spec, 1)])
    assert merged.intel_rdt.value == IntelRdt("c")
    assert values(merged.net_devices) == [NetDevice("ib0", "y"), NetDevice("ib1", "z")]


def test_nothing_merges_to_nothing():
    assert resolved_to_json(merge([])) == {
        "devices": [],
        "env": [],
        "deviceNodes": [],
        "netDevices": [],
        "mounts": [],
        "hooks": [],
        "additionalGids": [],
        "intelRdt": None,
    }


def test_merged_edits_are_written_under_the_names_of_the_specification():
    edits = ContainerEdits(
        env=("A=1",),
        device_nodes=(DeviceNode("/dev/a"), DeviceNode("/dev/b", "/dev/c", "c", 195, 0, 0, "rw", 0, 0)),
        net_devices=(NetDevice("ib0", "eth0"),),
        mounts=(Mount("/a", "/b", ("ro",), "bind"), Mount("/c", "/d")),
        hooks=(Hook("poststop", "/h"), Hook("prestart", "/h", ("h",), ("B=2",), 0)),
        additional_gids=(44,),
        intel_rdt=IntelRdt("c", "l", "m", ("s",), enable_monitoring=True, enable_cmt=True, enable_mbm=True),
    )
    assert resolved_to_json(merge([RegisteredDevice(spec_of("", edits), None)])) == {
        "devices": ["v/c"],
        "env": ["A=1"],
        "deviceNodes": [
            {"path": "/dev/a"},
            {
                "path": "/dev/b",
                "hostPath": "/dev/c",
                "type": "c",
                "major": 195,
                "fileMode": 0,
                "permissions": "rw",
                "uid": 0,
                "gid": 0,
            },
        ],
        "netDevices": [{"hostInterfaceName": "ib0", "name": "eth0"}],
        "mounts": [
            {"hostPath": "/a", "containerPath": "/b", "options": ["ro"], "type": "bind"},
            {"hostPath": "/c", "containerPath": "/d"},
        ],
        "hooks": [
            {"hookName": "poststop", "path": "/h"},
            {"hookName": "prestart", "path": "/h", "args": ["h"], "env": ["B=2"], "timeout": 0},
        ],
        "additionalGids": [44],
        "intelRdt": {
            "closID": "c",
            "l3CacheSchema": "l",
            "memBwSchema": "m",
            "schemata": ["s"],
            "enableMonitoring": True,
            "enableCMT": True,
            "enableMBM": True,
        },
    }
