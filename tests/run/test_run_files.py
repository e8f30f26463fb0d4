"""What a command finds in its file system besides the devices asked for, and what it can't do to it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from launchers import IMAGES, Request, place_of, said, start
from mounts import mounts_of

STAGES = ("overlay", "underlay")


@pytest.fixture(params=STAGES)
def stage(request) -> str:
    return request.param


@pytest.fixture
def shell(run, small, lab):
    """What a script says in an image: ``shell("debian-root", script, options...)``."""

    def say(image: str, script: str, *options: str, stage: str = "auto", **how) -> str:
        argv = run.argv(small, place_of(lab, image), ["sh", "-c", script], stage=stage, options=options)
        return said(start(argv, **how))

    return say


# The image ----------------------------------------------------------------------------------------------------


#: Tries to write everywhere an ordinary program would. Nothing of it may succeed.
VANDAL = """
for path in /new /etc/new /usr/new /opt/new /opt/lab/new /opt/lab/file /opt/lab/directory/new /etc/passwd \
    /etc/ld.so.cache /bin/sh /root/new /var/new /usr/lib/new /usr/lib/x86_64-linux-gnu/new; do
    (: >>"$path") 2>/dev/null && echo "wrote $path"
    mkdir "$path.d" 2>/dev/null && echo "made $path.d"
    rm -f "$path" 2>/dev/null && [ -e "$path" ] && echo "removed $path"
    ln -s x "$path.l" 2>/dev/null && echo "linked $path.l"
    [ -e "$path" ] && mv "$path" "$path.m" 2>/dev/null && echo "moved $path"
    [ -e "$path" ] && chmod 777 "$path" 2>/dev/null && echo "changed $path"
    [ -e "$path" ] && touch "$path" 2>/dev/null && echo "touched $path"
