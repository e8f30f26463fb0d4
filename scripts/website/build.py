"""Making the site, and what has to be true of it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from scripts.website import pages

HERE = Path(__file__).parent

#: In a site: the files that it is made of, and that the next one takes the place of.
MANIFEST = ".cdi-hpc-site"

#: Elements that make a browser fetch something, and the attribute that says what.
_FETCHING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


def site(project: Path, directory: Path) -> int:
    """Make it; the exit status. A site that is in the directory from another time is replaced, nothing else."""
    obstacle = in_the_way(directory)
    if obstacle:
        sys.stderr.write(f"{obstacle} (name another directory)\n")
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "site"
        status = _make(project, Path(temporary), made)
        if status == 0:
            put(made, directory)
    return status


def in_the_way(directory: Path) -> str:
    """Why a site can't be put into a directory, or ""."""
    if not os.path.lexists(directory):
        return ""
    if not directory.is_dir():
        return f"{directory}: is no directory"
    made = _listed(directory)
    for parent, directories, names in os.walk(directory):
        for name in (*names, *(each for each in directories if Path(parent, each).is_symlink())):
            path = Path(parent, name)
            if str(path.relative_to(directory)) not in made:
                return f"{path}: is no file of a site that was made by this script"
    return ""


def put(made: Path, directory: Path) -> None:
    """Put a site in the place of the one that is there. Whatever stops this, the next one may go on."""
    directory.mkdir(parents=True, exist_ok=True)
    old = _listed(directory)
    new = {str(path.relative_to(made)) for path in made.rglob("*") if not path.is_dir()} | {MANIFEST}
    (directory / MANIFEST).write_text("".join(f"{name}\n" for name in sorted(old | new)), "utf-8")
    for name in old - new:
        (directory / name).unlink(missing_ok=True)
    for parent, _, _ in os.walk(directory, topdown=False):
        if not os.listdir(parent):
            os.rmdir(parent)
    shutil.copytree(made, directory, dirs_exist_ok=True)
    (directory / MANIFEST).write_text("".join(f"{name}\n" for name in sorted(new)), "utf-8")


def _listed(directory: Path) -> set[str]:
    """The files that a site's manifest names."""
    try:
        return {*(directory / MANIFEST).read_text("utf-8").splitlines()}
    except FileNotFoundError:
        return set()


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
    from sphinx.cmd.build import main as sphinx

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
