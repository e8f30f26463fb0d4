"""A recipe and a machine become a spec."""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.generate.machine import Found, Machine, matches
from cdi_hpc.generate.recipe import Common, DeviceRule, Each, Fact, Nodes, Recipe
from cdi_hpc.spec import version
from cdi_hpc.spec.decode import Findings, decode
from cdi_hpc.spec.document import Document
from cdi_hpc.spec.names import device_complaint
from cdi_hpc.spec.validate import check

Variables = Mapping[str, str]

#: The name that stands for every device of a kind.
ALL = "all"

#: As vendors' generators have it: nothing that comes along is written to, set-user-ID or a device.
_FILE_OPTIONS = ("ro", "nosuid", "nodev", "rbind", "rprivate")
_LINK_OPTIONS = ("rbind", "rprivate", "rw", "nosuid", "noexec")

#: The vendor's program for hooks; cdi-hpc does what it would, without it (docs/hooks.md).
_HOOK = "/usr/bin/nvidia-cdi-hook"

_VARIABLE = re.compile(r"\{([A-Za-z0-9_]+)\}")


@dataclass
class Edits:
    """``containerEdits`` that grow; everything is there once."""

    env: dict[str, None] = field(default_factory=dict)
    nodes: dict[str, None] = field(default_factory=dict)
    mounts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: dict[str, None] = field(default_factory=dict)

    def to_spec(self) -> dict[str, Any]:
        """Under CDI's names, without what is empty."""
        value: dict[str, Any] = {
            "env": [*self.env],
            "deviceNodes": [{"path": path} for path in self.nodes],
            "mounts": [
                {"hostPath": path, "containerPath": path, "options": list(options)}
                for path, options in self.mounts.items()
            ],
            "hooks": [*self._hooks()],
        }
        return {name: part for name, part in value.items() if part}

    def _hooks(self) -> Iterable[dict[str, Any]]:
        if self.links:
            arguments = [word for path, text in sorted(self.links.items()) for word in ("--link", f"{text}::{path}")]
            yield _hook("create-symlinks", arguments)
        if self.folders:
            yield _hook("update-ldcache", [word for path in self.folders for word in ("--folder", path)])


def _hook(name: str, arguments: list[str]) -> dict[str, Any]:
    return {"hookName": "createContainer", "path": _HOOK, "args": [posixpath.basename(_HOOK), name, *arguments]}


@dataclass(frozen=True)
class Generated:
    """What a recipe found.

    Attributes:
        spec: the spec as a value, or None if there is no device.
        devices: names of the devices, "all" among them.
        notes: what was left out, and why.

    """

    recipe: Recipe
    spec: dict[str, Any] | None
    devices: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def generate(recipe: Recipe, machine: Machine) -> Generated:
    """Look for a recipe's devices and for what they need.

    The result is valid by CDI's rules (``--strict``) and names the oldest version that has all it uses.

    Raises:
        CdiError: names that are no device names, or that several devices have; or anything else that readers of the
            spec would refuse.

    """
    builder = _Builder(recipe, machine)
    for rule in recipe.devices:
        builder.find(rule)
    if not builder.devices:
        return Generated(recipe, None, notes=tuple(builder.notes))
    spec = {
        "cdiVersion": version.CURRENT,
        "kind": recipe.kind,
        "devices": builder.named(),
        "containerEdits": builder.common(recipe.common).to_spec(),
    }
    if not spec["containerEdits"]:
        del spec["containerEdits"]
    spec["cdiVersion"] = _oldest_version(spec, recipe)
    _require_valid(spec, recipe)
    names = tuple(device["name"] for device in builder.named())
    return Generated(recipe, spec, names, tuple(builder.notes))


def _oldest_version(value: dict[str, Any], recipe: Recipe) -> str:
    findings = Findings(strict=True)
    spec = decode(Document(path=recipe.path, text=b"", value=value), findings)
    if spec is None:
        raise CdiError(Problem(recipe.path, "makes no valid spec", "correct the recipe"))
    return version.minimum(spec).version


