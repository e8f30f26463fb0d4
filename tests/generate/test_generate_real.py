"""Recipes on machines that umockdev pretends: real udev and sysfs lookups, by an ordinary user."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import mocked
import pytest
import yaml
from mocked import Mocked

from cdi_hpc.generate.recipe import load_recipes

Generate = Callable[..., subprocess.CompletedProcess]

#: /proc can't be mocked, but covered.
ON_MACHINE = """
mount -t tmpfs -o mode=755 driver /proc/driver
cp -r "$1/." /proc/driver
shift
exec umockdev-run "$@"
"""


@pytest.fixture
def on(lab, tmp_path) -> Generate:
    """Run a command on a machine: ``on(machine, "cdi-hpc", "generate")``."""

    def run(machine: Mocked, *command: str | Path) -> subprocess.CompletedProcess:
        description, proc = tmp_path / "machine.umockdev", tmp_path / "proc"
        description.write_text(machine.description)
        proc.mkdir(exist_ok=True)
        for name, text in machine.proc.items():
            (proc / name).parent.mkdir(parents=True, exist_ok=True)
            (proc / name).write_text(text)
        namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
        return lab.run([*namespaces, "bash", "-euc", ON_MACHINE, "-", proc, "--device", description, "--", *command])

    return run


def spec_of(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return yaml.safe_load(done.stdout)


def nodes_of(spec: dict) -> dict[str, list[str]]:
    return {
        device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]] for device in spec["devices"]
    }


def test_amd_gpus_have_their_nodes_by_pci_device_and_all_is_all_of_them(on) -> None:
    spec = spec_of(on(mocked.amd(), "cdi-hpc", "generate", "amd"))
    first, second = ["/dev/dri/renderD129", "/dev/dri/card2"], ["/dev/dri/renderD128", "/dev/dri/card1"]
    assert spec["kind"] == "amd.com/gpu"
    assert nodes_of(spec) == {
        "0": first,
        "0000:41:00.0": first,
        "1": second,
        "0000:c1:00.0": second,
        "all": [*first, *second],
    }
    assert spec["containerEdits"]["deviceNodes"] == [{"path": "/dev/kfd"}]
    mounts = spec["devices"][0]["containerEdits"]["mounts"]
    assert [mount["containerPath"] for mount in mounts] == [
        "/dev/dri/by-path/pci-0000:41:00.0-card",
        "/dev/dri/by-path/pci-0000:41:00.0-render",
    ]


def test_intel_gpus_of_either_driver_are_named_after_their_card(on) -> None:
    spec = spec_of(on(mocked.intel(), "cdi-hpc", "generate", "intel-gpu"))
    assert [*nodes_of(spec)] == ["card0", "0000:03:00.0", "card1", "0000:0f:00.0", "all"]
    assert nodes_of(spec)["card1"] == ["/dev/dri/card1", "/dev/dri/renderD129"]


def test_a_gaudi_has_its_accelerator_its_control_node_and_its_verbs(on) -> None:
    spec = spec_of(on(mocked.gaudi(), "cdi-hpc", "generate", "gaudi"))
    assert nodes_of(spec)["accel1"] == [
        "/dev/accel/accel1",
        "/dev/accel/accel_controlD1",
        "/dev/infiniband/uverbs1",
    ]


def test_adapters_are_named_by_rdma_device_and_by_pci_address(on) -> None:
    spec = spec_of(on(mocked.infiniband(), "cdi-hpc", "generate", "infiniband"))
    nodes = nodes_of(spec)
    assert [*nodes] == ["mlx5_0", "0000:17:00.0", "mlx5_1", "0000:17:00.1", "rxe0", "all"]
    assert nodes["mlx5_1"] == ["/dev/infiniband/uverbs1", "/dev/infiniband/umad1", "/dev/infiniband/issm1"]
    assert nodes["rxe0"] == ["/dev/infiniband/uverbs2"]
    assert spec["containerEdits"]["deviceNodes"] == [{"path": "/dev/infiniband/rdma_cm"}]


def test_nvidia_gpus_go_by_minor_and_uuid_and_mig_instances_have_their_capabilities(on) -> None:
    spec = spec_of(on(mocked.nvidia(), "cdi-hpc", "generate", "nvidia"))
    nodes = nodes_of(spec)
    assert nodes["0"] == ["/dev/nvidia0"]
    assert nodes["GPU-00000000-0000-4000-8000-000000000001"] == ["/dev/nvidia1"]
    assert nodes["1:gi3:ci0"] == ["/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap30", "/dev/nvidia-caps/nvidia-cap31"]
    assert "2" not in nodes  # the one that the nvidia driver does not have
    common = spec["containerEdits"]
    assert [node["path"] for node in common["deviceNodes"]] == [
        "/dev/nvidia-modeset",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
        "/dev/nvidiactl",
    ]


def test_the_drivers_files_and_links_are_those_that_a_vendors_spec_has(on, lab) -> None:
    made = spec_of(on(mocked.nvidia(), "cdi-hpc", "generate", "nvidia"))["containerEdits"]
    vendors = yaml.safe_load(Path("/etc/cdi/nvidia.yaml").read_text())["containerEdits"]
    theirs = {Path(mount["hostPath"]).resolve() for mount in vendors["mounts"]}
    # The lab's host has no socket of the persistence daemon and none of the fabric manager.
    theirs = {path for path in theirs if path.is_file()}
    ours = {Path(mount["hostPath"]).resolve() for mount in made["mounts"]}
    assert theirs - ours == set()
    links = {name: hook["args"] for hook in made["hooks"] for name in [hook["args"][1]]}["create-symlinks"]
    assert "libcuda.so.570.133.20::/usr/lib/x86_64-linux-gnu/libcuda.so.1" in links
    assert "libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so" in links
    assert "../libnvidia-allocator.so.570.133.20::/usr/lib/x86_64-linux-gnu/gbm/nvidia-drm_gbm.so" in links


@pytest.mark.parametrize(
    "recipe, kind, devices",
    [
        ("slingshot", "hpe.com/cxi", ["cxi0", "cxi1", "all"]),
        ("xpmem", "openucx.org/xpmem", ["0", "all"]),
        ("knem", "inria.fr/knem", ["0", "all"]),
        ("gdrcopy", "nvidia.com/gdrcopy", ["0", "all"]),
        ("fuse", "kernel.org/fuse", ["0", "all"]),
        ("kvm", "kernel.org/kvm", ["0", "all"]),
        ("nvidia-imex", "nvidia.com/imex-channel", ["0", "1", "all"]),
    ],
)
def test_single_nodes_are_found_by_their_path(on, recipe, kind, devices) -> None:
    spec = spec_of(on(mocked.fabrics(), "cdi-hpc", "generate", recipe))
    assert (spec["kind"], [*nodes_of(spec)]) == (kind, devices)


MACHINES = {
    "amd": mocked.amd,
    "intel": mocked.intel,
    "gaudi": mocked.gaudi,
    "infiniband": mocked.infiniband,
    "nvidia": mocked.nvidia,
    "fabrics": mocked.fabrics,
}


#: Where the devices of a recipe are. A recipe that is not here fails the test.
AT = {
    **dict.fromkeys(("gdrcopy", "knem", "kvm", "fuse", "nvidia-imex", "slingshot", "xpmem"), mocked.fabrics),
    "amd": mocked.amd,
    "gaudi": mocked.gaudi,
    "infiniband": mocked.infiniband,
    "intel-gpu": mocked.intel,
    "nvidia": mocked.nvidia,
    "frobnicator": mocked.fabrics,
}

#: A site's recipe where sites have them: /etc as it is, and that, in a user's own view.
SITES = """
mkdir -p /tmp/etc/cdi-hpc/recipes.d
cat >/tmp/etc/cdi-hpc/recipes.d/frobnicator.yaml <<'YAML'
kind: site.example/frobnicator
summary: nodes of a module of the site's own
devices:
  - each: {path: "/dev/cxi[0-9]*"}
    names: ["{name}", "frob{index}"]
    nodes: [{path: "{path}", required: true}]
    env: ["FROB_{index}={name}"]
