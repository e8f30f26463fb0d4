"""The steps of a plan, with the newer mount calls and with the old ones: what a process in the container sees."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from native_programs import HOST_ROOT, Cache, said, state_of, which

from cdi_hpc.compiled import wire


@pytest.fixture(params=["new", "old"], autouse=True)
def mount_calls(request, cache) -> str:
    cache.env["CDI_HPC_MOUNT_API"] = request.param
    return request.param


@pytest.fixture
def place(tmp_path) -> Path:
    """A directory of the host that plans mount on; it lies where the container is made first, below /tmp."""
    path = tmp_path / "place"
    path.mkdir()
    return path


def in_tmpfs(place: Path, *steps: wire.Record, data: str = "mode=755") -> tuple[wire.Record, ...]:
    return (HOST_ROOT, wire.Mount("tmpfs", "tmpfs", str(place), ("nosuid",), data), *steps)


def shell(text: str) -> Sequence[str]:
    return ["sh", "-c", text]


def mount_options(cache: Cache, path: Path | str, *steps: wire.Record, **options) -> set[str]:
    """Per-mount options of the mount at a path, in the container (proc_pid_mountinfo(5))."""
    lines = said(cache.launch(*steps, command=["cat", "/proc/self/mountinfo"], **options)).splitlines()
    found = [line.split() for line in lines if line.split()[4] == str(path)]
    assert found, f"nothing is mounted at {path}"
    propagation = {word.partition(":")[0] for word in found[-1][6 : found[-1].index("-")]}
    return {*found[-1][5].split(","), *propagation}


def test_directories_have_their_modes_whatever_the_umask_is(cache, place):
    modes = [0o755, 0o700, 0o1777, 0o2775, 0o4711, 0o500]
    steps = [wire.Mkdir(f"{place}/{mode:o}", mode) for mode in modes]
    done = cache.launch(*in_tmpfs(place, *steps), command=["stat", "-c", "%a", *(step.place for step in steps)])
    assert said(done).split() == [f"{mode:o}" for mode in modes]


def test_files_are_made_empty_or_with_staged_content(cache, place):
    content = bytes(range(256)) * 300
    cache.directory.mkdir(mode=0o700)
    cache.stage.mkdir(mode=0o700)
    (cache.stage / "content").write_bytes(content)
    steps = [wire.Mkdir(f"{place}/a"), wire.Mkfile(f"{place}/a/b", 0o640), wire.Copy("content", f"{place}/c", 0o751)]
    words = shell(f"stat -c '%a %s %F' {place}/a/b {place}/c; cksum <{place}/c; cksum <{cache.stage}/content")
    lines = said(cache.launch(*in_tmpfs(place, *steps), command=words, staged=True)).splitlines()
    assert lines[:2] == ["640 0 regular empty file", f"751 {len(content)} regular file"]
    assert lines[2] == lines[3]


def test_links_hold_their_text(cache, place):
    text = "../nowhere/with space"
    done = cache.launch(*in_tmpfs(place, wire.Symlink(f"{place}/l", text)), command=["readlink", f"{place}/l"])
    assert said(done) == f"{text}\n"


def test_a_bind_shows_a_file_and_a_directory_of_the_host(cache, place, tmp_path):
    (tmp_path / "file").write_text("from a file\n")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "entry").write_text("from a directory\n")
    steps = [
        wire.Mkfile(f"{place}/f"),
        wire.Mkdir(f"{place}/d"),
        wire.Bind(f"{tmp_path}/file", f"{place}/f", recursive=False),
        wire.Bind(f"{tmp_path}/directory", f"{place}/d"),
    ]
    done = cache.launch(*in_tmpfs(place, *steps), command=["cat", f"{place}/f", f"{place}/d/entry"])
    assert said(done) == "from a file\nfrom a directory\n"


def test_a_staged_file_covers_one_that_only_the_kernel_makes(cache):
    cache.directory.mkdir(mode=0o700)
    cache.stage.mkdir(mode=0o700)
    (cache.stage / "version").write_text("ours\n")
    step = wire.BindStaged("version", "/proc/version", ("ro", "nodev"))
    done = cache.launch(HOST_ROOT, step, command=["cat", "/proc/version"], staged=True)
    assert said(done) == "ours\n"
    assert {"ro", "nodev"} <= mount_options(cache, "/proc/version", HOST_ROOT, step, staged=True)


@pytest.mark.parametrize(
    "flags",
    [("ro",), ("nosuid",), ("nodev",), ("noexec",), ("nodev", "noexec", "nosuid", "ro"), ()],
    ids=",".join,
)
def test_flags_are_added_to_those_of_the_source(flags, cache, place):
    before = mount_options(cache, place, HOST_ROOT, wire.Bind(str(place), str(place)))
    after = mount_options(cache, place, HOST_ROOT, wire.Bind(str(place), str(place), flags=flags))
    gone = {"rw"} if "ro" in flags else set()
    assert after == (before - gone) | set(flags)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (("noatime",), "noatime"),
        (("strictatime",), None),
        (("relatime",), "relatime"),
        (("noatime", "relatime"), "noatime"),
        (("nodiratime", "relatime"), "relatime"),
    ],
)
def test_access_times_follow_the_strongest_flag(flags, wanted, cache, place):
    steps = in_tmpfs(place, wire.Restrict(str(place), flags))
    found = mount_options(cache, place, *steps) & {"noatime", "relatime"}
    assert found == ({wanted} if wanted else set())


def test_a_locked_flag_can_be_named_again(cache, tmp_path):
    """The host's flags are locked in a user namespace: to name them is allowed, to lift them is not."""
    kept = mount_options(cache, "/dev", HOST_ROOT) & {"nosuid", "noexec", "relatime", "noatime"}
    wanted = tuple(sorted({*kept, "nosuid", "ro"}))
    assert {*wanted} <= mount_options(cache, "/dev", HOST_ROOT, wire.Bind("/dev", "/dev", flags=wanted))


