"""Scripts run for real on the lab's images, as an ordinary user, by overlay and by underlay.

What scripts share with ``cdi-hpc run`` is tested in tests/run, on both. Here are plans that no spec of a vendor makes.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from render_cases import as_bytes, hostile_strings
from script_runs import HERE, STAGES, plan, refused, said, start

from cdi_hpc.plan import Action, Bind, MountFilesystem, SetEnv, Symlink, Unsupported, UpdateLdCache, WriteFile
from cdi_hpc.render.bash import script


@pytest.mark.parametrize("stage", STAGES)
def test_hostile_names_and_texts_are_inside_byte_for_byte(lab, tmp_path, stage):
    names = [f"{n}{text}" for n, text in enumerate(hostile_strings(120, seed=3, without="/"))]
    values = hostile_strings(300, seed=4)
    sources = tmp_path / "sources"
    sources.mkdir()
    actions: list[Action] = [SetEnv(f"V{n}", value, HERE) for n, value in enumerate(values)]
    for name in names[:40]:
        (sources / os.fsdecode(as_bytes(name))).write_bytes(as_bytes(name))
        actions.append(Bind(f"{sources}/{name}", f"/opt/bound/{name}/-n/{name}", "file", HERE, ("ro",)))
    actions += [Symlink(f"/opt/links/{name}", f"to {name}", HERE) for name in names[40:80]]
    actions += [WriteFile(f"/opt/files/{name}", as_bytes(name) + b"\0\n", 0o640, HERE) for name in names[80:]]
    show = """
    cat /proc/$$/environ
    find /opt/bound -type f -printf '%P\\0' -exec cat {} \\; -printf '\\0'
    find /opt/links -type l -printf '%P\\0%l\\0'
    find /opt/files -type f -printf '%m%P\\0' -exec cat {} \\; -printf '\\0'
    """
    done = start(plan(*actions), tmp_path, lab.image("debian-root"), ["sh", "-c", show], f"--stage={stage}")
    found = said(done).split(b"\0")
    assert {as_bytes(f"V{n}={value}") for n, value in enumerate(values)} <= set(found)
    pairs = set(zip(found, found[1:]))
    assert {(as_bytes(f"{name}/-n/{name}"), as_bytes(name)) for name in names[:40]} <= pairs
    assert {(as_bytes(name), as_bytes(f"to {name}")) for name in names[40:80]} <= pairs
    assert {(as_bytes(f"640{name}"), as_bytes(name)) for name in names[80:]} <= pairs


#: Names that bash gives a meaning, and takes it away from when they are unset.
SPECIAL = (
    *("BASHPID", "BASH_ALIASES", "BASH_ARGV0", "BASH_CMDS", "BASH_COMMAND", "BASH_ENV"),
    *("BASH_REMATCH", "BASH_SUBSHELL", "BASH_VERSION", "CDPATH", "COLUMNS"),
    *(
        "COMP_WORDBREAKS",
        "COPROC",
        "DIRSTACK",
        "ENV",
        "EPOCHREALTIME",
        "EPOCHSECONDS",
        "FUNCNAME",
        "GLOBIGNORE",
        "GROUPS",
    ),
    *(
        "HISTCMD",
        "HOSTTYPE",
        "IFS",
        "LANG",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "LINENO",
        "MAPFILE",
        "OLDPWD",
        "OPTIND",
        "PATH",
    ),
    *(
        "POSIXLY_CORRECT",
        "PS4",
        "PWD",
        "RANDOM",
        "REPLY",
        "SECONDS",
        "SHELL",
        "SRANDOM",
        "TMPDIR",
        "image",
        "root",
        "stage",
    ),
)


def test_variables_with_a_meaning_for_bash_arrive_as_the_plan_says(lab, tmp_path):
    actions = [SetEnv(name, "a'b /x", HERE) for name in SPECIAL]
    done = start(plan(*actions), tmp_path, lab.image("debian-root"), ["/bin/cat", "/proc/self/environ"])
    found = dict(entry.split(b"=", 1) for entry in said(done).split(b"\0") if entry)
    assert {name: found.get(name.encode()) for name in SPECIAL} == dict.fromkeys(SPECIAL, b"a'b /x")


def test_sourced_exports_take_the_meaning_from_such_variables_too(tmp_path):
    path = tmp_path / "environment.bash"
    path.write_text(script(plan(*(SetEnv(name, "a'b /x", HERE) for name in SPECIAL)), only="env"))
    done = subprocess.run(["bash", "-c", 'source "$0"; exec /usr/bin/env -0', path], capture_output=True, check=False)
    # bash warns of an unknown locale on standard error.
    found = dict(entry.split(b"=", 1) for entry in done.stdout.split(b"\0") if entry)
    assert {name: found.get(name.encode()) for name in SPECIAL} == dict.fromkeys(SPECIAL, b"a'b /x")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("image", ["debian-root", "/"])
def test_entries_can_be_added_below_a_bound_directory(lab, tmp_path, source, image, stage):
    actions = (
        Bind(str(source), "/opt/whole", "directory", HERE, ("ro", "nosuid")),
        Bind(f"{source}/file", "/opt/whole/new/file", "file", HERE, ("ro",)),
        Symlink("/opt/whole/below/new-link", "entry", HERE),
        Symlink("/opt/whole/link", "below/entry", HERE),
        WriteFile("/opt/whole/generated", b"made\n", 0o644, HERE),
    )
    show = (
        "cd /opt/whole && cat file new/file below/entry below/new-link link generated; touch x 2>/dev/null || echo ro"
    )
    where = image if image == "/" else lab.image(image)
    done = start(plan(*actions), tmp_path, where, ["sh", "-c", show], f"--stage={stage}")
    assert said(done) == b"from the host\nfrom the host\nbelow\nbelow\nbelow\nmade\nro\n"
    assert sorted(os.listdir(source)) == ["below", "file", "link"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_target_that_is_a_link_in_the_image_is_bound_where_it_leads(lab, tmp_path, source, stage):
    actions = (
        Bind(f"{source}/file", "/lib64/new-file", "file", HERE, ("ro",)),
        Bind(f"{source}/file", "/bin/new-tool", "file", HERE, ("ro",)),
    )
    show = "readlink -f /lib64/new-file /bin/new-tool; cat /lib64/new-file; readlink /lib64 /bin"
    done = start(plan(*actions), tmp_path, lab.image("debian-root"), ["sh", "-c", show], f"--stage={stage}")
    assert said(done) == b"/usr/lib64/new-file\n/usr/bin/new-tool\nfrom the host\nusr/lib64\nusr/bin\n"


@pytest.mark.parametrize("stage", STAGES)
def test_directories_keep_their_modes_when_something_is_added_to_them(image, tmp_path, stage):
    (image / "open").mkdir()
    (image / "open").chmod(0o1777)
    (image / "closed").mkdir(mode=0o750)
    actions = (Symlink("/open/link", "x", HERE), Symlink("/closed/link", "x", HERE), Symlink("/made/link", "x", HERE))
    show = "stat -c '%a %n' / /open /closed /made"
    done = start(plan(*actions), tmp_path, image, ["/bin/busybox", "sh", "-c", show], f"--stage={stage}")
    mode = f"{image.stat().st_mode & 0o7777:o}".encode()
    assert said(done) == mode + b" /\n1777 /open\n750 /closed\n755 /made\n"


@pytest.mark.parametrize("stage", STAGES)
def test_a_dev_of_its_own_has_the_devices_asked_for_and_the_usual_ones(lab, tmp_path, stage):
    actions = (
        Bind("/dev/zero", "/dev/renamed/zero0", "device", HERE),
        Symlink("/dev/by-name/zero", "../renamed/zero0", HERE),
        MountFilesystem("tmpfs", "scratch", "/scratch", HERE, ("nosuid",), ("size=1m", "mode=1777")),
        Symlink("/scratch/link", "somewhere", HERE),
    )
    show = """
    head -c 2 /dev/by-name/zero | od -An -tx1; echo gone > /dev/null && readlink /scratch/link && touch /scratch/new
    stat -c '%a' /dev /scratch; readlink /dev/fd /dev/ptmx; test -e /dev/nvidia0 || echo none
    """
    planned = plan(*actions, private_dev="renamed")
    done = start(planned, tmp_path, lab.image("debian-root"), ["sh", "-c", show], f"--stage={stage}")
    assert said(done) == b" 00 00\nsomewhere\n755\n1777\n/proc/self/fd\npts/ptmx\nnone\n"


@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_soname_link_is_made(lab, tmp_path, stage):
    library = next(Path("/usr/lib/x86_64-linux-gnu").glob("libcuda.so.*.*"))
    target = "/opt/driver/libcuda.so.1.2.3"
    actions = (Bind(str(library), target, "file", HERE, ("ro",)), UpdateLdCache(("/opt/driver",), HERE))
    show = "readlink /opt/driver/libcuda.so.1; ldconfig -p | grep -F 'libcuda.so.1 '; /opt/dlprobe libcuda.so.1"
    done = start(plan(*actions), tmp_path, lab.image("debian-root"), ["sh", "-c", show], f"--stage={stage}")
    assert said(done).split() == (
        b"libcuda.so.1.2.3 libcuda.so.1 (libc6,x86-64) => /opt/driver/libcuda.so.1 "
        b"O libcuda.so.1 /opt/driver/libcuda.so.1".split()
    )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "target",
    [
        "/lib64/x",
        "/usr/lib/x86_64-linux-gnu/x",
        "/run/x",
        "/etc/vulkan/x",
        "/usr/bin/nvidia-smi",
        "/tmp/a/b",
        "/../../x",
    ],
)
def test_nothing_leads_out_of_a_hostile_image(lab, canary, tmp_path, source, target, stage):
    actions = (
        Bind(f"{source}/file", target, "file", HERE, ("ro",)),
        Symlink("/etc/OpenCL/vendors/link", "x", HERE),
        WriteFile("/etc/vulkan/generated", b"x", 0o644, HERE),
        UpdateLdCache(("/usr/lib64",), HERE),
    )
    show = f"cat {target}; echo x >/srv/canary/passwd; ls /srv/canary/lib"
    done = start(plan(*actions), tmp_path, lab.image("hostile"), ["/bin/busybox", "sh", "-c", show], f"--stage={stage}")
    assert done.stdout.startswith(b"from the host\n"), done.stderr
    assert not {os.fsencode(path.name) for path in (canary / "lib").iterdir()} & set(done.stdout.split())


def test_a_loop_of_links_is_refused(lab, tmp_path, source):
    done = start(
        plan(Bind(f"{source}/file", "/etc/OpenCL/x", "file", HERE)), tmp_path, lab.image("loops"), ["/bin/true"]
    )
    assert refused(done) == "cdi-hpc: /etc/OpenCL/x: more than 40 symbolic links on the way"


@pytest.mark.parametrize(
    "actions, message",
    [
        (
            (Unsupported("netDevices eth0", "it needs privilege", HERE, fatal=True),),
            "netDevices eth0: it needs privilege (/etc/cdi/vendor.yaml: containerEdits.mounts[0])",
        ),
        ((Bind("/no/such\nfile", "/x", "file", HERE),), r"$'/no/such\nfile' is not on this machine: is the spec"),
        ((Bind("/etc/passwd", "/etc", "file", HERE),), "/etc is a directory in the container, but a file"),
        ((Bind("/etc", "/etc/passwd", "directory", HERE),), "/etc/passwd is not a directory in the container"),
        ((Bind("/etc/passwd", "/etc/passwd/x", "file", HERE),), "/etc/passwd is no directory in the container"),
        ((Bind("/etc", "/..", "directory", HERE),), "nothing can be mounted over the root of the container"),
        ((Symlink("/proc/new", "x", HERE),), "nothing can be added below /proc"),
        (
            (Bind("/etc/passwd", "/opt/x/y", "file", HERE), Symlink("/opt/x", "z", HERE)),
            "the link /opt/x (to z) and the mount of /etc/passwd at /opt/x/y contradict each other",
        ),
        ((UpdateLdCache(("relative",), HERE),), "relative can not be written in ld.so.conf"),
    ],
)
def test_what_can_not_be_done_is_refused_in_one_line(lab, tmp_path, actions, message):
    assert message in refused(start(plan(*actions), tmp_path, lab.image("debian-root"), ["true"]))


def test_an_image_or_a_command_that_is_not_there_is_named(lab, tmp_path):
    assert "the image /no/such does not exist" in refused(start(plan(), tmp_path, "/no/such", ["true"]))
    assert "the image /etc/passwd is not a directory" in refused(start(plan(), tmp_path, "/etc/passwd", ["true"]))
    assert "usage: bash SCRIPT" in refused(start(plan(), tmp_path, "/", []))
    assert "unknown option --oops" in refused(start(plan(), tmp_path, "/", ["true"], "--oops"))


def test_a_machine_without_user_namespaces_is_said_so(lab, tmp_path):
    path = tmp_path / "script.bash"
    path.write_text(script(plan()))
    limit = f"echo 0 >/proc/sys/user/max_user_namespaces && exec bash {path} / true"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", limit], capture_output=True, check=False, timeout=60
    )
    assert "user namespaces are switched off (/proc/sys/user/max_user_namespaces is 0)" in refused(done)


MOUNTS_IN = """
set -eu
mount -t tmpfs root "$1"
mkdir "$1/usr" "$1/usr/lib" "$1/proc" && ln -s usr/lib "$1/lib" && mount --rbind /proc "$1/proc"
source "$2"
before=$(grep -c . /proc/self/mountinfo)
cdi_mounts "$1"
echo "$(($(grep -c . /proc/self/mountinfo) - before)) mounts"
cd "$1" && cat usr/lib/new-file opt/whole/below/entry && readlink usr/lib/link opt/whole/added && ls -d opt
"""


def test_the_mounts_alone_can_be_applied_to_a_root_that_somebody_else_made(lab, tmp_path, source):
    actions = (
        Bind(f"{source}/file", "/lib/new-file", "file", HERE, ("ro", "nosuid")),
        Bind(str(source), "/opt/whole", "directory", HERE, ("ro", "nodev")),
        Symlink("/opt/whole/added", "file", HERE),
        Symlink("/lib/link", "new-file", HERE),
    )
    root, function = tmp_path / "root", tmp_path / "mounts.bash"
    root.mkdir()
    function.write_text(script(plan(*actions), only="mounts"))
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    done = subprocess.run(
        [*unshare, "bash", "-c", MOUNTS_IN, "bash", root, function], capture_output=True, check=False, timeout=60
    )
    assert said(done) == b"2 mounts\nfrom the host\nbelow\nnew-file\nfile\nopt\n"


WITHOUT_LDCONFIG = """
mount --bind /etc/hostname "$(readlink -f /usr/sbin/ldconfig)" && exec bash "$@"
"""


def test_without_ldconfig_the_loader_gets_its_folders_from_the_environment(lab, tmp_path):
    library = next(Path("/usr/lib/x86_64-linux-gnu").glob("libcuda.so.*.*"))
    path = tmp_path / "script.bash"
    target = "/opt/driver/libcuda.so.1"
    actions = (Bind(str(library), target, "file", HERE, ("ro",)), UpdateLdCache(("/opt/driver",), HERE))
    path.write_text(script(plan(*actions, SetEnv("LD_LIBRARY_PATH", "/from/the/spec", HERE))))
    show = 'echo "$LD_LIBRARY_PATH"; /opt/dlprobe libcuda.so.1'
    wrapped = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", WITHOUT_LDCONFIG, "sh"]
    done = subprocess.run(
        [*wrapped, path, lab.image("debian-root"), "sh", "-c", show], capture_output=True, check=False, timeout=60
    )
    folders, found = done.stdout.decode().splitlines()
    assert folders.startswith("/opt/driver:")
    assert folders.endswith(":/from/the/spec")
    assert found == f"O libcuda.so.1 {target}"
    assert done.stderr.decode().count("\n") == 1
    assert "has no ldconfig" in done.stderr.decode()
