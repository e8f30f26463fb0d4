"""How many facts of the reference views hold in each setting that this machine has the launcher for.

tests/lab/enter --tree sid-host -- python tests/contract/facts.py
"""
# ruff: noqa: T201 - a program that prints a table

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from run.launchers import Request, program, said, start
from settings import THROUGH, Setting, installed, make
from views import view

#: Case -> facts that the reference states.
FACTS = {"nvidia-ctk-hook-spelling": 17, "nvidia-dgxa100-570": 303, "nvidia-driver-root": 12}


def compared(setting: Setting, case: view.Case) -> view.Comparison:
    """What a process sees of a case's devices in this setting, against the reference."""
    request = Request((case.device,), (str(case.directory),))
    argv = setting.argv(request, ["sh", "-c", view.INSIDE, "sh", *case.questions()])
    # The reference image has its libraries where the paths say; elsewhere the mounts are where the links lead.
    return view.compare(case.wanted, case.normalise(said(start(argv, env={"RESOLVE_LINKS": "yes"}))))


def main() -> int:
    """Print a row for each setting, and the facts that do not hold."""
    misses = 0
    images = Path(os.environ["CDI_HPC_LAB"]) / "images"
    with tempfile.TemporaryDirectory(prefix="facts-") as scratch:
        shims = Path(scratch) / "shims"
        subprocess.run([program(), "shims", shims], stdout=subprocess.DEVNULL, check=True)
        print(f"{'':40}", *(f"{case!s:>26}" for case in view.CASES))
        for place in installed(THROUGH):
            setting = make(place, images / place.image, shims, Path(scratch))
            found = [compared(setting, case) for case in view.CASES]
            counts = [(sum(row.asked.values()) - len(row.misses), sum(row.asked.values())) for row in found]
            print(f"{place!s:40}", *(f"{shown:>20} of {asked}" for shown, asked in counts))
            print(*(f"    {miss}\n" for row in found for miss in row.misses), sep="", end="")
            misses += sum(len(row.misses) for row in found)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
