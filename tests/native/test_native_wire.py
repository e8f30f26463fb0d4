"""Python writes plans and C reads them: the same bytes, or a refusal."""

from __future__ import annotations

import os
import subprocess
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi_hpc.compiled import wire
from cdi_hpc.errors import CdiError

KEY = "0123456789abcdef" * 4

NAMES = st.text(
    st.characters(blacklist_characters="\0/", blacklist_categories=("Cs",)) | st.sampled_from("\udc80\udcff= \n,:\\"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", ".."))
BELOW = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PLACES = BELOW.map(lambda path: f"/{path}")
TEXTS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=30)
U64 = st.integers(0, 2**64 - 1)
TIMES = st.integers(1 - 2**63, 2**63 - 1)
IDS = st.integers(0, 2**32 - 2)
MODES = st.integers(0, 0o7777)
FLAGS = st.lists(st.sampled_from(sorted(wire._FLAGS)), max_size=4).map(tuple)
PROPAGATIONS = st.sampled_from(sorted(wire._PROPAGATIONS))
WORDS = TEXTS.filter(bool)

HEAD_AND_ROOT = st.one_of(
    st.builds(wire.Bind, PLACES, st.just("/"), st.booleans(), FLAGS, PROPAGATIONS),
    st.builds(wire.Overlay, st.just("/"), BELOW, PLACES, st.booleans(), MODES, FLAGS),
    st.builds(wire.Mount, WORDS, TEXTS, st.just("/"), FLAGS, TEXTS),
)
LIMITS = st.from_regex(r"([0-9]{1,9}[kKmMgGtTpPeE%]?)?", fullmatch=True)
RECORDS = st.one_of(
    st.builds(wire.SameFile, PLACES, U64, U64, U64, TIMES, TIMES),
    st.builds(wire.SameDirectory, PLACES, U64, U64, TIMES, TIMES),
    st.builds(wire.SameNode, PLACES, U64, U64, U64, st.integers(0, 2**32 - 1), IDS, IDS),
    st.builds(wire.Absent, PLACES),
    st.builds(wire.SameLink, PLACES, WORDS),
    st.builds(wire.Warn, TEXTS),
    st.builds(wire.Note, TEXTS),
    st.builds(lambda name, value: wire.Env(f"{name}={value}"), NAMES.filter(lambda n: "=" not in n), TEXTS),
    st.builds(lambda name, value: wire.Default(f"{name}={value}"), NAMES.filter(lambda n: "=" not in n), TEXTS),
    st.builds(wire.Mkdir, PLACES, MODES),
    st.builds(wire.Mkfile, PLACES, MODES),
    st.builds(wire.Copy, BELOW, PLACES, MODES),
    st.builds(wire.Symlink, PLACES, WORDS),
    st.builds(wire.Bind, PLACES, PLACES, st.booleans(), FLAGS, PROPAGATIONS),
    st.builds(wire.BindStaged, BELOW, PLACES, FLAGS),
    st.builds(wire.Overlay, PLACES, BELOW, PLACES, st.just(value=False), MODES, FLAGS, LIMITS),
    st.builds(wire.Mount, WORDS, TEXTS, PLACES, FLAGS, TEXTS),
    st.builds(wire.Restrict, PLACES, FLAGS),
)
LAUNCHERS = st.builds(
    lambda program, words: (wire.Program(program), *words),
    PLACES,
    st.lists(
        st.one_of(
            st.builds(wire.Arg, TEXTS),
            st.builds(wire.KeepArg, st.integers(0, 2**31 - 2)),
            st.builds(wire.StageArg, TEXTS, BELOW, TEXTS),
        ),
        max_size=6,
    ),
)
IMAGES = st.builds(
    lambda path, place, offset, owned: (wire.SameFile(path, 1, 2, 3, 4, 5), wire.Squashfs(path, place, offset, owned)),
    PLACES,
    PLACES,
    U64,
    st.booleans(),
)
ENDINGS = st.builds(
    lambda place, moves: (wire.Place(place), *moves), PLACES, st.lists(st.builds(wire.Move, PLACES, PLACES))
)
PLANS = st.one_of(
    st.builds(
        lambda uid, gid, root, records: wire.WirePlan(KEY, uid, gid, "/a/stage", (root, *records)),
        IDS,
        IDS,
        HEAD_AND_ROOT,
        st.lists(RECORDS, max_size=12),
    ),
    st.builds(
        lambda launcher, image, peers, root, steps, ending: wire.WirePlan(
            KEY, 0, 0, "/a/stage", (*launcher, *image, *peers, root, *steps, *ending)
        ),
        st.just(()) | LAUNCHERS,
        st.just(()) | IMAGES,
        st.lists(st.builds(wire.Peers, PLACES, TEXTS, TEXTS, st.just(KEY)), max_size=1),
        HEAD_AND_ROOT,
        st.lists(RECORDS, max_size=3),
        ENDINGS,
    ),
    st.builds(lambda launcher: wire.WirePlan(KEY, 1, 2, "/a/stage", launcher), LAUNCHERS),
)

ORDERLY = wire.encode(
    wire.WirePlan(KEY, 1000, 100, "/run/stage", (wire.Env("A=b"), wire.Bind("/images/a", "/"), wire.Mkdir("/dev/x")))
)
FOR_A_LAUNCHER = wire.encode(
    wire.WirePlan(
        KEY,
        1000,
        100,
        "/run/stage",
        (
            wire.SameFile("/a.sqfs", 1, 2, 3, 4, 5),
            wire.Default("A=b"),
            wire.Program("/bin/ch-run"),
            wire.Arg("-b"),
            wire.KeepArg(1),
            wire.StageArg("--overlay=", "layer", ":ro"),
            wire.Squashfs("/a.sqfs", "/image"),
            wire.Bind("/image", "/"),
            wire.Place("/image"),
            wire.Move("/dev", "/dev"),
        ),
    )
)

per_process = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    return tmp_path_factory.mktemp("plans") / "a.plan"


@given(plan=PLANS)
@per_process
def test_what_python_writes_c_reads_byte_for_byte(plan, plan_file, dump):
    data = wire.encode(plan)
    plan_file.write_bytes(data)
    done = dump(plan_file)
    assert done.stderr == b""
    assert done.stdout == data


HOSTILE_PLACES = st.text(st.sampled_from("/.\0\na"), max_size=8) | PLACES | st.just("/" + "a/" * 2100)


@given(
    steps=st.lists(
        st.one_of(
            st.builds(wire.Mkdir, HOSTILE_PLACES, st.integers(-1, 0o20000)),
            st.builds(wire.Symlink, HOSTILE_PLACES, st.text(st.sampled_from("\0a"), max_size=2)),
            st.builds(wire.BindStaged, HOSTILE_PLACES, HOSTILE_PLACES, FLAGS),
            st.builds(wire.Bind, HOSTILE_PLACES, HOSTILE_PLACES, st.booleans(), st.just(("ro,",)) | FLAGS),
            st.builds(wire.Overlay, HOSTILE_PLACES, HOSTILE_PLACES, HOSTILE_PLACES, st.booleans()),
            st.builds(wire.Env, st.text(st.sampled_from("=A\0"), max_size=4)),
            st.builds(wire.Absent, HOSTILE_PLACES),
            st.builds(wire.Program, HOSTILE_PLACES),
            st.builds(wire.KeepArg, st.integers(-1, 2**31)),
            st.builds(wire.StageArg, HOSTILE_PLACES, HOSTILE_PLACES, HOSTILE_PLACES),
            st.builds(wire.Squashfs, HOSTILE_PLACES, HOSTILE_PLACES),
            st.builds(wire.Place, HOSTILE_PLACES),
            st.builds(wire.Move, HOSTILE_PLACES, HOSTILE_PLACES),
        ),
        max_size=3,
    ),
    stage=st.none() | st.just("/run/stage"),
)
@per_process
def test_what_the_writer_does_not_refuse_the_reader_does_not_either(steps, stage, plan_file, dump):
    try:
        data = wire.encode(wire.WirePlan(KEY, 0, 0, stage, (wire.Bind("/", "/"), *steps)))
    except CdiError:
        return
    plan_file.write_bytes(data)
    assert dump(plan_file).stdout == data


@given(
    orderly=st.sampled_from([ORDERLY, FOR_A_LAUNCHER]),
    at=st.integers(0, len(FOR_A_LAUNCHER) - 1),
    replaced=st.integers(0, 6),
    new=st.binary(max_size=6) | st.sampled_from([b"\0", b"/", b"/../", b"\0end\0", b"-1", b"key\0"]),
)
@settings(per_process, max_examples=300)
def test_damaged_bytes_are_refused_or_mean_themselves(orderly, at, replaced, new, plan_file, dump):
    """A plan has one encoding: whatever is accepted is written again as it was."""
    data = orderly[:at] + new + orderly[at + replaced :]
    plan_file.write_bytes(data)
    done = dump(plan_file)
    assert (done.returncode == 0) == (done.stdout == data)
    assert (done.returncode == 1) == (done.stderr != b"")


def test_the_units_hold_under_sanitizers(programs):
    done = subprocess.run([programs.units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "units: all passed\n"), done.stderr


@pytest.mark.parametrize("whole", [ORDERLY, FOR_A_LAUNCHER], ids=["embedded", "for a launcher"])
def test_every_truncation_is_refused(whole, plan_file, dump):
    for size in range(len(whole)):
        plan_file.write_bytes(whole[:size])
        done = dump(plan_file)
        assert (done.returncode, done.stdout) == (1, b""), f"the first {size} bytes were accepted"


def fields_of(*words: str) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)


HEADER = fields_of("cdi-hpc-plan", "2")
HEAD = HEADER + fields_of("key", KEY, "owner", "1000", "100")
ROOT = fields_of("bind", "/", "/", "1", "", "")
STAGE = fields_of("stage", "/s")
PROGRAM = fields_of("program", "/usr/bin/ch-run")
IMAGE = fields_of("file", "/a.sqfs", "1", "2", "3", "4", "5")
SQUASHFS = fields_of("squashfs", "/a.sqfs", "/run/user/1/cdi-hpc/image", "0", "0")
PLACE = fields_of("place", "/images/a")
END = fields_of("end")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (fields_of("cdi-hpc-plan", "1") + HEAD[len(HEADER) :] + ROOT + END, "does not begin as a plan of version 2"),
        (HEADER + fields_of("owner", "1", "1"), "key is the first record"),
        (HEADER + fields_of("key", KEY.upper(), "owner", "1", "1") + ROOT + END, "field 1 of record 'key' can't be"),
        (HEADER + fields_of("key", KEY) + ROOT + END, "owner is the second record"),
        (HEAD + fields_of("owner", "0", "0") + ROOT + END, "owner is the second record"),
        (HEAD + fields_of("key", KEY) + ROOT + END, "key is the first record"),
        (HEAD + ROOT + STAGE + END, "stage is the third record"),
        (HEAD + STAGE + STAGE + ROOT + END, "stage is the third record"),
        (HEAD + fields_of("rmdir", "/x") + END, "no record is called 'rmdir'"),
        (HEAD + fields_of("", "") + END, "no record is called ''"),
        (HEAD + END, "no step makes the root"),
        (HEAD + fields_of("mkdir", "/x", "493") + ROOT + END, "the first step must make the root"),
        (HEAD + fields_of("restrict", "/", "ro") + ROOT + END, "the first step must make the root"),
        (HEAD + ROOT + ROOT + END, "the root directory is made once"),
        (HEAD + ROOT + fields_of("copy", "a", "/x", "420") + END, "needs a stage"),
        (HEAD + ROOT + END + END, "something follows the last record"),
        (HEAD + ROOT + END + b"x", "something follows the last record"),
        (HEAD + ROOT, "ends without its last record"),
        (HEAD + fields_of("bind", "/", "/", "1") + END, "field 4 of record 'bind' can't be 'end'"),
        (HEAD + fields_of("bind", "/", "/", "1", ""), "ends inside of record 'bind'"),
        (HEAD + fields_of("bind", "a", "/", "1", "", "") + END, "field 1 of record 'bind' can't be 'a'"),
        (HEAD + fields_of("bind", "/", "/", "2", "", "") + END, "field 3 of record 'bind' can't be '2'"),
        (HEAD + fields_of("bind", "/", "/", "1", "rw", "") + END, "field 4 of record 'bind' can't be 'rw'"),
        (HEAD + fields_of("bind", "/", "/", "1", "", "rrslave") + END, "field 5 of record 'bind' can't be 'rrslave'"),
        (HEAD + ROOT + fields_of("mkdir", "/a/../b", "493") + END, "field 1 of record 'mkdir' can't be '/a/../b'"),
        (HEAD + ROOT + fields_of("mkdir", "/a//b", "493") + END, "field 1 of record 'mkdir' can't be '/a//b'"),
        (HEAD + ROOT + fields_of("mkdir", "/a/", "493") + END, "field 1 of record 'mkdir' can't be '/a/'"),
        (HEAD + ROOT + fields_of("mkdir", "/./a", "493") + END, "field 1 of record 'mkdir' can't be '/./a'"),
        (HEAD + ROOT + fields_of("mkdir", "/a", "4096") + END, "field 2 of record 'mkdir' can't be '4096'"),
        (HEAD + ROOT + fields_of("mkdir", "/a", "0493") + END, "field 2 of record 'mkdir' can't be '0493'"),
        (HEAD + ROOT + fields_of("mkdir", "/a", "+1") + END, "field 2 of record 'mkdir' can't be '+1'"),
        (HEAD + ROOT + fields_of("mkdir", "/a", " 1") + END, "field 2 of record 'mkdir' can't be ' 1'"),
        (HEAD + ROOT + fields_of("mkdir", "/a", "") + END, "field 2 of record 'mkdir' can't be ''"),
        (HEAD + ROOT + fields_of("env", "A") + END, "field 1 of record 'env' can't be 'A'"),
        (HEAD + ROOT + fields_of("env", "=A") + END, "field 1 of record 'env' can't be '=A'"),
        (HEADER + fields_of("key", KEY, "owner", "4294967295", "0"), "field 1 of record 'owner'"),
        (HEAD + fields_of("file", "/a", str(2**64), "1", "1", "1", "1"), f"can't be '{2**64}'"),
        (HEAD + fields_of("file", "/a", "1", "1", "1", "-0", "1"), "can't be '-0'"),
        (HEAD + fields_of("file", "/a", "1", "1", "1", str(2**63), "1"), f"can't be '{2**63}'"),
        (HEAD + fields_of("link", "/a", ""), "field 2 of record 'link' can't be ''"),
        (HEAD + STAGE + fields_of("overlay", "/", "../x", "/", "0", "0", "", ""), "field 2 of record 'overlay'"),
        (HEAD + STAGE + fields_of("overlay", "/", "x", "/", "1", "0", "", "1,uid=0"), "field 7 of record 'overlay'"),
        (HEAD + STAGE + ROOT + fields_of("overlay", "/x", "a", "/", "1", "0", "", ""), "only the root directory can"),
        (HEAD + ROOT + fields_of("default", "A") + END, "field 1 of record 'default' can't be 'A'"),
        (HEAD + fields_of("program", "ch-run") + END, "field 1 of record 'program' can't be 'ch-run'"),
        (HEAD + PROGRAM + PROGRAM + END, "record 'program': a plan has one"),
        (HEAD + ROOT + PROGRAM + END, "the program is the host's, and the root directory would not be"),
        (HEAD + fields_of("arg", "x") + PROGRAM + END, "record 'arg': it is a word for a program that has not been"),
        (HEAD + fields_of("keep", "0") + PROGRAM + END, "record 'keep': it is a word for a program that has not been"),
        (HEAD + PROGRAM + fields_of("keep", "2147483647") + END, "field 1 of record 'keep' can't be '2147483647'"),
        (HEAD + PROGRAM + fields_of("keep", "-1") + END, "field 1 of record 'keep' can't be '-1'"),
        (HEAD + PROGRAM + fields_of("keep", "") + END, "field 1 of record 'keep' can't be ''"),
        (HEAD + STAGE + fields_of("stagearg", "", "a", "") + PROGRAM + END, "record 'stagearg': it is a word for a"),
        (HEAD + PROGRAM + fields_of("stagearg", "", "a", "") + END, "record 'stagearg': it needs a stage"),
        (HEAD + STAGE + PROGRAM + fields_of("stagearg", "", "../a", "") + END, "field 2 of record 'stagearg' can't be"),
        (HEAD + STAGE + PROGRAM + fields_of("stagearg", "", "/a", "") + END, "field 2 of record 'stagearg' can't be"),
        (HEAD + IMAGE + SQUASHFS + END, "no step makes the root directory"),
        (HEAD + IMAGE + SQUASHFS + PROGRAM + END, "no step makes the root directory"),
        (HEAD + IMAGE + SQUASHFS + SQUASHFS + ROOT + END, "record 'squashfs': a plan has one"),
        (HEAD + IMAGE + ROOT + SQUASHFS + END, "record 'squashfs': it comes before the steps"),
        (HEAD + SQUASHFS + ROOT + END, "no file record tells which file squashfs means"),
        (
            HEAD + fields_of("squashfs", "/a.sqfs", "/x/../y", "0", "0") + ROOT + END,
            "field 2 of record 'squashfs' can't be",
        ),
        (HEAD + fields_of("squashfs", "/a.sqfs", "/", "0", "0") + ROOT + END, "field 2 of record 'squashfs' can't be"),
        (
            HEAD + fields_of("squashfs", "/a.sqfs", "/x", "-1", "0") + ROOT + END,
            "field 3 of record 'squashfs' can't be",
        ),
        (HEAD + PLACE + ROOT + END, "record 'place': there is no tree yet"),
        (HEAD + ROOT + PLACE + PLACE + END, "record 'place': a plan has one"),
        (HEAD + ROOT + fields_of("place", "/") + END, "field 1 of record 'place' can't be '/'"),
        (HEAD + ROOT + fields_of("place", "a") + END, "field 1 of record 'place' can't be 'a'"),
        (HEAD + ROOT + PLACE + fields_of("mkdir", "/a", "493") + END, "it comes after the tree was put at its place"),
        (HEAD + ROOT + fields_of("peers", "/x", "", "", KEY) + END, "record 'peers': it comes before the steps"),
        (HEAD + fields_of("peers", "x", "", "", KEY) + ROOT + END, "field 1 of record 'peers' can't be 'x'"),
        (HEAD + fields_of("peers", "/x", "", "", "0") + ROOT + END, "field 4 of record 'peers' can't be '0'"),
        (HEAD + 2 * fields_of("peers", "/x", "", "", KEY) + ROOT + END, "record 'peers': a plan has one"),
        (HEAD + ROOT + fields_of("move", "/dev", "/dev") + END, "record 'move': the tree has not been put at a place"),
        (HEAD + ROOT + PLACE + fields_of("move", "/", "/dev") + END, "field 1 of record 'move' can't be '/'"),
        (HEAD + ROOT + PLACE + fields_of("move", "/dev", "/") + END, "field 2 of record 'move' can't be '/'"),
        (HEAD + ROOT + PLACE + fields_of("move", "/dev"), "ends inside of record 'move'"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused_with_the_reason(data, complaint, plan_file, dump):
    plan_file.write_bytes(data)
    done = dump(plan_file)
    assert done.returncode == 1
    assert complaint in done.stderr.decode()


def test_a_file_that_is_too_long_is_refused_unread(plan_file, dump):
    with plan_file.open("wb") as stream:
        stream.write(ORDERLY)
        stream.truncate(wire.MAX_BYTES + 1)
    assert b"67108865 bytes" in dump(plan_file).stderr


@pytest.mark.parametrize("kind", ["directory", "FIFO", "empty file"])
def test_what_is_no_regular_file_is_refused(kind, tmp_path, dump):
    path = tmp_path / "odd"
    {"directory": path.mkdir, "FIFO": lambda: os.mkfifo(path), "empty file": path.touch}[kind]()
    assert dump(path).returncode == 1


def test_a_plan_of_the_greatest_size_is_read(tmp_path, dump):
    filler = wire.Warn("x" * 1000)
    plan = wire.WirePlan(KEY, 0, 0, None, (wire.Bind("/", "/"), *[filler] * 66_000))
    path = tmp_path / "big"
    data = wire.encode(plan)
    path.write_bytes(data)
    assert wire.MAX_BYTES - len(data) < 1 << 20
    assert dump(path).stdout == data


def test_a_longer_one_is_not_written():
    with pytest.raises(CdiError, match="more than 67108864"):
        wire.encode(wire.WirePlan(KEY, 0, 0, None, (wire.Bind("/", "/"), *[wire.Warn("x" * 1000)] * 67_000)))


def test_a_message_is_one_line_whatever_is_in_it(plan_file, dump):
    plan = wire.WirePlan(KEY, 0, 0, None, (wire.Bind("/", "/"), wire.Warn("a\0b\x1b[1m\ud800")))
    plan_file.write_bytes(wire.encode(plan))
    assert b"warn\0a\\x00b\\x1b[1m\\ud800\0" in dump(plan_file).stdout


def test_every_kind_of_record_is_tried_above():
    """A record that is added without a generator here would go untested."""
    generated = {
        "SameFile",
        "SameDirectory",
        "SameNode",
        "Absent",
        "SameLink",
        "Warn",
        "Note",
        "Env",
        "Mkdir",
        "Mkfile",
    }
    generated |= {"Copy", "Symlink", "Bind", "BindStaged", "Overlay", "Mount", "Restrict"}
    generated |= {"Default", "Program", "Arg", "KeepArg", "StageArg", "Squashfs", "Peers", "Place", "Move"}
    written = {kind.__name__: kind for kind in vars(wire).values() if isinstance(kind, type) and hasattr(kind, "name")}
    assert set(written) == generated
    assert {field.name for kind in written.values() for field in fields(kind)} <= set(wire._CHECKS)
