"""Real launches through the installed Apptainer: its own options, with devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from configured_user import NO_PYTHON, ONE, SAY, make_user
from run.launchers import Request, our_words, program

from cdi_hpc.backends.singularity import probe
from cdi_hpc.launch import profile as profiles

HOST_FILE = "from the host\n"

#: Says what of the small device is there.
SMALL = "cat /opt/lab/link; echo $LAB_VARIABLE; echo x >/dev/nvidia0 && echo opened"
SMALL_IS_THERE = f"{HOST_FILE}from the spec\nopened\n"


def shell(*lines: str) -> list[str]:
    return ["sh", "-c", "\n".join(lines)]


@pytest.fixture
def overlay(tmp_path) -> Path:
    """A directory for ``--overlay`` with something in it."""
    directory = tmp_path / "overlay"
    (directory / "upper" / "opt" / "mine").mkdir(parents=True)
    (directory / "work").mkdir()
    return directory


# Options of the launcher -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--contain"],
        ["--containall", "--cleanenv"],
        ["--compat"],
        ["--userns"],
        ["--fakeroot"],
        ["--writable-tmpfs"],
        ["--no-home"],
        ["--pid", "--ipc", "--uts"],
        ["--no-mount", "tmp,home,sys"],
        ["--nv"],
        ["--rocm"],
        ["--no-eval"],
        ["--unsquash"],
        ["-ce"],
    ],
    ids=lambda options: " ".join(options) or "none",
)
def test_the_device_is_there_with_any_option(apptainer, small, options):
    assert apptainer.said(small, options, shell(SMALL)) == SMALL_IS_THERE


@pytest.mark.parametrize("name", ["debian-root", "debian-user", "debian.sqfs", "debian.sif", "bare", "links", "musl"])
def test_the_device_is_there_in_any_image(apptainer, small, lab, name):
    assert apptainer.said(small, [], shell(SMALL), image=lab.image(name)) == SMALL_IS_THERE


@pytest.mark.parametrize("prefix", ["APPTAINER", "SINGULARITY"])
def test_options_may_be_variables(apptainer, small, prefix):
    names = apptainer.said(small, [], ["ls", "/dev"], env={f"{prefix}_CONTAIN": "1"}).split()
    assert "nvidia0" in names
    assert "nvidia1" not in names


def test_a_switch_may_be_off(apptainer, small):
    names = apptainer.said(small, ["--contain=false"], ["ls", "/dev"], env={"APPTAINER_CONTAIN": "1"}).split()
    assert "nvidia1" in names


def test_a_runscript_a_shell_and_words_after_two_dashes(apptainer, small):
    assert apptainer.said(small, ["--"], shell(SMALL)) == SMALL_IS_THERE
    assert apptainer.said(small, [], [], subcommand=("shell",), stdin=SMALL.encode()) == SMALL_IS_THERE
    assert apptainer.run(small, [], ["true"], subcommand=("run",)).returncode == 0


def test_writing_goes_to_memory_with_a_device(apptainer, small):
    said = apptainer.said(small, ["--writable-tmpfs"], shell("touch /etc/new /opt/lab/new && ls /opt/lab"))
    assert said.split() == ["file", "link", "new"]


def test_a_users_overlay_is_written_to_and_ours_is_below_it(apptainer, small, overlay):
    said = apptainer.said(small, ["--overlay", overlay], shell(SMALL, "touch /opt/mine/new"))
    assert said == SMALL_IS_THERE
    assert os.listdir(overlay / "upper" / "opt") == ["mine"]
    assert os.listdir(overlay / "upper" / "opt" / "mine") == ["new"]


def test_an_overlay_that_a_variable_names_is_not_forgotten(apptainer, small, overlay):
    said = apptainer.said(small, [], ["ls", "/opt"], env={"APPTAINER_OVERLAY": f"{overlay}:ro"})
    assert {"mine", "lab"} <= {*said.split()}


def test_a_users_binds_are_there(apptainer, small, source):
    options = ["--bind", f"{source}/directory:/opt/lab/user:ro"]
    command = shell("cat /opt/lab/user/entry /mnt/file /opt/lab/file")
    said = apptainer.said(small, options, command, env={"APPTAINER_BIND": f"{source}:/mnt"})
    assert said == "in a directory of the host\n" + HOST_FILE * 2


def test_an_image_that_is_written_to_takes_no_layer(by_python, small, lab, tmp_path):
    image = tmp_path / "image"
    shutil.copytree(lab.image("musl"), image, symlinks=True)
    done = by_python.run(small, ["--writable"], ["true"], image=image)
    assert (done.returncode, done.stderr.count(b"\n")) == (125, 1)
    assert b"--writable-tmpfs" in done.stderr
    assert not (image / "opt" / "lab").exists()


def test_without_a_dev_there_is_no_device(by_python, small):
    done = by_python.run(small, ["--no-mount", "dev"], ["true"])
    assert (done.returncode, done.stderr.count(b"\n")) == (125, 1)
    assert b"--no-mount dev" in done.stderr


def test_what_the_launcher_says_of_its_image_is_its_name(apptainer, bare, small):
    command = shell("echo $APPTAINER_NAME; stat -c '%u %g %a' / /etc/os-release /bin/cat")
    ours, theirs = apptainer.said(small, [], command), bare.said(None, [], command)
    assert ours == theirs


# /dev --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--contain"]], ids=["whole", "contain"])
def test_a_node_under_the_name_of_another(apptainer, spec, options):
    request = spec({"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/zero"}]})
    said = apptainer.said(request, options, shell("head -c 3 /dev/nvidia0 | tr '\\0' z; ls /dev"))
    assert said.startswith("zzz")
    assert ("nvidia1" in said) == (not options)


@pytest.mark.parametrize("options", [[], ["--contain"]], ids=["whole", "contain"])
def test_a_node_that_the_host_does_not_have(apptainer, spec, options):
    request = spec({"deviceNodes": [{"path": "/dev/lab/zero", "hostPath": "/dev/zero"}]})
    lines = ("head -c 3 /dev/lab/zero | tr '\\0' z", "echo >/dev/null && ls /dev")
    said = apptainer.said(request, options, shell(*lines))
    assert said.startswith("zzz")
    assert ("nvidia1" in said) == (not options)
    assert {"null", "urandom", "pts", "shm", "fd"} <= {*said[3:].split()}


def test_what_the_host_gets_later_is_in_a_dev_of_our_own_as_well(apptainer, spec):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        request = spec({"deviceNodes": [{"path": f"{name}/zero", "hostPath": "/dev/zero"}]})
        assert apptainer.said(request, [], ["ls", name]) == "zero\n"
        (Path(name) / "later").touch()
        assert apptainer.said(request, [], ["ls", name]) == "later\nzero\n"


def test_a_pseudo_terminal_can_be_had_from_a_dev_of_our_own(apptainer, spec):
    request = spec({"deviceNodes": [{"path": "/dev/lab/zero", "hostPath": "/dev/zero"}]})
    assert (
        apptainer.said(request, [], ["script", "-qec", "test -t 1 && echo terminal", "/dev/null"]).strip() == "terminal"
    )


@pytest.mark.parametrize("option", ["--fakeroot", "--sharens"])
@pytest.mark.parametrize("path", ["/dev/nvidia0", "/dev/lab/zero"])
def test_a_renamed_node_is_refused_where_namespaces_do_not_go(by_python, spec, path, option):
    request = spec({"deviceNodes": [{"path": path, "hostPath": "/dev/zero"}]})
    done = by_python.run(request, [option], ["true"])
    assert (done.returncode, done.stderr.count(b"\n")) == (125, 1)
    assert f"deviceNodes {path}".encode() in done.stderr


def test_a_node_outside_of_dev_is_refused(by_python, spec):
    done = by_python.run(spec({"deviceNodes": [{"path": "/opt/zero", "hostPath": "/dev/zero"}]}), [], ["true"])
    assert (done.returncode, done.stderr.count(b"\n")) == (125, 1)
    assert b"nodev" in done.stderr


def test_launches_that_share_namespaces_share_the_device(apptainer, small, tmp_path):
    """The first holds the container open until the second has joined it."""
    lock = tmp_path / "go"
    wait = f"touch {lock}.here; while ! test -e {lock}; do sleep 0.1; done"
    words = [*apptainer.words, "-q", "exec", *our_words(small), "--sharens", apptainer.image]
    with subprocess.Popen([*words, "sh", "-c", f"{SMALL}; {wait}"], stdout=subprocess.PIPE) as first:
        while not Path(f"{lock}.here").exists() and first.poll() is None:
            time.sleep(0.05)
        second = apptainer.run(small, ["--sharens"], shell(SMALL))
        lock.touch()
        assert first.communicate(timeout=60)[0] == SMALL_IS_THERE.encode()
    assert (second.returncode, second.stdout) == (0, SMALL_IS_THERE.encode()), second.stderr


# Mounts ------------------------------------------------------------------------------------------------------------


def mount(source: Path, target: str, *options: str) -> dict:
    return {"hostPath": str(source), "containerPath": target, "options": list(options)}


def test_a_flag_that_the_launcher_has_no_word_for(apptainer, spec, source):
    request = spec({"mounts": [mount(source / "directory", "/opt/lab", "ro", "noexec", "rbind")]})
    said = apptainer.said(request, [], shell("grep ' /opt/lab ' /proc/self/mountinfo | cut -d' ' -f6"))
    assert {"ro", "noexec", "nosuid", "nodev"} <= {*said.strip().split(",")}


def test_the_same_flag_is_named_where_it_cannot_be(by_python, spec, source):
    request = spec({"mounts": [mount(source / "directory", "/opt/lab", "ro", "noexec", "rbind")]})
    done = by_python.run(request, ["--fakeroot"], ["cat", "/opt/lab/entry"])
    assert done.stdout == b"in a directory of the host\n"
    assert b"noexec" in done.stderr


def test_a_new_file_system(apptainer, spec):
    tmpfs = {"hostPath": "tmpfs", "containerPath": "/opt/lab", "type": "tmpfs", "options": ["size=1m", "mode=700"]}
    said = apptainer.said(
        spec({"mounts": [tmpfs]}), [], shell("touch /opt/lab/new", "stat -fc %T /opt/lab", "df -k /opt/lab")
    )
    assert said.startswith("tmpfs\n")
    assert " 1024 " in said


def test_links_inside_of_a_directory_of_the_host(apptainer, spec, source):
    links = ["nvidia-cdi-hook", "create-symlinks", "--link", "entry::/opt/lab/new", "--link", "x::/opt/lab/inner/y"]
    hook = {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": links}
    request = spec({"mounts": [mount(source / "directory", "/opt/lab", "ro")], "hooks": [hook]})
    said = apptainer.said(
        request, [], shell("cat /opt/lab/new /opt/lab/link /opt/lab/inner/deep", "readlink /opt/lab/inner/y")
    )
    assert said == "in a directory of the host\n" * 2 + "deep\nx\n"
    assert sorted(os.listdir(source / "directory")) == ["entry", "inner", "link"]


@pytest.mark.parametrize("name", ["a b", "a,b", "a:b", 'a"b', "a\\b", "a\nb", " a", "ü", "a'b", "$HOME", "a=b"])
def test_a_path_may_have_any_name(apptainer, spec, source, name):
    (source / name).write_text(HOST_FILE)
    request = spec({"mounts": [mount(source / name, f"/opt/lab/{name}", "ro")]})
    assert apptainer.said(request, [], ["cat", f"/opt/lab/{name}"]) == HOST_FILE


def test_a_path_that_the_launcher_cannot_be_told_is_refused(by_python, spec, source):
    (source / "a\rb").write_text(HOST_FILE)
    done = by_python.run(spec({"mounts": [mount(source / "a\rb", "/opt/lab/file", "ro")]}), [], ["true"])
    assert (done.returncode, done.stderr.count(b"\n")) == (125, 1)


@pytest.mark.parametrize("top", ["/tmp", "$HOME"])
def test_nothing_is_made_in_directories_that_the_launcher_mounts(by_python, spec, source, top):
    target = os.path.expandvars(top) + "/no-such-directory"
    request = spec({"mounts": [mount(source / "directory", target, "ro")]})
    done = by_python.run(request, [], ["true"])
    assert done.returncode == 125
    assert target.encode() in done.stderr
    assert not os.path.exists(target)


@pytest.mark.parametrize("top", ["/tmp", "$HOME"])
def test_where_those_are_not_the_hosts_it_is_no_matter(apptainer, spec, source, top):
    target = os.path.expandvars(top) + "/no-such-directory"
    request = spec({"mounts": [mount(source / "directory", target, "ro")]})
    assert apptainer.said(request, ["--contain"], ["cat", f"{target}/entry"]) == "in a directory of the host\n"
    assert not os.path.exists(target)


# The working directory ----------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A working directory that no other mount of the launcher's shows."""
    with tempfile.TemporaryDirectory(dir=f"/run/user/{os.getuid()}") as name:
        (Path(name) / "data" / "inner").mkdir(parents=True)
        yield Path(name)


