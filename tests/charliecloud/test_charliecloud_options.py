"""The option table of ch-run: read from what argp(3) prints, and held against what the installed one says elsewhere."""

from __future__ import annotations

import re
import shutil

import pytest

from cdi_hpc.backend import Option
from cdi_hpc.backends.charliecloud import Charliecloud, options
from cdi_hpc.errors import CdiError

#: An option in ``--usage``, which argp(3) prints in another form: ``[-b SRC[:DST]]``, ``[-W[SIZE]]``, ``[--home]``.
_USAGE_LONG = re.compile(r"\[(--[\w-]+)(\[=|=|\])")
_USAGE_SHORT = re.compile(r"\[(-\w)(\[| |\])")
_USAGE_FLAGS = re.compile(r"\[-([\w?]+)\]")


@pytest.mark.parametrize(
    ("line", "names", "arity"),
    [
        ("  -b, --bind=SRC[:DST]   a bind", ("-b", "--bind"), "required"),
        ("      --home             a home", ("--home",), "none"),
        ("  -j, --join             a word", ("-j", "--join"), "none"),
        ("      --set-env[=ARG]    a variable", ("--set-env",), "optional"),
        ("      --fetch[=[KIND]]   brackets in brackets", ("--fetch",), "optional"),
        ("  -?, --help             -t is not an option here", ("-?", "--help"), "none"),
        ("  -x                     short alone", ("-x",), "none"),
        ("      --a-name-that-is-longer-than-the-column=ARG", ("--a-name-that-is-longer-than-the-column",), "required"),
    ],
)
def test_a_line_of_the_help_is_an_option(line, names, arity):
    found = options.option_table(line)[0]
    assert (found.names, found.arity) == (names, arity)


@pytest.mark.parametrize(
    "line",
    [
        "                           with --bind=SRC as a word of an explanation",
        "Usage: ch-run [OPTION...] IMAGE -- COMMAND [ARG...]",
        "  $ ch-run /image -- echo hello",
        "",
    ],
)
def test_another_line_is_none(line):
    assert options.option_table(line) == ()


def test_an_option_that_we_do_not_know_may_change_a_plan():
    table = {option.names[-1]: option for option in options.option_table("      --new[=X]  what comes next year")}
    assert table["--new"] == Option(("--new",), "optional", "plan")


def test_ours_take_the_place_of_those_of_the_same_name():
    text = "  -d, --cdi[=[KIND]]  theirs\n      --cdi-dirs=DIRS  theirs\n  -q, --quiet  theirs"
    table = options.option_table(text)
    assert [option.use for option in table if "--cdi" in option.names] == ["device"]
    assert [option.use for option in table if "--cdi-dirs" in option.names] == ["cdi-dirs"]
    assert table[0] == Option(("-q", "--quiet"), "none", "keep")


# The installed one ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(lab) -> str:
    found = shutil.which("ch-run")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def profile(program):
    return Charliecloud().probe(program)


def test_the_installed_one_has_the_options_that_its_usage_tells(lab, program, profile):
    usage = lab.run([program, "--usage"]).stdout
    marks = {"[=": "optional", "=": "required", "[": "optional", " ": "required", "]": "none"}
    told = {name: marks[mark] for name, mark in (*_USAGE_LONG.findall(usage), *_USAGE_SHORT.findall(usage))}
    told.update((f"-{letter}", "none") for letters in _USAGE_FLAGS.findall(usage) for letter in letters)
    table = {name: option.arity for option in profile.options for name in option.names}
    assert len(told) > 30
    assert {name: table.get(name) for name in told} == told


def test_every_option_of_the_installed_one_has_a_meaning_on_purpose(profile):
    undecided = [option.names[-1] for option in profile.options if option.use == "plan"]
    assert set(undecided) <= {
        "--bind",
        "--home",
        "--join-tag",
        "--no-home",
        "--storage",
        "--write-fake",
    }


def test_abilities_are_those_that_it_tells(lab, program, profile):
    has = dict(profile.capabilities)
    assert has["set-env"] == "yes"
    fake = lab.run([program, "--write-fake", "/nowhere", "--", "true"]).stderr
    assert has["write-fake"] == ("no" if "--write-fake" in fake else "yes")
    own = lab.run([program, "--cdi", "--version"], env={"USER": "nobody"})
    assert has["cdi"] == ("no" if "unrecognized option" in own.stderr else "yes")
    squash = lab.run([program, "--feature", "squash"])
    unknown = "unknown" in squash.stderr
    assert has["squash"] == ("unknown" if unknown else "yes" if squash.returncode == 0 else "no")


def test_the_users_own_format_of_help_does_not_matter(program, profile, monkeypatch):
    monkeypatch.setenv("ARGP_HELP_FMT", "dup-args,opt-doc-col=50,long-opt-col=20,header-col=1")
    monkeypatch.delenv("USER", raising=False)
    assert Charliecloud().probe(program) == profile


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("/bin/true", "--help lists no options"),
        ("/bin/false", "--help failed with exit status 1"),
        ("/etc/passwd", "can't be executed: Permission denied"),
        ("/nowhere/ch-run", "can't be executed: No such file or directory"),
    ],
)
def test_what_is_no_launcher_is_said_to_be_none(program, complaint, tmp_path):
    script = tmp_path / "true"  # the real one prints a help
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    with pytest.raises(CdiError, match=complaint):
        Charliecloud().probe(str(script) if program == "/bin/true" else program)
