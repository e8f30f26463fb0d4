"""Launchers in a step, called without options: they have the devices that were allocated, and once."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from slurm_site import PATH, Site, wait_until
from views import view

GPUS = "--cdi=nvidia.com/gpu"
TWO = "--gres=gpu:2"
EIGHT = "--gres=gpu:8"

HAS_APPTAINER = shutil.which("apptainer") is not None

#: The reference that has as many GPUs as a node of the cluster.
CASE = next(case for case in view.CASES if str(case) == "nvidia-dgxa100-570")

#: Name -> launcher and its words before the command, images with their names in the lab, and what the step is asked.
LAUNCHERS = {
    "cdi-hpc run": ("debian-root", ("cdi-hpc", "run", "{image}"), ()),
    "cdi-hpc run, file": ("debian.sqfs", ("cdi-hpc", "run", "{image}"), ()),
    "ch-run": ("debian-user", ("ch-run", "{image}", "--"), ()),
    "--cdi-image": ("debian-root", (), ("--cdi-image={image}",)),
    "--cdi-image, file": ("debian.sqfs", (), ("--cdi-image={image}",)),
    "mounts": ("", (), ("--cdi-mode=mounts",)),
}
if HAS_APPTAINER:
    LAUNCHERS["apptainer"] = ("debian.sif", ("apptainer", "exec", "{image}"), ())


@pytest.fixture(scope="module")
def shims(cluster, built) -> str:
    """A PATH with drop-ins on it."""
    _, runner = built
    directory = cluster.top / "home/shims"
    if not directory.exists():
        env = {"CDI_HPC_NATIVE": str(runner), "PATH": f"{runner.parent}:{PATH}"}
        done = cluster.run("cdi-hpc", "shims", str(directory), env=env)
        assert done.returncode == 0, done.stderr
    return f"{directory}:{runner.parent}:{PATH}"


def words(name: str, lab) -> tuple[list[str], list[str]]:
    """Words of the step, words before the command."""
    image, before, step = LAUNCHERS[name]
    place = str(lab.image(image)) if image else ""
    return [word.format(image=place) for word in step], [word.format(image=place) for word in before]


def on_each_node(site: Site, step: list[str], command: list[str], env: Mapping[str, str]) -> list[str]:
    """What a task on each node says; the step must succeed."""
    outputs = [site.top / f"home/said.{number}" for number in range(2)]
    for path in outputs:
        path.unlink(missing_ok=True)
    done = site.srun("-N2", "-n2", f"--output={site.top}/home/said.%t", *step, *command, env=env)
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in outputs if path.exists())
    return [path.read_text() for path in outputs]


@pytest.mark.parametrize("launcher", [*LAUNCHERS])
def test_every_fact_of_the_reference_holds_on_both_nodes(site, shims, lab, launcher):
    site.configure(cdi_dir=str(CASE.directory))
    step, before = words(launcher, lab)
    inside = view.INSIDE
    if launcher == "mounts":
        # The machine has no program to ask its loader with; it can see the lab's.
        inside = inside.replace("/opt/dlprobe", str(lab.root / "probe" / "dlprobe-glibc"))
    command = [*before, "sh", "-c", inside, "sh", *CASE.questions()]
    env = {"PATH": shims, "RESOLVE_LINKS": "yes"}
    for said in on_each_node(site, [EIGHT, f"--cdi={CASE.device}", *step], command, env):
        comparison = view.compare(CASE.wanted, CASE.normalise(said))
        assert sum(comparison.asked.values()) > 300
        assert [str(miss) for miss in comparison.misses] == []


@pytest.mark.parametrize("launcher", ["cdi-hpc run", "ch-run", "--cdi-image"])
def test_two_of_eight_are_what_was_allocated(site, shims, lab, launcher):
    step, before = words(launcher, lab)
    command = ["sh", "-c", 'echo "$CDI_HPC_DEVICES" "$NVIDIA_VISIBLE_DEVICES"; nvidia-smi']
    for said in on_each_node(site, [TWO, GPUS, *step], [*before, *command], {"PATH": shims}):
        wanted = "" if step else "nvidia.com/gpu=0,nvidia.com/gpu=1"
        assert said == f"{wanted} void\nnvidia-smi 570.133.20 of the lab\n"


def test_a_device_option_on_the_command_line_wins(site, shims, lab):
    image = str(lab.image("debian-root"))
    plan = 'for plan in $(ls -t "$XDG_RUNTIME_DIR"/cdi-hpc/*.plan); do grep -ac "/dev/nvidia5" "$plan"; break; done'
    runtime = site.top / "home/runtime"
    for number, option in enumerate(([], ["--device=nvidia.com/gpu=5"])):
        shutil.rmtree(runtime, ignore_errors=True)
        script = f'mkdir -m 700 "$XDG_RUNTIME_DIR"; cdi-hpc run "$@"; {plan}'
        argv = ["sh", "-c", script, "sh", *option, image, "nvidia-smi"]
        done = site.srun(TWO, GPUS, *argv, env={"PATH": shims, "XDG_RUNTIME_DIR": str(runtime)})
        assert done.stdout.splitlines()[:1] == ["nvidia-smi 570.133.20 of the lab"], done.stderr
        assert bool(int(done.stdout.splitlines()[1])) is bool(number)


def test_no_device_is_an_option_too(site, shims, lab):
    image = str(lab.image("debian-root"))
    done = site.srun(TWO, GPUS, "cdi-hpc", "run", "--device=none", image, "sh", "-c", "nvidia-smi", env={"PATH": shims})
    assert done.returncode == 127, done.stdout


# Launchers that know nothing of us -----------------------------------------------------------------------------------


def variables(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.split("\0") if "=" in line)


def test_launchers_find_binds_and_variables_in_their_environment(site):
    done = site.srun(TWO, GPUS, "env", "-0")
    found = variables(done.stdout)
    assert found["APPTAINERENV_NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "/usr/bin/nvidia-smi:/usr/bin/nvidia-smi:ro" in found["APPTAINER_BIND"].split(",")
    assert found["SINGULARITY_BIND"] == found["APPTAINER_BIND"]
    assert {path for path in found["APPTAINER_BIND"].split(",") if path.startswith("/dev/nvidia")} >= {
        "/dev/nvidia0:/dev/nvidia0",
        "/dev/nvidia1:/dev/nvidia1",
    }
    assert "/dev/nvidia2:/dev/nvidia2" not in found["APPTAINER_BIND"]
    assert "NVIDIA_VISIBLE_DEVICES" not in found


def test_what_the_user_has_in_such_a_variable_stays(site):
    own = {"APPTAINER_BIND": "/tmp:/mnt", "APPTAINERENV_NVIDIA_VISIBLE_DEVICES": "mine"}
    found = variables(site.srun(TWO, GPUS, "env", "-0", env=own).stdout)
    assert found["APPTAINER_BIND"].endswith(",/tmp:/mnt")
    assert found["APPTAINERENV_NVIDIA_VISIBLE_DEVICES"] == "mine"


#: What Apptainer reads by two names, with a value of the user's; it warns if the two say different things.
TWINS = {"{}_BIND": "/tmp:/mnt", "{}ENV_LD_LIBRARY_PATH": "/own/lib", "{}ENV_NVIDIA_VISIBLE_DEVICES": "mine"}


@pytest.mark.parametrize("prefix", ["APPTAINER", "SINGULARITY"])
@pytest.mark.parametrize("name", [*TWINS])
def test_both_names_of_a_variable_say_the_same(site, prefix, name):
    own = name.format(prefix)
    inner = "env -0; printf %s =bare=; srun --quiet --overlap -n1 --cdi=none env -0"
    done = site.srun("-n1", TWO, GPUS, "sh", "-c", inner, env={own: TWINS[name]})
    assert done.returncode == 0, done.stderr
    dressed, bare = map(variables, done.stdout.split("=bare="))
    assert dressed[name.format("APPTAINER")] == dressed[name.format("SINGULARITY")]
    assert dressed[own].endswith(TWINS[name])
    assert {key: bare[key] for key in bare if key.startswith(("APPTAINER", "SINGULARITY"))} == {own: TWINS[name]}


def test_two_names_that_the_user_has_given_two_values_keep_them(site):
    own = {"APPTAINER_BIND": "/tmp:/mnt", "SINGULARITY_BIND": "/tmp:/opt"}
    found = variables(site.srun(TWO, GPUS, "env", "-0", env=own).stdout)
    assert {name: found[name].rpartition(",")[2] for name in own} == own


@pytest.mark.parametrize("own", ["", "/tmp:/mnt"])
def test_a_drop_in_takes_them_back(site, shims, lab, own):
    image = str(lab.image("debian-user"))
    env = {"PATH": shims, **({"APPTAINER_BIND": own} if own else {})}
    done = site.srun(TWO, GPUS, "ch-run", image, "--", "env", "-0", env=env)
    assert done.returncode == 0, done.stderr
    found = variables(done.stdout)
    assert found.get("APPTAINER_BIND", "") == own
    assert not {name for name in found if name.startswith(("SINGULARITY", "APPTAINERENV", "CDI_HPC_HANDOFF"))}
    assert found["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_a_step_inside_a_step_takes_them_back(site):
    inner = f"srun --quiet --overlap -n1 --cdi=none env -0; echo --; srun --quiet --overlap -n1 {TWO} {GPUS} env -0"
    done = site.srun("-n1", TWO, GPUS, "sh", "-c", inner, env={"SINGULARITY_BIND": "/tmp:/mnt"})
    assert done.returncode == 0, done.stderr
    bare, _, dressed = done.stdout.partition("--\n")
    assert variables(bare)["SINGULARITY_BIND"] == "/tmp:/mnt"
    assert not [name for name in variables(bare) if name.startswith(("CDI_HPC", "APPTAINER"))]
    assert variables(dressed)["SINGULARITY_BIND"].count("/usr/bin/nvidia-smi:/usr/bin/nvidia-smi:ro") == 1
    assert variables(dressed)["SINGULARITY_BIND"].endswith(",/tmp:/mnt")


if HAS_APPTAINER:

    @pytest.mark.parametrize("image", ["debian.sif", "debian-root", "musl"])
    @pytest.mark.parametrize("options", [(), ("--containall",)])
    def test_apptainer_without_a_drop_in(site, lab, image, options):
        command = ["apptainer", "exec", *options, str(lab.image(image)), "sh", "-c"]
        script = "nvidia-smi; ls /dev/nvidia0 /dev/nvidia1; echo $NVIDIA_VISIBLE_DEVICES; /opt/dlprobe libcuda.so.1"
        for said in on_each_node(site, [TWO, GPUS], [*command, script], {}):
            lines = [line for line in said.splitlines() if not line.startswith(("INFO: ", "WARNING: Skipping mount"))]
            assert lines == [
                "nvidia-smi 570.133.20 of the lab",
                "/dev/nvidia0",
                "/dev/nvidia1",
                "void",
                "O libcuda.so.1 /.singularity.d/cdi-hpc/libcuda.so.1",
            ]

    def test_apptainer_through_a_drop_in_mounts_nothing_twice(site, shims, lab):
        command = ["apptainer", "exec", str(lab.image("debian.sif")), "cat", "/proc/self/mountinfo"]
        for said in on_each_node(site, [TWO, GPUS], command, {"PATH": shims}):
            places = [line.split()[4] for line in said.splitlines() if line[:1].isdigit()]
            assert places.count("/usr/bin/nvidia-smi") == 1
            assert not [place for place in places if place.startswith("/.singularity.d/cdi-hpc")]


def test_an_image_that_is_no_image(site):
    path = site.top / "home/no-image"
    path.write_bytes(os.urandom(5000))
    done = site.srun(TWO, GPUS, f"--cdi-image={path}", "echo", "RAN")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert "no-image" in done.stderr


def test_nothing_of_an_image_file_is_left_mounted(site, lab):
    assert site.srun("-N2", "-n8", TWO, GPUS, f"--cdi-image={lab.image('debian.sqfs')}", "true").returncode == 0
    assert wait_until(lambda: not serving(site))


def serving(site: Site) -> list[str]:
    """Processes that serve an image for a step of this cluster: no other has its files in the environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            own = str(site.lab).encode() in (process / "environ").read_bytes()
            if own and (process / "comm").read_text().startswith("squashfuse"):
                found.append(process.name)
    return found
