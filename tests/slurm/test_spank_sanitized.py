"""The plugin under AddressSanitizer and UndefinedBehaviorSanitizer, with stubs of Slurm's functions (spank_harness.c).

Every callback is called as each of Slurm's programs calls it, with what users and sites can bring there, and with each
call of Slurm's and of the C library's failing in turn. Whatever happens: the sanitizers see nothing, no callback of
slurmstepd's fails before the tasks, and a task that was to have devices has them or has ended with 125.
"""

from __future__ import annotations

import os
import pwd
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from slurm_site import JOB_USER, PATH, PROJECT

KIND = "nvidia.com/gpu"
GPUS = "env=SLURM_STEP_GPUS=0,1"
HANDOFF = (f"option=cdi={KIND}", GPUS)
MOUNTS = (*HANDOFF, "option=cdi-mode=mounts")
BATCH_SCRIPT, INTERACTIVE, EXTERN = 0xFFFFFFFB, 0xFFFFFFFA, 0xFFFFFFFC

#: It ends a process in which something was found.
FOUND = "99"


@dataclass
class Played:
    """What happened in a scenario."""

    words: Sequence[str]
    lines: list[str]

    def every(self, pattern: str) -> list[re.Match[str]]:
        return [found for line in self.lines if (found := re.fullmatch(pattern, line))]

    @property
    def said(self) -> list[str]:
        return [found[1] for found in self.every(r"slurm_(?:error|spank_log) (.*)")]

    @property
    def ended(self) -> dict[int, int]:
        """Task -> its exit status; 0 if it would have become the user's program."""
        return {int(found[1]): int(found[2]) for found in self.every(r"task (\d+) (-?\d+)")}

    def env(self, task: int) -> dict[str, str]:
        return {found[1]: found[2] for found in self.every(rf"env {task} ([^=]+)=(.*)")}

    def is_in_own_namespace(self, task: int) -> bool:
        before, after = (self.every(rf"namespace {when} {task} (.*)") for when in ("before", "after"))
        return before[0][1] != after[0][1]

    def has_devices(self, task: int) -> bool:
        cache = next(word.partition("cache=")[2] for word in self.words if word.startswith("argument=cache="))
        plan = self.env(task).get("CDI_HPC_PLAN", "")
        return bool(cache and plan.startswith(f"{cache}/")) or self.is_in_own_namespace(task)

    @property
    def calls(self) -> dict[str, int]:
        """Function -> how often the process that called it most has."""
        counts: dict[str, int] = {}
        for found in self.every(r"calls (\w+) (\d+)"):
            counts[found[1]] = max(counts.get(found[1], 0), int(found[2]))
        return counts

    @property
    def is_asked_for(self) -> bool:
        """Whether somebody wanted devices, or wanted what can't be understood."""
        results = [(found[1], found[2]) for found in self.every(r"option (\S+) (-?\d+|unknown)")]
        given = [word.removeprefix("option=") for word in self.words if word.startswith("option=")]
        devices = [text.partition("=")[2] for text in given if text.partition("=")[0] == "cdi"]
        if any(status == "-1" for _, status in results):
            return True
        if devices:
            return devices[-1] != "none"
        is_default = any(word.startswith("argument=default=") for word in self.words) and GPUS in self.words
        return is_default or any(text.startswith("cdi-image") for text in given)

    def check(self) -> None:
        """What holds whatever happens."""
        told = "\n".join([*map(repr, self.words), "", *self.lines])
        assert self.lines[-1] == "ended 0", told
        assert all(text.startswith("cdi: ") and not re.search(r"\\x(0|1|7f)", text) for text in self.said), told
        assert self.every("children none"), told
        (descriptors,) = self.every(r"descriptors (-?\d+)")
        assert 0 <= int(descriptors[1]) <= 6, told  # what tasks inherit
        if "context=slurmstepd" not in self.words:
            return
        assert all(found[2] == "0" for found in self.every(r"called (\S+) (-?\d+)")), told
        for task, status in self.ended.items():
            assert status in {0, 125}, told
            if status == 0 and self.is_asked_for:
                assert self.has_devices(task), told
            if status == 0 and not self.is_asked_for:
                assert not self.has_devices(task), told


