"""A plan in the words of Apptainer: what installations that this machine does not have are told."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from cdi_hpc.backend import Dressing, Located, Option, Profile, StagePath, Subcommand, Text
from cdi_hpc.backends.singularity import images, options, own_mounts
from cdi_hpc.backends.singularity.dressing import dress
from cdi_hpc.backends.singularity.settings import variable_patterns
from cdi_hpc.errors import CdiError
from cdi_hpc.host import LiveHost
from cdi_hpc.launch import launcher_options
from cdi_hpc.plan import Action, Bind, Plan, SetEnv, Symlink, UpdateLdCache
from cdi_hpc.spec.model import Origin
from cdi_hpc.witness import Witness

ORIGIN = Origin("/etc/cdi/a.yaml", "vendor.com/class=a", "devices[0].containerEdits")
PLACE = "/run/user/1/cdi-hpc/image"
HELP = """\
  -B, --bind stringArray    a bind
      --mount stringArray   a mount
  -o, --overlay strings     an overlay
  -c, --contain             contain
  -f, --fakeroot            fake root
  -u, --userns              user namespace
      --oci                 another runtime
"""

FILE = Bind("/etc/hostname", "/opt/lab/file", "file", ORIGIN, ("ro",))
NODE = Bind("/dev/zero", "/dev/zero", "device", ORIGIN, recursive=False)
RENAMED = Bind("/dev/zero", "/dev/null", "device", ORIGIN, recursive=False)
LINK = Symlink("/opt/lab/link", "file", ORIGIN)


@pytest.fixture
def image(tmp_path) -> Path:
    image = tmp_path / "image"
    for name in ("dev", "proc", "sys", "etc", "opt", "usr/lib"):
        (image / name).mkdir(parents=True)
    return image


def ext3_image(tmp_path: Path) -> Path:
    """The beginning of a file system that is not read beforehand (ext4(5), the superblock's magic number)."""
    path = tmp_path / "image.img"
    path.write_bytes(bytes(0x438) + b"\x53\xef" + bytes(1024))
    return path


@pytest.fixture
def configuration(tmp_path) -> Path:
    path = tmp_path / "apptainer.conf"
    path.touch()
    return path


@pytest.fixture(autouse=True)
def namespaces(monkeypatch):
    """What this machine allows is no matter: ``namespaces(False)`` for one that refuses them."""

    def allow(*, possible: bool) -> None:
        monkeypatch.setattr(own_mounts, "are_possible", lambda: possible)

    allow(possible=True)
    return allow


def profile_of(configuration: Path, *, of_help: str = HELP, **capabilities: str) -> Profile:
    known = {"prefixes": "APPTAINER,SINGULARITY", "setuid": "no", "mount": "yes", "overlay-driver": "yes"}
    known.update({"configuration": str(configuration), **capabilities})
    subcommand = Subcommand(("exec",), options.with_ours(options.parse_help(of_help)))
    quiet = (Option(("-q", "--quiet"), "none", "keep"),)
    program = "/usr/bin/apptainer"
    return Profile("singularity", program, "pflag", quiet, (subcommand,), capabilities=tuple(known.items()))


def dressed(
    image: Path | str,
    profile: Profile,
    actions: Iterable[Action],
    words: Iterable[str] = (),
    environ: dict[str, str] | None = None,
) -> Dressing:
    line = ["-q", "exec", "--device=vendor.com/class=a", *words, str(image), "true"]
    invocation = launcher_options.read(line, profile)
    located = images.locate_file(str(image), PLACE)
    plan = Plan(("vendor.com/class=a",), tuple(actions))
    return dress(plan, invocation, profile, located, LiveHost(), environ or {}, Witness())


def texts(dressing: Dressing) -> list[str]:
    return [word.text for word in dressing.words if isinstance(word, Text)]


def test_mounts_are_words_and_the_layer_is_the_last_overlay(image, configuration):
    dressing = dressed(image, profile_of(configuration), [FILE, LINK], ["--overlay", "mine"])
    assert StagePath("", "layer", ":ro") in dressing.words
    assert "type=bind,source=/etc/hostname,destination=/opt/lab/file,ro" in texts(dressing)
    assert {entry.path for entry in dressing.stage} >= {"layer/upper/opt/lab/file", "layer/upper/opt/lab/link"}
    assert (dressing.steps, dressing.place, dressing.moves) == ((), "", ())


class Asked(dict):
    """An environment that notes which variables are looked at."""

    def __init__(self, *values: dict[str, str]) -> None:
        super().__init__(*values)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.names.add(name)
        return super().get(name, default)


@pytest.mark.parametrize("head", [b"", b"hello\n", b"#!/bin/sh\necho\n", bytes(0x437) + b"\x53\xef"])
def test_a_file_that_is_no_image_is_refused_before_the_launcher_is_started(tmp_path, head):
    path = tmp_path / "image.img"
    path.write_bytes(head)
    with pytest.raises(CdiError, match=r"image\.img: is a file, but neither of SquashFS nor of SIF"):
        images.locate_file(str(path), PLACE)


@pytest.mark.parametrize("line", [b"", b"#!/usr/bin/env run-singularity\n"])
def test_a_file_that_only_the_launcher_knows_is_left_to_it(tmp_path, line):
    path = ext3_image(tmp_path)
    path.write_bytes(line + path.read_bytes())
    assert images.locate_file(str(path), PLACE).kind == "other"


@pytest.mark.parametrize("can_be_read", [True, False])
@pytest.mark.parametrize("prefixes", ["APPTAINER,SINGULARITY", "SINGULARITY"])
def test_every_variable_that_is_looked_at_is_in_the_key(image, configuration, tmp_path, prefixes, can_be_read):
    if not can_be_read:
        image = ext3_image(tmp_path)
    environ = Asked({"LANG": "C"})
    actions = [FILE, LINK, NODE, SetEnv("LAB", "value", ORIGIN), UpdateLdCache(("/opt/lab",), ORIGIN)]
    dressed(image, profile_of(configuration, prefixes=prefixes), actions, environ=environ)
    patterns = variable_patterns(tuple(prefixes.split(",")))
    assert environ.names
    assert not {name for name in environ.names if not any(fnmatchcase(name, pattern) for pattern in patterns)}


def test_without_mount_a_bind_says_it_and_refuses_what_it_cannot_say(image, configuration, tmp_path):
    profile = profile_of(configuration, mount="no")
    assert "/etc/hostname:/opt/lab/file:ro" in texts(dressed(image, profile, [FILE]))
    odd = Bind("/etc/hostname", "/opt/a:b", "file", ORIGIN)
    with pytest.raises(CdiError, match="has no --mount"):
        dressed(image, profile, [odd])


def test_a_node_that_the_host_shows_already_needs_nothing_of_a_setuid_installation(image, configuration):
    dressing = dressed(image, profile_of(configuration, setuid="yes"), [NODE])
    assert (dressing.steps, dressing.moves, texts(dressing)) == ((), (), [])


def test_a_renamed_node_takes_a_setuid_installation_into_a_namespace_of_ours(image, configuration):
    dressing = dressed(image, profile_of(configuration, setuid="yes"), [RENAMED])
    assert [target for _, target in dressing.moves] == ["/dev/null"]
    assert dressing.place == PLACE
    # There the program that would be root's is nobody's, and it stops.
    assert texts(dressing) == ["--userns"]


def test_a_renamed_node_is_refused_where_there_are_no_namespaces(image, configuration, namespaces):
    namespaces(possible=False)
    with pytest.raises(CdiError, match="deviceNodes /dev/null"):
        dressed(image, profile_of(configuration), [RENAMED])
    assert dressed(image, profile_of(configuration), [NODE]).steps == ()


def test_a_setuid_installation_that_takes_no_directory_as_an_overlay_goes_without_setuid(
    image, configuration, namespaces
):
    profile = profile_of(configuration, **{"setuid": "yes", "overlay-driver": "no"})
    assert "--userns" in texts(dressed(image, profile, [LINK]))
    assert "--userns" not in texts(dressed(image, profile_of(configuration, setuid="yes"), [LINK]))
    (configuration).write_text("allow setuid = no\n")
    assert "--userns" not in texts(dressed(image, profile, [LINK]))
    configuration.write_text("")
    namespaces(possible=False)
    with pytest.raises(CdiError, match="fuse-overlayfs"):
        dressed(image, profile, [LINK])


@pytest.mark.parametrize(
    "directive, actions, words",
    [
        ("user bind control = no", [FILE], []),
        ("enable overlay = no", [LINK], []),
        ("mount dev = no", [NODE], []),
        ("", [FILE], ["--oci"]),
    ],
)
def test_what_the_administrator_or_the_user_rules_out_is_named(image, configuration, directive, actions, words):
    configuration.write_text(f"{directive}\n")
    with pytest.raises(CdiError) as caught:
        dressed(image, profile_of(configuration), actions, words)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].fix


