"""Command lines of launchers: what they mean, and that C and Python read them alike."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi_hpc.backend import Invocation, Option, Profile, Subcommand
from cdi_hpc.compiled.cache_key import PATH_VARIABLES, Caller, LauncherLaunch, cache_key
from cdi_hpc.errors import CdiError
from cdi_hpc.launch import profile as profiles
from cdi_hpc.launch.launcher_options import Help, Leave, Reading, may_be_ours, read

#: Like ch-run: some names begin alike, with ours and without.
GETOPT_OPTIONS = (
    Option(("-b", "--bind"), "required", "plan"),
    Option(("-c", "--cd"), "required", "keep"),
    Option(("--color",), "optional", "keep"),
    Option(("--set-env",), "optional", "keep"),
    Option(("-t", "--private-tmp"), "none", "plan"),
    Option(("-v", "--verbose"), "none", "keep"),
    Option(("-W", "--write-fake"), "optional", "plan"),
    Option(("-?", "--help"), "none", "help"),
    Option(("-V", "--version"), "none", "leave"),
    Option(("--feature",), "required", "leave"),
    Option(("-d", "--cdi"), "optional", "device"),
    Option(("--device", "--lock"), "required", "device"),
    Option(("--cdi-dirs",), "required", "cdi-dirs"),
    Option(("--fold",), "optional", "switch"),
)

PFLAG_OPTIONS = (
    Option(("-B", "--bind"), "required", "plan"),
    Option(("-e", "--cleanenv"), "none", "plan"),
    Option(("--env",), "required", "keep"),
    Option(("-u", "--userns"), "none", "plan"),
    Option(("-h", "--help"), "none", "help"),
    Option(("--style",), "optional", "plan"),
    Option(("--device", "--lock"), "required", "device"),
    Option(("--cdi",), "optional", "device"),
    Option(("--cdi-dirs",), "required", "cdi-dirs"),
)

#: Like apptainer.
COMMON_OPTIONS = (
    Option(("-d", "--debug"), "none", "keep"),
    Option(("-c", "--config"), "required", "plan"),
    Option(("-h", "--help"), "none", "help"),
    Option(("--version",), "none", "leave"),
)

VARIABLES = ("LAB_STORAGE", "LAB_PREFIX_*")

#: It shows nothing of its working directory, as ch-run.
GETOPT = Profile(
    "lab",
    "",
    "getopt",
    GETOPT_OPTIONS,
    variables=VARIABLES,
    capabilities=((PATH_VARIABLES, "LAB_STORAGE,LAB_PREFIX_B"),),
    help="ours\n",
)
PFLAG = Profile(
    "lab",
    "",
    "pflag",
    COMMON_OPTIONS,
    (Subcommand(("exec",), PFLAG_OPTIONS), Subcommand(("instance", "start"), PFLAG_OPTIONS)),
    VARIABLES,
    (("cdi-dirs-variable", "LAB_CDI_DIRS"), ("squashfs", "yes")),
    "ours\n",
    ("/etc/passwd", "/no/such/file"),
)


def option_words(options: Sequence[Option]) -> st.SearchStrategy[str]:
    names = [name for option in options for name in option.names]
    letters = [name[1] for name in names if len(name) == 2]
    abbreviated = st.sampled_from(names).flatmap(lambda name: st.integers(2, len(name)).map(lambda n: name[:n]))
    value = st.sampled_from(
        ["", "x", "false", "T", "/a/b", "a/b=c", "=", "v", "-v", "é", "a:b,c", "a.lock", "=.lock", "./=.lock"]
    )
    long = st.tuples(st.sampled_from(names) | abbreviated, value).map("=".join)
    bundle = st.tuples(st.lists(st.sampled_from(letters), min_size=1, max_size=4).map("".join), st.just("") | value)
    return st.sampled_from(names) | abbreviated | long | bundle.map(lambda parts: "-" + "".join(parts))


OTHER_WORDS = st.sampled_from(
    [
        "--",
        "-",
        "",
        "image",
        "/",
        "/tmp/../tmp",
        "echo",
        "exec",
        "instance",
        "start",
        "a/b=c",
        "./x.yaml",
        "-x",
        "x.lock",
    ]
)


def lines(options: Sequence[Option], subcommands: Sequence[Subcommand] = ()) -> st.SearchStrategy[list[str]]:
    words = st.lists(option_words(options) | OTHER_WORDS, max_size=7)
    if not subcommands:
        return words
    begun = st.sampled_from(subcommands).flatmap(
        lambda each: st.tuples(
            st.lists(option_words(options), max_size=1),
            st.just([*each.words]),
            st.lists(option_words(each.options) | OTHER_WORDS, max_size=6),
        ).map(lambda parts: [word for part in parts for word in part])
    )
    return words | begun


def read_by_c(
    program: os.PathLike[str],
    profile: os.PathLike[str],
    asked: Sequence[Sequence[str]],
    *,
    in_order: bool = False,
    devices: str = "",
    by_default: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[object]:
    """What the shim makes of each line: "refused", ("leave" or "help", words), or the parts of a launch."""
    wish = (1 if by_default else 2) if devices else 0
    given = "".join(f"{len(words)}\0" + "".join(f"{word}\0" for word in words) for words in asked)
    argv = [program, profile, f"{in_order:d}", f"{wish}", devices]
    env = {**environ, "ASAN_OPTIONS": "detect_leaks=1"}
    done = subprocess.run(argv, input=os.fsencode(given), capture_output=True, check=False, env=env, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    fields = iter(os.fsdecode(done.stdout).split("\0")[:-1])

    def words() -> tuple[str, ...]:
        return tuple(next(fields) for _ in range(int(next(fields))))

    for kind in fields:
        if kind in ("leave", "help"):
            yield kind, words()
        elif kind == "launch":
            key, canonical, subcommand = next(fields), words(), words()
            given_ = tuple((int(next(fields)), next(fields), next(fields)) for _ in range(int(next(fields))))
            yield key, canonical, subcommand, given_, words()
        else:
            yield kind


def read_by_python(
    profile: Profile,
    words: Sequence[str],
    *,
    in_order: bool = False,
    devices: str = "",
    by_default: bool = False,
    environ: Mapping[str, str],
) -> object:
    """The same of our own."""
    try:
        reading: Reading = read(words, profile, in_order=in_order, wanted=bool(devices), by_default=by_default)
    except CdiError:
        return "refused"
    if isinstance(reading, Leave):
        return "leave", reading.words
    if isinstance(reading, Help):
        return "help", reading.words
    of_default = by_default and bool(devices) and not reading.devices
    launch = LauncherLaunch(profile, reading, reading.devices or (devices,), of_default)
    given_ = tuple(
        (each.count, each.option.names[0], "" if each.value is None else f"={each.value}") for each in reading.given
    )
    key = cache_key(launch, Caller.present(), os.getcwd(), environ)
    return key, reading.words[: reading.image_index + 1], reading.subcommand, given_, reading.command


@pytest.fixture(scope="session")
def launcher(tmp_path_factory) -> str:
    """A file that a profile can be of."""
    path = tmp_path_factory.mktemp("launcher") / "lab-run"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="session")
def kept(launcher, tmp_path_factory):
    """Both profiles with their files, by style."""
    top = tmp_path_factory.mktemp("profiles")
    found = {}
    for plain in (GETOPT, PFLAG):
        profile = profiles.checked(plain, "lab", launcher)
        profiles.write(profile, str(top / plain.style))
        found[plain.style] = (profile, top / plain.style)
    return found


ENVIRONMENTS = st.fixed_dictionaries(
    {},
    optional={
        "LAB_STORAGE": st.sampled_from(["", "x", "/x", "a=b"]),
        "LAB_PREFIX_B": st.sampled_from(["", "/y"]),
        "LAB_PREFIX_a": st.sampled_from(["1"]),
        "LAB_CDI_DIRS": st.sampled_from(["", "/a:/b", "a:/b"]),
        "CDI_HPC_DIRS": st.sampled_from(["", "/c", "c"]),
        "LAB_PREFIX": st.just("no pattern matches this"),
    },
)


def agree(programs, kept, style, asked, variables, **how):
    profile, path = kept[style]
    how["environ"] = {**os.environ, **variables}
    for words, got in zip(asked, read_by_c(programs.reading, path, asked, **how)):
        assert got == read_by_python(profile, words, **how), words


@given(
    asked=st.lists(lines(GETOPT_OPTIONS), min_size=1, max_size=20),
    in_order=st.booleans(),
    devices=st.sampled_from(["", "a/b", "./x"]),
    by_default=st.booleans(),
    variables=ENVIRONMENTS,
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_c_and_python_read_a_getopt_command_line_alike(programs, kept, asked, in_order, devices, by_default, variables):
    how = {"in_order": in_order, "devices": devices, "by_default": by_default}
    agree(programs, kept, "getopt", asked, variables, **how)


@given(
    asked=st.lists(lines((*COMMON_OPTIONS, *PFLAG_OPTIONS), PFLAG.subcommands), min_size=1, max_size=20),
    devices=st.sampled_from(["", "a/b", "./x"]),
    by_default=st.booleans(),
    variables=ENVIRONMENTS,
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_c_and_python_read_a_pflag_command_line_alike(programs, kept, asked, devices, by_default, variables):
    agree(programs, kept, "pflag", asked, variables, devices=devices, by_default=by_default)


def launched(profile: Profile, *words: str, **how: bool) -> Invocation:
    reading = read(words, profile, **how)
    assert isinstance(reading, Invocation), reading
    return reading


# getopt ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, words, command",
    [
        ("-dK I c", "-d I c", ("c",)),
        ("--device K I c", "--device I c", ("c",)),
        ("--device=K I -- c -v", "--device I c -v", ("c", "-v")),
        ("I --device=K c -v x", "--device -v I c x", ("c", "x")),
        ("-tvdK I", "-t -v -d I", ()),
        ("-vb/x I -dK", "-v -b/x -d I", ()),
        ("-vb /x I -dK", "-v -b /x -d I", ()),
        ("-b -- -dK I", "-b -- -d I", ()),
        ("--verb --bin=/x -dK I", "--verb --bin=/x -d I", ()),
        ("--de K I", "--device I", ()),
        ("--cdi-d /x --cdi I", "--cdi-dirs -d I", ()),
        ("-dK -- -b", "-d -b", ()),
        ("-d I", "-d I", ()),
        ("-dK - c", "-d - c", ("c",)),
        ("--fold -dK I", "--fold -d I", ()),
    ],
)
def test_getopt_options_are_found_anywhere_and_put_in_order(line, words, command):
    invocation = launched(GETOPT, *line.split())
    assert invocation.words == tuple(words.split())
    assert invocation.command == command
    assert invocation.words[invocation.image_index] == invocation.image
    for each in invocation.given:
        assert each.index + each.count <= invocation.image_index


def test_with_posixly_correct_options_end_at_the_image():
    invocation = launched(GETOPT, "-dK", "I", "-v", "c", in_order=True)
    assert invocation.command == ("-v", "c")


@pytest.mark.parametrize("word", ["--c", "--co", "--p"])
def test_an_abbreviation_of_the_launchers_own_is_its_own_whatever_ours_begin_with(word):
    # --c begins --cd and --color, and --cdi, which only we have.
    reading = read(["-dK", word, "I"], GETOPT) if word != "--c" else None
    if reading is None:
        with pytest.raises(CdiError, match="may be one of several"):
            read(["-dK", word, "I"], GETOPT)
    else:
        assert isinstance(reading, Invocation)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "I c",
        "-v I c",
        "-V -dK I",
        "--version -dK I",
        "-tvV -dK I",
        "--feature cdi -dK I",
        "--nonsense -dK I",
        "-x -dK I",
        "I c -- -dK",
        "--bind",
        "--verbose=yes I",
        "-b -dK",
    ],
)
def test_a_getopt_launcher_is_left_alone_where_it_is_certain_that_no_device_is_wanted(line):
    assert read(line.split(), GETOPT) == Leave(tuple(line.split()))


@pytest.mark.parametrize(
    "line, words",
    [
        ("--cdi-dirs /x I c", "I c"),
        ("--cdi-dirs=/x", ""),
        ("-v --cdi-d /x -b /y I -t c", "-v -b /y -t I c"),
        ("I --cdi-dirs /x -- -dK", "-- I -dK"),
        ("--fold=x --cdi-dirs /x -- -b c", "-- -b c"),
        ("-v -dK --version I", "-v --version I"),
        ("-tvdK I --feature=cdi -dL c", "-t -v I --feature=cdi -dL c"),
        ("--cdi-dirs /x -vtV I", "-vtV I"),
        ("--cdi-dirs /x -vx I c", "-vx I c"),
        ("I --cdi-dirs /x --nonsense c", "I --nonsense c"),
        ("--cdi-dirs /x I -b", "I -b"),
    ],
)
def test_a_getopt_launcher_is_left_alone_without_options_that_it_may_not_know(line, words):
    assert read(line.split(), GETOPT) == Leave(tuple(words.split()))


@pytest.mark.parametrize(
    "line, said",
    [
        ("-dK", "no image was named"),
        ("-dK --", "no image was named"),
        ("-dK --nonsense I", "option --nonsense: is unknown to"),
        ("-dK --bnid=x I", "did you mean --bind?"),
        ("-dK -x I", "option -x: is unknown to"),
        ("-dK --verbose=yes I", "takes no value, but has 'yes'"),
        ("-dK I --bind", "needs a value"),
        ("-dK I -b", "needs a value"),
        ("--device= I", r"option --device: has an empty value \(name a device"),
        ("--cdi= I", r"option --cdi: has an empty value \(name a device"),
        ("--cdi-dirs= -dK I", r"option --cdi-dirs: has an empty value \(name a directory"),
    ],
)
def test_where_devices_are_wanted_what_is_wrong_is_said_and_nothing_started(line, said):
    with pytest.raises(CdiError, match=said):
        read(line.split(), GETOPT)


@pytest.mark.parametrize(
    "line, words",
    [
        ("--help", "--help"),
        ("-v --help I", "-v --help I"),
        ("-dK -v --help I", "--help"),
        ("-dK -v? I", "-?"),
    ],
)
def test_help_is_asked_of_the_launcher_without_what_only_we_understand(line, words):
    assert read(line.split(), GETOPT) == Help(tuple(words.split()))


def test_values_of_ours_are_kept_as_they_are():
    invocation = launched(GETOPT, "-dA,B", "--cdi", "--device", "./c.json", "--cdi-dirs=/x:/y,z", "I")
    assert invocation.devices == ("A,B", "", "./c.json")
    assert invocation.cdi_dirs == ("/x", "/y", "z")


def test_devices_may_be_wanted_by_the_environment():
    invocation = launched(GETOPT, "-v", "I", "c", wanted=True)
    assert (invocation.devices, invocation.image) == ((), "I")
    assert read(["-v"], GETOPT, wanted=True) == Leave(("-v",))  # the launcher says that it wants an image
    assert read(["--version"], GETOPT, wanted=True) == Leave(("--version",))
    with pytest.raises(CdiError):
        read(["--nonsense", "I"], GETOPT, wanted=True)


# pflag ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, words, command",
    [
        ("exec --device K I c -e", "exec --device I c -e", ("c", "-e")),
        ("-d exec -eu --device=K I", "-d exec -e -u --device I", ()),
        ("-c /x exec --device K -B=/x I", "-c /x exec --device -B=/x I", ()),
        ("exec -B/x --device K -- I -- c", "exec -B/x --device I -- c", ("--", "c")),
        ("exec -eB /x --cdi I c", "exec -e -B /x --cdi I c", ("c",)),
        ("exec --cleanenv=false --cdi=K I", "exec --cleanenv=false --cdi I", ()),
        ("exec --help=false --cdi=K I", "exec --help=false --cdi I", ()),
        ("instance start --device K I name", "instance start --device I name", ("name",)),
        ("exec --style -e --device K I", "exec --style -e --device I", ()),
    ],
)
def test_pflag_options_come_before_the_image(line, words, command):
    invocation = launched(PFLAG, *line.split())
    assert invocation.words == tuple(words.split())
    assert invocation.command == command
    begin = invocation.subcommand_index
    assert invocation.words[begin : begin + len(invocation.subcommand)] == invocation.subcommand


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-d",
        "version",
        "--version exec --device K I",
        "pull docker://x",
        "instance list",
        "instance",
        "exec I c --device K",
        "exec --dev K I",
        "-- exec --device K I",
        "exec --cleanenv=maybe --device K I",
        "exec -- --device K",
    ],
)
def test_a_pflag_launcher_is_left_alone_where_it_is_certain_that_no_device_is_wanted(line):
    assert read(line.split(), PFLAG) == Leave(tuple(line.split()))


@pytest.mark.parametrize(
    "line, words",
    [
        ("-d exec --cdi-dirs /x -e I c --cdi-dirs y", "-d exec -e I c --cdi-dirs y"),
        ("instance start -eu --cdi-dirs=/x I", "instance start -e -u I"),
        ("exec --cdi-dirs /x -- I -- c", "exec -- I -- c"),
        ("exec --cdi-dirs /x --nonsense -e I c", "exec --nonsense -e I c"),
        ("exec --cdi-dirs /x -ex I", "exec -ex I"),
        ("exec --cdi-dirs /x", "exec"),
    ],
)
def test_a_pflag_launcher_is_left_alone_without_options_that_it_may_not_know(line, words):
    assert read(line.split(), PFLAG) == Leave(tuple(words.split()))


@pytest.mark.parametrize(
    "line, said",
    [
        ("exec --device K", "no image was named"),
        ("exec --device K --bindd=x I", "did you mean --bind?"),
        ("exec --device K --clean I", "is unknown to"),
        ("exec --device K --cleanenv=maybe I", "takes no value, but has 'maybe'"),
        ("exec --device", "needs a value"),
    ],
)
def test_a_wrong_pflag_line_that_wants_devices_is_refused(line, said):
    with pytest.raises(CdiError, match=said):
        read(line.split(), PFLAG)


def test_help_of_a_subcommand_is_asked_without_what_only_we_understand():
    assert read(["-d", "exec", "-e", "--help"], PFLAG) == Help(("-d", "exec", "-e", "--help"))
    assert read(["-d", "instance", "start", "--cdi", "-h", "I"], PFLAG) == Help(("instance", "start", "-h"))


@pytest.mark.parametrize(
    "style, line", [("getopt", "--nonsense IMAGE"), ("pflag", "exec --nonsense IMAGE"), ("getopt", "-x")]
)
def test_what_is_not_understood_is_the_launchers_where_nobody_has_asked_for_devices(style, line):
    profile = {"getopt": GETOPT, "pflag": PFLAG}[style]
    assert read(line.split(), profile, wanted=True, by_default=True) == Leave(tuple(line.split()))
    with pytest.raises(CdiError):
        read(line.split(), profile, wanted=True)


@pytest.mark.parametrize(
    "word", ["-d", "-vdx", "-h", "-?", "--cdi", "--cd", "--cdi-dirs=x", "--dev", "--device=x", "--h", "--l"]
)
def test_a_word_that_may_be_ours_is_looked_at(word):
    assert may_be_ours(word)


@pytest.mark.parametrize("word", ["", "-", "--", "-v", "--version", "d", "cdi", "--nv", "--bind=--cdi", "/dev/x"])
def test_any_other_word_is_not(word):
    assert not may_be_ours(word)


# Keys -----------------------------------------------------------------------------------------------------------------


def key(
    *words: str,
    profile: Profile = GETOPT,
    devices: str = "",
    by_default: bool = False,
    cwd: str = "/cwd",
    **environ: str,
) -> str:
    invocation = launched(profile, *words, wanted=bool(devices))
    launch = LauncherLaunch(profile, invocation, invocation.devices or (devices,), by_default)
    return cache_key(launch, None, cwd, environ)


def test_devices_that_nobody_has_asked_for_make_another_launch():
    assert key("I", devices="K", by_default=True) != key("I", devices="K")


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("-dK I", {}),
        ("-dK -b /abs:/x,rel:/y /I", {}),
        ("-dK -b x=/y /I", {}),
        ("-dK -W= /I", {}),
        ("-d/K.yaml,x.json /I", {}),
        ("-dK --cdi-dirs=/a:b /I", {}),
        ("-dK --fold=x /I", {}),
        ("-dK /I", {"LAB_STORAGE": "x"}),
        ("-dK /I", {"LAB_STORAGE": ""}),
        ("-dK /I", {"CDI_HPC_DIRS": "/a:b"}),
    ],
)
def test_a_launch_with_a_relative_path_is_another_one_elsewhere(line, variables):
    # Any value may have one in it, and only the launcher knows where.
    assert key(*line.split(), cwd="/a", **variables) != key(*line.split(), cwd="/b", **variables)


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("-dK /I", {}),
        ("-dK -b /abs:/x,/y=/z -c relative --cdi-dirs=/a:/b /I", {}),
        ("-d/K.yaml --fold /I relative", {"LAB_STORAGE": "/x", "LAB_PREFIX_a": "x", "CDI_HPC_DIRS": "/a"}),
    ],
)
def test_a_launch_without_one_is_the_same_wherever_it_is_made_but_by_launchers_that_show_where(line, variables):
    assert key(*line.split(), cwd="/a", **variables) == key(*line.split(), cwd="/b", **variables)
    shows = replace(GETOPT, capabilities=())
    keys = {key(*line.split(), profile=shows, cwd=cwd, **variables) for cwd in ("/a", "/b")}
    assert len(keys) == 2


@pytest.mark.parametrize(
    "line",
    [
        "--device K -v -c x -b /y I c",
        "--device=K -v -c y -b /y I other command",
        "-dK -v -c x -b /y -- I c",
        "-dK --verbose I --cd x -b /y c",
        "-dK -vc x I c -b /y",
        "--cdi=K -v -c x -b /y I",
    ],
)
def test_the_spelling_of_a_launch_does_not_change_its_key(line):
    assert key(*line.split()) == key("-dK", "-v", "-c", "z", "-b", "/y", "I")


@pytest.mark.parametrize(
    "line",
    [
        "-dL -v -c x -b /y I",
        "-v -dK -c x -b /y I",
        "-dK -c x -b /y I",
        "-dK -v -cx -b /y I",
        "-dK -v -c x -b /z I",
        "-dK -v -c x -b /y J",
        "-dK -v -c x -b /y -t I",
        "-dK -v -c x -b /y --fold I",
        "-dK -v -c x -b /y --cdi-dirs /x I",
    ],
)
def test_what_may_change_a_plan_or_the_places_of_words_changes_the_key(line):
    assert key(*line.split()) != key("-dK", "-v", "-c", "x", "-b", "/y", "I")


def test_variables_of_the_launcher_change_the_key_and_others_do_not():
    line = ("-dK", "I")
    plain = key(*line)
    assert key(*line, UNRELATED="x") == plain
    assert len({plain, key(*line, LAB_STORAGE="/x"), key(*line, LAB_PREFIX_X="/x"), key(*line, CDI_HPC_DIRS="/x")}) == 4
    asked = ("exec", "--cdi=K", "I")
    own = key(*asked, profile=PFLAG, LAB_CDI_DIRS="/x", CDI_HPC_DIRS="/y")
    assert own == key(*asked, profile=PFLAG, LAB_CDI_DIRS="/x")
    assert own != key(*asked, profile=PFLAG, CDI_HPC_DIRS="/y")


def test_a_device_of_the_environment_is_another_launch_than_one_of_an_option():
    assert key("I", devices="K") != key("-dK", "I")
    assert key("I", devices="K") != key("I", devices="L")


# Profiles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["getopt", "pflag"])
def test_a_profile_is_read_as_it_was_written(style, kept):
    profile, path = kept[style]
    assert profiles.load(str(path)) == profile


def test_a_profile_of_a_launcher_that_was_replaced_is_not_taken(tmp_path, programs):
    launcher, kept = tmp_path / "lab-run", tmp_path / "kept"
    launcher.write_text("#!/bin/sh\n")
    profiles.write(profiles.checked(GETOPT, "lab", str(launcher)), str(kept))
    argv = [programs.reading, kept, "0", "0", ""]
    assert profiles.load(str(kept)) is not None
    assert subprocess.run(argv, input=b"", check=False).returncode == 0
    launcher.rename(tmp_path / "old")
    launcher.write_text("#!/bin/sh\n")
    assert profiles.load(str(kept)) is None
    assert subprocess.run(argv, input=b"", capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize("change", ["appears", "goes", "changes its mode", "nothing"])
def test_a_profile_is_not_taken_where_a_file_that_was_looked_at_is_not_as_it_was(change, launcher, tmp_path, programs):
    there, absent, kept = tmp_path / "there", tmp_path / "absent", tmp_path / "kept"
    there.write_text("")
    profile = replace(GETOPT, looked_at=(str(there), str(absent)))
    profiles.write(profiles.checked(profile, "lab", launcher), str(kept))
    changes = {
        "appears": lambda: absent.write_text(""),
        "goes": there.unlink,
        "changes its mode": lambda: there.chmod(0o4755),
        "nothing": lambda: None,
    }
    changes[change]()
    argv = [programs.reading, kept, "0", "0", ""]
    by_c = subprocess.run(argv, input=b"", capture_output=True, check=False).returncode
    assert (profiles.load(str(kept)) is not None, by_c) == ((True, 0) if change == "nothing" else (False, 2))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_damaged_profile_is_taken_by_neither(data, programs, kept, tmp_path):
    whole = kept["pflag"][1].read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.sampled_from(["cut", "longer", "NUL"]))
    damaged = {"cut": whole[:at], "longer": whole + b"\0", "NUL": whole[:at] + b"\0" + whole[at:]}[damage]
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    by_c = subprocess.run([programs.reading, path, "0", "0", ""], input=b"", capture_output=True, check=False)
    assert by_c.returncode in (0, 2), by_c.stderr
    assert (profiles.load(str(path)) is not None) == (by_c.returncode == 0)


@pytest.mark.parametrize(
    "profile, said",
    [
        (Profile("lab", "", "getopt", subcommands=(Subcommand(("x",), ()),)), "'getopt' has no subcommands"),
        (Profile("lab", "", "pflag", subcommands=(Subcommand((), ()),)), "subcommand"),
        (Profile("lab", "", "getopt", (Option(("bind",)),)), "option names"),
        (Profile("lab", "", "getopt", (Option(("--a,b",)),)), "option names"),
        (Profile("lab", "", "getopt", help="a\0b"), "NUL"),
        (Profile("lab", "", "getopt", looked_at=("etc/x",)), "relative path"),
    ],
)
def test_a_profile_that_could_not_be_read_again_is_a_fault_of_its_backend(profile, said, launcher):
    with pytest.raises(CdiError, match=f"backend 'lab': .*{said}.*fault of the backend"):
        profiles.checked(profile, "lab", launcher)