done
true
"""


@pytest.mark.parametrize("image", [image for image in IMAGES if image != "/"])
def test_nothing_in_the_image_can_be_changed_from_inside(lab, launcher, small, image, stage):
    """Not by its owner either; whether anything was is for the watch in conftest.py to say."""
    assert said(start(launcher.argv(small, place_of(lab, image), ["sh", "-c", VANDAL], stage=stage))) == ""


@pytest.mark.parametrize("image", ["debian-root", "debian-user", "links", "musl"])
def test_with_a_writable_tmpfs_the_image_can_be_written_to_and_is_not(lab, run, small, image):
    script = """
    echo added >/opt/added && cat /opt/added && mkdir -p /opt/deep/er && : >/opt/lab/beside && ls /opt/lab
    rm /bin/sleep && ! test -e /bin/sleep && echo removed
    """
    argv = run.argv(small, place_of(lab, image), ["sh", "-c", script], options=["--writable-tmpfs"])
    done = start(argv)
    mine = ["removed"] if image == "debian-user" else []
    # What belongs to somebody else stays as closed as on the host.
    assert (done.returncode == 0) == bool(mine)
    assert done.stdout.decode().split() == ["added", "beside", "directory", "file", "link", *mine]


def test_a_link_of_the_stage_is_one_and_what_the_image_had_is_covered(run, spec, lab, launcher, stage):
    """A link over a file, over a link elsewhere, and one that is right already."""
    args = ["nvidia-cdi-hook", "create-symlinks"]
    for link in ("nowhere::/etc/hostname", "passwd-::/etc/mtab", "usr/bin::/bin"):
        args += ["--link", link]
    request = spec({"one": {"hooks": [{"hookName": "createContainer", "path": "/x/nvidia-cdi-hook", "args": args}]}})
    for image in ("debian-root", "debian-user"):
        argv = launcher.argv(request, place_of(lab, image), ["readlink", "/etc/hostname", "/etc/mtab"], stage=stage)
        assert said(start(argv)).split() == ["nowhere", "passwd-"]


@pytest.mark.parametrize("image", ["debian-root", "debian-user", "links"])
def test_owners_and_modes_of_the_image_are_seen_as_they_are(lab, launcher, small, image, stage):
    """Directories that got an entry from us look as before: name, mode, owner."""
    paths = ["/", "/opt", "/etc", "/usr", "/usr/lib", "/tmp", "/var/tmp", "/root", "/bin/su", "/etc/passwd"]
    top = lab.image(image)
    command = ["stat", "-L", "-c", "%n %a", *paths]
    found = dict(
        line.split(" ")
        for line in said(start(launcher.argv(small, str(top), command, stage=stage))).split("\n")
        if line
    )
    for path in paths:
        if path == "/tmp":
            continue  # the host's
        there = top / path[1:]
        if there.resolve().is_relative_to(top):
            assert found[path] == f"{stat.S_IMODE(there.stat().st_mode):o}", path


# Images in odd places ---------------------------------------------------------------------------------------------

ODD_NAMES = [
    "with space",
    "a:b",
    "a,b",
    "back\\slash",
    "new\nline",
    "-dash",
    "--",
    "\udcff\udcfe",
    "quote'\"",
    "$(id)",
    "#",
    "ü",
]


@pytest.fixture(scope="session")
def copy_of(tmp_path_factory, lab):
    """The smallest image under another name."""

    def copy(name: str) -> Path:
        path = tmp_path_factory.mktemp("image") / name
        shutil.copytree(lab.image("musl"), path, symlinks=True)
        return path

    return copy


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_the_name_of_an_image_can_be_anything(launcher, small, copy_of, name):
    image = copy_of(name)
    for stage in STAGES:
        assert said(start(launcher.argv(small, image, ["cat", "/opt/lab/link"], stage=stage))) == "from the host\n"


def test_an_image_is_found_by_a_relative_path_through_a_link_and_with_a_slash(launcher, small, copy_of, tmp_path):
    image = copy_of("image")
    (tmp_path / "link").symlink_to(image)
    for name, directory in (("image", image.parent), ("./image/", image.parent), (".", image), ("link/", tmp_path)):
        argv = launcher.argv(small, name, ["cat", "/opt/lab/link"])
        # A shell would look below CDPATH first.
        assert said(start(argv, cwd=directory, env={"CDPATH": "/lab/images:/lab"})) == "from the host\n"


#: Mounts of its own, as an ordinary user: root of a user namespace, then himself again in one below it, so that the
#: flags of the mounts are locked.
AS_MYSELF = f"unshare --user --map-user={os.getuid()} --map-group={os.getgid()} --mount"
IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc"]


@pytest.mark.parametrize("flags", ["nosuid,nodev", "nosuid,nodev,noatime", "ro,nosuid", "nodiratime,nodev"])
def test_an_image_on_a_mount_with_locked_flags_can_be_used(launcher, small, lab, tmp_path, flags, stage):
    argv = launcher.argv(small, tmp_path / "at" / "image", ["cat", "/opt/lab/link"], stage=stage)
    script = f"""
    mkdir "$0/at"; mount -t tmpfs t "$0/at"; cp -R "$1" "$0/at/image"; mount -o "remount,bind,$2" "$0/at"
    shift 2; exec {AS_MYSELF} "$@"
    """
    done = start([*IN_NAMESPACE, script, tmp_path, lab.image("musl"), flags, *argv])
    assert said(done) == "from the host\n"


def test_an_image_that_has_mounts_in_it_shows_them(launcher, small, copy_of, stage):
    """overlayfs refuses such a directory as a layer."""
    image = copy_of("image")
    (image / "opt" / "data").mkdir()
    (image / "mnt").mkdir()
    argv = launcher.argv(small, image, ["cat", "/opt/lab/link", "/opt/data/file", "/mnt/file"], stage=stage)
    script = """
    mount -t tmpfs t "$0/opt/data"; echo data >"$0/opt/data/file"
    mount -t tmpfs t "$0/mnt"; echo mnt >"$0/mnt/file"
    exec "$@"
    """
    done = start([*IN_NAMESPACE, script, image, *argv])
    assert said(done) == "from the host\ndata\nmnt\n"


def test_where_the_kernel_refuses_an_overlay_the_underlay_takes_over(launcher, small, copy_of, tmp_path):
    """Stacked as deep as overlayfs goes."""
    image = copy_of("image")
    for name in ("empty", "one", "two"):
        (tmp_path / name).mkdir()
    script = """
    mount -t overlay o -o "lowerdir=$0/empty:$1" "$0/one"
    mount -t overlay o -o "lowerdir=$0/empty:$0/one" "$0/two"
    shift; exec "$@"
    """
    command = ["cat", "/opt/lab/link"]
    around = [*IN_NAMESPACE, script, tmp_path, image]
    assert said(start([*around, *launcher.argv(small, tmp_path / "two", command)])) == "from the host\n"
    done = start([*around, *launcher.argv(small, tmp_path / "two", command, stage="overlay")])
    assert (done.returncode, done.stdout) == (125, b"")
    assert "--stage=underlay" in done.stderr.decode()


# /proc, /sys, /dev, /tmp ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", IMAGES)
def test_the_kernels_file_systems_are_the_hosts(lab, launcher, small, image, stage):
    command = [
        "sh",
        "-c",
        "cat /proc/sys/kernel/random/boot_id; ls /sys; echo >/dev/null && head -c 3 /dev/zero | wc -c",
    ]
    lines = said(start(launcher.argv(small, place_of(lab, image), command, stage=stage))).split()
    assert lines[0] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert set(os.listdir("/sys")) <= set(lines)
    assert lines[-1] == "3"


def test_tmp_is_the_hosts(shell, tmp_path, stage):
    (tmp_path / "from-outside").write_text("outside\n")
    assert (
        shell("debian-root", f"cat {tmp_path}/from-outside; echo inside >{tmp_path}/from-inside", stage=stage)
        == "outside\n"
    )
    assert (tmp_path / "from-inside").read_text() == "inside\n"


#: What every program may expect of /dev.
DEV = """
echo discarded >/dev/null
head -c 2 /dev/zero | wc -c
head -c 2 /dev/urandom | wc -c
head -c 2 /dev/random | wc -c
(echo >/dev/full) 2>/dev/null || echo full
for link in fd stdin stdout stderr; do readlink /dev/$link; done
echo through >/dev/stdout
echo in | cat /dev/stdin
cat /dev/fd/3 3<<END
three
END
echo >/dev/shm/file && rm /dev/shm/file && echo shm
stat -c %A /dev
head -c 1 /dev/lab0 | wc -c
ls /dev
"""

#: What it says of them; the names of the nodes follow.
DEV_SAYS = [
    *("2", "2", "2", "full", "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"),
    *("through", "in", "three", "shm", "drwxr-xr-x", "1"),
]


@pytest.mark.parametrize("image", ["debian-root", "musl", "/"])
@pytest.mark.parametrize("contain", [False, True])
def test_a_private_dev_serves_every_program(run, spec, lab, image, stage, contain):
    """A renamed node makes it private; so does --contain."""
    request = spec({"one": {"deviceNodes": [{"path": "/dev/lab0", "hostPath": "/dev/zero"}]}})
    options = ["--contain"] if contain else []
    argv = run.argv(request, place_of(lab, image), ["sh", "-c", DEV], stage=stage, options=options)
    words = said(start(argv)).split()
    assert words[: len(DEV_SAYS)] == DEV_SAYS
    names = words[len(DEV_SAYS) :]
    assert "lab0" in names
    # Nothing of the host's but what every program has.
    assert not [name for name in names if name.startswith("nvidia")]


def test_a_terminal_can_be_made_in_a_private_dev(run, spec, lab, stage):
    request = spec({"one": {"deviceNodes": [{"path": "/dev/lab0", "hostPath": "/dev/zero"}]}})
    for options in ([], ["--contain"]):
        command = ["script", "--quiet", "--return", "--command", "tty && stty size >/dev/null", "/dev/null"]
        out = said(start(run.argv(request, place_of(lab, "debian-root"), command, stage=stage, options=options)))
        assert out.startswith("/dev/pts/")


def test_contained_a_container_has_the_devices_asked_for_and_a_tmp_of_its_own(run, lab, tmp_path, stage):
    (tmp_path / "from-outside").write_text("outside\n")
    request = Request(("nvidia.com/gpu=0",))
    script = f"ls /dev; echo; ls -A /tmp /dev/shm; echo >/tmp/mine && echo written; test -e {tmp_path} || echo gone"
    argv = run.argv(request, place_of(lab, "debian-root"), ["sh", "-c", script], stage=stage, options=["--contain"])
    devices, rest = said(start(argv)).split("\n\n", 1)
    gpus = {name for name in devices.split() if name.startswith("nvidia") and name[6:].isdigit()}
    assert gpus == {"nvidia0"}
    assert "written" in rest
    assert "gone" in rest
    assert not Path("/tmp/mine").exists()


# Users, names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", IMAGES)
def test_the_user_and_his_group_have_their_names(lab, launcher, small, image, stage):
    out = said(
        start(launcher.argv(small, place_of(lab, image), ["sh", "-c", "id -un; id -gn; id -u; id -g"], stage=stage))
    )
    assert out.split() == ["cdilab", "cdilab", str(os.getuid()), str(os.getgid())]


@pytest.mark.parametrize("image", ["debian-root", "bare", "musl"])
def test_host_names_are_resolved_as_on_the_host(lab, launcher, small, image, stage):
    argv = launcher.argv(small, place_of(lab, image), ["cat", "/etc/resolv.conf", "/etc/hosts"], stage=stage)
    assert said(start(argv)) == Path("/etc/resolv.conf").read_text() + Path("/etc/hosts").read_text()


# Options ----------------------------------------------------------------------------------------------------------


def test_a_bind_shows_a_directory_or_a_file_where_it_is_asked_for(shell, tmp_path, stage):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("bound\n")
    binds = [
        f"{source}:/data",
        f"{source}/file:/etc/some/file",
        f"{source}:/opt/read-only:ro",
        str(source),
        f"{source}:/opt/rw:rw",
    ]
    options = [word for bind in binds for word in ("--bind", bind)]
    script = f"""
    cat /data/file /etc/some/file /opt/read-only/file {source}/file
    echo written >/data/new
    echo two >/opt/rw/two
    (echo x >/opt/read-only/new) 2>&1 | grep -o Read-only
    """
    out = shell("debian-root", script, *options, stage=stage)
    assert out == "bound\n" * 4 + "Read-only\n"
    assert (source / "new").read_text() == "written\n"
    assert (source / "two").read_text() == "two\n"


def test_a_bind_comes_with_the_mounts_below_it_and_relative_to_the_present_directory(run, small, lab, tmp_path, stage):
    (tmp_path / "source" / "below").mkdir(parents=True)
    options = ["--bind", "source:/data:ro"]
    argv = run.argv(small, place_of(lab, "debian-root"), ["cat", "/data/below/file"], stage=stage, options=options)
    script = 'cd "$0"; mount -t tmpfs t source/below; echo below >source/below/file; exec "$@"'
    assert said(start([*IN_NAMESPACE, script, tmp_path, *argv])) == "below\n"


def test_a_bind_into_a_directory_that_is_bound_leaves_what_is_below_it_writable(shell, tmp_path, stage):
    """A mount point is missing in /tmp, the host's: it is made for the container, not on the host."""
    source = tmp_path / "source"
    source.mkdir()
    script = f"ls -d /tmp/lab-mount-point; echo >{tmp_path}/written && echo written"
    out = shell("debian-root", script, "--bind", f"{source}:/tmp/lab-mount-point", stage=stage)
    assert out == "/tmp/lab-mount-point\nwritten\n"
    assert (tmp_path / "written").exists()


