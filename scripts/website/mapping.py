"""The tables of docs/hpc.md: what becomes of each field of a CDI spec, and of it on each launcher.

Nothing is written down here. Each case is a spec, each spec is explained as ``cdi-hpc explain`` does it on a machine
where no launcher is installed (:mod:`cdi_hpc.explain`), and what Slurm hands to Apptainer is read from what it would
hand over (:mod:`cdi_hpc.backends.singularity.handoff`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdi_hpc import backends, explain
from cdi_hpc.backends.singularity import handoff
from cdi_hpc.config import Configuration
from cdi_hpc.explain import Edit, Fate, Wanted
from cdi_hpc.explain.views import Outcome, fates
from cdi_hpc.explain.ways import InGeneral, InScript
from cdi_hpc.plan import Action, Bind, MountFilesystem, RunHook, SetEnv, Symlink, UpdateLdCache, WriteFile
from cdi_hpc.resolve.lookup import resolve_devices
from cdi_hpc.spec import decode, document, version
from cdi_hpc.spec.model import Origin
from cdi_hpc.translation import describe
from cdi_hpc.translation.translate import translate
from scripts.website.cases import CASES, LIBRARY, NODE, OWN_FIELDS, Case, Machine

#: Columns: the launcher's name in ``explain``, and how a reader calls it. A step of Slurm's with an image or
#: with mounts is what ``cdi-hpc run`` is; only the image is another one.
COLUMNS: Mapping[str, str] = {
    "embedded": "`cdi-hpc run`",
    "bash": "`cdi-hpc script`",
    "charliecloud": "`ch-run`",
    "singularity": "`apptainer`",
    "handoff": "handoff",
}

_NOWHERE = Origin("", "", "")

#: How each kind of action is called in the table of ways, with one of it.
_ACTIONS: Sequence[tuple[str, Action]] = (
    ("a variable", SetEnv("A", "b", _NOWHERE)),
    ("a device node", Bind(NODE, NODE, "device", _NOWHERE)),
    ("a file or directory of the host", Bind(LIBRARY, LIBRARY, "file", _NOWHERE)),
    ("a new file system", MountFilesystem("tmpfs", "tmpfs", "/opt/scratch", _NOWHERE)),
    ("a link", Symlink("/opt/accel/libaccel.so.1", "libaccel.so.1.2", _NOWHERE)),
    ("a file that is written", WriteFile("/etc/accel.conf", b"", 0o444, _NOWHERE)),
    ("libraries for the loader", UpdateLdCache(("/opt/accel",), _NOWHERE)),
    ("a hook that the site has run", RunHook("", "/opt/accel/hook", (), (), 10, fatal=True, rule="", origin=_NOWHERE)),
)

#: What is said of a case that is like the plainest one of its field but for something.
_ELSE = "; else as in the first row"

_ENVIRON = {"PATH": "/nonexistent"}


class _Silence:
    def warn(self, text: object) -> None:
        """See :class:`cdi_hpc.resolve.lookup.Report`."""

    def note(self, text: object) -> None:
        """See :class:`cdi_hpc.resolve.lookup.Report`."""


def tables() -> dict[str, str]:
    """Every table, by the name that it has between the marks of the page."""
    explained = {field: [*rows(field)] for field in CASES}
    found = {"own-fields": _own_fields(), "overview": _overview(explained), "ways": _ways()}
    found.update({field: _field(listed) for field, listed in explained.items()})
    return {name: "\n".join(lines) for name, lines in found.items()}


# What a case comes to -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A case, explained.

    Attributes:
        since: the oldest version of CDI that a spec with it may name.
        fates: by the name of the launcher.

    """

    case: Case
    since: str
    fates: Mapping[str, Fate]


def rows(field: str) -> Iterator[Row]:
    """Every case of a field, explained."""
    for case in CASES[field]:
        yield _explained(field, case)


def _explained(field: str, case: Case) -> Row:
    value = case.value if field == "intelRdt" else [case.value]
    spec = _spec({"devices": [{"name": "a", "containerEdits": {field: value, **case.beside}}]})
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spec.json"
        path.write_text(json.dumps(spec))
        wanted = Wanted((str(path),), tuple(name for name in explain.launchers() if name in COLUMNS))
        configuration = Configuration(policy=case.site)
        explanation = explain.explain(wanted, _ENVIRON, Machine(), _Silence(), configuration)
        handed_over = _handed_over(str(path), explanation.edits, case)
    (origin,) = (edit.origin for edit in explanation.edits if edit.field == field)
    found = {view.launcher: view.fates[origin] for view in explanation.views}
    return Row(case, _since(spec), {name: {**found, "handoff": handed_over[origin]}[name] for name in COLUMNS})


def _spec(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"cdiVersion": version.CURRENT, "kind": "vendor.com/accel", "devices": [], **parts}


def _since(spec: Mapping[str, Any]) -> str:
    decoded = decode.decode(document.parse(json.dumps(spec).encode(), "spec.json"), decode.Findings())
    if decoded is None:
        raise ValueError(f"not a spec: {spec}")
    return version.minimum(decoded).version