@dataclass
class Harness:
    """The plugin and its caller, and where the job's user has his plans."""

    directory: Path
    top: Path

    def play(self, *scenarios: Sequence[str]) -> list[Played]:
        """Each with the site's arguments, in a process of its own."""
        full = [[*self.site(words), *words] for words in scenarios]
        data = b"".join(b"".join(os.fsencode(word) + b"\0" for word in words) + b"\0" for words in full)
        argv = [self.directory / "spank_harness", self.directory / "cdi_spank.so"]
        options = {"ASAN_OPTIONS": f"exitcode={FOUND}:detect_leaks=1", "PATH": PATH, "LANG": "C.UTF-8"}
        done = subprocess.run(argv, input=data, capture_output=True, check=False, env=options, cwd="/", timeout=550)
        said = done.stderr.decode(errors="replace")
        assert said == "", said
        assert done.returncode == 0
        texts = re.split(r"(?<=^ended )(-?\d+)\n", done.stdout.decode("ascii"), flags=re.MULTILINE)
        played = [Played(w, (text + status).splitlines()) for w, text, status in zip(full, texts[::2], texts[1::2])]
        assert len(played) == len(scenarios), done.stdout.decode()[-2000:]
        for each in played:
            each.check()
        return played

    def site(self, words: Sequence[str]) -> list[str]:
        """What a scenario does not say itself."""
        given = {"cdi-hpc": shutil.which("cdi-hpc", path=PATH), "cdi-hpc-run": self.runner, "cache": self.top / "plans"}
        found = [f"argument={name}={value}" for name, value in given.items()]
        found = [word for word in found if not any(w.startswith(word[: word.rindex("=") + 1]) for w in words)]
        ids = [f"uid={self.user[0]}", f"gid={self.user[1]}"]
        context = [] if any(word.startswith("context=") for word in words) else ["context=slurmstepd"]
        return [*context, *found, *ids]

    @property
    def runner(self) -> Path:
        return self.top / "native/cdi-hpc-run"

    @property
    def user(self) -> tuple[int, int]:
        if os.geteuid() != 0:
            return os.geteuid(), os.getegid()
        entry = pwd.getpwnam(JOB_USER)
        return entry.pw_uid, entry.pw_gid

    def program(self, text: str) -> Path:
        path = self.top / f"program{len(list(self.top.glob('program*')))}"
        path.write_text(text)
        path.chmod(0o755)
        return path


