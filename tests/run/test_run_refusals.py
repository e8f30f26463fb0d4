"""What can't be done is refused before the command begins: status 125, a clear line each, nothing half-applied."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from launchers import Request, place_of, said, start

#: A command that would tell of having begun.
TELLING = ["echo", "begun"]


def refused(argv: list, **options) -> list[str]:
    """The lines of a launch that did not happen."""
    done = start(argv, **options)
    assert done.returncode == 125, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines
    assert all(line.startswith("cdi-hpc: ") for line in lines), lines
    assert all(line.isprintable() for line in lines), lines
    return lines


def only(lines: list[str]) -> str:
    assert len(lines) == 1, lines
    return lines[0]


# Images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def not_images(tmp_path) -> Path:
    (tmp_path / "file").write_text("no image\n")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0)
    (tmp_path / "closed-file").write_bytes(b"hsqs")
    (tmp_path / "closed-file").chmod(0)
    (tmp_path / "behind").mkdir()
    (tmp_path / "behind" / "image").mkdir()
    (tmp_path / "behind").chmod(0)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    yield tmp_path
    for name in ("closed", "behind"):
        (tmp_path / name).chmod(0o700)


@pytest.mark.parametrize(
    "image, words",
    [
        ("missing", ["No such file"]),
        ("missing/below", ["No such file"]),
        ("file", ["SquashFS"]),
        ("closed", ["ermission denied"]),
        ("closed-file", ["ermission denied"]),
        ("behind/image", ["ermission denied"]),
        ("fifo", ["neither", "no director"]),
        ("link", ["No such file"]),
        ("loop", ["symbolic links"]),
    ],
)
def test_an_image_that_is_none_is_named_with_the_reason(launcher, small, not_images, image, words):
    line = only(refused(launcher.argv(small, not_images / image, TELLING)))
    assert str(not_images / image) in line
    if launcher.name == "run":
        assert any(word in line for word in words), line


def test_an_empty_directory_is_an_image_in_which_nothing_is_found(launcher, small, not_images):
    done = start(launcher.argv(small, not_images / "empty", TELLING))
    assert done.returncode == 127
    assert not list((not_images / "empty").iterdir())


def test_no_command_and_no_image_are_refused_with_the_usage(run, launcher, small, lab):
    image = place_of(lab, "debian-root")
    for argv in (launcher.argv(small, image, []), run.argv(small, image, [])[:-2]):
        done = start(argv)
        assert done.returncode == 125
        assert "usage" in done.stderr.decode().lower()


# Specs and devices ------------------------------------------------------------------------------------------------


def test_a_spec_directory_that_does_not_exist_is_named(run, lab, tmp_path):
    request = Request(("lab.example/thing=one",), (str(tmp_path / "nowhere"),))
    lines = refused(run.argv(request, place_of(lab, "debian-root"), TELLING))
    assert str(tmp_path / "nowhere") in only(lines)


def test_a_spec_that_cannot_be_read_is_named_with_what_to_do(run, spec, lab):
    request = spec({"one": {"env": ["A=b"]}})
    file = next(Path(request.directories[0]).iterdir())
    file.chmod(0)
    lines = refused(run.argv(request, place_of(lab, "debian-root"), TELLING))
    line = next(line for line in lines if str(file) in line)
    assert "ermission denied" in line
    assert "chmod" in line


def test_a_spec_that_is_broken_is_named_with_the_line(run, spec, lab):
    request = spec({"one": {"env": ["A=b"]}})
    file = next(Path(request.directories[0]).iterdir())
    file.write_text("cdiVersion: 0.6.0\nkind: [unclosed\n")
    lines = refused(run.argv(request, place_of(lab, "debian-root"), TELLING))
    assert any(f"{file}:3" in line or f"{file}:2" in line for line in lines), lines


def test_every_unknown_device_is_reported_with_what_is_near(run, spec, lab):
    directories = spec({"gpu0": {"env": ["A=b"]}, "gpu1": {"env": ["A=b"]}}).directories
    request = Request(("lab.example/thing=gpu2", "lab.example/thong=gpu0", "nonsense"), directories)
    lines = refused(run.argv(request, place_of(lab, "debian-root"), TELLING))
    text = "\n".join(lines)
    for wanted in ("gpu2", "lab.example/thing=gpu", "lab.example/thong", "nonsense"):
        assert wanted in text


LACKS = [
    ({"deviceNodes": [{"path": "/dev/no-such-device"}]}, "/dev/no-such-device"),
    ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]}, "/etc/passwd"),
    ({"deviceNodes": [{"path": "/dev/null", "type": "b", "major": 1, "minor": 3}]}, "/dev/null"),
    ({"mounts": [{"hostPath": "/no/such/lib.so", "containerPath": "/usr/lib/lib.so"}]}, "/no/such/lib.so"),
    ({"mounts": [{"hostPath": "/etc/hostname", "containerPath": "/"}]}, "root"),
    ({"mounts": [{"hostPath": "/etc", "containerPath": "/etc/passwd"}]}, "/etc/passwd"),
    ({"mounts": [{"hostPath": "/etc/passwd", "containerPath": "/etc"}]}, "/etc"),
    ({"mounts": [{"hostPath": "/etc/passwd", "containerPath": "/etc/passwd/below"}]}, "/etc/passwd"),
    ({"mounts": [{"hostPath": "/etc/hostname", "containerPath": "/proc/no/such/place"}]}, "/proc/no"),
    ({"mounts": [{"hostPath": "dev", "containerPath": "/mnt", "type": "ext4"}]}, "ext4"),
]


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
@pytest.mark.parametrize("edits, word", LACKS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_the_spec_demands_and_cannot_be_is_named(launcher, spec, lab, edits, word, stage):
    request = spec({"one": edits})
    lines = refused(launcher.argv(request, place_of(lab, "debian-root"), TELLING, stage=stage))
    assert word in only(lines)
    if launcher.name == "run":
        assert request.directories[0] in lines[0], "where it was written"


def test_everything_that_is_missing_is_reported_at_once(run, spec, lab):
    missing = ["/no/such/a", "/no/such/b", "/no/such/c"]
    mounts = [{"hostPath": path, "containerPath": path} for path in missing]
    lines = refused(run.argv(spec({"one": {"mounts": mounts}}), place_of(lab, "debian-root"), TELLING))
    assert [next(path for path in missing if path in line) for line in lines] == missing


def test_what_a_hostile_spec_says_is_printed_harmlessly(launcher, run, spec, lab):
    path = "/no/such/\x1b[31m\n\x07lib\u202e.so"
    request = spec({"one": {"mounts": [{"hostPath": path, "containerPath": "/x"}]}})
    refused(run.argv(request, place_of(lab, "debian-root"), TELLING))


def test_an_unknown_hook_is_a_warning_or_with_the_option_a_refusal(run, spec, lab):
    hook = {"hookName": "createContainer", "path": "/opt/vendor/hook", "args": ["hook", "do-it"]}
    request, image = spec({"one": {"hooks": [hook]}}), place_of(lab, "debian-root")
    done = start(run.argv(request, image, TELLING))
    assert (done.returncode, done.stdout) == (0, b"begun\n")
    assert b"warning" in done.stderr
    assert b"/opt/vendor/hook" in done.stderr or b"hook" in done.stderr
    assert "hook" in only(refused(run.argv(request, image, TELLING, options=["--unknown-hooks", "fail"])))


@pytest.mark.parametrize(
    "options, word",
    [
        (["--bind", "/no/such/source"], "/no/such/source"),
        (["--bind", "/etc/passwd:/mnt:wo"], "/etc/passwd:/mnt:wo"),
        (["--bind", ":/mnt"], "--bind"),
        (["--bind", "/etc/passwd:/"], "root"),
        (["--bind", "/etc:/etc/passwd"], "/etc/passwd"),
        (["--env", "=value"], "--env"),
        (["--workdir", "/no/such/directory"], "/no/such/directory"),
        (["--workdir", "/etc/passwd"], "/etc/passwd"),
        (["--no-such-option"], "--no-such-option"),
        (["--stage", "sideways"], "sideways"),
        (["--writable-tmpfs", "--stage", "underlay"], "--writable-tmpfs"),
    ],
    ids=" ".join,
)
def test_an_option_that_cannot_be_is_named(run, small, lab, options, word):
    done = start(run.argv(small, place_of(lab, "debian-root"), TELLING, options=options))
    assert (done.returncode, done.stdout) == (125, b"")
    assert word in done.stderr.decode()


def test_several_bad_binds_are_reported_at_once(run, small, lab):
    options = ["--bind", "/no/such/a", "--bind", "/no/such/b"]
    lines = refused(run.argv(small, place_of(lab, "debian-root"), TELLING, options=options))
    assert len(lines) == 2


# User namespaces --------------------------------------------------------------------------------------------------

#: Limits the user namespaces below the one that it is root of, then runs the rest.
LIMITED = ["unshare", "--user", "--map-root-user", "sh", "-c", 'echo 0 >/proc/sys/user/$0 && exec "$@"']


@pytest.mark.parametrize("limit", ["max_user_namespaces", "max_mnt_namespaces"])
def test_a_limit_on_namespaces_is_named_with_the_setting(launcher, small, lab, limit):
    argv = launcher.argv(small, place_of(lab, "debian-root"), TELLING)
    line = only(refused([*LIMITED, limit, *argv]))
    assert limit in line if launcher.name == "run" or limit == "max_user_namespaces" else "namespace" in line


@pytest.fixture(scope="session")
def filtered(tmp_path_factory) -> Path:
    """A program: ``filtered ERRNO SYSCALL... -- COMMAND...`` runs a command in which system calls fail so."""
    path = tmp_path_factory.mktemp("filtered") / "filtered"
    path.write_text(f"#!{sys.executable}\n{FILTERED}")
    path.chmod(0o755)
    return path


FILTERED = """
import ctypes, os, struct, sys
at = sys.argv.index("--")
error, calls, command = int(sys.argv[1]), [int(word) for word in sys.argv[2:at]], sys.argv[at + 1:]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
program = [(LOAD, 0, 0, 0)]
for call in calls:
    program += [(EQUAL, 0, 1, call), (RETURN, 0, 0, ERRNO | error)]
