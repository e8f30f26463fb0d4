"""Bind mounts: in the words of the launcher's command line, and those that the user has given there."""

from __future__ import annotations

import csv
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Union

from cdi_hpc.backend import StagePath, Text, Word
from cdi_hpc.backends.singularity.settings import Settings
from cdi_hpc.errors import CdiError, Problem

#: What ``--bind`` splits its value at; Singularity before 3.9 and Apptainer have no escape for all of it.
_BIND_SPECIAL = re.compile(r"[,:\\]")

#: What makes a field of ``--mount`` need quotes (Go's encoding/csv). It reads ``\r\n`` as ``\n``, quoted or not.
_CSV_SPECIAL = re.compile(r"[\",\n]|^\s")


#: Bytes of one variable, its end included, that execve(2) takes (MAX_ARG_STRLEN).
_LONGEST_STRING = 32 * 4096


class Staged(str):
    """A path relative to the stage, as the source of a bind."""

    __slots__ = ()


Source = Union[str, Staged]


def bind_words(settings: Settings, source: Source, target: str, *, read_only: bool) -> tuple[Word, ...]:
    """Words that bind a path of the host, or one of the stage, to a real path of the container.

    Raises:
        CdiError: the launcher can't be told such a path.

    """
    for path in (source, target):
        _refuse(settings, path)
    if settings.capability("mount") == "yes":
        before, after = "type=bind,", ",ro" if read_only else ""
        target_field = _field(f"destination={target}")
        if isinstance(source, Staged):
            return (Text("--mount"), StagePath(f"{before}source=", source, f",{target_field}{after}"))
        return (Text("--mount"), Text(f"{before}{_field(f'source={source}')},{target_field}{after}"))
    for path in (source, target):
        if _BIND_SPECIAL.search(path):
            what = f"this {settings.name} has no --mount, and its --bind can't take {path!r}"
            raise CdiError(Problem(target, what, "take a newer one, or rename it"))
    after = f":{target}:{'ro' if read_only else 'rw'}"
    if isinstance(source, Staged):
        return (Text("--bind"), StagePath("", source, after))
    return (Text("--bind"), Text(f"{source}{after}"))


def _refuse(settings: Settings, path: str) -> None:
    if "\r" in path:
        raise CdiError(Problem(path, f"{settings.name} can't be told a path with a carriage return", "rename it"))
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        what = f"{settings.name} passes paths on as JSON, and this one is not UTF-8"
        raise CdiError(Problem(path, what, "rename it")) from None


def _field(text: str) -> str:
    if not _CSV_SPECIAL.search(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def refuse_too_many(settings: Settings, targets: Iterable[str]) -> None:
    """Refuse binds that the launcher can't tell the command of: it would stop when the container is there (CdiError).

    It lists their places, the user's own among them, in the container's ``APPTAINER_BIND`` and ``SINGULARITY_BIND``.
    """
    places = [*(bind.target for bind in user_binds(settings)), *targets]
    longest = max(len(prefix) for prefix in settings.prefixes) + len("_BIND=")
    needed = longest + len(os.fsencode(",".join(places))) + 1
    if needed > _LONGEST_STRING:
        what = f"{settings.name} lists {len(places)} binds in one variable of {needed} bytes, and the kernel takes"
        fix = "ask for fewer devices, or use 'cdi-hpc run'"
        raise CdiError(Problem("mounts", f"{what} {_LONGEST_STRING}", fix))


class UserBind(NamedTuple):
    """A bind of the user's own.

    Attributes:
        target: path in the container.
        given: how he asked for it, to tell him.

    """

    source: str
    target: str
    read_only: bool
    given: str


def user_binds(settings: Settings) -> Iterator[UserBind]:
    """Every bind of the user's own, in the launcher's order."""
    for how, value in settings.all_values("bind"):
        for source, target, flags in _of_bind(value):
            said = f"{how}{source}:{target}" if target else f"{how}{source}"
            yield UserBind(posixpath.abspath(source), target or posixpath.abspath(source), "ro" in flags, said)
    for how, value in settings.all_values("mount"):
        for source, target, read_only in _of_mount(value):
            yield UserBind(source, target, read_only, f"{how}type=bind,source={source},destination={target}")


def _of_bind(value: str) -> Iterator[tuple[str, str, list[str]]]:
    """``SOURCE[:TARGET[:OPTIONS]][,...]``; commas separate binds as well as options (ParseBindPath)."""
    current: list[str] = []
    for piece in re.split(r"(?<!\\),", value):
        parts = [part.replace("\\,", ",").replace("\\:", ":") for part in re.split(r"(?<!\\):", piece)]
        if current[1:] and len(parts) == 1 and _is_bind_option(parts[0]):
            current.append(parts[0])
            continue
        if current:
            yield _bind(current)
        current = parts
    if current and current[0]:
        yield _bind(current)


def _bind(parts: list[str]) -> tuple[str, str, list[str]]:
    return parts[0].strip(), parts[1].strip() if parts[1:] else "", parts[2:]


def _is_bind_option(text: str) -> bool:
    return text in ("ro", "rw") or text.startswith(("id=", "image-src="))


def _of_mount(value: str) -> Iterator[tuple[str, str, bool]]:
    """``type=bind,source=SOURCE,destination=TARGET[,ro]``, a line each (ParseMountString)."""
    for record in csv.reader(value.splitlines(keepends=True)):
        fields = dict(field.partition("=")[::2] for field in record)
        source = fields.get("source") or fields.get("src")
        target = fields.get("destination") or fields.get("dst") or fields.get("target")
        if source and target:
            yield posixpath.abspath(source), target, bool({"ro", "readonly"} & {*fields})
