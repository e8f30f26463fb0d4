"""Lock files: a launch that would differ is found, and one that would not is left in peace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.errors import CdiError
from cdi_hpc.resolve.lock import Lock, differences, read_lock

NAMES = ("devices", "env", "deviceNodes", "netDevices", "mounts", "hooks", "additionalGids")
NOTHING = {**{name: [] for name in NAMES}, "intelRdt": None}


def lock(**changes) -> Lock:
    return Lock(
        ("a/b=c",), {**NOTHING, **changes.pop("edits", {})}, changes.pop("specs", {}), changes.pop("drivers", {})
    )


@pytest.fixture
def spec(tmp_path) -> Path:
    path = tmp_path / "cdi" / "thing.yaml"
    path.parent.mkdir()
    write(path, {"env": ["A=1"], "deviceNodes": [{"path": "/dev/null"}]})
    return path


def write(path: Path, edits: dict, comment: str = "") -> None:
    device = {"name": "one", "containerEdits": edits}
    path.write_text(comment + yaml.safe_dump({"cdiVersion": "0.5.0", "kind": "lab.example/thing", "devices": [device]}))


@pytest.fixture
def locking(lab, spec) -> Callable[..., subprocess.CompletedProcess]:
    return lambda *arguments: lab.run(["cdi-hpc", "lock", "--cdi-dir", spec.parent, *arguments])


@pytest.fixture
def job(locking, tmp_path) -> Path:
    done = locking("lab.example/thing=one")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "job.lock"
    path.write_text(done.stdout)
    return path


def test_a_lock_file_holds_the_request_its_edits_and_where_they_are_from(job, spec) -> None:
    value = json.loads(job.read_text())
    assert value["request"] == ["lab.example/thing=one"]
    assert value["edits"]["devices"] == ["lab.example/thing=one"]
    assert value["edits"]["env"] == ["A=1"]
    assert [*value["specs"]] == [str(spec)]


def test_the_same_specs_are_no_difference_even_if_they_were_written_anew(locking, job, spec) -> None:
    assert locking("--check", job).returncode == 0
    write(spec, {"env": ["A=1"], "deviceNodes": [{"path": "/dev/null"}]}, comment="# another day\n")
    done = locking("--check", job)
    assert (done.returncode, done.stderr) == (0, "")


def test_other_edits_are_shown_with_the_file_that_changed(locking, job, spec) -> None:
    write(spec, {"env": ["A=2"], "deviceNodes": [{"path": "/dev/null"}]})
    done = locking("--check", job)
    assert done.returncode == 1
    because, fix = f"{spec} changed since", "make the lock again with cdi-hpc lock if this is what you want"
    assert done.stderr.splitlines() == [
        f"cdi-hpc: error: {job}: this launch is not the one that was locked ({because}) ({fix})",
        f'cdi-hpc: error: {job}: env: not here: "A=1"',
        f'cdi-hpc: error: {job}: env: not locked: "A=2"',
    ]


def test_a_device_that_has_gone_is_an_error_of_its_own(locking, job, spec) -> None:
    spec.unlink()
    done = locking("--check", job)
    assert (done.returncode, "lab.example/thing" in done.stderr) == (1, True)


@pytest.mark.parametrize("arguments", [(), ("--check", "x", "a/b=c")])
def test_devices_or_a_file_have_to_be_given(locking, arguments) -> None:
    assert locking(*arguments).returncode == 2


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "no lock file: Expecting value"),
        ("[]", "[] is not of type 'object'"),
        ('{"lockVersion": 2}', "lockVersion: 1 was expected"),
        ("[" * 100_000, "no lock file: "),
    ],
)
def test_a_file_that_is_no_lock_is_refused(tmp_path, text, said) -> None:
    path = tmp_path / "wrong.lock"
    path.write_text(text)
    with pytest.raises(CdiError) as caught:
        read_lock(str(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(CdiError, match=r"/nowhere\.lock: No such file"):
        read_lock("/nowhere.lock")


def test_another_driver_is_a_difference() -> None:
    (_, line) = differences(lock(drivers={"nvidia": "570.1"}), lock(drivers={"nvidia": "580.2"}), "l")
    assert line.what == "driver nvidia: locked is 570.1, here is 580.2"


def test_the_order_of_edits_is_part_of_them() -> None:
    (_, line) = differences(lock(edits={"env": ["A=1", "B=2"]}), lock(edits={"env": ["B=2", "A=1"]}), "l")
    assert line.what == "env: in another order, or another number of times"


def test_many_differences_are_counted() -> None:
    found = differences(lock(), lock(edits={"env": [f"A{n}=1" for n in range(100)]}), "l")
    assert (len(found), found[-1].what) == (22, "and 80 more")


_EDITS = st.fixed_dictionaries(
    {name: st.lists(st.text(max_size=3), max_size=3) for name in NAMES}
    | {"intelRdt": st.none() | st.just({"closID": "x"})}
)


@given(_EDITS, _EDITS)
def test_there_are_differences_if_and_only_if_the_edits_differ(before, after) -> None:
    assert bool(differences(lock(edits=before), lock(edits=after), "l")) == (before != after)
    assert differences(lock(edits=before), lock(edits=before), "l") == []


# Launches -------------------------------------------------------------------------------------------------------------

RUNNER = Path(__file__).parents[2] / "native/build/cdi-hpc-run"


@pytest.fixture(params=["python", "native", "exec"])
def launch(request, lab, spec) -> Callable[..., subprocess.CompletedProcess]:
    """A launch with a lock file, by each way of ours and by a launcher."""
    image = lab.image("debian-root")
    front = lab.run(["sh", "-c", "command -v cdi-hpc"]).stdout.strip()
    ways = {
        "python": (["cdi-hpc", "run", "--runner=python", "--cdi-dir", spec.parent], []),
        "native": ([RUNNER, "--cdi-dir", spec.parent], []),
        "exec": (["cdi-hpc", "exec", "ch-run", f"--cdi-dirs={spec.parent}"], ["--"]),
    }
    before, after = ways[request.param]
    env = {"CDI_HPC_PYTHON_FRONT": front}
    return lambda *options, **kept: lab.run([*before, *options, image, *after, "printenv", "A"], env=env, **kept)


def test_a_launch_with_a_lock_file_has_its_devices(launch, job) -> None:
    for _ in range(2):  # the second one may have a plan
        done = launch("--lock", job)
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_launch_that_would_differ_is_stopped_and_one_with_more_devices_differs(launch, job, spec) -> None:
    assert launch("--lock", job).returncode == 0
    write(spec, {"env": ["A=2"], "deviceNodes": [{"path": "/dev/null"}]})
    done = launch("--lock", job)
    assert (done.returncode, done.stdout) == (125, "")
    assert f'{job}: env: not locked: "A=2"' in done.stderr
    write(spec, {"env": ["A=1"], "deviceNodes": [{"path": "/dev/null"}]})
    assert launch("--lock", job).returncode == 0
    other = spec.with_name("other.yaml")
    other.write_text(spec.read_text().replace("lab.example/thing", "lab.example/other"))
    assert launch("--lock", job, "--device", "lab.example/other=one").returncode == 125


def test_another_lock_file_of_the_same_relative_name_is_another_launch(launch, job, spec, tmp_path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        directory.mkdir()
    (here / "job.lock").write_text(job.read_text())
    assert launch("--lock", "job.lock", cwd=here).returncode == 0
    done = launch("--lock", "job.lock", cwd=there)
    assert (done.returncode, "job.lock: No such file" in done.stderr) == (125, True)