# What the user has in the place of an edit ------------------------------------------------------------------------


def refusal(*arguments, **others) -> list[str]:
    with pytest.raises(CdiError) as caught:
        dressed(*arguments, **others)
    assert all(problem.fix for problem in caught.value.problems)
    return [f"{problem.where}: {problem.what}" for problem in caught.value.problems]


@pytest.mark.parametrize(
    "words, environ, where",
    [
        (["--bind", "/etc/passwd:/opt/lab/file"], {}, "--bind /etc/passwd:/opt/lab/file"),
        (["--bind", "/etc:/mnt,/etc/passwd:/opt/lab/../lab/file"], {}, "--bind /etc/passwd:/opt/lab/../lab/file"),
        ([], {"APPTAINER_BIND": "/etc/passwd:/opt/lab/file:ro"}, "APPTAINER_BIND=/etc/passwd:/opt/lab/file"),
        (
            ["--mount", "type=bind,src=/etc/passwd,dst=/opt/lab/file"],
            {},
            "--mount type=bind,source=/etc/passwd,destination=/opt/lab/file",
        ),
    ],
)
@pytest.mark.parametrize("can_be_read", [True, False])
def test_a_bind_that_would_hide_an_edit_is_refused(image, configuration, tmp_path, words, environ, where, can_be_read):
    (image / "opt/lab").mkdir()
    (image / "opt/lab/file").touch()
    (said,) = refusal(
        image if can_be_read else ext3_image(tmp_path), profile_of(configuration), [FILE], words, environ=environ
    )
    asking = ORIGIN if can_be_read else "a device"
    assert said == f"{where}: would hide '/opt/lab/file', which {asking} asks for"


