"""Plans for a launcher: its command line, and what it finds in the namespace in which it is executed."""

from __future__ import annotations

import os
import re
import sys
from ast import literal_eval
from pathlib import Path

import pytest
from native_programs import HOST_ROOT, Launcher

from cdi_hpc.compiled import wire


@pytest.fixture
def place(tmp_path) -> Path:
    """A directory of the host that a tree is put over; it lies below /tmp, where trees are made first."""
    place = tmp_path / "images" / "one"
    place.mkdir(parents=True)
    (place / "covered").touch()
    return place


@pytest.fixture
def image(tmp_path) -> Path:
    image = tmp_path / "image"
    for name in ("dev", "proc", "opt"):
        (image / name).mkdir(parents=True)
    (image / "opt" / "own").write_text("the image's\n")
    return image


def shell(text: str) -> list[str]:
    return ["sh", "-c", text]


# The command line -------------------------------------------------------------------------------------------------

#: Executed as a launcher: shows its words, one a line.
SHOW_WORDS = "import sys; print(*(repr(word) for word in sys.argv[1:]), sep='\\n')"

PYTHON = [wire.Program(sys.executable), wire.Arg("-c"), wire.Arg(SHOW_WORDS)]


def words_of(launcher: Launcher, *records: wire.Record, **options) -> list[str]:
    return [literal_eval(line) for line in launcher.said(*PYTHON, *records, **options).splitlines()]


def test_a_launcher_gets_the_plans_words_and_then_the_users_command(launcher):
    command = ["sh", "-c", "echo 'a b'\n", ""]
    words = words_of(launcher, wire.Arg("--bind=/a b:/c"), wire.Arg(""), wire.Arg("image"), command=command)
    assert words == ["--bind=/a b:/c", "", "image", *command]


def test_words_of_the_user_are_passed_on_as_he_typed_them_this_time(launcher):
    plan = [wire.KeepArg(2), wire.Arg("between"), wire.KeepArg(0), wire.KeepArg(2)]
    typed = ["--set-env=A=\n$(b)", "unused", "-é"]
    assert words_of(launcher, *plan, words=typed) == ["-é", "between", typed[0], "-é"]


def test_a_word_can_have_a_path_of_the_stage_in_it(launcher):
    plan = [wire.StageArg("--overlay=", "layer/a b", ":ro"), wire.StageArg("", "file", "")]
    assert words_of(launcher, *plan) == [f"--overlay={launcher.stage}/layer/a b:ro", f"{launcher.stage}/file"]


def test_a_word_that_was_not_typed_is_not_made_up(launcher):
    done = launcher.run(*PYTHON, wire.KeepArg(0), wire.KeepArg(2), words=["one", "two"], command=["true"])
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "words: the plan is for a command line of more than 2 words\n"


def test_ten_thousand_words_are_passed_on(launcher):
    plan = [record for n in range(5000) for record in (wire.Arg(f"a{n}"), wire.StageArg("b", str(n), "c"))]
    words = words_of(launcher, *plan)
    assert words == [word for n in range(5000) for word in (f"a{n}", f"b{launcher.stage}/{n}c")]


def test_without_steps_no_namespace_is_entered(launcher):
    plan = [wire.Program("/bin/sh"), wire.Arg("-c"), wire.Arg("readlink /proc/self/ns/user /proc/self/ns/mnt")]
    assert launcher.said(*plan).split() == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "mnt")]


@pytest.mark.parametrize("wanted", [True, False])
def test_capabilities_are_gone_and_the_launcher_decides_on_new_privileges(wanted, launcher, place):
    env = {"NO_NEW_PRIVS": "1"} if wanted else {}
    text = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"
    plan = [wire.Program("/bin/sh"), HOST_ROOT, wire.Place(str(place)), wire.Arg("-c"), wire.Arg(text)]
    found = dict(line.split() for line in launcher.said(*plan, env=env).splitlines())
    assert {value for name, value in found.items() if name.startswith("Cap")} == {"0" * 16}
    assert len(found) == 6
    assert found["NoNewPrivs:"] == ("1" if wanted else "0")


# The tree at its place --------------------------------------------------------------------------------------------


def layered(launcher: Launcher, image: Path, place: Path, *steps: wire.Step) -> list[wire.Record]:
    """An overlay over the image, at a place."""
    (launcher.stage / "1" / "opt").mkdir(parents=True)
    (launcher.stage / "1" / "opt" / "staged").write_text("staged\n")
    overlay = wire.Overlay("/", "1", str(image), flags=("nodev", "nosuid", "ro"))
    return [overlay, *steps, wire.Place(str(place))]


