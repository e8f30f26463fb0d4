"""Real launches through the installed ch-run, by a compiled plan and without: its own options, with devices."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from run.launchers import write_spec
from run.watch import host_as_it_was, images_as_they_were

__all__ = ["host_as_it_was", "images_as_they_were"]

HOST_FILE = "from the host\n"


@pytest.fixture
def has_write_fake(bare) -> bool:
    return b"--write-fake" in bare.run(None, ["--help"], ["true"]).stdout


@pytest.fixture
def storage(lab, monkeypatch, tmp_path) -> Path:
    """A storage directory with an image called ``lab/small:1``."""
    storage = tmp_path / "storage"
    shutil.copytree(lab.image("musl"), storage / "img" / "lab%small+1", symlinks=True)
    monkeypatch.setenv("CH_IMAGE_STORAGE", str(storage))
    return storage


def shell(*lines: str) -> list[str]:
    return ["sh", "-c", "\n".join(lines)]


# Images -----------------------------------------------------------------------------------------------------------


def test_an_image_by_name_in_storage(ch_run, small, storage):
    assert ch_run.said(small, [], ["cat", "/opt/lab/file"], image="lab/small:1") == HOST_FILE


@pytest.mark.parametrize("argument", ["image", "./image/", "link", "../{}/image"])
def test_an_image_by_a_relative_path(ch_run, small, own_image, argument):
    (own_image.parent / "link").symlink_to("image")
    image = argument.format(own_image.parent.name)
    assert ch_run.said(small, [], ["cat", "/opt/lab/file"], image=image, cwd=own_image.parent) == HOST_FILE


def test_its_own_variable_names_the_directories_of_specs_and_an_option_wins_over_it(ch_run, small):
    (directory,), (device,) = small.directories, small.devices
    asked = ["--device", device]
    env = {"CH_RUN_CDI_DIRS": directory, "CDI_HPC_DIRS": "/no/such/directory"}
    assert ch_run.said(None, asked, ["cat", "/opt/lab/file"], env=env) == HOST_FILE
    env = {"CH_RUN_CDI_DIRS": "/no/such/directory"}
    assert ch_run.run(None, asked, ["cat", "/opt/lab/file"], env=env).returncode == 125
    assert ch_run.said(small, [], ["cat", "/opt/lab/file"], env=env) == HOST_FILE


def test_from_inside_of_the_image(ch_run, small, own_image):
    assert ch_run.said(small, [], ["cat", "/opt/lab/file"], image=own_image, cwd=own_image / "usr") == HOST_FILE


def test_an_image_that_has_nothing_but_programs(ch_run, bare, small, lab, tmp_path):
    image = tmp_path / "small"
    for name in ("bin", "lib"):
        shutil.copytree(lab.image("musl") / name, image / name, symlinks=True)
    assert bare.run(None, [], ["true"], image=image).returncode != 0
    assert ch_run.said(small, [], ["cat", "/opt/lab/file"], image=image) == HOST_FILE
    assert sorted(os.listdir(image)) == ["bin", "lib"]


def test_a_file_on_a_mount_point_of_the_users_choice(ch_run, small, lab, tmp_path):
    image = lab.image("debian-root").with_name("musl.sqfs")
    done = ch_run.run(small, ["-m", tmp_path], ["cat", "/opt/lab/file"], image=image)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, HOST_FILE, b"")


@pytest.mark.parametrize("name", ["musl", "musl.sqfs"])
def test_messages_are_ch_runs_own(ch_run, bare, small, lab, name):
    image = lab.image("musl").with_name(name)
    ours, theirs = (
        each.run(request, ["-c", "/nowhere"], ["true"], image=image)
        for each, request in ((ch_run, small), (bare, None))
    )
    assert b"/nowhere" in ours.stderr
    assert ours.returncode == theirs.returncode


def test_verbose_output_names_the_users_image(ch_run, small, own_image):
    said = ch_run.run(small, ["-v"], ["true"], image=own_image).stderr.decode()
    assert f"image: {own_image}" in said
    assert f"newroot: {own_image}" in said


# Writing ----------------------------------------------------------------------------------------------------------


def test_what_is_written_with_write_is_in_the_image(ch_run, small, own_image):
    lines = ("echo new >/etc/new", "echo more >>/etc/group", "mkdir /usr/made", "echo no >/opt/new || echo refused")
    assert ch_run.said(small, ["-w", "--no-passwd"], shell(*lines), image=own_image) == "refused\n"
    assert (own_image / "etc/new").read_text() == "new\n"
    assert (own_image / "etc/group").read_text().endswith("more\n")
    assert (own_image / "usr/made").is_dir()
    assert not (own_image / "opt/new").exists()
    assert not (own_image / "opt/lab").exists()


def test_without_write_nothing_can_be_written(ch_run, small, own_image):
    assert ch_run.said(small, [], shell("echo x >/etc/new || echo refused"), image=own_image) == "refused\n"


def test_what_is_written_with_write_fake_is_gone_afterwards(ch_run, small, own_image, has_write_fake):
    command = shell("echo x >/etc/new && cat /etc/new /opt/lab/file", "df -k / | tail -n 1")
    done = ch_run.run(small, ["-W8m"], command, image=own_image)
    if has_write_fake:
        said = done.stdout.decode()
        assert said.startswith(f"x\n{HOST_FILE}")
        assert "8192" in said.split()
    else:
        assert done.returncode != 0
    assert not (own_image / "etc/new").exists()


def test_a_file_and_an_image_by_name_can_be_written_to_as_well(ch_run, small, lab, storage, has_write_fake):
    if has_write_fake:
        for image in (lab.image("musl").with_name("musl.sqfs"), "lab/small:1"):
            command = shell("echo x >/new && cat /new /opt/lab/file")
            assert ch_run.said(small, ["-W"], command, image=image) == f"x\n{HOST_FILE}"
    assert not (storage / "img" / "lab%small+1" / "new").exists()


def test_a_home_is_the_hosts(ch_run, bare, small, own_image, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    command = shell("echo $HOME", "echo x >~/new", "touch /new 2>/dev/null && echo writable || true")
    ours = ch_run.said(small, ["--home"], command, image=own_image)
    (home / "new").unlink()
    assert ours == bare.said(None, ["--home"], command, image=own_image)
    assert os.listdir(home) == ["new"]
    assert not (own_image / "new").exists()


# /dev -----------------------------------------------------------------------------------------------------------


def test_a_renamed_node_is_among_all_of_the_hosts(ch_run, bare, spec):
    renamed = spec({"deviceNodes": [{"path": "/dev/lab/renamed", "hostPath": "/dev/null"}]})
    command = shell("cd /dev", "ls -1", "echo x >lab/renamed && echo x >null && head -c1 zero | wc -c")
    ours = ch_run.said(renamed, [], command).split()
    theirs = bare.said(None, [], shell("ls -1 /dev")).split()
    assert ours[-1] == "1"
    assert {*ours[:-1]} == {*theirs, "lab", "pts", "ptmx", "fd", "stdin", "stdout", "stderr"}


# Binds and /tmp -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/opt", "/opt/lab/file"])
def test_a_bind_does_not_hide_a_device_without_a_word(ch_run, small, source, target):
    (source.parent / "other").touch()
    other = source.parent / "other" if target.endswith("file") else source.parent
    done = ch_run.run(small, ["-b", f"{other}:{target}"], ["true"])
    assert done.returncode == 125
    assert b"would hide '/opt/lab/file'" in done.stderr


def test_a_bind_needs_no_mount_point_in_the_image(ch_run, small, own_image, source):
    options = ["-b", f"{source}:/new/file", "-b", f"{source.parent}:/new/directory"]
    command = ["cat", "/new/file", "/new/directory/source", "/opt/lab/file"]
    assert ch_run.said(small, options, command, image=own_image) == 3 * HOST_FILE
    assert not (own_image / "new").exists()


def test_a_bind_that_can_not_be_is_ch_runs_to_refuse(ch_run, bare, small, own_image):
    for option in ("/nowhere:/mnt", "/etc:/proc/new", ":/x", "/etc:relative"):
        ours = ch_run.run(small, ["-b", option], ["true"], image=own_image)
        theirs = bare.run(None, ["-b", option], ["true"], image=own_image)
        assert (ours.returncode, theirs.returncode != 0) == (theirs.returncode, True)


@pytest.mark.parametrize(("options", "listed"), [([], "lab\nown\n"), (["-t"], "lab\n")])
def test_a_mount_in_tmp(ch_run, spec, source, tmp_path, options, listed, monkeypatch):
    temporary = tmp_path / "job"
    temporary.mkdir()
    (temporary / "own").touch()
    monkeypatch.setenv("TMPDIR", str(temporary))
    request = spec({"mounts": [{"hostPath": str(source), "containerPath": "/tmp/lab/file"}]})
    assert ch_run.said(request, options, shell("cat /tmp/lab/file", "ls -A /tmp")) == HOST_FILE + listed
    assert os.listdir(temporary) == ["own"]


# Devices and the kernel's files -------------------------------------------------------------------------------------


def test_a_renamed_node_is_in_a_dev_that_works(ch_run, spec):
    request = spec({"deviceNodes": [{"path": "/dev/lab/one", "hostPath": "/dev/nvidia1"}]})
    lines = (
        "ls /dev/lab",
        "ls -d /dev/nvidia0 2>/dev/null",
        "echo x >/dev/null && echo x >/dev/shm/lab && rm /dev/shm/lab",
        "[ -c /dev/fuse ] && [ -c /dev/pts/ptmx ] && echo usable",
    )
    assert ch_run.said(request, [], shell(*lines)) == "one\n/dev/nvidia0\nusable\n"


@pytest.mark.parametrize("private", [False, True])
def test_a_terminal_is_one_inside(ch_run, small, spec, private):
    edits = {"deviceNodes": [{"path": "/dev/lab/one", "hostPath": "/dev/nvidia1"}]}
    request = spec(edits) if private else small
    argv = [str(word) for word in ch_run.argv(request, [], ["sh", "-c", "[ -t 0 ] && echo terminal"])]
    done = subprocess.run(
        ["script", "-qec", " ".join(f"'{word}'" for word in argv), "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"terminal" in done.stdout


# Options that change nothing for us -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "command", "expected"),
    [
        (["-c", "/usr"], ["pwd"], "/usr\n"),
        (["-u", "0", "-g", "0"], ["id", "-u"], "0\n"),
        (["--unsafe"], ["cat", "/opt/lab/file"], HOST_FILE),
        (["--no-passwd"], ["cat", "/opt/lab/file"], HOST_FILE),
        (["-t"], ["ls", "-A", "/tmp"], ""),
        (["--set-env=A=$LAB_VARIABLE"], ["sh", "-c", "echo $A"], "from the spec\n"),
        (["--set-env=LAB_VARIABLE=mine"], ["sh", "-c", "echo $LAB_VARIABLE"], "mine\n"),
        (["--unset-env=LAB_*"], ["sh", "-c", "echo $LAB_VARIABLE"], "\n"),
        (["--env-no-expand", "--set-env=A=$X"], ["sh", "-c", "echo $A"], "$X\n"),
    ],
)
def test_other_options_mean_what_they_meant(ch_run, small, options, command, expected):
    assert ch_run.said(small, options, command) == expected


@pytest.mark.parametrize("command", [["sh", "-c", "exit 7"], ["sh", "-c", "kill -TERM $$"], ["/nowhere"], [""]])
@pytest.mark.parametrize("name", ["debian-root", "debian.sqfs"])
def test_the_end_is_that_of_a_launch_from_a_directory(ch_run, bare, small, lab, name, command):
    ours = ch_run.run(small, [], command, image=lab.image("debian-root").with_name(name))
    assert ours.returncode == bare.run(None, [], command).returncode


def test_a_plan_is_good_for_every_directory_unless_a_path_is_relative(ch_run, small, monkeypatch, tmp_path):
    (tmp_path / "runtime").mkdir(mode=0o700)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))

    def plans(*options: str) -> int:
        for cwd in ("/", tmp_path, tmp_path / "here"):
            ch_run.said(small, options, ["cat", "/opt/lab/file"], cwd=cwd)
        return len(list(tmp_path.glob("runtime/cdi-hpc/*.plan")))

    if "--runner=native" in ch_run.words:
        assert plans(f"--bind={tmp_path}:/mnt") == 1
        assert plans("--bind=.:/mnt") == 4
    else:
        assert plans(f"--bind={tmp_path}:/mnt") == 0


# Containers with several processes ----------------------------------------------------------------------------------


def open_when_read(path: Path, reader: subprocess.Popen[str]) -> int:
    """The writing end of a named pipe, once somebody waits at the other."""
    while True:
        with contextlib.suppress(OSError):  # ENXIO: nobody does
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        assert reader.poll() is None, reader.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["debian-root", "debian.sqfs"])
@pytest.mark.parametrize("tag", ["--join-tag={}", "-j"])
def test_processes_that_share_a_container_all_see_the_devices(ch_run, small, lab, name, tag, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_STEP_ID", f"step-{tmp_path.name}")
    lines = (
        "echo $RANK $LAB_VARIABLE $(cat /opt/lab/file) $(readlink /proc/self/ns/mnt)",
        # Whoever comes when all the others have ended is not let in any more; and a served file is gone with who
        # made the container, by ch-run alone as well: from here on no program is read from it.
        f"read line <{tmp_path}/wait-$RANK",
    )
    waiting = [tmp_path / f"wait-{rank}" for rank in range(4)]
    for path in waiting:
        os.mkfifo(path)
    command = shell(*lines)
    image = lab.image("debian-root").with_name(name)
    started = [
        subprocess.Popen(
            ch_run.argv(
                small, [tag.format(tmp_path.name), "--join-ct=4", f"--set-env=RANK={rank}"], command, image=image
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(4)
    ]
    try:
        ends = [open_when_read(path, process) for path, process in zip(waiting, started)]
        for end in ends:
            os.close(end)
        ended = [process.communicate(timeout=60) for process in started]
    finally:
        for process in started:  # one that failed leaves the others waiting for it
            process.kill()
    assert [error for _, error in ended] == [""] * 4
    said = [out.split() for out, _ in ended]
    assert [words[:-1] for words in said] == [
        [str(rank), "from", "the", "spec", "from", "the", "host"] for rank in range(4)
    ]
    assert len({words[-1] for words in said}) == 1


@pytest.mark.parametrize("name", ["debian-root", "debian.sqfs"])
def test_who_shares_a_container_may_have_his_plans_elsewhere(ch_run, small, lab, name, monkeypatch, tmp_path):
    options = [f"--join-tag={tmp_path.name}", "--join-ct=3"]
    image = lab.image("debian-root").with_name(name)
    (tmp_path / "run").mkdir(mode=0o700)
    with sharing(ch_run, small, options, image):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        assert ch_run.said(small, options, ["cat", "/opt/lab/file"], image=image) == HOST_FILE
        monkeypatch.setenv("CDI_HPC_CACHE_DIRECTORY", str(tmp_path / "cache"))
        assert ch_run.said(small, options, ["cat", "/opt/lab/file"], image=image) == HOST_FILE


@contextlib.contextmanager
def sharing(launches, request, options, image) -> Iterator[subprocess.Popen[str]]:
    """The first launch of several that share a container; it ends with the block."""
    argv = launches.argv(request, options, shell("echo begun", "read line"), image=image)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "begun\n"
            yield first
            first.communicate("\n", timeout=60)
        finally:
            first.kill()


@pytest.mark.parametrize("name", ["debian-root", "debian.sqfs"])
def test_who_asks_for_other_devices_than_a_shared_container_has_is_told_so_and_not_let_in(
    ch_run, bare, small, source, lab, name, tmp_path
):
    mount = {"hostPath": str(source), "containerPath": "/opt/lab/other"}
    another = write_spec(tmp_path / "other", {"two": {"mounts": [mount]}})
    same_name = write_spec(tmp_path / "changed", {"one": {"mounts": [mount]}})
    options = [f"--join-tag={tmp_path.name}", "--join-ct=3"]
    image = lab.image("debian-root").with_name(name)
    with sharing(ch_run, small, options, image) as first:
        refused = [
            ch_run.run(request, options, ["true"], image=image)
            for request in (another, same_name)
            for _ in ("from a plan that was just made", "from one that is kept")
        ]
        joined = ch_run.said(small, options, ["cat", "/opt/lab/file"], image=image)
        without = bare.said(None, options, ["cat", "/opt/lab/file"])
    assert (first.returncode, joined, without) == (0, HOST_FILE, HOST_FILE)
    said = [
        "has 'lab.example/thing=one', and 'lab.example/thing=two' was asked for",
        "has another 'lab.example/thing=one' than was asked for",
    ]
    file = f"/dev/shm/ch-run_shm-{tmp_path.name}"
    fix = "(ask for the same devices, or begin another container)"
    lines = [f"cdi-hpc: error: {file}: the container that is shared {text} {fix}\n" for text in said for _ in "12"]
    assert [done.stderr.decode() for done in refused] == lines
    assert {(done.returncode, done.stdout) for done in refused} == {(125, b"")}


def test_a_shared_container_that_was_begun_without_devices_gets_none(ch_run, bare, small, tmp_path):
    """Not even if one of that name had them before."""
    options = [f"--join-tag={tmp_path.name}", "--join-ct"]
    assert ch_run.said(small, [*options, "1"], ["cat", "/opt/lab/file"]) == HOST_FILE
    with sharing(bare, None, [*options, "2"], bare.image) as first:
        refused = ch_run.run(small, [*options, "2"], ["true"])
        bare.said(None, [*options, "2"], ["true"])
    assert first.returncode == 0
    assert (refused.returncode, refused.stdout) == (125, b"")
    assert b"was begun without devices, or has ended, and 'lab.example/thing=one' was asked for" in refused.stderr


def test_a_container_can_be_entered_later(ch_run, bare, small):
    argv = ch_run.argv(small, [], shell("echo begun", "read line"))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "begun\n"
        for launches, request in ((ch_run, small), (bare, None)):
            options = [f"--join-pid={first.pid}"]
            assert launches.said(request, options, ["cat", "/opt/lab/file"]) == HOST_FILE
        first.stdin.write("\n")
    assert first.returncode == 0