def test_a_mount_of_the_administrators_that_would_hide_an_edit_is_named(image, configuration):
    (image / "opt/lab").mkdir()
    (image / "opt/lab/file").touch()
    configuration.write_text("bind path = /etc/passwd:/opt/lab/file\n")
    (said,) = refusal(image, profile_of(configuration), [FILE])
    assert said.startswith(f"'bind path = /etc/passwd:/opt/lab/file' of {configuration}: would hide '/opt/lab/file'")


@pytest.mark.parametrize("words", [["--bind", "/etc/hostname:/opt/lab/file"], ["--bind", "/etc/passwd:/opt/other"]])
def test_a_bind_of_the_same_file_or_elsewhere_hides_nothing(image, configuration, words):
    (image / "opt/lab").mkdir()
    for name in ("opt/lab/file", "opt/other"):
        (image / name).touch()
    assert dressed(image, profile_of(configuration), [FILE], words)


@pytest.mark.parametrize("small", [[], ["--contain"]])
@pytest.mark.parametrize("words", [["--bind", "{}:/dev"], ["--bind", "{}:/dev/"], ["--bind", "{}/null:/dev/zero"]])
def test_a_bind_over_dev_hides_the_nodes_in_it(image, configuration, tmp_path, words, small):
    (tmp_path / "null").touch()
    (said,) = refusal(image, profile_of(configuration), [NODE], [*small, *(word.format(tmp_path) for word in words)])
    assert said.endswith(f"would hide '/dev/zero', which {ORIGIN} asks for")