def test_the_tree_covers_a_directory_and_the_rest_is_the_hosts(launcher, place, image):
    text = f"cat {place}/opt/own {place}/opt/staged; ls {place} {launcher.directory}/images; pwd; ls -d /etc/passwd"
    out = launcher.said(*layered(launcher, image, place), command=shell(text))
    before, _, after = out.partition(f"{place}:\n")
    assert before == f"the image's\nstaged\n{launcher.directory}/images:\none\n\n"
    assert after.split() == ["dev", "opt", "proc", "/", "/etc/passwd"]
    assert os.listdir(place) == ["covered"]


def test_the_image_itself_can_be_covered_by_its_own_dressing(launcher, image):
    text = f"cat {image}/opt/own {image}/opt/staged"
    assert launcher.said(*layered(launcher, image, image), command=shell(text)) == "the image's\nstaged\n"
    assert os.listdir(image / "opt") == ["own"]


def test_an_underlay_covers_its_own_image_as_well(launcher, image):
    steps = [
        wire.Mount("tmpfs", "underlay", "/", ("nodev", "nosuid"), "mode=755"),
        wire.Mkdir("/opt"),
        wire.Bind(f"{image}/opt", "/opt"),
        wire.Symlink("/link", "opt"),
        wire.Restrict("/", ("nodev", "nosuid", "ro")),
        wire.Place(str(image)),
    ]
    text = f"cat {image}/link/own; mkdir {image}/x 2>/dev/null || echo read-only"
    assert launcher.said(*steps, command=shell(text)) == "the image's\nread-only\n"


def test_mounts_in_the_tree_come_along(launcher, place, image):
    steps = [wire.Bind("/dev", "/dev"), wire.Mount("tmpfs", "new", "/proc", (), "mode=711")]
    text = f"echo x >{place}/dev/null && stat -c %a {place}/proc"
    assert launcher.said(*layered(launcher, image, place, *steps), command=shell(text)) == "711\n"


def test_a_tree_with_shared_mounts_has_a_place_too(launcher, place, image):
    steps = [wire.Bind(str(image), "/", propagation="rshared"), wire.Place(str(place))]
    assert launcher.said(*steps, command=["ls", str(place)]).split() == ["dev", "opt", "proc"]


def test_nothing_but_the_place_is_mounted_anew(launcher, place, image):
    """And the host sees nothing of it."""
    before = Path("/proc/self/mountinfo").read_text().splitlines()
    inside = launcher.said(*layered(launcher, image, place), command=["cat", "/proc/self/mountinfo"]).splitlines()
    assert [line.split()[4] for line in inside] == [*(line.split()[4] for line in before), str(place)]
    assert Path("/proc/self/mountinfo").read_text().splitlines() == before


def test_a_launcher_can_make_namespaces_of_its_own(launcher, place, image):
    command = ["unshare", "--user", "--map-root-user", "--mount", "cat", f"{place}/opt/staged"]
    assert launcher.said(*layered(launcher, image, place), command=command) == "staged\n"


def test_the_command_is_not_in_what_was_covered(launcher, place, image):
    """The working directory may be one that is covered now: / until somebody goes there by path."""
    command = shell(f"pwd; cd {place}; ls")
    assert launcher.said(*layered(launcher, image, place), command=command, cwd=place).split() == [
        "/",
        "dev",
        "opt",
        "proc",
    ]


@pytest.mark.parametrize(
    ("where", "error"), [("link", "Too many levels of symbolic links"), ("missing", "No such file or directory")]
)
def test_the_place_is_one_directory_and_no_link_to_another(where, error, launcher, place):
    (place.parent / "link").symlink_to(place)
    there = place.parent / where
    done = launcher.run(HOST_ROOT, wire.Place(str(there)), command=["true"])
    assert (done.returncode, done.stderr) == (125, f"apply: {there}: can't put the tree over it: {error}\n")


def test_a_tree_is_not_put_over_a_file(launcher, place):
    done = launcher.run(HOST_ROOT, wire.Place(f"{place}/covered"), command=["true"])
    assert done.returncode == 125
    assert re.fullmatch(r"apply: \S+: can't put the tree over it: (Not a directory|Invalid argument)\n", done.stderr)


