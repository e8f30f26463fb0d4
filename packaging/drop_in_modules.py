"""Write the modulefiles for the drop-ins of a package: drop_in_modules.py SHIMS DIRECTORY.

SHIMS is where the drop-ins will be, DIRECTORY where the files go now.
"""

# ruff: noqa: INP001 - a program
from __future__ import annotations

import sys
from pathlib import Path

from cdi_hpc.cli.shims import modulefiles_for


def main(shims: str, directory: str) -> None:
    """Write them."""
    for name, text in modulefiles_for(shims):
        Path(directory, name).write_text(text, "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
