"""What ``cdi-hpc explain`` prints."""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from cdi_hpc import backends, explain
from cdi_hpc.cli import PROBLEM
from cdi_hpc.cli.options import Reporter
from cdi_hpc.cli.output import print_json
from cdi_hpc.cli.progress import progress
from cdi_hpc.cli.sheet import Cell, Sheet
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.explain import Difference, Explanation, Fate, Wanted
from cdi_hpc.explain.difference import Side
from cdi_hpc.host import LiveHost
from cdi_hpc.spec.model import Origin
from cdi_hpc.spec.names import near_misses
from cdi_hpc.spec.registry import SUFFIXES

_ALL = "all"

#: Characters of an edit that a table shows.
_LONGEST = 80

#: How verdicts look on a terminal.
_STYLES = {"done": "green", "replaced": "dim", "emulated": "cyan", "impossible": "bold red", "refused": "bold magenta"}


def show(wanted: Wanted, launchers: str, diff: tuple[str, str] | None, output_format: str, reporter: Reporter) -> int:
    """Print an explanation, or a difference; returns the exit status.

    Args:
        wanted: the request, without launchers.
        launchers: the value of ``--for``.
        diff: the values of ``--diff``.
        output_format: the value of ``--format``.
        reporter: is told of what is unusual about the spec files.

    Raises:
        CdiError: something can't be explained.
        click.UsageError: the words do not go together.

    """
    for problem in backends.misnamed():
        reporter.warn(problem)
    if diff and all(_is_launcher(word) for word in diff):
        return _diff_launchers(wanted._replace(launchers=diff), output_format, reporter)
    names = _launchers(launchers)
    if diff:
        if wanted.devices:
            raise click.UsageError("With --diff, DEVICEs go with two launchers; two spec files are compared whole.")
        return _diff_specs(diff, wanted._replace(launchers=names), output_format, reporter)
    if not wanted.devices:
        raise click.UsageError("Missing argument 'DEVICE...'.")
    explanation = _explained(wanted._replace(launchers=names), output_format, reporter)
    if output_format == "json":
        print_json(_document(explanation))
    else:
        _sheet(explanation).show(sys.stdout, markdown=output_format == "markdown")
    return _status(explanation)


def _explained(wanted: Wanted, output_format: str, reporter: Reporter) -> Explanation:
    with progress("explaining", wanted=output_format == "table" and reporter.level >= 0):
        return explain.explain(wanted, os.environ, LiveHost(), reporter)


def _status(*explanations: Explanation) -> int:
    return PROBLEM if any(view.stops for explanation in explanations for view in explanation.views) else 0


def _is_launcher(word: str) -> bool:
    return word in (*explain.launchers(), *backends.commands())


def _launchers(text: str) -> tuple[str, ...]:
    if text == _ALL:
        return explain.launchers()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if not _is_launcher(name)]
    if unknown:
        known = (*explain.launchers(), _ALL)
        near = near_misses(unknown[0], known)
        fix = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        raise CdiError(Problem(f"--for {text}", f"there is no launcher {unknown[0]!r} to explain", fix))
    return names


# Differences ----------------------------------------------------------------------------------------------------------


def _diff_launchers(wanted: Wanted, output_format: str, reporter: Reporter) -> int:
    if not wanted.devices:
        raise click.UsageError("Missing argument 'DEVICE...'.")
    explanation = _explained(wanted, output_format, reporter)
    found = [*explain.between_launchers(explanation)]
    if output_format == "json":
        print_json({**_head(explanation), "differences": [_difference(each) for each in found]})
        return _status(explanation)
    old, new = explanation.views
    sheet = Sheet(("EDIT", "FROM", old.launcher.upper(), new.launcher.upper()), empty="no differences")
    for each in found:
        sides = [side for side in (each.old, each.new) if side]
        edit = sides[0].edit
        sheet.add(_short(edit.what), _where(edit.origin, _common(explanation)), *(_cell(side.fate) for side in sides))
    _tell(sheet, explanation)
    sheet.show(sys.stdout, markdown=output_format == "markdown")
    return _status(explanation)


def _diff_specs(paths: tuple[str, str], wanted: Wanted, output_format: str, reporter: Reporter) -> int:
    for path in paths:
        if not os.path.isfile(path):
            raise CdiError(_no_spec_file(path))
    old, new = (
        _explained(wanted._replace(devices=(os.path.abspath(path),)), output_format, reporter) for path in paths
    )
    found = [*explain.between_specs(old, new)]
    if output_format == "json":
        document = {"image": wanted.image, "old": paths[0], "new": paths[1]}
        print_json({**document, "differences": [_difference(each) for each in found]})
        return _status(old, new)
    sheet = Sheet(("CHANGE", "LAUNCHER", "OLD", "NEW", "OLD VERDICT", "NEW VERDICT"), empty="no differences")
    for each in _same_on_all(found, len(wanted.launchers)):
        sides = [_short(side.edit.what) if side else "" for side in (each.old, each.new)]
        verdicts = [_cell(side.fate) if side else Cell("") for side in (each.old, each.new)]
        sheet.add(each.change, each.launcher, *sides, *verdicts)
    sheet.show(sys.stdout, markdown=output_format == "markdown")
    return _status(old, new)


