"""Machines to install packages on: trees of the lab that are changed in a layer of their own."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]

_WITH_LAYER = """
set -eu
tree=$1 layer=$2
shift 2
mount -t overlay -o "lowerdir=$tree,upperdir=$layer/upper,workdir=$layer/work" overlay "$tree"
exec "$@"
"""

# rpm's own chroot: the machine below the builder, whose rpm it is.
_BY_RPM = """
set -eu
machine=$1 builder=$2 packages=$3
shift 3
mount --bind "$machine" "$builder/mnt"
mount --rbind /proc "$builder/mnt/proc"
mount --rbind /dev "$builder/mnt/dev"
mount --bind "$packages" "$builder/srv"
cd /
exec chroot "$builder" sh -c 'cd /srv && exec rpm --root /mnt "$@"' sh "$@"
"""


@dataclass(frozen=True)
class Machine:
    """A tree of the lab, and what was changed in it.

    Attributes:
        lab: where the trees are.
        tree: name of one.
        layer: directory for what is changed, on a file system that overlayfs can write to.

    """

    lab: Path
    tree: str
    layer: Path

    def __post_init__(self) -> None:
        """Make the layer."""
        for name in ("upper", "work"):
            (self.layer / name).mkdir(parents=True)

    def run(self, *argv: str | Path, root: bool = False, fails: bool = False) -> str:
        """Run a command as the tests' user, or as root; give what it said on both outputs."""
        enter = [SOURCE / "tests/lab/enter", *(["--root"] if root else []), "--tree", self.tree, "--source", SOURCE]
        return self._call([*enter, "--", *argv], fails=fails)

    def rpm(self, builder: str, packages: Path, *arguments: str) -> str:
        """Run the rpm of another tree with this machine as its root; ``packages`` is where it works."""
        script = [*("sh", "-c", _BY_RPM, "sh"), self.lab / self.tree, self.lab / builder, packages]
        return self._call([*script, *arguments])

    def _call(self, argv: list[str | Path], *, fails: bool = False) -> str:
        layered = ["sh", "-c", _WITH_LAYER, "sh", self.lab / self.tree, self.layer, *argv]
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--", *map(str, layered)],
            env={**os.environ, "CDI_HPC_LAB": str(self.lab)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=300,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"exit status {done.returncode}: {argv}\n{done.stdout}"
        return done.stdout

    def files(self) -> dict[str, str]:
        """Everything that differs from the tree: path -> what it is.

        A directory that the tree has as well is in the layer for what is, or was, in it.
        """
        upper, lower = self.layer / "upper", self.lab / self.tree
        found = {
            path.relative_to(upper): _what_is(path)
            for parent, directories, names in os.walk(upper)
            for path in (Path(parent, name) for name in (*directories, *names))
        }
        return {f"/{path}": what for path, what in found.items() if not (lower / path).is_dir()}


def _what_is(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{path.lstat().st_mode:o}"
