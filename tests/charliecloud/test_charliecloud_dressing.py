"""A plan for an invocation of ch-run: its words, what is moved to the host's paths, and what is said to be lacking."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from releases import EARLY, LATE, invocation

from cdi_hpc.backend import Dressing, Keep, Peers, Text, Variable
from cdi_hpc.backends.charliecloud.dressing import dress
from cdi_hpc.backends.charliecloud.images import locate
from cdi_hpc.container.steps import BindHost, BindStaged, MakeFile, MountNew, MountOverlay
from cdi_hpc.errors import CdiError
from cdi_hpc.host import LiveHost
from cdi_hpc.launch.host_dev import brought_back
from cdi_hpc.plan import Action, Bind, MountFilesystem, Plan, SetEnv, Symlink, WriteFile
from cdi_hpc.spec.model import Origin
from cdi_hpc.witness import DirectoryState, Recorder, Witness

ORIGIN = Origin("/etc/cdi/a.yaml", "vendor.com/class=a", "devices[0].containerEdits")
PLACE = "/run/user/1/cdi-hpc/image"

FILE = Bind("/etc/hostname", "/opt/lab/file", "file", ORIGIN, ("ro",))
NODE = Bind("/dev/zero", "/dev/zero", "device", ORIGIN, recursive=False)
RENAMED = Bind("/dev/zero", "/dev/lab/zero", "device", ORIGIN, recursive=False)
VARIABLE = SetEnv("LAB", "value", ORIGIN)


@pytest.fixture
def image(tmp_path) -> Path:
    """An image with what ch-run needs, in a directory that is not below the host's /tmp as ch-run is told of it."""
    image = tmp_path / "image"
    for name in ("dev", "proc", "sys", "tmp", "etc", "opt", "usr/lib"):
        (image / name).mkdir(parents=True)
    for name in ("passwd", "group", "hosts", "resolv.conf"):
        (image / "etc" / name).touch()
    (image / "usr/lib/own").touch()
    return image


def dressed(
    words: Iterable[str],
    image: Path,
    actions: Iterable[Action] = (FILE,),
    *,
    profile=LATE,
    private_dev: str | None = None,
    environ: dict[str, str] | None = None,
    witness: Witness | None = None,
) -> Dressing:
    called = invocation([*words, str(image), "--", "true", "-v"], profile)
    environ = {"TMPDIR": "/dev/shm", "USER": "me", **(environ or {})}
    plan = Plan(("vendor.com/class=a",), tuple(actions), private_dev)
    located = locate(called, profile, environ, PLACE)
    return dress(plan, called, profile, located, LiveHost(), environ, witness or Witness())


def command_line(dressing: Dressing, words: Iterable[str], image: Path) -> list[str]:
    typed = invocation([*words, str(image), "--", "true", "-v"]).words
    return [typed[word.index] if isinstance(word, Keep) else word.text for word in dressing.words]


# Words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--cdi=x.y/z=a"], ["--set-env=LAB=value"]),
        (["-vtdx.y/z=a", "-c", "/usr"], ["-v", "-t", "--set-env=LAB=value", "-c", "/usr"]),
        (
            ["--set-env=A=1", "--device", "x.y/z=a", "--set-env=B=2"],
            ["--set-env=A=1", "--set-env=LAB=value", "--set-env=B=2"],
        ),
        (["--device=a.b/c=1", "-v", "--cdi=x.y/z"], ["--set-env=LAB=value", "-v"]),
        (["--cdi-dirs=/x", "-v", "--cdi"], ["-v", "--set-env=LAB=value"]),
        (["-v"], ["--set-env=LAB=value", "-v"]),
        (["--cdi-dirs", "/x"], ["--set-env=LAB=value"]),
    ],
)
def test_variables_take_the_place_of_the_first_option_that_asks_for_a_device(words, expected, image):
    made = dressed(words, image, [FILE, VARIABLE])
    assert command_line(made, words, image) == [*expected, "--", str(image)]


