"""What the manual shows of srun is what happens on a cluster."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from docs.page_examples import Block, blocks, matches
from slurm_site import PATH, PROJECT

PAGE = [block for block in blocks(PROJECT / "docs/slurm.md", "docs/slurm.md") if "shown: it takes" in block.use]
SHOWN = [block for block in PAGE if block.use == "shown: it takes a Slurm cluster with the plugin"]
BY_HAND = [block for block in PAGE if "slurm-lab start" in block.text]


@pytest.fixture
def reader(site, built, lab) -> dict[str, str]:
    """The directory of somebody who reads the manual, and his environment."""
    _, runner = built
    home = site.top / "home"
    if not (home / "debian12").is_symlink():
        (home / "debian12").symlink_to(lab.image("debian-user"))
    path = f"{runner.parent}:{PATH}"
    if not (home / "shims").exists():
        assert site.run("cdi-hpc", "shims", str(home / "shims"), env={"PATH": path}).returncode == 0
    return {"PATH": f"{home / 'shims'}:{path}"}


def test_the_manual_shows_each_way_and_a_refusal():
    words = " ".join(block.text for block in SHOWN)
    assert len(SHOWN) == 2
    assert all(
        word in words for word in ("--cdi-mode=mounts", "--cdi-image=", "ch-run", "cdi-hpc run", "error: device")
    )


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.where)
def test_srun_does_what_the_manual_shows(site, reader, block: Block):
    for command in block.commands():
        # Quiet about waiting for the job before, which is not quite gone.
        script = f'srun() {{ command srun --quiet "$@"; }}; exec 2>&1; {command.text}'
        done = site.run("bash", "-c", script, env=reader)
        assert matches(command.output, done.stdout), done.stdout
        assert (done.returncode == 0) is ("error: " not in done.stdout)


@pytest.mark.parametrize("block", BY_HAND, ids=lambda block: block.where)
def test_the_cluster_to_try_it_on_is_one(built, tmp_path, block: Block):
    plugin, runner = built
    compiler = shutil.which("cdi-hpc", path=PATH)
    (tmp_path / "plugstack.conf").write_text(f"required {plugin} cdi-hpc={compiler} cdi-hpc-run={runner}\n")
    (tmp_path / "scripts").symlink_to(PROJECT / "scripts")
    environ = {"PATH": PATH, "HOME": str(tmp_path), "USER": "reader", "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euc", block.text],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^nvidia\.com/gpu=\d$", done.stdout, re.MULTILINE) == ["nvidia.com/gpu=0"] * 2
