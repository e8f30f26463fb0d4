"""Whatever is in a configuration: it is read, or refused with a reason. Never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_cases import ALICE, mount, node, refusals, spec
from random_configurations import CONFIGURATIONS, NEARLY
from site_files import load
from test_keys import KEYS
from typed import STATUSES, typed

from cdi_hpc import config, trusted_program
from cdi_hpc.config import VARIABLES, Configuration, files
from cdi_hpc.config.build import build
from cdi_hpc.config.files import ConfigFile
from cdi_hpc.config.settings import join, of_environment, of_file
from cdi_hpc.errors import CdiError
from cdi_hpc.site.aliases import expand
from cdi_hpc.site.policy import hook_rule
from cdi_hpc.spec.model import Hook

ASKED = spec(env=("LD_PRELOAD=/x",), **mount("/etc/passwd"), **node("/dev/nvidia0"))


def use(configuration: Configuration) -> None:
    """Everything that a launch does with one."""
    with contextlib.suppress(CdiError):
        expand(["gpu", "mpi,gpu", "x"], configuration.aliases)
    if configuration.policy is not None:
        refusals(configuration.policy, ASKED, ALICE)
        hook_rule(configuration.policy, Hook("createContainer", "/usr/bin/x"))
    for launcher in ("embedded", "bash", "unheard-of"):
        configuration.launcher(launcher)


def read(data: bytes) -> Configuration | None:
    """The configuration of a site's file, None if it is refused; a refusal has its reasons, fit for a terminal."""
    try:
        return build(join(of_file(ConfigFile("x.yaml", data), "site")))
    except CdiError as error:
        texts = [str(problem) for problem in error.problems]
    assert texts
    assert all(text.isprintable() and text.startswith("x.yaml") for text in texts)
    return None


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(NEARLY)
def test_nearly_any_configuration_is_used_or_refused(value):
    for data in (yaml.safe_dump(value, allow_unicode=True).encode(errors="replace"), json.dumps(value).encode()):
        configuration = read(data)
        if configuration is not None:
            use(configuration)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(CONFIGURATIONS)
def test_any_configuration_that_the_schema_allows_is_used_or_refused(value):
    configuration = read(yaml.safe_dump(value).encode())
    if configuration is not None:
        use(configuration)


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=60), st.text(alphabet="{}[]:-,&*!|>'\"# \n\tab0", max_size=60).map(str.encode)))
def test_any_bytes_are_a_configuration_or_refused(data):
    read(data)


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(VARIABLES), st.text()))
def test_any_variables_are_used_or_refused(environ):
    with contextlib.suppress(CdiError):
        build(join(of_environment(environ)))


def test_a_deep_and_a_wide_file_are_no_problem(tmp_path: Path):
    load(tmp_path, {"site/config.yaml": "aliases:\n" + "".join(f"  a{n}: a.com/b={n}\n" for n in range(1000))})
    with pytest.raises(CdiError, match="1001 entries, more than the 1000"):
        load(tmp_path, {"site/config.yaml": "aliases:\n" + "".join(f"  a{n}: a.com/b={n}\n" for n in range(1001))})
    with pytest.raises(CdiError, match="nested more than"):
        load(tmp_path, {"site/config.yaml": "[" * 5000})


# Commands ---------------------------------------------------------------------------------------------------------

TESTS = Path(__file__).parents[1]
SPECS = TESTS / "views/nvidia-dgxa100-570"
DEVICE = "nvidia.com/gpu=0"

#: What a configuration has a say in. {file} is one that holds it.
COMMANDS = (
    ("config", "check"),
    ("config", "check", "{file}"),
    ("config", "show"),
    ("config", "show", "--format=json"),
    ("list",),
    ("resolve", "gpu", DEVICE),
    ("plan", DEVICE),
    ("plan", "gpu,mpi", DEVICE, "--format=json"),
    ("explain", DEVICE),
    ("explain", DEVICE, "--format=json"),
    ("compile", DEVICE),
    ("compile", "--gres=gpu=0", DEVICE),
    ("compile", "--handoff", "--gres=gpu=0", DEVICE),
    ("script", DEVICE),
    ("lock", DEVICE),
    ("run", "--device", DEVICE, "/", "true"),
    ("run", "/", "true"),
    ("exec", "ch-run", "--device", DEVICE, "/", "--", "true"),
    ("doctor", DEVICE),
    ("cache", "list"),
)


def joined(texts: Sequence[str]) -> dict[str, object]:
    """One configuration of several; of two values of a key the later one."""
    whole: dict[str, object] = {}

    def add(to: dict[str, object], more: Mapping[str, object]) -> None:
        for key, value in more.items():
            below = to.get(key)
            if isinstance(value, dict) and isinstance(below, dict):
                add(below, value)
            else:
                to[key] = value

    for text in texts:
        add(whole, yaml.safe_load(text))
    return whole


#: Keys that do something, with values that are right: a configuration by chance is refused more often than not.
RIGHT = st.lists(st.sampled_from([right for right, *_ in KEYS.values()]), min_size=1, max_size=5).map(joined)


def installed(top: Path, value: object, level: str) -> Callable[[], None]:
    """Make a value the site's configuration, or a user's, in this process: both are believed if they are ours."""
    for name in ("site", "user/cdi-hpc"):
        (top / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        (top / name / "config.yaml").unlink(missing_ok=True)
    path = top / level / "config.yaml"
    path.write_bytes(yaml.safe_dump(value, allow_unicode=True).encode(errors="replace"))
    path.chmod(0o644)

    def prepare() -> None:
        config.SITE_DIRECTORY = files.SITE_DIRECTORY = str(top / "site")
        trusted_program.roots = lambda: frozenset({os.geteuid()})
        os.environ.update(XDG_CONFIG_HOME=str(top / "user"), CDI_HPC_DIRS=str(SPECS))

    return prepare


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_shows_a_traceback_whatever_is_configured(command, tmp_path: Path):
    """A thousand configurations in all."""

    @settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    @given(st.one_of(RIGHT, CONFIGURATIONS, NEARLY), st.sampled_from(["site", "user/cdi-hpc"]))
    def hold(value: object, level: str) -> None:
        prepare = installed(tmp_path, value, level)
        words = [word.format(file=tmp_path / level / "config.yaml") for word in command]
        status, said = typed(words, str(tmp_path), prepare)
        assert "Traceback" not in said, said
        assert status in STATUSES, f"{status}: {said}"

    hold()


def test_there_are_a_thousand():
    assert 50 * len(COMMANDS) >= 1000


def test_what_is_installed_so_is_read(tmp_path: Path):
    """Else no command would have seen any."""
    for level in ("site", "user/cdi-hpc"):
        prepare = installed(tmp_path, {"aliases": {"gpu": 1}}, level)
        status, said = typed(["resolve", "gpu"], str(tmp_path), prepare)
        assert status == 1
        assert f"{tmp_path}/{level}/config.yaml:2:3: aliases.gpu: expected text" in said