@pytest.mark.parametrize(
    ("propagation", "wanted"),
    [("", set()), ("shared", {"shared"}), ("rshared", {"shared"}), ("private", set()), ("unbindable", {"unbindable"})],
)
def test_propagation_is_as_asked(propagation, wanted, cache, place):
    steps = in_tmpfs(
        place, wire.Mkdir(f"{place}/a"), wire.Bind(str(place), f"{place}/a", recursive=False, propagation=propagation)
    )
    options = mount_options(cache, f"{place}/a", *steps)
    assert options & {"shared", "unbindable", "master"} == wanted


def test_a_new_file_system_has_its_flags_and_options(cache, place):
    steps = (HOST_ROOT, wire.Mount("tmpfs", "name", str(place), ("noexec", "nosuid"), "mode=1777,size=64k"))
    assert {"noexec", "nosuid"} <= mount_options(cache, place, *steps)
    done = cache.launch(*steps, command=shell(f"stat -c %a {place}; df -k {place} | tail -1"))
    mode, usage = said(done).splitlines()
    assert (mode, usage.split()[:2]) == ("1777", ["name", "64"])


def test_the_root_can_be_a_new_file_system(cache):
    steps = [
        wire.Mount("tmpfs", "root", "/", ("nodev", "nosuid"), "mode=755"),
        *(
            step
            for name in ("usr", "proc", "dev")
            for step in (wire.Mkdir(f"/{name}"), wire.Bind(f"/{name}", f"/{name}"))
        ),
        *(wire.Symlink(f"/{name}", f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")),
        wire.Restrict("/", ("nodev", "nosuid", "ro")),
    ]
    done = cache.launch(*steps, command=shell("ls /; pwd; echo >/x || echo read-only"))
    assert said(done).split() == ["bin", "dev", "lib", "lib64", "proc", "sbin", "usr", "/", "read-only"]


def test_a_root_that_can_not_be_exchanged_is_entered_all_the_same(cache, place):
    """pivot_root(2) refuses a shared mount as it does the rootfs of a node that lives in its initramfs."""
    steps = (wire.Bind("/", "/", propagation="shared"), wire.Mount("tmpfs", "tmpfs", str(place), (), "mode=751"))
    nested = f"unshare --user --map-root-user --mount stat -c %a {place}"
    text = f"{nested}; cd /..; pwd; awk '$5 == \"/\"' /proc/self/mountinfo"
    lines = said(cache.launch(*steps, command=shell(text))).splitlines()
    assert lines[:2] == ["751", "/"]
    assert len(lines) == 3, "the host's root is still to be seen"


# Overlays ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def layer(cache) -> Path:
    """A staged directory to lay over an image."""
    layer = cache.stage / "layer:1,a\\b"
    (layer / "opt").mkdir(parents=True)
    (layer / "opt" / "staged").write_text("staged\n")
    layer.chmod(0o755)
    cache.stage.chmod(0o700)
    cache.directory.chmod(0o700)
    return layer


def overlay(image: Path, layer: Path, **changes) -> list[wire.Record]:
    flags = changes.pop("flags", ("nodev", "nosuid", "ro"))
    steps = [wire.Overlay("/", layer.name, str(image), flags=flags, **changes)]
    return [*steps, *(wire.Bind(path, path) for path in ("/proc", "/dev"))]


def test_a_layer_lies_over_the_image_and_neither_is_written_to(lab, cache, layer):
    image = lab.image("debian-root")
    text = "cat /opt/staged; test -e /etc/debian_version && echo image; echo >/opt/new || echo read-only; ls /opt"
    done = cache.launch(*overlay(image, layer), command=shell(text), image=str(image), staged=True)
    assert said(done).split()[:3] == ["staged", "image", "read-only"]
    assert os.listdir(layer / "opt") == ["staged"]


def test_a_writable_root_forgets(lab, cache, layer):
    image = lab.image("debian-root")
    steps = overlay(image, layer, writable=True, mode=0o751, flags=("nodev", "nosuid"))
    # Every host path is there although the writes went through a tmpfs where the host has its /tmp.
    steps.append(wire.Bind("/tmp", "/tmp"))
    text = f"echo new >/opt/new && cat /opt/staged /opt/new; stat -c %a /; test -d {cache.runtime} && echo tmp"
    options = {"image": str(image), "staged": True, "options": ["--writable-tmpfs"]}
    assert said(cache.launch(*steps, command=shell(text), **options)).split() == ["staged", "new", "751", "tmp"]
    assert os.listdir(layer / "opt") == ["staged"]
    assert "new" not in said(cache.launch(*steps, command=["ls", "/opt"], **options)).split()


def test_an_overlay_lies_below_the_root_as_well(lab, cache, layer, place):
    (layer / "opt").rename(layer / "more")
    image = lab.image("debian-root")
    steps = [HOST_ROOT, wire.Overlay(str(place), layer.name, str(image), flags=("ro",))]
    done = cache.launch(*steps, command=shell(f"cat {place}/more/staged; ls {place}/etc/debian_version"), staged=True)
    assert said(done).split() == ["staged", f"{place}/etc/debian_version"]


#: overlayfs refuses a layer that has locked mounts below it.
REFUSED = "/dev"

#: A front that says what is left of the launch when it is called.
WITNESS = """#!/bin/sh
printf 'front'; printf ' <%s>' "$@"; echo
pwd
wc -l </proc/self/mountinfo
ls / | tr '\\n' ' '; echo
ls "$XDG_RUNTIME_DIR"
unshare --user --map-root-user --mount true && echo nested
"""


@pytest.mark.parametrize("when", ["at first", "later", "writable and later"])
def test_a_refused_overlay_is_undone_and_the_front_does_without(when, lab, cache, layer, place, tmp_path):
    cache.front.write_text(WITNESS)
    refused = [wire.Overlay(str(place), layer.name, REFUSED)]
    steps = {
        "at first": [wire.Overlay("/", layer.name, REFUSED)],
        "later": [HOST_ROOT, wire.Bind("/tmp", "/mnt"), *refused],
        "writable and later": [
            *overlay(lab.image("debian-root"), layer, writable=True, flags=()),
            wire.Overlay("/opt", layer.name, REFUSED),
        ],
    }[when]
    done = cache.launch(*steps, staged=True, cwd=tmp_path)
    lines = said_by_front(done)
    mounts = len(Path("/proc/self/mountinfo").read_text().splitlines())
    names = " ".join(sorted(os.listdir("/"), key=os.fsencode))
    assert lines == [
        "front <run> <--runner=python> </> <--> <true>",
        str(tmp_path),
        str(mounts),
        f"{names} ",
        "cdi-hpc",
        "nested",
    ]


@pytest.mark.parametrize("when", ["at first", "later"])
def test_a_step_that_fails_is_undone_and_the_front_is_asked_for_another_way(when, cache, tmp_path):
    cache.front.write_text(WITNESS)
    steps = {
        "at first": [wire.Bind("/no/such", "/")],
        "later": [HOST_ROOT, wire.Bind("/tmp", "/mnt"), wire.Bind("/no/such", "/mnt")],
    }[when]
    done = cache.launch(*steps, cwd=tmp_path)
    assert done.returncode == 0
    assert re.fullmatch(r"cdi-hpc: warning: /\w*: can't bind /no/such there: No such file or directory\n", done.stderr)
    asked, where, mounts, *_, nested = done.stdout.splitlines()
    assert (asked, where, nested) == ("front <run> <--runner=python> </> <--> <true>", str(tmp_path), "nested")
    assert int(mounts) == len(Path("/proc/self/mountinfo").read_text().splitlines())
    assert list(cache.directory.glob("*.plan")) == []


def told_inside(*steps: wire.Record, cache: Cache, **options) -> str:
    cache.front.write_text(f'#!/bin/sh\necho "$1 inside=$CDI_HPC_INSIDE in $({which("stat")} -c %u /)"\n')
    return cache.launch(*steps, **options).stdout


def test_a_front_inside_of_our_user_namespace_is_told_so(cache, layer):
    nobodys = "run inside=1 in 65534\n" if os.geteuid() else "run inside=1 in 0\n"
    assert told_inside(wire.Bind("/no/such", "/"), cache=cache) == nobodys
    assert told_inside(wire.Overlay("/", layer.name, REFUSED), cache=cache, staged=True) == nobodys


def test_a_front_outside_of_it_is_not(cache, tmp_path):
    assert told_inside(wire.Absent("/"), HOST_ROOT, cache=cache) == "run inside= in 0\n"
    nowhere = {**cache.environ(), "PATH": str(tmp_path)}
    (tmp_path / "image").touch()
    no_server = (state_of(tmp_path / "image"), wire.Squashfs(f"{tmp_path}/image", str(tmp_path), 0), HOST_ROOT)
    assert told_inside(*no_server, cache=cache, env=nowhere) == "run inside= in 0\n"


@pytest.fixture
def just_compiled(cache) -> None:
    """The plan was made this moment, so nobody is asked for another one."""
    cache.env["CDI_HPC_COMPILED"] = "key"


def said_by_front(done) -> list[str]:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--stage=overlay", "--stage=overlay: the kernel refuses an overlay on this image: "),
        ("--writable-tmpfs", "--writable-tmpfs: needs an overlay, and this kernel or file system refuses it"),
    ],
)
def test_who_insists_on_an_overlay_is_told_that_there_is_none(option, said, cache, layer):
    done = cache.launch(wire.Overlay("/", layer.name, REFUSED), staged=True, options=[option])
    assert done.returncode == 125
    assert done.stderr.startswith(f"cdi-hpc: error: {said}")
    assert done.stderr.count("\n") == 1


