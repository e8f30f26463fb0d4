"""What a request puts into a container is there and nothing else, however and in whatever it is launched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from run.launchers import Request, said, start, write_spec
from run.mounts import mounts_of


def mount(source: str | Path, target: str, *options: str) -> dict:
    words = list(options or ("ro", "nosuid", "nodev", "bind"))
    return {"hostPath": str(source), "containerPath": target, "options": words}


def test_a_variable_a_node_a_file_a_directory_and_a_link_are_there(setting, small):
    script = """
    echo "$LAB_VARIABLE"; cat /opt/lab/file /opt/lab/directory/entry; readlink /opt/lab/link; echo >/dev/null
    cat /proc/self/mountinfo
    """
    first, second, third, fourth, rest = said(start(setting.argv(small, ["sh", "-c", script]))).split("\n", 4)
    assert first == "from the spec"
    assert [second, third, fourth] == ["from the host", "in a directory of the host", "file"]
    mounted = mounts_of(rest)
    assert {"ro", "nosuid", "nodev"} <= mounted["/opt/lab/file"].flags
    assert "ro" in mounted["/opt/lab/directory"].flags


@pytest.mark.parametrize("joined", [False, True], ids=["two options", "one list"])
def test_two_kinds_in_one_request_are_both_there(setting, tmp_path, joined):
    gpu = write_spec(tmp_path / "cdi", {"0": {"env": ["A=gpu"]}, "1": {"env": ["B=gpu1"]}}, kind="lab.example/gpu")
    nic = write_spec(
        tmp_path / "cdi",
        {"eth": {"env": ["C=nic"], "mounts": [mount("/etc/hostname", "/opt/nic")]}},
        kind="other.example/nic",
    )
    both = (*gpu.devices, *nic.devices)
    request = Request((",".join(both),) if joined else both, gpu.directories)
    out = said(start(setting.argv(request, ["sh", "-c", 'echo "$A $B $C"; cat /opt/nic'])))
    assert out == f"gpu  nic\n{Path('/etc/hostname').read_text()}"


def test_one_device_of_several_is_the_only_one_that_is_there(setting, spec):
    """Its own edits and the spec's, not its neighbour's; and a node that the host has under another name."""
    devices = {
        name: {"env": [f"LAB_{name.upper()}=yes"], "deviceNodes": [{"path": f"/dev/{name}", "hostPath": "/dev/null"}]}
        for name in ("one", "two")
    }
    every = {"env": ["LAB_ALL=yes"], "deviceNodes": [{"path": "/dev/lab/every", "hostPath": "/dev/zero"}]}
    script = """
    echo "$LAB_ONE $LAB_TWO $LAB_ALL"
    for node in one two lab/every; do test -c /dev/$node && echo $node; done
    head -c 2 /dev/lab/every | od -An -tx1; echo gone >/dev/one
    """
    out = said(start(setting.argv(spec(devices, edits=every), ["sh", "-c", script])))
    assert out == "yes  yes\none\nlab/every\n 00 00\n"


def test_a_dev_of_our_own_has_what_programs_expect_of_one(setting, spec):
    request = spec({"one": {"deviceNodes": [{"path": "/dev/renamed", "hostPath": "/dev/zero"}]}})
    script = """
    echo >/dev/null && head -c1 /dev/zero /dev/urandom >/dev/null && echo nodes
    test -d /dev/pts && test -e /dev/ptmx && test -d /dev/shm && echo directories
    test "$(readlink /dev/fd)" = /proc/self/fd && echo streams >/dev/stdout
    """
    assert said(start(setting.argv(request, ["sh", "-c", script]))).split() == ["nodes", "directories", "streams"]


def test_hundreds_of_mounts_all_arrive(setting, spec, tmp_path):
    """Files beside what is there, in new directories, over what is there, each with its own content."""
    places = ["/usr/lib/lab-{}", "/opt/new/{}/file", "/etc/lab.d/{}.conf", "/usr/share/lab-{}/deep/er/file", "/srv/{}"]
    sources = tmp_path / "sources"
    sources.mkdir()
    mounts = []
    for number in range(300):
        (sources / str(number)).write_text(f"{number}\n")
        mounts.append(mount(sources / str(number), places[number % len(places)].format(number)))
    targets = [entry["containerPath"] for entry in mounts]
    command = ["sh", "-c", 'for file; do cat "$file"; done', "sh", *targets]
    out = said(start(setting.argv(spec({"one": {"mounts": mounts}}), command)))
    assert out.split() == [str(number) for number in range(300)]


def test_what_the_spec_says_oddly_is_byte_for_byte_what_arrives(setting, spec, tmp_path):
    """Names and values that a shell, mount(8), or a launcher's own lists would take for something else."""
    source = tmp_path / "a b\tc'd\"e$(g)#"
    source.write_text("odd\n")
    target = "/opt/o d\t'd\"$(touch x)#ü"
    value = "a 'b' \"c\" $(d) `e` \\ \n\t%s ü ${f} $HOME:$PATH, *"
    request = spec({"one": {"env": [f"LAB_ODD={value}"], "mounts": [mount(source, target)]}})
    argv = setting.argv(request, ["sh", "-c", 'cat "$1"; printf %s "$LAB_ODD"', "sh", target])
    assert said(start(argv)) == f"odd\n{value}"


