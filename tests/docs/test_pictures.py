"""The pictures of docs/images show what the commands show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cdi_hpc.doctor.checks import STATUSES
from cdi_hpc.doctor.table import CHECKS
from scripts.website import pictures, terminal

PROJECT = Path(__file__).parents[2]
IMAGES = PROJECT / "docs/images"
OUT_OF_DATE = "take it again: scripts/docs --update"


@pytest.fixture(scope="module")
def at_home(lab):
    """The home that the pictures were taken in."""
    terminal.clear()
    terminal.prepare(lab.image("debian-root"), PROJECT / "native/build/cdi-hpc-run")
    yield
    terminal.clear()


def drawn(name: str) -> str:
    return (IMAGES / f"{name}.svg").read_text("utf-8")


@pytest.mark.parametrize("name", ["plan", "explain"])
def test_a_picture_shows_what_the_command_shows(name: str, at_home):
    seen = pictures.plain(terminal.shown(terminal.COMMANDS[name]))
    assert pictures.content(drawn(name)) == seen, OUT_OF_DATE


def test_the_picture_of_the_doctor_has_every_check_that_he_makes(at_home):
    """What he finds is the machine's: its file systems, its programs, its limits."""
    rows = re.findall(rf"^({'|'.join(STATUSES)}) +([\w-]+)", pictures.content(drawn("doctor")), re.MULTILINE)
    seen = re.findall(
        rf"^({'|'.join(STATUSES)}) +([\w-]+)", pictures.plain(terminal.shown(terminal.COMMANDS["doctor"])), re.MULTILINE
    )
    assert {check for _, check in rows} == {check for _, check in seen}, OUT_OF_DATE
    assert {check for _, check in rows} <= {check.name for check in CHECKS}


@pytest.mark.parametrize("name", terminal.COMMANDS)
def test_the_text_of_a_picture_is_what_is_drawn(name: str):
    runs = re.findall(r"<text class=\"[\w-]+-r\d+\"[^>]*>([^<]*)</text>", drawn(name))
    letters = re.sub(r"\s", "", re.sub(r"&#160;", " ", "".join(runs)))
    described = re.search(r"<desc>(.*?)</desc>", drawn(name), re.DOTALL)
    assert letters == re.sub(r"\s", "", described[1]).replace('"', "&quot;").replace("'", "&#x27;")


@pytest.mark.parametrize("name", terminal.COMMANDS)
def test_a_picture_is_drawn_from_what_it_is_given_and_from_nothing_else(name: str):
    shown = "\x1b[1mA\x1b[0m <b>&\n\x1b[32mdone\x1b[0m\n"
    once = pictures.render(name, shown)
    assert once == pictures.render(name, shown)
    assert pictures.content(once) == "A <b>&\ndone"
    assert "http" not in once.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("name", terminal.COMMANDS)
def test_a_picture_is_on_a_page_and_says_what_it_shows(name: str):
    pages = [*(PROJECT / "docs").glob("*.md"), PROJECT / "README.md"]
    texts = [
        text for page in pages for text in re.findall(rf"!\[([^\]]*)\]\([\w/]*images/{name}\.svg\)", page.read_text())
    ]
    assert texts
    assert all(len(text.split()) > 3 for text in texts)


def test_every_picture_is_one_of_a_command():
    assert {path.stem for path in IMAGES.iterdir()} == set(terminal.COMMANDS)
