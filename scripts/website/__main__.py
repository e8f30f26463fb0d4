"""``python -m scripts.website DIRECTORY | --check | --update``: what ``scripts/docs`` calls, in the checkout's top."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.website import build, pictures, update

PROJECT = Path(__file__).parents[2]


def main(argument: str) -> int:
    """Do what was asked for; the exit status."""
    if argument == "--check":
        wrong = [*update.stale(PROJECT)]
        sys.stderr.writelines(f"{text}\n" for text in wrong)
        return build.check(PROJECT) or bool(wrong)
    if argument == "--update":
        update.write(PROJECT)
        pictures.take(PROJECT)
        return 0
    return build.site(PROJECT, Path(argument))


sys.exit(main(sys.argv[1]))