YAML
mount -t overlay -o lowerdir=/tmp/etc:/etc overlay /etc
exec "$@"
"""


#: The planner looks at /dev by descriptors, past umockdev: there, nodes that are others under these names.
WITH_NODES = """
count=$1
shift
exec 3</dev/zero
mount -t tmpfs dev /dev
for node in "${@:1:count}"; do
    mkdir -p "${node%/*}"
    : >"$node"
    mount --no-canonicalize --bind /proc/self/fd/3 "$node"
done
exec "${@:count+1}"
"""


def below_dev(spec: Path) -> set[str]:
    """The device nodes of a spec, and the links to some that are mounts there."""
    value = yaml.safe_load(spec.read_text())
    edits = [part.get("containerEdits", {}) for part in (value, *value["devices"])]
    nodes = {node["path"] for each in edits for node in each.get("deviceNodes", [])}
    return nodes | {
        m["hostPath"] for each in edits for m in each.get("mounts", []) if m["hostPath"].startswith("/dev/")
    }


@pytest.mark.parametrize("recipe", [*load_recipes(), "frobnicator"])
def test_what_each_recipe_makes_is_valid_for_the_reference_resolves_and_is_planned(on, lab, tmp_path, recipe) -> None:
    specs, machine = tmp_path / "specs", AT[recipe]()
    generate = ("cdi-hpc", "generate", recipe, "--format", "json", "--output", specs)
    done = on(machine, "bash", "-euc", SITES, "-", *generate)
    assert (done.returncode, done.stderr) == (0, "")
    [stored] = json.loads(done.stdout)
    devices = [f"{stored['kind']}={device}" for device in stored["devices"]]
    assert len(devices) > 1
    for question in (("validate", "--strict", specs), ("resolve", "--strict", "--cdi-dir", specs, *devices)):
        answer = lab.run(["cdi-hpc", *question])
        assert (answer.returncode, answer.stderr) == (0, "")
    asked = json.dumps({"dirs": [str(specs)], "devices": []})
    reference = json.loads(lab.run([lab.oracle], stdin=asked + "\n").stdout.splitlines()[1])
    assert (sorted(reference["devices"]), reference["errors"], reference["panic"]) == (sorted(devices), {}, "")
    plan = ("cdi-hpc", "plan", "--format", "json", "--cdi-dir", specs, *devices)
    nodes = below_dev(next(specs.iterdir()))
    alone = ("unshare", "--user", "--map-root-user", "--mount", "bash", "-euc", WITH_NODES, "-", str(len(nodes)))
    planned = lab.run([*alone, *nodes, *plan])
    assert (planned.returncode, planned.stderr) == (0, "")
    told = [(action["action"], action.get("target", "")) for action in json.loads(planned.stdout)["actions"]]
    assert {place for action, place in told if action == "Bind"} >= nodes
    assert "Unsupported" not in {action for action, _ in told}


@pytest.mark.parametrize("name", MACHINES)
def test_the_same_machine_gives_the_same_bytes(on, tmp_path, name) -> None:
    script = 'cdi-hpc generate --output "$1" >/dev/null && cat "$1"/*'
    first, second = (on(MACHINES[name](), "sh", "-c", script, "-", tmp_path / made).stdout for made in ("1", "2"))
    assert first == second != ""


def test_each_spec_names_the_oldest_version_that_has_all_it_uses(on) -> None:
    assert (
        spec_of(on(mocked.amd(), "cdi-hpc", "generate", "amd"))["cdiVersion"] == "0.5.0"
    )  # names that begin with a digit
    assert spec_of(on(mocked.intel(), "cdi-hpc", "generate", "intel-gpu"))["cdiVersion"] == "0.5.0"
    assert spec_of(on(mocked.gaudi(), "cdi-hpc", "generate", "gaudi"))["cdiVersion"] == "0.5.0"
    rule = "{each: {path: /dev/fuse}, names: [x], nodes: [{path: '{path}'}]}"
    recipe = f"{{kind: a.example/b, summary: none, devices: [{rule}]}}"
    made = on(
        mocked.fabrics(),
        "sh",
        "-c",
        f'mkdir "$0" && echo "{recipe}" >"$0/b.yaml" && cdi-hpc generate --recipe-dir "$0" b',
        "/tmp/recipes",
    )
    assert spec_of(made)["cdiVersion"] == "0.3.0"


def test_watching_writes_what_is_plugged_in_and_removes_what_is_plugged_out(lab, tmp_path) -> None:
    """Events as udev's library hears them, by an ordinary user."""
    spec = tmp_path / "specs/amd.com-gpu.yaml"
    steps, gpus = [], []
    for address, minor in (("0000:41:00.0", 128), ("0000:c1:00.0", 129)):
        machine = Mocked()
        gpus.append(machine.pci(address, "amdgpu", "0x1002", "0x038000"))
        machine.node(f"{gpus[-1]}/drm/renderD{minor}", "drm", f"dri/renderD{minor}")
        steps.append({"plug": machine.description, "event": gpus[-1], "until": address})
    steps.append(
        {
            "unplug": gpus[0],
            "until": "name: '0'\n  containerEdits:\n    deviceNodes:\n    - path: /dev/dri/renderD129\n",
        }
    )
    steps.append({"unplug": gpus[1], "until": None})
    plugging = ["umockdev-wrapper", "python", Path(__file__).with_name("plugging.py"), spec]
    watching = ["cdi-hpc", "generate", "amd", "--watch", "--output", spec.parent]
    done = lab.run([*plugging, *watching], stdin=json.dumps(steps))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    names = [[*nodes_of(yaml.safe_load(text))] if text else [] for text in answer["seen"]]
    both = ["0", "0000:41:00.0", "1", "0000:c1:00.0", "all"]
    assert (names, answer["status"]) == ([["0", "0000:41:00.0", "all"], both, ["0", "0000:c1:00.0", "all"], []], 0)
