"""Whatever is in a configuration: it is read, or refused with a reason. Never a traceback."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_cases import ALICE, mount, node, refusals, spec
from random_configurations import CONFIGURATIONS, NEARLY
from site_files import load

from cdi_hpc.aliases import expand
from cdi_hpc.config import VARIABLES, Configuration
from cdi_hpc.config.build import build
from cdi_hpc.config.files import ConfigFile
from cdi_hpc.config.settings import join, of_environment, of_file
from cdi_hpc.errors import CdiError
from cdi_hpc.model import Hook
from cdi_hpc.policy import hook_rule

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
