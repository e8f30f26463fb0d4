"""Different launches have different keys. That the native runner computes the same ones: tests/native."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc import config
from cdi_hpc.compiled.cache_key import CONFIGURATION_VARIABLES, Caller, Launch, cache_key

words = st.text(
    st.one_of(st.sampled_from("/.,:=-"), st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))),
    min_size=1,
    max_size=12,
)
devices = st.one_of(
    words, st.sampled_from(["a/b=c", "./x", "/x.json", "/a.json,b.yaml", "x.yaml", "a/b=c,../d", "/etc/./x"])
)
paths = st.one_of(words, words.map("/".__add__))


@st.composite
def launches(draw: st.DrawFn) -> Launch:
    return Launch(
        image="/",
        devices=tuple(draw(st.lists(devices, max_size=3))),
        cdi_dirs=tuple(draw(st.lists(paths, max_size=2))),
        binds=tuple(draw(st.lists(paths, max_size=2))),
        writable_tmpfs=draw(st.booleans()),
        contain=draw(st.booleans()),
        stage=draw(st.sampled_from(["auto", "overlay", "underlay"])),
        strict=draw(st.booleans()),
        unknown_hooks=draw(st.sampled_from(["warn", "fail"])),
        preflight=draw(st.sampled_from(["auto", "fail", "warn", "off"])),
    )


@given(first=launches(), second=launches())
def test_different_launches_have_different_keys(first, second):
    caller = Caller(1, 2, (3,))
    assert (cache_key(first, caller, "/", {}) == cache_key(second, caller, "/", {})) == (first == second)


@pytest.mark.parametrize(
    "other", [Caller(2, 2, (3,)), Caller(1, 3, (3,)), Caller(1, 2, ()), Caller(1, 2, (3, 4)), Caller(1, 2, (4,)), None]
)
def test_another_user_or_membership_is_another_key(other):
    launch = Launch("/", ("a/b=c",))
    assert cache_key(launch, Caller(1, 2, (3,)), "/", {}) != cache_key(launch, other, "/", {})


@pytest.mark.parametrize("name", CONFIGURATION_VARIABLES)
def test_what_finds_the_users_configuration_is_in_his_keys_and_not_in_those_for_everybody(name):
    launch, caller = Launch("/", ("a/b=c",)), Caller(1, 2, (3,))
    keys = {cache_key(launch, caller, "/", environ) for environ in ({}, {name: "/a"}, {name: "/b"})}
    assert len(keys) == 3
    assert cache_key(launch, caller, "/", {name: ""}) == cache_key(launch, caller, "/", {})
    assert cache_key(launch, None, "/", {name: "/a"}) == cache_key(launch, None, "/", {})


def test_every_variable_that_sets_a_key_of_the_configuration_is_in_the_key():
    in_the_key_anyway = {"CDI_HPC_DIRS", "CDI_HPC_PREFLIGHT"}
    says_where_plans_are = {"CDI_HPC_CACHE_DIRECTORY"}
    assert set(config.VARIABLES) - in_the_key_anyway - says_where_plans_are <= set(CONFIGURATION_VARIABLES)
    assert list(CONFIGURATION_VARIABLES) == sorted(CONFIGURATION_VARIABLES)


def test_the_order_of_groups_does_not_matter():
    keys = {cache_key(Launch("/"), Caller(1, 2, groups), "/", {}) for groups in ((3, 10), (10, 3), (3, 10, 3))}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "launch, directories, depends",
    [
        (Launch("/", ("a/b=c",)), "", False),
        (Launch("/", ("a/b=c",)), "/x:/y", False),
        (Launch("/", ("a/b=c",)), "/x:y", True),
        (Launch("/", ("a/b=c",), ("/x",)), "y", False),
        (Launch("/", ("a/b=c",), ("x",)), "", True),
        (Launch("/", ("./x.yaml",)), "", True),
        (Launch("/", ("x.yaml",)), "", True),
        (Launch("/", ("/x.yaml",)), "", False),
        (Launch("/", binds=("x:/y",)), "", True),
        (Launch("/", binds=("/x:y",)), "", False),
    ],
)
def test_only_relative_paths_depend_on_the_working_directory(launch, directories, depends):
    keys = {cache_key(launch, None, cwd, {"CDI_HPC_DIRS": directories}) for cwd in ("/a", "/b")}
    assert (len(keys) == 2) == depends
