"""Mount steps become records and a stage; nothing is lost on the way."""

from __future__ import annotations

from cdi_hpc.backend import Dressing, Keep, StagePath, Text, Variable
from cdi_hpc.compiled import wire
from cdi_hpc.compiled.compile import compile_dressing, compile_steps, origins
from cdi_hpc.container.steps import (
    BindHost,
    BindStaged,
    MakeDirectory,
    MakeFile,
    MakeLink,
    MountNew,
    MountOverlay,
    Restrict,
)
from cdi_hpc.witness import AbsentState, DirectoryState, FileState, LinkState, NodeState

WORKSPACE = tuple(MakeDirectory(name) for name in ("root", "stage", "layer", "write"))


def test_the_workspace_is_not_in_the_plan():
    compiled = compile_steps([*WORKSPACE, BindHost("/", "root", recursive=True)])
    assert compiled.records == [wire.Bind("/", "/", recursive=True)]
    assert compiled.stage == []


def test_an_overlay_names_its_stage_and_the_hosts_directory():
    steps = [
        *WORKSPACE,
        MakeDirectory("stage/1", 0o555),
        MakeDirectory("layer/2"),
        BindHost("/image", "layer/2"),
        MakeDirectory("stage/1/opt", 0o700),
        MakeFile("stage/1/opt/file", b"x", 0o600),
        MakeLink("stage/1/opt/link", "file"),
        MountOverlay("root", ("stage/1", "layer/2"), "", ("nodev", "ro")),
    ]
    compiled = compile_steps(steps)
    assert compiled.records == [wire.Overlay("/", "1", "/image", writable=False, flags=("nodev", "ro"))]
    assert compiled.stage == [
        MakeDirectory("1", 0o555),
        MakeDirectory("1/opt", 0o700),
        MakeFile("1/opt/file", b"x", 0o600),
        MakeLink("1/opt/link", "file"),
    ]


def test_a_writable_overlay_keeps_the_mode_of_its_root():
    steps = [
        *WORKSPACE,
        MakeDirectory("stage/1"),
        MakeDirectory("layer/2"),
        BindHost("/image", "layer/2"),
        MakeDirectory("write/3"),
        MakeDirectory("write/3/upper", 0o1755),
        MakeDirectory("write/3/work"),
        MountOverlay("root", ("stage/1", "layer/2"), "write/3", ("nodev",)),
    ]
    (step,) = compile_steps(steps).records
    assert step == wire.Overlay("/", "1", "/image", writable=True, mode=0o1755, flags=("nodev",))


def test_overlays_side_by_side_each_have_their_own_layers():
    steps = [*WORKSPACE, MountNew("tmpfs", "underlay", "root", (), ("mode=755",))]
    for number, name in ((1, "usr"), (3, "etc")):
        steps += [
            MakeDirectory(f"root/{name}"),
            MakeDirectory(f"stage/{number}"),
            MakeDirectory(f"layer/{number + 1}"),
            BindHost(f"/{name}", f"layer/{number + 1}"),
            MountOverlay(f"root/{name}", (f"stage/{number}", f"layer/{number + 1}"), "", ()),
        ]
    assert compile_steps(steps).records == [
        wire.Mount("tmpfs", "underlay", "/", (), "mode=755"),
        wire.Mkdir("/usr"),
        wire.Overlay("/usr", "1", "/usr"),
        wire.Mkdir("/etc"),
        wire.Overlay("/etc", "3", "/etc"),
    ]


def test_what_is_made_in_the_root_needs_a_stage_only_for_content():
    steps = [
        *WORKSPACE,
        MountNew("tmpfs", "t", "root", ("nodev",), ("mode=755", "size=1m")),
        MakeDirectory("root/a", 0o2755),
        MakeLink("root/a/link", "../b"),
        MakeFile("root/a/empty"),
        MakeFile("root/a/full", b"content", 0o400),
        Restrict("root", ("ro",)),
    ]
    compiled = compile_steps(steps)
    assert compiled.records == [
        wire.Mount("tmpfs", "t", "/", ("nodev",), "mode=755,size=1m"),
        wire.Mkdir("/a", 0o2755),
        wire.Symlink("/a/link", "../b"),
        wire.Mkfile("/a/empty"),
        wire.Copy("0-content", "/a/full", 0o400),
        wire.Restrict("/", ("ro",)),
    ]
    assert compiled.stage == [MakeFile("0-content", b"content", 0o400)]


