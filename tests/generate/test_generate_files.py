"""Generated specs as files, recipes of a site, and what is said of wrong ones."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from cdi_hpc.errors import CdiError
from cdi_hpc.generate import recipe as recipes_format
from cdi_hpc.generate.recipe import load_recipes, read_recipe

RECIPE = """\
kind: lab.example/thing
summary: things of the lab
devices:
  - each: {path: "%s/thing*"}
    names: ["{1}"]
    nodes: [{path: "{path}", required: true}]
"""


@pytest.fixture
def things(tmp_path) -> Path:
    """A directory in which ``thingN`` is a device."""
    directory = tmp_path / "things"
    directory.mkdir()
    (directory / "thing0").symlink_to("/dev/null")
    return directory


@pytest.fixture
def generate(lab, tmp_path, things) -> Callable[..., subprocess.CompletedProcess]:
    recipes = tmp_path / "recipes.d"
    recipes.mkdir()
    (recipes / "thing.yaml").write_text(RECIPE % things)
    return lambda *arguments: lab.run(["cdi-hpc", "generate", "--recipe-dir", recipes, *arguments])


def outcomes(done: subprocess.CompletedProcess) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [item["outcome"] for item in json.loads(done.stdout)]


def test_a_file_is_written_once_for_everybody_to_read_and_left_alone_until_something_changes(
    generate, things, tmp_path
) -> None:
    specs, arguments = tmp_path / "specs", ("thing", "--format", "json", "--output", tmp_path / "specs")
    old_umask = os.umask(0o077)
    try:
        assert outcomes(generate(*arguments)) == ["written"]
    finally:
        os.umask(old_umask)
    spec = specs / "lab.example-thing.yaml"
    before = spec.stat()
    assert (stat.S_IMODE(before.st_mode), stat.S_IMODE(specs.stat().st_mode)) == (0o644, 0o755)
    assert outcomes(generate(*arguments)) == ["unchanged"]
    assert spec.stat().st_ino == before.st_ino
    (things / "thing1").symlink_to("/dev/zero")
    assert outcomes(generate(*arguments)) == ["written"]
    assert [device["name"] for device in yaml.safe_load(spec.read_text())["devices"]] == ["0", "1", "all"]
    assert os.listdir(specs) == [spec.name]


def test_the_file_of_a_device_that_has_gone_goes(generate, things, tmp_path) -> None:
    arguments = ("thing", "--format", "json", "--output", tmp_path / "specs")
    generate(*arguments)
    (things / "thing0").unlink()
    done = generate(*arguments)
    assert (done.returncode, json.loads(done.stdout)[0]["outcome"]) == (1, "removed")
    assert os.listdir(tmp_path / "specs") == []
    assert "no device of the kind lab.example/thing found" in done.stderr


def test_somebody_elses_file_is_not_written_over_unless_by_force(generate, tmp_path) -> None:
    spec = tmp_path / "specs" / "lab.example-thing.yaml"
    spec.parent.mkdir()
    spec.write_text("cdiVersion: 0.5.0\n")
    done = generate("thing", "--output", spec.parent)
    assert (done.returncode, spec.read_text()) == (1, "cdiVersion: 0.5.0\n")
    assert done.stderr == f"cdi-hpc: error: {spec}: was not made by 'cdi-hpc generate' (--force writes over it)\n"
    assert generate("thing", "--force", "--output", spec.parent).returncode == 0
    assert "lab.example/thing" in spec.read_text()


def test_two_recipes_with_a_spec_for_one_file_are_refused_by_name(generate, things, tmp_path) -> None:
    specs, recipes = tmp_path / "specs", tmp_path / "recipes.d"
    (recipes / "zz.yaml").write_text(RECIPE % things)
    done = generate("thing", "zz", "--output", specs)
    assert (done.returncode, done.stdout, specs.exists()) == (1, "", False)
    assert done.stderr == (
        f"cdi-hpc: error: {specs}/lab.example-thing.yaml: several recipes have a spec for this file: "
        f"'thing' ({recipes}/thing.yaml) and 'zz' ({recipes}/zz.yaml) "
        "(name one of them; or give yours the name of the other, whose place it takes then)\n"
    )


def test_a_recipe_that_finds_nothing_leaves_the_file_of_another_of_its_kind_alone(generate, things, tmp_path) -> None:
    arguments = ("thing", "zz", "aa", "--format", "json", "--output", tmp_path / "specs")
    for name in ("aa", "zz"):
        (tmp_path / "recipes.d" / f"{name}.yaml").write_text(RECIPE % "/nowhere")
    assert outcomes(generate(*arguments)) == ["written"]
    assert outcomes(generate(*arguments)) == ["unchanged"]
    assert (tmp_path / "specs" / "lab.example-thing.yaml").exists()


def test_a_directory_that_can_not_be_written_to_is_named(generate, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    done = generate("thing", "--output", tmp_path / "file")
    assert done.returncode == 1
    assert done.stderr == f"cdi-hpc: error: {tmp_path}/file/lab.example-thing.yaml: Not a directory\n"
    for roots in ("/etc/cdi", "/etc/cdi/new"):
        refused = generate("thing", "--output", roots)
        fix = "become root, or take a directory of your own"
        assert (refused.returncode, refused.stderr) == (1, f"cdi-hpc: error: {roots}: Permission denied ({fix})\n")


def test_the_list_shows_what_each_recipe_finds(generate) -> None:
    rows = json.loads(generate("--list", "--format", "json").stdout)
    assert {row["recipe"]: row["devices"] for row in rows}["thing"] == ["0", "all"]
    assert {
        "nvidia",
        "amd",
        "intel-gpu",
        "gaudi",
        "infiniband",
        "slingshot",
        "xpmem",
        "knem",
        "gdrcopy",
        "fuse",
        "kvm",
    } <= {row["recipe"] for row in rows}


def test_several_specs_are_not_printed_into_one_file_but_to_whoever_looks(generate, lab, things, tmp_path) -> None:
    (tmp_path / "recipes.d" / "zz.yaml").write_text((RECIPE % things).replace("lab.example/thing", "lab.example/other"))
    done = generate("thing", "zz")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "cdi-hpc: error: standard output: 2 specs (thing, zz) can't be one file "
        "(write them with --output DIR, or name one recipe)\n"
    )
    assert len(json.loads(generate("thing", "zz", "--format", "json").stdout)) == 2
    command = f"cdi-hpc generate --recipe-dir {tmp_path}/recipes.d thing zz"
    seen = lab.run(["script", "--quiet", "--return", "--command", command, tmp_path / "typescript"])
    assert seen.returncode == 0, seen.stdout
    assert [line for line in seen.stdout.splitlines() if line.startswith(("kind", "---"))] == [
        "kind: lab.example/thing",
        "---",
        "kind: lab.example/other",
    ]


def test_a_list_says_that_further_documents_of_a_file_are_lost(lab, tmp_path) -> None:
    spec = "cdiVersion: 0.5.0\nkind: lab.example/{}\ndevices: [{{name: d, containerEdits: {{env: [A=b]}}}}]\n"
    (tmp_path / "host.yaml").write_text(spec.format("a") + "---\n" + spec.format("b"))
    done = lab.run(["cdi-hpc", "list", "--cdi-dir", tmp_path])
    assert (done.returncode, "lab.example/a=d" in done.stdout, "lab.example/b=d" in done.stdout) == (0, True, False)
    assert done.stderr == (f"cdi-hpc: warning: {tmp_path}/host.yaml:1:1: only the first document of the file is read\n")


def test_a_recipe_that_is_not_there_is_named_with_the_nearest(generate) -> None:
    done = generate("thign", "nvidi")
    assert done.returncode == 1
    assert done.stderr == (
        "cdi-hpc: error: recipe 'thign': there is none of this name (did you mean 'thing'?)\n"
        "cdi-hpc: error: recipe 'nvidi': there is none of this name (did you mean 'nvidia'?)\n"
    )


def test_watching_without_a_directory_is_refused(generate) -> None:
    done = generate("--watch")
    assert (done.returncode, "--watch needs --output DIR." in done.stderr) == (2, True)


def test_a_site_replaces_a_recipe_by_its_name(tmp_path) -> None:
    (tmp_path / "fuse.yaml").write_text(RECIPE % "/nowhere")
    assert load_recipes(str(tmp_path))["fuse"].kind == "lab.example/thing"


def test_the_packages_own_recipes_are_read_without_a_site() -> None:
    assert len(load_recipes()) == 12


def test_a_directory_of_recipes_that_was_named_has_to_be_there(lab) -> None:
    done = lab.run(["cdi-hpc", "generate", "--recipe-dir", "/nowhere", "fuse"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "cdi-hpc: error: /nowhere: there is no such directory (name the one that your recipes are in)\n"
    )


def refused(directory: Path) -> str:
    with pytest.raises(CdiError) as caught:
        load_recipes(str(directory))
    return str(caught.value)


def test_a_recipe_that_is_no_file_is_refused_and_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "zz.yaml")
    tmp_path.chmod(0o755)
    assert f"{tmp_path}/zz.yaml: it is no regular file" in refused(tmp_path)


@pytest.mark.root
def test_root_follows_no_recipe_that_somebody_else_could_have_written(tmp_path) -> None:
    recipes = tmp_path / "recipes.d"
    recipes.mkdir(mode=0o755)
    recipe = recipes / "thing.yaml"
    recipe.write_text(RECIPE % "/nowhere")
    recipe.chmod(0o644)
    assert "thing" in load_recipes(str(recipes))
    recipe.chmod(0o666)
    assert f"{recipe}: not believed: others can write to it (mode 666)" in refused(recipes)
    recipe.chmod(0o644)
    os.chown(recipe, 1234, -1)
    assert f"{recipe}: not believed: it belongs to user 1234, not to root" in refused(recipes)
    recipe.rename(tmp_path / "thing.yaml")
    recipe.symlink_to(tmp_path / "thing.yaml")
    assert f"{recipe}: a link is not followed here" in refused(recipes)
    recipe.unlink()
    recipes.chmod(0o777)
    assert f"{recipes}: not believed: others can write to it (mode 777)" in refused(recipes)
    recipes.chmod(0o755)
    os.chown(recipes, 1234, -1)
    assert f"{recipes}: not believed: it belongs to user 1234, not to root" in refused(recipes)


GOOD = RECIPE % "/nowhere"


@pytest.mark.parametrize(
    "text, said",
    [
        ("kind: a/b\nsummary: x\n", "r.yaml:1:1: 'devices' is missing"),
        (GOOD + "colour: red\n", "colour: unknown key 'colour' (there is 'kind', 'summary'"),
        (GOOD.replace("nodes:", "node:"), "devices[0].node: unknown key 'node' (did you mean 'nodes'?)"),
        (GOOD.replace("each: {path", "each: {pth"), "devices[0].each.pth: unknown key 'pth' (did you mean 'path'?)"),
        (GOOD.replace('names: ["{1}"]', "names: 1"), "devices[0].names: expected a list, found the number 1"),
        (GOOD.replace('each: {path: "/nowhere/thing*"}', "each: {}"), "each: 'subsystem' or 'path' is missing"),
        (GOOD.replace("required: true", "match: {a: b}"), "nodes[0]: 'path' and 'match' don't go together (take one"),
        (
            GOOD.replace("required: true", "subsystem: b"),
            "nodes[0]: 'subsystem' and 'path' don't go together (take one",
        ),
        (GOOD + "facts: [{variable: a, file: /b, key: c, pattern: (d)}]\n", "'key' and 'pattern' don't go together"),
        (GOOD + "common: {env: [A]}\n", "common.env[0]: 'A' is not NAME=VALUE"),
        (GOOD.replace("lab.example/thing", "thing"), "r.yaml:1:1: kind: 'thing' is not a kind"),
        (GOOD.replace('"/nowhere/thing*"', "things"), "devices[0].each.path: 'things' is not an absolute"),
        (GOOD + "facts: [{variable: a, file: /b, pattern: '('}]\n", "facts[0].pattern: no regular expression"),
        (GOOD + "facts: [{variable: a, file: /b, pattern: 'x'}]\n", "facts[0].pattern: has 0 groups"),
        ("a: [", "r.yaml:2:1: not valid YAML"),
        (f"{GOOD}---\n{GOOD}", "r.yaml:7:1: a second document begins here, and a recipe is one"),
        ("[]", "r.yaml:1:1: expected a mapping, found a list"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(text, said) -> None:
    with pytest.raises(CdiError) as caught:
        read_recipe(text.encode(), "/site/r.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("required: true", "match: {a: b}"),
        GOOD.replace("required: true", "subsystem: b"),
        GOOD.replace('path: "{path}"', "subsystem: b, name: c, match: {d: e}"),
        GOOD.replace('path: "/nowhere/thing*"', 'path: "/nowhere/thing*", match: {a: b}'),
        GOOD.replace('path: "/nowhere/thing*"', 'path: "/nowhere/thing*", subsystem: b'),
        GOOD.replace('path: "/nowhere/thing*"', "subsystem: b, match: {a: b}"),
        GOOD.replace('each: {path: "/nowhere/thing*"}', "each: {}"),
        GOOD + "facts: [{variable: a, file: /b, key: c}]\n",
        GOOD + "facts: [{variable: a, file: /b, key: c, pattern: (d)}]\n",
        GOOD + "facts: [{variable: A, file: /b}]\n",
        GOOD + "common: {programs: [a/b]}\n",
        GOOD + "common: {ldcache: 1}\n",
    ],
)
def test_the_schema_that_editors_read_says_the_same(text) -> None:
    schema = json.loads(Path(recipes_format.__file__).with_name("recipe.schema.json").read_text())
    try:
        read_recipe(text.encode(), "/site/r.yaml")
        is_recipe = True
    except CdiError:
        is_recipe = False
    assert jsonschema.Draft7Validator(schema).is_valid(yaml.safe_load(text)) == is_recipe


@pytest.mark.parametrize("nodes", ['    nodes: [{path: "/nowhere/{1}"}]\n', ""])
def test_a_device_that_would_edit_nothing_is_left_out_with_a_warning(generate, things, tmp_path, nodes) -> None:
    (things / "thing1").symlink_to("/dev/zero")
    recipe = tmp_path / "recipes.d" / "thing.yaml"
    recipe.write_text(recipe.read_text().partition("    nodes:")[0] + nodes)
    done = generate("thing", "--output", tmp_path / "specs")
    assert (done.returncode, os.path.exists(tmp_path / "specs" / "lab.example-thing.yaml")) == (1, False)
    assert [line for line in done.stderr.splitlines() if "left out" in line] == [
        f"cdi-hpc: warning: thing: {name}: left out: the recipe finds no nodes for it and sets no variables"
        for name in ("thing0", "thing1")
    ]


def test_a_spec_that_readers_would_refuse_is_not_written(generate, tmp_path) -> None:
    (tmp_path / "value").write_bytes(b"a\0b")
    recipe = tmp_path / "recipes.d" / "thing.yaml"
    facts = f'    env: ["A={{value}}"]\nfacts: [{{variable: value, file: {tmp_path}/value}}]\n'
    recipe.write_text(recipe.read_text() + facts)
    done = generate("thing", "--output", tmp_path / "specs")
    assert (done.returncode, os.path.exists(tmp_path / "specs")) == (1, False)
    assert done.stderr.startswith(
        f"cdi-hpc: error: {recipe}: would make a spec that nobody reads: devices[0].containerEdits.env[0]: "
    )


def test_two_devices_of_one_name_are_refused(generate, things, tmp_path) -> None:
    (things / "thing1").symlink_to("/dev/zero")
    recipe = tmp_path / "recipes.d" / "thing.yaml"
    recipe.write_text(recipe.read_text().replace('"{1}"', "same"))
    done = generate("thing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"cdi-hpc: error: {recipe}: two devices have the name 'same' (add a variable to 'names')\n"


def test_hostile_names_stay_in_their_fields(generate, things, tmp_path) -> None:
    """A value that a variable stands for is no pattern and no YAML."""
    (things / "thing0").unlink()
    (things / "thing[0]: *x\n- {").symlink_to("/dev/null")
    done = generate("thing")
    assert done.returncode == 1
    assert "invalid device name" in done.stderr
    recipe = tmp_path / "recipes.d" / "thing.yaml"
    recipe.write_text(recipe.read_text().replace('"{1}"', "fine"))
    spec = yaml.safe_load(generate("thing").stdout)
    assert spec["devices"][0]["containerEdits"]["deviceNodes"] == [{"path": f"{things}/thing[0]: *x\n- {{"}]


@pytest.mark.root
def test_watching_writes_again_when_the_kernel_has_news(lab, tmp_path, things) -> None:
    recipes, specs = tmp_path / "recipes.d", tmp_path / "specs"
    recipes.mkdir()
    (recipes / "thing.yaml").write_text(RECIPE % things)
    spec = specs / "lab.example-thing.yaml"
    command = ["cdi-hpc", "generate", "thing", "--watch", "--output", specs, "--recipe-dir", recipes]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as watcher:
        try:
            wait_until(spec.exists)
            (things / "thing1").symlink_to("/dev/zero")
            Path("/sys/devices/virtual/mem/null/uevent").write_text("change")
            wait_until(lambda: "thing1" in spec.read_text())
        finally:
            watcher.terminate()
        assert watcher.wait(timeout=10) == 0


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_who_writes_to_a_directory_of_his_own_is_told_how_launches_find_it(generate, lab, tmp_path) -> None:
    specs = tmp_path / "my specs"
    told = generate("thing", "--output", specs).stderr
    assert told == (
        f"cdi-hpc: note: launches look in /etc/cdi, /var/run/cdi; for these specs: --cdi-dir '{specs}', "
        f"or export CDI_HPC_DIRS='{specs}'\n"
    )
    assert generate("thing", "--quiet", "--output", specs).stderr == ""
    arguments = ["cdi-hpc", "generate", "thing", "--recipe-dir", tmp_path / "recipes.d", "--output", specs]
    assert lab.run(arguments, env={"CDI_HPC_DIRS": str(specs)}).stderr == ""
