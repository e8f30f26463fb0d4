"""From files and variables to settings: what was set where, and which value counts. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cdi_hpc.config import SITE_DIRECTORY
from cdi_hpc.config.files import ConfigFile
from cdi_hpc.config.schema import ANY_NAME, SHAPES, Key, all_keys, check, without_nulls
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec import names
from cdi_hpc.spec.decode import Finding, describe, shorten
from cdi_hpc.spec.document import Document, FieldPath, parse

Layer = Literal["site", "user", "variable"]


@dataclass(frozen=True)
class Place:
    """Where something was set; ``str()`` finds out the line, which takes a second look at the text."""

    document: Document = field(repr=False, compare=False)
    path: str
    at: FieldPath

    def __str__(self) -> str:
        """``FILE:LINE:COLUMN: KEY``."""
        return place_of(self.document, self.at)

    def below(self, *parts: str | int) -> Place:
        """The place of something in it."""
        return Place(self.document, self.path, (*self.at, *parts))


def place_of(document: Document, at: FieldPath) -> str:
    """``FILE:LINE:COLUMN: KEY``, the key as the manual writes it: ``policy.mount-sources.rules[0]``."""
    position = document.position(at)
    file = f"{document.path}:{position.line}:{position.column}" if position else document.path
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
    return f"{file}: {key}" if key else file


@dataclass(frozen=True)
class VariablePlace:
    """An environment variable."""

    name: str

    def __str__(self) -> str:
        """``variable NAME``."""
        return f"variable {self.name}"

    def below(self, *parts: str | int) -> VariablePlace:
        """A variable has no places in it."""
        del parts
        return self


@dataclass(frozen=True)
class Setting:
    """A key and a value that it was given.

    Attributes:
        path: names from the top, of which the file chose some.

    """

    key: Key
    path: tuple[str, ...]
    value: Any
    where: Place | VariablePlace
    layer: Layer

    @property
    def shown(self) -> str:
        """``aliases.gpu``."""
        return ".".join(self.path)


def of_file(file: ConfigFile, layer: Layer) -> list[Setting]:
    """What a file sets.

    Raises:
        CdiError: with everything that is wrong with it, each with its line.

    """
    document = parse(file.data, file.path)
    if document.second is not None:  # its rules would be lost
        where = f"{document.path}:{document.second.line}:{document.second.column}"
        what = "a second document begins here, and a configuration is one"
        raise CdiError(Problem(where, what, "put it into a file of its own, or take out the line '---'"))
    value = without_nulls(document.value)
    if value is None:
        return []
    found = list(check(value))
    if not found:
        settings = list(_settings(value, document, layer))
        found += (_not_theirs(setting) for setting in settings if not _may_set(setting))
    if found:
        raise CdiError(_problems(document, found))
    return settings


def of_environment(environ: Mapping[str, str]) -> list[Setting]:
    """What the environment sets. An empty variable is none.

    Raises:
        CdiError: with every value that is none of its key's.

    """
    settings: list[Setting] = []
    problems: list[Problem] = []
    for key in all_keys():
        text = environ.get(key.variable, "") if key.variable else ""
        if not text:
            continue
        where = VariablePlace(key.variable)
        value = _READERS.get(key.schema["type"], str)(text)
        wanted = _wanted(key.schema, value)
        if wanted:
            near = names.near_misses(text.lower(), key.schema.get("enum", ()))
            fix = f"did you mean {near[0]!r}?" if near else ""
            problems.append(Problem(str(where), f"expected {wanted}, found {shorten(text)}", fix))
        else:
            settings.append(Setting(key, key.path, value, where, "variable"))
    if problems:
        raise CdiError(problems)
    return settings


def join(settings: Iterable[Setting]) -> dict[tuple[str, ...], tuple[Setting, ...]]:
    """For each key that was set, the settings that count: several where lists are appended, else one."""
    joined: dict[tuple[str, ...], tuple[Setting, ...]] = {}
    for setting in settings:
        before = joined.get(setting.path, ())
        if setting.key.join == "append":
            joined[setting.path] = (*before, setting)
        elif not before or _counts(setting, before[0]):
            joined[setting.path] = (setting,)
    return joined


def _counts(setting: Setting, before: Setting) -> bool:
    """Whether a later value counts. A user can be stricter than the administrator, not laxer."""
    if setting.key.join != "strictest" or setting.layer == "site":
        return True
    order = setting.key.schema.get("enum", [False, True])
    stricter: bool = order.index(setting.value) >= order.index(before.value)
    return stricter or before.layer != "site"


def _settings(value: Mapping[str, Any], document: Document, layer: Layer) -> Iterator[Setting]:
    for key in all_keys():
        for path, item in _found(value, key.path, ()):
            yield Setting(key, path, item, Place(document, document.path, path), layer)


def _found(value: Any, path: tuple[str, ...], at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values at a key's path; several where the file chooses names."""
    if not path:
        yield at, value
    elif path[0] == ANY_NAME:
        for name, item in value.items():
            yield from _found(item, path[1:], (*at, name))
    elif path[0] in value:
        yield from _found(value[path[0]], path[1:], (*at, path[0]))


def _may_set(setting: Setting) -> bool:
    return setting.layer == "site" or setting.key.set_by == "anyone"


def _not_theirs(setting: Setting) -> Finding:
    fix = f"it belongs in {SITE_DIRECTORY}; remove it here"
    return Finding(setting.path, "only the administrator can set this", fix)


def _problems(document: Document, found: Iterable[Finding]) -> list[Problem]:
    def place(finding: Finding) -> tuple[int, int]:
        return document.position(finding.at) or (0, 0)

    return [Problem(place_of(document, f.at), f.what, f.fix) for f in sorted(found, key=place)]


# Variables ------------------------------------------------------------------------------------------------------

_BOOLEANS = {
    **dict.fromkeys(("1", "yes", "true", "on"), True),
    **dict.fromkeys(("0", "no", "false", "off"), False),
}


def _boolean(text: str) -> Any:
    return _BOOLEANS.get(text.lower(), text)


def _paths(text: str) -> list[str]:
    return [path for path in text.split(":") if path]


_READERS = {"boolean": _boolean, "array": _paths}


def _wanted(schema: Mapping[str, Any], value: Any) -> str:
    """What a variable's value should have been, "" if it is that."""
    if schema["type"] == "boolean":
        return "" if isinstance(value, bool) else "1 or 0"
    if "enum" in schema:
        return "" if value in schema["enum"] else " or ".join(map(repr, schema["enum"]))
    if "pattern" in schema:
        return "" if re.match(schema["pattern"], value) else SHAPES[schema["pattern"]]
    return ""


def said(value: Any) -> str:
    """A value for a table: text as it is, a list with commas."""
    if isinstance(value, list):
        return ", ".join(map(said, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {said(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else describe(value)
