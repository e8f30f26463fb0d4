"""Which cluster tests get, and what is said to containers: all but the engine and the images."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import slurm_providers
from slurm_providers import DockerCluster, LacksError, NotAskedForError, batch, choose, srun

#: What a docker command answers -> what is lacking where pytest-slurm is installed.
ENGINES = {
    "no command": (None, ["there is no docker command"]),
    "all there": ("exit 0", []),
    "no engine": (
        'case $1 in version) echo "Cannot connect to the\n daemon" >&2; exit 1;; esac',
        ["no Docker engine answers: Cannot connect to the daemon"],
    ),
    "no compose": (
        'case $1 in compose) echo "no such command" >&2; exit 1;; esac',
        ["docker has no compose: no such command"],
    ),
    "neither": (
        "echo no >&2; exit 1",
        ["no Docker engine answers: no", "docker has no compose: no"],
    ),
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a docker command that says what it is told to, or none; with pytest-slurm, or not."""

    def make(engine: str, *, installed: bool = True) -> list[str]:
        text, lacks = ENGINES[engine]
        if text is not None:
            (tmp_path / "docker").write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / "docker").chmod(0o755)
        (tmp_path / "pytest_slurm").mkdir(exist_ok=True)
        (tmp_path / "pytest_slurm/__init__.py").touch()
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "path", [str(tmp_path)] if installed else [])
        monkeypatch.delitem(sys.modules, "pytest_slurm", raising=False)
        return lacks

    return make


@pytest.mark.parametrize("engine", [*ENGINES])
def test_containers_need_the_package_an_engine_and_compose(machine, engine):
    lacks = machine(engine)
    assert slurm_providers.docker_lacks() == lacks


def test_the_extra_is_named_where_the_package_is_missing(machine):
    machine("all there", installed=False)
    (lack,) = slurm_providers.docker_lacks()
    assert "pip install '.[slurm-docker]'" in lack


@pytest.mark.parametrize(
    ("name", "asked", "engine", "outcome"),
    [
        ("local", "local", "no command", "local"),
        ("local", "local", "all there", "local"),  # containers are not started because they could be
        ("docker", "local", "all there", NotAskedForError),
        ("local", "docker", "all there", NotAskedForError),
        ("docker", "docker", "all there", "docker"),
        ("docker", "docker", "no engine", LacksError),
        ("docker", "docker", "no command", LacksError),
    ],
)
def test_the_provider_is_the_one_that_was_asked_for(machine, name, asked, engine, outcome):
    machine(engine)
    if isinstance(outcome, str):
        assert choose(name, asked) is slurm_providers.PROVIDERS[outcome]
    else:
        with pytest.raises(outcome, match=f"--slurm-cluster={asked}"):
            choose(name, asked)


def test_there_is_a_provider_for_each_name_and_the_default_is_one():
    assert tuple(slurm_providers.PROVIDERS) == slurm_providers.NAMES


def test_there_is_a_provider_for_what_the_option_says(request):
    assert request.config.getoption("--slurm-cluster") in slurm_providers.NAMES


@dataclass
class Answer:
    exit_code: int = 0
    stdout: bytes | None = None
    stderr: bytes | None = None


@dataclass
class Recorded:
    """In place of docker exec: what it was asked."""

    answer: Answer = field(default_factory=Answer)
    asked: list[tuple[list[str], dict[str, Any]]] = field(default_factory=list)

    def run(self, command: str, **arguments: Any) -> Answer:
        self.asked.append((shlex.split(command), arguments))
        return self.answer


WORDS = [
    ["true"],
    ["sh", "-c", "echo $HOME; true"],
    ["printf", "%s", "a 'b' \"c\" \\ $(id) `id`"],
    ["printf", "", "\n", "*", "é"],
]


@pytest.mark.parametrize("words", WORDS)
def test_words_reach_the_container_as_they_are(words):
    connection = Recorded()
    DockerCluster(connection, "user", "debug").run(*words)
    assert connection.asked[0][0] == words


def test_a_command_is_the_users_and_finds_program_and_partition():
    connection = Recorded(Answer(3, b"out\xff", None))
    done = srun(DockerCluster(connection, "user", "debug"), "env", env={"A": "b"})
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\udcff", "")
    words, arguments = connection.asked[0]
    assert words == ["srun", "--quiet", "-N2", "-n2", "env"]
    assert (arguments["user"], arguments["workdir"]) == ("user", "/home/user")
    environment = arguments["environment"]
    assert environment["PATH"].startswith("/opt/venv/bin:")
    assert {environment[f"{name}_PARTITION"] for name in ("SLURM", "SBATCH", "SALLOC")} == {"debug"}
    assert environment["A"] == "b"


def test_a_script_is_written_by_the_user_and_its_output_read():
    connection = Recorded(Answer(0, b"said", None))
    assert batch(DockerCluster(connection, "user", "debug"), "#!/bin/sh\n", "-n2") == (0, "said")
    (written, _), (submitted, _), (read, _) = connection.asked
    path = "/home/user/cdi-hpc-tests/script"
    assert written[3:] == ["sh", path, "#!/bin/sh\n"]
    assert submitted == ["sbatch", "--wait", "--quiet", "-N2", f"--output={path}.output", "-n2", path]
    assert read == ["cat", f"{path}.output"]
    assert all(arguments["user"] == "user" for _, arguments in connection.asked)
