"""A view with the links followed, and with what an update has made so far on top.

ldconfig makes links while it goes from directory to directory, and a later directory may hold a link that leads
through them; so what an update makes is kept here, in memory, and is seen by whatever looks afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from cdi_hpc.ldcache.view import Kind, Listed, Status, View

#: path_resolution(7): the kernel gives up after 40 links.
_MAX_LINKS = 40


@dataclass(frozen=True)
class _Made:
    kind: Kind
    points_to: str = ""
    content: bytes = b""


class Tree:
    """The container's tree while an update is worked out.

    Attributes:
        notes: what could not be read, and so was left out.

    """

    def __init__(self, view: View) -> None:
        """Look at ``view``; nothing of what is made here is written to it."""
        self.notes: list[str] = []
        self._view = view
        self._made: dict[str, _Made] = {}
        self._resolved: dict[str, str | None] = {}

    def resolve(self, path: str, directory: str = "/") -> str | None:
        """The canonical path of what ``path`` names, following links inside the root; None if nothing is there.

        A relative path starts at ``directory``, which is canonical. As path_resolution(7) has it, with ``..`` of
        the root being the root.
        """
        at = "" if path.startswith("/") else directory.rstrip("/")
        links = 0
        pending = path.split("/")[::-1]
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                at = at.rpartition("/")[0]
                continue
            status = self.lstat(f"{at}/{name}")
            if status is None:
                return None
            if status.kind == "link":
                points_to = self.readlink(f"{at}/{name}")
                links += 1
                if not points_to or links > _MAX_LINKS:
                    return None
                at = "" if points_to.startswith("/") else at
                pending.extend(points_to.split("/")[::-1])
            elif status.kind != "directory" and pending:
                return None
            else:
                at = f"{at}/{name}"
        return at or "/"

    def resolve_parent(self, path: str) -> str | None:
        """As :meth:`resolve`, for a path whose last component is not followed and may be absent."""
        parent, _, name = path.rpartition("/")
        if parent not in self._resolved:
            self._resolved[parent] = self.resolve(parent)
        above = self._resolved[parent]
        return None if above is None else f"{above.rstrip('/')}/{name}"

    def status(self, path: str) -> Status | None:
        """What ``path`` names in the end, links followed; None if nothing."""
        where = self.resolve(path)
        return None if where is None else self.lstat(where)

    def lstat(self, path: str) -> Status | None:
        """What is at a canonical path; None if nothing, or if it can't be told."""
        made = self._made.get(path)
        if made is not None:
            return Status(made.kind, path, injected=True)
        try:
            return self._view.lstat(path)
        except OSError as error:
            self.notes.append(f"{path}: {error.strerror or error}")
            return None

    def readlink(self, path: str) -> str:
        """The text of the link at a canonical path, "" if it can't be read."""
        made = self._made.get(path)
        if made is not None:
            return made.points_to
        try:
            return self._view.readlink(path)
        except OSError as error:
            self.notes.append(f"{path}: {error.strerror or error}")
            return ""

    def listdir(self, directory: str) -> list[Listed]:
        """The names in a canonical directory, made ones last; empty if it can't be read."""
        made = {path.rpartition("/")[2]: made for path, made in self._made_in(directory)}
        listed = []
        try:
            listed = [entry for entry in self._view.listdir(directory) if entry.name not in made]
        except OSError as error:
            if directory not in self._made:
                self.notes.append(f"{directory}: {error.strerror or error}")
        return listed + [Listed(name, one.kind, injected=True) for name, one in made.items()]

    def open(self, path: str) -> BinaryIO | None:
        """The regular file at a canonical path, None (and a note) if it can't be opened."""
        made = self._made.get(path)
        if made is not None:
            return BytesIO(made.content)
        try:
            return self._view.open(path)
        except OSError as error:
            self.notes.append(f"{path}: {error.strerror or error}")
            return None

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of the regular file that ``path`` names, None if there is none or it exceeds ``limit``."""
        where = self.resolve(path)
        status = None if where is None else self.lstat(where)
        if where is None or status is None or status.kind != "file":
            return None
        file = self.open(where)
        if file is None:
            return None
        with file:
            content = file.read(limit + 1)
        if len(content) > limit:
            self.notes.append(f"{path}: larger than {limit} bytes, ignored")
            return None
        return content

    def make_link(self, path: str, points_to: str) -> None:
        """From now on the canonical ``path`` is a link."""
        self._made[path] = _Made("link", points_to=points_to)

    def make_file(self, path: str, content: bytes) -> str:
        """From now on ``path`` is a file; missing directories above it are made. Returns the canonical path."""
        parent, _, name = path.rpartition("/")
        where = f"{self._make_directories(parent).rstrip('/')}/{name}"
        self._made[where] = _Made("file", content=content)
        return where

    def _make_directories(self, path: str) -> str:
        found = self.resolve(path)
        if found is not None:
            return found
        parent, _, name = path.rpartition("/")
        where = f"{self._make_directories(parent).rstrip('/')}/{name}"
        self._made[where] = _Made("directory")
        return where

    def _made_in(self, directory: str) -> Iterator[tuple[str, _Made]]:
        prefix = directory.rstrip("/")
        return ((path, made) for path, made in self._made.items() if path.rpartition("/")[0] == prefix)
