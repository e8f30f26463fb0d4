"""What becomes of output that nobody takes: never a traceback, and never a status that says nothing."""

from __future__ import annotations

import subprocess

import pytest

#: Commands that print by each way there is.
PRINTING = {
    "table": "cdi-hpc list",
    "JSON": "cdi-hpc doctor --format json",
    "text": "cdi-hpc completion bash",
    "page": "cdi-hpc explain nvidia.com/gpu=0 --for embedded",
    "bytes": "cdi-hpc script nvidia.com/gpu=0",
    "lock": "cdi-hpc lock nvidia.com/gpu=0",
    "help": "cdi-hpc --help",
}


def shell(script: str, **how) -> subprocess.CompletedProcess[str]:
    argv = ["bash", "-c", script]
    return subprocess.run(argv, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=False, **how)


@pytest.mark.parametrize("closed", [">&-", "<&-", ">&- <&-"])
@pytest.mark.parametrize("way", PRINTING)
def test_a_stream_that_is_closed_takes_nothing_and_stops_nothing(way, closed, lab):
    whole = shell(f"{PRINTING[way]} >/dev/null")
    done = shell(f"{PRINTING[way]} {closed}", stdout=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (whole.returncode, whole.stderr)


def test_what_is_wrong_has_its_status_where_nobody_can_be_told(lab):
    for command, status in (("list --cdi-dir /nowhere", 1), ("list --nonsense", 2), ("run /nowhere true", 125)):
        for lost in ("2>&-", "2>/dev/full", ">&- 2>&-"):
            done = shell(f"cdi-hpc {command} {lost}", stdout=subprocess.DEVNULL)
            assert (done.returncode, done.stderr) == (status, ""), (command, lost)


@pytest.mark.parametrize("way", PRINTING)
def test_a_reader_who_has_seen_enough_is_not_bothered(way, lab):
    done = shell(f"{{ {PRINTING[way]}; echo $? >&2; }} | true", stdout=subprocess.DEVNULL)
    assert done.stderr in ("0\n", "1\n")


@pytest.mark.parametrize("way", PRINTING)
def test_a_disk_that_is_full_is_an_error_that_says_so(way, lab):
    done = shell(f"{PRINTING[way]} >/dev/full")
    assert (done.returncode, done.stderr) == (1, "cdi-hpc: error: standard output: No space left on device\n")


@pytest.mark.parametrize(
    "words",
    [
        "run rel true",
        "run --runner=python rel true",
        "explain ./x.yaml",
        "shims x",
        "list --cdi-dir x",
        "lock ./x.yaml",
    ],
)
def test_a_working_directory_that_is_gone_is_what_is_wrong(words, lab, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = shell(f"rmdir {gone}; cdi-hpc {words}", cwd=gone, stdout=subprocess.DEVNULL)
    assert done.returncode == (125 if words.startswith("run") else 1)
    assert done.stderr.startswith("cdi-hpc: error: working directory: No such file or directory (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("runner", ["auto", "python"])
def test_what_a_caller_has_closed_is_closed_for_the_command(runner, lab, tmp_path):
    seen = tmp_path / "seen"
    look = f"exec 7>{seen}; for n in 0 1 2; do readlink /proc/$$/fd/$n >&7 || echo closed >&7; done"
    words = f"--runner={runner} --bind {tmp_path} {lab.image('debian-root')}"
    found = []
    for before in ("", *[f"cdi-hpc run {words}"] * 2):  # the last one may have a plan
        done = shell(f"{before} sh -c '{look}' <&- >&- 2>&-", stdout=subprocess.DEVNULL)
        assert done.returncode == 0
        found.append(seen.read_text())
    assert "closed" in found[0]
    assert found == [found[0]] * 3