def test_a_read_only_mount_below_the_working_directory_stays_read_only(apptainer, spec, elsewhere):
    request = spec({"mounts": [mount(elsewhere / "data", f"{elsewhere}/data", "ro", "bind")]})
    command = shell("pwd", f"touch {elsewhere}/data/new 2>/dev/null || echo refused")
    for directory in (Path("/usr"), elsewhere):  # one key for both would be a plan for the wrong one
        assert apptainer.said(request, [], command, cwd=directory) == f"{directory}\nrefused\n"
    assert os.listdir(elsewhere / "data") == ["inner"]


def test_a_mount_covers_the_working_directory_in_it(apptainer, spec, source, elsewhere):
    (source / "directory" / "data").mkdir()
    (source / "directory" / "data" / "theirs").touch()
    request = spec({"mounts": [mount(source / "directory", str(elsewhere), "ro", "bind")]})
    assert apptainer.said(request, [], ["ls"], cwd=elsewhere / "data") == "theirs\n"


def test_nothing_is_made_in_the_working_directory(by_python, spec, source, elsewhere):
    request = spec({"mounts": [mount(source / "directory", f"{elsewhere}/new", "ro")]})
    done = by_python.run(request, [], ["true"], cwd=elsewhere)
    assert (done.returncode, done.stderr.count(b"\n")) == (125, 1)
    assert os.listdir(elsewhere) == ["data"]


