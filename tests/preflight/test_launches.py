"""Nothing starts with libraries that can't work, unless somebody says that it may."""

from __future__ import annotations

import json

import linked
import pytest
from linked import LIBRARIES

#: As of every launch that fails before its command.
FAILED = 125
MISFIT = f"libnew.so.1 needs GLIBC_2.99, the image has 2.36 ({LIBRARIES}/libc.so.6)"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """A device with a library that no glibc provides for, and one with nothing."""
    place = tmp_path_factory.mktemp("device")
    place.chmod(0o755)
    library = linked.library(place / "lib/libnew.so.1", {"libc.so.6": ["GLIBC_2.2.5", "GLIBC_2.99"]})
    mount = {"hostPath": str(library), "containerPath": f"{LIBRARIES}/libnew.so.1", "options": ["ro"]}
    document = {
        "cdiVersion": "0.6.0",
        "kind": "vendor.com/device",
        "devices": [
            {"name": "new", "containerEdits": {"mounts": [mount]}},
            {"name": "plain", "containerEdits": {"env": ["PLAIN=1"]}},
        ],
    }
    (place / "cdi").mkdir()
    (place / "cdi/vendor.json").write_text(json.dumps(document))
    return place / "cdi"


@pytest.fixture(params=["python", "native"])
def run(request, lab, spec, tmp_path):
    """``cdi-hpc run`` of a command that says that it ran; each test has a cache of its own."""
    tmp_path.chmod(0o700)

    def launch(*options, image="debian-root", device="new", **environ):
        argv = [
            "cdi-hpc",
            "run",
            "--runner",
            request.param,
            "--cdi-dir",
            spec,
            "--device",
            f"vendor.com/device={device}",
        ]
        env = {"XDG_RUNTIME_DIR": str(tmp_path), **environ}
        return lab.run([*argv, *options, lab.image(image), "sh", "-c", "echo ran"], env=env)

    return launch


def test_the_command_does_not_start(run):
    for _ in range(2):  # a refusal is not kept: the next launch looks again
        done = run()
        assert (done.returncode, done.stdout) == (FAILED, "")
        advice = "take an image with newer libraries, or --preflight=warn"
        assert done.stderr == f"cdi-hpc: error: {MISFIT} ({advice})\n"


@pytest.mark.parametrize("image", ["debian.sqfs", "debian.sif"])
def test_nor_in_an_image_that_is_a_file(run, image):
    done = run(image=image)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert MISFIT in done.stderr


def test_as_a_warning_it_is_told_each_time(run):
    for _ in range(2):
        done = run("--preflight", "warn")
        assert (done.returncode, done.stdout) == (0, "ran\n")
        assert done.stderr == f"cdi-hpc: warning: {MISFIT}\n"


def test_the_environment_can_say_it_too(run):
    assert run(CDI_HPC_PREFLIGHT="warn").stdout == "ran\n"
    assert run(CDI_HPC_PREFLIGHT="fail").returncode == FAILED
    assert run("--preflight=warn", CDI_HPC_PREFLIGHT="fail").stdout == "ran\n"


def test_nobody_looks_if_nobody_wants_to_know(run):
    done = run("--preflight=off")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


def test_a_device_without_libraries_is_none_of_its_business(run):
    done = run(device="plain")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


def test_a_plan_tells_it_and_fails_as_the_launch_would(lab, spec):
    argv = ["cdi-hpc", "plan", "--cdi-dir", spec, "vendor.com/device=new", "--image", lab.image("debian-root")]
    done = lab.run(argv)
    assert done.returncode == 1
    assert done.stderr == f"cdi-hpc: warning: {MISFIT}\n"
    told = json.loads(lab.run([*argv, "--format", "json"]).stdout)
    assert told["messages"] == [MISFIT]


@pytest.mark.parametrize("image", ["debian-user", "debian.sqfs"])
def test_a_launcher_of_somebody_else_is_not_started(lab, spec, tmp_path, image):
    tmp_path.chmod(0o700)
    argv = ["cdi-hpc", "exec", "ch-run", "--cdi-dirs", spec, "--device", "vendor.com/device=new", lab.image(image)]
    argv += ["--", "sh", "-c", "echo ran"]
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = lab.run(argv, env=env)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert MISFIT in done.stderr
    done = lab.run(argv, env={**env, "CDI_HPC_PREFLIGHT": "warn"})
    assert MISFIT in done.stderr
    if image == "debian-user":  # ch-run 0.31 takes no files
        assert (done.returncode, done.stdout) == (0, "ran\n")