# Hostile places and failures --------------------------------------------------------------------------------------


def every_step(place: str, source: str) -> list[wire.Record]:
    return [
        wire.Mkdir(f"{place}/x"),
        wire.Mkfile(f"{place}/x"),
        wire.Copy("content", f"{place}/x"),
        wire.Symlink(f"{place}/x", "y"),
        wire.Bind(source, f"{place}/x"),
        wire.BindStaged("content", f"{place}/x"),
        wire.Overlay(f"{place}/x", "layer", source),
        wire.Mount("tmpfs", "tmpfs", f"{place}/x"),
        wire.Restrict(f"{place}/x", ("ro",)),
    ]


@pytest.mark.parametrize("step", every_step("/LINK", "/etc"), ids=lambda step: step.name)
@pytest.mark.usefixtures("just_compiled")
def test_no_step_follows_a_link_that_has_come_into_its_way(step, cache, place, tmp_path):
    outside = tmp_path / "outside"
    (outside / "x").mkdir(parents=True)
    cache.directory.mkdir(mode=0o700)
    (cache.stage / "layer").mkdir(parents=True)
    (cache.stage / "content").touch()
    cache.stage.chmod(0o700)
    (place / "link").symlink_to(outside)
    there = type(step)(**{**vars(step), "place": f"{place}/link/x"})
    done = cache.launch(HOST_ROOT, there, staged=True)
    assert done.returncode == 125, done.stdout
    assert re.fullmatch(
        rf"cdi-hpc: error: {place}/link/x: can't [^\n]*: Too many levels of symbolic links\n", done.stderr
    )
    assert os.listdir(outside) == ["x"]


