"""What ``config check`` warns of: what is right, and probably not meant."""

from __future__ import annotations

import getpass
import grp
import itertools
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_hpc.config.build import build
from cdi_hpc.config.check import doubts
from cdi_hpc.config.files import ConfigFile
from cdi_hpc.config.settings import join, of_file
from cdi_hpc.errors import CdiError
from cdi_hpc.site.policy import Subject, matches
from cdi_hpc.spec.registry import SpecDirectory, load_registry

GROUP = grp.getgrgid(os.getegid()).gr_name


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    devices = [{"name": name, "containerEdits": {"env": ["A=b"]}} for name in ("0", "1")]
    (tmp_path / "lab.json").write_text(
        yaml.safe_dump({"cdiVersion": "0.5.0", "kind": "lab.example/thing", "devices": devices})
    )
    return tmp_path


def said(text: str, specs: Path | str = "/no/specs") -> list[str]:
    joined = join(of_file(ConfigFile("c.yaml", text.encode()), "site"))
    return [str(each) for each in doubts(build(joined), joined, load_registry((SpecDirectory(str(specs)),)))]


def rules(category: str, *written: str) -> str:
    return f"policy:\n  {category}:\n    rules:\n" + "".join(f"      - {each}\n" for each in written)


def test_a_configuration_without_doubts_has_none(specs):
    text = f"""
    spec-directories: [{specs}]
    aliases: {{thing: lab.example/thing=0, all-of-them: [thing, lab.example/thing=all, lab.example/thing]}}
    launchers: {{embedded: {{devices: [all-of-them, none]}}}}
    slurm: {{gres: {{thing: {{kind: lab.example/thing, by: table, table: {{0: "0"}}}}}}}}
    hooks: {{rules: [{{path: a, action: skip, arguments: x}}, {{path: a, action: fail}}, {{path: b, action: warn}}]}}
    policy:
      kinds: {{default: deny, rules: [{{allow: lab.example/thing, users: {getpass.getuser()}}}]}}
      mount-sources: {{rules: [{{allow: /etc/vulkan/**, groups: [{GROUP}, "12345"]}}, {{deny: /etc/**}}]}}
    """
    assert said(text, specs) == []


def test_directories_that_are_not_there_are_named(specs):
    found = said(f"spec-directories: [{specs}, /no/such]")
    where = f"c.yaml:1:{len('spec-directories: [') + len(str(specs)) + 3}: spec-directories[1]"
    assert found == [f"{where}: there is no directory '/no/such' (make it, or take it out here)"]


def test_unknown_users_and_groups_are_named_with_what_that_does():
    text = rules("kinds", "{deny: a.com/b, users: [root, nobody-at-all]}", "{allow: c.com/d, groups: no-group-at-all}")
    deny, allow = said(text)
    assert deny.startswith("c.yaml:4:9: policy.kinds.rules[0]: the rule is for the user 'nobody-at-all', whom nobody")
    assert "launches that get to it fail" in deny
    assert "rules[1]: the rule is for the group 'no-group-at-all'" in allow
    assert "nobody of that name" in allow


@pytest.mark.parametrize(
    "text",
    [
        "aliases: {gpu: lab.example/thing=9}",
        "aliases: {gpu: [lab.example/thing=0, lab.example/thing=9]}",
        "launchers: {embedded: {devices: lab.example/thing=9}}",
        "slurm: {gres: {gpu: {kind: lab.example/thing, by: table, table: {0: '0', 1: '9'}}}}",
    ],
)
def test_a_device_that_no_spec_has_is_named(text, specs):
    (found,) = said(text, specs)
    assert found.startswith("c.yaml:1:")
    assert "'lab.example/thing=9'" in found


@pytest.mark.parametrize("text", ["aliases: {gpu: no.such/kind}", "slurm: {gres: {gpu: {kind: no.such/kind}}}"])
def test_a_kind_that_no_spec_has_is_named(text, specs):
    (found,) = said(text, specs)
    assert "'no.such/kind'" in found


def test_a_file_that_is_not_there_is_named(specs):
    (found,) = said("aliases: {tools: /no/such.yaml}", specs)
    assert "/no/such.yaml" in found


