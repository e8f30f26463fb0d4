"""Requests and what they put into a container: one device, several kinds, many edits, edits upon edits."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from launchers import Request, place_of, said, start, write_spec
from mounts import mounts_of

STAGES = ("overlay", "underlay")


@pytest.fixture(params=STAGES)
def stage(request) -> str:
    return request.param


def test_one_device_of_several_is_the_only_one_that_is_there(launcher, spec, lab, stage):
    """Its own edits and the spec's, not its neighbour's."""
    devices = {
        name: {"env": [f"LAB_{name.upper()}=yes"], "deviceNodes": [{"path": f"/dev/{name}", "hostPath": "/dev/null"}]}
        for name in ("one", "two")
    }
    request = spec(
        devices, edits={"env": ["LAB_ALL=yes"], "deviceNodes": [{"path": "/dev/every", "hostPath": "/dev/zero"}]}
    )
    script = (
        'echo "$LAB_ONE $LAB_TWO $LAB_ALL"; for node in one two every; do test -c /dev/$node && echo $node; done; true'
    )
    argv = launcher.argv(request, place_of(lab, "debian-root"), ["sh", "-c", script], stage=stage)
    assert said(start(argv)) == "yes  yes\none\nevery\n"


def test_two_kinds_in_one_request_are_both_there(launcher, tmp_path, lab, stage):
    gpu = write_spec(tmp_path / "cdi", {"0": {"env": ["A=gpu"]}, "1": {"env": ["B=gpu1"]}}, kind="lab.example/gpu")
    nic = write_spec(
        tmp_path / "cdi",
        {"eth": {"env": ["C=nic"], "mounts": [mount("/etc/hostname", "/opt/nic")]}},
        kind="other.example/nic",
    )
    for words in ((*gpu.devices, *nic.devices), (f"{gpu.devices[0]},{nic.devices[0]}",)):
        request = Request(words, gpu.directories)
        script = 'echo "$A $B $C"; cat /opt/nic'
        argv = launcher.argv(request, place_of(lab, "debian-root"), ["sh", "-c", script], stage=stage)
        assert said(start(argv)) == f"gpu  nic\n{Path('/etc/hostname').read_text()}"


def mount(source: str | Path, target: str, *options: str) -> dict:
    return {
        "hostPath": str(source),
        "containerPath": target,
        "options": list(options or ("ro", "nosuid", "nodev", "bind")),
    }


def test_no_device_at_all_is_a_request_too(run, lab, stage):
    argv = run.argv(Request(()), place_of(lab, "debian-root"), ["echo", "begun"], stage=stage)
    assert said(start(argv)) == "begun\n"


@pytest.mark.parametrize("image", ["debian-root", "links", "/"])
def test_hundreds_of_mounts_all_arrive(launcher, spec, lab, tmp_path, image, stage):
    """Files beside what is there, in new directories, over what is there, each with its own content."""
    places = [
        "/usr/lib/lab-{}",
        "/opt/new/{}/file",
        "/etc/lab.d/{}.conf",
        "/usr/share/doc/lab-{}/deep/er/file",
        "/lab-{}",
    ]
    sources = tmp_path / "sources"
    sources.mkdir()
    mounts = []
    for number in range(300):
        (sources / str(number)).write_text(f"{number}\n")
        mounts.append(mount(sources / str(number), places[number % len(places)].format(number)))
    request = spec({"one": {"mounts": mounts}})
    targets = [entry["containerPath"] for entry in mounts]
    argv = launcher.argv(
        request, place_of(lab, image), ["sh", "-c", 'for file; do cat "$file"; done', "sh", *targets], stage=stage
    )
    assert said(start(argv)).split() == [str(number) for number in range(300)]


@pytest.mark.parametrize("image", ["debian-root", "musl", "/"])
def test_edits_upon_edits_are_seen_in_their_order(launcher, spec, lab, tmp_path, image, stage):
    """A file in a directory that is mounted, a directory in that, a link into it, a tmpfs and a file in it."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    (outer / "sub").mkdir(parents=True)
    inner.mkdir()
    (outer / "mine").write_text("outer\n")
    (outer / "sub" / "covered").write_text("covered\n")
    (inner / "entry").write_text("inner\n")
    link = ["nvidia-cdi-hook", "create-symlinks", "--link", "mine::/opt/a/link", "--link", "../a/sub::/opt/b/link"]
    edits = {
        "mounts": [
            mount(outer, "/opt/a"),
            mount(inner, "/opt/a/sub"),
            mount(outer / "mine", "/opt/a/new/deep/file"),
            mount(outer / "mine", "/opt/a/sub/added"),
            {
                "hostPath": "tmpfs",
                "containerPath": "/opt/t",
                "type": "tmpfs",
                "options": ["nosuid", "size=1m", "mode=755"],
            },
            mount(inner, "/opt/t/dir"),
            mount(outer / "mine", "/opt/t/dir2/file"),
        ],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": link}],
    }
    script = """
    cat /opt/a/mine /opt/a/sub/entry /opt/a/new/deep/file /opt/a/sub/added /opt/a/link
    ls /opt/a/sub /opt/b/link
    cat /opt/t/dir/entry /opt/t/dir2/file
    """
    argv = launcher.argv(spec({"one": edits}), place_of(lab, image), ["sh", "-c", script], stage=stage)
    assert said(start(argv)) == (
        "outer\ninner\nouter\nouter\nouter\n/opt/a/sub:\nadded\nentry\n\n/opt/b/link:\nadded\nentry\ninner\nouter\n"
    )
    assert sorted(os.listdir(outer)) == ["mine", "sub"]
    assert sorted(os.listdir(inner)) == ["entry"]


