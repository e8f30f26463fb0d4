"""Recipes: what belongs to a kind of device, as data. ``docs/generate.md`` describes the format."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec.document import Document, FieldPath, parse
from cdi_hpc.spec.names import kind_complaint

#: Where a site keeps its own recipes. One with the name of ours takes its place.
SITE_DIRECTORY = "/etc/cdi-hpc/recipes.d"

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Nodes:
    """Device nodes to look for, or links to them.

    Attributes:
        path: a glob of paths, with variables; "" if they are found by udev.
        subsystem: udev subsystem of nodes that belong to the device: below it in sysfs, or of the same PCI device,
            or what ``match`` says.
        name: glob of their kernel names.
        match: as of :class:`Each`; the globs may hold variables.
        mount: they are links to nodes: shown by a bind mount, for a node can't be a link.
        required: a device without one is no device.

    """

    path: str = ""
    subsystem: str = ""
    name: str = "*"
    match: tuple[tuple[str, str], ...] = ()
    mount: bool = False
    required: bool = False


@dataclass(frozen=True)
class Fact:
    """A variable that is read from a file; of several facts for one variable the first that is known counts.

    Attributes:
        key: the value is that of the first line ``KEY: VALUE``.
        pattern: the value is what the only group of this regular expression matches first. With neither, the value
            is the whole file, less surrounding space.

    """

    variable: str
    file: str
    key: str = ""
    pattern: str = ""


@dataclass(frozen=True)
class Each:
    """What is looked for: one CDI device for each that is found.

    Attributes:
        subsystem: udev subsystem; "" for a glob of paths.
        match: sysfs attributes (``driver`` is the name of the bound driver) and globs that they have to match.
        path: a glob of paths, with the variables of the recipe; ``{1}`` is what the first ``*`` stands for.

    """

    subsystem: str = ""
    match: tuple[tuple[str, str], ...] = ()
    path: str = ""


@dataclass(frozen=True)
class DeviceRule:
    """How devices of a kind are found.

    Attributes:
        names: patterns with variables; a device has every name whose variables are known.
        nodes: its device nodes.
        env: ``NAME=VALUE`` with variables.

    """

    each: Each
    names: tuple[str, ...]
    facts: tuple[Fact, ...] = ()
    nodes: tuple[Nodes, ...] = ()
    env: tuple[str, ...] = ()


@dataclass(frozen=True)
class Common:
    """What every container with a device of the kind gets.

    Attributes:
        libraries: globs of file names, with variables, below every directory that the ld.so.cache names.
        links: globs of symbolic links below the same directories.
        programs: names that are looked up in the usual directories.
        files: globs of paths.
        ldcache: the loader's cache is updated for the libraries' directories.

    """

    env: tuple[str, ...] = ()
    nodes: tuple[Nodes, ...] = ()
    libraries: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    ldcache: bool = False


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        path: the file that it is from.
        unless_program: with this program on the machine it is left out if it was not asked for by name: the vendor's
            own generator knows better.

    """

    name: str
    path: str
    kind: str
    summary: str
    devices: tuple[DeviceRule, ...]
    common: Common = field(default_factory=Common)
    facts: tuple[Fact, ...] = ()
    unless_program: str = ""

    def subsystems(self) -> frozenset[str]:
        """Udev subsystems whose devices matter."""
        rules = [nodes for rule in self.devices for nodes in rule.nodes]
        names = {rule.each.subsystem for rule in self.devices} | {
            nodes.subsystem for nodes in (*rules, *self.common.nodes)
        }
        return frozenset(names - {""})


def load_recipes(directory: str = SITE_DIRECTORY) -> dict[str, Recipe]:
    """All recipes by name: the package's, then the site's.

    Args:
        directory: of the site's; the default one need not be there.

    Raises:
        CdiError: everything that is wrong with any of them, or somebody else could have written one.

    """
    problems: list[Problem] = []
    recipes: dict[str, Recipe] = {}
    for path, data in (*_shipped(), *_of_site(directory)):
        try:
            recipe = read_recipe(data, path)
        except CdiError as error:
            problems += error.problems
        else:
            recipes[recipe.name] = recipe
    if problems:
        raise CdiError(problems)
    return dict(sorted(recipes.items()))


