"""Launches on a machine with a site configuration, and a user's: what a key says is what happens."""

from __future__ import annotations

import json
import os

import pytest
from launched_site import RUNNER, SPEC

HOOK = {"hookName": "createContainer", "path": "/opt/vendor/bin/setup", "args": ["setup", "--fast"]}


def test_spec_directories_are_where_specs_are_looked_for(site):
    assert site.env_of("-d", "site.org/tool=one") == {"TOOL": "one"}
    assert "site.org/tool=one" in site.do("cdi-hpc", "list").stdout
    assert "no spec for the kind" in site.refusal("-d", "nvidia.com/gpu=0")
    assert "no spec for the kind" in site.refusal("-d", "site.org/tool=one", CDI_HPC_DIRS="/etc/cdi")
    assert "no spec for the kind" in site.refusal("-d", "site.org/tool=one", "--cdi-dir", "/etc/cdi")


def test_a_directory_that_is_configured_need_not_be_there(site):
    site.configure(f"spec-directories: [/no/such/directory, {site.specs}]")
    assert site.env_of("-d", "site.org/tool=one") == {"TOOL": "one"}


def test_an_alias_stands_for_its_devices_and_a_users_counts_more(site):
    site.configure("aliases: {both: [site.org/tool=one, second], second: site.org/tool=two}", "config.d/10.yaml")
    assert site.env_of("-d", "both") == {"TOOL": "one", "TOOL_TWO": "two"}
    assert "did you mean 'both'?" in site.refusal("-d", "boht")
    site.configure_user("aliases: {both: site.org/tool=one}")
    assert site.env_of("-d", "both") == {"TOOL": "one"}


def test_devices_are_given_to_launches_that_ask_for_none(site):
    site.configure("launchers: {embedded: {devices: site.org/tool=one}}", "config.d/10.yaml")
    assert site.env_of() == {"TOOL": "one"}
    assert site.env_of("-d", "site.org/tool=two") == {"TOOL_TWO": "two"}
    assert site.env_of("-d", "none") == {}


def test_strict_is_for_every_launch(site):
    (site.specs / "tool.json").write_text(json.dumps({**SPEC, "colour": "red"}))
    assert site.env_of("-d", "site.org/tool=one") == {"TOOL": "one"}
    site.configure("strict: true", "config.d/10.yaml")
    assert "unknown field 'colour'" in site.refusal("-d", "site.org/tool=one")


def test_strict_is_a_variable_too(site):
    (site.specs / "tool.json").write_text(json.dumps({**SPEC, "colour": "red"}))
    assert "unknown field 'colour'" in site.refusal("-d", "site.org/tool=one", CDI_HPC_STRICT="1")
    assert site.env_of("-d", "site.org/tool=one", CDI_HPC_STRICT="0") == {"TOOL": "one"}


@pytest.mark.parametrize("where", ["hooks: {unknown: fail}", "launchers: {embedded: {unknown-hooks: fail}}"])
def test_an_unknown_hook_stops_a_launch_where_the_site_says_so(site, where):
    site.spec(hooks=[HOOK])
    assert "this program is not known" in site.run("-d", "site.org/tool=one").stderr
    site.configure(where, "config.d/10.yaml")
    assert "this program is not known" in site.refusal("-d", "site.org/tool=one", "--unknown-hooks", "warn")


@pytest.mark.parametrize(
    "action, status, said",
    [("skip", 0, ""), ("warn", 0, "warning"), ("fail", 125, "error"), ("translate", 0, "this program is not known")],
)
def test_a_rule_says_what_becomes_of_a_hook(site, action, status, said):
    site.spec(hooks=[HOOK])
    rule = f"{{path: /opt/vendor/**, arguments: --fast, action: {action}, because: ours}}"
    site.configure(f"hooks: {{rules: [{rule}]}}", "config.d/10.yaml")
    done = site.run("-d", "site.org/tool=one", command="true")
    assert done.returncode == status
    assert said in done.stderr
    assert (done.stderr == "") == (said == "")
    if action in ("warn", "fail"):
        assert (
            "left out by a rule of the site's: ours (/etc/cdi-hpc/config.d/10.yaml:1:17: hooks.rules[0])" in done.stderr
        )
    if action == "skip":
        assert "left out by a rule" in site.run("-v", "-d", "site.org/tool=one", command="true").stderr