def test_binds_keep_what_they_were_asked_for():
    steps = [
        *WORKSPACE,
        BindHost("/image", "root", recursive=True),
        BindHost("/a", "root/x", recursive=True, flags=("ro",), propagation="rslave"),
        MakeFile("stage/1", b"cover", 0o444),
        BindStaged("stage/1", "root/proc/file", ("nodev", "ro")),
    ]
    assert compile_steps(steps).records == [
        wire.Bind("/image", "/"),
        wire.Bind("/a", "/x", recursive=True, flags=("ro",), propagation="rslave"),
        wire.BindStaged("1", "/proc/file", ("nodev", "ro")),
    ]


def test_a_launchers_words_and_variables_are_kept_in_order():
    layer = (MakeDirectory("layer"), MakeFile("layer/file", b"x"))
    dressing = Dressing(
        words=(Text("exec"), StagePath("--overlay=", "layer", ":ro"), Keep(3), Text("")),
        variables=(Variable("D", "d", default=True), Variable("A", "a=b"), Variable("E", "")),
        stage=layer,
    )
    compiled = compile_dressing(dressing, "/usr/bin/apptainer")
    assert compiled.records == [
        wire.Env("A=a=b"),
        wire.Env("E="),
        wire.Default("D=d"),
        wire.Program("/usr/bin/apptainer"),
        wire.Arg("exec"),
        wire.StageArg("--overlay=", "layer", ":ro"),
        wire.KeepArg(3),
        wire.Arg(""),
    ]
    assert compiled.stage == [*layer]


def test_a_launchers_image_is_served_covered_and_relieved_of_its_dev():
    dressing = Dressing(
        words=(Text("/cache/image"),),
        steps=(
            *WORKSPACE,
            MakeDirectory("stage/1"),
            MakeDirectory("layer/2"),
            BindHost("/cache/image", "layer/2"),
            MountOverlay("root", ("stage/1", "layer/2"), "", ("ro",)),
            MountNew("tmpfs", "dev", "root/dev"),
        ),
        place="/cache/image",
        squashfs="/images/a.sqfs",
        moves=(("/dev", "/dev"),),
        stage=(MakeFile("profile"),),
    )
    compiled = compile_dressing(dressing, "/usr/bin/ch-run")
    assert compiled.records == [
        wire.Program("/usr/bin/ch-run"),
        wire.Arg("/cache/image"),
        wire.Squashfs("/images/a.sqfs", "/cache/image"),
        wire.Overlay("/", "1", "/cache/image", flags=("ro",)),
        wire.Mount("tmpfs", "dev", "/dev"),
        wire.Place("/cache/image"),
        wire.Move("/dev", "/dev"),
    ]
    assert compiled.stage == [MakeDirectory("1"), MakeFile("profile")]
    known = wire.SameFile("/images/a.sqfs", 1, 2, 3, 4, 5)
    plan = wire.WirePlan("0" * 64, 1, 1, "/stage", (known, *compiled.records))
    assert wire.encode(plan).endswith(b"move\0/dev\0/dev\0end\0")


def test_how_access_times_are_kept_is_left_to_the_source():
    steps = [
        *WORKSPACE,
        MountNew("tmpfs", "t", "root", ("noatime",)),
        BindHost("/a", "root/x", flags=("nodiratime", "relatime", "ro")),
    ]
    assert compile_steps(steps).records == [
        wire.Mount("tmpfs", "t", "/", ("noatime",)),
        wire.Bind("/a", "/x", flags=("ro",)),
    ]


def test_contents_do_not_share_a_name_with_layers():
    steps = [
        *WORKSPACE,
        MountNew("tmpfs", "t", "root"),
        MakeFile("root/a", b"1"),
        MakeFile("stage/1", b"2"),
        BindStaged("stage/1", "root/a"),
        MakeFile("root/b", b"3"),
    ]
    stage = compile_steps(steps).stage
    assert len({entry.path for entry in stage}) == len(stage) == 3


def test_every_state_has_its_record():
    states = (
        FileState("/f", 1, 2, 3, 4, 5),
        DirectoryState("/d", 1, 2, 3, 4),
        NodeState("/n", 1, 2, 3, 4, 5, 6),
        AbsentState("/a"),
        LinkState("/l", "text"),
    )
    assert list(origins(states)) == [
        wire.SameFile("/f", 1, 2, 3, 4, 5),
        wire.SameDirectory("/d", 1, 2, 3, 4),
        wire.SameNode("/n", 1, 2, 3, 4, 5, 6),
        wire.Absent("/a"),
        wire.SameLink("/l", "text"),
    ]
