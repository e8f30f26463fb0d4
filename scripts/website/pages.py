"""The site's pages as Sphinx takes them: docs/ as it is, with the README as its home and the pages that others make.

The sources are read on GitHub and in an editor as well. So they hold no directive of Sphinx: what leads where is in
:data:`NAVIGATION`, and links are rewritten on the way.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scripts.website import manuals

#: Title of a part, and its pages in order. A page of docs/ that is in none fails the build (toc.not_included).
NAVIGATION: Sequence[tuple[str, Sequence[str]]] = (
    ("", ("hpc",)),
    ("I want a GPU now", ("using", "launchers", "plans", "troubleshooting")),
    ("I run a cluster", ("install", "administration", "configuration", "generate", "slurm", "hooks", "tolerance")),
    ("I write a program", ("internals", "backends", "json", "plan-format", "contributing", "decisions")),
    ("Reference", ("manuals", "changelog")),
)

#: Files outside of docs/ that are pages of the site.
OTHERS: Mapping[str, str] = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "docs/decisions": "decisions.md",
}

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>(?:[^\]\[]|\[[^\]]*\])*)\]\((?P<to>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")


def stage(project: Path, directory: Path) -> None:
    """Put every page below a directory.

    Raises:
        ValueError: a manual page can't be translated.

    """
    places = {**OTHERS, **{source: source.partition("/")[2] for source in _sources(project)}}
    for source, place in places.items():
        if source.endswith(".md"):
            _write(directory / place, _with_links(source, (project / source).read_text("utf-8"), places, project))
    if (project / "docs/images").exists():
        shutil.copytree(project / "docs/images", directory / "images")
    _write(directory / "decisions.md", _decisions(places))
    pages = manuals.pages()
    for name, text in pages.items():
        _write(directory / f"man/{name}.md", text)
    contents = _contents("man", pages)
    _write(directory / "manuals.md", f"# Manual pages\n\nThe same as `man cdi-hpc-run` shows.\n\n{contents}")
    with (directory / "index.md").open("a", encoding="utf-8") as home:
        home.writelines(_tree(title, names) for title, names in NAVIGATION)


def _sources(project: Path) -> Iterator[str]:
    for page in sorted((project / "docs").rglob("*.md")):
        yield page.relative_to(project).as_posix()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


# Links ----------------------------------------------------------------------------------------------------------------


def _with_links(source: str, text: str, places: Mapping[str, str], project: Path) -> str:
    """A page with its links as they are on the site. Of one to a file that is not on it, only the text is left."""

    def rewritten(link: re.Match[str]) -> str:
        to, anchor = link["to"], link["anchor"] or ""
        if not to or "://" in to:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), to))
        place = f"images/{posixpath.basename(path)}" if path.startswith("docs/images/") else places.get(path)
        if place is None:
            # What is not there at all is left for Sphinx to complain about.
            return link["text"] if (project / path).exists() else link[0]
        here = posixpath.dirname(places[source])
        return f"{link['picture']}[{link['text']}]({posixpath.relpath(place, here or '.')}{anchor})"

    return "".join(
        piece if is_code else _LINK.sub(rewritten, piece) for is_code, piece in _fenced(text.splitlines(keepends=True))
    )


def _fenced(lines: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Lines, and whether they are in a fenced block."""
    inside = False
    for line in lines:
        is_fence = line.lstrip().startswith("```")
        yield inside or is_fence, line
        inside ^= is_fence


# Tables of contents ---------------------------------------------------------------------------------------------------


def _tree(title: str, names: Sequence[str]) -> str:
    caption = f":caption: {title}\n" if title else ""
    return f"\n```{{toctree}}\n:hidden:\n{caption}\n" + "".join(f"{name}\n" for name in names) + "```\n"


def _contents(directory: str, names: Sequence[str] | Mapping[str, str]) -> str:
    return "```{toctree}\n:maxdepth: 1\n\n" + "".join(f"{directory}/{name}\n" for name in names) + "```\n"


def _decisions(places: Mapping[str, str]) -> str:
    names = sorted(os.path.basename(place)[:-3] for place in places.values() if place.startswith("decisions/"))
    return f"# Decisions\n\nWhy it is made so, and what was rejected.\n\n{_contents('decisions', names)}"