@pytest.mark.parametrize("where", ["unsupported: fail", "launchers: {embedded: {unsupported: fail}}"])
def test_what_can_not_be_done_stops_a_launch_where_the_site_says_so(site, where):
    site.spec(netDevices=[{"hostInterfaceName": "lo", "name": "other"}])
    spec = json.loads((site.specs / "tool.json").read_text())
    (site.specs / "tool.json").write_text(json.dumps({**spec, "cdiVersion": "1.1.0"}))
    done = site.run("-d", "site.org/tool=one")
    assert "moving or renaming an interface needs privilege" in done.stderr
    assert done.returncode == 0
    site.configure(where, "config.d/10.yaml")
    assert "moving or renaming an interface needs privilege" in site.refusal("-d", "site.org/tool=one")


def test_binds_are_in_every_container_before_those_of_the_command_line(site):
    (site.top / "shared").mkdir()
    (site.top / "shared/file").write_text("shared\n")
    site.configure(f"launchers: {{embedded: {{binds: ['{site.top}/shared:/mnt/shared:ro']}}}}", "config.d/10.yaml")
    assert site.run(command="cat /mnt/shared/file").stdout == "shared\n"
    assert site.run("--bind", "/srv:/mnt/other", command="ls /mnt").stdout == "other\nshared\n"


def test_the_stage_is_the_sites_where_the_command_line_does_not_say(site):
    types = "findmnt -rno FSTYPE / || awk '$5 == \"/\" {print}' /proc/self/mountinfo"
    site.configure("launchers: {embedded: {stage: underlay}}", "config.d/10.yaml")
    ask = ("-d", "site.org/tool=one")
    assert "overlay" not in site.run(*ask, command=types).stdout
    assert "overlay" in site.run(*ask, "--stage", "overlay", command=types).stdout


RULES = [
    ("kinds: {default: deny}", "the site does not allow the kind 'site.org/tool'"),
    ("devices: {rules: [{deny: '*/*=one'}]}", "the site does not allow the device 'site.org/tool=one'"),
    ("specs: {rules: [{allow: /etc/cdi/**}, {deny: /**}]}", "the site does not allow the spec file"),
    ("mount-sources: {rules: [{deny: /etc/passwd}]}", "the site does not allow the host path '/etc'"),
    ("mount-targets: {rules: [{deny: /mnt/**, groups: [0]}]}", "the site does not allow the container path '/mnt/etc'"),
    ("environment: {rules: [{deny: TOOL*, users: root}]}", "the site does not allow the variable 'TOOL=one'"),
]


@pytest.mark.parametrize("rules, said", RULES)
def test_what_the_site_does_not_allow_is_refused_by_every_command_with_the_rules_line(site, rules, said):
    site.spec(mounts=[{"hostPath": "/etc", "containerPath": "/mnt/etc"}])
    ask = ("-d", "site.org/tool=one")
    assert site.env_of(*ask) == {"TOOL": "one"}
    site.configure(f"policy:\n  {rules}", "config.d/10.yaml")
    for done in (
        site.run(*ask),
        site.run("--runner=python", *ask),
        site.do("cdi-hpc", "plan", "site.org/tool=one"),
        site.do("cdi-hpc", "script", "site.org/tool=one"),
        site.do("cdi-hpc", "compile", "--image", str(site.image), "site.org/tool=one"),
    ):
        assert done.returncode in (1, 125), done.stdout
        assert said in done.stderr
        assert "/etc/cdi-hpc/config.d/10.yaml:2:" in done.stderr
    assert site.env_of("-d", "none") == {}


#: A launch by the native runner, which has no Python to turn to: only a plan that is there and fresh will do.
WARM = "CDI_HPC_PYTHON_FRONT=/bin/false {runner} -d tool {image} printenv TOOL"


