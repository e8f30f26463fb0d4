"""Edits and plans for rules to judge, and the site's rules as a file has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from fake_host import FakeHost, host
from site_files import site

from cdi_hpc.errors import CdiError
from cdi_hpc.plan import Plan
from cdi_hpc.site.policy import Identity, Policy, enforce
from cdi_hpc.spec.edits import merge
from cdi_hpc.spec.model import ContainerEdits, Device, DeviceNode, Hook, Mount, ResolvedEdits, Spec
from cdi_hpc.spec.registry import RegisteredDevice
from cdi_hpc.translation.translate import translate

USERS = {"alice": 1000, "bob": 1001, "toor": 1000}
GROUPS = {"fpga": 500, "staff": 50}
ALICE = Identity(1000, frozenset({1000, 500}), USERS.get, GROUPS.get)
BOB = Identity(1001, frozenset({1001, 50}), USERS.get, GROUPS.get)

#: A host with what the cases mount; ``/scratch/link`` leads to /etc, ``/scratch/shadow`` to /etc/shadow.
HOST = host(
    {
        "/etc": "d",
        "/etc/shadow": "f",
        "/etc/passwd": "f",
        "/opt": "d",
        "/opt/lib": "d",
        "/opt/lib/x.so": "f",
        "/": "d",
        "/scratch": "d",
        "/scratch/link": "d real=/etc",
        "/scratch/shadow": "f real=/etc/shadow",
        "/scratch/../etc/shadow": "f real=/etc/shadow",
        "//etc//shadow": "f real=/etc/shadow",
        "/etc/./shadow": "f real=/etc/shadow",
        "/dev/nvidia0": "c 195:0",
        "/dev/sda": "b 8:0",
    }
)


def policy(**rules: Any) -> Policy:
    """The policy of a site: ``policy(kinds=[{"deny": "a/b"}])``; a mapping has its own default."""
    lists = {
        name.replace("_", "-"): value if isinstance(value, dict) else {"rules": value} for name, value in rules.items()
    }
    return site(yaml.safe_dump({"policy": lists})).policy or Policy()


def spec(kind: str = "nvidia.com/gpu", name: str = "1", path: str = "/etc/cdi/x.yaml", **edits: Any) -> Spec:
    """A spec with one device that has these edits; with an empty name, its edits are the spec's."""
    own = ContainerEdits(**edits)
    if not name:
        return Spec("0.8.0", kind, container_edits=own, path=path)
    return Spec("0.8.0", kind, (Device(name, container_edits=own),), path=path)


def mount(source: str, target: str = "/x") -> dict[str, Any]:
    """Edits with one mount."""
    return {"mounts": (Mount(source, target),)}


def node(path: str, host_path: str = "") -> dict[str, Any]:
    """Edits with one device node."""
    return {"device_nodes": (DeviceNode(path, host_path),)}


def link(path: str) -> dict[str, Any]:
    """Edits with a hook that makes a link."""
    argv = ("nvidia-cdi-hook", "create-symlinks", "--link", f"/target::{path}")
    return {"hooks": (Hook("createContainer", "/usr/bin/nvidia-cdi-hook", argv),)}


def planned(asked: Spec, there: FakeHost = HOST) -> tuple[ResolvedEdits, Plan]:
    """A spec's edits and the plan for them."""
    edits = merge([RegisteredDevice(asked, 0 if asked.devices else None)])
    return edits, translate(edits, there)


def refusals(
    rules: Policy, asked: Spec, who: Identity | None = ALICE, spec_paths: Mapping[str, str] | None = None
) -> list[str]:
    """What a user is told who asks for the spec's device; empty if nothing is refused."""
    edits, plan = planned(asked)
    try:
        enforce(rules, edits, plan, who, spec_paths)
    except CdiError as error:
        return [str(problem) for problem in error.problems]
    return []
