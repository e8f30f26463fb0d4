"""What every launcher begins with: the configuration's share of a plan."""

from __future__ import annotations

import grp
import os
import pwd

import pytest
from fake_host import host
from policy_cases import planned, spec
from site_files import site

from cdi_hpc.config import LauncherDefaults
from cdi_hpc.errors import CdiError
from cdi_hpc.plan import Note, SetEnv, Unsupported
from cdi_hpc.planning import Wanted, asked_for, cache_bounds, judged, load_configuration, plan_devices
from cdi_hpc.site.identity import this_user
from cdi_hpc.site.policy import Policy
from cdi_hpc.spec.model import Hook, Origin
from cdi_hpc.translation.translate import translate


class Silent:
    """Nobody is told anything."""

    def warn(self, text: object) -> None:
        """A warning."""

    def note(self, text: object) -> None:
        """A note."""


@pytest.fixture
def user(tmp_path) -> dict[str, str]:
    """A user's environment, with a configuration that no launch of his survives."""
    (tmp_path / "cdi-hpc").mkdir(mode=0o755)
    (tmp_path / "cdi-hpc/config.yaml").write_text("no-such-key: 1")
    (tmp_path / "cdi-hpc/config.yaml").chmod(0o644)
    return {"XDG_CONFIG_HOME": str(tmp_path), "CDI_HPC_DIRS": str(tmp_path), "CDI_HPC_STRICT": "perhaps"}


def test_a_plan_for_everybody_knows_nothing_of_whoever_makes_it(user):
    with pytest.raises(CdiError, match="no-such-key"):
        load_configuration(user)
    with pytest.raises(CdiError, match="no-such-key"):
        cache_bounds(user)
    assert load_configuration(user, everybody=True) == load_configuration({})
    wanted = Wanted("embedded", ("none",))
    with pytest.raises(CdiError, match="no-such-key"):
        plan_devices(wanted, user, host(), Silent())
    assert plan_devices(wanted._replace(everybody=True), user, host(), Silent()).plan.actions == ()


@pytest.mark.parametrize(
    "asked, configured, devices",
    [
        ((), (), ()),
        ((), ("gpu",), ("gpu",)),
        (("nic",), ("gpu",), ("nic",)),
        (("none",), ("gpu",), ()),
        (("none", "nic"), (), ("nic",)),
        ((), ("none",), ()),
    ],
)
def test_a_launch_gets_what_it_asks_for_or_else_what_is_configured(asked, configured, devices):
    assert asked_for(asked, LauncherDefaults(devices=configured)) == devices


def test_only_what_can_not_be_done_becomes_fatal():
    origin = Origin("x.yaml", "", "field")
    actions = (SetEnv("A", "1", origin), Note("e", "r", origin), Unsupported("e", "r", origin))
    assert judged(actions, "warn") == actions
    assert judged(actions, "fail") == (*actions[:2], Unsupported("e", "r", origin, fatal=True))


VERDICTS = {"translate": None, "skip": Note, "warn": Unsupported, "fail": Unsupported}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_rule_about_a_known_hook_comes_before_its_meaning(verdict):
    argv = ("nvidia-cdi-hook", "create-symlinks", "--link", "a::/b")
    edits, plain = planned(spec(hooks=(Hook("createContainer", "/usr/bin/nvidia-cdi-hook", argv),)))
    rules = site(f"hooks: {{rules: [{{path: nvidia-cdi-hook, action: {verdict}}}]}}").policy or Policy()
    (action,) = translate(edits, host(), site=rules).actions
    expected = VERDICTS[verdict]
    if expected is None:
        assert (action,) == plain.actions
    else:
        assert isinstance(action, expected)
        assert getattr(action, "fatal", False) == (verdict == "fail")
        assert "left out by a rule of the site's (site.yaml:1:17: hooks.rules[0])" in action.reason


def test_this_user_is_known_by_numbers_and_others_by_name():
    me = this_user()
    assert (me.uid, os.getegid() in me.gids) == (os.geteuid(), True)
    assert me.uid_of("root") == pwd.getpwnam("root").pw_uid
    assert me.gid_of("root") == grp.getgrnam("root").gr_gid
    assert me.uid_of("no-such-user") is me.gid_of("no-such-group") is None