def _require_valid(value: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse what readers of the spec would refuse: what a recipe puts together comes from files and names of files."""
    problems = check(as_yaml(value).encode(), "", strict=True).errors
    if problems:
        what = "would make a spec that nobody reads: "
        raise CdiError(Problem(recipe.path, f"{what}{each.where.partition(': ')[2]}: {each.what}") for each in problems)


def as_yaml(spec: Mapping[str, Any]) -> str:
    """A spec as YAML, the same for the same spec."""
    import yaml

    return yaml.safe_dump(spec, sort_keys=False, width=1 << 20, default_flow_style=False)


class _Builder:
    def __init__(self, recipe: Recipe, machine: Machine) -> None:
        self.recipe = recipe
        self.machine = machine
        self.notes: list[str] = []
        self.devices: list[tuple[str, Edits]] = []
        self.variables = self._facts(recipe.facts, {})

    # Devices ------------------------------------------------------------------------------------------------

    def find(self, rule: DeviceRule) -> None:
        """Add the devices of a rule."""
        index = 0
        for found, known in self._candidates(rule.each):
            variables = {**self.variables, **known, "index": str(index)}
            variables = self._facts(rule.facts, variables)
            edits = Edits()
            if self._add_device(rule, found, variables, edits):
                index += 1

    def _add_device(self, rule: DeviceRule, found: Found | None, variables: dict[str, str], edits: Edits) -> bool:
        what = f"{self.recipe.name}: {variables.get('pci') or variables.get('name') or variables.get('path', '')}"
        for nodes in rule.nodes:
            added = self._add_nodes(nodes, found, variables, edits)
            if nodes.required and not added:
                wanted = nodes.path or f"{nodes.subsystem} {nodes.name}"
                self.notes.append(f"{what}: left out: there is no device node {wanted} (is the driver loaded?)")
                return False
        edits.env.update(dict.fromkeys(filter(None, (expand(text, variables) for text in rule.env))))
        names = [name for name in (expand(pattern, variables) for pattern in rule.names) if name]
        if not edits.to_spec():
            self.notes.append(f"{what}: left out: the recipe finds no nodes for it and sets no variables")
            return False
        if not names:
            self.notes.append(f"{what}: left out: none of its names is known")
        self.devices += [(name, edits) for name in dict.fromkeys(names)]
        return bool(names)

    def _candidates(self, each: Each) -> Iterable[tuple[Found | None, dict[str, str]]]:
        if each.path:
            pattern = expand(each.path, self.variables, quote=glob.escape)
            for path in self.machine.paths(pattern) if pattern else []:
                yield None, {"path": path, "name": posixpath.basename(path), **_stars(pattern or "", path)}
            return
        for device in self.machine.devices(each.subsystem):
            if self._matches(device, each.match, self.variables):
                yield device, {"name": device.name, "pci": device.pci, "node": device.node}

    def _matches(self, device: Found, match: Iterable[tuple[str, str]], variables: Variables) -> bool:
        for attribute, pattern in match:
            expanded = expand(pattern, variables, quote=glob.escape)
            if expanded is None or not matches(self.machine.attribute(device, attribute), expanded):
                return False
        return True

    def _add_nodes(self, nodes: Nodes, device: Found | None, variables: dict[str, str], edits: Edits) -> bool:
        found = self._nodes(nodes, device, variables)
        for path in found:
            if nodes.mount:
                edits.mounts.setdefault(path, _LINK_OPTIONS)
            else:
                edits.nodes.setdefault(path)
        return bool(found)

    def _nodes(self, nodes: Nodes, device: Found | None, variables: dict[str, str]) -> list[str]:
        if nodes.path:
            pattern = expand(nodes.path, variables, quote=glob.escape)
            return [path for path in self.machine.paths(pattern) if self.machine.is_node(path)] if pattern else []
        found = [
            candidate
            for candidate in self.machine.devices(nodes.subsystem)
            if candidate.node
            and matches(candidate.name, nodes.name)
            and (device is None or nodes.match or _belongs(candidate, device))
            and self._matches(candidate, nodes.match, variables)
        ]
        if found:
            variables.setdefault(nodes.subsystem, found[0].name)
        return [candidate.node for candidate in found]

    def _facts(self, facts: Iterable[Fact], known: Variables) -> dict[str, str]:
        variables = dict(known)
        for fact in facts:
            path = expand(fact.file, variables)
            value = _value(self.machine.read(path), fact) if path else ""
            if value:
                variables.setdefault(fact.variable, value)
        return variables

    # The spec -----------------------------------------------------------------------------------------------

    def named(self) -> list[dict[str, Any]]:
        """``devices`` of the spec, with one that is all of them (CdiError: names that can't be)."""
        problems = [
            Problem(self.recipe.path, complaint) for name, _ in self.devices if (complaint := device_complaint(name))
        ]
        names = [name for name, _ in self.devices]
        twice = sorted({name for name in names if names.count(name) > 1})
        problems += (
            Problem(self.recipe.path, f"two devices have the name {name!r}", "add a variable to 'names'")
            for name in twice
        )
        if problems:
            raise CdiError(problems)
        everything = Edits()
        for _, edits in self.devices:
            _merge(everything, edits)
        named = self.devices if ALL in names else [*self.devices, (ALL, everything)]
        return [{"name": name, "containerEdits": edits.to_spec()} for name, edits in named]

    def common(self, common: Common) -> Edits:
        """``containerEdits`` of the spec."""
        edits = Edits()
        edits.env.update(dict.fromkeys(filter(None, (expand(text, self.variables) for text in common.env))))
        for nodes in common.nodes:
            self._add_nodes(nodes, None, self.variables, edits)
        for program in filter(None, map(self.machine.program, common.programs)):
            edits.mounts[program] = _FILE_OPTIONS
        for pattern in common.files:
            expanded = expand(pattern, self.variables, quote=glob.escape)
            edits.mounts.update(dict.fromkeys(self.machine.paths(expanded) if expanded else [], _FILE_OPTIONS))
        self._add_libraries(common, edits)
        return edits

    def _add_libraries(self, common: Common, edits: Edits) -> None:
        for pattern in common.libraries:
            expanded = expand(pattern, self.variables, quote=glob.escape)
            for path in self.machine.libraries(expanded) if expanded else []:
                edits.mounts[path] = _FILE_OPTIONS
                edits.links.update(self._links(path))
                if common.ldcache:
                    edits.folders.setdefault(posixpath.dirname(path))
        for pattern in common.links:
            edits.links.update(self.machine.library_links(pattern))

    def _links(self, library: str) -> dict[str, str]:
        """The host's links to a library, and the one that the loader looks for."""
        links = dict(self.machine.links_to(library))
        soname = self.machine.soname(library)
        if soname and "/" not in soname and soname != posixpath.basename(library):
            links.setdefault(posixpath.join(posixpath.dirname(library), soname), posixpath.basename(library))
        return links


def _belongs(candidate: Found, device: Found) -> bool:
    return candidate.syspath.startswith(f"{device.syspath}/") or bool(device.pci and candidate.pci == device.pci)


def _merge(into: Edits, edits: Edits) -> None:
    into.env.update(edits.env)
    into.nodes.update(edits.nodes)
    into.mounts.update(edits.mounts)


def _value(text: str, fact: Fact) -> str:
    """What a fact says of a file's text, "" if nothing."""
    if fact.pattern:
        found = re.search(fact.pattern, text)
        return (found[1] or "").strip() if found else ""
    if not fact.key:
        return text.strip()
    pairs = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in pairs if name.strip() == fact.key), "")


def expand(text: str, variables: Variables, *, quote: Any = str) -> str | None:
    """``{NAME}`` replaced by values; None if one is not known."""
    names = _VARIABLE.findall(text)
    if any(not variables.get(name) for name in names):
        return None
    return _VARIABLE.sub(lambda found: quote(variables[found[1]]), text)


def _stars(pattern: str, path: str) -> dict[str, str]:
    """What each ``*`` of a glob stands for, by number from 1."""
    expression = "([^/]*)".join(re.escape(part) for part in pattern.split("*"))
    found = re.fullmatch(expression, path)
    return {str(number): text for number, text in enumerate(found.groups(), 1)} if found else {}
