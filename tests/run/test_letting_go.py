"""What a child that enters a namespace has open: there, all processes of the user can reach into it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from cdi_hpc.launch import inheritance


def what_is_open() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def child(top: Path, kept: int) -> None:
    try:
        files = [os.open(top / f"file{number}", os.O_CREAT | os.O_WRONLY) for number in range(5)]
        inheritance.let_go(*files[1 : 1 + kept])
        found = what_is_open()
        (top / "found").write_text(json.dumps(found))
    finally:
        os._exit(0)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_child_that_lets_go_has_nothing_open_but_what_it_keeps(kept, tmp_path):
    pid = os.fork()
    if pid == 0:
        child(tmp_path, kept)
    os.waitpid(pid, 0)
    found = json.loads((tmp_path / "found").read_text())
    assert [found.pop(number) for number in "012"] == ["/dev/null"] * 3
    assert sorted(os.path.basename(path) for path in found.values()) == [
        f"file{number}" for number in range(1, 1 + kept)
    ]
