"""Explanations of specs that a test makes, on a host that it makes, where no launcher is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from fake_host import FakeHost

from cdi_hpc import explain
from cdi_hpc.config import Configuration
from cdi_hpc.explain import Explanation, Fate, View, Wanted

#: A machine's environment without any program.
NOTHING_INSTALLED = {"PATH": "/nonexistent"}


class Silence:
    def warn(self, text: object) -> None: ...

    def note(self, text: object) -> None: ...


def explained(
    spec: Path, host: FakeHost, *launchers: str, configuration: Configuration | None = None, image: str | None = None
) -> Explanation:
    wanted = Wanted((str(spec),), launchers or explain.launchers(), image)
    return explain.explain(wanted, NOTHING_INSTALLED, host, Silence(), configuration or Configuration())


def write_spec(directory: Path, *devices: Mapping[str, Any], edits: Mapping[str, Any] | None = None) -> Path:
    """A spec whose devices have these edits, and which has these itself."""
    spec = {
        "cdiVersion": "1.1.0",
        "kind": "lab.example/thing",
        "devices": [{"name": f"d{number}", "containerEdits": dict(each)} for number, each in enumerate(devices)],
        "containerEdits": dict(edits or {}),
    }
    path = directory / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def fates(explanation: Explanation, launcher: str = "embedded") -> dict[str, list[Fate]]:
    """By the edit in one line; several where it is there several times."""
    view = view_of(explanation, launcher)
    found: dict[str, list[Fate]] = {}
    for edit in explanation.edits:
        found.setdefault(edit.what, []).append(view.fates[edit.origin])
    return found


def view_of(explanation: Explanation, launcher: str) -> View:
    return next(view for view in explanation.views if view.launcher == launcher)