def test_a_value_that_was_typed_is_not_in_the_plan(image):
    made = dressed(["-c", "/secret", "--set-env=A=secret", "--cdi"], image)
    assert not any("secret" in word.text for word in made.words if isinstance(word, Text))


def test_a_plan_of_variables_alone_changes_no_image(image):
    made = dressed(["--cdi", "-m", "/mnt"], image, [SetEnv("LAB", "$HOME", ORIGIN)])
    assert (made.steps, made.moves, made.place, made.squashfs) == ((), (), "", "")
    assert made.variables == (Variable("CDI_HPC_LITERAL_0", "$HOME"),)
    assert Keep(2) in made.words


def test_the_mount_point_of_a_file_is_no_option_of_a_directory(lab, tmp_path):
    file = lab.image("debian-root").with_name("musl.sqfs")
    made = dressed(["--cdi", "-m", "/mnt"], file)
    assert (made.squashfs, made.place) == (str(file), PLACE)
    assert command_line(made, ["--cdi", "-m", "/mnt"], file) == ["--", PLACE]


def test_the_hosts_own_root_is_no_image():
    with pytest.raises(CdiError, match=r"image /: is the host's own root directory, .*cdi-hpc run"):
        dressed(["--cdi"], Path("/"), [WriteFile("/usr/lib/own", b"", 0o644, ORIGIN)])


# Written to -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "size"), [(["-W"], "12%"), (["--write-fake=1g"], "1g"), (["-W5%", "-w"], "5%"), (["-W1k", "-W"], "12%")]
)
def test_what_is_written_goes_to_a_tmpfs_of_ours(words, size, image):
    made = dressed(["--cdi", *words], image)
    (limit,) = [step.data[0] for step in made.steps if isinstance(step, MountNew) and step.path.startswith("write")]
    assert limit == f"size={size}"
    assert command_line(made, ["--cdi", *words], image) == ["--write", "--", str(image)]
    assert [step.writable != "" for step in made.steps if isinstance(step, MountOverlay)] == [True]


@pytest.mark.parametrize("size", ["1,uid=0", "lots", "-1", " ", "12%%"])
def test_what_is_no_size_is_refused(size, image):
    with pytest.raises(CdiError, match="is no size of a file system"):
        dressed(["--cdi", f"-W{size}"], image)


def test_home_is_part_of_the_tree_where_it_makes_the_image_writable(image, tmp_path):
    made = dressed(["--cdi", "--home"], image, environ={"HOME": str(tmp_path)})
    assert command_line(made, ["--cdi", "--home"], image) == ["--set-env=HOME=/home/me", "--write", "--", str(image)]
    assert (str(tmp_path), "root/home/me") in [(s.source, s.path) for s in made.steps if isinstance(s, BindHost)]


def test_home_is_left_to_a_release_that_can_do_it(image, tmp_path):
    words = ["--cdi", "--home"]
    made = dressed(words, image, profile=EARLY, environ={"HOME": str(tmp_path)})
    assert command_line(made, words, image) == ["--home", "--", str(image)]
    assert not any(isinstance(step, MountOverlay) and step.writable for step in made.steps)


@pytest.mark.parametrize("environ", [{}, {"HOME": "/nowhere"}])
def test_home_without_a_home_is_refused(environ, image):
    with pytest.raises(CdiError, match=r"--home: \$HOME is"):
        dressed(["--cdi", "--home"], image, environ=environ)


def test_an_image_that_is_written_to_is_covered_only_where_a_name_is_missing(image):
    made = dressed(["--cdi", "-w"], image, [FILE, WriteFile("/usr/lib/own", b"ours", 0o644, ORIGIN)])
    covered = [step.path for step in made.steps if isinstance(step, MountNew)]
    assert covered == ["root/opt"]
    assert [step.path for step in made.steps if isinstance(step, BindStaged)] == ["root/usr/lib/own"]
    assert made.steps[4] == BindHost(str(image), "root")
    (message,) = [text for text in made.messages if text.startswith("--write")]
    assert "in /opt:" in message