@pytest.mark.usefixtures("just_compiled")
def test_a_link_is_not_bound_upon_either(cache, place):
    (place / "link").symlink_to("/etc")
    done = cache.launch(HOST_ROOT, wire.Bind("/usr", f"{place}/link"))
    assert done.returncode == 125
    assert "Too many levels of symbolic links" in done.stderr


@pytest.mark.parametrize("kind", ["file", "layer"])
@pytest.mark.usefixtures("just_compiled")
def test_a_link_in_the_stage_is_not_followed(kind, cache, place):
    cache.directory.mkdir(mode=0o700)
    cache.stage.mkdir(mode=0o700)
    (cache.stage / "link").symlink_to("/etc")
    step = {"file": wire.Copy("link/passwd", f"{place}/x"), "layer": wire.Overlay(str(place), "link", "/usr")}[kind]
    done = cache.launch(HOST_ROOT, step, staged=True)
    assert done.returncode == 125
    assert "Too many levels of symbolic links" in done.stderr


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        (wire.Bind("/no/such", "/mnt"), "/mnt: can't bind /no/such there: No such file or directory"),
        (wire.Bind("/etc", "/no/such"), "/no/such: can't bind /etc there: No such file or directory"),
        (wire.Bind("/etc", "/etc/passwd"), "/etc/passwd: can't bind /etc there: (Not a directory|Invalid argument)"),
        (wire.Mkdir("/etc/passwd/x"), "/etc/passwd/x: can't make the directory: Not a directory"),
        (wire.Mkdir("/etc"), "/etc: can't make the directory: File exists"),
        (wire.Mount("nosuchfs", "x", "/mnt"), "/mnt: can't mount nosuchfs there: No such device"),
        (wire.Restrict("/no", ("ro",)), "/no: can't set ro: No such file or directory"),
    ],
)
@pytest.mark.usefixtures("just_compiled")
def test_a_step_of_a_plan_made_this_moment_that_fails_ends_the_launch_with_one_line(step, complaint, cache):
    done = cache.launch(HOST_ROOT, step)
    assert (done.returncode, done.stdout) == (125, "")
    assert re.fullmatch(f"cdi-hpc: error: {complaint}\n", done.stderr)


