"""A plan that is fresh and can't be applied all the same: Python finds another way, and the plan is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from configured_user import NO_PYTHON, ONE, SAY, User, make_user

from cdi_hpc.compiled import wire


@pytest.fixture
def user(lab, tmp_path) -> User:
    user = make_user(tmp_path, lab.image("debian-root"), "ch-run")
    mount = {"hostPath": "/etc/hostname", "containerPath": "/opt/hostname"}
    spec = user.top / "specs/tool.json"
    spec.write_text(
        spec.read_text().replace('"env": ["TOOL=one"]', f'"env": ["TOOL=one"], "mounts": [{mount}]'.replace("'", '"'))
    )
    return user


def spoil(cache: Path) -> None:
    """Have the only plan bind what is nowhere, as the last of its steps."""
    (path,) = cache.glob("*.plan")
    step = wire.encode(wire.WirePlan("0" * 64, 0, 0, None, (wire.Bind("/", "/"), wire.Bind("/no/such", "/mnt"))))
    step = step[step.rindex(b"bind\0") : -len(b"end\0")]
    data = path.read_bytes()
    at = data.find(b"\0place\0") + 1 or len(data) - len(b"end\0")
    path.write_bytes(data[:at] + step + data[at:])


@pytest.mark.parametrize("launcher", ["cdi-hpc-run", "ch-run"])
def test_the_launch_works_with_a_warning_and_the_next_one_makes_the_plan_anew(launcher, user):
    line = (launcher, "--device", ONE, user.image, "--", *SAY)
    assert user.said(*line) == "one"
    spoil(user.cache)
    done = user.do(*line)
    assert (done.returncode, done.stdout) == (0, "one\n")
    assert done.stderr == "cdi-hpc: warning: /mnt: can't bind /no/such there: No such file or directory\n"
    assert list(user.cache.glob("*.plan")) == []
    assert user.said(*line) == "one"
    assert user.said(*line, **NO_PYTHON) == "one"
