"""Making the site, and what has to be true of it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from sphinx.cmd.build import main as sphinx

from scripts.website import pages

HERE = Path(__file__).parent

#: Elements that make a browser fetch something, and the attribute that says what.
_FETCHING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


def site(project: Path, directory: Path) -> int:
    """Make it; the exit status. A site that is in the directory from another time is replaced, nothing else."""
    if directory.exists() and any(directory.iterdir()) and not (directory / "searchindex.js").exists():
        sys.stderr.write(f"{directory}: is not empty, and what is there is no site (name another directory)\n")
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "site"
        status = _make(project, Path(temporary), made)
        if status == 0:
            shutil.rmtree(directory, ignore_errors=True)
            shutil.copytree(made, directory)
    return status


def check(project: Path) -> int:
    """Make it and throw it away; the exit status."""
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "site"
        return _make(project, Path(temporary), made)


def _make(project: Path, temporary: Path, made: Path) -> int:
    source = temporary / "source"
    pages.stage(project, source)
    (source / "_static").mkdir()
    shutil.copy(HERE / "wide.css", source / "_static")
    shutil.copy(HERE / "conf.py", source)
    # A warning is a link that leads nowhere, or a page that none leads to: all are shown, then it fails.
    status = sphinx(["-q", "-W", "--keep-going", "-d", str(temporary / "doctrees"), str(source), str(made)])
    for page, address in _foreign(made):
        sys.stderr.write(f"{page.relative_to(made)}: fetches {address} from elsewhere\n")
        status = 1
    return status


class _Fetches(HTMLParser):
    """Collects what a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(_FETCHING.get(tag, ""))
        if address:
            self.addresses.append(address)


def _foreign(made: Path) -> Iterator[tuple[Path, str]]:
    """What pages fetch from other hosts: the site is read on machines without a way there."""
    for page in sorted(made.rglob("*.html")):
        fetches = _Fetches()
        fetches.feed(page.read_text("utf-8"))
        yield from ((page, address) for address in fetches.addresses if "//" in address)
    for sheet in sorted([*made.rglob("*.css"), *made.rglob("*.svg")]):
        text = sheet.read_text("utf-8")
        for mark in ("url(http", "url(//", "@import"):
            if mark in text:
                yield sheet, mark
