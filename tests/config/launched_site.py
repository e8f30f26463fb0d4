"""A machine with a site configuration, and a user's, for real launches.

Nobody but root may write to /etc. In a user namespace of our own we are root, so launches find our files where they
look: an overlay makes room for them in /etc.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cdi_hpc.compiled.plan_cache import PlanCache

SPEC = {
    "cdiVersion": "0.6.0",
    "kind": "site.org/tool",
    "devices": [
        {"name": "one", "containerEdits": {"env": ["TOOL=one"]}},
        {"name": "two", "containerEdits": {"env": ["TOOL_TWO=two"]}},
    ],
}
RUNNER = Path(__file__).parents[2] / "native/build/cdi-hpc-run"


@dataclass
class Site:
    """A machine with configuration files of its own.

    Attributes:
        mounts: commands that put more of ours where launches look for it.

    """

    top: Path
    lab: object
    image: Path
    env: dict[str, str] = field(default_factory=dict)
    mounts: list[str] = field(default_factory=list)

    @property
    def specs(self) -> Path:
        return self.top / "specs"

    def configure(self, text: str, name: str = "config.yaml") -> None:
        """Write a file of the site's."""
        path = self.top / "etc/cdi-hpc" / name
        path.write_text(text)
        path.chmod(0o644)

    def configure_user(self, text: str) -> None:
        """Write the user's file."""
        path = self.top / "home/cdi-hpc/config.yaml"
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)

    def spec(self, **changes: object) -> None:
        """Write the spec, with other edits for the whole of it."""
        (self.specs / "tool.json").write_text(json.dumps({**SPEC, "containerEdits": changes} if changes else SPEC))

    def do(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return self.play(f"exec {' '.join(map(shlex.quote, words))}", **env)

    def play(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a script there."""
        mounts = (
            f"mount -t overlay -o lowerdir={self.top}/room:/etc overlay /etc",
            f"mount --bind {self.top}/etc/cdi-hpc /etc/cdi-hpc",
            *self.mounts,
        )
        script = "\n".join(("set -e", *mounts, script))
        return self.lab.run(["unshare", "-rm", "bash", "-c", script], env={**self.env, **env}, cwd=self.top)

    def run(self, *options: str, command: str = "env", **env: str) -> subprocess.CompletedProcess[str]:
        """Launch a command in the image."""
        return self.do("cdi-hpc", "run", *options, str(self.image), "sh", "-c", command, **env)

    def env_of(self, *options: str, **env: str) -> dict[str, str]:
        """The tools that a launch has, by the variables that their specs set."""
        done = self.run(*options, **env)
        assert done.returncode == 0, done.stderr
        pairs = (line.partition("=")[::2] for line in done.stdout.splitlines())
        return {name: value for name, value in pairs if name.startswith("TOOL")}

    def refusal(self, *options: str, **env: str) -> str:
        """What is said by a launch that does not begin."""
        done = self.run(*options, **env)
        assert (done.returncode, done.stdout) == (125, ""), done.stderr
        return done.stderr

    def plans(self) -> list[str]:
        """Keys of the plans that are kept."""
        return [plan.key for plan in PlanCache(str(self.top / "run/cdi-hpc")).plans()]


def make_site(lab, top: Path) -> Site:
    for name in ("etc/cdi-hpc/config.d", "room/cdi-hpc", "run", "home", "specs"):
        (top / name).mkdir(parents=True)
    for path in top.rglob("*"):
        path.chmod(0o755)
    (top / "run").chmod(0o700)
    env = {"XDG_RUNTIME_DIR": str(top / "run"), "XDG_CONFIG_HOME": str(top / "home"), "COLUMNS": "300"}
    made = Site(top, lab, lab.image("debian-root"), env)
    made.spec()
    made.configure(f"spec-directories: [{made.specs}]")
    return made
