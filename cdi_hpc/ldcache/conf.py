"""Which directories ldconfig(8) looks into: /etc/ld.so.conf, what it includes, and the system's own.

Everything is read inside the container's root. Old spellings that today's ldconfig ignores (``hwcap``) or takes for
part of a name (``/lib=libc6``) are treated as it treats them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from cdi_hpc.ldcache.tree import Tree

PATH = "/etc/ld.so.conf"
DROP_INS = "/etc/ld.so.conf.d"

#: A configuration is a few lines; these only stop what an image could do to us.
_MAX_SIZE = 1 << 20
_MAX_FILES = 1000
_MAX_DEPTH = 100
_MAX_MATCHES = 10_000

#: C's isspace() in the C locale.
_SPACE = " \t\n\v\f\r"
_INCLUDE = re.compile(r"include[ \t](.*)", re.DOTALL)
_HWCAP = re.compile(r"hwcap[ \t]", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")

#: Where the loader looks without configuration, and ldconfig with it. Debian's glibc has multiarch directories in
#: place of lib64 and the like; the others make lib64 and libx32 out of lib.
_DEBIAN = {
    "x86_64": ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"),
    "aarch64": ("/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib", "/usr/lib"),
    "ppc64le": ("/lib/powerpc64le-linux-gnu", "/usr/lib/powerpc64le-linux-gnu", "/lib", "/usr/lib"),
}
_OTHERS = {
    "x86_64": ("/lib", "/lib64", "/libx32", "/usr/lib", "/usr/lib64", "/usr/libx32"),
    "aarch64": ("/lib", "/lib64", "/usr/lib", "/usr/lib64"),
    "ppc64le": ("/lib", "/lib64", "/usr/lib", "/usr/lib64"),
}


@dataclass(frozen=True)
class Directory:
    """A directory that ldconfig looks into.

    Attributes:
        path: as it was configured, without slashes at the end; the cache repeats it.
        where: its canonical path.
        hwcaps: its name, if it is a glibc-hwcaps subdirectory.

    """

    path: str
    where: str
    hwcaps: str | None = None


def is_debian_like(tree: Tree) -> bool:
    """Whether the container's own glibc is Debian's, as NVIDIA's hook tells."""
    status = tree.status("/etc/debian_version")
    return status is not None and status.kind != "directory"


def system_directories(tree: Tree, machine: str) -> tuple[str, ...]:
    """The directories that the container's own ldconfig looks into last, without being told."""
    return (_DEBIAN if is_debian_like(tree) else _OTHERS)[machine]


class _Reader:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._seen: set[str] = set()

    def lines(self, path: str, depth: int = 0) -> Iterator[str]:
        """The directories that a file and what it includes name, in order.

        A file is read once: what it names a second time would be duplicates, and includes may form circles.
        """
        where = self._tree.resolve(path)
        if where is None or where in self._seen:
            return
        if depth > _MAX_DEPTH or len(self._seen) >= _MAX_FILES:
            self._tree.notes.append(f"{path}: ignored, too many files are included")
            return
        self._seen.add(where)
        content = self._tree.read(where, _MAX_SIZE) or b""
        for line in os.fsdecode(content).split("\n"):
            yield from self._line(line, path, depth)

    def _line(self, line: str, path: str, depth: int) -> Iterator[str]:
        text = re.split("[\0#]", line, maxsplit=1)[0].lstrip(_SPACE)
        include = _INCLUDE.match(text)
        if include is None:
            if text and not _HWCAP.match(text):
                yield text.rstrip(_SPACE).rstrip("/")
            return
        for pattern in re.split("[ \t]", include[1]):
            if pattern:
                absolute = pattern if pattern.startswith("/") else f"{path.rpartition('/')[0]}/{pattern}"
                for found in glob(self._tree, absolute):
                    yield from self.lines(found, depth + 1)


def configured(tree: Tree) -> list[str]:
    """The directories that the configuration names, as it names them, in order and with repetitions."""
    return [line for line in _Reader(tree).lines(PATH) if line]


def directories(tree: Tree, paths: list[str]) -> list[Directory]:
    """The directories that exist among ``paths``, each once, each followed by its glibc-hwcaps subdirectories.

    One that is reached by two names has the first. What is a directory twice is told by device and inode.
    """
    found: list[Directory] = []
    seen: set[Hashable] = set()
    for path in paths:
        where = tree.resolve(path)
        if where is None or not _is_new(tree, where, seen):
            continue
        found.append(Directory(path, where))
        for name, below in _hwcaps_subdirectories(tree, where):
            if _is_new(tree, below, seen):
                found.append(Directory(f"{path}/glibc-hwcaps/{name}", below, name))
    return found