def test_a_mount_point_that_only_may_be_there_covers_nothing_of_an_image_that_is_written_to(image):
    (image / "etc/hosts").unlink()
    made = dressed(["--cdi", "-w"], image)
    assert [step.path for step in made.steps if isinstance(step, MountNew)] == ["root/opt"]
    assert "root/etc/hosts" not in {step.path for step in made.steps}


# What ch-run binds itself -------------------------------------------------------------------------------------------


def test_what_ch_run_binds_is_left_to_it(image):
    made = dressed(["--cdi"], image)
    assert made.moves == ()
    assert [step.path for step in made.steps if isinstance(step, BindHost)] == ["layer/2", "root/opt/lab/file"]


def test_a_device_node_is_a_mount_in_a_dev_that_is_moved_to_the_hosts(image):
    made = dressed(["--cdi"], image, [NODE])
    assert made.moves == (("/dev", "/dev"),)
    binds = [(step.source, step.path) for step in made.steps if isinstance(step, BindHost)]
    assert binds[-2:] == [("/dev", "root/dev"), ("/dev/zero", "root/dev/zero")]


def test_a_dev_of_its_own_is_moved_as_well(image):
    made = dressed(["--cdi"], image, [RENAMED], private_dev="renamed")
    assert made.moves == (("/dev", "/dev"),)
    new = [(step.fstype, step.path) for step in made.steps if isinstance(step, MountNew)]
    assert new == [("tmpfs", "root/dev"), ("devpts", "root/dev/pts")]
    assert made.messages == ("/dev is made anew, of the host's nodes and the requested ones: renamed",)


def test_a_dev_of_its_own_has_all_that_the_host_has(image):
    recorder = Recorder()
    made = dressed(["--cdi"], image, [RENAMED], private_dev="renamed", witness=recorder)
    binds = {step.path.split("/")[2] for step in made.steps if isinstance(step, BindHost) and "/dev/" in step.path}
    links = {name for name in os.listdir("/dev") if os.path.islink(f"/dev/{name}")}
    assert binds >= {*os.listdir("/dev"), "lab"} - {"pts", "ptmx"} - links
    assert "/dev" in {state.path for state in recorder.states() if isinstance(state, DirectoryState)}


