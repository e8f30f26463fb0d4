"""A hook that a site has run, in steps: as the job's user, on the node, whatever the step's root is."""

from __future__ import annotations

import json

import pytest
from slurm_site import ConfiguredSite

KIND = "lab.example/hooked"
WRITE = "read state; id -u >rootfs/usr/lib/made-by-hook"


@pytest.fixture
def site(configured_site) -> ConfiguredSite:
    specs = configured_site.top / "cdi"
    specs.mkdir(mode=0o755, exist_ok=True)
    hook = {"hookName": "createContainer", "path": "/usr/bin/dash", "args": ["sh", "-c", WRITE]}
    device = {"name": "one", "containerEdits": {"env": ["HOOKED=yes"], "hooks": [hook]}}
    (specs / "hooked.json").write_text(json.dumps({"cdiVersion": "0.5.0", "kind": KIND, "devices": [device]}))
    for path in specs.iterdir():
        path.chmod(0o644)
    configured_site.configure(cdi_dir=str(specs))
    configured_site.configure_nodes("{slurm: {unmapped: all}, hooks: {rules: [{path: /usr/bin/dash, action: run}]}}")
    return configured_site


@pytest.mark.parametrize("where", ["--cdi-mode=mounts", "--cdi-image={image}"])
def test_the_tasks_of_a_step_see_what_a_hook_wrote_as_the_jobs_user(site, lab, where):
    option = where.format(image=lab.image("debian-root"))
    done = site.srun("-n2", f"--cdi={KIND}=one", option, "sh", "-c", "cat /usr/lib/made-by-hook; id -u")
    said = done.stdout.split()
    assert len(said) == 4, done.stderr
    assert {*said} == {said[0]} != {"0"}
