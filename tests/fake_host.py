"""A host from a table: what translation is told of the machine, without a machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cdi_hpc.host import HostNode, NodeKind

KINDS: Mapping[str, NodeKind] = {
    "f": "file",
    "d": "directory",
    "c": "character",
    "b": "block",
    "p": "fifo",
    "s": "socket",
}


@dataclass
class FakeHost:
    """A :class:`cdi_hpc.host.Host` that knows just these paths.

    Attributes:
        nodes: what each path leads to.
        links: text of symbolic links.
        contents: files that can be read.
        open_errors: errno of open(2), by path; absent means that it opens.
        look_errors: errno of stat(2), by path.
        members: the user's groups.
        group_names: names of groups that have one.
        opened: every (path, write) that was tried, in order.
        programs: the path without links of each program, and why it is not believed.

    """

    nodes: dict[str, HostNode] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    open_errors: dict[str, int] = field(default_factory=dict)
    look_errors: dict[str, int] = field(default_factory=dict)
    members: frozenset[int] = frozenset({1000})
    group_names: dict[int, str] = field(default_factory=dict)
    opened: list[tuple[str, bool]] = field(default_factory=list)
    programs: dict[str, tuple[str, str]] = field(default_factory=dict)

    def node(self, path: str) -> HostNode | None:
        if path in self.look_errors:
            raise OSError(self.look_errors[path], os.strerror(self.look_errors[path]), path)
        return self.nodes.get(path)

    def open_error(self, path: str, *, write: bool) -> int:
        self.opened.append((path, write))
        return self.open_errors.get(path, 0)

    def read(self, path: str) -> bytes | None:
        if path in self.look_errors:
            raise OSError(self.look_errors[path], os.strerror(self.look_errors[path]), path)
        return self.contents.get(path)

    def group_name(self, gid: int) -> str:
        return self.group_names.get(gid, str(gid))

    def groups(self) -> frozenset[int]:
        return self.members

    def link(self, path: str) -> str | None:
        return self.links.get(path)

    def program(self, path: str) -> tuple[str, str]:
        return self.programs.get(path, (path, f"{path}: No such file or directory"))


def node(path: str, text: str) -> HostNode:
    """A node from one line, as the facts of a golden case have it: ``KIND [MAJOR:MINOR] [WORD=VALUE]...``.

    The words are ``mode`` (octal), ``uid``, ``gid``, ``real`` (the path without links) and ``flags`` (of the mount,
    a comma list).
    """
    letter, *words = text.split()
    numbers = {"major": 0, "minor": 0}
    fields: dict[str, Any] = {"real_path": path}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            numbers = dict(zip(numbers, map(int, word.split(":"))))
        elif name == "real":
            fields["real_path"] = value
        elif name == "flags":
            fields["mount_flags"] = tuple(value.split(","))
        else:
            fields[name] = int(value, 8 if name == "mode" else 10)
    return HostNode(KINDS[letter], **numbers, **fields)


def host(nodes: Mapping[str, str] = {}, **facts: Any) -> FakeHost:
    """A host with these nodes, each as in :func:`node`."""
    return FakeHost({path: node(path, text) for path, text in nodes.items()}, **facts)


def host_from_facts(path: Path) -> FakeHost:
    """The host of a golden case: a YAML file with ``nodes`` and, where needed, the other attributes."""
    facts = yaml.safe_load(path.read_text())
    errors = {name: _errnos(facts.get(name, {})) for name in ("open_errors", "look_errors")}
    contents = {name: text.encode() for name, text in facts.get("contents", {}).items()}
    return host(
        facts.get("nodes", {}),
        links=facts.get("links", {}),
        contents=contents,
        members=frozenset(facts.get("members", [1000])),
        group_names=facts.get("group_names", {}),
        **errors,
    )


def _errnos(names: Mapping[str, str]) -> dict[str, int]:
    return {path: getattr(errno, name) for path, name in names.items()}
