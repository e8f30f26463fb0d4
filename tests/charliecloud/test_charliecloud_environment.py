"""A spec's variables as words of ch-run: whatever is in a value comes out as it is in the spec."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cdi_hpc.backend import Text, Variable
from cdi_hpc.backends.charliecloud.environment import assignments
from cdi_hpc.plan import SetEnv
from cdi_hpc.spec.model import Origin

ORIGIN = Origin("/etc/cdi/a.yaml", "vendor.com/class=a", "devices[0].containerEdits.env[0]")

VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
AWKWARD = st.lists(st.sampled_from(["$", "'", ":", "$HOME", "$UNSET", "a", " ", "\n", '"', "\\", "="]), max_size=6)
ANY_VALUE = VALUES | AWKWARD.map("".join)

#: Names that are no one else's.
NAMES = st.from_regex(r"LAB_[A-Z0-9_]{1,6}", fullmatch=True)


def planned(**values: str) -> list[SetEnv]:
    return [SetEnv(name, value, ORIGIN) for name, value in values.items()]


def texts(made) -> list[str]:
    return [word.text for word in made.words if isinstance(word, Text)]


def as_documented(words: list[str], environ: Mapping[str, str]) -> dict[str, str]:
    """What ch-run(1) says that it does with the words."""
    result = dict(environ)
    for word in words:
        option, _, argument = word.partition("=")
        if option == "--unset-env":
            result = {name: value for name, value in result.items() if not name.startswith(argument.rstrip("*"))}
            continue
        name, _, value = argument.partition("=")
        if len(value) > 1 and value[0] == value[-1] == "'":
            value = value[1:-1]
        parts = []
        for part in value.split(":"):
            if len(part) > 1 and part[0] == "$":
                parts += [result[part[1:]]] if result.get(part[1:]) else []
            else:
                parts.append(part)
        result[name] = ":".join(parts)
    return result


def test_a_plain_value_is_one_word():
    made = assignments(planned(A="b=c d:e"), expands=True, unset_before=False)
    assert (texts(made), made.variables, made.lacks) == (["--set-env=A=b=c d:e"], (), ())


def test_quotes_around_a_value_are_doubled():
    assert texts(assignments(planned(A="'q'", B="'"), expands=True, unset_before=False)) == [
        "--set-env=A=''q''",
        "--set-env=B='",
    ]


def test_what_would_be_expanded_goes_by_a_variable_that_is_removed_again():
    made = assignments(planned(A="x:$HOME:y", B="$"), expands=True, unset_before=False)
    assert texts(made) == [
        "--set-env=A=x:$CDI_HPC_LITERAL_0:y",
        "--set-env=B=$",
        "--unset-env=CDI_HPC_LITERAL_*",
    ]
    assert made.variables == (Variable("CDI_HPC_LITERAL_0", "$HOME"),)


def test_where_nothing_is_expanded_nothing_is_protected():
    made = assignments(planned(A="$HOME"), expands=False, unset_before=True)
    assert (texts(made), made.variables, made.lacks) == (["--set-env=A=$HOME"], (), ())


def test_what_can_not_be_set_is_said():
    made = assignments(planned(A="$HOME", CH_RUNNING="no", B="b"), expands=True, unset_before=True)
    assert texts(made) == ["--set-env=B=b"]
    assert [(lack.edit, lack.fatal) for lack in made.lacks] == [("env A", False), ("env CH_RUNNING", False)]


@given(values=st.dictionaries(NAMES, ANY_VALUE, max_size=4))
@example(values={"LAB_A": "$LAB_B:''", "LAB_B": "'$HOME'"})
@example(values={"LAB_A": "$A:x:$B", "LAB_B": "$C:$C"})
def test_every_value_survives_what_the_manual_page_describes(values):
    made = assignments(planned(**values), expands=True, unset_before=False)
    environ = {"HOME": "/root", **{variable.name: variable.value for variable in made.variables}}
    assert as_documented(texts(made), environ) == {"HOME": "/root", **values}


@given(values=st.dictionaries(NAMES, ANY_VALUE, min_size=1, max_size=8))
@settings(max_examples=25)
def test_every_value_survives_the_installed_one(lab, values):
    made = assignments(planned(**values), expands=True, unset_before=False)
    words = [shutil.which("ch-run"), *texts(made), lab.image("debian-root"), "--", "env", "-0"]
    env = {**os.environ, **{variable.name: variable.value for variable in made.variables}}
    done = subprocess.run(words, env=env, capture_output=True, check=True)
    found = dict(entry.split("=", 1) for entry in os.fsdecode(done.stdout).split("\0") if entry)
    assert {name: value for name, value in found.items() if name.startswith(("LAB_", "CDI_HPC_LIT"))} == values


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "PATH"])
def test_no_variable_of_a_spec_acts_on_the_launcher(name):
    made = assignments(planned(**{name: "$HOME:'x'"}), expands=True, unset_before=False)
    assert [variable.name for variable in made.variables] == ["CDI_HPC_LITERAL_0"]
