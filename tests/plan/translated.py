"""From merged edits to a plan, on hosts made of tables: what the tests of it share."""

from __future__ import annotations

from typing import Any

from fake_host import FakeHost

from cdi_hpc.plan import (
    Action,
    Note,
    Plan,
    Unsupported,
)
from cdi_hpc.spec.model import Hook, Origin, ResolvedEdits, Sourced
from cdi_hpc.translation.translate import translate

ORIGIN = Origin("/etc/cdi/vendor.yaml", "vendor.com/class=one", "devices[0].containerEdits.x[0]")
NULL = {"/dev/null": "c 1:3 mode=666", "/dev/gpu": "c 195:0 mode=666"}

FILES = {
    "/lib/libx.so.1": "f real=/usr/lib/libx.so.1 flags=relatime",
    "/opt/data": "d flags=nodev,relatime",
    "/run/d.sock": "s",
    "/run/fifo": "p",
    "/dev/gpu": "c 195:0",
    "/dev/disk": "b 8:0",
}


def edits(**fields: Any) -> ResolvedEdits:
    def sourced(value: Any) -> Any:
        return tuple(Sourced(item, ORIGIN) for item in value) if isinstance(value, (list, tuple)) else value

    return ResolvedEdits(**{name: sourced(value) for name, value in fields.items()})


def plan_of(on: FakeHost, unknown_hooks: Any = "warn", **fields: Any) -> Plan:
    return translate(edits(**fields), on, unknown_hooks=unknown_hooks)


def actions_of(on: FakeHost, **fields: Any) -> tuple[Action, ...]:
    return plan_of(on, **fields).actions


def said(on: FakeHost, **fields: Any) -> list[str]:
    """What the plan says besides doing something."""
    return [a.reason for a in actions_of(on, **fields) if isinstance(a, (Note, Unsupported))]


def only(actions: tuple[Action, ...], kind: type) -> Any:
    (found,) = (action for action in actions if isinstance(action, kind))
    return found


def hook(*args: str, path: str = "/usr/bin/nvidia-cdi-hook", point: str = "createContainer") -> Hook:
    return Hook(point, path, ("hook", *args))