def _no_spec_file(path: str) -> Problem:
    if os.path.exists(path):
        return Problem(f"--diff {path}", "is no file", "name a spec file")
    if "/" in path or path.endswith(SUFFIXES):
        return Problem(f"--diff {path}", "there is no such file")
    near = near_misses(path, (*explain.launchers(), *backends.commands()))
    fix = f"did you mean {near[0]!r}?" if near else "name two of a kind"
    return Problem(f"--diff {path}", "is neither a spec file nor a launcher", fix)


def _same_on_all(found: Sequence[Difference], launchers: int) -> list[Difference]:
    """One row in the place of those that are the same for every launcher but for the way in which it is done."""
    groups: dict[object, list[Difference]] = {}
    for each in found:
        groups.setdefault((each.change, _outcome(each.old), _outcome(each.new)), []).append(each)
    rows: list[Difference] = []
    for group in groups.values():
        alike = len(group) == launchers > 1
        rows += [Difference(group[0].change, _ALL, group[0].old, group[0].new)] if alike else group
    return rows


def _outcome(side: Side | None) -> object:
    return side and (side.edit.origin, side.fate.verdict)


# JSON -----------------------------------------------------------------------------------------------------------------


def _document(explanation: Explanation) -> dict[str, Any]:
    return {
        **_head(explanation),
        "edits": [
            {
                "field": edit.field,
                "edit": edit.what,
                "origin": _origin(edit.origin),
                "launchers": {view.launcher: _fate(view.fates[edit.origin]) for view in explanation.views},
            }
            for edit in explanation.edits
        ],
    }


def _head(explanation: Explanation) -> dict[str, Any]:
    return {
        "devices": [*explanation.devices],
        "image": explanation.image,
        "launchers": [
            {
                "launcher": view.launcher,
                "program": view.title,
                "installed": view.installed,
                "stops": [*view.stops],
                "messages": [*view.messages],
            }
            for view in explanation.views
        ],
    }


def _origin(origin: Origin) -> dict[str, str]:
    return {"spec": origin.spec, "device": origin.device, "field": origin.field}


def _fate(fate: Fate) -> dict[str, str]:
    return {"verdict": fate.verdict, "how": fate.how}


def _difference(each: Difference) -> dict[str, Any]:
    return {
        "change": each.change,
        "launcher": each.launcher or None,
        "old": each.old and _side(each.old),
        "new": each.new and _side(each.new),
    }


def _side(side: Side) -> dict[str, Any]:
    return {"edit": side.edit.what, "origin": _origin(side.edit.origin), **_fate(side.fate)}


# Tables ---------------------------------------------------------------------------------------------------------------


def _sheet(explanation: Explanation) -> Sheet:
    """One launcher with its reasons beside; of several only the verdicts, and the reasons below."""
    spec = _common(explanation)
    views = explanation.views
    columns = ("VERDICT", "HOW") if len(views) == 1 else tuple(view.launcher.upper() for view in views)
    sheet = Sheet(("EDIT", "FROM", *columns), empty="the devices ask for nothing")
    for edit in explanation.edits:
        head = (_short(edit.what), _where(edit.origin, spec))
        fates = [view.fates[edit.origin] for view in views]
        if len(fates) == 1:
            sheet.add(*head, Cell(fates[0].verdict, _STYLES[fates[0].verdict]), fates[0].how)
        else:
            sheet.add(*head, *(_cell(fate) for fate in fates))
    if spec:
        sheet.below.append(("", f"from {spec}"))
    _tell(sheet, explanation)
    return sheet


def _tell(sheet: Sheet, explanation: Explanation) -> None:
    for view in explanation.views:
        sheet.below.append((view.launcher, view.title))
    sheet.below += _grouped("stops", {view.launcher: view.stops for view in explanation.views})
    sheet.below += _grouped("says", {view.launcher: view.messages for view in explanation.views})


def _grouped(verb: str, said: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Each text once, with all launchers that it is from."""
    for text in dict.fromkeys(text for texts in said.values() for text in texts):
        yield f"{', '.join(name for name, texts in said.items() if text in texts)} {verb}", text


def _cell(fate: Fate) -> Cell:
    # Which edit replaces another is a matter of its own for each: many notes, and little in them.
    return Cell(fate.verdict, _STYLES[fate.verdict], "" if fate.verdict == "replaced" else fate.how)


def _short(text: str) -> str:
    """A hook's arguments may be a page; JSON has them all."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _common(explanation: Explanation) -> str:
    """The spec that all edits are from, "" if there are several."""
    specs = {edit.origin.spec for edit in explanation.edits}
    return specs.pop() if len(specs) == 1 else ""


def _where(origin: Origin, spec: str) -> str:
    return origin.field if origin.spec == spec else f"{posixpath.basename(origin.spec)}: {origin.field}"
