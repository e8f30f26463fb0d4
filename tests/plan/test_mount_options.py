"""The strings of mounts[].options and mounts[].type."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.launch.kernel import FLAG_BITS
from cdi_hpc.plan import MOUNT_FLAGS
from cdi_hpc.spec.mount_options import FILESYSTEM_TYPES, MountOptions, is_bind, parse

NOTHING = MountOptions((), bind=False, propagation="", data=(), whole_tree=())

#: option, the flag it is about, whether it sets it.
FLAGS = [
    ("ro", "ro", True),
    ("rw", "ro", False),
    ("nosuid", "nosuid", True),
    ("suid", "nosuid", False),
    ("nodev", "nodev", True),
    ("dev", "nodev", False),
    ("noexec", "noexec", True),
    ("exec", "noexec", False),
    ("noatime", "noatime", True),
    ("atime", "noatime", False),
    ("nodiratime", "nodiratime", True),
    ("diratime", "nodiratime", False),
    ("relatime", "relatime", True),
    ("norelatime", "relatime", False),
    ("strictatime", "strictatime", True),
    ("nostrictatime", "strictatime", False),
    ("nosymfollow", "nosymfollow", True),
    ("symfollow", "nosymfollow", False),
]


@pytest.mark.parametrize("option, flag, sets", FLAGS)
def test_an_option_sets_or_clears_its_flag(option, flag, sets):
    assert parse((option,)).flags == ((flag,) if sets else ())


@pytest.mark.parametrize("option, flag, sets", FLAGS)
def test_a_later_option_wins_over_an_earlier_one(option, flag, sets):
    opposite = next(name for name, other, value in FLAGS if other == flag and value is not sets)
    assert (flag in parse((opposite, option)).flags) is sets
    assert (flag in parse((f"{opposite},{option}",)).flags) is sets


@pytest.mark.parametrize("option, flag, sets", FLAGS)
def test_the_recursive_spelling_sets_the_same_flag_and_is_remembered(option, flag, sets):
    options = parse(("r" + option,))
    assert options.flags == ((flag,) if sets else ())
    assert options.whole_tree == ("r" + option,)


def test_every_flag_of_a_plan_has_a_spelling_and_bits():
    assert {flag for _, flag, _ in FLAGS} == set(MOUNT_FLAGS) == set(FLAG_BITS)


def test_flags_are_sorted_and_there_once():
    assert parse(("ro", "nodev,ro", "nosuid", "nodev")).flags == ("nodev", "nosuid", "ro")


@pytest.mark.parametrize("option", ["bind", "rbind"])
def test_bind_is_heard_in_both_spellings(option):
    assert parse((option,)) == MountOptions((), bind=True, propagation="", data=(), whole_tree=())


@pytest.mark.parametrize("kind", ["private", "slave", "shared", "unbindable"])
@pytest.mark.parametrize("prefix", ["", "r"])
def test_the_last_propagation_counts(prefix, kind):
    assert parse(("rshared", "private", prefix + kind)).propagation == prefix + kind


@pytest.mark.parametrize(
    "option", ["defaults", "async", "nofail", "_netdev", "auto", "noauto", "user", "nouser", "silent", "loud", "", ","]
)
def test_words_that_mean_nothing_here_leave_nothing(option):
    assert parse((option,)) == NOTHING


def test_what_is_left_is_for_the_file_system_in_order():
    assert parse(("size=64m,mode=755", "ro", "nr_inodes=10")).data == ("size=64m", "mode=755", "nr_inodes=10")


@pytest.mark.parametrize("option", ["RO", " ro", "ro ", "ro=1", "nosuidx", "rrprivate", "rdefaults"])
def test_what_only_looks_like_a_flag_is_not_taken_for_one(option):
    assert parse((option,)) == dataclasses.replace(NOTHING, data=(option,))


@pytest.mark.parametrize("type_name", ["", "-", "l", "none", "bind", "rbind", "TMPFS", "../tmpfs"])
def test_a_type_that_is_no_file_system_is_a_bind(type_name):
    assert is_bind(type_name, parse(()))


@pytest.mark.parametrize("type_name", sorted(FILESYSTEM_TYPES))
def test_a_file_system_is_a_bind_only_if_the_options_say_so(type_name):
    assert not is_bind(type_name, parse(("ro",)))
    assert is_bind(type_name, parse(("ro", "rbind")))


WORDS = st.sampled_from([name for name, _, _ in FLAGS] + ["bind", "rprivate", "size=1m", "rro", "defaults"])


@given(st.lists(WORDS))
def test_a_comma_list_is_the_same_as_separate_options(words):
    assert parse(tuple(words)) == parse((",".join(words),))


@given(st.lists(st.text(st.characters(exclude_characters=","), min_size=1)))
def test_every_word_is_taken_for_something_or_kept_as_data(words):
    options = parse(tuple(words))
    known = {"bind", "rbind", "defaults", "async", "nofail", "_netdev", "auto", "noauto", "user", "nouser"}
    known |= {"silent", "loud", *(name for name, _, _ in FLAGS), *("r" + name for name, _, _ in FLAGS)}
    known |= {prefix + kind for kind in ("private", "slave", "shared", "unbindable") for prefix in ("", "r")}
    assert options.data == tuple(word for word in words if word not in known)