@pytest.fixture(scope="module", params=["own", pytest.param("root", marks=pytest.mark.root)])
def harness(request, built, lab) -> Iterator[Harness]:
    _, runner = built
    top = Path(tempfile.mkdtemp(prefix="cdi-asan-", dir="/tmp"))
    top.chmod(0o755)
    (top / "native").symlink_to(runner.parent)
    argv = ["make", "--silent", "-C", str(PROJECT / "slurm/spank"), f"BUILD={top}/build", "asan"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    yield Harness(top / "build/asan", top)
    shutil.rmtree(top)


# What each of Slurm's programs does ---------------------------------------------------------------------------------


def test_srun_and_its_like_take_valid_options(harness):
    for context in ("srun", "allocator"):
        words = [f"context={context}", "option=cdi=nvidia.com/gpu=0,a.b/c", "option=cdi-mode=mounts"]
        (played,) = harness.play([*words, "option=cdi-image=/images/debian"])
        assert [found[2] for found in played.every(r"option (\S+) (\S+)")] == ["0"] * 3
        assert played.said == []
        assert {found[1] for found in played.every(r"called (\S+) 0")} >= {
            "slurm_spank_init",
            "slurm_spank_init_post_opt",
            "slurm_spank_exit",
        }


def test_other_programs_of_slurms_are_left_alone(harness):
    words = [(f"context={context}", "option=cdi=nvidia.com/gpu") for context in ("slurmd", "job_script", "error")]
    for played in harness.play(*words):
        assert played.said == []
        assert played.every(r"calls .*") == []


@pytest.mark.parametrize("words", [HANDOFF, MOUNTS])
def test_tasks_have_the_devices_of_the_step(harness, words):
    (played,) = harness.play([*words, "tasks=5"])
    assert played.ended == dict.fromkeys(range(5), 0)
    assert played.said == []
    ids = {(found[1], found[2]) for found in played.every(r"id \d (\d+) (\d+)")}
    assert ids == {tuple(map(str, harness.user))}
    namespaces = {found[1] for found in played.every(r"namespace after \d (.*)")}
    assert len(namespaces) == 1
    if words is HANDOFF:
        assert played.env(3)["CDI_HPC_DEVICES"] == f"{KIND}=0,{KIND}=1"


def test_steps_that_inherit_and_steps_without_tasks(harness):
    forged = "env=SLURM_JOB_GPUS=0,1"
    words = [f"option=cdi={KIND}", forged, "gres=gpu:a100:2(IDX:0-1),nic:1(IDX:0)"]
    batch, interactive, ordinary, extern = harness.play(
        *([*words, f"step={step}", "tasks=1"] for step in (BATCH_SCRIPT, INTERACTIVE, 3)),
        [*words, f"step={EXTERN}", "tasks=0"],
    )
    for inherited in (batch, interactive):
        assert inherited.env(0)["CDI_HPC_DEVICES"] == f"{KIND}=0,{KIND}=1"
    assert ordinary.ended == {0: 125}
    assert "this step has no GPUs allocated" in ordinary.said[0]
    assert (extern.ended, extern.said) == ({}, [])


#: What the controller says of a job's GRES on a node -> whether GPUs are among them.
GRES = {
    "gpu:2(IDX:0-1)": True,
    "nic:1(IDX:0),gpu:tesla:1(IDX:3)": True,
    "": False,
    "gpu:0(IDX:)": False,
    "gpu:a100:0(IDX:)": False,
    "gpu:a100:0(IDX:),gpu:t4:1(IDX:0)": True,
    "nic:1(IDX:0)": False,
    "mygpu:1(IDX:0)": False,
    "gpu": False,
    ",,gpu:": False,
    ",,gpu:1": True,
    "gpu:0(" * 2000: False,
    "x" * 100_000: False,
}


def test_a_batch_script_has_gpus_if_the_controller_says_so(harness):
    words = [f"option=cdi={KIND}", "env=SLURM_JOB_GPUS=0,1", f"step={BATCH_SCRIPT}", "tasks=1"]
    for (text, has), played in zip(GRES.items(), harness.play(*([*words, f"gres={text}"] for text in GRES))):
        assert played.ended == {0: 0 if has else 125}, text
    silent, failing = harness.play(words, [*words, "fail=slurm_load_job:1", "gres=gpu:2"])
    assert silent.ended == failing.ended == {0: 125}
    assert "Slurm's controller does not say" in failing.said[0]


def test_the_sites_default_is_for_steps_that_have_gpus(harness):
    default = f"argument=default={KIND}"
    given, idle, off, batch, forged, unanswered, wrong = harness.play(
        [default, GPUS],
        [default],
        [default, GPUS, "option=cdi=none", "option=cdi-image=/"],
        [default, f"step={BATCH_SCRIPT}"],
        [default, f"step={BATCH_SCRIPT}", "env=SLURM_JOB_GPUS=0,1", "gres=nic:1(IDX:0)"],
        [default, f"step={BATCH_SCRIPT}", "env=SLURM_JOB_GPUS=0,1", "fail=slurm_load_job:1"],
        [default, "argument=timeout=0"],
    )
    assert given.env(0)["CDI_HPC_DEVICES"] == f"{KIND}=0,{KIND}=1"
    for plain in (idle, off, batch, forged, wrong):
        assert (plain.ended, plain.said) == ({0: 0, 1: 0}, [])
    assert unanswered.ended == {0: 125, 1: 125}
    assert "Slurm's controller does not say" in unanswered.said[0]


def test_options_are_delivered_twice_and_by_the_environment(harness):
    twice, inherited, repeated, off, misled = harness.play(
        [*HANDOFF, *HANDOFF],
        [
            "context=srun",
            "getenv=SLURM_SPANK__SLURM_SPANK_OPTION_cdi_cdi=a.b/c",
            "option=cdi=a.b/c",
            "option=cdi=d.e/f",
        ],
        ["context=srun", "option=cdi=a.b/c", "option=cdi=d.e/f"],
        [*HANDOFF, "option=cdi=none"],
        [*HANDOFF, "option=cdi=no device", f"option=cdi={KIND}"],
    )
    assert twice.ended == {0: 0, 1: 0}
    assert inherited.said == []
    assert "given twice" in repeated.said[0]
    assert (off.ended, off.said) == ({0: 0, 1: 0}, [])
    assert misled.ended == {0: 125, 1: 125}


#: What could arrive in an option.
HOSTILE = [
    "",
    "=",
    ",",
    "none,none",
    "a.b/c," * 5000 + "a.b/c",
    "a.b/c=" + "x" * 100_000,
    "a.b/c=%s%n%s%n",
    "a.b/c=$(id)",
    "\x1b[2J\x07",
    "/etc/shadow",
    "../../../etc",
    "a.b/c=\udcff\udcfe",
    "nvidia.com/gpu=0\nSLURM_STEP_GPUS=0",
    "/" * 5000,
    "handoff",
    "mounts",
]


@pytest.mark.parametrize("context", ["srun", "slurmstepd"])
@pytest.mark.parametrize("name", ["cdi", "cdi-mode", "cdi-image"])
def test_hostile_options(harness, context, name):
    values = [f"option={name}", *(f"option={name}={value}" for value in HOSTILE)]
    first = [] if name == "cdi" else [f"option=cdi={KIND}"]
    harness.play(*([f"context={context}", *first, value, GPUS, "tasks=1"] for value in values))


ARGUMENTS = [
    "",
    "=",
    "cache",
    "cache=",
    "cache=relative",
    "cdi-hpc=" + "/" * 5000,
    "timeout=-1",
    "timeout=99999999999999999999",
]
ARGUMENTS += ["timeout=1e9", "mode=", "default=", "default=x", "gpus=", "cdi-dir=x", "%s=%n", "\x1b=\x1b", "TIMEOUT=3"]


def test_wrong_arguments_of_the_site_stop_only_who_asks_for_devices(harness):
    wrong = [[f"argument={text}", "tasks=1"] for text in ARGUMENTS]
    for asked, idle in zip(harness.play(*([*w, *HANDOFF] for w in wrong)), harness.play(*wrong)):
        assert asked.ended == {0: 125}, asked.words
        assert "plugstack.conf" in asked.said[0]
        assert idle.ended == {0: 0}
    (many,) = harness.play([*(f"argument=cdi-dir=/{n}" for n in range(17)), *HANDOFF])
    assert many.ended == {0: 125, 1: 125}


VARIABLES = {
    "SLURM_STEP_GPUS": ["", "x", "-1", "0,", "0-99999999", "0-3," * 6000, "\x1b"],
    "SLURM_JOB_GPUS": ["0,1,2,3"],
    "CDI_HPC_ENV_NAMES": ["", "=", "==A==", "CDI_HPC_PLAN=CDI_HPC_ENV_NAMES", "A=" * 8191, "B" * 16383, "B" * 40_000],
    "CDI_HPC_HANDOFF": ["", "=", "A", "A=\nB=\n\n=", "CDI_HPC_HANDOFF=x", "APPTAINER_BIND=/a:/b", "A=b\n" * 20_000],
    "APPTAINER_BIND": ["", "/a:/b", ",", "/a:/b," * 20_000, "x" * 1_100_000],
    "APPTAINERENV_LD_LIBRARY_PATH": ["", ":", "/opt/lib:" * 1000, "/a\nb"],
    "SINGULARITYENV_LD_LIBRARY_PATH": ["", "/opt/lib:" * 1000, "/a\nb"],
    "SLURMD_NODENAME": ["", "n" * 1000],
    "CDI_HPC_PLAN": ["/etc/shadow"],
    "CDI_HPC_DEVICES": ["example.org/none=1"],
}


@pytest.mark.parametrize("name", [*VARIABLES])
def test_hostile_variables(harness, name):
    forged = [f"env={name}={value}" for value in VARIABLES[name]]
    given = [] if name == "SLURM_STEP_GPUS" else [GPUS]
    ways = ([f"option=cdi={KIND}"], [f"option=cdi={KIND}", "option=cdi-mode=mounts"], ["option=cdi=none"], [])
    harness.play(*([variable, *given, *way, "tasks=1"] for variable in forged for way in ways))


#: What a program of ours could do.
PROGRAMS = {
    "garbage": "head -c 100000 /dev/urandom",
    "zeros": "head -c 100000 /dev/zero",
    "a long line": "head -c 100000 /dev/zero | tr '\\0' /",
    "two lines": "printf '/a\\n/b\\n'",
    "a path of nothing": "echo /no/such/file.plan",
    "a path without a directory": "echo /$(printf %064d 0).plan",
    "a name that is none": "echo /tmp/plan",
    "silence": ":",
    "many errors": "yes 'cdi-hpc: error: this' | head -n 5000 >&2; exit 125",
    "errors without ends": "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3",
    "an end by a signal": "kill -SEGV $$",
    "closed streams": "exec >&- 2>&-",
    "a plan that is none": "umask 77; f=$(mktemp -d)/$(printf %064d 0).plan; head -c 9999 /dev/urandom >$f; echo $f",
}


@pytest.mark.parametrize("mode", ["handoff", "mounts"])
def test_hostile_answers_of_our_own_programs(harness, mode):
    paths = [harness.program(f"#!/bin/sh\n{text}\n") for text in PROGRAMS.values()]
    paths += [Path("/etc/passwd"), Path("/no/such/program"), harness.program("")]
    no_plan = harness.program("#!/bin/sh\nexit 1\n")
    finds = [[f"argument=cdi-hpc-run={path}"] for path in paths]
    compiles = [[f"argument=cdi-hpc-run={no_plan}", f"argument=cdi-hpc={path}"] for path in paths]
    for played in harness.play(*([*words, *HANDOFF, f"option=cdi-mode={mode}"] for words in finds + compiles)):
        assert set(played.ended.values()) == {125}, played.lines
        assert played.said


# What fails -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [HANDOFF, MOUNTS], ids=["handoff", "mounts"])
def test_each_call_that_fails_in_turn(harness, words):
    """The sweep is as long as an undisturbed step is, and a few more for the programs that it starts."""
    inherited = ["env=CDI_HPC_ENV_NAMES=OLD", "env=OLD=1", "env=CDI_HPC_HANDOFF=APPTAINER_BIND=/old:/old"]
    words = [*words, *inherited, "env=APPTAINER_BIND=/old:/old,/tmp:/mnt", "tasks=2", "argument=timeout=3"]
    (whole,) = harness.play(words)
    assert set(whole.ended.values()) == {0}
    failing = [(name, n) for name, count in whole.calls.items() for n in range(1, count + 3)]
    # Slurm's own registration fails for want of memory alone, in which case slurmstepd ends itself.
    failing = [(name, n) for name, n in failing if name != "spank_option_register"]
    harness.play(*([*words, f"fail={name}:{n}"] for name, n in failing))


def test_a_command_line_on_which_a_call_fails(harness):
    words = ["context=srun", f"option=cdi={KIND}", "option=cdi-mode=mounts", "option=cdi-image=/x"]
    harness.play(*([*words, f"fail={name}:{n}"] for name in ("strdup", "spank_option_register") for n in range(1, 5)))


def chosen(dice: random.Random, no_plan: Path) -> list[str]:
    """A scenario of chance."""
    device = [KIND, f"{KIND}=all", f"{KIND}=0", "none", "a.b/c=1", *HOSTILE]
    options = [f"option=cdi={dice.choice(device)}" for _ in range(dice.randrange(4))]
    options += [f"option=cdi-mode={dice.choice(['mounts', 'handoff', 'x', ''])}" for _ in range(dice.randrange(2))]
    options += [f"option=cdi-image={dice.choice(['/', '/no/such', '', 'x'])}" for _ in range(dice.randrange(8) == 0)]
    names = dice.sample([*VARIABLES], dice.randrange(4))
    variables = [f"env={name}={dice.choice(VARIABLES[name])}" for name in names]
    given = [GPUS] if "SLURM_STEP_GPUS" not in names else []
    functions = ["malloc", "strdup", "asprintf", "fork", "pipe2", "read", "openat", "spank_setenv", "spank_getenv"]
    failing = [f"fail={dice.choice(functions)}:{dice.randrange(1, 30)}" for _ in range(dice.randrange(3))]
    context = dice.choice(["slurmstepd"] * 4 + ["srun", "allocator", "job_script"])
    step = dice.choice([0, 0, 0, BATCH_SCRIPT, INTERACTIVE])
    slow = [f"argument=cdi-hpc={no_plan}"]  # what has no plan is refused at once
    words = [f"context={context}", *slow, *options, *variables, *given, *failing]
    return [*words, f"step={step}", f"tasks={dice.randrange(1, 4)}"]


def test_scenarios_of_chance(harness):
    harness.play(HANDOFF, MOUNTS)  # leaves plans to be found
    refusing = harness.program("#!/bin/sh\necho 'cdi-hpc: error: no' >&2\nexit 125\n")
    dice = random.Random(5)  # noqa: S311  # the same ones each time
    played = harness.play(*(chosen(dice, refusing) for _ in range(400)))
    ways = {(task.is_asked_for, status) for task in played for status in task.ended.values()}
    assert ways >= {(True, 0), (True, 125), (False, 0)}