@pytest.mark.parametrize("words", [["--bind", "/dev"], ["--bind", "/dev:/dev,/etc:/mnt"], ["--bind", "/dev/shm"]])
@pytest.mark.parametrize("action", [NODE, RENAMED])
def test_a_bind_of_the_machines_own_dev_hides_nothing(image, configuration, words, action):
    assert dressed(image, profile_of(configuration), [action], words)


@pytest.mark.parametrize(
    "directive, words, environ, where",
    [
        ("mount dev = no", [], {}, "{}"),
        ("", ["--no-mount", "home,dev"], {}, "--no-mount dev"),
        ("", [], {"APPTAINER_NO_MOUNT": "dev"}, "APPTAINER_NO_MOUNT=dev"),
        ("mount dev = no", ["--no-mount", "dev"], {"APPTAINER_NO_MOUNT": "dev"}, "--no-mount dev"),
    ],
)
def test_who_leaves_dev_out_is_named(image, configuration, directive, words, environ, where):
    configuration.write_text(f"{directive}\n")
    profile = profile_of(configuration, of_help=f"{HELP}      --no-mount strings   mounts\n")
    (said,) = refusal(image, profile, [NODE], words, environ=environ)
    assert said.startswith(f"{where.format(configuration)}: ")


@pytest.mark.parametrize("directive, action", [("enable overlay = no", LINK), ("user bind control = no", FILE)])
def test_the_configuration_that_the_user_has_named_is_the_one_that_is_blamed(
    image, configuration, tmp_path, directive, action
):
    other = tmp_path / "other.conf"
    other.write_text(f"{directive}\n")
    profile = profile_of(configuration, of_help=f"{HELP}      --config string        a file\n")
    assert refusal(image, profile, [action], ["--config", str(other)])[0].startswith(f"{other}: ")


def test_a_small_dev_of_the_administrators_is_one_as_well(image, configuration):
    configuration.write_text("mount dev = minimal\n")
    actions = [Bind("/dev/full", "/dev/full", "device", ORIGIN, recursive=False)]
    assert texts(dressed(image, profile_of(configuration), actions)) == [
        "--mount",
        "type=bind,source=/dev/full,destination=/dev/full",
    ]


def test_singularity_has_variables_of_its_own(image, configuration):
    profile = profile_of(configuration, prefixes="SINGULARITY")
    (variable,) = dressed(image, profile, [SetEnv("LAB", "value", ORIGIN)]).variables
    assert (variable.name, variable.value, variable.default) == ("SINGULARITYENV_LAB", "value", True)


def test_a_place_for_stages_that_an_option_cannot_name_is_refused(image, configuration):
    line = ["exec", "--device=vendor.com/class=a", str(image), "true"]
    profile = profile_of(configuration)
    located = images.locate_file(str(image), "/run/a,b/cdi-hpc/image")
    plan = Plan((), (LINK,))
    with pytest.raises(CdiError, match="XDG_RUNTIME_DIR"):
        dress(plan, launcher_options.read(line, profile), profile, located, LiveHost(), {}, Witness())


# Images that can't be read -------------------------------------------------------------------------------------------


def test_an_image_that_cannot_be_read_is_dressed_by_what_is_known_of_any(configuration):
    profile = profile_of(configuration)
    line = ["exec", "--device=vendor.com/class=a", "/images/a.img", "true"]
    located = Located("/images/a.img", "other", place=PLACE, reason="is ext3")
    library = Symlink("/usr/lib/liba.so.1", "liba.so.1.2", ORIGIN)
    plan = Plan((), (FILE, library, LINK))
    invocation = launcher_options.read(line, profile)
    dressing = dress(plan, invocation, profile, located, LiveHost(), {}, Witness())
    assert [variable.value for variable in dressing.variables] == ["/.singularity.d/cdi-hpc"]
    assert ("links/liba.so.1", "/usr/lib/liba.so.1.2") in [
        (entry.path, getattr(entry, "points_to", "")) for entry in dressing.stage
    ]
    assert [lack.edit for lack in dressing.lacks] == ["link /opt/lab/link"]
    assert "is ext3" in dressing.messages[0]
