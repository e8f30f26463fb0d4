"""Views: which facts to ask for of a spec, their canonical form, and how two views compare (see README.md).

view.py questions SPEC DEVICE...     arguments for inside.sh, one a line
view.py normalise SPEC <RAW          what inside.sh printed, canonical; on the host that the spec is about
view.py compare WANT GOT             prints what does not hold; exit status 1 if anything does not
"""

from __future__ import annotations

import base64
import hashlib
import posixpath
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent

#: The program that asks inside a container: ``sh -c INSIDE sh QUESTION...``.
INSIDE = (HERE / "inside.sh").read_text()

#: Header of the cache that glibc has written since 2.2: magic, entries, bytes of strings, then 20 bytes unused here
#: (glibc's sysdeps/generic/dl-cache.h, struct cache_file_new).
CACHE_MAGIC = b"glibc-ld.so.cache1.1"
CACHE_COUNTS = struct.Struct("<II")
CACHE_ENTRIES_AT = 48
CACHE_ENTRY = struct.Struct("<iIIIQ")  # flags, SONAME, path, OS version, hardware capabilities


def load(spec: str | Path) -> dict[str, Any]:
    return yaml.safe_load(Path(spec).read_text())


def edits_of(spec: dict[str, Any], devices: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The spec's own edits, then those of the devices named."""
    yield spec.get("containerEdits") or {}
    wanted = set(devices)
    for device in spec.get("devices") or []:
        if device["name"] in wanted:
            yield device.get("containerEdits") or {}


def all_edits(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return edits_of(spec, [device["name"] for device in spec.get("devices") or []])


def hook_links(edits: dict[str, Any]) -> Iterator[str]:
    """Paths of the links that create-symlinks hooks make, in both spellings of the option."""
    for hook in edits.get("hooks") or []:
        args = hook.get("args") or []
        for option, following in zip(args, [*args[1:], ""]):
            value = following if option == "--link" else option.partition("--link=")[2]
            if "::" in value:
                yield value.split("::")[1]


def path_and_library(path: str) -> Iterator[str]:
    yield path
    name = posixpath.basename(path)
    if ".so" in name:
        yield f"O:{name}"


def questions_of(edits: dict[str, Any]) -> Iterator[str]:
    for variable in edits.get("env") or []:
        yield f"E:{variable.partition('=')[0]}"
    for node in edits.get("deviceNodes") or []:
        yield node["path"]
    for mount in edits.get("mounts") or []:
        yield from path_and_library(mount["containerPath"])
    for link in hook_links(edits):
        yield from path_and_library(posixpath.join("/", link))


def questions(spec: dict[str, Any], devices: Iterable[str]) -> list[str]:
    """Arguments for inside.sh: everything that the spec says about these devices, each once."""
    return list(dict.fromkeys(q for edits in edits_of(spec, devices) for q in questions_of(edits)))


def cache_entries(blob: bytes) -> Iterator[tuple[str, str]]:
    """(SONAME, path) of every entry of an ld.so.cache, in its order."""
    # Offsets of strings count from the header, which may follow one of the format before.
    blob = blob[max(blob.find(CACHE_MAGIC), 0) :]
    if not blob.startswith(CACHE_MAGIC):
        return
    count, _ = CACHE_COUNTS.unpack_from(blob, len(CACHE_MAGIC))
    for number in range(count):
        _, soname, path, *_ = CACHE_ENTRY.unpack_from(blob, CACHE_ENTRIES_AT + number * CACHE_ENTRY.size)
        yield string_at(blob, soname), string_at(blob, path)


def string_at(blob: bytes, offset: int) -> str:
    return blob[offset : blob.index(b"\0", offset)].decode()


def digest(content: bytes) -> str:
    """As inside.sh shortens it."""
    return hashlib.sha256(content).hexdigest()[:16]


def host_files(spec: dict[str, Any]) -> dict[str, str]:
    """Digest -> the first host file of the spec with that content."""
    files: dict[str, str] = {}
    for edits in all_edits(spec):
        for mount in edits.get("mounts") or []:
            path = Path(mount["hostPath"])
            if path.is_file():
                files.setdefault(digest(path.read_bytes()), mount["hostPath"])
    return files


def library_names(spec: dict[str, Any]) -> set[str]:
    """File names that the spec mounts or links: only their cache entries belong to the view."""
    names = set()
    for edits in all_edits(spec):
        names.update(posixpath.basename(mount["containerPath"]) for mount in edits.get("mounts") or [])
        for hook in edits.get("hooks") or []:
            pairs = (argument.split("::") for argument in hook.get("args") or [] if "::" in argument)
            names.update(posixpath.basename(path) for pair in pairs for path in pair[:2])
    return names


def normalise(raw: str, spec: dict[str, Any]) -> str:
    """The canonical view: sorted, the cache decoded, content named by the host's file. Reads the host's files."""
    files, names = host_files(spec), library_names(spec)
    lines = set()
    for line in raw.splitlines():
        if line.startswith("B "):
            for soname, path in cache_entries(base64.b64decode(line[2:])):
                if soname in names or posixpath.basename(path) in names:
                    lines.add(f"C {soname} => {path}")
        elif line.startswith("H "):
            path, _, content = line.rpartition(" ")
            lines.add(f"{path} {files.get(content, 'image-or-other')}")
        elif line:
            lines.add(line)
    return "".join(f"{line}\n" for line in sorted(lines))


#: Line's letter -> class of fact and what stands between its object and its value.
FACTS = {
    "E": ("env", "="),
    "D": ("device", " "),
    "L": ("link", " -> "),
    "H": ("content", " "),
    "M": ("flags", " "),
    "O": ("dlopen", " "),
    "C": ("cache", " => "),
}


def facts(view: str) -> dict[tuple[str, str], str]:
    """(class, object) -> value, for every line that states a fact to compare."""
    result = {}
    for line in view.splitlines():
        letter, _, rest = line.partition(" ")
        if letter in FACTS:
            kind, separator = FACTS[letter]
            # The content's name is the last word: both it and the path are paths without blanks in practice.
            split = rest.rpartition if kind == "content" else rest.partition
            thing, _, value = split(separator)
            if not thing:  # a mount without flags
                thing, value = rest, ""
            result[kind, thing] = value
    return result


def is_asked(kind: str, value: str) -> bool:
    """The reference failing to find something asks nothing of us."""
    return (kind, value) not in {("dlopen", "missing"), ("env", "__unset__")}


def holds(kind: str, wanted: str, got: str | None) -> bool:
    if got is None:
        return False
    if kind == "flags":
        return set(wanted.split()) <= set(got.split())
    if kind == "dlopen":
        return got != "missing"
    return kind == "cache" or wanted == got


@dataclass(frozen=True)
class Miss:
    """A fact of the wanted view that does not hold; ``got`` is None where nothing was said of it."""

    kind: str
    thing: str
    wanted: str
    got: str | None

    def __str__(self) -> str:
        return f"{self.kind} {self.thing}: want {self.wanted!r}, got {self.got!r}"


@dataclass(frozen=True)
class Comparison:
    """How a view compares with the one wanted: facts asked by class, and those that do not hold."""

    asked: Counter[str]
    misses: tuple[Miss, ...]

    def __str__(self) -> str:
        missed = Counter(miss.kind for miss in self.misses)
        asked = {**self.asked, "all": sum(self.asked.values())}
        missed["all"] = len(self.misses)
        tally = "  ".join(f"{kind} {count - missed[kind]}/{count}" for kind, count in asked.items())
        return "\n".join([*map(str, self.misses), tally])


def compare(wanted: str, got: str) -> Comparison:
    """Which facts of the view ``wanted`` hold in the view ``got``."""
    have = facts(got)
    asked = {key: value for key, value in sorted(facts(wanted).items()) if is_asked(key[0], value)}
    misses = [
        Miss(kind, thing, value, have.get((kind, thing)))
        for (kind, thing), value in asked.items()
        if not holds(kind, value, have.get((kind, thing)))
    ]
    return Comparison(Counter(kind for kind, _ in asked), tuple(misses))


@dataclass(frozen=True)
class Case:
    """A spec and the view that the reference showed of its device ``all``.

    Attributes:
        directory: holds the spec alone, as far as CDI is concerned.

    """

    directory: Path

    def __str__(self) -> str:
        return self.directory.name

    @property
    def spec(self) -> Path:
        return next(self.directory.glob("*.yaml"))

    @property
    def wanted(self) -> str:
        return (self.directory / "all.view").read_text()

    @property
    def device(self) -> str:
        """Qualified name of the device that was asked for."""
        return f"{self.load()['kind']}=all"

    def load(self) -> dict[str, Any]:
        return load(self.spec)

    def questions(self) -> list[str]:
        return questions(self.load(), ["all"])

    def normalise(self, raw: str) -> str:
        return normalise(raw, self.load())


CASES = tuple(Case(path.parent) for path in sorted(HERE.glob("*/all.view")))


def main(arguments: list[str]) -> int:
    command, file, *rest = arguments
    if command == "questions":
        sys.stdout.writelines(f"{question}\n" for question in questions(load(file), rest))
    elif command == "normalise":
        sys.stdout.write(normalise(sys.stdin.read(), load(file)))
    elif command == "compare":
        comparison = compare(Path(file).read_text(), Path(rest[0]).read_text())
        sys.stdout.write(f"{comparison}\n")
        return 1 if comparison.misses else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
