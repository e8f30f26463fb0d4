"""Configuration directories of a test: the test's own user stands for root."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cdi_hpc import config
from cdi_hpc.config import Configuration, Loaded
from cdi_hpc.config.files import ConfigFile, Places, Trust
from cdi_hpc.config.settings import join, of_file

ME = os.geteuid()


def places(top: Path) -> Places:
    """``site`` and ``user`` below a directory, with the trust of a real machine, but us in root's place."""
    return Places(
        str(top / "site"), str(top / "user"), Trust(frozenset({ME}), 0o022), Trust(frozenset({ME}), 0o002, own=True)
    )


def write(top: Path, files: Mapping[str, str]) -> Places:
    """Write files, named as ``site/config.d/10-x.yaml``; nobody else can write to them, whatever the umask."""
    for name in ("site", "user"):
        (top / name).mkdir(mode=0o755, exist_ok=True)
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(text)
        path.chmod(0o644)
    return places(top)


def load(top: Path, files: Mapping[str, str], environ: Mapping[str, str] | None = None) -> Loaded:
    """The configuration of these files and variables."""
    return config.load(environ or {}, ME, where=write(top, files), to_show=True)


def site(text: str) -> Configuration:
    """The configuration of one site file."""
    from cdi_hpc.config.build import build

    return build(join(of_file(ConfigFile("site.yaml", text.encode()), "site")))