IDLE = [
    ("mount-sources", "{allow: /etc/**}", "{deny: /etc/shadow}"),
    ("mount-sources", "{deny: /**}", "{allow: /opt/x}"),
    ("mount-targets", "{deny: [/a/**, /b/*]}", "{allow: [/a/x/y, /b/c]}"),
    ("specs", "{deny: /etc/cdi/*}", "{deny: /etc/cdi/n*.yaml}"),
    ("specs", "{deny: /etc/cdi/*}", "{deny: '/etc/cdi/[ab]?'}"),
    ("kinds", "{allow: nvidia.com/*}", "{deny: nvidia.com/gpu}"),
    ("kinds", "{allow: '*/*'}", "{deny: nvidia.com/*}"),
    ("devices", "{allow: nvidia.com/gpu=*}", "{deny: 'nvidia.com/gpu=[0-3]'}"),
    ("environment", "{deny: LD_*}", "{allow: LD_PRELOAD=/opt/*}"),
    ("environment", "{deny: 'A=*'}", "{allow: A}"),
    ("kinds", "{allow: a.com/b, users: [root]}", "{deny: a.com/b, users: [root]}"),
]

NOT_IDLE = [
    ("mount-sources", "{allow: /etc/vulkan/**}", "{deny: /etc/**}"),
    ("mount-sources", "{deny: /a/*}", "{allow: /a/**}"),
    ("mount-targets", "{deny: [/a/**, /b/*]}", "{allow: [/a/x/y, /b/c/d]}"),
    ("specs", "{deny: '/etc/cdi/[!a]*'}", "{deny: '/etc/cdi/*'}"),
    ("specs", "{deny: '/etc/cdi/??'}", "{deny: '/etc/cdi/*'}"),
    ("specs", "{deny: '/**/?'}", "{deny: '/?/**'}"),
    ("specs", "{deny: '/etc/cdi/?*b'}", "{deny: '/etc/cdi/*b'}"),
    ("environment", "{deny: 'LD_PRELOAD=/opt/*'}", "{allow: LD_PRELOAD}"),
    ("kinds", "{allow: a.com/b, users: [root]}", "{deny: a.com/b}"),
    ("kinds", "{allow: a.com/b, users: [root]}", "{deny: a.com/b, groups: [root]}"),
    ("kinds", "{allow: a.com/b}", "{deny: A.com/b}"),
]


@pytest.mark.parametrize(("category", "earlier", "later"), IDLE)
def test_a_rule_that_an_earlier_one_leaves_nothing_is_named(category, earlier, later):
    (found,) = said(rules(category, earlier, later))
    assert found.startswith(f"c.yaml:5:9: policy.{category}.rules[1]: ")
    assert "decides nothing" in found
    assert f"c.yaml:4:9: policy.{category}.rules[0]" in found


@pytest.mark.parametrize(("category", "earlier", "later"), NOT_IDLE)
def test_a_rule_that_decides_something_is_not_named(category, earlier, later):
    assert said(rules(category, earlier, later)) == []


@pytest.mark.parametrize(
    ("earlier", "later", "idle"),
    [
        ("{path: nvidia-*, action: skip}", "{path: nvidia-ctk, action: fail}", True),
        ("{path: '*', action: skip}", "{path: /opt/*, action: fail}", True),
        ("{path: /opt/**, action: skip}", "{path: /opt/a/*, action: fail}", True),
        ("{path: /opt/*, action: skip}", "{path: x, action: fail}", False),
        ("{path: x, arguments: a, action: skip}", "{path: x, arguments: [a, b], action: fail}", True),
        ("{path: x, arguments: [a, b], action: skip}", "{path: x, arguments: a, action: fail}", False),
    ],
)
def test_hook_rules_are_looked_at_likewise(earlier, later, idle):
    assert bool(said(f"hooks: {{rules: [{earlier}, {later}]}}")) == idle


PARTS = st.lists(st.sampled_from(["*", "?", "a", "b", "[ab]", "[!a]", "[*]"]), min_size=1, max_size=3).map("".join)
PATTERNS = st.lists(PARTS.filter(lambda part: "**" not in part) | st.just("**"), min_size=1, max_size=3)
TEXTS = [
    "/" + "/".join(parts) for n in (1, 2, 3) for parts in itertools.product(["a", "b", "ab", "*", "xyz"], repeat=n)
]


@settings(max_examples=200)
@given(earlier=PATTERNS, later=PATTERNS)
def test_a_rule_that_is_named_never_decides(earlier, later):
    """Of a few hundred texts, none that the later pattern matches is left by the earlier one."""
    first, second = ("/" + "/".join(parts) for parts in (earlier, later))
    text = rules("specs", f"{{deny: '{first}'}}", f"{{allow: '{second}'}}")
    try:
        idle = [line for line in said(text) if "decides nothing" in line]
    except CdiError:
        return
    if idle:
        settled = build(join(of_file(ConfigFile("c.yaml", text.encode()), "site"))).policy
        assert settled is not None
        before, after = settled.rules["specs"].rules
        left = [text for text in TEXTS if matches(after, Subject("specs", (text,), ""))]
        assert all(matches(before, Subject("specs", (text,), "")) for text in left)


