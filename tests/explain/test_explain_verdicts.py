"""What ``explain`` says of each kind of edit, on a host and with rules that the test makes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from explained import explained, fates, view_of, write_spec
from fake_host import host, host_from_facts

from cdi_hpc import explain
from cdi_hpc.config import Configuration
from cdi_hpc.explain import VERDICTS
from cdi_hpc.site.globs import path_pattern, text_pattern
from cdi_hpc.site.policy import HookRule, Policy, Rule, Rules

TESTS = Path(__file__).parent.parent
GOLDEN = sorted(TESTS.glob("golden/*/spec.yaml"))
VIEWS = sorted(TESTS.glob("views/*/*.yaml"))

HOST = host(
    {
        "/dev/null": "c 1:3",
        "/dev/nvidia0": "c 195:0",
        "/etc/hosts": "f",
        "/opt": "d",
        "/opt/lib.so": "f",
        "/opt/other.so": "f",
    }
)

HOOK = {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook"}
LINK = {**HOOK, "args": ["nvidia-cdi-hook", "create-symlinks", "--link", "lib.so::/opt/link"]}
UNKNOWN = {**HOOK, "path": "/opt/hook", "args": ["hook"]}


@pytest.mark.parametrize("spec", GOLDEN, ids=lambda path: path.parent.name)
def test_no_row_of_a_golden_spec_is_without_a_verdict(spec: Path):
    assert_complete(explained(spec, host_from_facts(spec.parent / "host.yaml")))


@pytest.mark.parametrize("spec", VIEWS, ids=lambda path: path.parent.name)
def test_no_row_of_a_vendors_spec_is_without_a_verdict(spec: Path):
    assert_complete(explained(spec, HOST))


def assert_complete(explanation: explain.Explanation) -> None:
    assert explanation.edits
    assert [view.launcher for view in explanation.views] == [*explain.launchers()]
    for view in explanation.views:
        assert {*view.fates} == {edit.origin for edit in explanation.edits}
        for fate in view.fates.values():
            assert fate.verdict in VERDICTS
            assert fate.how
            assert "nothing that the launcher is given" not in fate.how


#: The edit, what the spec has, and what becomes of it where nothing is installed.
CASES = {
    "env A=b": ({"env": ["A=b"]}, "done"),
    "deviceNodes /dev/null": ({"deviceNodes": [{"path": "/dev/null"}]}, "done"),
    "deviceNodes /dev/null -> /dev/other": (
        {"deviceNodes": [{"path": "/dev/other", "hostPath": "/dev/null"}]},
        "emulated",
    ),
    "deviceNodes /dev/missing": ({"deviceNodes": [{"path": "/dev/missing"}]}, "impossible"),
    "mounts /opt/lib.so (ro)": (
        {"mounts": [{"hostPath": "/opt/lib.so", "containerPath": "/opt/lib.so", "options": ["ro"]}]},
        "done",
    ),
    "mounts tmpfs -> /scratch": (
        {"mounts": [{"hostPath": "tmpfs", "containerPath": "/scratch", "type": "tmpfs"}]},
        "done",
    ),
    "mounts /opt/none": ({"mounts": [{"hostPath": "/opt/none", "containerPath": "/opt/none"}]}, "impossible"),
    "mounts /opt -> /": ({"mounts": [{"hostPath": "/opt", "containerPath": "/"}]}, "impossible"),
    "hooks createContainer: nvidia-cdi-hook create-symlinks --link lib.so::/opt/link": ({"hooks": [LINK]}, "emulated"),
    "hooks createContainer: nvidia-cdi-hook update-ldcache --folder /opt": (
        {"hooks": [{**HOOK, "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/opt"]}]},
        "emulated",
    ),
    "hooks createContainer: nvidia-cdi-hook chmod --mode 755 --path /opt": (
        {"hooks": [{**HOOK, "args": ["nvidia-cdi-hook", "chmod", "--mode", "755", "--path", "/opt"]}]},
        "done",
    ),
    "hooks createContainer: hook": ({"hooks": [UNKNOWN]}, "impossible"),
    "netDevices eth0": ({"netDevices": [{"hostInterfaceName": "eth0", "name": "eth0"}]}, "done"),
    "netDevices eth0 -> net0": ({"netDevices": [{"hostInterfaceName": "eth0", "name": "net0"}]}, "impossible"),
    "additionalGids 1000": ({"additionalGids": [1000]}, "done"),
    "additionalGids 4711": ({"additionalGids": [4711]}, "impossible"),
    "additionalGids 0": ({"additionalGids": [0]}, "done"),
    "intelRdt guaranteed": ({"intelRdt": {"closID": "guaranteed"}}, "impossible"),
}


@pytest.mark.parametrize("launcher", explain.launchers())
@pytest.mark.parametrize("edit", CASES)
def test_each_kind_of_edit_has_its_verdict(edit: str, launcher: str, tmp_path: Path):
    edits, verdict = CASES[edit]
    found = fates(explained(write_spec(tmp_path, edits), HOST, launcher), launcher)
    assert {what: [fate.verdict for fate in each] for what, each in found.items()} == {edit: [verdict]}


def test_a_device_that_can_not_be_opened_is_done_in_part(tmp_path: Path):
    machine = host({"/dev/null": "c 1:3 mode=660 gid=44"}, open_errors={"/dev/null": errno.EACCES})
    ((fate,),) = fates(explained(write_spec(tmp_path, {"deviceNodes": [{"path": "/dev/null"}]}), machine)).values()
    assert fate.verdict == "impossible"
    assert fate.how.startswith("in part: /dev/null can't be opened")
    assert "bind mount" in fate.how


def test_an_edit_that_another_replaces_is_there_and_says_which(tmp_path: Path):
    spec = write_spec(tmp_path, {"env": ["A=1"]}, {"env": ["A=2"]}, edits={"env": ["A=0"]})
    found = fates(explained(spec, HOST))
    assert [(what, fate.verdict, fate.how) for what, (fate,) in found.items()] == [
        ("env A=0", "replaced", "by devices[1].containerEdits.env[0]"),
        ("env A=1", "replaced", "by devices[1].containerEdits.env[0]"),
        ("env A=2", "done", "set in the command's environment"),
    ]


def test_of_two_intel_rdts_the_last_counts(tmp_path: Path):
    spec = write_spec(tmp_path, {"intelRdt": {"closID": "a"}}, {"intelRdt": {"closID": "b"}})
    found = fates(explained(spec, HOST))
    assert [found[f"intelRdt {name}"][0].verdict for name in "ab"] == ["replaced", "impossible"]


def test_an_edit_that_stops_a_launch_is_named_and_the_others_are_judged(tmp_path: Path):
    mount = {"hostPath": "/opt/lib.so", "containerPath": "/opt/link"}
    spec = write_spec(tmp_path, {"env": ["A=b"], "mounts": [mount], "hooks": [LINK]})
    explanation = explained(spec, HOST, "embedded")
    found = {what: fate.verdict for what, (fate,) in fates(explanation).items()}
    assert [*found.values()] == ["done", "done", "impossible"]
    assert "another edit mounts something there" in view_of(explanation, "embedded").stops[0]


def test_a_variable_that_bash_keeps_to_itself_stops_bash_alone(tmp_path: Path):
    explanation = explained(write_spec(tmp_path, {"env": ["UID=0", "A=b"]}), HOST, "bash", "embedded")
    found = {what: fate.verdict for what, (fate,) in fates(explanation, "bash").items()}
    assert found == {"env UID=0": "impossible", "env A=b": "done"}
    assert view_of(explanation, "bash").stops != ()
    assert view_of(explanation, "embedded").stops == ()


def test_a_launcher_that_is_not_installed_says_so_and_speaks_in_general(tmp_path: Path):
    explanation = explained(write_spec(tmp_path, {"env": ["A=b"]}), HOST, "charliecloud", "singularity")
    assert [view.installed for view in explanation.views] == [False, False]
    assert "not installed here" in view_of(explanation, "charliecloud").title
    assert fates(explanation, "charliecloud")["env A=b"][0].how == "--set-env"
    assert fates(explanation, "singularity")["env A=b"][0].how == "variable APPTAINERENV_NAME"


# Rules ----------------------------------------------------------------------------------------------------------------

SPEC = {"env": ["A=b"], "mounts": [{"hostPath": "/opt/lib.so", "containerPath": "/opt/lib.so"}]}


def under(category: str, rule: Rule) -> Configuration:
    return Configuration(policy=Policy({category: Rules((rule,), where="site.yaml:2:3")}))  # type: ignore[dict-item]


@pytest.mark.parametrize("launcher", explain.launchers())
def test_a_refusal_names_the_rule_and_its_place(launcher: str, tmp_path: Path):
    rule = Rule("deny", (path_pattern("/opt/**"),), because="not for you", where="site.yaml:7:5: policy")
    explanation = explained(write_spec(tmp_path, SPEC), HOST, launcher, configuration=under("mount-sources", rule))
    found = {what: fate for what, (fate,) in fates(explanation, launcher).items()}
    assert found["env A=b"].verdict == "done"
    assert found["mounts /opt/lib.so"].verdict == "refused"
    for text in ("/opt/lib.so", "not for you", "deny '/opt/**'", "site.yaml:7:5: policy"):
        assert text in found["mounts /opt/lib.so"].how
    assert "site.yaml:7:5" in view_of(explanation, launcher).stops[0]


@pytest.mark.parametrize(
    "category, pattern",
    [
        ("kinds", text_pattern("lab.example/*")),
        ("devices", text_pattern("*=d0")),
        ("specs", path_pattern("/**")),
    ],
)
def test_all_edits_of_what_is_refused_are(category: str, pattern, tmp_path: Path):
    configuration = under(category, Rule("deny", (pattern,), where="site.yaml:1:1"))
    spec = write_spec(tmp_path, SPEC, edits={"env": ["B=c"]})
    verdicts = {fate.verdict for (fate,) in fates(explained(spec, HOST, configuration=configuration)).values()}
    assert verdicts == {"refused"}


def test_only_the_edits_of_the_refused_device_are_refused(tmp_path: Path):
    configuration = under("devices", Rule("deny", (text_pattern("*=d1"),), where="site.yaml:1:1"))
    spec = write_spec(tmp_path, {"env": ["A=b"]}, {"env": ["B=c"]})
    found = fates(explained(spec, HOST, configuration=configuration))
    assert [found[f"env {text}"][0].verdict for text in ("A=b", "B=c")] == ["done", "refused"]


@pytest.mark.parametrize("verdict, stops", [("fail", True), ("warn", False), ("skip", False)])
def test_a_hook_that_the_site_leaves_out_is_refused(verdict, stops, tmp_path: Path):
    rule = HookRule(verdict, text_pattern("nvidia-cdi-hook"), because="ours", where="site.yaml:9:5")
    configuration = Configuration(policy=Policy(hooks=(rule,)))
    explanation = explained(write_spec(tmp_path, {"hooks": [LINK]}), HOST, configuration=configuration)
    ((fate,),) = fates(explanation).values()
    assert fate.verdict == "refused"
    assert "ours" in fate.how
    assert "site.yaml:9:5" in fate.how
    assert bool(view_of(explanation, "embedded").stops) == stops


def test_a_configuration_that_lets_nothing_be_missing_stops_the_launch(tmp_path: Path):
    spec = write_spec(tmp_path, {"additionalGids": [4711]})
    strict = explained(spec, HOST, configuration=Configuration(unsupported="fail"))
    assert all(view.stops for view in strict.views)
    assert not any(view.stops for view in explained(spec, HOST).views)


# Differences ----------------------------------------------------------------------------------------------------------


def test_two_specs_differ_in_what_is_added_removed_and_changed(tmp_path: Path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    ldcache = {**HOOK, "args": ["nvidia-cdi-hook", "update-ldcache", "--folder"]}
    old = write_spec(
        tmp_path / "old",
        {
            "env": ["SAME=1", "GONE=1", "OTHER=1"],
            "mounts": [{"hostPath": "/opt/lib.so", "containerPath": "/lib.so"}],
            "hooks": [LINK, {**ldcache, "args": [*ldcache["args"], "/a"]}],
        },
    )
    new = write_spec(
        tmp_path / "new",
        {
            "env": ["SAME=1", "OTHER=2", "NEW=1"],
            "mounts": [{"hostPath": "/opt/other.so", "containerPath": "/lib.so"}],
            "hooks": [
                LINK,
                {
                    **ldcache,
                    "path": "/opt/bin/nvidia-ctk",
                    "args": ["nvidia-ctk", "hook", "update-ldcache", "--folder", "/b"],
                },
            ],
        },
    )
    found = explain.between_specs(explained(old, HOST, "embedded"), explained(new, HOST, "embedded"))
    assert [(each.change, each.old and each.old.edit.field, each.new and each.new.edit.what) for each in found] == [
        ("removed", "env", None),
        ("changed", "env", "env OTHER=2"),
        ("changed", "mounts", "mounts /opt/other.so -> /lib.so"),
        ("changed", "hooks", "hooks createContainer: nvidia-ctk hook update-ldcache --folder /b"),
        ("added", None, "env NEW=1"),
    ]


def test_two_launchers_differ_where_the_verdicts_do(tmp_path: Path):
    explanation = explained(write_spec(tmp_path, {"env": ["UID=0", "A=b"]}), HOST, "embedded", "bash")
    (found,) = explain.between_launchers(explanation)
    assert found.old
    assert found.new
    assert (found.old.edit.what, found.old.fate.verdict, found.new.fate.verdict) == ("env UID=0", "done", "impossible")
