"""Edits as actions of a plan: variables, what can only be said, and that nothing is lost."""

from __future__ import annotations

import dataclasses
import errno

import pytest
from fake_host import host
from hypothesis import given
from hypothesis import strategies as st
from translated import FILES, NULL, ORIGIN, actions_of, hook, only

from cdi_hpc.plan import (
    Note,
    SetEnv,
    Unsupported,
)
from cdi_hpc.spec.model import DeviceNode, IntelRdt, Mount, NetDevice, Origin, ResolvedEdits, Sourced
from cdi_hpc.translation.translate import container_path, translate

# Environment ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, name, value",
    [("A=1", "A", "1"), ("A=", "A", ""), ("A=b=c", "A", "b=c"), ("A==", "A", "="), ("A=x\ny", "A", "x\ny")],
)
def test_a_variable_is_split_at_the_first_equals_sign(text, name, value):
    assert actions_of(host(), env=[text]) == (SetEnv(name, value, ORIGIN),)


# What can only be said ------------------------------------------------------------------------------------------


def test_an_interface_under_its_own_name_is_there_already():
    assert isinstance(actions_of(host(), net_devices=[NetDevice("eth0", "eth0")])[0], Note)


def test_an_interface_can_not_be_renamed():
    found = only(actions_of(host(), net_devices=[NetDevice("eth0", "net1")]), Unsupported)
    assert (found.edit, found.fatal) == ("netDevices eth0", False)
    assert found.reason.endswith("it is seen as eth0")


def test_a_group_that_the_user_is_in_is_kept():
    assert isinstance(actions_of(host(members=frozenset({44})), additional_gids=[44])[0], Note)


def test_a_group_that_the_user_is_not_in_is_named():
    found = only(actions_of(host(group_names={44: "video"}), additional_gids=[44]), Unsupported)
    assert (found.edit, found.fatal) == ("additionalGids 44", False)
    assert "you are not a member of video" in found.reason


def test_resctrl_takes_privilege():
    found = only(actions_of(host(), intel_rdt=Sourced(IntelRdt("x"), ORIGIN)), Unsupported)
    assert (found.edit, found.fatal) == ("intelRdt", False)


# Nothing disappears ---------------------------------------------------------------------------------------------

PATHS = st.sampled_from(["/dev/null", "/dev/gpu", "/opt/data", "/lib/libx.so.1", "/run/d.sock", "/missing", "rel", "/"])
MOUNTS = st.builds(
    Mount,
    PATHS,
    PATHS,
    st.lists(st.sampled_from(["ro", "rbind", "noatime", "rro", "size=1", "rslave", "nosuid"]), max_size=3).map(tuple),
    st.sampled_from(["", "bind", "tmpfs", "proc", "-"]),
)
NODES = st.builds(
    DeviceNode,
    PATHS,
    st.one_of(st.just(""), PATHS),
    st.sampled_from(["", "c", "b", "p", "u"]),
    st.integers(0, 2),
    st.integers(0, 4),
    st.one_of(st.none(), st.integers(0, 0o777)),
    st.sampled_from(["", "rwm", "r", "none"]),
)
HOOKS = st.builds(
    lambda words: hook(*words),
    st.lists(st.sampled_from(["create-symlinks", "--link", "a::/b", "update-ldcache", "--folder", "/lib", "noop"])),
)


@given(st.lists(NODES), st.lists(MOUNTS), st.lists(HOOKS), st.booleans())
def test_every_edit_leaves_something_in_the_plan_and_says_where_it_is_from(nodes, mounts, hooks, denied):
    on = host({**FILES, **NULL}, open_errors={"/dev/gpu": errno.EACCES} if denied else {})
    kinds = {"deviceNodes": nodes, "mounts": mounts, "hooks": hooks}
    origins = {name: [Origin("/s", "", f"{name}[{i}]") for i in range(len(kinds[name]))] for name in kinds}
    merged = ResolvedEdits(
        device_nodes=tuple(map(Sourced, nodes, origins["deviceNodes"])),
        mounts=tuple(map(Sourced, mounts, origins["mounts"])),
        hooks=tuple(map(Sourced, hooks, origins["hooks"])),
    )
    plan = translate(merged, on)
    in_order = [action.origin for action in plan.actions]
    assert list(dict.fromkeys(in_order)) == [origin for name in kinds for origin in origins[name]]


@given(st.lists(NODES), st.lists(MOUNTS))
def test_every_path_of_a_plan_is_absolute_and_normal(nodes, mounts):
    for action in actions_of(host({**FILES, **NULL}), device_nodes=nodes, mounts=mounts):
        fields = dataclasses.asdict(action)
        for name in ("target", "path"):
            assert name not in fields or container_path(fields[name]) == fields[name]
