"""Lock files: a launch that would differ is found, and one that would not is left in peace."""

from __future__ import annotations

import json
import os
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
    return lambda *arguments, **kept: lab.run(["cdi-hpc", "lock", "--cdi-dir", spec.parent, *arguments], **kept)


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


def test_a_fifo_in_its_place_holds_nobody_up(locking, launch, tmp_path) -> None:
    fifo = tmp_path / "job.lock"
    os.mkfifo(fifo)
    said = f"{fifo}: is no regular file"
    for done in (locking("--check", fifo), launch("--lock", fifo)):
        assert (done.returncode in (1, 125), said in done.stderr) == (True, True), done.stderr


def test_another_driver_is_a_difference() -> None:
    (_, line) = differences(lock(drivers={"nvidia": "570.1"}), lock(drivers={"nvidia": "580.2"}), "l")
    assert line.what == "driver nvidia: locked is 570.1, here is 580.2"


def test_a_lock_of_a_lock_file_or_a_spec_file_is_good_in_every_directory(locking, launch, job, spec, tmp_path) -> None:
    here = job.parent
    for name, wanted in (("b", "./job.lock"), ("c", "./cdi/thing.yaml"), ("d", "job.lock")):
        done = locking(wanted, cwd=here)
        assert done.returncode == 0, done.stderr
        made = tmp_path / f"{name}.lock"
        made.write_text(done.stdout)
        (asked,) = json.loads(done.stdout)["request"]
        assert asked == (str(spec) if name == "c" else "lab.example/thing=one")
        done = launch("--lock", made, cwd="/")
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_device_beside_a_lock_file_is_none(launch, spec, tmp_path) -> None:
    """They are of one list, and in one order."""
    for words in (["-dlab.example/thing=one"], ["--device", spec], ["--device=lab.example/thing=one", f"-d{spec}"]):
        done = launch(*words)
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    done = launch("-dlab.example/thing=one", "--lock", "job.txt")
    assert "option --lock: 'job.txt' is not" in done.stderr


def test_a_path_is_a_lock_file_whatever_is_in_it(launch, job, tmp_path) -> None:
    odd = tmp_path / "run=3,4" / "a=b.lock"
    odd.parent.mkdir()
    odd.write_text(job.read_text())
    for option in ("--lock", "--device"):
        done = launch(option, odd)
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.parametrize("name", ["job.txt", "/etc/passwd", "lab.example/thing=one", "x=1.lock", ""])
def test_a_lock_file_that_could_not_be_told_from_a_device_is_refused_by_its_name(launch, name) -> None:
    done = launch(f"--lock={name}")
    said = f"{name!r} is not the name of a lock file, which ends in '.lock' (rename the file)"
    assert (done.returncode, done.stdout, said in done.stderr) == (125, "", True), done.stderr


@pytest.mark.parametrize("command", ["plan", "resolve", "explain --for embedded", "script", "doctor"])
def test_every_command_that_takes_devices_takes_a_lock_file(command, lab, job, spec) -> None:
    words = [*command.split(), "--cdi-dir", spec.parent, job]
    done = lab.run(["cdi-hpc", *words])
    assert "A=1" in done.stdout or "can be opened" in done.stdout, done.stderr
    write(spec, {"env": ["A=2"], "deviceNodes": [{"path": "/dev/null"}]})
    done = lab.run(["cdi-hpc", *words])
    assert (done.returncode, "this launch is not the one that was locked" in done.stdout + done.stderr) == (1, True)


def test_the_order_of_edits_is_part_of_them() -> None:
    (_, line) = differences(lock(edits={"env": ["A=1", "B=2"]}), lock(edits={"env": ["B=2", "A=1"]}), "l")
    assert line.what == "env: in another order, or another number of times"


def hook(*links: str, path: str = "/usr/bin/nvidia-cdi-hook") -> dict:
    args = ["nvidia-cdi-hook", "create-symlinks", *(word for link in links for word in ("--link", link))]
    return {"hookName": "createContainer", "path": path, "args": args}


LINKS = [f"libnvidia-{name * 10}.so.1::/usr/lib/x86_64-linux-gnu/libnvidia-{name * 10}.so" for name in "abcdefgh"]


def test_of_a_long_edit_the_part_is_shown_that_is_another_one() -> None:
    """The usual upgrade of a driver: one link of many."""
    before, after = (hook(*LINKS, f"libcuda.so.{version}::/usr/lib/libcuda.so") for version in (570, 580))
    _, *lines = differences(lock(edits={"hooks": [before]}), lock(edits={"hooks": [after]}), "l")
    name = "hooks: createContainer /usr/bin/nvidia-cdi-hook create-symlinks: args"
    assert [line.what for line in lines] == [
        f'{name}: not here: "libcuda.so.570::/usr/lib/libcuda.so"',
        f'{name}: not locked: "libcuda.so.580::/usr/lib/libcuda.so"',
    ]


def test_edits_of_another_name_are_held_against_each_other_where_they_differ() -> None:
    before, after = hook(*LINKS), hook(*LINKS, path="/usr/bin/nvidia-ctk")
    _, gone, new = differences(lock(edits={"hooks": [before]}), lock(edits={"hooks": [after]}), "l")
    assert gone.what.startswith("hooks: not here: …")
    assert gone.what.endswith('"path": "/usr/bin/nvidia-cdi-hook"}')
    assert new.what.endswith('"path": "/usr/bin/nvidia-ctk"}')


def test_a_long_text_is_shown_from_where_it_differs() -> None:
    same = "A=" + "x" * 5000
    _, gone, new = differences(lock(edits={"env": [f"{same}1"]}), lock(edits={"env": [f"{same}2"]}), "l")
    assert (gone.what[-3:], new.what[-3:]) == ('x1"', 'x2"')
    assert len(gone.what) < 400


def test_each_field_of_a_mount_is_shown() -> None:
    mount = {"hostPath": "/a", "containerPath": "/lib/x", "options": ["ro", "nosuid", "bind"]}
    other = {**mount, "hostPath": "/b", "options": ["ro", "nosuid", "rbind"]}
    _, *lines = differences(lock(edits={"mounts": [mount]}), lock(edits={"mounts": [other]}), "l")
    assert [line.what for line in lines] == [
        'mounts: /lib/x: hostPath: locked is "/a", here is "/b"',
        'mounts: /lib/x: options: not here: "bind"',
        'mounts: /lib/x: options: not locked: "rbind"',
    ]


def test_many_differences_are_counted() -> None:
    found = differences(lock(), lock(edits={"env": [f"A{n}=1" for n in range(100)]}), "l")
    assert (len(found), found[-1].what) == (22, "and 80 more")


_VALUES = st.text(max_size=3) | st.dictionaries(
    st.sampled_from(["path", "args", "hookName", "x"]), st.none() | st.lists(st.sampled_from("ab"), max_size=3)
)
_EDITS = st.fixed_dictionaries(
    {name: st.lists(_VALUES, max_size=3) for name in NAMES} | {"intelRdt": st.none() | st.just({"closID": "x"})}
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