def test_a_refused_overlay_leaves_the_host_as_it_was(launcher, place):
    (launcher.stage / "1").mkdir()
    # overlayfs refuses a layer that has locked mounts below it.
    steps = [HOST_ROOT, wire.Overlay(str(place), "1", "/dev"), wire.Place(str(place))]
    done = launcher.run(*steps, command=["cat", "/proc/self/mountinfo"])
    assert done.stderr.startswith("overlay refused: ")
    before = Path("/proc/self/mountinfo").read_text().splitlines()
    assert [line.split()[4] for line in done.stdout.splitlines()] == [line.split()[4] for line in before]


# Moved mounts -----------------------------------------------------------------------------------------------------

PRIVATE_DEV = [
    wire.Mount("tmpfs", "dev", "/dev", ("noexec", "nosuid"), "mode=755"),
    wire.Mkfile("/dev/null"),
    wire.Bind("/dev/null", "/dev/null", recursive=False),
    wire.Mkfile("/dev/renamed"),
    wire.Bind("/dev/zero", "/dev/renamed", recursive=False),
]


def test_a_dev_of_the_trees_becomes_the_hosts(launcher, place, image):
    steps = [*layered(launcher, image, place, *PRIVATE_DEV), wire.Move("/dev", "/dev")]
    text = f"ls /dev; echo x >/dev/null && head -c 1 /dev/renamed | wc -c; stat -c %a /dev; ls {place}/dev"
    assert launcher.said(*steps, command=shell(text)).split() == ["null", "renamed", "1", "755"]


def test_a_proc_with_a_covered_file_becomes_the_hosts(launcher, place, image):
    launcher.stage.joinpath("version").write_text("ours\n")
    proc = [wire.Bind("/proc", "/proc"), wire.BindStaged("version", "/proc/version", ("nodev", "ro"))]
    steps = [*layered(launcher, image, place, *proc), wire.Move("/proc", "/proc")]
    text = "cat /proc/version; test -e /proc/self/fd/1 && grep -c ^Pid: /proc/self/status"
    assert launcher.said(*steps, command=shell(text)) == "ours\n1\n"


def test_a_nested_launcher_binds_what_was_moved(launcher, place, image):
    """As ch-run does: its own namespaces, the machine's /dev recursively into the image."""
    steps = [*layered(launcher, image, place, *PRIVATE_DEV), wire.Move("/dev", "/dev")]
    text = f"mount --rbind {place} {place} && mount --rbind /dev {place}/dev && ls {place}/dev"
    command = ["unshare", "--user", "--map-root-user", "--mount", *shell(text)]
    assert launcher.said(*steps, command=command).split() == ["null", "renamed"]


def test_several_mounts_are_moved_in_order(launcher, place, image, tmp_path):
    targets = [tmp_path / name for name in ("a", "b")]
    for target in targets:
        target.mkdir()
    steps = [
        *(wire.Mount("tmpfs", name, f"/{name}", (), f"mode={mode}") for name, mode in (("opt", 701), ("proc", 702))),
    ]
    moves = [wire.Move("/opt", str(targets[0])), wire.Move("/proc", str(targets[1]))]
    command = ["stat", "-c", "%a", *map(str, targets), f"{place}/opt"]
    assert launcher.said(*layered(launcher, image, place, *steps), *moves, command=command).split() == [
        "701",
        "702",
        "755",
    ]


@pytest.mark.parametrize(
    ("move", "complaint"),
    [
        (wire.Move("/opt", "/dev"), "/dev: can't move the tree's /opt there: Invalid argument"),
        (wire.Move("/none", "/dev"), "/dev: can't move the tree's /none there: No such file or directory"),
        (wire.Move("/dev", "/none"), "/none: can't move the tree's /dev there: No such file or directory"),
        (wire.Move("/dev/null", "/dev"), "/dev: can't move the tree's /dev/null there: "),
        (wire.Move("/link", "/dev"), "/dev: can't move the tree's /link there: Too many levels of symbolic links"),
    ],
    ids=lambda value: f"{value.mounted} to {value.mountpoint}" if isinstance(value, wire.Move) else "",
)
def test_what_can_not_be_moved_ends_the_launch(move, complaint, launcher, place, image):
    (image / "link").symlink_to("dev")
    done = launcher.run(*layered(launcher, image, place, *PRIVATE_DEV), move, command=["true"])
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"apply: {complaint}")