def test_what_a_variable_keeps_out_stays_out_with_the_working_directory(apptainer, spec, elsewhere):
    request = spec({"mounts": [mount(elsewhere / "data", f"{elsewhere}/data", "ro", "bind")]})
    command = shell("cut -d' ' -f5 /proc/self/mountinfo")
    assert "/tmp" in apptainer.said(request, [], command, cwd=elsewhere).split()
    without = apptainer.said(request, [], command, cwd=elsewhere, env={"APPTAINER_NO_MOUNT": "tmp"}).split()
    assert "/tmp" not in without


def test_an_image_with_a_directory_called_upper(apptainer, small, lab, tmp_path):
    image = tmp_path / "image"
    shutil.copytree(lab.image("musl"), image, symlinks=True)
    (image / "upper" / "mine").mkdir(parents=True)
    assert apptainer.said(small, [], shell(SMALL, "ls /upper"), image=image) == f"{SMALL_IS_THERE}mine\n"


# Variables ---------------------------------------------------------------------------------------------------------

HOSTILE = 'a"b$HOME`id`$(id)\\n\\\n\'"\\" é\t%s *'


@pytest.mark.parametrize("options", [[], ["--no-eval"], ["--cleanenv"]], ids=lambda options: "".join(options) or "none")
def test_a_value_arrives_byte_for_byte(apptainer, spec, options):
    request = spec({"env": [f"LAB_VALUE={HOSTILE}"]})
    assert apptainer.said(request, options, ["printenv", "LAB_VALUE"]) == f"{HOSTILE}\n"