def _shipped() -> Iterator[tuple[str, bytes]]:
    for entry in sorted(files(__package__).joinpath("recipes").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(_SUFFIXES):
            yield str(entry), entry.read_bytes()


def _of_site(directory: str) -> Iterator[tuple[str, bytes]]:
    """The site's recipes. Root believes only his own: a recipe says which files are read into a spec for everybody."""
    from cdi_hpc.config.files import read_directory, site_trust

    found = read_directory(directory.rstrip("/") or "/", _SUFFIXES, site_trust() if os.geteuid() == 0 else None)
    if found is None and directory != SITE_DIRECTORY:
        raise CdiError(Problem(directory, "there is no such directory", "name the one that your recipes are in"))
    yield from ((file.path, file.data) for file in found or ())


def read_recipe(data: bytes, path: str) -> Recipe:
    """A recipe from its text; its name is the file's, less the suffix.

    Raises:
        CdiError: everything that is wrong with it, each with line and field.

    """
    document = parse(data, path)
    if document.second is not None:  # it would be lost
        where = f"{path}:{document.second.line}:{document.second.column}"
        raise CdiError(Problem(where, "a second document begins here, and a recipe is one", "put it into its own file"))
    problems = [*_schema_problems(document)]
    if problems:
        raise CdiError(problems)
    value = document.value
    problems = [*_rule_problems(document)]
    if problems:
        raise CdiError(problems)
    name = os.path.basename(path).rpartition(".")[0]
    return Recipe(
        name=name,
        path=path,
        kind=value["kind"],
        summary=value["summary"],
        devices=tuple(map(_rule, value["devices"])),
        common=_common(value.get("common", {})),
        facts=_facts(value.get("facts", [])),
        unless_program=value.get("unlessProgram", ""),
    )


def _schema_problems(document: Document) -> Iterator[Problem]:
    from cdi_hpc.config import schema

    for found in schema.check(document.value, _schema()):
        yield Problem(document.where(found.at), found.what, found.fix or "docs/generate.md describes recipes")


@lru_cache(maxsize=1)
def _schema() -> Mapping[str, Any]:
    whole = json.loads(files(__package__).joinpath("recipe.schema.json").read_text(encoding="utf-8"))

    def followed(part: Any) -> Any:
        if isinstance(part, list):
            return [followed(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return followed(whole["definitions"][part["$ref"].rpartition("/")[2]])
        return {name: followed(item) for name, item in part.items()}

    resolved: Mapping[str, Any] = followed(whole)
    return resolved


#: Of a part of a recipe, keys of which it has exactly one. The schema says it as well, but not in words.
_ONE_OF = {"each": ("subsystem", "path"), "nodes": ("subsystem", "path"), "facts": ()}

#: Keys that don't go together.
_APART = {
    "each": (("path", "match"),),
    "nodes": (("path", "name"), ("path", "match")),
    "facts": (("key", "pattern"),),
}


def _rule_problems(document: Document) -> Iterator[Problem]:
    """What a schema can't say, or not in words."""
    complaint = kind_complaint(document.value["kind"])
    if complaint:
        yield Problem(document.where(("kind",)), complaint)
    for name, at, part in _parts(document.value):
        for what, fix in _combination_complaints(name, part):
            yield Problem(document.where(at), what, fix)
        if "pattern" in part:
            what, fix = _pattern_complaint(part["pattern"])
            if what:
                yield Problem(document.where((*at, "pattern")), what, fix)


def _parts(value: Mapping[str, Any]) -> Iterator[tuple[str, FieldPath, Mapping[str, Any]]]:
    """What is looked for, device nodes and facts: which of these, where, and the part itself."""
    places: list[tuple[FieldPath, Mapping[str, Any]]] = [((), value), (("common",), value.get("common", {}))]
    for number, rule in enumerate(value["devices"]):
        yield "each", ("devices", number, "each"), rule["each"]
        places.append((("devices", number), rule))
    for at, place in places:
        for name in ("nodes", "facts"):
            yield from ((name, (*at, name, index), part) for index, part in enumerate(place.get(name, ())))


def _combination_complaints(name: str, part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    needed = _ONE_OF[name]
    if needed and not any(key in part for key in needed):
        yield f"{' or '.join(map(repr, needed))} is missing", ""
    for keys in (*_APART[name], *((needed,) if needed else ())):
        if all(key in part for key in keys):
            yield f"{' and '.join(map(repr, keys))} don't go together", "take one of them out"


def _pattern_complaint(pattern: str) -> tuple[str, str]:
    """What is wrong with a fact's regular expression, and what to do."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        return f"no regular expression: {error}", ""
    return ("", "") if groups == 1 else (f"has {groups} groups", "one group is the value")


def _rule(value: Mapping[str, Any]) -> DeviceRule:
    each = value["each"]
    return DeviceRule(
        each=Each(each.get("subsystem", ""), _match(each), each.get("path", "")),
        names=tuple(value["names"]),
        facts=_facts(value.get("facts", [])),
        nodes=_nodes(value.get("nodes", [])),
        env=tuple(value.get("env", [])),
    )


def _match(value: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(value.get("match", {}).items()))


def _common(value: Mapping[str, Any]) -> Common:
    return Common(
        env=tuple(value.get("env", [])),
        nodes=_nodes(value.get("nodes", [])),
        libraries=tuple(value.get("libraries", [])),
        links=tuple(value.get("links", [])),
        programs=tuple(value.get("programs", [])),
        files=tuple(value.get("files", [])),
        ldcache=value.get("ldcache", False),
    )


def _facts(values: Sequence[Mapping[str, str]]) -> tuple[Fact, ...]:
    return tuple(
        Fact(value["variable"], value["file"], value.get("key", ""), value.get("pattern", "")) for value in values
    )


def _nodes(values: Sequence[Mapping[str, Any]]) -> tuple[Nodes, ...]:
    return tuple(
        Nodes(
            path=value.get("path", ""),
            subsystem=value.get("subsystem", ""),
            name=value.get("name", "*"),
            match=_match(value),
            mount=value.get("mount", False),
            required=value.get("required", False),
        )
        for value in values
    )
