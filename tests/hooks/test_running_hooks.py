"""Which hooks a site's rule has run, and what of their doing can be shown."""

from __future__ import annotations

import os
import stat

import fake_host
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc import trusted_program
from cdi_hpc.config.build import build
from cdi_hpc.config.files import ConfigFile
from cdi_hpc.config.settings import join, of_file
from cdi_hpc.container.hook_results import NotKeptError, Written, actions_of, summary
from cdi_hpc.container.tree import ContainerTree, StagedDirectory, StagedFile
from cdi_hpc.explain.no_image import NoFiles
from cdi_hpc.plan import Directory, Plan, RunHook, Symlink, Unsupported, WriteFile
from cdi_hpc.site.policy import Policy
from cdi_hpc.spec.model import Hook, Origin, ResolvedEdits, Sourced
from cdi_hpc.translation.running_hooks import left_out
from cdi_hpc.translation.translate import translate

ORIGIN = Origin("/etc/cdi/a.yaml", "", "containerEdits.hooks[0]")
HOST = fake_host.host(
    programs={
        "/opt/site/setup": ("/opt/site/setup", ""),
        "/opt/site/link": ("/usr/bin/other", ""),
        "/opt/site/mine": ("/opt/site/mine", "/opt/site/mine belongs to user 1000, not to root"),
    }
)


def rules(text: str) -> Policy:
    policy = build(join(of_file(ConfigFile("x.yaml", f"hooks: {{rules: [{text}]}}".encode()), "site"))).policy
    assert policy is not None
    return policy


RUN = rules("{path: /opt/site/*, action: run, timeout: 20, env: [A, PATH]}")
ALL = rules("{path: /opt/site/*, action: run, env: '*'}")


def planned(hook: Hook, site: Policy = RUN) -> RunHook | Unsupported:
    (action,) = translate(ResolvedEdits(hooks=(Sourced(hook, ORIGIN),)), HOST, site=site).actions
    assert isinstance(action, (RunHook, Unsupported))
    return action