@pytest.mark.parametrize("name", ["HOME", "B-C", "A;touch /tmp/cdi-hpc-canary;B", "$(touch /tmp/cdi-hpc-canary)"])
def test_a_name_that_the_launcher_would_not_take_is_named(apptainer, spec, name):
    done = apptainer.run(spec({"env": [f"{name}=value", "LAB=there"]}), [], ["printenv", "LAB"])
    assert (done.returncode, done.stdout) == (0, b"there\n")
    assert f"env {name}".encode() in done.stderr
    assert not os.path.exists("/tmp/cdi-hpc-canary")


@pytest.mark.parametrize(
    "options, environ",
    [
        (["--env", "LAB_VARIABLE=mine"], {}),
        ([], {"APPTAINERENV_LAB_VARIABLE": "mine"}),
        ([], {"SINGULARITYENV_LAB_VARIABLE": "mine"}),
    ],
)
def test_what_the_user_sets_for_the_container_wins(apptainer, small, options, environ):
    assert apptainer.said(small, options, ["printenv", "LAB_VARIABLE"], env=environ) == "mine\n"


def test_a_file_of_variables_wins(apptainer, small, tmp_path):
    (tmp_path / "variables").write_text("LAB_VARIABLE=mine\n")
    options = ["--env-file", tmp_path / "variables"]
    assert apptainer.said(small, options, ["printenv", "LAB_VARIABLE"]) == "mine\n"