@pytest.mark.usefixtures("just_compiled")
def test_a_hostile_path_does_not_control_the_terminal(cache):
    done = cache.launch(HOST_ROOT, wire.Bind("/a\x1b[2J\nfake: all is well", "/mnt"))
    assert done.stderr == (
        "cdi-hpc: error: /mnt: can't bind /a\\x1b[2J\\nfake: all is well there: No such file or directory\n"
    )


# What the process is ----------------------------------------------------------------------------------------------


def test_nothing_of_the_host_is_left_but_what_was_planned(lab, cache, layer):
    image = lab.image("debian-root")
    done = cache.launch(*overlay(image, layer), command=["cat", "/proc/self/mountinfo"], image=str(image), staged=True)
    points = [line.split()[4] for line in said(done).splitlines()]
    host = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    bound = [point for point in host if re.match("/(proc|dev)(/|$)", point)]
    assert sorted(points) == sorted(["/", *bound])


#: A glob would open the directory, and show that as well.
SHOW_DESCRIPTORS = "for fd in $(seq 0 99); do if [ -e /proc/$$/fd/$fd ]; then echo $fd; fi; done"


def test_no_descriptor_is_left_open_and_none_of_the_users_is_closed(cache):
    reader, writer = os.pipe()
    done = cache.launch(HOST_ROOT, command=shell(SHOW_DESCRIPTORS), pass_fds=[writer])
    os.close(reader)
    os.close(writer)
    assert [int(word) for word in said(done).split()] == [0, 1, 2, writer]


def test_the_command_has_no_privilege_and_can_get_none(cache):
    status = said(cache.launch(HOST_ROOT, command=["cat", "/proc/self/status"]))
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    ids = [str(os.geteuid())] * 4
    assert fields["Uid"].split() == ids