def hook(path: str = "/opt/site/setup", **changes: object) -> Hook:
    return Hook(**{"hook_name": "createContainer", "path": path, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("point", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_is_run_with_its_words_and_its_variables(point):
    found = planned(hook(hook_name=point, args=("a", "$b", ""), env=("A=1", "PATH=/usr/bin:/bin")))
    assert isinstance(found, RunHook)
    assert (found.path, found.args, found.env) == ("/opt/site/setup", ("a", "$b", ""), ("A=1", "PATH=/usr/bin:/bin"))
    assert (found.timeout, found.fatal, found.rule) == (20, True, "x.yaml:1:17: hooks.rules[0]")


def test_a_hook_without_words_is_told_its_path():
    assert planned(hook()).args == ("/opt/site/setup",)  # type: ignore[union-attr]


def test_a_rule_is_about_the_path_without_links():
    site = rules("{path: /usr/bin/other, action: run}")
    assert planned(hook("/opt/site/link"), site).path == "/usr/bin/other"  # type: ignore[union-attr]


def test_a_rule_that_leaves_out_is_about_either_path():
    site = rules("{path: /usr/bin/*, action: fail}, {path: /opt/**, action: run}")
    assert isinstance(planned(hook("/opt/site/link"), site), Unsupported)


@pytest.mark.parametrize("own, counts", [(None, 20), (5, 5), (60, 20)])
def test_the_shorter_time_counts(own, counts):
    assert planned(hook(timeout=own)).timeout == counts  # type: ignore[union-attr]


REFUSED = [
    ({"path": "/opt/site/mine"}, "belongs to user 1000"),
    ({"path": "/opt/site/link"}, "is really '/usr/bin/other', which '/opt/site/*' does not match"),
    ({"path": "/opt/site/missing"}, "No such file or directory"),
    ({"hook_name": "startContainer"}, "its program is the image's own"),
    ({"hook_name": "poststop"}, "it is for a container that has stopped"),
    ({"hook_name": "whenever"}, "hook point 'whenever': it is not known"),
    ({"args": ("a\0b",)}, "a NUL byte"),
    ({"timeout": -1}, "is not greater than zero"),
    ({"env": ("=x",)}, "'=x' is no variable"),
    ({"env": ("NAME",)}, "'NAME' is no variable"),
    ({"env": ("PATH=",)}, "its PATH is ''"),
    ({"env": ("PATH=/usr/bin:.",)}, "its PATH is '/usr/bin:.'"),
]


@pytest.mark.parametrize("changes, said", REFUSED)
def test_what_is_not_run_is_refused_with_the_reason_and_the_rule(changes, said):
    found = planned(hook(**changes))
    assert isinstance(found, Unsupported)
    assert found.fatal
    assert said in found.reason
    assert found.reason.endswith("(rule x.yaml:1:17: hooks.rules[0])")


@pytest.mark.parametrize(
    "name",
    (
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_X",
        "BASH_ENV",
        "ENV",
        "PYTHONPATH",
        "PERL5OPT",
        "GCONV_PATH",
        "IFS",
        "HOME",
        "XDG_CONFIG_HOME",
        "PS4",
        "BASHOPTS",
        "LUA_INIT",
        "JAVA_TOOL_OPTIONS",
        "OPENSSL_CONF",
        "GEM_PATH",
        "TCLLIBPATH",
    ),
)
def test_a_variable_that_chooses_code_is_refused_whatever_a_rule_lets_through(name):
    found = planned(hook(env=("A=1", f"{name}=/tmp/x")), ALL)
    assert isinstance(found, Unsupported)
    assert f"the variable '{name}' would choose what the program loads" in found.reason


@pytest.mark.parametrize(
    "env, name, runs",
    [
        ("", "A", False),
        (", env: A", "A", True),
        (", env: A", "AB", False),
        (", env: A", "a", False),
        (", env: [SITE_*, B]", "SITE_X", True),
        (", env: [SITE_*, B]", "MY_SITE_X", False),
        (", env: [SITE_*, B]", "B", True),
        (", env: '[AB]?'", "A1", True),
        (", env: '*'", "MAGIC", True),
    ],
)
def test_a_hook_gets_the_variables_that_its_rule_names_and_is_not_run_with_others(env, name, runs):
    found = planned(hook(env=(f"{name}=x",)), rules(f"{{path: /opt/site/*, action: run{env}}}"))
    assert isinstance(found, RunHook) is runs
    if isinstance(found, Unsupported):
        said = (
            f"not run: 'env' of the rule does not let its variable {name!r} through (rule x.yaml:1:17: hooks.rules[0])"
        )
        assert found.reason == said


def test_a_rule_may_have_failures_told_only():
    site = rules("{path: /opt/site/*, action: run, on-failure: warn}")
    assert not planned(hook("/opt/site/mine"), site).fatal
    assert not planned(hook(), site).fatal


def test_the_first_rule_decides_about_running_too():
    site = rules("{path: /opt/site/setup, arguments: x, action: fail}, {path: /opt/site/*, action: run}")
    assert isinstance(planned(hook(args=("a", "x")), site), Unsupported)
    assert isinstance(planned(hook(args=("a", "y")), site), RunHook)


def test_a_plan_without_hooks_to_run_says_why_for_each():
    ran = planned(hook())
    plan = left_out(Plan((), (ran,)), "there is no image")
    (lack,) = plan.unsupported()
    assert lack.reason == "not run: there is no image (rule x.yaml:1:17: hooks.rules[0])"
    assert not plan.runs_hooks()


# What it wrote ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tree() -> ContainerTree:
    tree = ContainerTree("/IMAGE", files=NoFiles())
    tree.put("/etc", StagedDirectory(0o755))
    tree.put("/etc/passwd", StagedFile(b"x"))
    return tree


def test_what_was_written_is_actions_in_order(tree):
    written = [
        Written("/etc", stat.S_IFDIR | 0o755),
        Written("/etc/new", stat.S_IFDIR | 0o700, is_whiteout=True),  # overlayfs marks what can't have anything below
        Written("/etc/new/a", stat.S_IFREG | 0o4755, b"\xff"),
        Written("/etc/new/b", stat.S_IFLNK | 0o777, b"\xff"),
    ]
    assert actions_of(written, tree, ORIGIN) == (
        Directory("/etc/new", 0o700, ORIGIN),
        WriteFile("/etc/new/a", b"\xff", 0o755, ORIGIN),
        Symlink("/etc/new/b", "\udcff", ORIGIN),
    )


@pytest.mark.parametrize(
    "written, said",
    [
        (Written("/etc/passwd", stat.S_IFCHR, is_whiteout=True), "it removes '/etc/passwd' from the image"),
        (Written("/etc", stat.S_IFDIR | 0o755, is_whiteout=True), "it removes what the image has in '/etc'"),
        (Written("/etc", stat.S_IFDIR | 0o700), "it changes the mode of '/etc' to 700"),
        (Written("/etc/p", stat.S_IFIFO), "it makes '/etc/p', which is neither"),
        (Written("/etc/s", stat.S_IFSOCK), "it makes '/etc/s', which is neither"),
    ],
)
def test_what_can_not_be_shown_is_said(tree, written, said):
    with pytest.raises(NotKeptError, match=said):
        actions_of([Written("/etc/half", stat.S_IFREG), written], tree, ORIGIN)


@given(st.integers(0, 20))
def test_a_summary_is_short(number):
    text = summary([Directory(f"/{n}", 0o755, ORIGIN) for n in range(number)])
    assert text.count(",") <= 4
    assert ("more" in text) == (number > 5)
    assert ("nothing" in text) == (number == 0)


# Whose program it is ----------------------------------------------------------------------------------------------


def test_a_program_of_the_systems_is_roots():
    assert trusted_program.complaint(os.path.realpath("/bin/sh")) == ""


def test_a_program_of_the_users_is_not(tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert "/tmp" in trusted_program.complaint(str(program))


@pytest.mark.parametrize(
    "path, said",
    [("/usr", "is no regular file"), ("/etc/passwd", "no program that you may execute"), ("/no", "No such")],
)
def test_what_is_no_program_is_said(path, said):
    assert said in trusted_program.complaint(path)


#: Maps as user_namespaces(7) has them: whether root there is a machine's, whether 65534 is root's number, and whether
#: it may be his on the way to a directory.
MAPS = [
    ("0 0 4294967295", True, False, False),  # the machine
    ("0 100000 65536", True, False, False),  # LXC, Incus, systemd-nspawn
    ("0 0 65536", True, False, False),
    ("0 1000 1", False, True, True),  # unshare --map-root-user
    ("0 0 1", True, True, True),  # the same, by root
    ("1000 1000 1", False, True, True),  # ours; nobody is root there
    ("0 1000 1\n1 100000 65536", True, False, True),  # rootless podman, newuidmap
    ("0 1000 1\n1 100000 1000", True, True, True),
    ("", True, False, False),  # can't be told
    ("nonsense", True, False, False),
]


@pytest.mark.parametrize("text, is_root, is_overflow_root, may_be", MAPS)
def test_who_root_is_depends_on_the_numbers_of_the_namespace(
    tmp_path, monkeypatch, text, is_root, is_overflow_root, may_be
):
    (tmp_path / "uid_map").write_text(text)
    monkeypatch.setattr(trusted_program, "_UID_MAP", str(tmp_path / "uid_map"))
    assert trusted_program.roots() == ({0, 65534} if is_overflow_root else {0})
    assert trusted_program.nobodies() == ({65534} if may_be else set())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert trusted_program.is_machines_root() is is_root
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not trusted_program.is_machines_root()


def test_the_program_of_nobody_in_a_system_container_is_not_roots(tmp_path, monkeypatch):
    (tmp_path / "uid_map").write_text("0 100000 65536")
    (tmp_path / "program").write_text("#!/bin/sh\n")
    (tmp_path / "program").chmod(0o755)
    monkeypatch.setattr(trusted_program, "_UID_MAP", str(tmp_path / "uid_map"))
    monkeypatch.setattr(trusted_program, "directories_of", lambda path: iter(()))
    status = os.stat_result((0o100755, 1, 1, 1, 65534, 65534, 0, 0, 0, 0))
    monkeypatch.setattr(trusted_program.os, "lstat", lambda path: status)
    assert trusted_program.complaint(str(tmp_path / "program")).endswith("belongs to user 65534, not to root")
