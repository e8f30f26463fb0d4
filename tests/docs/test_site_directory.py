"""Putting the site into a directory: nothing of anybody else's is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.website import build


@pytest.fixture
def made(tmp_path: Path) -> Path:
    site = tmp_path / "made"
    (site / "_static").mkdir(parents=True)
    (site / "index.html").write_text("<p>new</p>")
    (site / "searchindex.js").write_text("")
    (site / "_static" / "wide.css").write_text("")
    return site


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()} - {build.MANIFEST}


def test_a_site_takes_the_place_of_the_one_before(made: Path, tmp_path: Path):
    target = tmp_path / "deep" / "site"
    build.put(made, target)
    (made / "index.html").write_text("<p>newer</p>")
    (made / "_static" / "wide.css").unlink()
    (made / "_static").rmdir()
    assert build.in_the_way(target) == ""
    build.put(made, target)
    assert files(target) == {"index.html", "searchindex.js"}
    assert not (target / "_static").exists()
    assert (target / "index.html").read_text() == "<p>newer</p>"


def test_what_is_no_file_of_a_site_is_in_the_way_and_named(made: Path, tmp_path: Path):
    target = tmp_path / "site"
    build.put(made, target)
    (target / "_static" / "thesis.tex").write_text("years of work")
    assert build.in_the_way(target).startswith(f"{target}/_static/thesis.tex: ")


def test_a_site_that_somebody_else_made_is_in_the_way(made: Path):
    assert build.in_the_way(made) != ""


def test_a_link_is_in_the_way_whatever_it_leads_to(made: Path, tmp_path: Path):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    build.put(made, target)
    os.rename(target / "_static", elsewhere)
    (target / "_static").symlink_to(elsewhere)
    assert build.in_the_way(target).startswith(f"{target}/_static: ")


def test_a_file_is_no_directory(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert build.in_the_way(tmp_path / "file") == f"{tmp_path}/file: is no directory"
    (tmp_path / "dangling").symlink_to("nowhere")
    assert build.in_the_way(tmp_path / "dangling") == f"{tmp_path}/dangling: is no directory"


def test_a_new_or_empty_directory_is_free(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert build.in_the_way(tmp_path / "empty") == build.in_the_way(tmp_path / "new") == ""


def test_after_a_site_that_was_put_there_in_part_the_next_may_go_on(made: Path, tmp_path: Path, monkeypatch):
    target = tmp_path / "site"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    build.put(made, target)
    (made / "more.html").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(build.shutil, "copytree", stop)
        with pytest.raises(KeyboardInterrupt):
            build.put(made, target)
    (target / "more.html").write_text("half of it")
    assert build.in_the_way(target) == ""