def test_the_hosts_directories_are_made_anew_around_a_renamed_node(tmp_path):
    for name in ("dri/by-path/one", "dri/card0", "net/tun", "own/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("dri/card0")
    top = str(tmp_path)
    recorder = Recorder()
    found = list(brought_back(frozenset({f"{top}/dri/new", f"{top}/own"}), LiveHost(), recorder, top))
    assert [(each.path, each.points_to) for each in found if isinstance(each, Symlink)] == [
        (f"{top}/link", "dri/card0")
    ]
    assert [(each.target[len(top) :], each.kind) for each in found if isinstance(each, Bind)] == [
        ("/dri/by-path", "directory"),
        ("/dri/card0", "file"),
        ("/net", "directory"),
    ]
    assert {state.path for state in recorder.states()} == {top, f"{top}/dri"}


def test_a_file_of_the_kernels_is_covered_in_a_proc_that_is_moved(image):
    made = dressed(["--cdi"], image, [WriteFile("/proc/version", b"ours\n", 0o444, ORIGIN)])
    assert made.moves == (("/proc", "/proc"),)
    assert [step.path for step in made.steps if isinstance(step, BindStaged)] == ["root/proc/version"]
    assert [step.content for step in made.steps if isinstance(step, MakeFile)] == [b"ours\n"]


def test_something_in_tmp_goes_to_the_hosts_temporary_directory(image, tmp_path):
    temporary = tmp_path / "job"
    temporary.mkdir()
    made = dressed(
        ["--cdi"], image, [MountFilesystem("tmpfs", "x", "/tmp/x", ORIGIN)], environ={"TMPDIR": str(temporary)}
    )
    assert made.moves == (("/tmp", str(temporary)),)
    assert made.messages[0].startswith("what is made in /tmp is gone afterwards")


def test_a_private_tmp_is_ours_where_something_is_in_it(image, tmp_path):
    (tmp_path / "job").mkdir()
    environ = {"TMPDIR": str(tmp_path / "job")}
    words = ["--cdi", "-t"]
    used = dressed(words, image, [MountFilesystem("tmpfs", "x", "/tmp/x", ORIGIN)], environ=environ)
    unused = dressed(words, image, environ=environ)
    assert command_line(used, words, image) == ["--", str(image)]
    assert command_line(unused, words, image) == ["-t", "--", str(image)]
    assert ("tmpfs", "root/tmp") in [(step.fstype, step.path) for step in used.steps if isinstance(step, MountNew)]


def test_what_the_hosts_tmp_shows_anyway_is_not_mounted_again(image, tmp_path):
    (tmp_path / "pipes").mkdir()
    shown = Bind(f"{tmp_path}/pipes", "/tmp/pipes", "directory", ORIGIN)
    made = dressed(["--cdi"], image, [FILE, shown], environ={"TMPDIR": str(tmp_path)})
    assert made.moves == ()


def test_an_image_below_tmp_and_a_mount_in_tmp_are_too_much(image, tmp_path):
    with pytest.raises(CdiError, match="keep the image elsewhere"):
        dressed(["--cdi"], image, [MountFilesystem("tmpfs", "x", "/tmp/x", ORIGIN)], environ={"TMPDIR": str(tmp_path)})


@pytest.mark.parametrize(
    "action",
    [
        Bind("/etc/hostname", "/etc/hosts", "file", ORIGIN),
        WriteFile("/etc/passwd", b"", 0o644, ORIGIN),
        Symlink("/etc/resolv.conf", "elsewhere", ORIGIN),
    ],
)
def test_what_ch_run_covers_is_said_to_be_lacking(action, image):
    (lack,) = dressed(["--cdi"], image, [action]).lacks
    assert "ch-run binds the host's /etc/" in lack.reason
    assert (lack.origin, lack.fatal) == (ORIGIN, False)


# What ch-run needs --------------------------------------------------------------------------------------------------


def staged(made: Dressing) -> set[str]:
    return {step.path.partition("/")[2].partition("/")[2] for step in made.steps if step.path.startswith("stage/")}


def test_mount_points_that_ch_run_needs_are_made(tmp_path):
    image = tmp_path / "empty"
    image.mkdir()
    assert staged(dressed(["--cdi"], image)) >= {"dev", "proc", "sys", "tmp", "etc/passwd", "etc/group"}
    assert staged(dressed(["--cdi", "--no-passwd"], image)).isdisjoint({"etc/passwd", "etc/group"})


def test_mount_points_of_the_users_own_binds_are_made(image):
    words = [
        "--cdi",
        "-b",
        "/etc:/new/directory",
        "-b",
        "/etc/hostname",
        "-b/etc/passwd:/new/file",
        "-b",
        "/nowhere:/n",
    ]
    made = dressed(words, image)
    assert {"new/directory", "etc/hostname", "new/file"} <= staged(made)
    assert "n" not in staged(made)
    assert MakeFile("stage/1/new/file", is_mount_point=True) in made.steps
    assert command_line(made, words, image) == [*words[1:], "--", str(image)]


def test_what_can_not_be_a_mount_point_is_left_to_ch_run(image):
    made = dressed(["--cdi", "-b", "/etc:/proc/new", "-b", "/etc:/usr/lib/own/x"], image)
    assert made.lacks == ()


@pytest.mark.parametrize(
    ("target", "action"),
    [
        ("/opt", FILE),
        ("/opt/lab/../lab/file", FILE),
        ("/alias/lab", FILE),
        ("/usr", WriteFile("/usr/lib/own", b"", 0o644, ORIGIN)),
        ("/usr/lib", Symlink("/usr/lib/link", "own", ORIGIN)),
        ("/opt", MountFilesystem("tmpfs", "x", "/opt/x", ORIGIN)),
        ("/dev", RENAMED),
    ],
)
def test_a_bind_of_the_users_that_would_hide_an_edit_is_refused(target, action, image):
    (image / "alias").symlink_to("opt")
    with pytest.raises(CdiError, match=rf"--bind /etc:{target}: would hide '{_place(action)}', which .*a\.yaml"):
        dressed(["--cdi", "-b", f"/etc:{target}"], image, [action])


def _place(action: Action) -> str:
    return action.target if isinstance(action, (Bind, MountFilesystem)) else action.path


@pytest.mark.parametrize(
    "bind", ["/etc:/opt/laboratory", "/etc:/opt/lab/other", "/dev", "/dev:/dev", "/sys", "/nowhere:/opt"]
)
def test_a_bind_of_the_users_that_hides_nothing_is_left_to_ch_run(bind, image):
    words = ["--cdi", "-b", bind]
    assert command_line(dressed(words, image, [FILE, NODE]), words, image) == [*words[1:], "--", str(image)]


def test_a_bind_of_what_the_edit_is_about_hides_nothing(image):
    shown = Bind("/etc/hostname", "/opt/etc/hostname", "file", ORIGIN, ("ro",))
    assert dressed(["--cdi", "-b", "/etc:/opt/etc"], image, [shown]).lacks == ()


def test_a_home_that_would_hide_an_edit_is_refused(image, tmp_path):
    action = Bind("/etc/hostname", "/home/me/file", "file", ORIGIN)
    with pytest.raises(CdiError, match="--home: would hide '/home/me/file'"):
        dressed(["--cdi", "--home"], image, [action], profile=EARLY, environ={"HOME": str(tmp_path)})


# Containers with several processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "peers"),
    [
        ([], None),
        (["-j"], Peers("/dev/shm/ch-run_shm-", "SLURM_STEP_ID")),
        (["--join-ct=4"], Peers("/dev/shm/ch-run_shm-", "SLURM_STEP_ID")),
        (["--join-tag=a", "--join-tag=b"], Peers("/dev/shm/ch-run_shm-b")),
    ],
)
def test_launches_that_share_a_container_are_known_by_ch_runs_own_file(words, peers, image):
    made = dressed(["--cdi", *words], image).peers
    assert (made and Peers(made.prefix, made.variable)) == peers


