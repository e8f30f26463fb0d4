"""Every key: what it does, and what is said about a wrong value. The table is held against the schema."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, Callable

import pytest
from site_files import load, site

from cdi_hpc import config
from cdi_hpc.config import Configuration
from cdi_hpc.config.build import build
from cdi_hpc.config.files import ConfigFile
from cdi_hpc.config.schema import ANY_NAME, all_keys
from cdi_hpc.config.settings import join, of_environment, of_file
from cdi_hpc.errors import CdiError
from cdi_hpc.site.policy import CATEGORIES

MANUAL = (Path(__file__).parents[2] / "docs/configuration.md").read_text("utf-8")

Value = Callable[[Configuration], Any]


#: key -> (a file that sets it, what to look at, what is there then; a file with a wrong value, what is said)
KEYS: dict[str, tuple[str, Value, Any, str, str]] = {
    "spec-directories": (
        "spec-directories: [/a, /b]",
        lambda c: c.spec_directories,
        ("/a", "/b"),
        "spec-directories: [cdi]",
        "x.yaml:1:20: spec-directories[0]: 'cdi' is not an absolute path",
    ),
    "strict": (
        "strict: yes",
        lambda c: c.strict,
        True,
        "strict: perhaps",
        "x.yaml:1:1: strict: expected true or false, found the text 'perhaps'",
    ),
    "aliases.NAME": (
        "aliases: {mpi: [hpe.com/cxi=all, gpu], gpu: nvidia.com/gpu}",
        lambda c: [alias.stands_for for alias in c.aliases.values()],
        [("hpe.com/cxi=all", "gpu"), ("nvidia.com/gpu",)],
        "aliases: {gpu: nvidia.com/gpu=}",
        "x.yaml:1:11: aliases.gpu: the device name is empty (a device is 'VENDOR/CLASS=NAME')",
    ),
    "all-means": (
        "all-means: openable",
        lambda c: c.all_means,
        "openable",
        "all-means: opneable",
        "x.yaml:1:1: all-means: expected 'every' or 'openable', found 'opneable' (did you mean 'openable'?)",
    ),
    "unsupported": (
        "unsupported: fail",
        lambda c: c.launcher("bash").unsupported,
        "fail",
        "unsupported: 1",
        "x.yaml:1:1: unsupported: expected text, found the number 1 (put it in quotes)",
    ),
    "preflight": (
        "preflight: warn",
        lambda c: c.launcher("charliecloud").preflight,
        "warn",
        "preflight: off",
        "x.yaml:1:1: preflight: expected text, found the boolean false (put it in quotes)",
    ),
    "launchers.embedded.binds": (
        "launchers: {embedded: {binds: ['/scratch:/scratch:ro']}}",
        lambda c: c.launcher("embedded").binds,
        ("/scratch:/scratch:ro",),
        "launchers: {embedded: {binds: /scratch}}",
        "x.yaml:1:24: launchers.embedded.binds: expected a list, found the text '/scratch'",
    ),
    "launchers.embedded.stage": (
        "launchers: {embedded: {stage: underlay}}",
        lambda c: c.launcher("embedded").stage,
        "underlay",
        "launchers: {embedded: {stage: under}}",
        "x.yaml:1:24: launchers.embedded.stage: expected 'auto' or 'overlay' or 'underlay', found 'under'",
    ),
    "hooks.unknown": (
        "hooks: {unknown: fail}",
        lambda c: c.launcher("charliecloud").unknown_hooks,
        "fail",
        "hooks: {unknown: run}",
        "x.yaml:1:9: hooks.unknown: expected 'warn' or 'fail', found 'run'",
    ),
    "hooks.rules": (
        "hooks: {rules: [{path: /opt/*, arguments: x, action: skip, because: ours}]}",
        lambda c: [(rule.verdict, rule.path.text, rule.arguments) for rule in c.policy.hooks],
        [("skip", "/opt/*", ("x",))],
        "hooks: {rules: [{path: bin/*, action: skip}]}",
        "x.yaml:1:18: hooks.rules[0].path: the pattern 'bin/*' never matches: hooks have absolute paths",
    ),
    "slurm.gres.GRES": (
        "slurm: {gres: {nic: {kind: hpe.com/cxi, by: table, table: {0: cxi0}}}}",
        lambda c: (c.gres["nic"].kind, c.gres["nic"].by, c.gres["nic"].table),
        ("hpe.com/cxi", "table", {"0": "cxi0"}),
        "slurm: {gres: {nic: {kind: cxi}}}",
        "x.yaml:1:22: slurm.gres.nic.kind: 'cxi' is not a kind of the form 'VENDOR/CLASS'",
    ),
    "slurm.unmapped": (
        "slurm: {unmapped: all}",
        lambda c: c.unmapped,
        "all",
        "slurm: {unmapped: al}",
        "x.yaml:1:9: slurm.unmapped: expected 'refuse' or 'all' or 'none', found 'al' (did you mean 'all'?)",
    ),
    "cache.directory": (
        "cache: {directory: '/local/{user}/{host}'}",
        lambda c: c.cache_directory,
        "/local/{user}/{host}",
        "cache: {directory: cache}",
        "x.yaml:1:9: cache.directory: 'cache' is not an absolute path",
    ),
    "cache.max-size": (
        "cache: {max-size: 3K}",
        lambda c: c.cache.max_size,
        3072,
        "cache: {max-size: 3 MB}",
        "x.yaml:1:9: cache.max-size: '3 MB' is not a size: a number, with K, M or G behind it or nothing",
    ),
    "cache.max-plans": (
        "cache: {max-plans: 7}",
        lambda c: c.cache.max_plans,
        7,
        "cache: {max-plans: -1}",
        "x.yaml:1:9: cache.max-plans: expected at least 0, found the number -1",
    ),
    "cache.keep-stages": (
        "cache: {keep-stages: 1}",
        lambda c: c.cache.keep_stages,
        1,
        "cache: {keep-stages: 1.5}",
        "x.yaml:1:9: cache.keep-stages: expected a whole number, found the number 1.5",
    ),
}

for LAUNCHER, OWN in (
    ("embedded", ("unknown-hooks", "unsupported", "preflight")),
    ("bash", ("unknown-hooks", "unsupported")),
    ("charliecloud", ("unknown-hooks", "unsupported", "preflight")),
    ("singularity", ("unknown-hooks", "unsupported", "preflight")),
):
    for KEY in OWN:
        WORD = "warn" if KEY == "preflight" else "fail"
        KEYS[f"launchers.{LAUNCHER}.{KEY}"] = (
            f"launchers: {{{LAUNCHER}: {{{KEY}: {WORD}}}}}",
            lambda c, name=LAUNCHER, key=KEY: getattr(c.launcher(name), key.replace("-", "_")),
            WORD,
            f"launchers: {{{LAUNCHER}: {{{KEY}: no}}}}",
            f"launchers.{LAUNCHER}.{KEY}: expected text, found the boolean false (put it in quotes)",
        )

for LAUNCHER in ("embedded", "bash", "charliecloud", "singularity"):
    KEYS[f"launchers.{LAUNCHER}.devices"] = (
        f"launchers: {{{LAUNCHER}: {{devices: [gpu, a.com/nic=0]}}}}",
        lambda c, name=LAUNCHER: c.launcher(name).devices,
        ("gpu", "a.com/nic=0"),
        f"launchers: {{{LAUNCHER}: {{devices: {{}}}}}}",
        f"launchers.{LAUNCHER}.devices: expected text or a list, found a mapping",
    )

#: A pattern that each list takes, and one that it does not.
PATTERNS = {
    "kinds": ("a.com/*", "*"),
    "devices": ("a.com/b=*", "a.com/b"),
    "specs": ("/etc/**", "etc"),
    "mount-sources": ("/etc/**", "etc/**"),
    "mount-targets": ("/usr/*", "usr"),
    "environment": ("LD_*", "=x"),
}
for WHAT, (GOOD, BAD) in PATTERNS.items():
    KEYS[f"policy.{WHAT}.rules"] = (
        f"policy: {{{WHAT}: {{rules: [{{deny: '{GOOD}', users: [me, 7]}}]}}}}",
        lambda c, what=WHAT: [(str(rule), rule.users) for rule in c.policy.rules[what].rules],
        [(f"deny '{GOOD}'", ("me", "7"))],
        f"policy: {{{WHAT}: {{rules: [{{deny: ['{BAD}']}}]}}}}",
        f"policy.{WHAT}.rules[0].deny: ",
    )
    KEYS[f"policy.{WHAT}.default"] = (
        f"policy: {{{WHAT}: {{default: deny}}}}",
        lambda c, what=WHAT: c.policy.rules[what].default,
        "deny",
        f"policy: {{{WHAT}: {{default: refuse}}}}",
        f"policy.{WHAT}.default: expected 'allow' or 'deny', found 'refuse'",
    )


def complaints(text: str, layer: str = "site") -> list[str]:
    with pytest.raises(CdiError) as caught:
        build(join(of_file(ConfigFile("x.yaml", text.encode()), layer)))
    return [str(problem) for problem in caught.value.problems]


def test_the_table_has_every_key_of_the_schema():
    assert set(KEYS) == {key.shown for key in all_keys()}
    assert set(PATTERNS) == set(CATEGORIES)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_sets_what_it_says(key):
    text, look, value, _, _ = KEYS[key]
    assert look(site(text)) == value
    with contextlib.suppress(AttributeError, KeyError):  # there is nothing to look at
        assert look(Configuration()) != value


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_value_is_refused_with_its_place_and_what_would_be_right(key):
    *_, text, message = KEYS[key]
    (said,) = complaints(text)
    assert message in said


@pytest.mark.parametrize("key", all_keys(), ids=lambda key: key.shown)
def test_a_user_may_set_just_the_keys_that_anyone_may(key, tmp_path):
    text, look, value, _, _ = KEYS[key.shown]
    if key.set_by == "anyone":
        assert look(load(tmp_path, {"user/config.yaml": text}).configuration) == value
    else:
        assert complaints(text, "user")[0].endswith(
            "only the administrator can set this (it belongs in /etc/cdi-hpc; remove it here)"
        )


VARIABLES = {key.variable: key for key in all_keys() if key.variable}


def test_variables_are_those_that_a_plans_key_has():
    assert sorted(VARIABLES) == sorted(config.VARIABLES)


@pytest.mark.parametrize(
    "name, text, look, value",
    [
        ("CDI_HPC_STRICT", "1", lambda c: c.strict, True),
        ("CDI_HPC_STRICT", "No", lambda c: c.strict, False),
        ("CDI_HPC_UNSUPPORTED", "fail", lambda c: c.unsupported, "fail"),
        ("CDI_HPC_PREFLIGHT", "off", lambda c: c.preflight, "off"),
        ("CDI_HPC_UNKNOWN_HOOKS", "fail", lambda c: c.unknown_hooks, "fail"),
        ("CDI_HPC_ALL_MEANS", "openable", lambda c: c.all_means, "openable"),
        ("CDI_HPC_DIRS", "/a::/b", lambda c: c.spec_directories, ("/a", "/b")),
        ("CDI_HPC_CACHE_DIRECTORY", "/a/b", lambda c: c.cache_directory, "/a/b"),
    ],
)
def test_a_variable_sets_its_key(name, text, look, value, tmp_path):
    assert look(load(tmp_path, {}, {name: text}).configuration) == value
    assert load(tmp_path, {}, {name: ""}).configuration == Configuration()


@pytest.mark.parametrize("name", sorted(set(VARIABLES) - {"CDI_HPC_DIRS"}))
def test_a_wrong_variable_is_named(name):
    with pytest.raises(CdiError, match=f"variable {name}: expected .*, found 'x\\\\x1b'"):
        of_environment({name: "x\x1b"})


@pytest.mark.parametrize("text", ["/home:/home:zz", "/a:/b:ro:rw"])
def test_a_bind_that_no_launch_would_understand_is_an_error(text):
    with pytest.raises(
        CdiError, match=r"^site\.yaml:1:\d+: launchers\.embedded\.binds\[1\]: .* is no bind \(write SRC"
    ):
        site(f"launchers: {{embedded: {{binds: [/a, '{text}']}}}}")


#: key, lax, strict, its variable
ORDERED = [
    ("strict", "false", "true", lambda c: c.strict),
    ("unsupported", "warn", "fail", lambda c: c.unsupported),
    ("hooks", "{unknown: warn}", "{unknown: fail}", lambda c: c.unknown_hooks),
    (
        "launchers",
        "{bash: {unsupported: warn}}",
        "{bash: {unsupported: fail}}",
        lambda c: c.launcher("bash").unsupported,
    ),
]


@pytest.mark.parametrize("key, lax, strict, look", ORDERED)
def test_a_user_can_be_stricter_than_the_site_and_not_laxer(key, lax, strict, look, tmp_path):
    stricter = look(site(f"{key}: {strict}"))
    for ours, theirs in ((lax, strict), (strict, lax), (strict, strict)):
        files = {"site/config.yaml": f"{key}: {ours}", "user/config.yaml": f"{key}: {theirs}"}
        assert look(load(tmp_path, files).configuration) == stricter
    files = {"site/config.yaml": f"{key}: {strict}", "site/config.d/1.yaml": f"{key}: {lax}", "user/config.yaml": ""}
    assert look(load(tmp_path, files).configuration) != stricter


def test_a_user_may_be_lax_where_the_site_says_nothing(tmp_path):
    files = {"user/config.yaml": "unsupported: fail"}
    assert load(tmp_path, files, {"CDI_HPC_UNSUPPORTED": "warn"}).configuration.unsupported == "warn"


def test_rules_of_several_files_come_one_after_the_other(tmp_path):
    rule = "policy: {{kinds: {{rules: [{{deny: {}/x}}]}}}}"
    names = {"config.yaml": "a", "config.d/20.yaml": "c", "config.d/10.yaml": "b"}
    loaded = load(tmp_path, {f"site/{file}": rule.format(letter) for file, letter in names.items()})
    rules = loaded.configuration.policy.rules["kinds"].rules
    assert [str(rule) for rule in rules] == ["deny 'a/x'", "deny 'b/x'", "deny 'c/x'"]
    assert str(rules[1].where) == f"{tmp_path}/site/config.d/10.yaml:1:26: policy.kinds.rules[0]"


def test_aliases_of_user_and_site_are_put_together_and_checked_together(tmp_path):
    files = {
        "site/config.yaml": "aliases: {gpu: a.com/gpu, all-of-it: [gpu, nic]}",
        "user/config.yaml": "aliases: {nic: a.com/nic}",
    }
    assert set(load(tmp_path, files).configuration.aliases) == {"gpu", "all-of-it", "nic"}
    with pytest.raises(
        CdiError, match=r"config\.yaml:1:27: aliases\.all-of-it: 'nic' is neither a device nor an alias"
    ):
        load(tmp_path, {**files, "user/config.yaml": ""})


def test_a_mapping_without_lines_is_as_if_it_were_not_there():
    assert site("aliases:\npolicy:\n  kinds:\n    rules:\n") == Configuration()


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "x.yaml:1:1: expected a mapping, found a list"),
        ("aliaes: {}", "x.yaml:1:1: aliaes: unknown key 'aliaes' (did you mean 'aliases'?)"),
        ("zzz: 1", "unknown key 'zzz' (there is 'spec-directories', 'strict', 'aliases'"),
        ("cache: {max-sice: 1}", "x.yaml:1:9: cache.max-sice: unknown key 'max-sice' (did you mean 'max-size'?)"),
        ("strict: true\nstrict: true", "x.yaml:2:9: the key 'strict' is there twice"),
        ("a: [", "x.yaml:"),
        ("cache: {directory: '/a/{usr}'}", "{usr} stands for nothing (there is {home}, {host}, {uid}, {user})"),
        ("cache: {directory: '/a/{'}", "cache.directory: '/a/{' has a single brace"),
        ("cache: {directory: '/a/}b'}", "cache.directory: '/a/}b' has a single brace"),
        ("cache: {directory: '/a/{user}/../{uid}'}", "has '..'"),
        ("cache: {directory: '{user}/a'}", "cache.directory: '{user}/a' is not an absolute path"),
        ("aliases: {gpu: ''}", "aliases.gpu: the text is empty"),
        ("aliases: {gpu: []}", "aliases.gpu: the list is empty"),
        ('aliases: {gpu: "a\\0b"}', "holds a character that no path, name or variable can"),
        ("aliases: {all: x.com/y}", "'all' can't be an alias: it means every device of a kind"),
        ("hooks: {rules: [{path: x}]}", "hooks.rules[0]: 'action' is missing"),
        ("hooks: {rules: [{path: '[', action: skip}]}", "'[' is not closed"),
        ("hooks: {rules: [{path: x, action: run}]}", "'run' allows a program by its path, and 'x' is only a name"),
        ("hooks: {rules: [{path: /x, action: warn, timeout: 3}]}", "'timeout' is for hooks that are run"),
        ("hooks: {rules: [{path: /x, action: skip, on-failure: fail}]}", "'on-failure' is for hooks that are run"),
        ("hooks: {rules: [{path: /x, action: run, timeout: 0}]}", "timeout: expected at least 1, found the number 0"),
        ("hooks: {rules: [{path: /x, action: run, timeout: 601}]}", "expected at most 600, found the number 601"),
        ("hooks: {rules: [{path: /x, action: run, on-failure: skip}]}", "expected 'fail' or 'warn', found 'skip'"),
        ("hooks: {rules: [{path: /x, action: warn, env: A}]}", "'env' is for hooks that are run"),
        ("hooks: {rules: [{path: /x, action: run, env: [A=1]}]}", "'A=1' is no pattern for a variable's name"),
        ("hooks: {rules: [{path: /x, action: run, env: '[A'}]}", "hooks.rules[0].env: '[' is not closed"),
        ("hooks: {rules: [{path: /x, action: run, env: LD_PRELOAD}]}", "'LD_PRELOAD' chooses what a program loads"),
        ("hooks: {rules: [{path: /x, action: run, env: {A: 1}}]}", "env: expected text or a list, found a mapping"),
        ("hooks: {rules: [{path: /x, action: rum}]}", "found 'rum' (did you mean 'run'?)"),
        ("policy: {kinds: {rules: [{}]}}", "policy.kinds.rules[0]: it is empty"),
        ("policy: {kinds: {rules: [{users: x}]}}", "the rule has neither 'allow' nor 'deny'"),
        ("policy: {kinds: {rules: [{allow: a/b, deny: a/b}]}}", "the rule has both 'allow' and 'deny'"),
        ("policy: {kinds: {rules: [{deny: a/b=c}]}}", "is a pattern for a device, not for a kind"),
        ("policy: {specs: {rules: [{deny: /a/../b}]}}", "'..' in a pattern never matches"),
        ("slurm: {gres: {gpu: {kind: a/b, by: table}}}", "'by: table' needs a 'table'"),
        ("slurm: {gres: {gpu: {kind: a/b, table: {0: x}}}}", "'by: index' has no use for a 'table'"),
        ("slurm: {gres: {gpu: {kind: a/b, by: table, table: {a: x}}}}", "'a' is no index: a number from 0"),
        ("slurm: {gres: {gpu: {kind: a/b, by: table, table: {0: x=y}}}}", "invalid device name 'x=y'"),
        ("slurm: {gres: {gpu: {kind: a/b, node: nvidia*}}}", "the pattern 'nvidia*' never matches"),
    ],
)
def test_what_is_no_configuration_is_refused_with_the_reason(text, message):
    assert message in complaints(text)[0]


def test_everything_that_is_wrong_with_a_file_is_said_in_the_order_of_its_lines():
    text = "strict: 1\ncache: {max-plans: x}\nfoo: 1\naliases: {a: 1}"
    found = complaints(text)
    assert [re.match(r"x\.yaml:(\d+)", line)[1] for line in found] == ["1", "2", "3", "4"]


# The manual ---------------------------------------------------------------------------------------------------


def test_the_manual_has_every_key_and_who_may_set_it():
    rows = {}
    for line in MANUAL.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4 and cells[1] in ("anyone", "administrator"):
            rows[cells[0].strip("`")] = cells[1:]

    def shown(name: str) -> str:
        name = re.sub(
            r"^launchers\.\w+\.(devices|unknown-hooks|unsupported|preflight)$", r"launchers.LAUNCHER.\1", name
        )
        return re.sub(r"^policy\.[\w-]+\.", "policy.WHAT.", name)

    assert set(rows) == {shown(key.shown) for key in all_keys()}
    for key in all_keys():
        who, default, text = rows[shown(key.shown)]
        assert who == key.set_by
        assert (f"`{key.variable}`" in text) or not key.variable
        if isinstance(key.default, (str, int)):
            assert default == f"`{str(key.default).lower() if isinstance(key.default, bool) else key.default}`"


def test_every_key_is_described():
    assert [key.shown for key in all_keys() if len(key.description) < 10] == []
    assert [key for key in all_keys() if key.path[-1] == ANY_NAME and key.join != "replace"] == []
