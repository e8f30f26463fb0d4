"""What commands show on a terminal, taken in the lab: ``python3 -m scripts.website.terminal`` prints it as JSON.

It runs on the lab's host (tests/lab/enter), with the pretended driver, a spec beside this file and an image of the lab.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

#: The home of the lab's user: it is seen in the pictures.
HOME = Path("/home/cdilab")

COLUMNS = 124
_ROWS = 60

#: Name of the picture -> what is typed.
COMMANDS: Mapping[str, Sequence[str]] = {
    "plan": ("cdi-hpc", "plan", "--image", "debian12", "./gpu.yaml"),
    "explain": ("cdi-hpc", "explain", "--image", "debian12", "--for", "embedded,ch-run", "./gpu.yaml"),
    "doctor": ("cdi-hpc", "doctor", "./gpu.yaml"),
}


def prepare(image: Path, runner: Path) -> None:
    """Put into the home what the commands are about."""
    shutil.copy(Path(__file__).parent / "gpu.yaml", HOME)
    (HOME / "debian12").symlink_to(image)
    (HOME / "bin").mkdir()
    shutil.copy(runner, HOME / "bin")


def clear() -> None:
    """Take it away."""
    (HOME / "gpu.yaml").unlink(missing_ok=True)
    (HOME / "debian12").unlink(missing_ok=True)
    shutil.rmtree(HOME / "bin", ignore_errors=True)


def shown(command: Sequence[str]) -> str:
    """The command's standard output on a terminal, with the terminal's escapes."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, COLUMNS, 0, 0))
    environ = {name: os.environ[name] for name in ("USER", "LANG", "XDG_RUNTIME_DIR") if name in os.environ}
    environ.update(HOME=str(HOME), TERM="xterm-256color", PATH=f"{HOME}/bin:{os.environ['PATH']}")
    environ["CDI_HPC_NATIVE"] = f"{HOME}/bin/cdi-hpc-run"  # and not the checkout's
    # Where progress is shown is no terminal, so there is none of it.
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, cwd=HOME, env=environ) as process:
        os.close(terminal)
        pieces = []
        try:
            while piece := os.read(main, 1 << 16):
                pieces.append(piece)
        except OSError:  # EIO: the program has ended (pty(7))
            pass
        _, said = process.communicate()
    os.close(main)
    if not pieces:
        raise RuntimeError(f"{' '.join(command)}: shows nothing: {said.decode()}")
    return b"".join(pieces).decode().replace("\r\n", "\n")


def main() -> None:
    """Print what all of them show."""
    prepare(Path("/lab/images/debian-root"), Path(__file__).parents[2] / "native/build/cdi-hpc-run")
    json.dump({name: shown(command) for name, command in COMMANDS.items()}, sys.stdout)


if __name__ == "__main__":
    main()
