"""Plug in and out devices of umockdev while a command runs: umockdev-wrapper python plugging.py SPEC COMMAND...

Standard input is a list of steps in JSON, each {"plug": DESCRIPTION, "event": SYSPATH} or {"unplug": SYSPATH}, and
"until": what SPEC, the file that COMMAND writes, has to hold in the end, or null if it is to be gone. Standard output
is the file after each step. umockdev has no program for this: its library is called.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: A step that takes longer has failed.
_PATIENCE = 30


class Testbed:
    """UMockdevTestbed of libumockdev."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libumockdev.so.0")
        self._library.umockdev_testbed_new.restype = ctypes.c_void_p
        self._bed = ctypes.c_void_p(self._library.umockdev_testbed_new())

    def plug(self, description: str, event: str) -> None:
        if not self._library.umockdev_testbed_add_from_string(self._bed, description.encode(), None):
            sys.exit(f"not a description: {description}")
        self._library.umockdev_testbed_uevent(self._bed, f"/sys{event}".encode(), b"add")

    def unplug(self, device: str) -> None:
        self._library.umockdev_testbed_uevent(self._bed, f"/sys{device}".encode(), b"remove")
        self._library.umockdev_testbed_remove_device(self._bed, f"/sys{device}".encode())


def do(step: dict[str, Any], bed: Testbed) -> None:
    if "plug" in step:
        bed.plug(step["plug"], step["event"])
    elif "unplug" in step:
        bed.unplug(step["unplug"])


def content(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def wait_for(path: Path, wanted: str | None) -> str | None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        now = content(path)
        if (now is None) if wanted is None else (wanted in (now or "")):
            return now
        if time.monotonic() > deadline:
            sys.exit(f"{path} was to hold {wanted!r}, it is: {now}")
        time.sleep(0.05)


def main(spec: str, *command: str) -> None:
    bed = Testbed()
    # Without env=: the library has told the environment where the devices are, and os.environ knows nothing of it.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            # Its first word: it listens from then on.
            running.stderr.readline()
            seen = []
            for step in json.load(sys.stdin):
                do(step, bed)
                seen.append(wait_for(Path(spec), step["until"]))
        finally:
            running.terminate()
    sys.stdout.write(json.dumps({"seen": seen, "status": running.returncode}))


if __name__ == "__main__":
    main(*sys.argv[1:])