@pytest.mark.parametrize("image", ["debian-root", "links", "/"])
def test_whole_directories_of_the_image_can_be_covered(launcher, spec, lab, tmp_path, image, stage):
    source = tmp_path / "source"
    source.mkdir()
    (source / "only").write_text("only\n")
    targets = ("/usr/share/doc", "/opt", "/mnt", "/home")
    edits = {"mounts": [mount(source, target) for target in targets]}
    argv = launcher.argv(spec({"one": edits}), place_of(lab, image), ["ls", *targets], stage=stage)
    out = said(start(argv))
    assert out.count("only") == len(targets)
    assert len(out.split()) == 2 * len(targets)


FLAGS = [
    ([], set()),
    (["bind"], set()),
    (["ro", "nosuid", "nodev", "bind"], {"ro", "nosuid", "nodev"}),
    (["rbind", "rprivate", "noexec"], {"noexec"}),
    (["ro", "rslave", "rbind"], {"ro"}),
    (["rw", "nosuid"], {"nosuid"}),
]


@pytest.mark.parametrize("image", ["debian-root", "/"])
def test_mounts_have_the_flags_that_were_asked_for_and_the_sources(launcher, spec, lab, tmp_path, image, stage):
    source = tmp_path / "source"
    source.mkdir()
    mounts = [mount(source, f"/opt/flags/{number}", *(options or ["rw"])) for number, (options, _) in enumerate(FLAGS)]
    argv = launcher.argv(
        spec({"one": {"mounts": mounts}}), place_of(lab, image), ["cat", "/proc/self/mountinfo"], stage=stage
    )
    found = mounts_of(said(start(argv)))
    for number, (_, wanted) in enumerate(FLAGS):
        mounted = found[f"/opt/flags/{number}"]
        assert wanted <= mounted.flags, FLAGS[number]
        assert ("ro" in mounted.flags) == ("ro" in wanted), FLAGS[number]
        assert not [word for word in mounted.optional if word.startswith("shared:")]


def test_devices_are_usable_under_other_names_and_in_new_directories(launcher, spec, lab, stage):
    nodes = [
        {"path": "/dev/lab/deep/zero", "hostPath": "/dev/zero"},
        {"path": "/dev/null"},
        {"path": "/dev/random", "hostPath": "/dev/zero"},
        {"path": "/opt/not-in-dev", "hostPath": "/dev/zero", "type": "c", "major": 1, "minor": 5},
    ]
    request = spec({"one": {"deviceNodes": nodes}})
    script = """
    for node in lab/deep/zero random ../opt/not-in-dev; do head -c 2 /dev/$node | od -An -tx1; done; echo >/dev/null
    """
    argv = launcher.argv(request, place_of(lab, "debian-root"), ["sh", "-c", script], stage=stage)
    assert said(start(argv)).split() == ["00"] * 6


def test_a_socket_of_a_daemon_is_connected_to_and_one_that_does_not_run_is_skipped(
    launcher, spec, lab, tmp_path, stage
):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "daemon.sock"))
        edits = {
            "mounts": [
                mount(tmp_path / "daemon.sock", "/run/daemon/socket"),
                mount("/no/such/daemon.sock", "/run/x.sock"),
            ]
        }
        script = "test -S /run/daemon/socket && ! test -e /run/x.sock && echo there"
        argv = launcher.argv(spec({"one": edits}), place_of(lab, "debian-root"), ["sh", "-c", script], stage=stage)
        assert said(start(argv)) == "there\n"


def test_what_the_spec_writes_is_byte_for_byte_what_arrives(launcher, spec, lab, tmp_path, stage):
    """Names and values that shells, mount(8) and mountinfo(5) would each take for something else."""
    source = tmp_path / "a b\tc\\d'e\"f$(g),h:i#\n"
    source.write_text("odd\n")
    target = "/opt/o d\td\\134'\"$(touch x),y:z#ü"
    value = "a 'b' \"c\" $(d) `e` \\ \n\t%s ü ${f} *"
    request = spec({"one": {"env": [f"LAB_ODD={value}"], "mounts": [mount(source, target)]}})
    argv = launcher.argv(
        request, place_of(lab, "debian-root"), ["sh", "-c", 'cat "$1"; printf %s "$LAB_ODD"', "sh", target], stage=stage
    )
    assert said(start(argv)) == f"odd\n{value}"


def test_modes_of_directories_that_we_make_let_everybody_in(launcher, spec, lab, stage):
    request = spec({"one": {"mounts": [mount("/etc/hostname", "/opt/made/by/us/file")]}})
    argv = launcher.argv(
        request, place_of(lab, "debian-root"), ["stat", "-c", "%a", "/opt/made", "/opt/made/by/us"], stage=stage
    )

    def tight() -> None:
        os.umask(0o077)

    assert said(start(argv, preexec_fn=tight)).split() == ["755", "755"]
    assert stat.S_IMODE(os.stat("/etc/hostname").st_mode) & 0o444 == 0o444
