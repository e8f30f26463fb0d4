"""What scripts/docs gives to Sphinx: every page, every manual page, and links that lead where they led."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cdi_hpc.cli import manual
from scripts.website import manuals, pages

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("site") / "source"
    pages.stage(PROJECT, directory)
    return directory


def test_every_page_of_docs_is_in_the_navigation():
    shown = {name for _, names in pages.NAVIGATION for name in names}
    elsewhere = {Path(place).stem for place in pages.OTHERS.values()} | {"manuals"}
    assert shown | {"index"} == {path.stem for path in (PROJECT / "docs").glob("*.md")} | elsewhere


def test_every_manual_page_and_every_decision_is_a_page(staged: Path):
    written = {Path(path).stem for path in manual.pages()}
    assert {path.stem for path in (staged / "man").iterdir()} == written
    contents = (staged / "manuals.md").read_text("utf-8")
    assert all(f"man/{name}\n" in contents for name in written)
    decisions = {path.name for path in (PROJECT / "docs/decisions").iterdir()}
    assert {path.name for path in (staged / "decisions").iterdir()} == decisions


def test_a_manual_page_says_what_man_says(staged: Path):
    text = (staged / "man/cdi-hpc-run.md").read_text("utf-8")
    assert text.startswith("# cdi-hpc-run(1)\n")
    assert "## Exit status" in text
    assert re.search(r"<dt><strong>-d, --device DEVICE</strong></dt>\n<dd>\n\w", text)
    assert "[cdi-hpc(1)](cdi-hpc.md)" in text
    for page in (staged / "man").iterdir():
        translated = page.read_text("utf-8")
        assert translated.count("<dl>") == translated.count("</dl>")
        assert "\\" not in translated.replace("\\&", "")


@pytest.mark.parametrize("line", [".XX unknown", "a \\*x b", ".BR no-such-page (1)"])
def test_what_a_manual_page_never_had_is_an_error(line: str):
    with pytest.raises(ValueError, match=r"unknown|no page"):
        [*manuals._Page(["cdi-hpc"]).translated(line)]


@pytest.mark.parametrize(
    "source, text, on_the_site",
    [
        ("README.md", "[a](docs/hpc.md)", "[a](hpc.md)"),
        ("README.md", "[a](docs/slurm.md#installing-the-plugin)", "[a](slurm.md#installing-the-plugin)"),
        ("README.md", "![a](docs/images/plan.svg)", "![a](images/plan.svg)"),
        ("README.md", "[a](docs/decisions)", "[a](decisions.md)"),
        ("README.md", "[a](LICENSE)", "a"),
        ("README.md", "[a](no-such-file)", "[a](no-such-file)"),
        ("README.md", "```\n[a](docs/hpc.md)\n```", "```\n[a](docs/hpc.md)\n```"),
        ("docs/backends.md", "[`a`](../cdi_hpc/backend.py) [b](hpc.md)", "`a` [b](hpc.md)"),
        ("docs/decisions/002-stage.md", "[a](../hooks.md) [b](#c)", "[a](../hooks.md) [b](#c)"),
        ("docs/hpc.md", "[a](https://example.org/x.md)", "[a](https://example.org/x.md)"),
    ],
)
def test_links_lead_where_they_led(source: str, text: str, on_the_site: str):
    places = {**pages.OTHERS, **{page: page.partition("/")[2] for page in pages._sources(PROJECT)}}
    assert pages._with_links(source, text, places, PROJECT) == on_the_site