def test_flags_of_a_binds_source_are_kept(run, small, lab, tmp_path, stage):
    options = ["--bind", f"{tmp_path}/at:/data:ro"]
    argv = run.argv(small, place_of(lab, "debian-root"), ["cat", "/proc/self/mountinfo"], stage=stage, options=options)
    script = f'mkdir "$0/at"; mount -t tmpfs -o nosuid,nodev,noexec,noatime t "$0/at"; exec {AS_MYSELF} "$@"'
    mounts = mounts_of(said(start([*IN_NAMESPACE, script, tmp_path, *argv])))
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= mounts["/data"].flags


def test_env_sets_and_keeps_and_wins(run, small, lab):
    image = place_of(lab, "debian-root")
    script = 'echo "$LAB_VARIABLE|$OTHER|$EMPTY|$EQUALS"'

    def out(*options: str) -> str:
        argv = run.argv(small, image, ["sh", "-c", script], options=options)
        return said(start(argv, env={"LAB_VARIABLE": "from the caller", "OTHER": "other"}))

    assert out() == "from the spec|other||\n"
    assert out("--env", "LAB_VARIABLE=given", "--env", "EQUALS=a=b=c") == "given|other||a=b=c\n"
    assert out("--env", "LAB_VARIABLE", "--env", "EMPTY=", "--env", "NOT_SET_ANYWHERE") == "from the caller|other||\n"
    assert out("--env", "LAB_VARIABLE=first", "--env", "LAB_VARIABLE=last") == "last|other||\n"


def test_the_plans_path_is_the_one_that_commands_are_looked_up_on(run, spec, lab, tmp_path):
    (tmp_path / "lab-program").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "lab-program").chmod(0o755)
    request = spec({"one": {"env": [f"PATH={tmp_path}:/usr/bin:/bin"]}})
    image = place_of(lab, "debian-root")
    assert said(start(run.argv(request, image, ["lab-program"]))) == "found\n"
    options = ["--env", "PATH=/usr/bin:/bin"]
    assert start(run.argv(request, image, ["lab-program"], options=options)).returncode == 127


def test_the_working_directory_can_be_given(shell):
    assert shell("debian-root", "pwd", "--workdir", "/usr/share") == "/usr/share\n"
    assert shell("debian-root", "pwd", "--workdir", "usr/share", cwd="/") == "/usr/share\n"
