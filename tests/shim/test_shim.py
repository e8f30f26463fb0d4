"""A drop-in is its launcher: with nothing but that where no device is asked for, and with devices where they are."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lab_backend import KIND

from cdi_hpc.launch import inheritance

DEVICE = f"{KIND}=one"

#: Where Python would be started, this is said instead.
NO_PYTHON = {"CDI_HPC_PYTHON_FRONT": "/bin/false"}


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def launched(site, *words, program="lab-run", **how) -> list[str]:
    """What the launcher was given, less what the backend adds to it."""
    found = lines(site.run(program, *words, **how))
    return [line for line in found if not line.startswith("option s ")]


# No device ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--version"],
        ["IMAGE", "a", "b c", "d\ne", ""],
        ["-v", "IMAGE", "--", "-d", "--device=x"],
        ["--nonsense", "IMAGE"],
        ["IMAGE", "-v", "echo", "--exit=3"],
        ["--verb", "--col=x", "IMAGE"],
        ["--bind"],
        ["--delicious"],
        ["-x"],
        ["--exit", "7", "IMAGE"],
        ["--look=--device", "IMAGE"],
    ],
)
def test_without_a_device_it_is_the_launcher_and_no_python_is_started(words, site):
    bare = site.run("lab-run", *words, env={"PATH": f"{site.top}/bin:{os.environ['PATH']}"})
    site.run("lab-run", "--device", DEVICE, site.image)  # its options are known now
    through = site.run("lab-run", *words, env=NO_PYTHON)
    assert (through.returncode, through.stdout, through.stderr) == (bare.returncode, bare.stdout, bare.stderr)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (["--cdi-dirs", "/x", "-v", "IMAGE", "a b"], ["-v", "IMAGE", "a b"]),
        (["IMAGE", "--cdi-dirs=/x", "--", "-v", "a"], ["--", "IMAGE", "-v", "a"]),
        (["-v", "--device", DEVICE, "--version"], ["-v", "--version"]),
        (["--cdi-dirs", "/x", "--nonsense", "IMAGE"], ["--nonsense", "IMAGE"]),
        (["--cdi-dirs", "/x"], []),
    ],
)
def test_options_of_ours_are_not_passed_on_where_no_device_is_asked_for(ours, theirs, site):
    bare = site.run("lab-run", *theirs, env={"PATH": f"{site.top}/bin:{os.environ['PATH']}"})
    site.run("lab-run", "--device", DEVICE, site.image)  # its options are known now
    by_c = site.run("lab-run", *ours, env=NO_PYTHON)
    assert (by_c.returncode, by_c.stdout, by_c.stderr) == (bare.returncode, bare.stdout, bare.stderr)
    by_python = site.run("cdi-hpc", "exec", "--runner=python", "lab-run", *ours)
    assert (by_python.returncode, by_python.stdout, by_python.stderr) == (bare.returncode, bare.stdout, bare.stderr)


def test_what_can_be_no_option_of_ours_needs_nothing_known_of_the_launcher(site):
    assert launched(site, "-v", "IMAGE", "word", env=NO_PYTHON) == [
        "name lab-run",
        "option v ",
        "image IMAGE",
        "word word",
    ]
    assert not site.cache.exists()


def test_the_environment_is_not_touched(site):
    bare = lines(site.run(site.launcher, "--environment", "IMAGE"))
    through = lines(site.run("lab-run", "--environment", "IMAGE"))
    by_path = lines(site.run(site.shim, "--environment", "IMAGE"))
    assert through[1:] == bare[1:]
    assert by_path[1:] == bare[1:]


def test_what_is_between_the_two_programs_is_not_passed_on(site):
    private = {**dict.fromkeys(inheritance.PRIVATE_VARIABLES, "x"), "CDI_HPC_SAY": "1"}
    seen = lines(site.run("lab-run", "--environment", "IMAGE", env=private))
    assert not [line for line in seen if line.startswith("env CDI_HPC_") and "DIRS" not in line]


def test_the_launcher_is_told_the_name_that_was_typed_or_its_own_path(site):
    assert lines(site.run("lab-run", "IMAGE"))[0] == "name lab-run"
    assert lines(site.run(site.shim, "IMAGE"))[0] == f"name {site.launcher}"


def test_a_signal_ends_the_launcher_itself(site):
    assert site.run("lab-run", f"--kill={signal.SIGTERM:d}", "IMAGE").returncode == -signal.SIGTERM


# Devices --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--device", DEVICE, "IMAGE", "a b", "c\nd"],
        [f"--device={DEVICE}", "IMAGE", "a b", "--", "c\nd"],
        [f"-d{DEVICE}", "IMAGE", "--", "a b", "c\nd"],
        ["IMAGE", "a b", f"--cdi={DEVICE}", "c\nd"],
        ["--cdi", "IMAGE", "a b", "c\nd"],
        ["--dev", DEVICE, "--", "IMAGE", "a b", "c\nd"],
    ],
)
@pytest.mark.parametrize("how", ["shim", "exec", "exec by Python"])
def test_the_launcher_gets_what_its_backend_says_and_the_command_as_it_was_typed(how, words, site):
    words = [str(site.image) if word == "IMAGE" else word for word in words]
    before = {"shim": ["lab-run"], "exec": ["cdi-hpc", "exec", "lab-run"]}
    argv = before.get(how, ["cdi-hpc", "exec", "--runner=python", "lab-run"])
    for _ in range(2):
        done = site.run(*argv, "--environment", *words)
        found = lines(done)
        assert found[0] == "name lab-run"
        (staged,) = (line.split()[2] for line in found if line.startswith("option s"))
        assert Path(staged.removesuffix(":x")).read_text() == "staged\n"
        assert found[-4:] == [f"image {site.image}", "word a b", "word c", "d"]
        assert {"env LAB_DEVICE=one", "env LAB_DEFAULT=the backend's"} <= set(found)
        assert not [line for line in found if line.startswith(("env CDI_HPC_COMPILED", "env CDI_HPC_NATIVE"))]


def test_a_later_launch_starts_no_python(site):
    first = launched(site, "--device", DEVICE, site.image, "x")
    plans = site.plans()
    assert launched(site, f"--cdi={DEVICE}", "--", site.image, "y", env=NO_PYTHON)[:-1] == first[:-1]
    assert site.plans() == plans
    assert len(plans) == 1
    assert len(site.probes) == 1


@pytest.mark.parametrize("how", ["shim", "shims", "exec by Python"])
def test_a_changed_backend_leads_to_another_profile_and_another_plan(how, site):
    """What it says depends on its code, and nothing else tells that this is another one."""
    words: list = ["--environment", "--device", DEVICE, site.image]
    programs = {"shim": ["lab-run"], "shims": [f"{site.top}/written/lab-run"]}
    program, *before = programs.get(how, ["cdi-hpc", "exec", "--runner=python", "lab-run"])
    if how == "shims":
        assert site.run("cdi-hpc", "shims", f"{site.top}/written", "lab-run").returncode == 0
    assert "env LAB_DEFAULT=the backend's" in lines(site.run(program, *before, *words))
    if how != "exec by Python":
        lines(site.run(program, *before, *words, env=NO_PYTHON))
    probes = len(site.probes)

    path = site.top / "site/lab_backend.py"
    changed = path.read_text().replace("the backend's", "of another release").replace('("LAB_SETTING",)', '("LAB_X",)')
    path.write_text(changed)
    for _ in range(2):
        assert "env LAB_DEFAULT=of another release" in lines(site.run(program, *before, *words))
    assert len(site.probes) == probes + 1
    path.unlink()
    gone = site.run(program, *before, *words)
    assert (gone.returncode, "lab_backend:LabBackend): can't be loaded" in gone.stderr) == (125, True)


def test_every_module_that_was_imported_of_a_backend_counts(site):
    """Its package may be one of many files, and some of them be imported when they are needed."""
    package = site.top / "site/lab_package"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from lab_backend import LabBackend as Plain\nfrom lab_package.one import Mine\n"
    )
    one = "from lab_backend import LabBackend\n\nclass Mine(LabBackend):\n"
    late = "        from lab_package.late import said\n        return said(super().adapt(*of))\n"
    (package / "one.py").write_text(f"{one}    def adapt(self, *of):\n{late}")
    text = "from dataclasses import replace\nfrom cdi_hpc.backend import Variable\n\n"
    text += "def said(dressing):\n    return replace(dressing, variables=(Variable('LAB_SAID', 'NUMBER'),))\n"
    (package / "late.py").write_text(text)
    (site.top / "site/lab_backend-1.0.dist-info/entry_points.txt").write_text(
        "[cdi_hpc.backends]\nlab-run = lab_package:Mine\n"
    )
    words = ("--environment", "--device", DEVICE, site.image)
    assert "env LAB_SAID=NUMBER" in lines(site.run("lab-run", *words))
    assert "env LAB_SAID=NUMBER" in lines(site.run("lab-run", *words, env=NO_PYTHON))
    (package / "late.py").write_text(text.replace("NUMBER", "2"))
    assert "env LAB_SAID=2" in lines(site.run("lab-run", *words))
    assert site.run("lab-run", *words, env=NO_PYTHON).returncode == 0


def test_a_users_variable_wins_over_a_default_of_the_backend(site):
    for _ in range(2):
        found = lines(site.run("lab-run", "--environment", "--cdi", site.image, env={"LAB_DEFAULT": "mine"}))
        assert "env LAB_DEFAULT=mine" in found


def test_options_that_are_passed_on_are_those_of_each_launch(site):
    launched(site, "--device", DEVICE, "--color=red", "-v", "--exit", "0", site.image)
    found = launched(site, "--device", DEVICE, "--color=blue", "-v", "--exit", "0", site.image, env=NO_PYTHON)
    assert "option c blue" in found


def test_a_changed_spec_a_replaced_launcher_and_another_variable_lead_to_another_plan(site):
    words = ("--environment", "--device", DEVICE, site.image)
    launched(site, *words)
    site.write_spec(env=["LAB_DEVICE=changed"])
    assert "env LAB_DEVICE=changed" in launched(site, *words)
    assert len(site.probes) == 1
    shutil.copy(site.programs.launcher, f"{site.launcher}.new")
    os.replace(f"{site.launcher}.new", site.launcher)
    launched(site, *words)
    assert len(site.probes) == 2
    assert len(site.plans()) == 1
    launched(site, *words, env={"LAB_SETTING": "/x"})
    assert len(site.plans()) == 2
    assert len(site.probes) == 2


def test_steps_are_made_where_only_the_launcher_sees_them(site):
    site.write_spec(mounts=[{"hostPath": "/etc/hostname", "containerPath": "/opt/lab/name", "options": ["ro"]}])
    look = ("--dressed", f"--look={site.image}/opt/lab/name", "--device", DEVICE, site.image)
    for environ in ({}, NO_PYTHON):
        assert f"look {site.image}/opt/lab/name yes" in launched(site, *look, env=environ)
    by_python = site.run("cdi-hpc", "exec", "--runner=python", "lab-run", *look)
    assert f"look {site.image}/opt/lab/name yes" in lines(by_python)
    assert list((site.image / "opt").iterdir()) == []


def test_the_working_directory_is_the_one_of_the_launch(site):
    site.write_spec(mounts=[{"hostPath": "/etc/hostname", "containerPath": "/opt/lab/name"}])
    (site.top / "here").mkdir()
    (site.top / "here/mark").touch()
    for environ in ({}, NO_PYTHON):
        found = launched(
            site, "--dressed", "--look=mark", "--device", DEVICE, site.image, env=environ, cwd=site.top / "here"
        )
        assert "look mark yes" in found


def test_devices_of_the_environment_are_used_where_no_option_names_any(site):
    wanted = {"CDI_HPC_DEVICES": DEVICE}
    assert "env LAB_DEVICE=one" in lines(site.run("lab-run", "--environment", site.image, env=wanted))
    assert "env LAB_DEVICE=one" in lines(site.run("lab-run", "--environment", site.image, env={**wanted, **NO_PYTHON}))
    refused = site.run("lab-run", site.image, env={"CDI_HPC_DEVICES": f"{KIND}=none"})
    assert (refused.returncode, refused.stdout) == (125, "")
    assert lines(site.run("lab-run", f"-d{DEVICE}", site.image, env={"CDI_HPC_DEVICES": f"{KIND}=none"}))


def test_streams_and_statuses_are_the_launchers(site):
    for environ in ({}, NO_PYTHON):
        done = site.run("lab-run", "--stdin", "--exit=7", "-d", site.image, stdin="through a pipe\n", env=environ)
        assert done.returncode == 7
        assert "through a pipe" in done.stdout
        killed = site.run("lab-run", f"--kill={signal.SIGKILL:d}", "-d", site.image)
        assert killed.returncode == -signal.SIGKILL


def test_a_terminal_is_the_launchers(site):
    main, its = pty.openpty()
    with os.fdopen(its) as terminal:
        argv = ["lab-run", "-d", site.image, "from a terminal"]
        subprocess.run(argv, executable=site.shim, env=site.environ(), stdout=terminal, stderr=terminal, check=True)
    assert b"from a terminal" in os.read(main, 4096)
    os.close(main)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--device", f"{KIND}=two", "IMAGE"], "no such device of the kind"),
        (["--device", f"{KIND}=one,,", "IMAGE"], "an empty device name"),
        (["--device=", "IMAGE"], "option --device: has an empty value"),
        (["-d"], "no image was named"),
        (["-d", "--nonsense", "IMAGE"], "option --nonsense: is unknown to"),
        (["-d", "--exti=1", "IMAGE"], "did you mean --exit?"),
        (["-d", "no-such-image"], "image no-such-image: is no directory"),
        (["-v", "--cdi", f"{KIND}=one", "IMAGE"], f"a device is joined to its option: write --cdi={KIND}=one"),
        (["-d", "--cdi-dirs=/no/such", "IMAGE"], "/no/such"),
        (["-d", "--lacking=fatal", "IMAGE"], "edit fatal: lab-run can't"),
        (["--device"], "needs a value"),
    ],
)
@pytest.mark.parametrize("how", ["shim", "exec by Python"])
def test_what_is_wrong_is_one_clear_line_and_the_launcher_is_not_started(how, words, said, site):
    words = [str(site.image) if word == "IMAGE" else word for word in words]
    argv = ["lab-run"] if how == "shim" else ["cdi-hpc", "exec", "--runner=python", "lab-run"]
    done = site.run(*argv, *words)
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("cdi-hpc: error: ")
    assert any(text in line for text in said.split("|")), line


def test_what_can_be_done_without_is_a_warning_each_time(site):
    for environ in ({}, NO_PYTHON):
        done = site.run("lab-run", "-d", "--lacking=some", site.image, env=environ)
        assert done.returncode == 0
        assert done.stderr.count("edit some: lab-run can't") == 1
        assert "lab-run was told" not in done.stderr
        assert site.run("lab-run", "-d", "--lacking=some", site.image, env={"CDI_HPC_VERBOSITY": "-1"}).stderr == ""
    told = site.run("lab-run", "-d", site.image, env={"CDI_HPC_VERBOSITY": "1"})
    assert "note: lab-run was told" in told.stderr


@pytest.mark.parametrize("how", ["native", "python"])
def test_how_much_is_said_is_handed_on_to_no_launcher(how, site):
    argv = ["cdi-hpc", "exec", "-v", f"--runner={how}", "lab-run", "--environment", "-d", site.image]
    for _ in range(2):  # compiled, replayed
        done = site.run(*argv)
        assert "note: lab-run was told" in done.stderr
        assert not [line for line in lines(done) if line.startswith(("env CDI_HPC_SAY", "env CDI_HPC_VERBOSITY"))]
    said = lines(site.run(*argv, env={"CDI_HPC_VERBOSITY": "-1"}))
    assert "env CDI_HPC_VERBOSITY=-1" in said


def test_a_drop_in_that_is_called_by_its_path_finds_the_front_beside_it(site, tmp_path):
    programs = tmp_path / "few"
    programs.mkdir()
    for name in ("sh", "env"):
        (programs / name).symlink_to(shutil.which(name))
    front = site.shim.parent / "cdi-hpc"
    front.symlink_to(shutil.which("cdi-hpc"))
    path = f"{site.launcher.parent}:{programs}"
    done = site.run(site.shim, "-d", site.image, env={"PATH": path})
    assert done.returncode == 0, done.stderr
    front.unlink()
    done = site.run(site.shim, "--cdi", "-d", site.image, "--exit=0", env={"PATH": path})
    assert "cdi-hpc: can't be executed, and is needed to compile plans" in done.stderr


def test_help_is_the_launchers_and_then_ours(site):
    bare = lines(site.run(site.launcher, "--help"))
    for environ in ({}, NO_PYTHON):
        for words in (["--help"], ["-d", "-v", "--help", "IMAGE"]):
            found = lines(site.run("lab-run", *words, env=environ))
            assert found[1:] == [*bare[1:], "", "Also:", "  --device=DEVICE"]
    by_python = lines(site.run("cdi-hpc", "exec", "--runner=python", "lab-run", "--help"))
    assert by_python[1:] == found[1:]


def test_posixly_correct_ends_the_options_at_the_image_for_both(site):
    correct = {"POSIXLY_CORRECT": "1"}
    found = launched(site, "-d", site.image, "-v", "x", env=correct)
    assert found[-2:] == ["word -v", "word x"]
    assert launched(site, site.image, "-d", env={**correct, **NO_PYTHON})[-1] == "word -d"


LAUNCHER_WORDS = st.lists(
    st.sampled_from(
        [
            "-v",
            "-vv",
            "--verbose",
            "-b",
            "-bx",
            "--bind",
            "--bind=x",
            "--color",
            "--color=x",
            "--",
            "x",
            "-",
            "",
            "--bi",
        ]
    ),
    max_size=6,
)


@given(words=LAUNCHER_WORDS, at=st.integers(0, 6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much], max_examples=40)
def test_the_launcher_understands_its_own_options_as_it_does_without_us(words, at, site):
    """An option of ours among them changes nothing, wherever it stands and is read as one."""
    bare = site.run(site.launcher, *words, "--", site.image, "word")
    through = site.run("lab-run", *words[:at], "--cdi", *words[at:], "--", site.image, "word")
    assume(bare.returncode == 0)  # else the launcher refuses its own words
    assume("--cdi" not in through.stdout)  # else it is a value, or a word of the command
    assume(f"image {site.image}" in bare.stdout)  # else the image is another of the words, and no directory
    found = [line for line in lines(through) if not line.startswith("option s ")]
    assert found[1:] == lines(bare)[1:]


# Whose name it has ----------------------------------------------------------------------------------------------------


def test_a_launcher_that_is_nowhere_else_on_the_path_is_not_found(site):
    site.launcher.unlink()
    for words in (["--version"], ["-d", "IMAGE"]):
        done = site.run("lab-run", *words)
        assert (done.returncode, done.stdout) == (127, "")
        assert "lab-run" in done.stderr
    assert site.run("cdi-hpc", "exec", "--runner=python", "lab-run").returncode == 127


def test_other_drop_ins_on_the_path_are_passed_over(site, programs):
    others = [site.top / name for name in ("more", "copied/bin", "scripts")]
    for directory in others:
        directory.mkdir(parents=True)
    (others[0] / "lab-run").symlink_to(site.shim)
    shutil.copy(programs.run, others[1] / "cdi-hpc-run")
    (site.top / "copy").mkdir()
    (site.top / "copy/lab-run").symlink_to(others[1] / "cdi-hpc-run")
    made = site.run(
        "cdi-hpc", "shims", others[2], "lab-run", env={"PATH": "/usr/bin:/bin:/opt/venv/bin:/usr/local/bin"}
    )
    assert made.returncode == 0, made.stderr
    path = f"{site.top}/shims:{site.top}/more:{site.top}/copy:{site.top}/scripts:{site.top}/bin:{os.environ['PATH']}"
    for first in (site.shim, others[0] / "lab-run", site.top / "copy/lab-run"):
        for words in (["x"], ["-d", site.image]):
            assert lines(site.run(first, *words, env={"PATH": path}))[0] == f"name {site.launcher}"


def test_copies_of_the_native_program_know_each_other_whatever_they_are_called(site, programs):
    copies = [site.top / name / "lab-run" for name in ("one", "other")]
    for copy in copies:
        copy.parent.mkdir()
        shutil.copy(programs.run, copy)
    path = f"{copies[0].parent}:{site.top}/shims:{copies[1].parent}:{site.top}/bin:{os.environ['PATH']}"
    for first in (site.shim, *copies, "cdi-hpc"):
        before = ["exec", "--runner=python", "lab-run"] if first == "cdi-hpc" else []
        for words in (["x"], ["-d", site.image]):
            found = lines(site.run(first, *before, *words, env={"PATH": path}))
            assert found[0].startswith("name ")
            assert found[0].endswith(("name lab-run", f"name {site.launcher}"))


@pytest.mark.parametrize("how", ["exec lab-run", "lab-run"])
@pytest.mark.parametrize("before", [[], ["cdi-hpc", "exec", "--runner=python"]])
@pytest.mark.parametrize("words", [["--version"], ["-d", "IMAGE"]])
def test_a_script_that_finds_the_drop_in_where_it_looks_for_the_launcher_does_not_go_on_for_ever(
    words, before, how, site
):
    script = site.top / "scripts/lab-run"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n{how} "$@"\n')
    script.chmod(0o755)
    words = [str(site.image) if word == "IMAGE" else word for word in words]
    path = f"{site.top}/shims:{script.parent}:{site.top}/bin:{os.environ['PATH']}"
    done = site.run(*before, "lab-run", *words, env={"PATH": path})
    assert (done.returncode, done.stdout) == (125, "")
    assert f"{script}: this script executes lab-run, which is the drop-in that executes it" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["ch-run", "apptainer", "singularity"])
@pytest.mark.parametrize("before", [[], ["cdi-hpc", "exec", "--runner=python"]])
def test_a_launcher_that_is_asked_what_it_can_and_is_a_script_that_calls_us_is_named_once(name, before, lab, tmp_path):
    script = tmp_path / "scripts" / name
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n{name} "$@"\n')
    script.chmod(0o755)
    lab.run(["cdi-hpc", "shims", tmp_path / "shims", name])
    path = f"{tmp_path}/shims:{script.parent}:{os.environ['PATH']}"
    words = [*before, name, *(["exec"] if name != "ch-run" else []), "--device=nvidia.com/gpu=0", "/image", "true"]
    tmp_path.chmod(0o700)
    done = lab.run(words, env={"PATH": path, "XDG_RUNTIME_DIR": str(tmp_path)})
    assert (done.returncode, done.stdout) == (125, "")
    said = f"{script}: this script executes {name}, which is the drop-in that executes it"
    assert done.stderr == f"cdi-hpc: error: {said} (let it name the launcher by its path)\n"


def test_a_script_that_names_the_launcher_by_its_path_is_a_launcher(site):
    script = site.top / "scripts/lab-run"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {site.launcher} "$@"\n')
    script.chmod(0o755)
    path = f"{site.top}/shims:{script.parent}:{os.environ['PATH']}"
    for _ in range(2):
        found = lines(site.run("lab-run", "--environment", "-d", site.image, env={"PATH": path}))
        assert "env LAB_DEVICE=one" in found
        assert "env CDI_HPC_SCRIPTS=1" in found


def test_a_drop_in_without_the_native_program_is_a_script_that_does_the_same(site):
    site.shim.unlink()
    from cdi_hpc.launch.profile import SCRIPT_HEAD

    front = shutil.which("cdi-hpc")
    site.shim.write_text(f'{SCRIPT_HEAD}exec {front} exec --runner=python lab-run "$@"\n')
    site.shim.chmod(0o755)
    assert launched(site, site.image, "x") == ["name lab-run", f"image {site.image}", "word x"]
    assert "env LAB_DEVICE=one" in launched(site, "--environment", "-d", site.image)


def test_a_relative_directory_on_the_path_is_searched_as_a_shell_does(site):
    path = f"{site.top}/shims::{os.environ['PATH']}"
    found = lines(site.run(site.shim, "x", env={"PATH": path}, cwd=site.launcher.parent))
    assert found[0] == "name ./lab-run"


def test_exec_takes_a_launcher_by_its_path(site):
    elsewhere = site.top / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(site.launcher, elsewhere / "lab-run")
    for runner in ("auto", "python"):
        found = lines(site.run("cdi-hpc", "exec", f"--runner={runner}", elsewhere / "lab-run", "-d", site.image))
        assert found[0] == f"name {elsewhere}/lab-run"


def test_a_file_that_is_none_of_the_backends_programs_is_refused(site):
    done = site.run("cdi-hpc", "exec", "cat", "-d", "x")
    assert done.returncode == 125
    assert "launcher 'cat': there is no backend for it (there are some for 'ch-run'" in done.stderr


def test_a_broken_backend_is_an_error_for_its_own_launcher_alone(site):
    (site.top / "site/lab_backend.py").write_text("raise RuntimeError('of the backend')\n")
    done = site.run("lab-run", "-d", site.image)
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    assert "backend for 'lab-run' (lab_backend:LabBackend): can't be loaded: RuntimeError: of the backend" in line
    assert lines(site.run("lab-run", "-v", site.image))
    other = site.run("cdi-hpc", "exec", "ch-run", "--version")
    assert (other.returncode, "backend" in other.stderr) == (0, False)


BROKEN = {
    "at import": "import sys; sys.exit(3)\n",
    "when it is made": "import sys\nclass LabBackend:\n    def __init__(self): sys.exit(3)\n",
    "when it is asked": "from lab_ import *\nimport sys\nclass LabBackend(LabBackend):\n"
    "    probe = locate = adapt = lambda self, *_: sys.exit(3)\n",
    "by what it has": "from lab_ import *\nclass LabBackend(LabBackend):\n    commands = None\n",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_backend_that_exits_or_is_odd_ends_none_of_our_commands(how, site):
    module = site.top / "site/lab_backend.py"
    module.rename(site.top / "site/lab_.py")
    module.write_text(BROKEN[how])
    launch = site.run("lab-run", "-d", site.image)
    assert (launch.returncode, launch.stdout, launch.stderr.count("\n")) == (125, "", 1)
    assert "lab_backend:LabBackend" in launch.stderr
    explained = site.run("cdi-hpc", "explain", "--format=json", KIND)
    columns = {each["launcher"]: each for each in json.loads(explained.stdout)["launchers"]}
    assert {"embedded", "bash", "lab-run"} <= set(columns)
    (about,) = [text for key in ("stops", "messages") for text in columns["lab-run"][key]]
    assert "lab_backend:LabBackend" in about
    assert columns["embedded"]["stops"] == []
    written = site.run("cdi-hpc", "shims", site.top / "other")
    assert written.returncode == 0
    assert "lab_backend:LabBackend" in written.stderr
    assert "SystemExit: 3" in site.run("cdi-hpc", "doctor").stdout or how == "by what it has"


def test_an_entry_point_that_is_no_programs_name_is_passed_over_with_a_warning(site):
    points = site.top / "site/lab_backend-1.0.dist-info/entry_points.txt"
    points.write_text(f"{points.read_text()}a/b = lab_backend:LabBackend\n")
    for words in (["shims", site.top / "other"], ["explain", KIND]):
        done = site.run("cdi-hpc", *words)
        assert (done.returncode, done.stderr.count("\n")) == (0, 1)
        assert "warning: backend for 'a/b' (lab_backend:LabBackend): is passed over" in done.stderr
    assert (site.top / "other/lab-run").exists()


def test_an_image_that_only_a_launcher_can_find_is_its_own_to_explain(site):
    module = site.top / "site/lab_backend.py"
    finds = f"os.path.realpath(invocation.image if invocation.image != 'alpine:3.9' else {str(site.image)!r})"
    module.write_text(module.read_text().replace("os.path.realpath(invocation.image)", finds))
    alone = site.run("cdi-hpc", "explain", "--format=json", "--image=alpine:3.9", "--for=lab-run", KIND)
    (column,) = json.loads(alone.stdout)["launchers"]
    assert (alone.returncode, column["stops"]) == (0, [])
    every = site.run("cdi-hpc", "explain", "--format=json", "--image=alpine:3.9", KIND)
    stops = {each["launcher"]: each["stops"] for each in json.loads(every.stdout)["launchers"]}
    assert stops["lab-run"] == []
    assert all("image alpine:3.9: No such file" in stops[name][0] for name in ("embedded", "bash", "slurm"))
    nowhere = site.run("cdi-hpc", "explain", "--image=alpine:3.10", KIND)
    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert "image alpine:3.10: No such file" in nowhere.stderr


def test_an_object_that_is_no_backend_is_refused_by_name(site):
    (site.top / "site/lab_backend.py").write_text("class LabBackend:\n    name = 'lab'\n")
    done = site.run("lab-run", "-d", site.image)
    assert done.returncode == 125
    assert "is no backend: it has no commands, probe, locate, adapt" in done.stderr


#: A slip in a backend: what is another text in it, and what is said of that.
SLIPS = {
    "no profile": ('return Profile("lab"', 'Profile("lab"', "probe gives a NoneType, not a Profile"),
    "no image": ("return Located(path", "Located(path", "locate gives a NoneType, not a Located"),
    "no dressing": ("return Dressing(", "Dressing(", "adapt gives a NoneType, not a Dressing"),
    "raises": ("names = {name", "{}['x']; names = {name", "adapt: KeyError: 'x', at {file}:"),
    "an operating system's error": ("names = {name", "open('/nowhere'); names = {name", "adapt: FileNotFoundError: "),
    "arity": ('"required", "device"', '"requird", "device"', "ValueError: Option.arity is 'requird', not 'none' or "),
    "use": ('"none", "plan"', '"none", "plam"', "ValueError: Option.use is 'plam', not 'plan' or "),
    "a name that is a text": ('("--help",)', '("--help")', "TypeError: Option.names has a str, not a tuple"),
    "style": ('"getopt"', '"get-opt"', "probe: ValueError: Profile.style is 'get-opt', not 'getopt' or 'pflag', at "),
    "kind of image": ('"directory"', '"folder"', "locate: ValueError: Located.kind is 'folder', not 'directory' or "),
    "composition": (
        'Composition("overlay"',
        'Composition("overlai"',
        "ValueError: Composition.mode is 'overlai', not ",
    ),
    "a list": (
        'messages=("lab-run was told",)',
        'messages="lab-run"',
        "TypeError: Dressing.messages has a str, not a tuple",
    ),
    "a word": (
        'Text("--"),',
        '"--",',
        "adapt: TypeError: Dressing.words has a str, not a Text or Keep or StagePath, at ",
    ),
    "a variable": ("action.value)", "None)", "adapt: TypeError: Variable.value has a NoneType, not a str, at "),
    "commands": ('("lab-run",)', '("lab-run")', "commands is a text, not a tuple of them"),
    "a word that is not there": ("Keep(invocation.image_index)", "Keep(99)", "adapt keeps word 99 of "),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_in_a_backend_is_said_in_its_name_and_where(name, site):
    before, after, said = SLIPS[name]
    path = site.top / "site/lab_backend.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    done = site.run("lab-run", "--dressed", "-d", site.image)
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("cdi-hpc: error: backend ")
    assert "(lab_backend:LabBackend): " in line
    assert said.format(file=path) in line
    explained = site.run("cdi-hpc", "explain", "--for", "lab-run", DEVICE, "--image", site.image)
    assert "Traceback" not in explained.stderr


def test_who_writes_a_backend_sees_the_traceback_of_it(site):
    path = site.top / "site/lab_backend.py"
    path.write_text(path.read_text().replace("names = {name", "{}['x']; names = {name"))
    done = site.run("lab-run", "-d", site.image, env={"CDI_HPC_VERBOSITY": "1"})
    assert "cdi-hpc: note: Traceback (most recent call last):" in done.stderr
    assert f'cdi-hpc: note:   File "{path}", line ' in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "cdi-hpc: error: backend 'lab' (lab_backend:LabBackend): adapt: KeyError"
    )


# Without something ----------------------------------------------------------------------------------------------------


def test_without_python_a_launch_without_devices_works_and_one_with_says_what_is_missing(site):
    nowhere = {"CDI_HPC_PYTHON_FRONT": "/no/such/cdi-hpc"}
    assert lines(site.run("lab-run", "x", env=nowhere))
    done = site.run("lab-run", "-d", site.image, env=nowhere)
    assert (done.returncode, done.stdout) == (125, "")
    assert "/no/such/cdi-hpc: can't be executed" in done.stderr


def test_a_directory_in_the_place_of_a_profile_is_said_once_and_the_launch_goes_on(site):
    launched(site, "-d", site.image)
    (profile,) = site.cache.glob("*.profile")
    profile.unlink()
    profile.mkdir()
    for _ in range(2):
        done = site.run("lab-run", "--environment", "-d", site.image)
        assert "env LAB_DEVICE=one" in lines(done)
        assert done.stderr == f"cdi-hpc: warning: {profile}: not used: it is not a regular file (remove it)\n"


def test_a_profile_that_has_another_name_is_replaced(site):
    launched(site, "-d", site.image)
    (profile,) = site.cache.glob("*.profile")
    os.link(profile, site.cache / "another")
    assert "hard links" in site.run("lab-run", "-d", site.image).stderr
    done = site.run("lab-run", "-d", site.image, env=NO_PYTHON)
    assert (f"image {site.image}" in lines(done), done.stderr) == (True, "")


def test_a_cache_that_others_can_write_to_is_not_used_and_the_launch_goes_on(site):
    site.cache.mkdir(mode=0o700)
    site.cache.chmod(0o777)
    done = site.run("lab-run", "--environment", "-d", site.image)
    assert "env LAB_DEVICE=one" in lines(done)
    assert "others have access to it" in done.stderr
    assert list(site.cache.iterdir()) == []


def test_a_damaged_profile_is_made_anew(site):
    launched(site, "-d", site.image)
    (kept,) = site.cache.glob("*.profile")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-4])
    launched(site, "-d", site.image)
    assert kept.read_bytes() == whole


def test_a_plan_that_can_not_be_written_is_no_reason_not_to_launch(site):
    launched(site, "-d", site.image)
    (plan,) = site.cache.glob("*.plan")
    plan.unlink()
    plan.mkdir()
    done = site.run("lab-run", "--environment", "-d", site.image)
    assert "env LAB_DEVICE=one" in lines(done)