# What Slurm hands over ------------------------------------------------------------------------------------------------


class _InVariables:
    """What launchers without a drop-in find in a step's environment."""

    def of(self, action: Action) -> Fate | None:
        """See :class:`cdi_hpc.explain.views.Ways`."""
        if isinstance(action, SetEnv):
            return Fate("done", "variable APPTAINERENV_NAME")
        if isinstance(action, Bind):
            return Fate("done", "variable APPTAINER_BIND")
        if isinstance(action, Symlink):
            return Fate("emulated", "one more bind, by this name, in a directory of LD_LIBRARY_PATH")
        if isinstance(action, UpdateLdCache):
            return Fate("emulated", "variable APPTAINERENV_LD_LIBRARY_PATH")
        return None


def _handed_over(path: str, edits: Sequence[Edit], case: Case) -> dict[Origin, Fate]:
    resolved = resolve_devices((path,), (), _ENVIRON, _Silence(), configuration=Configuration(), host=Machine())
    plan = translate(resolved.edits, Machine(), site=case.site)
    said = handoff.hand_over(plan.actions)
    lacking = {lack.origin for lack in said.lacks}
    actions = [action for action in plan.actions if action.origin not in lacking]
    return fates(edits, Outcome(actions, _InVariables(), said.lacks))


# Tables ---------------------------------------------------------------------------------------------------------------


def _own_fields() -> Iterator[str]:
    yield "| field | since | what it is for |"
    yield "|---|---|---|"
    for field, (example, text) in OWN_FIELDS.items():
        yield f"| `{field}` | {_since(_spec(example))} | {text} |"


def _overview(explained: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Verdicts alone."""
    yield f"| field | | {' | '.join(COLUMNS.values())} |"
    yield f"|---|---|{'---|' * len(COLUMNS)}"
    for field, listed in explained.items():
        link = f"[{field}](#{field.lower()})"
        for row in listed:
            if row.case.shows:
                names = ", ".join(f"`{name}`" for name in row.case.shows if name)
                about = "; ".join(filter(None, (names, row.case.when)))
                found = _shortened(row, listed[0])
                yield f"| {link} | {about} | {' | '.join(_verdict(found[name]) for name in COLUMNS)} |"
                link = ""


def _verdict(fate: Fate) -> str:
    return f"{fate.verdict}, and differs" if fate.verdict == "done" and fate.how.endswith(_ELSE) else fate.verdict


def _ways() -> Iterator[str]:
    """How each launcher does each kind of action."""
    yield f"| | {' | '.join(COLUMNS.values())} |"
    yield f"|---|{'---|' * len(COLUMNS)}"
    by_name = {
        "embedded": lambda action: Fate("done", describe.how(action, "embedded")),
        "bash": InScript().of,
        "handoff": _InVariables().of,
        **{name: InGeneral(getattr(backends.of_name(name), "ways", None)).of for name in backends.backend_names()},
    }
    for what, action in _ACTIONS:
        found = (by_name[name](action) for name in COLUMNS)
        yield f"| {what} | {' | '.join(_cell(fate.how) if fate else 'not' for fate in found)} |"


def _field(listed: Sequence[Row]) -> Iterator[str]:
    yield "| the spec has | since | launcher | what becomes of it |"
    yield "|---|---|---|---|"
    for row in listed:
        text = f"`{_cell(_shown(row.case.value))}`" + (f"; {row.case.when}" if row.case.when else "")
        since = row.since
        for fate, names in _alike(_shortened(row, listed[0])).items():
            where = "each" if len(names) == len(COLUMNS) else ", ".join(COLUMNS[name] for name in names)
            yield f"| {text} | {since} | {where} | **{fate.verdict}**: {_cell(fate.how)} |"
            text = since = ""


def _shortened(row: Row, plainest: Row) -> Mapping[str, Fate]:
    """What is said of a case; what it has in common with the plainest one is not said again."""
    if row is plainest:
        return row.fates
    found = {}
    for name, fate in row.fates.items():
        usual = f"; {plainest.fates[name].how}"
        how = f"{fate.how[: -len(usual)]}{_ELSE}" if fate.how.endswith(usual) else fate.how
        found[name] = Fate(fate.verdict, "as in the first row" if fate == plainest.fates[name] else how)
    return found


def _alike(found: Mapping[str, Fate]) -> dict[Fate, list[str]]:
    groups: dict[Fate, list[str]] = {}
    for name, fate in found.items():
        groups.setdefault(fate, []).append(name)
    return groups


def _shown(value: Any) -> str:
    """A value as a spec in YAML has it, in one line."""
    if isinstance(value, dict):
        entries = ((key, _octal(each) if key == "fileMode" else _shown(each)) for key, each in value.items())
        return "{" + ", ".join(f"{key}: {text}" for key, text in entries) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _octal(mode: int) -> str:
    return f"0{mode:o}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