def test_a_later_launch_starts_no_python_until_the_configuration_changes(site):
    site.configure("aliases: {tool: site.org/tool=one}", "config.d/10.yaml")
    warm = WARM.format(runner=RUNNER, image=site.image)
    cold = f"cdi-hpc run -d tool {site.image} sh -c 'echo cold $TOOL $TOOL_TWO'"
    more, own = f"{site.top}/etc/cdi-hpc/config.d/20.yaml", f"{site.top}/home/cdi-hpc"
    other = "echo 'aliases: {tool: site.org/tool=two}'"
    changes = (f"{other} > {more}", f"rm {more}", f"mkdir {own}; {other} > {own}/config.yaml")
    steps = [f"{cold}; {warm}", *(f"umask 022; {change}; ! {warm} 2>/dev/null; {cold}" for change in changes)]
    done = site.play("; ".join(steps))
    assert done.stdout.splitlines() == ["cold one", "one", "cold two", "cold one", "cold two"], done.stderr
    assert len(site.plans()) == 1


def test_a_plan_made_before_a_rule_is_not_used_any_more(site):
    launch = f"cdi-hpc run -d site.org/tool=one {site.image} printenv TOOL"
    rule = f"echo 'policy: {{kinds: {{default: deny}}}}' > {site.top}/etc/cdi-hpc/config.d/10.yaml"
    done = site.play(f"umask 022; {launch}; {launch}; {rule}; {launch}")
    assert (done.returncode, done.stdout) == (125, "one\none\n")
    assert "the site does not allow the kind" in done.stderr


@pytest.mark.parametrize("runner", ["auto", "python"])
def test_all_variables_that_are_wrong_are_named_at_once(site, runner):
    wrong = {"CDI_HPC_PREFLIGHT": "OFF", "CDI_HPC_STRICT": "maybe", "CDI_HPC_UNSUPPORTED": "never"}
    said = site.refusal(f"--runner={runner}", **wrong)
    assert [name for name in wrong if f"variable {name}: expected" in said] == [*wrong]
    assert "did you mean 'off'?" in said
    assert "variable CDI_HPC_PREFLIGHT: expected" in site.refusal("-d", "none", CDI_HPC_PREFLIGHT="OFF")


def test_a_tree_to_write_to_needs_another_stage_than_the_sites(site):
    site.configure("launchers: {embedded: {stage: underlay}}", "config.d/10.yaml")
    assert "(use --stage=overlay, or " in site.refusal("-d", "site.org/tool=one", "--writable-tmpfs")
    assert site.env_of("-d", "site.org/tool=one", "--writable-tmpfs", "--stage=overlay") == {"TOOL": "one"}


def test_variables_have_plans_of_their_own(site):
    for strict in ("0", "1", "0"):
        site.env_of("-d", "site.org/tool=one", CDI_HPC_STRICT=strict)
    assert len(site.plans()) == 2


def test_a_site_file_that_others_can_write_to_stops_every_launch(site):
    (site.top / "etc/cdi-hpc/config.yaml").chmod(0o666)
    assert "/etc/cdi-hpc/config.yaml: not believed: others can write to it (mode 666)" in site.refusal()


def test_a_users_rules_are_refused(site):
    site.configure_user("policy: {kinds: {default: allow}}")
    assert "only the administrator can set this" in site.refusal("-d", "site.org/tool=one")


def test_what_can_be_opened_is_asked_for_each_launch_anew(site):
    site.configure("all-means: openable", "config.d/10.yaml")
    for _ in range(2):
        assert site.env_of("-d", "site.org/tool=all") == {"TOOL": "one", "TOOL_TWO": "two"}
    assert site.plans() == []
    done = site.run("-v", "-d", "site.org/tool=all")
    assert "no plan was made: compiled plan: what can be opened is known only in the job" in done.stderr


@pytest.mark.parametrize("entries, tools", [("1", {"TOOL_TWO": "two"}), ("site.org/tool=0", {"TOOL": "one"}), ("", {})])
def test_visible_devices_are_those_of_the_list(site, entries, tools):
    assert site.env_of("--visible-devices", entries, "-d", "site.org/tool=all") == tools
    assert site.plans() == []


@pytest.mark.parametrize("entries", ["", "site.org/tool=", " "])
def test_a_list_that_may_be_of_a_variable_that_was_not_set_is_said_to_be_empty(entries, site):
    words = ("--visible-devices", entries, "-d", "site.org/tool=all")
    done = site.run(*words)
    assert f"cdi-hpc: warning: visible devices: the list {entries!r} is empty: no device of the kind (" in done.stderr
    assert "is empty" not in site.run("--visible-devices", "none", "-d", "site.org/tool=all").stderr


