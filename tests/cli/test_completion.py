"""The tab key, in real shells: what stands on the line afterwards."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import click
import pytest
import yaml
from terminal import completed

from cdi_hpc.cli import completion, completion_scripts
from cdi_hpc.cli.commands import cdi_hpc as program
from cdi_hpc.errors import CdiError
from cdi_hpc.explain import own

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'bind "set bell-style none"; eval "$(cdi-hpc completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'unsetopt beep zle_bracketed_paste; autoload -U compinit; compinit -u -D; eval "$(cdi-hpc completion zsh)"',
    ),
}

LINES = {
    "cdi-hpc resol": ["cdi-hpc", "resolve"],
    "cdi-hpc config sho": ["cdi-hpc", "config", "show"],
    "cdi-hpc run --writ": ["cdi-hpc", "run", "--writable-tmpfs"],
    "cdi-hpc explain --format mark": ["cdi-hpc", "explain", "--format", "markdown"],
    "cdi-hpc resolve lab.e": ["cdi-hpc", "resolve", "lab.example/tab"],
    "cdi-hpc resolve lab.example/tab=fi": ["cdi-hpc", "resolve", "lab.example/tab=first"],
    "cdi-hpc resolve lab.example/tab=first,lab.example/tab=0000:07": [
        "cdi-hpc",
        "resolve",
        "lab.example/tab=first,lab.example/tab=0000:07:00.0",
    ],
    "cdi-hpc run -d lab.example/tab=al": ["cdi-hpc", "run", "-d", "lab.example/tab=all"],
    "cdi-hpc run --device=lab.example/tab=fi": ["cdi-hpc", "run", "--device=lab.example/tab=first"],
    "cdi-hpc generate knem": ["cdi-hpc", "generate", "knem"],
    "cdi-hpc exec apptai": ["cdi-hpc", "exec", "apptainer"],
    "cdi-hpc exec ch-run --device lab.example/tab=fi": [
        "cdi-hpc",
        "exec",
        "ch-run",
        "--device",
        "lab.example/tab=first",
    ],
    "cdi-hpc exec -v ch-run --cdi=lab.example/tab=fi": [
        "cdi-hpc",
        "exec",
        "-v",
        "ch-run",
        "--cdi=lab.example/tab=first",
    ],
    "cdi-hpc exec apptainer exec --device lab.example/tab=first,lab.example/tab=sec": [
        *("cdi-hpc", "exec", "apptainer", "exec", "--device"),
        "lab.example/tab=first,lab.example/tab=second",
    ],
    "cdi-hpc exec ch-run --dev": ["cdi-hpc", "exec", "ch-run", "--device"],
    "cdi-hpc exec --runner native ch-run --device my-ta": [
        *("cdi-hpc", "exec", "--runner", "native", "ch-run", "--device", "my-tabs"),
    ],
    "cdi-hpc run -d my-ta": ["cdi-hpc", "run", "-d", "my-tabs"],
    "cdi-hpc exec ch-run /etc/cdi/nvi": ["cdi-hpc", "exec", "ch-run", "/etc/cdi/nvidia.yaml"],
    "cdi-hpc run --lock=/etc/cdi/nvi": ["cdi-hpc", "run", "--lock=/etc/cdi/nvidia.yaml"],
    "cdi-hpc list --cdi-dir=/etc/cd": ["cdi-hpc", "list", "--cdi-dir=/etc/cdi"],
    "cdi-hpc exec ch-run --lock=/etc/cdi/nvi": ["cdi-hpc", "exec", "ch-run", "--lock=/etc/cdi/nvidia.yaml"],
    "cdi-hpc run -d lab.example/tab /etc/cdi/nvi": ["cdi-hpc", "run", "-d", "lab.example/tab", "/etc/cdi/nvidia.yaml"],
    "cdi-hpc plan --image /etc/cdi/nvi": ["cdi-hpc", "plan", "--image", "/etc/cdi/nvidia.yaml"],
    "cdi-hpc explain --for embedded,charl": ["cdi-hpc", "explain", "--for", "embedded,charliecloud"],
    "cdi-hpc validate /etc/cdi/nvi": ["cdi-hpc", "validate", "/etc/cdi/nvidia.yaml"],
    "cdi-hpc resolve no.such/dev": ["cdi-hpc", "resolve", "no.such/dev"],
}


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    devices = [{"name": name, "containerEdits": {"env": ["A=b"]}} for name in ("first", "second", "0000:07:00.0")]
    (tmp_path / "tab.json").write_text(
        yaml.safe_dump({"cdiVersion": "0.5.0", "kind": "lab.example/tab", "devices": devices})
    )
    (tmp_path / ".config/cdi-hpc").mkdir(parents=True)
    (tmp_path / ".config/cdi-hpc/config.yaml").write_text("aliases: {my-tabs: lab.example/tab=all}\n")
    return tmp_path


@pytest.mark.parametrize("typed", LINES)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_the_word(shell: str, typed: str, specs: Path, lab):
    argv, setup = SHELLS[shell]
    assert completed(argv, setup, typed, {"CDI_HPC_DIRS": str(specs), "HOME": str(specs)}) == LINES[typed]


#: Command lines of launchers, with the script for ch-run, apptainer, srun and lab-run.
OF_LAUNCHERS = {
    "ch-run --device lab.example/tab=fi": ["ch-run", "--device", "lab.example/tab=first"],
    "ch-run -W --cdi=lab.example/tab=fi": ["ch-run", "-W", "--cdi=lab.example/tab=first"],
    "ch-run --device=lab.example/tab=first,lab.example/tab=0000:0": [
        *("ch-run", "--device=lab.example/tab=first,lab.example/tab=0000:07:00.0"),
    ],
    "apptainer exec --device my-ta": ["apptainer", "exec", "--device", "my-tabs"],
    "srun -n 2 --cdi=lab.example/tab=fi": ["srun", "-n", "2", "--cdi=lab.example/tab=first"],
    "srun --cdi lab.example/tab=fi": ["srun", "--cdi", "lab.example/tab=first"],
    "srun --cdi-mode=han": ["srun", "--cdi-mode=handoff"],
}

#: What completed the launchers before: for one it is there, for another it comes from a file when it is asked for.
OWN = {
    "bash": (
        "_own() { COMPREPLY=(own-word); }; _late() { COMPREPLY=(late-word); }; "
        "_comp_load() { [[ $1 != lab-run ]] || complete -F _late lab-run; }; complete -F _own ch-run; "
        'eval "$(cdi-hpc completion bash ch-run apptainer srun lab-run)"'
    ),
    "zsh": (
        "_own() { compadd own-word }; _late() { compadd late-word }; compdef _own ch-run; compdef _late lab-run; "
        'eval "$(cdi-hpc completion zsh ch-run apptainer srun lab-run)"'
    ),
}
OWN_LINES = {
    "ch-run ow": ["ch-run", "own-word"],
    "ch-run --cdi ow": ["ch-run", "--cdi", "own-word"],
    "ch-run --device=lab.example/tab ow": ["ch-run", "--device=lab.example/tab", "own-word"],
    "lab-run la": ["lab-run", "late-word"],
    "lab-run --device lab.example/tab=fi": ["lab-run", "--device", "lab.example/tab=first"],
    "apptainer /etc/cdi/nvi": ["apptainer", "/etc/cdi/nvidia.yaml"],
}


@pytest.mark.parametrize("typed", {**OF_LAUNCHERS, **OWN_LINES})
@pytest.mark.parametrize("shell", SHELLS)
def test_devices_of_launchers_are_completed_and_the_rest_as_it_was(shell: str, typed: str, specs: Path, lab):
    argv, setup = SHELLS[shell]
    wanted = {**OF_LAUNCHERS, **OWN_LINES}[typed]
    env = {"CDI_HPC_DIRS": str(specs), "HOME": str(specs)}
    assert completed(argv, f"{setup}; {OWN[shell]}", typed, env) == wanted


@pytest.mark.parametrize("typed", {**OF_LAUNCHERS, "ch-run --own": ["--own-option"]})
def test_fish_offers_devices_of_launchers(typed: str, specs: Path, lab):
    own = "complete --command ch-run --long-option own-option"
    script = f'{own}; cdi-hpc completion fish ch-run apptainer srun | source; complete --do-complete "{typed}"'
    done = lab.run(["fish", "--no-config", "-c", script], env={"CDI_HPC_DIRS": str(specs), "HOME": str(specs)})
    offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert OF_LAUNCHERS.get(typed, ["--own-option"])[-1] in offered


@pytest.mark.parametrize("shell", completion_scripts.LAUNCHERS)
@pytest.mark.parametrize("name", ["", "a b", "x;id", "$(id)", "-F", "../x", "{slurm}"])
def test_what_is_no_name_of_a_command_gets_into_no_script(shell: str, name: str):
    with pytest.raises(CdiError, match="no command's name"):
        completion.script(shell, program, [name])


def test_directories_on_a_launchers_line_are_looked_into(specs: Path):
    for option in (f"--cdi-dirs={specs}", f"--cdi-dirs {specs}"):
        offered = asked(f"cdi-hpc exec ch-run {option} --device lab", {"CDI_HPC_DIRS": "/no/such"}).stdout
        assert "plain,lab.example/tab=first\n" in offered


@pytest.mark.parametrize("typed", LINES)
def test_fish_offers_the_word(typed: str, specs: Path, lab):
    script = f'cdi-hpc completion fish | source; complete --do-complete "{typed}"'
    done = lab.run(["fish", "--no-config", "-c", script], env={"CDI_HPC_DIRS": str(specs), "HOME": str(specs)})
    offered = [line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert offered == [] if "no.such" in typed else LINES[typed][-1] in offered


def asked(line: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["cdi-hpc"],
        env={**os.environ, completion.COMPLETION_VARIABLE: "bash_complete", "COMP_LINE": line, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("text", ["not: [a spec", "cdiVersion: 99\nkind: /\n", "\0"])
def test_nothing_is_said_of_broken_specs(text: str, tmp_path: Path):
    (tmp_path / "broken.yaml").write_text(text)
    done = asked("cdi-hpc resolve nv", {"CDI_HPC_DIRS": str(tmp_path)})
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_nothing_is_said_of_a_directory_that_is_not_there():
    done = asked("cdi-hpc resolve --cdi-dir /no/such nv", {})
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize(
    "line", ["cdi-hpc nonsense ", "cdi-hpc run --no-such ", "cdi-hpc 'open", "cdi-hpc resolve \\", ""]
)
def test_nothing_is_said_of_a_line_that_makes_no_sense(line: str):
    done = asked(line, {})
    assert done.stderr == ""


def test_the_same_device_is_not_offered_twice(specs: Path):
    offered = asked("cdi-hpc resolve lab.example/tab=first,", {"CDI_HPC_DIRS": str(specs)}).stdout
    assert "plain,lab.example/tab=first,lab.example/tab=second\n" in offered
    assert "tab=first,lab.example/tab=first\n" not in offered


def test_devices_are_those_of_the_directory_on_the_line(specs: Path):
    offered = asked(f"cdi-hpc resolve --cdi-dir {specs} lab", {"CDI_HPC_DIRS": "/no/such"}).stdout
    assert "plain,lab.example/tab=first\n" in offered


#: Values that nobody can guess.
FREE = {"env", "gres", "workdir", "visible"}


def parameters(command: click.Command) -> list[tuple[str, click.Parameter]]:
    context = click.Context(command)
    if isinstance(command, click.Group):
        below = (command.get_command(context, name) for name in command.list_commands(context))
        return [pair for each in below if each is not None for pair in parameters(each)]
    return [(f"{command.name}: {parameter.name}", parameter) for parameter in command.params]


def test_every_parameter_is_completed_or_known_to_be_free():
    left = [
        name
        for name, parameter in parameters(program)
        if not (isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count))
        and not isinstance(parameter.type, click.Choice)
        and completion.completer_of(parameter) is None
        and parameter.name not in FREE
    ]
    assert left == []


def test_our_own_launchers_are_offered():
    assert completion.OWN_LAUNCHERS == own.NAMES
