"""What a script's mounts let a command do: the rules of cdi_hpc/container/compose.py, kept by bash."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from script_runs import HERE, STAGES, plan, refused, said, start

from cdi_hpc.plan import Bind, MountFilesystem, Symlink, WriteFile
from cdi_hpc.render.bash import script

BUSYBOX = ("/bin/busybox", "sh", "-c")

#: For each path, whether it can be written to.
WRITE = 'for path; do if echo x 2>/dev/null >"$path"; then echo yes; else echo no; fi; done'


def bind(source: str | Path, target: str | Path, *flags: str) -> Bind:
    return Bind(str(source), str(target), "directory" if os.path.isdir(source) else "file", HERE, flags)


def tmpfs(target: str, *flags: str, data: tuple[str, ...] = ()) -> MountFilesystem:
    return MountFilesystem("tmpfs", "tmpfs", target, HERE, flags, data)


# Directories of the host, with entries added to them -----------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("flags, writable", [((), "yes"), (("ro",), "no"), (("ro", "nosuid", "nodev"), "no")])
@pytest.mark.parametrize("where", ["", "/below"])
def test_a_bound_directory_stays_as_writable_when_something_is_added_to_it(
    image, source, tmp_path, stage, flags, writable, where
):
    """Its own entries: nothing can be made beside them, since that would be made on the host."""
    actions = (bind(source, "/opt/w", *flags), bind(source / "file", f"/opt/w{where}/point"))
    paths = ["/opt/w/file", "/opt/w/below/entry", "/opt/w/beside"]
    done = start(plan(*actions), tmp_path, image, [*BUSYBOX, WRITE, "sh", *paths], f"--stage={stage}")
    assert said(done).split() == [writable.encode(), writable.encode(), b"no"]
    assert (source / "file").read_text() == ("x\n" if writable == "yes" else "from the host\n")
    assert sorted(os.listdir(source)) == ["below", "file", "link"]
    assert os.listdir(source / "below") == ["entry"]


#: A directory of device nodes on the lab's host, which has no mounts below it where root entered the lab.
DEVICES = "/run/nvidia/driver/dev"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("flags", [(), ("ro",)])
def test_devices_in_a_bound_directory_can_be_used_when_something_is_added_to_it(image, tmp_path, stage, flags):
    actions = (bind(DEVICES, "/opt/dev", *flags), Symlink("/opt/dev/new", "nvidia0", HERE))
    show = "echo x >/opt/dev/nvidiactl && echo x >/opt/dev/new && readlink /opt/dev/new"
    done = start(plan(*actions), tmp_path, image, [*BUSYBOX, show], f"--stage={stage}")
    assert said(done) == b"nvidia0\n"


@pytest.mark.parametrize("stage", STAGES)
def test_a_mount_point_can_be_added_to_the_hosts_tmp(image, source, tmp_path, stage):
    """As everywhere else, its entries stay what they are."""
    actions = (bind(source / "file", f"/tmp/{tmp_path.name}-made/point"),)
    show = f"cat /tmp/{tmp_path.name}-made/point && echo x >{source}/file"
    done = start(plan(*actions), tmp_path, image, [*BUSYBOX, show], f"--stage={stage}")
    assert said(done) == b"from the host\n"
    assert (source / "file").read_text() == "x\n"


@pytest.fixture
def in_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ["HOME"]) as directory:
        yield Path(directory)


@pytest.mark.parametrize("stage", STAGES)
def test_on_the_host_as_image_the_users_files_stay_writable(in_home, tmp_path, source, stage):
    """Also those beside a mount point: a layer over /home or /var would make all of it read-only."""
    (in_home / "sub").mkdir()
    (in_home / "file").write_text("mine\n")
    actions = (bind(source / "file", in_home / "point"), bind(source / "file", in_home.parent / "cdi-hpc-point"))
    paths = [f"{in_home}/{name}" for name in ("file", "sub/new", "beside")]
    done = start(plan(*actions), tmp_path, "/", ["sh", "-c", WRITE, "sh", *paths], f"--stage={stage}")
    assert said(done).split() == [b"yes", b"yes", b"no"]
    assert (in_home / "file").read_text() == "x\n"
    assert sorted(os.listdir(in_home)) == ["file", "sub"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_directory_that_is_closed_to_the_user_is_none_to_add_to(image, tmp_path, source, stage):
    """Its entries could not be brought back, and would be gone without a word."""
    done = start(
        plan(bind("/etc/ssl/private", "/opt/c"), bind(source / "file", "/opt/c/point")),
        tmp_path,
        image,
        ["/bin/busybox", "true"],
        f"--stage={stage}",
    )
    if os.geteuid() != 0:
        assert refused(done) == "cdi-hpc: /opt/c can not be searched: permission denied at /etc/ssl/private"
    else:
        assert said(done) == b""


#: Mounts a tmpfs with these options in a directory, and another below it, in namespaces of its own.
MOUNTED = """
mount -t tmpfs -o "$1" t "$2" && echo mounted >"$2/inner" && mkdir "$2/mount" || exit
mount -t tmpfs -o "$1,nosuid" t "$2/mount" || exit
shift 2
exec unshare --user --map-root-user -- "$@"
"""


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("options", ["rw", "noexec", "noatime", "noexec,nodiratime", "nosuid,nodev,relatime"])
@pytest.mark.parametrize("added", ["new", "sub/new", "other/new"])
def test_file_systems_mounted_in_a_directory_come_along_with_their_flags(image, tmp_path, stage, options, added):
    """They are locked: whoever mounted them is outside of the script's user namespace."""
    directory = image / "opt" / "fs"
    (directory / "sub").mkdir(parents=True)
    (directory / "other").mkdir()
    actions = (Symlink(f"/opt/fs/{added}", "x", HERE), bind(directory, "/srv", "ro"), bind(directory, "/mnt"))
    wrap = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "bash",
        "-c",
        MOUNTED,
        "bash",
        options,
        directory / "sub",
    ]
    show = f"cat /opt/fs/sub/inner /srv/sub/inner /mnt/sub/inner && ls /opt/fs/sub && readlink /opt/fs/{added}"
    done = start(plan(*actions), tmp_path, image, [*BUSYBOX, show], f"--stage={stage}", wrap=wrap)
    names = sorted({"inner", "mount", *([added[4:]] if added.startswith("sub/") else [])})
    assert said(done).decode().split() == [*["mounted"] * 3, *names, "x"]