def test_what_the_user_has_in_his_own_environment_does_not(apptainer, small):
    assert apptainer.said(small, [], ["printenv", "LAB_VARIABLE"], env={"LAB_VARIABLE": "mine"}) == "from the spec\n"


# Instances ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def instance(apptainer, small, bare):
    started = apptainer.run(small, [], ["lab"], subcommand=("instance", "start"))
    assert started.returncode == 0, started.stderr
    yield "instance://lab"
    bare.run(None, [], [], subcommand=("instance", "stop"), image="lab")


def test_an_instance_has_the_device_and_who_joins_it_too(apptainer, small, instance):
    assert apptainer.said(small, [], shell(SMALL), image=instance) == SMALL_IS_THERE
    assert apptainer.said(None, [], ["cat", "/opt/lab/link"], image=instance) == HOST_FILE


def test_a_device_comes_with_the_start_of_an_instance_or_not_at_all(apptainer, instance, tmp_path):
    from run.launchers import write_spec

    done = apptainer.run(write_spec(tmp_path / "other", {"two": {"env": ["A=b"]}}), [], ["true"], image=instance)
    assert (done.returncode, done.stderr.count(b"\n")) == (125, 1)
    assert b"instance start" in done.stderr


def test_an_instance_that_is_not_there_is_named(by_python, small):
    done = by_python.run(small, [], ["true"], image="instance://nobody")
    assert (done.returncode, done.stderr.count(b"\n")) == (125, 1)


# What is left ------------------------------------------------------------------------------------------------------


def test_the_launchers_own_image_server_is_not_needed(apptainer, small):
    said = apptainer.said(small, [], ["cat", "/proc/self/mountinfo"])
    assert "/run/lab" not in said
    assert said.splitlines()[0].split()[4] == "/"


# What is known of it --------------------------------------------------------------------------------------------------


