"""Tables in docs/ that are made of the code: whether they are what it says, and writing them anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.website import mapping

_TABLE = re.compile(
    r"(?P<head><!-- table (?P<name>[\w-]+), by scripts/docs --update -->\n\n)(?P<rows>.*?)(?P<end>\n*<!-- end -->)",
    re.DOTALL,
)


def stale(project: Path) -> Iterator[str]:
    """What is not as the code has it: a table that differs, one that has no place, one that nothing makes."""
    made = mapping.tables()
    found = {
        match["name"]: match["rows"] for page in _pages(project) for match in _TABLE.finditer(page.read_text("utf-8"))
    }
    yield from (f"table {name}: no page of docs/ has a place for it" for name in made.keys() - found.keys())
    yield from (f"table {name}: nothing makes it" for name in found.keys() - made.keys())
    for name in made.keys() & found.keys():
        if made[name] != found[name]:
            yield f"table {name}: is not what the code says (run scripts/docs --update)"


def write(project: Path) -> None:
    """Write every table in its place."""
    made = mapping.tables()
    for page in _pages(project):
        old = page.read_text("utf-8")
        new = _TABLE.sub(lambda found: f"{found['head']}{made[found['name']]}\n\n<!-- end -->", old)
        if new != old:
            page.write_text(new, "utf-8")


def _pages(project: Path) -> list[Path]:
    return sorted((project / "docs").glob("*.md"))