# New file systems ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("flags, writable", [((), b"yes"), (("ro", "nosuid", "nodev"), b"no")])
def test_a_new_file_system_is_closed_when_everything_has_been_made_in_it(
    image, source, tmp_path, stage, flags, writable
):
    actions = (
        tmpfs("/opt/t", *flags, data=("size=1m",)),
        bind(source / "file", "/opt/t/deep/file"),
        bind(source, "/opt/t/directory"),
        Symlink("/opt/t/link", "deep/file", HERE),
        WriteFile("/opt/t/made", b"made\n", 0o444, HERE),
    )
    show = f"""
    cat /opt/t/link /opt/t/directory/file /opt/t/made
    set -- /opt/t/new; {WRITE}
    grep ' /opt/t ' /proc/self/mounts
    """
    done = start(plan(*actions), tmp_path, image, [*BUSYBOX, show], f"--stage={stage}")
    lines = said(done).splitlines()
    assert lines[:4] == [b"from the host", b"from the host", b"made", writable]
    assert set(flags) <= set(lines[4].split()[3].decode().split(","))


@pytest.mark.parametrize(
    "action",
    [
        Symlink("/opt/t/link", "x", HERE),
        Bind("/etc/passwd", "/opt/t/point", "file", HERE),
        Bind("/etc", "/opt/t/point", "directory", HERE),
        WriteFile("/opt/t/file", b"x", 0o644, HERE),
    ],
)
def test_a_step_that_fails_ends_the_script_before_the_command(image, tmp_path, action):
    full = tmpfs("/opt/t", data=("nr_inodes=1",))
    done = start(plan(full, action), tmp_path, image, ["/bin/busybox", "echo", "begun"])
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"No space left on device" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(b"cdi-hpc: can not make ")


@pytest.mark.parametrize("path", ["/to-root", "/to-that", "/usr/up", "/.."])
def test_a_link_of_the_image_does_not_lead_a_file_system_over_the_root(image, tmp_path, path):
    (image / "to-root").symlink_to("/")
    (image / "to-that").symlink_to("usr/../to-root/")
    (image / "usr" / "up").symlink_to("../..")
    line = refused(start(plan(tmpfs(path)), tmp_path, image, ["/bin/busybox", "ls"]))
    assert line == f"cdi-hpc: nothing can be mounted over the root of the container ({path})"


def test_an_image_whose_tmp_is_its_root_is_refused_in_one_line(image, tmp_path):
    (image / "tmp").rmdir()
    (image / "tmp").symlink_to("/")
    line = refused(start(plan(), tmp_path, image, ["/bin/busybox", "ls"]))
    assert line == "cdi-hpc: nothing can be mounted over the root of the container (/tmp)"


