"""``cdi-hpc doctor`` finds what is wrong, says what to do, and finds nothing where nothing is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cdi_hpc.doctor import programs
from cdi_hpc.doctor.checks import Question

Findings = Callable[..., dict[str, list[dict]]]

GPU = {"path": "/dev/nvidia0"}
CONTROL = [{"path": "/dev/nvidiactl"}, {"path": "/dev/nvidia-uvm"}]


def write(directory: Path, name: str, devices: dict[str, dict], *, kind="lab.example/thing", edits=None) -> Path:
    directory.mkdir(exist_ok=True)
    spec = {
        "cdiVersion": "0.5.0",
        "kind": kind,
        "devices": [{"name": device, "containerEdits": value} for device, value in devices.items()],
        "containerEdits": edits or {},
    }
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture
def doctor(lab) -> Findings:
    """Findings by check; the exit status is under ``status``."""

    def run(*arguments, env=None) -> dict[str, list[dict]]:
        done = lab.run(["cdi-hpc", "doctor", "--format", "json", *arguments], env=env)
        assert done.stderr == ""
        findings: dict = {"status": done.returncode}
        for row in json.loads(done.stdout):
            findings.setdefault(row["check"], []).append(row)
        return findings

    return run


def found(findings: list[dict]) -> list[tuple[str, str]]:
    return [(row["status"], row["finding"]) for row in findings]


def test_a_host_where_all_is_well_has_no_problem_and_no_warning(doctor, lab) -> None:
    findings = doctor("--image", lab.image("debian-root"))
    assert findings.pop("status") == 0
    rows = [row for rows in findings.values() for row in rows]
    assert [row for row in rows if row["status"] in ("problem", "warning")] == []
    assert {"user-namespaces", "overlay", "launchers", "spec-files", "request", "image", "image-layers"} <= {*findings}


def test_every_finding_that_is_not_well_says_what_to_do(doctor, tmp_path) -> None:
    write(tmp_path / "cdi", "nvidia", {"all": {"env": ["A=b"]}}, kind="nvidia.com/gpu")
    findings = doctor("--cdi-dir", tmp_path / "cdi")
    assert findings.pop("status") == 1
    bad = [row for rows in findings.values() for row in rows if row["status"] in ("problem", "warning")]
    assert bad
    assert [row for row in bad if not row["fix"]] == []


def test_a_broken_spec_is_a_problem_with_its_place(doctor, tmp_path) -> None:
    (tmp_path / "broken.yaml").write_text("cdiVersion: 0.5.0\nkind: nonsense\n")
    findings = doctor("--cdi-dir", tmp_path)
    assert findings["status"] == 1
    assert ("problem", f"no usable spec in {tmp_path}") in found(findings["spec-files"])
    assert f"{tmp_path}/broken.yaml:1:1: devices" in findings["spec-files"][0]["finding"]


def test_no_spec_at_all_is_a_problem(doctor, tmp_path) -> None:
    findings = doctor("--cdi-dir", tmp_path)
    assert (findings["status"], found(findings["spec-files"])) == (1, [("problem", f"no usable spec in {tmp_path}")])


def test_devices_that_two_files_define_are_named_with_who_wins(doctor, tmp_path) -> None:
    early, late = tmp_path / "early", tmp_path / "late"
    write(early, "one", {"shadowed": {"deviceNodes": [GPU]}, "fought": {"deviceNodes": [GPU]}})
    write(late, "two", {"shadowed": {"deviceNodes": [GPU]}, "torn": {"deviceNodes": [GPU]}})
    write(late, "three", {"torn": {"deviceNodes": [GPU]}})
    findings = doctor("--cdi-dir", early, "--cdi-dir", late)
    assert found(findings["conflicts"]) == [
        ("problem", f"lab.example/thing=torn is defined in {late}/three.yaml and {late}/two.yaml: nobody gets it"),
        ("note", f"lab.example/thing=shadowed of {late}/two.yaml is used, not that of {early}/one.yaml"),
    ]


def test_an_empty_all_is_a_problem(doctor, tmp_path) -> None:
    path = write(tmp_path / "cdi", "thing", {"0": {"deviceNodes": [GPU]}, "all": {"env": ["A=b"]}})
    findings = doctor("--cdi-dir", path.parent)
    assert found(findings["empty-all"]) == [("problem", f"{path}: the device 'all' has no device node")]


def test_a_spec_that_was_made_before_the_driver_was_ready_lacks_nodes(doctor, tmp_path) -> None:
    path = write(tmp_path / "cdi", "nvidia", {"0": {"deviceNodes": [GPU]}}, kind="nvidia.com/gpu")
    findings = doctor("--cdi-dir", path.parent)
    assert [row["finding"].partition(":")[0] for row in findings["nvidia-nodes"]] == [
        f"{path} has no /dev/nvidia-uvm",
        f"{path} has no /dev/nvidiactl",
    ]
    whole = write(tmp_path / "cdi", "nvidia", {"0": {"deviceNodes": [GPU, *CONTROL]}}, kind="nvidia.com/gpu")
    assert "nvidia-nodes" not in doctor("--cdi-dir", whole.parent)


def test_a_missing_file_and_a_missing_device_are_problems_of_the_request(doctor, tmp_path) -> None:
    mount = {"hostPath": "/usr/lib/libgone.so.1", "containerPath": "/usr/lib/libgone.so.1", "options": ["ro"]}
    path = write(tmp_path / "cdi", "thing", {"one": {"mounts": [mount], "deviceNodes": [{"path": "/dev/gone"}]}})
    findings = doctor("--cdi-dir", path.parent, "lab.example/thing=one")
    assert findings["status"] == 1
    assert {row["status"] for row in findings["request"]} == {"problem"}
    said = " ".join(row["finding"] for row in findings["request"])
    assert "/usr/lib/libgone.so.1" in said
    assert "/dev/gone" in said
    unknown = doctor("--cdi-dir", path.parent, "lab.example/thing=two")
    assert unknown["status"] == 1
    assert "lab.example/thing=two" in unknown["request"][0]["finding"]


def test_a_device_that_can_not_be_opened_is_a_warning(doctor, tmp_path) -> None:
    path = write(tmp_path / "cdi", "thing", {"one": {"deviceNodes": [{"path": "/dev/ptmx"}, {"path": "/dev/console"}]}})
    closed = tmp_path / "closed"
    closed.touch(mode=0)
    findings = doctor("--cdi-dir", path.parent, "lab.example/thing=one")
    assert all(row["fix"] or row["status"] == "ok" for row in findings["request"])


def test_the_driver_that_is_loaded_is_compared_with_the_specs(lab, tmp_path) -> None:
    """The version is in /proc, which an ordinary user can only cover in a namespace of his own."""
    proc = tmp_path / "driver" / "nvidia"
    proc.mkdir(parents=True)
    (proc / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.1.2  Mon\n")
    script = 'mount --bind "$1" /proc/driver && exec cdi-hpc doctor --format json'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "-", proc.parent]
    rows = json.loads(lab.run(command).stdout)
    (finding,) = [row for row in rows if row["check"] == "driver-version"]
    assert (finding["status"], finding["finding"]) == (
        "problem",
        "/etc/cdi/nvidia.yaml is for driver 570.133.20, loaded is 580.1.2",
    )


def test_a_cache_directory_that_is_somebody_elses_is_a_warning(doctor, tmp_path) -> None:
    plans = tmp_path / "run" / "cdi-hpc"
    plans.mkdir(parents=True)
    plans.chmod(0o755)
    (row,) = doctor(env={"XDG_RUNTIME_DIR": str(plans.parent)})["plan-cache"]
    assert row["status"] == "warning"
    assert str(plans) in row["finding"]


def test_a_tmpdir_that_is_not_there_is_a_warning(doctor) -> None:
    (row,) = doctor(env={"TMPDIR": "/nowhere"})["temporary-directory"]
    assert (row["status"], row["fix"]) == ("warning", "unset TMPDIR")


def test_a_launcher_that_does_not_answer_is_a_problem(doctor, tmp_path) -> None:
    program = tmp_path / "ch-run"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    findings = doctor(env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert findings["launchers"][0]["status"] == "problem"
    assert str(program) in findings["launchers"][0]["finding"]


def test_without_user_namespaces_the_setting_that_forbids_them_is_named(lab) -> None:
    """A limit of one's own namespace counts as the system's does (namespaces(7))."""
    script = "echo 0 >/proc/sys/user/max_user_namespaces && exec cdi-hpc doctor --format json"
    done = lab.run(["unshare", "--user", "--map-root-user", "sh", "-c", script])
    (row,) = [row for row in json.loads(done.stdout) if row["check"] == "user-namespaces"]
    assert done.returncode == 1
    assert (row["status"], row["fix"]) == (
        "problem",
        "ask the administrator for sysctl user.max_user_namespaces=15000",
    )


def test_a_configuration_that_is_wrong_is_a_problem_and_the_rest_is_looked_at(doctor, tmp_path) -> None:
    (tmp_path / "cdi-hpc").mkdir()
    (tmp_path / "cdi-hpc" / "config.yaml").write_text("no-such-key: 1\n")
    findings = doctor(env={"XDG_CONFIG_HOME": str(tmp_path)})
    (row,) = findings["configuration"]
    assert (findings["status"], row["status"]) == (1, "problem")
    assert f"{tmp_path}/cdi-hpc/config.yaml:1" in row["finding"]
    assert findings["spec-files"][0]["status"] == "ok"


def test_people_get_a_table_and_a_count(lab) -> None:
    done = lab.run(["cdi-hpc", "doctor"])
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["STATUS", "CHECK", "FINDING", "WHAT", "TO", "DO"]
    assert lines[-1].endswith(" ok")
    for number, word in re.findall(r"(\d+) (problem|warning|note)s?\b", lines[-1]):
        assert f"{number} {word}{'' if number == '1' else 's'}" in lines[-1].split(", ")


def test_an_image_that_is_none_is_a_problem(doctor, tmp_path) -> None:
    (tmp_path / "file").write_text("text")
    for image in (tmp_path / "file", tmp_path / "nothing"):
        findings = doctor("--image", image)
        assert findings["status"] == 1
        assert findings["image"][0]["status"] == "problem"
        assert str(image) in findings["image"][0]["finding"]


@pytest.mark.parametrize(
    "image, says",
    [("debian-root", "glibc; an ldconfig"), ("bare", "glibc; no ldconfig"), ("musl", "musl; no ldconfig")],
)
def test_an_image_is_described(doctor, lab, image, says) -> None:
    assert says in doctor("--image", lab.image(image), "nvidia.com/gpu=0")["image"][0]["finding"]


def test_the_drop_ins_of_a_package_are_named_to_who_types_the_launcher(tmp_path) -> None:
    """They are beside its runner; without them the command that makes them is named."""
    launcher, runner = tmp_path / "launchers/ch-run", tmp_path / "usr/bin/cdi-hpc-run"
    shims = tmp_path / "usr/lib/cdi-hpc/shims"
    for program in (launcher, runner):
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    question = Question(environ={"PATH": str(launcher.parent)}, runner=str(runner))
    (before,) = programs.drop_ins(question)
    assert before.fix.startswith("what 'cdi-hpc shims DIR' makes, first on the PATH; or 'cdi-hpc exec ch-run")
    shims.mkdir(parents=True)
    (shims / "ch-run").symlink_to("../../../bin/cdi-hpc-run")
    (after,) = programs.drop_ins(question)
    assert after.fix.startswith(f"{shims}, first on the PATH; ")


@pytest.mark.root
@pytest.mark.parametrize(
    "script, path, reason",
    [
        ("chmod 777 /etc/cdi", "/etc/cdi", "others than root can write to /etc/cdi (mode 777)"),
        ("chmod 666 /etc/cdi/a.yaml", "/etc/cdi/a.yaml", "others than root can write to /etc/cdi/a.yaml (mode 666)"),
        ("chown 1234 /etc/cdi/a.yaml", "/etc/cdi/a.yaml", "/etc/cdi/a.yaml belongs to user 1234, not to root"),
    ],
)
def test_specs_of_the_host_that_others_can_write_to_are_a_problem(lab, script, path, reason) -> None:
    status, rows = on_changed_host(lab, script)
    assert status == 1
    assert [(row["status"], row["finding"], row["fix"]) for row in rows if row["check"] == "spec-owners"] == [
        ("problem", reason, f"chown root {path}; chmod go-w {path}")
    ]


@pytest.mark.root
def test_specs_that_users_can_not_read_are_told_by_the_mode_that_each_needs(lab) -> None:
    _, rows = on_changed_host(lab, "chmod 600 /etc/cdi/a.yaml; chmod 700 /etc/cdi; ln -s nowhere /etc/cdi/b.yaml")
    assert [(row["finding"], row["fix"]) for row in rows if row["check"] == "spec-modes"] == [
        ("/etc/cdi can't be read by everybody", "chmod 755 /etc/cdi"),
        ("/etc/cdi/a.yaml can't be read by everybody", "chmod 644 /etc/cdi/a.yaml"),
    ]


def on_changed_host(lab, script: str) -> tuple[int, list[dict]]:
    """What root's doctor finds on a host with specs that a script has changed."""
    spec = "cdiVersion: 0.5.0\nkind: a.b/c\ndevices: [{name: d, containerEdits: {env: [A=b]}}]\n"
    prepare = f"mount -t tmpfs -o mode=755 cdi /etc/cdi; printf '{spec}' >/etc/cdi/a.yaml; chmod 644 /etc/cdi/a.yaml"
    doctor = "exec cdi-hpc doctor --format json"
    done = lab.run(["unshare", "--mount", "sh", "-euc", f"{prepare}; {script}; {doctor}"])
    return done.returncode, json.loads(done.stdout)
