"""C and Python compute the same key of a launch."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi_hpc.compiled.cache_key import CONFIGURATION_VARIABLES, Caller, Launch, cache_key, may_be_relative_file
from cdi_hpc.spec.request import is_file_request

ARGUMENTS = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)) | st.sampled_from("/.,:\udcff"), max_size=12
)
DEVICES = ARGUMENTS | st.sampled_from(["a/b=c", "./a.yaml", "/x/a.json", "a/b=c,../d.json", "a.yaml,b/c=d"])
DIRECTORIES = ARGUMENTS | st.sampled_from(["/etc/cdi", "cdi", "../cdi", "/a/./b"])
LAUNCHES = st.builds(
    Launch,
    image=st.just("/"),
    devices=st.lists(DEVICES, max_size=3).map(tuple),
    cdi_dirs=st.lists(DIRECTORIES, max_size=2).map(tuple),
    binds=st.lists(ARGUMENTS | st.just("/tmp:/x:ro"), max_size=2).map(tuple),
    writable_tmpfs=st.booleans(),
    contain=st.booleans(),
    stage=st.sampled_from(["auto", "overlay", "underlay"]),
    strict=st.booleans(),
    unknown_hooks=st.sampled_from(["warn", "fail"]),
    launcher=st.sampled_from(["embedded", "handoff"]),
    gres=st.lists(ARGUMENTS | st.just("gpu=0,1"), max_size=2).map(tuple),
    preflight=st.sampled_from(["auto", "fail", "warn", "off"]),
)
SPEC_PATHS = st.none() | st.lists(DIRECTORIES, max_size=3).map(":".join)


def words_of(launch: Launch) -> list[str]:
    words = ["--handoff"] * (launch.launcher == "handoff") + [f"--gres={gres}" for gres in launch.gres]
    words += [f"--device={device}" for device in launch.devices]
    words += [word for directory in launch.cdi_dirs for word in ("--cdi-dir", directory)]
    words += [f"--bind={bind}" for bind in launch.binds]
    words += (
        ["--writable-tmpfs"] * launch.writable_tmpfs + ["--contain"] * launch.contain + ["--strict"] * launch.strict
    )
    return [
        *words,
        "--stage",
        launch.stage,
        f"--unknown-hooks={launch.unknown_hooks}",
        "--preflight",
        launch.preflight,
        launch.image,
        "true",
    ]


CONFIGURED = st.dictionaries(st.sampled_from(CONFIGURATION_VARIABLES), st.sampled_from(["", "a", "/b", "=c", "\udcff"]))


@given(launch=LAUNCHES, spec_path=SPEC_PATHS, everybody=st.booleans(), configured=CONFIGURED)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_both_compute_the_same_key(launch, spec_path, everybody, configured, cache):
    given_otherwise = ("CDI_HPC_DIRS", *CONFIGURATION_VARIABLES)
    environ = {key: value for key, value in cache.environ().items() if key not in given_otherwise}
    environ.update(configured)
    if spec_path is not None:
        environ["CDI_HPC_DIRS"] = spec_path
    option = "--print-system-key" if everybody else "--print-key"
    caller = None if everybody else Caller.present()
    assert cache.key(words_of(launch), option, env=environ) == cache_key(launch, caller, os.getcwd(), environ)


@pytest.mark.root
@given(groups=st.lists(st.integers(0, 70000), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_supplementary_groups_are_in_the_key_in_any_order(groups, cache):
    caller = Caller(os.geteuid(), os.getegid(), tuple(groups))
    wanted = cache_key(Launch("/"), caller, os.getcwd(), cache.environ())
    assert cache.key(["/", "true"], extra_groups=groups) == wanted


@pytest.mark.parametrize("link", ["link", "link/.", "../{name}/link"])
def test_an_image_is_its_real_path(link, cache, tmp_path):
    (tmp_path / "image").mkdir()
    (tmp_path / "link").symlink_to("image")
    named = cache.key([link.format(name=tmp_path.name), "true"], cwd=tmp_path)
    assert named == cache.key([str(tmp_path / "image"), "true"], cwd="/")


@pytest.mark.parametrize(
    "words",
    [
        ["--env=A=b", "/", "true"],
        ["--workdir", "/x", "/", "true"],
        ["-v", "/", "true"],
        ["-qq", "/", "true"],
        ["--runner=native", "/", "true"],
        ["--stage=auto", "/", "--", "other", "command"],
        ["--stage", "underlay", "--stage", "auto", "--", "/", "true"],
    ],
)
def test_what_does_not_change_a_plan_does_not_change_the_key(words, cache):
    assert cache.key(words) == cache.key(["/", "true"])


@pytest.mark.parametrize(
    "words",
    [
        ["-d", "a/b=c"],
        ["--contain"],
        ["--writable-tmpfs"],
        ["--strict"],
        ["--stage=overlay"],
        ["--unknown-hooks=fail"],
        ["--bind=/x"],
        ["--cdi-dir=/x"],
    ],
)
def test_what_changes_a_plan_changes_the_key(words, cache):
    assert cache.key([*words, "/", "true"]) != cache.key(["/", "true"])


@pytest.mark.parametrize("words", [["-d", "./a.yaml"], ["--bind", "data"], ["--cdi-dir", "cdi"], ["-d", "/a,b.json"]])
def test_a_relative_path_is_another_one_elsewhere(words, cache, tmp_path):
    line = [*words, "/", "true"]
    assert cache.key(line, cwd=tmp_path) != cache.key(line, cwd="/")


@pytest.mark.parametrize("words", [["-d", "/a.yaml"], ["-d", "a/b=c"], ["--bind", "/data"], ["--cdi-dir", "/cdi"]])
def test_an_absolute_one_is_the_same_everywhere(words, cache, tmp_path):
    line = [*words, "/", "true"]
    assert cache.key(line, cwd=tmp_path) == cache.key(line, cwd="/")


@given(parts=st.lists(st.text(st.sampled_from("./a,= "), max_size=6) | st.sampled_from(["./x", "x.json"]), max_size=3))
def test_every_device_that_is_a_relative_file_is_taken_for_one(parts):
    device = ",".join(parts)
    wanted = [device, *(part.strip() for part in device.split(","))]
    relative = [part for part in wanted if is_file_request(part) and not part.startswith("/")]
    assert may_be_relative_file(device) or not relative


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["/"],
        ["/", "--"],
        ["--no-such-option", "/", "true"],
        ["--device"],
        ["--stage=best", "/", "true"],
        ["--unknown-hooks", "run", "/", "true"],
        ["--contain=yes", "/", "true"],
        ["--env", "=x", "/", "true"],
        ["-x", "/", "true"],
        ["--runner=python", "/", "true"],
        ["/no/such/image", "true"],
    ],
)
def test_what_the_runner_does_not_understand_it_leaves_to_the_front(words, cache):
    done = cache.start(words)
    asked = "".join(f" <{word}>" for word in ["run", "--runner=python", *words])
    assert done.stdout.splitlines()[0] == f"front{asked}", done.stderr


def test_whether_a_file_is_an_image_is_for_the_front_to_find_out(cache):
    done = cache.start(["/etc/passwd", "true"])
    assert done.stdout.splitlines()[0] == "front <run> <--compile-and-run> </etc/passwd> <true>", done.stderr


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--help"], "<run> <--help>"),
        (["-d", "x", "-h", "/", "true"], "<run> <--help>"),
        (["--version"], "<--version>"),
        (["/", "true", "--help"], "<run> <--compile-and-run> </> <true> <--help>"),
        (["-vd", "a/b=c", "/", "true"], "<run> <--compile-and-run> <-vd> <a/b=c> </> <true>"),
    ],
)
def test_the_front_is_asked_for_what_it_alone_does(words, asked, cache):
    assert cache.start(words).stdout.splitlines()[0] == f"front {asked}"
