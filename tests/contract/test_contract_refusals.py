"""What can't be done is one clear line, and the launcher is not started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from run.launchers import Request, start

#: A command that would tell of having begun. A launcher that is started without it is only asked about itself.
TELLING = ["echo", "begun"]


def refused(argv: list, started: Callable[[], list[str]], **options) -> list[str]:
    """The lines of a launch that did not happen."""
    done = start(argv, **options)
    assert done.returncode == 125, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines
    assert all(line.startswith("cdi-hpc: ") and line.isprintable() for line in lines), lines
    assert [line for line in started() if line.endswith(" ".join(TELLING))] == [], "the launcher was started"
    return lines


def only(lines: list[str]) -> str:
    assert len(lines) == 1, lines
    return lines[0]


LACKS = [
    ({"deviceNodes": [{"path": "/dev/no-such-device"}]}, "/dev/no-such-device"),
    ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]}, "/etc/passwd"),
    ({"mounts": [{"hostPath": "/no/such/lib.so", "containerPath": "/usr/lib/lib.so"}]}, "/no/such/lib.so"),
    ({"mounts": [{"hostPath": "/etc/hostname", "containerPath": "/"}]}, "root"),
    ({"mounts": [{"hostPath": "/etc", "containerPath": "/etc/debian_version"}]}, "/etc/debian_version"),
    ({"mounts": [{"hostPath": "/no/such/\x1b[31m\n\x07lib.so", "containerPath": "/x"}]}, "/no/such/"),
]


@pytest.mark.parametrize("edits, word", LACKS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_the_spec_demands_and_cannot_be_is_named(through, spec, recorded, edits, word):
    request = spec({"one": edits})
    line = only(refused(through.argv(request, TELLING), recorded))
    assert word in line
    assert request.directories[0] in line, "where it was written"


def test_a_damaged_image_is_named_once_by_the_users_own_name(launcher, small, lab, recorded, tmp_path):
    content = bytearray(lab.image("musl").with_name("musl.sqfs").read_bytes())
    # The tables behind the files' content: inodes, directories, fragments.
    content[len(content) // 2 : -200] = bytes(byte ^ 0x5A for byte in content[len(content) // 2 : -200])
    image = tmp_path / "damaged.sqfs"
    image.write_bytes(content)
    line = only(refused(launcher.argv(small, TELLING, image=image), recorded))
    assert f"{image}: is damaged: " in line


def test_everything_that_is_missing_is_reported_at_once(launcher, spec, recorded):
    missing = ["/no/such/a", "/no/such/b", "/no/such/c"]
    mounts = [{"hostPath": path, "containerPath": path} for path in missing]
    lines = refused(launcher.argv(spec({"one": {"mounts": mounts}}), TELLING), recorded)
    assert [next(path for path in missing if path in line) for line in lines] == missing


@pytest.mark.parametrize(
    "device, word",
    [
        ("lab.example/thing=gpu7", "gpu7"),
        ("lab.example/thong=one", "lab.example/thong"),
        ("not a device", "not a device"),
        ("lab.example/thing=", "lab.example/thing="),
        ("lab.example/thing=one,lab.example/thing=two", "two"),
        ("../../etc/passwd", "passwd"),
    ],
)
def test_an_unknown_device_is_named(launcher, spec, recorded, device, word):
    request = Request((device,), spec({"one": {"env": ["A=b"]}}).directories)
    assert any(word in line for line in refused(launcher.argv(request, TELLING), recorded))


def test_a_spec_directory_that_does_not_exist_is_named(launcher, recorded, tmp_path):
    request = Request(("lab.example/thing=one",), (str(tmp_path / "nowhere"),))
    assert str(tmp_path / "nowhere") in only(refused(launcher.argv(request, TELLING), recorded))


BROKEN = {
    "half a file": "cdiVersion: 0.6.0\nkind: [unclosed\n",
    "no mapping": "- 1\n",
    "another kind of file": "\x00\x01\x02",
    "no kind": "cdiVersion: 0.6.0\ndevices: [{name: one, containerEdits: {env: [A=b]}}]\n",
    "a path that is none": "cdiVersion: 0.6.0\nkind: lab.example/thing\ndevices: [{name: one, containerEdits: "
    "{mounts: [{hostPath: relative, containerPath: /x}]}}]\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_spec_that_is_broken_is_named(launcher, spec, recorded, text):
    request = spec({"one": {"env": ["A=b"]}})
    file = next(Path(request.directories[0]).iterdir())
    file.write_text(text)
    assert any(str(file) in line for line in refused(launcher.argv(request, TELLING), recorded))


def test_a_spec_that_cannot_be_read_is_named_with_what_to_do(launcher, spec, recorded):
    request = spec({"one": {"env": ["A=b"]}})
    file = next(Path(request.directories[0]).iterdir())
    file.chmod(0)
    line = next(line for line in refused(launcher.argv(request, TELLING), recorded) if str(file) in line)
    assert "ermission denied" in line
    assert "chmod" in line


HOOK = {"hookName": "createContainer", "path": "/opt/vendor/hook", "args": ["hook", "do-it"]}


def test_an_unknown_hook_is_a_warning(through, spec):
    done = start(through.argv(spec({"one": {"hooks": [HOOK]}}), TELLING))
    assert (done.returncode, done.stdout) == (0, b"begun\n"), done.stderr
    ours = [line for line in done.stderr.decode().splitlines() if line.startswith("cdi-hpc: ")]
    assert "warning" in only(ours)
    assert "/opt/vendor/hook" in ours[0]


@pytest.mark.parametrize("image", ["/no/such/image", "/etc/passwd", "/dev/null"])
def test_an_image_that_is_none_is_named_once(launcher, small, image):
    """By us or by the launcher, which knows best what an image is."""
    done = start(launcher.argv(small, TELLING, image=image))
    assert done.returncode != 0
    assert done.stdout == b""
    errors = [line for line in done.stderr.decode().splitlines() if "error" in line or "FATAL" in line]
    assert image in only(errors)


def test_an_option_of_ours_without_its_value_is_refused(launcher, recorded):
    bare = launcher.bare(TELLING)
    at = 2 if launcher.launcher == "apptainer" else 1
    refused(launcher.line([*bare[1:at], "--device"]), recorded)
    refused(launcher.line([*bare[1:at], "--cdi-dirs"]), recorded)
