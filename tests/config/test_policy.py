"""Rules about what specs may ask for: which one decides, for whom, and what is said."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from policy_cases import ALICE, BOB, link, mount, node, planned, policy, refusals, spec
from site_files import site

from cdi_hpc.errors import CdiError
from cdi_hpc.launch.base import ORIGIN as BASE
from cdi_hpc.plan import Covered
from cdi_hpc.site.globs import path_pattern
from cdi_hpc.site.policy import (
    CATEGORIES,
    Policy,
    Rule,
    Rules,
    Subject,
    enforce_in_image,
    hook_rule,
    judge,
    subjects,
)
from cdi_hpc.spec.model import Hook

#: (rules, what is asked for, is refused)
DECISIONS = [
    (policy(), spec(), False),
    (policy(kinds=[{"deny": "nvidia.com/gpu"}]), spec(), True),
    (policy(kinds=[{"deny": "nvidia.com/*"}]), spec(), True),
    (policy(kinds=[{"deny": "amd.com/gpu"}]), spec(), False),
    (policy(kinds=[{"allow": "*/gpu"}, {"deny": "nvidia.com/*"}]), spec(), False),
    (policy(kinds=[{"deny": "nvidia.com/*"}, {"allow": "*/gpu"}]), spec(), True),
    (policy(kinds={"default": "deny"}), spec(), True),
    (policy(kinds={"default": "deny", "rules": [{"allow": ["amd.com/gpu", "nvidia.com/gpu"]}]}), spec(), False),
    (policy(devices=[{"deny": "nvidia.com/gpu=1"}]), spec(), True),
    (policy(devices=[{"deny": "nvidia.com/gpu=0"}]), spec(), False),
    (policy(devices=[{"deny": "*/*=all"}]), spec(name="all"), True),
    (policy(specs=[{"allow": "/etc/cdi/**"}, {"deny": "/**"}]), spec(env=("A=1",)), False),
    (policy(specs=[{"allow": "/etc/cdi/**"}, {"deny": "/**"}]), spec(path="/home/x/y.yaml", env=("A=1",)), True),
    (policy(mount_sources=[{"deny": "/etc/**"}]), spec(**mount("/etc/passwd")), True),
    (policy(mount_sources=[{"deny": "/etc/**"}]), spec(**mount("/opt/lib")), False),
    (policy(mount_sources=[{"allow": "/etc/passwd"}, {"deny": "/etc/**"}]), spec(**mount("/etc/passwd")), False),
    (policy(mount_sources=[{"deny": "/dev/sd*"}]), spec(**node("/dev/sda")), True),
    (policy(mount_sources=[{"deny": "/dev/sd*"}]), spec(**node("/dev/nvidia0", "/dev/sda")), True),
    (policy(mount_sources=[{"deny": "/dev/sd*"}]), spec(**node("/dev/nvidia0")), False),
    (policy(mount_targets=[{"deny": "/usr/bin/ssh"}]), spec(**mount("/opt/lib", "/usr/bin/ssh")), True),
    (policy(mount_targets=[{"deny": "/usr/bin/ssh"}]), spec(**mount("/opt/lib", "/usr")), True),
    (policy(mount_targets=[{"deny": "/usr/bin/ssh"}]), spec(**mount("/opt/lib", "/usr/lib/ssh")), False),
    (policy(mount_targets=[{"deny": "/dev/sd*"}]), spec(**node("/dev/sda", "/dev/nvidia0")), True),
    (policy(mount_targets=[{"deny": "/etc/**"}]), spec(**link("/etc/passwd")), True),
    (policy(environment=[{"deny": "LD_PRELOAD"}]), spec(env=("LD_PRELOAD=/x.so",)), True),
    (policy(environment=[{"deny": "LD_*"}]), spec(env=("LD_PRELOAD=/x.so",)), True),
    (policy(environment=[{"deny": "LD_*"}]), spec(env=("OLD_PATH=/x",)), False),
    (policy(environment=[{"deny": "PATH=*/tmp/*"}]), spec(env=("PATH=/bin:/tmp/x",)), True),
    (policy(environment=[{"deny": "PATH=*/tmp/*"}]), spec(env=("PATH=/bin",)), False),
]


@pytest.mark.parametrize("rules, asked, refused", DECISIONS)
def test_the_first_rule_that_matches_decides_and_then_the_default(rules, asked, refused):
    assert bool(refusals(rules, asked)) is refused


#: (rule's words, Alice is refused, Bob is)
FOR_WHOM = [
    ({}, True, True),
    ({"users": "bob"}, False, True),
    ({"users": [1000]}, True, False),
    ({"users": "toor"}, True, False),  # another name of Alice's number
    ({"groups": "fpga"}, True, False),
    ({"groups": [50]}, False, True),
    ({"users": "bob", "groups": "fpga"}, True, True),
]


@pytest.mark.parametrize("words, alice, bob", FOR_WHOM)
def test_a_rule_is_for_the_users_and_groups_that_it_names(words, alice, bob):
    rules = policy(kinds=[{"deny": "*/*", **words}])
    assert [bool(refusals(rules, spec(), who)) for who in (ALICE, BOB)] == [alice, bob]


def test_for_everybody_at_once_a_denial_for_some_counts_and_a_permission_for_some_does_not():
    assert refusals(policy(kinds=[{"deny": "*/*", "users": "bob"}]), spec(), None)
    assert refusals(policy(kinds=[{"allow": "*/*", "users": "bob"}, {"deny": "*/*"}]), spec(), None)


def refused_in_image(rules, who, real_path):
    """Whether a mount to /x is refused that is one to another path in its image."""
    _, plan = planned(spec(**mount("/opt/lib", "/x")))
    (origin,) = {action.origin for action in plan.actions}
    try:
        enforce_in_image(rules, plan, [Covered(origin, "/x", real_path), Covered(BASE, "/etc/passwd", "/y")], who)
    except CdiError as error:
        return str(error)
    return ""


def test_what_is_covered_in_an_image_is_judged_by_both_paths():
    closed = policy(mount_targets=[{"deny": "/y", "users": "bob"}])
    assert "container path '/x', which is '/y'" in refused_in_image(closed, BOB, "/y")
    assert refused_in_image(closed, None, "/y")
    assert not refused_in_image(closed, ALICE, "/y")
    assert not refused_in_image(closed, BOB, "/z")


def test_no_rule_is_about_what_the_launcher_itself_covers():
    assert not refused_in_image(policy(mount_targets=[{"deny": ["/y", "/etc/passwd"]}]), ALICE, "/x")


@pytest.mark.parametrize("names, what", [({"users": "nobodyhere"}, "user"), ({"groups": "nobodyhere"}, "group")])
def test_an_unknown_name_denies_nobody_by_accident_and_opens_nothing(names, what):
    message = f"the rule names the {what} 'nobodyhere', which nobody here knows"
    assert message in refusals(policy(kinds=[{"deny": "amd.com/*"}, {"deny": "*/*", **names}]), spec())[0]
    assert refusals(policy(kinds=[{"allow": "*/*", **names}, {"deny": "*/*"}]), spec())


def test_a_refusal_names_what_where_from_the_sites_words_and_the_rule_with_its_line():
    rules = policy(mount_sources=[{"deny": ["/root/**", "/etc/**"], "because": "ask hpc-support"}])
    (text,) = refusals(rules, spec(**mount("/scratch/link")))
    assert text == (
        "/etc/cdi/x.yaml: devices[0].containerEdits.mounts[0]: the site does not allow the host path '/scratch/link', "
        "which is '/etc': ask hpc-support; rule \"deny '/root/**', '/etc/**'\" in "
        "site.yaml:4:7: policy.mount-sources.rules[0]"
    )


def test_a_refusal_by_default_names_the_line_of_the_default():
    (text,) = refusals(policy(kinds={"default": "deny"}), spec())
    assert text == (
        "device 'nvidia.com/gpu=1': the site does not allow the kind 'nvidia.com/gpu': no rule allows it, and the "
        "default is to deny (site.yaml:3:5: policy.kinds.default)"
    )


def test_everything_that_is_refused_is_reported():
    rules = policy(environment=[{"deny": "A*"}], mount_sources=[{"deny": "/etc/**"}])
    found = refusals(rules, spec(env=("A=1", "AB=2", "B=3"), **mount("/etc/passwd")))
    assert len(found) == 3


def test_hostile_values_are_quoted_in_a_refusal():
    (text,) = refusals(policy(environment=[{"deny": "X"}]), spec(env=("X=\x1b[2J\n",)))
    assert "\x1b" not in text
    assert "\n" not in text


def test_there_is_a_subject_for_everything_that_a_plan_does():
    asked = spec(env=("A=1",), **mount("/opt/lib"), **node("/dev/nvidia0"), **link("/l"))
    edits, plan = planned(asked)
    assert {subject.category for subject in subjects(edits, plan, {})} == set(CATEGORIES)


# Hooks --------------------------------------------------------------------------------------------------------

HOOK = Hook("createContainer", "/usr/bin/nvidia-cdi-hook", ("nvidia-cdi-hook", "chmod", "--mode", "755"))


@pytest.mark.parametrize(
    "rule, applies",
    [
        ({"path": "nvidia-cdi-hook"}, True),
        ({"path": "nvidia-*"}, True),
        ({"path": "/usr/bin/*"}, True),
        ({"path": "/usr/*"}, False),
        ({"path": "bin"}, False),
        ({"path": "nvidia-cdi-hook", "arguments": "chmod"}, True),
        ({"path": "nvidia-cdi-hook", "arguments": ["755", "chmod"]}, True),
        ({"path": "nvidia-cdi-hook", "arguments": ["chmod", "update-ldcache"]}, False),
    ],
)
def test_a_rule_about_hooks_goes_by_path_and_arguments(rule, applies):
    found = hook_rule(site(yaml.safe_dump({"hooks": {"rules": [{**rule, "action": "skip"}]}})).policy, HOOK)
    assert (found is not None) is applies


def test_a_hook_can_not_hide_behind_dots_in_its_path():
    rules = site("hooks: {rules: [{path: /opt/vendor/**, action: fail}]}").policy
    assert hook_rule(rules, Hook("createContainer", "/usr/../opt//vendor/x")) is not None


# Properties ---------------------------------------------------------------------------------------------------

PART = st.sampled_from(["a", "b", ".."])
PATHS = st.lists(PART, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=3).map(lambda p: "/" + "/".join(p))
RULES = st.builds(
    lambda verdict, pattern: Rule(verdict, (path_pattern(pattern),)), st.sampled_from(["allow", "deny"]), PATTERNS
)


@given(st.lists(RULES, max_size=4), st.sampled_from(["allow", "deny"]), PATHS, PATHS, st.booleans())
def test_a_second_spelling_never_opens_what_is_closed_to_the_first(rules, default, path, real, contains):
    rules_of_site = Policy({"mount-sources": Rules(tuple(rules), default)})

    def verdict(*spellings: str) -> str:
        return judge(rules_of_site, Subject("mount-sources", spellings, "", contains), ALICE).verdict

    if len(rules) <= 1 and "deny" in (verdict(path), verdict(real)):
        assert verdict(path, real) == "deny"


@given(st.lists(RULES, max_size=4), PATHS, PATHS)
def test_what_comes_with_a_directory_is_closed_where_the_first_rule_about_it_denies(rules, path, below):
    rules_of_site = Policy({"mount-sources": Rules(tuple(rule for rule in rules if rule.verdict == "deny"))})
    inner = Subject("mount-sources", (path + below,), "", contains=True)
    outer = Subject("mount-sources", (path,), "", contains=True)
    if judge(rules_of_site, inner, ALICE).verdict == "deny" and ".." not in path + below:
        assert judge(rules_of_site, outer, ALICE).verdict == "deny"


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_text_is_judged(path, value):
    rules_of_site = policy(mount_sources=[{"deny": "/etc/**"}], environment=[{"deny": "X=*"}])
    for subject in (Subject("mount-sources", (path,), "", contains=True), Subject("environment", (value,), "")):
        assert judge(rules_of_site, subject, ALICE).verdict in ("allow", "deny")


def test_an_unknown_user_is_not_asked_for_where_an_earlier_rule_decides():
    rules = policy(kinds=[{"allow": "nvidia.com/*"}, {"deny": "*/*", "users": "nobodyhere"}])
    assert refusals(rules, spec()) == []
    with pytest.raises(CdiError):
        judge(rules, Subject("kinds", ("amd.com/gpu",), ""), ALICE)