# Mounts over mounts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("cover", ["tmpfs", "directory"])
@pytest.mark.parametrize("under", ["file", "below"])
@pytest.mark.parametrize("over", ["file", "below", "link"])
def test_what_is_under_a_mount_can_be_there_again_over_it(image, source, tmp_path, stage, cover, under, over):
    actions = (
        bind(source / under, "/mnt/deep/point"),
        tmpfs("/mnt") if cover == "tmpfs" else bind(source, "/mnt"),
        Symlink("/mnt/deep/point", "x", HERE) if over == "link" else bind(source / over, "/mnt/deep/point"),
    )
    show = "ls /mnt; cd /mnt/deep; readlink point || cat point 2>/dev/null || ls point"
    done = start(plan(*actions), tmp_path, image, [*BUSYBOX, show], f"--stage={stage}")
    names = ["deep"] if cover == "tmpfs" else ["below", "deep", "file", "link"]
    seen = {"file": "from the host", "below": "entry", "link": "x"}[over]
    assert said(done).decode() == "\n".join([*names, seen, ""])


@pytest.mark.parametrize("stage", STAGES)
def test_a_link_under_a_mount_says_nothing_about_the_one_over_it(image, source, tmp_path, stage):
    (image / "opt" / "link").symlink_to("/etc")
    (source / "to").symlink_to("/etc")
    actions = (
        bind(source / "file", "/opt/link/one"),
        bind(source, "/opt"),
        bind(source / "file", "/opt/link-was-here"),
        bind(source / "file", "/opt/to/two"),
    )
    show = "ls /etc | grep -x -e one -e two; readlink /opt/link; ls /opt"
    done = start(plan(*actions), tmp_path, image, [*BUSYBOX, show], f"--stage={stage}")
    assert said(done).split() == [b"one", b"two", b"file", b"below", b"file", b"link", b"link-was-here", b"to"]


# Paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_target_that_is_a_link_says_nothing_about_the_next_one_beside_it(image, source, tmp_path, stage):
    (image / "opt" / "one").symlink_to("/srv/deep/one")
    actions = [bind(source / "file", f"/opt/{name}") for name in ("one", "two", "three")]
    show = "cat /srv/deep/one /opt/two /opt/three; ls /srv/deep"
    done = start(plan(*actions), tmp_path, image, [*BUSYBOX, show], f"--stage={stage}")
    assert said(done) == b"from the host\n" * 3 + b"one\n"


@pytest.mark.parametrize("text", ["{top}", "/etc/passwd/below", "/nowhere", "{top}/{top}"])
def test_a_working_directory_that_leads_nowhere_in_the_image_is_its_root(image, in_home, tmp_path, monkeypatch, text):
    top = in_home.parts[1]
    (image / top).rmdir()
    (image / top).symlink_to(text.format(top=top))
    monkeypatch.chdir(in_home)
    assert said(start(plan(), tmp_path, image, [*BUSYBOX, "pwd"])) == b"/\n"


#: Binds the third argument at the second below the first, and asks whether that shows the fourth.
CHECK = r"""
source "$1"
check() {
  local LC_ALL=C
  read_host_mounts
  work=$1
  mkdir -- "$work/$2"
  mount --bind -- "$3" "$work/$2"
  must_show[$work/$2]=$4
  check_mounts
  echo shown
}
with_state check "${@:2}"
"""


@pytest.mark.parametrize("bound, wanted, is_shown", [(0, 0, True), (0, 1, False), (1, 1, True), (0, None, True)])
def test_a_mount_of_something_else_than_was_planned_is_noticed(tmp_path, bound, wanted, is_shown):
    """As when a directory of the image became a link between the look at it and the mount."""
    odd = "a b\t\\ 'c"
    places = [tmp_path / odd / "d", tmp_path / odd / "d\\040e"]
    for place in places:
        place.mkdir(parents=True)
    functions = tmp_path / "functions.bash"
    functions.write_text(script(plan(), only="mounts"))
    shown = "anything" if wanted is None else places[wanted]
    asked = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", CHECK, "bash", functions]
    done = subprocess.run(
        [*asked, tmp_path, f"at {odd}", places[bound], shown], capture_output=True, check=False, timeout=60
    )
    if is_shown:
        assert said(done) == b"shown\n"
    else:
        assert "the image was changed in the meantime" in refused(done)