def _is_new(tree: Tree, where: str, seen: set[Hashable]) -> bool:
    status = tree.lstat(where)
    if status is None or status.kind != "directory" or status.identity in seen:
        return False
    seen.add(status.identity)
    return True


def _hwcaps_subdirectories(tree: Tree, where: str) -> Iterator[tuple[str, str]]:
    above = tree.resolve(f"{where}/glibc-hwcaps")
    status = None if above is None else tree.lstat(above)
    if above is None or status is None or status.kind != "directory":
        return
    for entry in tree.listdir(above):
        # The loader's own list of these names is separated by colons.
        if entry.name.startswith(".") or entry.kind == "file" or ":" in entry.name:
            continue
        below = tree.resolve(f"{above}/{entry.name}")
        if below is not None:
            yield entry.name, below


# -- patterns of "include" ------------------------------------------------------------------------------------


def glob(tree: Tree, pattern: str) -> list[str]:
    """What matches a pattern inside the container's root, in the order of the C locale; see glob, section 7."""
    found = [""]
    for component in pattern.split("/"):
        if component:
            found = [path for above in found for path in _matches(tree, above, component)]
        if len(found) > _MAX_MATCHES:
            tree.notes.append(f"{pattern}: ignored, it matches too much")
            return []
    return sorted(found, key=os.fsencode)


def _matches(tree: Tree, above: str, component: str) -> Iterator[str]:
    where = tree.resolve(above or "/")
    status = None if where is None else tree.lstat(where)
    if where is None or status is None or status.kind != "directory":
        return
    if not _MAGIC.search(component):
        name = re.sub(r"\\(.)", r"\1", component)
        if name in (".", "..") or tree.lstat(f"{where.rstrip('/')}/{name}") is not None:
            yield f"{above}/{name}"
        return
    for entry in tree.listdir(where):
        if entry.name.startswith(".") and not component.startswith("."):
            continue
        if matches(entry.name, component):
            yield f"{above}/{entry.name}"


def matches(name: str, pattern: str) -> bool:
    """Whether a name matches a pattern of ``*``, ``?``, ``[...]`` and backslash, in time of at most their product.

    Not fnmatch: it has no backslash, and its regular expressions can be made to take forever.
    """
    tokens = _tokens(pattern)
    at = token = 0
    star: tuple[int, int] | None = None
    while at < len(name):
        if token < len(tokens) and tokens[token] is None:
            star = (token, at)
            token += 1
        elif token < len(tokens) and re.fullmatch(tokens[token] or "", name[at], re.DOTALL):
            token += 1
            at += 1
        elif star is not None:
            token, at = star[0] + 1, star[1] + 1
            star = (star[0], at)
        else:
            return False
    return all(rest is None for rest in tokens[token:])


_TOKEN = re.compile(r"\*|\?|\\.|\[[!^]?\]?(?:\[:[a-z]+:\]|[^\]])*\]|.", re.DOTALL)


def _tokens(pattern: str) -> list[str | None]:
    """A regular expression for each single character, and None for any number of them."""
    tokens: list[str | None] = []
    for text in _TOKEN.findall(pattern):
        if text == "*":
            tokens.append(None)
        elif text == "?":
            tokens.append(".")
        elif text.startswith("[") and len(text) > 1:
            tokens.append(_bracket(text[1:-1]))
        else:
            tokens.append(re.escape(text[1:] if text.startswith("\\") and len(text) > 1 else text))
    return tokens


_CLASSES = {"alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "digit": "0-9", "lower": "a-z", "upper": "A-Z"}


def _bracket(inside: str) -> str:
    negated = "^" if inside[:1] in ("!", "^") else ""
    inside = inside[1:] if negated else inside
    parts = []
    for part in re.findall(r"\[:[a-z]+:\]|.-.|.", inside, re.DOTALL):
        if part.startswith("[:"):
            parts.append(_CLASSES.get(part[2:-2], ""))
        elif len(part) == 1:
            parts.append(re.escape(part))
        elif part[0] <= part[2]:
            parts.append(f"{re.escape(part[0])}-{re.escape(part[2])}")
    body = "".join(parts)
    if not body:
        return "." if negated else "(?!)"
    return f"[{negated}{body}]"
