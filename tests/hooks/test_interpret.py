"""What hooks mean: tables of spellings found in specs, and properties over any argument vector."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_hpc.spec.model import Hook
from cdi_hpc.translation import hooks
from cdi_hpc.translation.hooks import (
    Chmod,
    CreateSymlinks,
    DisableDeviceNodeModification,
    EnableCudaCompat,
    HookMeaning,
    NoOperation,
    UnknownHook,
    UpdateApplicationProfile,
    UpdateLdcache,
    interpret,
)


def meaning_of(*args: str, path: str = "/usr/bin/nvidia-cdi-hook", point: str = "createContainer") -> HookMeaning:
    return interpret(Hook(point, path, args))


def vendor(*args: str) -> HookMeaning:
    return meaning_of("nvidia-cdi-hook", *args)


def ldconfig(*args: str) -> HookMeaning:
    return meaning_of("ldconfig", *args, path="/sbin/ldconfig", point="startContainer")


# Spellings that generators wrote into specs: program, arguments, meaning.
GENERATED = {
    "toolkit 1.17, links of a driver": (
        "/usr/bin/nvidia-cdi-hook",
        """nvidia-cdi-hook create-symlinks
        --link ../libnvidia-allocator.so.1::/usr/lib/x86_64-linux-gnu/gbm/nvidia-drm_gbm.so
        --link libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so""",
        CreateSymlinks(
            (
                ("../libnvidia-allocator.so.1", "/usr/lib/x86_64-linux-gnu/gbm/nvidia-drm_gbm.so"),
                ("libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so"),
            )
        ),
    ),
    "toolkit 1.14, a link whose path holds colons": (
        "/usr/bin/nvidia-ctk",
        "nvidia-ctk hook create-symlinks --link ../card0::/dev/dri/by-path/pci-0000:07:00.0-card",
        CreateSymlinks((("../card0", "/dev/dri/by-path/pci-0000:07:00.0-card"),)),
    ),
    "toolkit 1.18, folders": (
        "/usr/bin/nvidia-cdi-hook",
        "nvidia-cdi-hook update-ldcache --folder /usr/lib/x86_64-linux-gnu --folder /usr/lib/x86_64-linux-gnu/vdpau",
        UpdateLdcache(("/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/vdpau")),
    ),
    "toolkit 1.12, argv[0] is a full path": (
        "/usr/bin/nvidia-ctk",
        "/usr/bin/nvidia-ctk hook update-ldcache --folder /usr/lib/x86_64-linux-gnu",
        UpdateLdcache(("/usr/lib/x86_64-linux-gnu",)),
    ),
    "toolkit 1.12, the program in /bin": (
        "/bin/nvidia-ctk",
        "nvidia-ctk hook chmod --mode 755 --path /dev/dri",
        Chmod(0o755, ("/dev/dri",)),
    ),
    "an operator's toolkit, with its own ldconfig": (
        "/usr/local/nvidia/toolkit/nvidia-cdi-hook",
        "nvidia-cdi-hook update-ldcache --ldconfig-path /run/nvidia/driver/sbin/ldconfig.real --folder /usr/lib64",
        UpdateLdcache(("/usr/lib64",)),
    ),
    "the program behind an operator's wrapper": (
        "/usr/local/nvidia/toolkit/nvidia-ctk.real",
        "nvidia-ctk hook update-ldcache --folder /usr/lib64",
        UpdateLdcache(("/usr/lib64",)),
    ),
    "toolkit 1.17.5, the driver's version": (
        "/usr/bin/nvidia-cdi-hook",
        "nvidia-cdi-hook enable-cuda-compat --host-driver-version=570.133.20",
        EnableCudaCompat("/usr/local/cuda/compat", "570.133.20", ""),
    ),
    "toolkit 1.19 on Tegra, the version of CUDA and a directory": (
        "/usr/bin/nvidia-cdi-hook",
        """nvidia-cdi-hook enable-cuda-compat --host-cuda-version=12.6
        --cuda-compat-container-root=/usr/local/cuda/compat_orin""",
        EnableCudaCompat("/usr/local/cuda/compat_orin", "", "12.6"),
    ),
    "toolkit 1.18, no arguments": (
        "/usr/bin/nvidia-cdi-hook",
        "nvidia-cdi-hook disable-device-node-modification",
        DisableDeviceNodeModification(),
    ),
    "toolkit 1.20, no arguments": (
        "/usr/bin/nvidia-cdi-hook",
        "nvidia-cdi-hook update-application-profile",
        UpdateApplicationProfile(),
    ),
    "a spec that names ldconfig without arguments": ("/usr/bin/ldconfig", "", UpdateLdcache(())),
    "Debian's and Ubuntu's ldconfig": (
        "/sbin/ldconfig.real",
        "ldconfig /opt/rocm/lib",
        UpdateLdcache(("/opt/rocm/lib",)),
    ),
}


@pytest.mark.parametrize("case", GENERATED)
def test_every_spelling_that_a_generator_writes_is_understood(case):
    path, arguments, meaning = GENERATED[case]
    assert meaning_of(*arguments.split(), path=path) == meaning


ALIKE = [
    ("--link", "a::/b"),
    ("--link=a::/b",),
    ("-link", "a::/b"),
    ("-link=a::/b",),
    ("--debug", "--link=a::/b"),
    ("--link=a::/b", "-d", "--quiet=false"),
    ("--container-spec", "-", "--link=a::/b"),
    ("--container-spec=", "--link=a::/b", "--host-root=/"),
    ("--link=a::/b", "--link", "a::/b"),
    ("--link=a::b",),
    ("--link=a::/x/../b",),
    ("--link=a::../../b",),
    ("--link=a:://b",),
]


@pytest.mark.parametrize("arguments", ALIKE)
def test_one_link_has_many_spellings(arguments):
    assert vendor("create-symlinks", *arguments) == CreateSymlinks((("a", "/b"),))


@pytest.mark.parametrize("arguments", [("--debug",), ("-d",), ("--quiet=1",), ("-quiet", "--debug=F")])
def test_flags_for_the_log_may_stand_before_the_verb(arguments):
    assert vendor(*arguments, "noop") == vendor("noop")
    assert meaning_of(
        "nvidia-ctk", *arguments, "hook", *arguments, "update-ldcache", path="/usr/bin/nvidia-ctk"
    ) == UpdateLdcache(())


def test_a_list_is_split_at_commas():
    assert vendor("update-ldcache", "--folder", "/a,/b", "--folder=/c") == UpdateLdcache(("/a", "/b", "/c"))
    assert vendor("create-symlinks", "--link=a::/b,c::/d") == CreateSymlinks((("a", "/b"), ("c", "/d")))


def test_the_last_of_a_flag_with_one_value_counts():
    assert vendor("chmod", "--mode=700", "--path=/dev/dri", "--mode=755") == Chmod(0o755, ("/dev/dri",))


def test_links_keep_their_order_so_that_the_later_of_two_at_one_path_is_seen():
    links = vendor("create-symlinks", "--link=a::/l", "--link=b::/l", "--link=a::/l")
    assert links == CreateSymlinks((("a", "/l"), ("b", "/l")))


def test_a_target_is_kept_as_it_was_written():
    links = vendor("create-symlinks", "--link", "/a/../b//c/::/l", "--link", " :x::/m")
    assert links == CreateSymlinks((("/a/../b//c/", "/l"), (" :x", "/m")))


def test_three_colons_belong_to_the_path():
    assert vendor("create-symlinks", "--link=a:::/b") == CreateSymlinks((("a", "/:/b"),))


def test_set_id_and_sticky_bits_have_no_effect_in_the_vendors_chmod():
    assert vendor("chmod", "--mode=6755", "--path=/dev/dri") == Chmod(0o755, ("/dev/dri",))


@pytest.mark.parametrize(
    "arguments",
    [
        ("noop",),
        ("create-symlinks",),
        ("enable-cuda-compat",),
        ("enable-cuda-compat", "--host-driver-version="),
        ("chmod", "--mode=755"),
    ],
)
def test_a_hook_that_is_told_nothing_to_do_says_so(arguments):
    meaning = vendor(*arguments)
    assert isinstance(meaning, NoOperation)
    assert arguments[0] in meaning.reason


# Arguments of the vendor's program, and what the reason must name.
REFUSED = [
    ((), "no hook"),
    (("--debug",), "no hook"),
    (("create-links",), "'create-links'"),
    (("cdi", "generate"), "'cdi'"),
    (("--config=/x", "noop"), "'--config=/x'"),
    (("--", "noop"), "'--'"),
    (("create-symlinks", "--link=a::/b", "--force"), "'--force'"),
    (("create-symlinks", "--link=a::/b", "---link=c::/d"), "'---link=c::/d'"),
    (("create-symlinks", "--link=a::/b", "--=x"), "'--=x'"),
    (("create-symlinks", "--Link=a::/b"), "'--Link=a::/b'"),
    (("create-symlinks", "--link"), "'--link' has no value"),
    (("create-symlinks", "--link="), "TARGET::PATH"),
    (("create-symlinks", "--link=a:/b"), "'a:/b'"),
    (("create-symlinks", "--link=a::/b::/c"), "'a::/b::/c'"),
    (("create-symlinks", "--link=a::/b,c"), "'c'"),
    (("create-symlinks", "--link=::/b"), "target is empty"),
    (("create-symlinks", "--link=a::"), "end in a name"),
    (("create-symlinks", "--link=a::/b/"), "end in a name"),
    (("create-symlinks", "--link=a::/b/.."), "end in a name"),
    (("create-symlinks", "--link=a::/b "), "blank"),
    (("create-symlinks", "--link=a::/b", "more"), "'more'"),
    (("create-symlinks", "--link=a::/b", ""), "''"),
    (("create-symlinks", "--link=a::/b", "-"), "'-'"),
    (("create-symlinks", "--link=a::/b", "--", "--link=c::/d"), "'--'"),
    (("create-symlinks", "--link=a::/b", "--debug=maybe"), "'--debug=maybe'"),
    (("create-symlinks", "--container-spec=/run/state.json"), "--container-spec"),
    (("create-symlinks", "--csv-filename=/etc/l4t.csv"), "--csv-filename"),
    (("create-symlinks", "--host-root=/host", "--link=a::/b"), "--host-root"),
    (("update-ldcache", "--link=a::/b"), "'--link=a::/b'"),
    (("update-ldcache", "--ldconfig-path="), "--ldconfig-path"),
    (("update-ldcache", "--folder="), "''"),
    (("update-ldcache", "--folder=lib"), "'lib'"),
    (("update-ldcache", "--folder=/a/../b"), "'/a/../b'"),
    (("update-ldcache", "--folder=/a/.."), "'/a/..'"),
    (("update-ldcache", "--folder=/a#b"), "'/a#b'"),
    (("update-ldcache", "--folder=/a=libc6"), "'/a=libc6'"),
    (("update-ldcache", "--folder", "/a\n/b"), r"'/a\n/b'"),
    (("chmod", "--path=/dev/dri"), "''"),
    (("chmod", "--mode=u+r", "--path=/dev/dri"), "'u+r'"),
    (("chmod", "--mode=0o755", "--path=/dev/dri"), "'0o755'"),
    (("chmod", "--mode=17777", "--path=/dev/dri"), "'17777'"),
    (("chmod", "--mode=755", "--path", " "), "' '"),
    (("disable-device-node-modification", "--driver-root=/x"), "'--driver-root=/x'"),
    (("noop", "now"), "'now'"),
]


@pytest.mark.parametrize("arguments, named", REFUSED)
def test_what_is_not_understood_is_named(arguments, named):
    meaning = vendor(*arguments)
    assert isinstance(meaning, UnknownHook)
    assert named in meaning.reason
    assert "/usr/bin/nvidia-cdi-hook" in meaning.reason


@pytest.mark.parametrize(
    "path", ["/usr/bin/vendor-hook", "/bin/sh", "/usr/bin/nvidia-cdi-hook/", "", "/usr/bin/nvidia-container-cli"]
)
def test_the_program_decides_and_not_what_args_0_claims(path):
    assert isinstance(meaning_of("nvidia-cdi-hook", "noop", path=path), UnknownHook)
    assert vendor("noop") == meaning_of("/bin/sh", "noop")


def test_the_hook_from_before_cdi_is_refused_with_what_to_do():
    meaning = meaning_of("nvidia-container-toolkit", "prestart", path="/usr/bin/nvidia-container-runtime-hook")
    assert isinstance(meaning, UnknownHook)
    assert "nvidia-ctk cdi generate" in meaning.reason


def test_arguments_without_the_programs_name_are_explained():
    meaning = meaning_of("create-symlinks", "--link", "a::/b")
    assert isinstance(meaning, UnknownHook)
    assert "args[0] is 'create-symlinks'" in meaning.reason


@pytest.mark.parametrize("point", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_every_point_before_the_process_starts_is_the_same(point):
    assert meaning_of("x", "update-ldcache", "--folder=/a", point=point) == UpdateLdcache(("/a",))
    assert meaning_of("x", "/a", path="/sbin/ldconfig", point=point) == UpdateLdcache(("/a",))


def test_a_hook_that_comes_too_late_is_not_done_early():
    assert isinstance(meaning_of("x", "update-ldcache", point="poststart"), UnknownHook)
    assert isinstance(meaning_of("x", "update-ldcache", point="poststop"), NoOperation)
    assert isinstance(meaning_of("x", "update-cache", point="poststop"), UnknownHook)
    assert isinstance(meaning_of("x", "update-ldcache", point="createcontainer"), UnknownHook)


def test_environment_and_timeout_do_not_matter_to_what_is_not_run():
    arguments = ("nvidia-cdi-hook", "update-ldcache", "--folder=/a")
    hook = Hook("createContainer", "/usr/bin/nvidia-cdi-hook", arguments, ("NVIDIA_CTK_DEBUG=true", "X=y"), 1)
    assert interpret(hook) == vendor(*arguments[1:])


def test_the_documentation_names_every_program_verb_and_flag():
    text = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
    flags = {f"--{name}" for verb in hooks._VERBS.values() for name in verb.flags}
    missing = {name for name in {*hooks._PROGRAMS, *hooks._VERBS, *flags} if name not in text}
    assert not missing


# ldconfig(8) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("/a", "/b"),
        ("-v", "/a", "-X", "/b/"),
        ("-vX", "-i", "--", "/a", "/b"),
        ("--verbose", "/a", "-C", "/etc/ld.so.cache", "/b"),
        ("-C/etc/ld.so.cache", "-f", "/etc/ld.so.conf", "-r", "/", "/a", "/b"),
        ("/a", "--format=new", "//b", "/a"),
        ("/a", "-c", "compat", "/b"),
    ],
)
def test_directories_and_options_that_change_nothing_are_understood_in_any_order(arguments):
    assert ldconfig(*arguments) == UpdateLdcache(("/a", "/b"))


@pytest.mark.parametrize(
    "arguments, named",
    [
        (("-n", "/a"), "'-n'"),
        (("-N",), "'-N'"),
        (("-p",), "'-p'"),
        (("-l", "/a/lib.so"), "'-l'"),
        (("--version",), "'--version'"),
        (("-C",), "'-C'"),
        (("-C", "/tmp/cache"), "'/tmp/cache'"),
        (("-f", "/tmp/conf"), "'/tmp/conf'"),
        (("-r", "/mnt"), "'/mnt'"),
        (("-c", "old"), "'old'"),
        (("--format=old",), "'old'"),
        (("lib",), "'lib'"),
        (("",), "''"),
        (("--", "-v"), "'-v'"),
        (("/a", "--", "/b", "--"), "'--'"),
    ],
)
def test_options_that_change_what_ldconfig_does_are_named(arguments, named):
    meaning = ldconfig(*arguments)
    assert isinstance(meaning, UnknownHook)
    assert named in meaning.reason


def test_options_do_not_depend_on_the_environment_of_this_process(monkeypatch):
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    assert ldconfig("/a", "-v") == UpdateLdcache(("/a",))


# Properties ---------------------------------------------------------------------------------------------------

#: Any text that can be an argument and doesn't run into the separators: a comma, two colons.
word = st.text(st.characters(exclude_characters="\0,", exclude_categories=()), max_size=12)
component = st.text(st.characters(exclude_characters="\0,/:", exclude_categories=()), min_size=1, max_size=8).filter(
    lambda text: text not in {".", ".."} and text == text.strip()
)
container_path = st.lists(component, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
target = st.text(st.characters(exclude_characters="\0,:", exclude_categories=()), min_size=1, max_size=12)
folder = (
    st.lists(st.text("abz-_. é09", min_size=1, max_size=8), min_size=1, max_size=4)
    .map(lambda parts: "/" + "/".join(parts))
    .filter(lambda path: not {".", ".."} & set(path.split("/")) and path == path.rstrip())
)
program = st.sampled_from([("nvidia-cdi-hook", ()), ("nvidia-ctk", ("hook",)), ("nvidia-cdi-hook.real", ())])


@st.composite
def spelled(draw, name, values):
    """An argument vector for a list flag, each value in a spelling of its own, some joined by commas."""
    arguments, rest = [], list(values)
    while rest:
        count = draw(st.integers(1, len(rest)))
        value, rest = ",".join(rest[:count]), rest[count:]
        dashes = draw(st.sampled_from(["-", "--"]))
        arguments += draw(st.sampled_from([[dashes + name, value], [f"{dashes}{name}={value}"]]))
        arguments += draw(st.sampled_from([[], ["--debug"], ["-d"], ["--quiet=0"], ["--container-spec", "-"]]))
    return arguments


@settings(max_examples=300)
@given(st.data(), st.lists(st.tuples(target, container_path), min_size=1, max_size=6), program)
def test_any_links_in_any_spelling_are_read_back(data, links, called):
    name, words = called
    arguments = data.draw(spelled("link", [f"{points_to}::{path}" for points_to, path in links]))
    meaning = meaning_of("x", *words, "create-symlinks", *arguments, path=f"/any/where/{name}")
    assert meaning == CreateSymlinks(tuple(dict.fromkeys(links)))


@settings(max_examples=300)
@given(st.data(), st.lists(folder, min_size=1, max_size=6), program)
def test_any_folders_in_any_spelling_are_read_back(data, folders, called):
    name, words = called
    arguments = data.draw(spelled("folder", folders))
    meaning = meaning_of("x", *words, "update-ldcache", *arguments, path=f"/any/where/{name}")
    assert meaning == UpdateLdcache(tuple(dict.fromkeys(folders)))
    assert ldconfig(*folders) == meaning


COMPLETE = {
    "create-symlinks": ["--link=a::/b"],
    "update-ldcache": ["--folder=/a"],
    "enable-cuda-compat": ["--host-driver-version=1"],
    "disable-device-node-modification": [],
    "update-application-profile": [],
    "chmod": ["--mode=755", "--path=/a"],
    "noop": [],
}
KNOWN = {"link", "folder", "ldconfig-path", "path", "mode", "container-spec", "debug", "d", "quiet", "host-root"}
KNOWN |= {"csv-filename", "host-driver-version", "host-cuda-version", "cuda-compat-container-root"}


def test_the_properties_cover_every_verb():
    assert set(COMPLETE) == set(hooks._VERBS)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(COMPLETE)),
    st.from_regex(r"-{0,3}[A-Za-z][A-Za-z-]{0,20}(=.{0,5})?", fullmatch=True).filter(
        lambda text: text.lstrip("-").split("=")[0] not in KNOWN
    ),
    st.booleans(),
)
def test_an_argument_that_is_not_in_the_table_is_never_skipped(verb, argument, first):
    assert not isinstance(vendor(verb, *COMPLETE[verb]), UnknownHook)
    arguments = [argument, *COMPLETE[verb]] if first else [*COMPLETE[verb], argument]
    meaning = vendor(verb, *arguments)
    assert isinstance(meaning, UnknownHook)
    assert repr(argument) in meaning.reason


pieces = st.sampled_from([*COMPLETE, *(f"--{name}" for name in KNOWN), "--link=a::/b", "hook", "--", "-C", "-v", "/a"])
names = st.sampled_from([*hooks._PROGRAMS, "other"])
points = st.sampled_from([*hooks._POINTS, "", "other"])


@settings(max_examples=1000)
@given(names, points, st.lists(st.one_of(pieces, word, st.text(max_size=8)), max_size=8))
def test_no_argument_vector_makes_it_raise(name, point, args):
    meaning = meaning_of(*args, path=f"/usr/bin/{name}", point=point)
    assert isinstance(meaning, get_args(HookMeaning))
    if any("\0" in argument for argument in args):
        assert isinstance(meaning, UnknownHook)


@settings(max_examples=300)
@given(st.text())
def test_no_path_makes_it_raise(path):
    assert isinstance(interpret(Hook("createContainer", path)), get_args(HookMeaning))