def test_who_shares_a_container_says_what_he_asks_for(image):
    one, same, another = (
        dressed(["--cdi", "--join"], image, actions).peers for actions in ([FILE], [FILE, VARIABLE], [FILE, NODE])
    )
    assert one.devices == "'vendor.com/class=a'"
    assert (one.edits == same.edits, one.edits == another.edits) == (True, False)


def test_a_container_that_is_there_already_is_not_dressed(image):
    words = ["--join-pid=1", "--cdi", "-W"]
    made = dressed(words, image, [FILE, VARIABLE])
    assert (made.steps, made.peers) == ((), None)
    assert command_line(made, words, image) == ["--join-pid=1", "--set-env=LAB=value", "-W", "--", str(image)]
    assert made.messages[0].startswith("--join-pid: the container has the devices that it was started with")


def test_an_image_of_that_name_in_storage_would_make_the_plan_stale(image, tmp_path):
    recorder = Recorder()
    dressed(["--cdi", "-s", str(tmp_path)], image, witness=recorder)
    before = list(recorder.states())
    path = tmp_path / "img" / str(image).replace("/", "%")
    path.mkdir(parents=True)
    again = Recorder()
    dressed(["--cdi", "-s", str(tmp_path)], image, witness=again)
    assert {str(state) for state in again.states()} != {str(state) for state in before}
