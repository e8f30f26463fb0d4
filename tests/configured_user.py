"""A user with a configuration file, drop-ins on his PATH, and specs: launches as he types them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

RUNNER = Path(__file__).parents[1] / "native/build/cdi-hpc-run"

#: Where Python would be started, this is said instead.
NO_PYTHON = {"CDI_HPC_PYTHON_FRONT": "/bin/false"}

ONE, TWO = "user.org/tool=one", "user.org/tool=two"
SPEC = {
    "cdiVersion": "0.6.0",
    "kind": "user.org/tool",
    "devices": [
        {"name": "one", "containerEdits": {"env": ["TOOL=one"]}},
        {"name": "two", "containerEdits": {"env": ["TOOL=two"]}},
    ],
}

#: What a launch with this command says.
SAY = ("sh", "-c", 'echo "${TOOL-none}"')


@dataclass
class User:
    """What is his."""

    top: Path
    image: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        """Where his plans are if nobody says otherwise."""
        return self.top / "run/cdi-hpc"

    @property
    def file(self) -> Path:
        return self.top / "home/cdi-hpc/config.yaml"

    def configure(self, text: str) -> None:
        """Write his file."""
        self.file.parent.mkdir(mode=0o755, exist_ok=True)
        self.file.write_text(text)
        self.file.chmod(0o644)

    def do(self, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command as he would."""
        return subprocess.run(
            [str(word) for word in words],
            env={**os.environ, **self.env, **env},
            cwd=self.top,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def said(self, *words: object, **env: str) -> str:
        """Standard output of a command, which has nothing to complain of; launchers tell other things."""
        done = self.do(*words, **env)
        assert (done.returncode, "cdi-hpc: " in done.stderr) == (0, False), done.stderr
        return done.stdout.strip()


def make_user(top: Path, image: Path, *launchers: str) -> User:
    """A user with a drop-in for each launcher, and no configuration."""
    for name, mode in (("home", 0o755), ("specs", 0o755), ("shims", 0o755), ("run", 0o700)):
        (top / name).mkdir(mode=mode)
    (top / "specs/tool.json").write_text(json.dumps(SPEC))
    for name in ("cdi-hpc-run", *launchers):
        (top / "shims" / name).symlink_to(RUNNER)
    env = {
        "XDG_RUNTIME_DIR": str(top / "run"),
        "XDG_CONFIG_HOME": str(top / "home"),
        "CDI_HPC_DIRS": str(top / "specs"),
        "CDI_HPC_DEVICES": "",
        "CDI_HPC_CACHE_DIRECTORY": "",
        "PATH": f"{top}/shims:{os.environ['PATH']}",
    }
    return User(top, image, env)
