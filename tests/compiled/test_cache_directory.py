"""Where plans are, by the variable and by the configuration: for the native runner as for Python, where it is safe."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest
from configured_user import NO_PYTHON, ONE, SAY, User, make_user

from cdi_hpc.compiled.cache_place import CacheError, UntrustedCacheError, expanded
from cdi_hpc.compiled.plan_cache import PlanCache
from cdi_hpc.errors import CdiError

RUN = ("cdi-hpc-run", "-d", ONE)


@pytest.fixture
def user(lab, tmp_path) -> User:
    return make_user(tmp_path, lab.image("debian-root"), "ch-run")


def plans(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("*.plan")]


# Launches -------------------------------------------------------------------------------------------------------------


def test_plans_are_where_the_configuration_says_and_a_later_launch_finds_them_there(user):
    user.configure(f"cache: {{directory: {user.top}/mine/plans}}")
    for env in ({}, NO_PYTHON):
        assert user.said(*RUN, user.image, *SAY, **env) == "one"
        assert user.said("ch-run", "--device", ONE, user.image, "--", *SAY, **({} if not env else NO_PYTHON)) == "one"
    there = user.top / "mine/plans"
    assert len(plans(there)) == 2
    assert there.stat().st_mode & 0o7777 == there.parent.stat().st_mode & 0o7777 == 0o700
    assert [path.suffix for path in user.cache.iterdir()] == [".extract"]


def test_after_a_change_plans_are_somewhere_else(user):
    for name in ("first", "second"):
        user.configure(f"cache: {{directory: {user.top}/{name}}}")
        for env in ({}, NO_PYTHON):
            assert user.said(*RUN, user.image, *SAY, **env) == "one"
        assert len(plans(user.top / name)) == 1
    user.file.unlink()
    assert user.said(*RUN, user.image, *SAY) == "one"
    assert len(plans(user.cache)) == 1


def test_the_variable_counts_more_and_needs_no_configuration(user):
    for name in ("variable", "both"):
        chosen = {"CDI_HPC_CACHE_DIRECTORY": f"{user.top}/{name}/plans/"}
        for env in ({}, NO_PYTHON):
            assert user.said(*RUN, user.image, *SAY, **chosen, **env) == "one"
        assert len(plans(user.top / name / "plans")) == 1
        user.configure(f"cache: {{directory: {user.top}/configured}}")
    assert not (user.top / "configured").exists()
    assert not user.cache.exists()


def count_fronts(user: User) -> Path:
    """A file with one line for each time that Python was started."""
    front, counted = user.top / "front", user.top / "fronts"
    front.write_text(f'#!/bin/sh\necho "$1" >>{counted}\nexec cdi-hpc "$@"\n')
    front.chmod(0o755)
    user.env["CDI_HPC_PYTHON_FRONT"] = str(front)
    return counted


LAUNCHES = [(*RUN, "IMAGE", *SAY), ("ch-run", "--device", ONE, "IMAGE", "--", *SAY), ("ch-run", "IMAGE", "--", *SAY)]


@pytest.mark.parametrize("line", LAUNCHES)
@pytest.mark.parametrize("directory", ["cache: {directory: TOP/mine}", ""])
def test_where_the_first_directory_can_not_be_used_python_is_started_once_and_says_why(user, line, directory):
    default = f"launchers: {{charliecloud: {{devices: {ONE}}}}}\n"
    user.configure(default + directory.replace("TOP", str(user.top)))
    user.cache.mkdir()
    user.cache.chmod(0o770)
    counted = count_fronts(user)
    what = "what is configured can't be noted there, so that each launch has to start Python: others have access to it"
    fix = "set XDG_RUNTIME_DIR or CDI_HPC_CACHE_DIRECTORY, or have it removed"
    for number in (1, 2):
        done = user.do(*(user.image if word == "IMAGE" else word for word in line))
        assert (done.returncode, done.stdout) == (0, "one\n")
        assert done.stderr == f"cdi-hpc: warning: {user.cache}: {what} (chmod 700 it) ({fix})\n"
        assert len(counted.read_text().splitlines()) == number
    assert len(plans(user.top / "mine")) == (1 if directory else 0)


@pytest.mark.parametrize("value", ["plans", "~/plans", "/tmp/{user}"])
@pytest.mark.parametrize(
    "command", [(*RUN, "IMAGE", "true"), ("cdi-hpc", "cache", "list"), ("cdi-hpc", "config", "show")]
)
def test_a_wrong_variable_is_an_error_that_names_it(user, command, value):
    done = user.do(*(user.image if word == "IMAGE" else word for word in command), CDI_HPC_CACHE_DIRECTORY=value)
    assert done.returncode in (1, 125)
    assert done.stderr.startswith("cdi-hpc: error: variable CDI_HPC_CACHE_DIRECTORY: ")
    assert done.stdout == ""


def test_commands_about_the_cache_look_there(user):
    user.configure(f"cache: {{directory: {user.top}/mine}}")
    user.said(*RUN, user.image, *SAY)
    (plan,) = plans(user.top / "mine")
    assert plan.removesuffix(".plan") in user.said("cdi-hpc", "cache", "list")
    assert "cache.directory" in user.said("cdi-hpc", "config", "show")
    assert f"plans are kept in {user.top}/mine " in user.do("cdi-hpc", "doctor").stdout
    assert user.said("cdi-hpc", "cache", "clean", "--all").endswith(f"from {user.top}/mine")
    assert user.said("cdi-hpc", "compile", "--image", user.image, ONE) == f"{user.top}/mine/{plan}"


def test_what_becomes_open_to_others_is_not_used_any_more(user):
    user.configure(f"cache: {{directory: {user.top}/way/plans}}")
    assert user.said(*RUN, user.image, *SAY) == "one"
    (user.top / "way").chmod(0o777)
    for _ in range(2):
        done = user.do(*RUN, user.image, *SAY)
        assert (done.returncode, done.stdout) == (0, "one\n")
        assert "others can put something else in the place of what lies in" in done.stderr
    (user.top / "way").chmod(0o700)
    assert user.said(*RUN, user.image, *SAY) == "one"
    assert user.said(*RUN, user.image, *SAY, **NO_PYTHON) == "one"


def test_a_place_that_can_not_be_made_is_a_warning_and_the_launch_goes_on(user):
    user.configure("cache: {directory: /proc/plans}")
    done = user.do(*RUN, user.image, *SAY)
    assert (done.returncode, done.stdout) == (0, "one\n")
    assert "/proc/plans: plans can't be kept there" in done.stderr


# What braces stand for ------------------------------------------------------------------------------------------------


def test_placeholders_are_the_users(monkeypatch):
    own = pwd.getpwuid(os.geteuid())
    text = expanded("{home}/a/{host}/{uid}-{user}/{uid}", {"HOME": "/h/"}, own.pw_uid)
    assert text == f"/h/a/{os.uname().nodename}/{own.pw_uid}-{own.pw_name}/{own.pw_uid}"
    assert expanded("{home}/a", {"HOME": "relative"}, own.pw_uid) == f"{own.pw_dir}/a"
    assert expanded("/plain//", {}, 1) == "/plain"


def test_a_user_without_a_name_is_told_what_to_write():
    with pytest.raises(CdiError, match=r"user 3999999999 has no name and no home directory here \(use \{uid\}\)"):
        expanded("/a/{user}", {}, 3999999999)
    assert expanded("/a/{uid}", {}, 3999999999) == "/a/3999999999"


# The way to it --------------------------------------------------------------------------------------------------------


def open_cache(path: Path | str) -> PlanCache:
    return PlanCache(str(path), is_chosen=True)


def test_every_directory_and_link_on_the_way_is_looked_at(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "second").symlink_to(f"{tmp_path}/real")
    (tmp_path / "first").symlink_to("./second")
    way = open_cache(tmp_path / "first/plans").way
    assert {"/", *(f"{tmp_path}{name}" for name in ("", "/first", "/second", "/real"))} <= {*way}
    assert way[-1] == f"{tmp_path}/real"
    assert (tmp_path / "real/plans").is_dir()


@pytest.mark.parametrize("mode, is_taken", [(0o755, True), (0o775, True), (0o777, False), (0o1777, True)])
def test_a_directory_of_our_own_may_be_our_groups_or_sticky_but_not_everybodys(tmp_path, mode, is_taken):
    (tmp_path / "above").mkdir()
    (tmp_path / "above").chmod(mode)
    if is_taken:
        assert open_cache(tmp_path / "above/plans").directory
    else:
        with pytest.raises(CacheError, match="others can put something else in the place of"):
            open_cache(tmp_path / "above/plans")
        assert not (tmp_path / "above/plans").exists()


def test_links_that_lead_in_circles_are_no_way(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(CacheError, match="Too many levels of symbolic links"):
        open_cache(tmp_path / "circle/plans")


def test_the_directory_itself_is_no_link(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(UntrustedCacheError, match="it is a link"):
        open_cache(tmp_path / "link")


@pytest.mark.root
@pytest.mark.parametrize("what", ["directory", "link"])
def test_what_somebody_else_has_on_the_way_is_not_followed(tmp_path, what):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    other = tmp_path / ("real" if what == "directory" else "link")
    os.chown(other, 12345, 12345, follow_symlinks=False)
    with pytest.raises(CacheError, match=f"{other} belongs to user 12345"):
        open_cache(tmp_path / "link/plans")
    assert not (tmp_path / "real/plans").exists()


@pytest.mark.root
def test_a_group_that_can_write_to_a_directory_of_roots_can_exchange_what_lies_there():
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o775)  # noqa: S103  # that is the point
        child = os.fork()
        if not child:
            os.setuid(12345)
            try:
                open_cache(f"{top}/plans")
            except CacheError as error:
                os._exit(0 if "others can put something else" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