program.append((RETURN, 0, 0, ALLOW))
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
header = struct.pack("@HP", len(program), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(header), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(command[0], command)
"""

EPERM, ENOSYS = 1, 38
#: x86_64.
UNSHARE, OPENAT2, MOUNT, PIVOT_ROOT = 272, 437, 165, 155


def without(filtered: Path, error: int, *calls: int) -> list:
    assert os.uname().machine == "x86_64", "the numbers are this machine's"
    return [filtered, str(error), *map(str, calls), "--"]


@pytest.mark.parametrize("error", [EPERM, ENOSYS])
def test_a_seccomp_filter_on_unshare_is_suspected(launcher, small, lab, filtered, error):
    argv = launcher.argv(small, place_of(lab, "debian-root"), TELLING)
    lines = refused([*without(filtered, error, UNSHARE), *argv])
    assert "namespace" in only(lines)


@pytest.mark.parametrize("call", [MOUNT, PIVOT_ROOT], ids=["mount", "pivot_root"])
def test_mounts_that_are_forbidden_are_named(launcher, small, lab, filtered, call):
    argv = launcher.argv(small, place_of(lab, "debian-root"), TELLING)
    done = start([*without(filtered, EPERM, call), *argv])
    assert (done.returncode, done.stdout) == (125, b"")
    assert any(word in done.stderr.decode() for word in ("not permitted", "forbid"))


@pytest.mark.parametrize("error", [EPERM, ENOSYS])
def test_a_kernel_without_openat2_serves_as_well(run, small, lab, filtered, error):
    """Linux before 5.6, and containers whose seccomp profile is older than the call."""
    argv = run.argv(small, place_of(lab, "links"), ["cat", "/opt/lab/link"])
    assert said(start([*without(filtered, error, OPENAT2), *argv])) == "from the host\n"
