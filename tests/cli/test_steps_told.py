"""What ``-v`` tells of a launch: the same by both runners, in the order in which it is done."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence

import pytest

GPU = ["--device", "nvidia.com/gpu=0"]


def told(argv: Sequence[object], env: Mapping[str, str], lab) -> list[str]:
    """What a launch that succeeds says."""
    done = lab.run(argv, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return [line.removeprefix("cdi-hpc: ") for line in done.stderr.splitlines()]


def by_both(before: list[str], after: Sequence[object], lab, tmp_path) -> tuple[list[str], list[str]]:
    """What both runners say, the native one of its second launch."""
    tmp_path.chmod(0o700)
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    told([*before, *after], env, lab)
    assert list(tmp_path.glob("cdi-hpc/*.plan"))
    native = told([*before, "-v", *after], env, lab)
    return told([*before, "-v", "--runner=python", *after], env, lab), native


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
def test_both_runners_tell_of_the_same_steps(stage, lab, tmp_path):
    words = [f"--stage={stage}", *GPU, lab.image("debian-root"), "true"]
    python, native = by_both(["cdi-hpc", "run"], words, lab, tmp_path)
    assert native == python
    assert "step: env NVIDIA_VISIBLE_DEVICES=void" in native
    assert any(re.fullmatch(r"note: staged file /etc/ld\.so\.cache: [0-9]+ entries", line) for line in native)
    bind = r"step: bind /usr/lib/x86_64-linux-gnu/(libcuda\.so\.[0-9.]+) -> /usr/lib/x86_64-linux-gnu/\1 \(.*ro.*\)"
    assert any(re.fullmatch(bind, line) for line in native)
    link = "note: staged link" if stage == "overlay" else "step: link"
    assert any(re.fullmatch(rf"{link} .*/libcuda\.so\.1 -> libcuda\.so\.[0-9.]+", line) for line in native)
    assert native[-1] == "step: exec true"


def test_what_only_a_file_needs_is_told(lab, tmp_path):
    image = lab.image("debian.sqfs")
    python, native = by_both(["cdi-hpc", "run"], [*GPU, image, "true"], lab, tmp_path)

    def without_place(lines: list[str]) -> list[str]:
        """The directory on which it is mounted is another one, and where it lies has other flags."""
        return [re.sub(r"step: overlay /\S+ -> / .*", "step: overlay", line) for line in lines]

    assert without_place(native) == without_place(python)
    assert native.index(f"step: mount {image} with squashfuse") < without_place(native).index("step: overlay")


def test_a_launcher_is_told_of_with_its_command_line(lab, tmp_path):
    image = lab.image("debian-root")
    before = ["cdi-hpc", "exec"]
    python, native = by_both(before, ["ch-run", *GPU, image, "--", "true"], lab, tmp_path)
    # The native runner puts the tree at its place and takes things out of it, the other one does so before.
    assert sorted(native) == sorted(python)
    assert f"step: place tree -> {image}" in native
    assert re.fullmatch(rf"step: exec \S*/ch-run .* {re.escape(str(image))} true", native[-1])
    assert native[-1] == python[-1]


def test_a_drop_in_tells_where_a_variable_asks_for_it(lab, tmp_path):
    subprocess.run(["cdi-hpc", "shims", tmp_path / "bin", "ch-run"], check=True, capture_output=True)
    words = [tmp_path / "bin/ch-run", *GPU, lab.image("debian-root"), "--", "true"]
    (tmp_path / "run").mkdir(0o700)
    env = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert told(words, env, lab) == []
    lines = told(words, {**env, "CDI_HPC_VERBOSITY": "1"}, lab)
    assert [line for line in lines if line.startswith("step: place")]
    assert lines[-1].startswith("step: exec ")


@pytest.mark.parametrize("word", ["a b", "it's", "", "$(id)", "a=b,c:d@e%f+g_h./i-", "\u00e9", "x;y", "'"])
def test_a_command_is_told_as_a_shell_takes_it(word, lab, tmp_path):
    words = [*GPU, lab.image("debian-root"), "true", word]
    python, native = by_both(["cdi-hpc", "run"], words, lab, tmp_path)
    assert native == python
    assert shlex.split(native[-1]) == ["step:", "exec", "true", word]


@pytest.mark.parametrize("word", ["\n", "\x1b[31m", "\u202e"])
def test_nothing_in_a_command_gets_to_the_terminal(word, lab, tmp_path):
    python, native = by_both(["cdi-hpc", "run"], [*GPU, lab.image("debian-root"), "true", word], lab, tmp_path)
    assert native == python
    assert word not in native[-1]


def test_a_command_that_is_longer_than_a_line_is_cut(lab, tmp_path):
    words = [*GPU, lab.image("debian-root"), "true", "one", "x" * 20000]
    _, native = by_both(["cdi-hpc", "run"], words, lab, tmp_path)
    assert native[-1] == "step: exec true one ..."