def test_a_visible_device_that_is_not_there_stops_the_launch(site):
    said = site.refusal("--visible-devices", "0,7", "-d", "site.org/tool=all")
    assert "visible devices: there is no device '7': 2 can be opened, counted from 0" in said


def test_bounds_of_the_cache_are_the_sites(site):
    for name in ("one", "two"):
        site.env_of("-d", f"site.org/tool={name}")
    assert len(site.plans()) == 2
    site.configure("cache: {max-plans: 1}", "config.d/10.yaml")
    assert site.do("cdi-hpc", "cache", "clean").returncode == 0
    assert len(site.plans()) == 1


def test_ch_run_and_apptainer_follow_the_rules_that_are_there(site):
    site.configure("policy: {kinds: {default: deny}}", "config.d/10.yaml")
    line = ("cdi-hpc", "exec", "ch-run", "--device", "site.org/tool=one", str(site.image), "--", "true")
    done = site.do(*line)
    assert done.returncode == 125
    assert "the site does not allow the kind 'site.org/tool'" in done.stderr
    assert os.listdir(site.top / "run/cdi-hpc")


def test_a_script_is_for_the_sites_devices_where_none_are_named(site):
    assert "Missing argument 'DEVICE...'" in site.do("cdi-hpc", "script").stderr
    site.configure("launchers: {bash: {devices: [site.org/tool=one]}}", "config.d/10.yaml")
    assert "TOOL=one" in site.do("cdi-hpc", "script", "--only=env").stdout
    named = site.do("cdi-hpc", "script", "--only=env", "site.org/tool=two").stdout
    assert "TOOL_TWO=two" in named
    assert "TOOL=one" not in named


def test_plans_are_kept_where_the_site_says(site):
    site.configure(f"cache: {{directory: '{site.top}/plans/{{uid}}'}}", "config.d/10.yaml")
    done = site.run("-v", "-d", "site.org/tool=one", command="printenv TOOL")
    assert done.stdout == "one\n"
    assert site.plans() == [], done.stderr
    assert len(list(site.top.glob("plans/0/*.plan"))) == 1, done.stderr
    line = f"CDI_HPC_PYTHON_FRONT=/bin/false {RUNNER} -d site.org/tool=one {site.image} printenv TOOL"
    assert site.play(f"cdi-hpc run -d site.org/tool=one {site.image} true; {line}").stdout == "one\n"


def test_plans_of_each_host_are_kept_where_the_site_says(site):
    site.configure(f"cache: {{directory: '{site.top}/plans/{{host}}'}}", "config.d/10.yaml")
    launch = f"cdi-hpc run -d site.org/tool=one {site.image} true"
    warm = f"CDI_HPC_PYTHON_FRONT=/bin/false {RUNNER} -d site.org/tool=one {site.image} printenv TOOL"
    hosts = ("node-a", "node-b", "node-a")  # all have one directory in which the native program looks first
    done = site.play("\n".join(f"unshare -u sh -c 'hostname {host}; {launch}; {warm}'" for host in hosts))
    assert done.stdout.split() == ["one"] * 3, done.stderr
    assert sorted(path.parent.name for path in site.top.glob("plans/*/*.plan")) == ["node-a", "node-b"]


@pytest.mark.parametrize(
    ("home", "directory", "depends"),
    [
        ("", "{home}/plans", True),
        ("/home/me", "{home}/plans", False),
        ("/home/me", "{user}", True),
        ("", "{uid}", False),
    ],
)
def test_where_plans_are_is_asked_again_when_accounts_change(site, home, directory, depends):
    site.configure(f"cache: {{directory: '{site.top}/{directory}'}}", "config.d/10.yaml")
    done = site.run("-d", "site.org/tool=one", command="true", HOME=home)
    assert done.returncode == 0, done.stderr
    (extract,) = site.top.glob("run/cdi-hpc/*.extract")
    assert (b"\0/etc/passwd\0" in extract.read_bytes()) == depends