def test_warnings_are_said_and_change_no_exit_status(lab, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("aliases: {gpu: no.such/kind}\n")
    done = lab.run(["cdi-hpc", "config", "check", path])
    assert (done.returncode, done.stdout) == (0, f"{path}: valid\n")
    assert done.stderr.startswith(f"cdi-hpc: warning: {path}:1:11: aliases.gpu: ")


def test_the_doctor_says_it_too(lab, tmp_path):
    (tmp_path / "cdi-hpc").mkdir(0o755)
    (tmp_path / "cdi-hpc/config.yaml").write_text("aliases: {gpu: no.such/kind}\n")
    (tmp_path / "cdi-hpc/config.yaml").chmod(0o644)
    shown = lab.run(["cdi-hpc", "doctor"], env={"XDG_CONFIG_HOME": str(tmp_path)}).stdout
    (line,) = [line for line in shown.splitlines() if "no.such/kind" in line]
    assert line.split()[:2] == ["warning", "configuration"]


def test_a_program_that_a_rule_has_run_and_nobody_believes_is_named(tmp_path: Path):
    for name, mode in (("one", 0o777), ("two", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    for pattern, names in ((tmp_path / "*", ["one", "two"]), (tmp_path / "t*", ["two"]), (tmp_path / "no", ["no"])):
        found = said(f"hooks: {{rules: [{{path: '{pattern}', action: run}}]}}")
        assert [each.partition(" run, which is refused: ")[0].rpartition("/")[2] for each in found] == [
            f"{name}'" for name in names
        ]
        assert all(each.startswith("c.yaml:1:17: hooks.rules[0]: the rule has ") for each in found)


@pytest.mark.parametrize("pattern", ["/bin/sh", "/usr/bin/dash", "/usr/*/*", "/nowhere/*", "/**"])
def test_programs_of_roots_and_patterns_for_many_directories_are_no_doubt(pattern: str):
    assert said(f"hooks: {{rules: [{{path: '{pattern}', action: run}}]}}") == []


def test_a_program_that_is_not_there_is_to_be_installed():
    (found,) = said("hooks: {rules: [{path: /opt/no/such, action: run}]}")
    assert found.endswith("No such file or directory (install it, or correct the path)")


@pytest.mark.parametrize(("written", "what"), [("$PATH", "$"), ("LD PRELOAD", "blank"), ("$A=*", "$")])
def test_a_pattern_for_a_variable_that_nothing_reads_is_named(written, what):
    (found,) = said(rules("environment", f"{{deny: '{written}'}}"))
    assert f"'{written}' is for variables with a {what} in the name (write the name alone" in found


GPUS = {
    "0": ["/dev/nvidia0"],
    "1": ["/dev/nvidia1"],
    "GPU-1": ["/dev/nvidia1"],
    "all": ["/dev/nvidia0", "/dev/nvidia1"],
    "none": [],
}
NODES = "(deny the nodes under 'mount-sources', or these names as well)"


@pytest.fixture
def gpus(tmp_path: Path) -> Path:
    devices = [
        {"name": name, "containerEdits": {"env": ["A=b"], "deviceNodes": [{"path": path} for path in paths]}}
        for name, paths in GPUS.items()
    ]
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}
    (tmp_path / "gpu.json").write_text(yaml.safe_dump(spec))
    return tmp_path


@pytest.mark.parametrize(
    ("written", "default", "others"),
    [
        ("{deny: nvidia.com/gpu=1}", "allow", "'nvidia.com/gpu=GPU-1' and 'nvidia.com/gpu=all'"),
        ("{deny: [nvidia.com/gpu=1, nvidia.com/gpu=GPU-*]}", "allow", "'nvidia.com/gpu=all'"),
        ("{deny: ['nvidia.com/gpu=[0-9]', nvidia.com/gpu=GPU-*, nvidia.com/gpu=all]}", "allow", ""),
        ("{deny: nvidia.com/gpu=1}", "deny", ""),
        ("{deny: nvidia.com/gpu=none}", "allow", ""),
    ],
)
def test_a_device_with_the_nodes_of_one_that_is_denied_is_named(gpus, written, default, others):
    found = said(f"policy:\n  devices:\n    default: {default}\n    rules:\n      - {written}\n", gpus)
    assert len(found) == bool(others)
    assert all(f" denies 'nvidia.com/gpu=1', but not {others}, with the same device nodes {NODES}" in e for e in found)