def test_what_an_installation_can_do_is_asked_again_when_a_file_comes_that_decides_it(tmp_path, monkeypatch):
    # A set-user-ID starter comes with a package of its own, and so does fuse-overlayfs.
    program_ = str(shutil.which("apptainer"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = profiles.checked(probe.probe("singularity", program_), "singularity", os.path.realpath(program_))
    profiles.write(asked, str(tmp_path / "kept"))
    assert {Path(path).name for path in asked.looked_at} == {"starter-suid", "apptainer.conf", "fuse-overlayfs"}
    assert profiles.load(str(tmp_path / "kept")) == asked
    (tmp_path / "fuse-overlayfs").touch(0o755)
    assert profiles.load(str(tmp_path / "kept")) is None


# What is told of the image --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{}", "./link.sif", "folder/../link.sif", "{}/folder/a \"$'`\\ link"])
def test_the_container_is_told_of_its_image_as_by_the_launcher_alone(
    apptainer, bare, small, tmp_path, monkeypatch, name
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.sif").symlink_to(bare.image)
    (tmp_path / "folder" / "a \"$'`\\ link").symlink_to("../link.sif")
    (tmp_path / "here").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", f"{tmp_path}/here")
    image = bare.image if name == "{}" else name.format(tmp_path)
    ask = shell("env | grep -E '^(APPTAINER|SINGULARITY)_(CONTAINER|NAME)=' | sort")
    told = bare.said(None, [], ask, image=image)
    assert told.count("\n") == 4
    assert apptainer.said(small, [], ask, image=image) == told
    assert apptainer.said(small, ["--env", "APPTAINER_CONTAINER=mine"], ask, image=image).startswith(
        "APPTAINER_CONTAINER=mine\n"
    )


# Many binds -----------------------------------------------------------------------------------------------------------


def test_as_many_binds_as_the_launcher_can_list_work_and_one_byte_more_is_refused(apptainer, bare, spec, source):
    """The launcher names them in a variable, and the kernel takes 128 KiB."""
    limit, count = 32 * 4096 - len("SINGULARITY_BIND=") - 1, 160

    def request(total: int) -> tuple[Request, list[str]]:
        length = (total - count + 1) // count
        places = [f"/opt/{number:03d}" + ("/" + "d" * 199) * (length // 200 - 1) + "/" for number in range(count)]
        places = [place + "x" * (length - len(place)) for place in places]
        places[0] += "x" * (total - len(",".join(places)))
        mounts = [{"hostPath": f"{source}/file", "containerPath": place, "options": ["ro"]} for place in places]
        return spec({"mounts": mounts}), places

    seen = ["sh", "-c", "grep -c ' /opt/' /proc/self/mountinfo"]
    fits, _ = request(limit)
    assert apptainer.said(fits, [], seen) == f"{count}\n"
    too_long, places = request(limit + 1)
    words = [word for place in places for word in ("--bind", f"{source}/file:{place}:ro")]
    assert b"argument list too long" in bare.run(None, words, ["true"]).stderr
    refused = apptainer.run(too_long, [], ["true"])
    assert (refused.returncode, refused.stdout) == (125, b"")
    (line,) = refused.stderr.decode().splitlines()
    assert line.startswith("cdi-hpc: error: mounts: apptainer lists 160 binds in one variable of 131073 bytes, ")


def test_two_thousand_binds_work(apptainer, spec, source):
    mounts = [{"hostPath": f"{source}/file", "containerPath": f"/opt/lab/{n}", "options": ["ro"]} for n in range(2000)]
    seen = ["sh", "-c", "grep -c ' /opt/lab/' /proc/self/mountinfo"]
    assert apptainer.said(spec({"mounts": mounts}), [], seen) == "2000\n"


def test_a_squashfuse_that_comes_or_goes_makes_a_plan_stale(lab, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for path in Path("/usr/bin").iterdir():
        (programs / path.name).symlink_to(path)
    found = [path for path in programs.iterdir() if path.name.startswith("squashfuse")]
    assert found
    user = make_user(tmp_path, lab.image("debian.sif"), "apptainer")
    user.env["PATH"] = f"{tmp_path}/shims:{Path(program()).parent}:{programs}"
    line = ("apptainer", "exec", "--device", ONE, user.image, *SAY)
    assert user.said(*line) == "one"
    assert user.said(*line, **NO_PYTHON) == "one"
    for change in ("goes", "comes"):
        for path in found:
            path.unlink() if change == "goes" else path.symlink_to(f"/usr/bin/{path.name}")
        assert user.do(*line, **NO_PYTHON).returncode == 1
        assert user.said(*line) == "one"
        assert user.said(*line, **NO_PYTHON) == "one"


# What the user binds himself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environ", [False, True], ids=["option", "variable"])
def test_a_bind_in_the_place_of_an_edit_is_refused_and_hides_nothing(apptainer, small, environ):
    bind = "/etc/passwd:/opt/lab/file"
    options = [] if environ else ["--bind", bind]
    done = apptainer.run(small, options, ["true"], env={"APPTAINER_BIND": bind} if environ else {})
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (125, b"", 1)
    assert b"would hide '/opt/lab/file'" in done.stderr


def test_a_bind_over_dev_is_refused(apptainer, small, tmp_path):
    done = apptainer.run(small, ["--bind", f"{tmp_path}:/dev"], ["true"])
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (125, b"", 1)
    assert b"would hide '/dev/nvidia0'" in done.stderr
    assert apptainer.said(small, ["--bind", "/dev"], shell(SMALL)) == SMALL_IS_THERE
