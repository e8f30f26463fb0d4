"""What a launch with a fresh plan does, and does not do: no interpreter, and no file that the plan does not name."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest
from compiled_launch import Site, runner

KERNELS = ("/proc/", "/sys/", "/dev/")

#: Calls that take a path.
CALLS = "execve,execveat,open,openat,openat2,open_tree,stat,lstat,statx,newfstatat,access,faccessat,faccessat2,readlink"

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def calls(site: Site, *command: str) -> Iterator[tuple[str, list[str]]]:
    """System calls up to the command's own, each with the strings in it."""
    argv = ["strace", "-f", "-qq", "-s", "4096", "-e", f"trace={CALLS},fork,vfork,clone,clone3", "-e", "signal=none"]
    done = subprocess.run(
        [*argv, runner(), *site.argv(command)], env=site.environment, capture_output=True, text=True, check=True
    )
    for line in done.stderr.splitlines():
        name = re.sub(r"^\[pid +\d+\] ", "", line).partition("(")[0]
        strings = QUOTED.findall(line)
        if name == "execve" and strings[1:2] == [command[0]]:
            return
        yield name, strings


@pytest.mark.parametrize("stage", ["overlay", "underlay"])
@pytest.mark.parametrize("image", ["image", "/"])
def test_a_launch_with_a_plan_opens_the_plan_the_image_and_what_is_bound(site, image, stage):
    site.more = (f"--stage={stage}",)
    if image == "/":
        site.image = Path("/")
    site.launch()
    plan = site.plan()
    (stage_directory,) = site.stages()
    fields = set(plan.read_bytes().decode("utf-8", "surrogateescape").split("\0"))
    made = list(calls(site, "true"))
    assert [strings[0] for name, strings in made if name.startswith("exec")] == [runner()]
    assert not {"fork", "vfork", "clone", "clone3"}.intersection(name for name, _ in made)
    # By descriptor: the cache and the plan, the stage, the host's root and a place to mount at, the image's root.
    directories = {str(site.image), str(site.cache), str(stage_directory), "/var/cache/cdi-hpc", "/", "", ".", "tmp"}
    parents = {parent for field in fields if field.startswith("/") for parent in map(str, PurePath(field).parents)}
    named = fields | parents
    allowed = (
        {plan.name} | directories | named | {path.lstrip("/") for path in named} | set(map(os.path.basename, named))
    )
    opened = [strings[0] for name, strings in made if name.startswith("open") and strings]
    assert [path for path in opened if path not in allowed and not path.startswith(KERNELS)] == []


def test_no_spec_and_no_library_is_read(site):
    """They are looked at, by stat(2) alone."""
    site.launch()
    opened = {strings[0] for name, strings in calls(site, "true") if name.startswith("open") and strings}
    assert not any(path.endswith((".yaml", ".json", ".py", ".pyc")) for path in opened)
    assert not any(path.startswith(str(site.specs)) for path in opened)
    assert "/etc/ld.so.cache" not in opened
    assert f"{site.image}/etc/ld.so.cache" not in opened
    assert f"{site.driver}/libthing.so.1.5" not in {
        strings[0] for name, strings in calls(site, "true") if name in ("open", "openat") and strings
    }


def test_the_calls_are_as_many_as_the_records(site):
    """Nothing is looked at twice: the stat calls are those of the plan's records and a handful more."""
    site.launch()
    text = site.plan().read_bytes().split(b"\0")
    records = sum(text.count(word) for word in (b"file", b"dir", b"node", b"absent", b"link"))
    looked = [name for name, _ in calls(site, "true") if "stat" in name]
    assert len(looked) <= records + 40