def test_a_value_with_quotes_around_it_keeps_them(setting, spec):
    values = {"A": "'quoted'", "B": '"quoted"', "C": "$HOME", "D": "a=b=c", "E": "", "F": "'", "G": "\\n"}
    request = spec({"one": {"env": [f"LAB_{name}={value}" for name, value in values.items()]}})
    script = "".join(f'printf "%s\\n" "$LAB_{name}";' for name in values)
    assert said(start(setting.argv(request, ["sh", "-c", script]))).splitlines() == list(values.values())


def test_a_path_with_a_colon_or_a_comma_is_put_in_its_place_or_named(through, spec, tmp_path):
    """Launchers separate by them in their own options; never may half a path be mounted."""
    source = tmp_path / "a:b,c"
    source.write_text("odd\n")
    request = spec({"one": {"mounts": [mount(source, "/opt/x:y,z")]}})
    done = start(through.argv(request, ["cat", "/opt/x:y,z"]))
    if done.returncode:
        assert "/opt/x:y,z" in done.stderr.decode()
        assert len(done.stderr.splitlines()) == 1
    else:
        assert done.stdout == b"odd\n"


def test_a_link_that_is_there_already_is_replaced_and_a_file_is_covered(setting, spec, tmp_path):
    (tmp_path / "release").write_text("another\n")
    hook = ["nvidia-cdi-hook", "create-symlinks", "--link", "made-by-us::/etc/mtab"]
    edits = {
        "mounts": [mount(tmp_path / "release", "/etc/debian_version")],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": hook}],
    }
    script = "cat /etc/debian_version; readlink /etc/mtab"
    assert said(start(setting.argv(spec({"one": edits}), ["sh", "-c", script]))) == "another\nmade-by-us\n"


def test_a_device_is_usable_by_who_starts_a_second_launch_with_the_same_plan(setting, small):
    """The second launch is a replay; a third with another command is one, too."""
    for text in ("first", "second", "third one"):
        assert said(start(setting.argv(small, ["echo", text]))) == f"{text}\n"


def test_a_spec_that_changes_is_noticed(through, spec):
    for text in ("before", "after", "afterwards"):
        request = spec({"one": {"env": [f"LAB_TEXT={text}"]}})
        assert said(start(through.argv(request, ["sh", "-c", "echo $LAB_TEXT"]))) == f"{text}\n"


# Environment ------------------------------------------------------------------------------------------------------


def test_a_spec_s_variable_counts_for_more_than_the_one_that_is_inherited(setting, small):
    done = start(setting.argv(small, ["sh", "-c", "echo $LAB_VARIABLE"]), env={"LAB_VARIABLE": "inherited"})
    assert said(done) == "from the spec\n"


#: Launcher -> the option with which a user sets a variable.
SETS = {"ch-run": "--set-env={}={}", "apptainer": "--env={}={}"}


def test_what_the_user_sets_for_the_container_counts_for_more_than_the_spec(through, small):
    options = [SETS[through.launcher].format("LAB_VARIABLE", "mine"), SETS[through.launcher].format("OTHER", "too")]
    argv = through.argv(small, ["sh", "-c", 'echo "$LAB_VARIABLE $OTHER"'], options=options)
    assert said(start(argv)) == "mine too\n"


#: Variables in which Apptainer tells the words of its own command line, which are others with us.
TOLD_ANEW = {
    *("_", "APPTAINER_BIND", "APPTAINER_COMMAND"),
    *("SINGULARITY_BIND", "SINGULARITY_COMMAND"),
}


def test_the_rest_of_the_environment_is_as_the_launcher_has_it(through, spec):
    request = spec({"one": {"mounts": [mount("/etc/hostname", "/opt/lab-hostname")]}})
    environments = [
        dict(line.partition("=")[::2] for line in said(start(argv)).split("\0") if line)
        for argv in (through.argv(request, ["env", "-0"]), through.bare(["env", "-0"]))
    ]
    ours, bare = environments
    differing = {name for name in {*ours, *bare} if ours.get(name) != bare.get(name)}
    assert differing <= TOLD_ANEW, differing


def test_devices_may_be_asked_for_by_a_variable(launcher, small):
    """As the batch system does it, which writes no command lines."""
    bare = launcher.bare(["sh", "-c", "echo $LAB_VARIABLE"])
    argv = launcher.line(bare[1:])
    env = {"CDI_HPC_DEVICES": ",".join(small.devices), "CDI_HPC_DIRS": os.pathsep.join(small.directories)}
    assert said(start(argv, env=env)) == "from the spec\n"