def test_the_command_can_make_namespaces_of_its_own(cache):
    assert (
        said(cache.launch(HOST_ROOT, command=shell("unshare --user --mount --propagation unchanged true && echo yes")))
        == "yes\n"
    )


def test_umask_and_directory_are_the_callers(cache, tmp_path):
    done = cache.launch(HOST_ROOT, command=shell("umask; pwd"), cwd=tmp_path, umask=0o027)
    assert said(done).split() == ["0027", str(tmp_path)]


def test_a_mount_in_the_container_is_not_seen_outside(cache, place):
    before = Path("/proc/self/mountinfo").read_text()
    said(cache.launch(*in_tmpfs(place)))
    assert Path("/proc/self/mountinfo").read_text() == before


# Numbers ----------------------------------------------------------------------------------------------------------


def test_two_thousand_binds_need_no_more_descriptors_than_ten(cache, place, tmp_path):
    source = tmp_path / "source"
    source.touch()
    names = [f"{place}/{number}" for number in range(2000)]
    bind = [wire.Bind(str(source), name, recursive=False, flags=("ro",)) for name in names]
    cache.write(*in_tmpfs(place, *map(wire.Mkfile, names), *bind))
    words = ["--nofile=24:24", str(cache.programs.plain_run), "/", "grep", "-c", f"{place}/", "/proc/self/mountinfo"]
    assert said(cache.start(words, run=Path(which("prlimit")))) == "2000\n"


def test_verbose_tells_each_step(cache, place):
    steps = in_tmpfs(place, wire.Mkdir(f"{place}/d"), wire.Note("a note"), wire.Warn("a warning"))
    done = cache.launch(*steps, options=["-v"])
    assert done.stderr.splitlines() == [
        "cdi-hpc: note: a note",
        "cdi-hpc: warning: a warning",
        "cdi-hpc: step: bind / -> /",
        f"cdi-hpc: step: mount tmpfs -> {place} (nosuid)",
        f"cdi-hpc: step: directory {place}/d",
        "cdi-hpc: step: exec true",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], ["warning: w"]),
        (["-q"], []),
        (["-v"], ["warning: w", "note: n", "step: bind / -> /", "step: exec true"]),
        (["-vq"], ["warning: w"]),
    ],
)
def test_messages_are_as_many_as_were_asked_for(options, said, cache):
    done = cache.launch(wire.Warn("w"), wire.Note("n"), HOST_ROOT, options=options)
    assert done.stderr.splitlines() == [f"cdi-hpc: {line}" for line in said]


def test_a_warm_launch_opens_nothing_but_plan_image_and_kernel_files(lab, cache, layer, mount_calls):
    """And starts no program but the command: what makes ten thousand launches at once bearable."""
    image = lab.image("debian-root")
    cache.write(*overlay(image, layer), words=[str(image), "true"], staged=True)
    trace = cache.runtime / "trace"
    words = ["--trace=file", "-o", trace, cache.programs.plain_run, image, "true"]
    said(cache.start([str(word) for word in words], run=Path(which("strace"))))
    calls = trace.read_text().splitlines()
    executed = [
        re.search(r'"([^"]*)"', call)[1] for call in calls if call.startswith("execve(") and call.endswith("= 0")
    ]
    assert [Path(path).name for path in executed] == ["cdi-hpc-run-plain", "true"]
    before_command = calls[: next(n for n, call in enumerate(calls) if call.startswith("execve") and n > 0)]
    opened = [re.search(r'"((?:[^"\\]|\\.)*)"', call) for call in before_command if re.match(r"open", call)]
    allowed = (
        "/proc",
        "/sys",
        "/dev",
        str(cache.directory),
        str(cache.programs.system_cache),
        str(image),
        "/etc/ld.so",
    )
    strange = [found[1] for found in opened if found and found[1].startswith("/") and not found[1].startswith(allowed)]
    assert [path for path in strange if path != "/" and not re.match(r"(/usr)?/lib", path)] == []


def test_modes_of_the_stage_are_not_touched(cache, layer, lab):
    image = lab.image("debian-root")
    before = stat.S_IMODE(layer.stat().st_mode)
    cache.launch(*overlay(image, layer), image=str(image), staged=True)
    assert stat.S_IMODE(layer.stat().st_mode) == before
