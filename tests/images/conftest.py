"""Trees and SquashFS files of them, made once."""

from __future__ import annotations

import pytest
import squashed


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return squashed.make_tree(tmp_path_factory.mktemp("tree") / "tree")


@pytest.fixture(scope="session")
def squash(tree, tmp_path_factory):
    """Make a SquashFS file of the tree, unless it is made already."""
    directory = tmp_path_factory.mktemp("squashfs")

    def make(*options: str):
        file = directory / f"image{''.join(options)}.squashfs"
        return file if file.exists() else squashed.squash(tree, file, *options)

    return make
