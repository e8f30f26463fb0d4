"""Which configuration files are read and in which order, and whose are not believed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from site_files import ME, load, places, write

from cdi_hpc import config
from cdi_hpc.config import SITE_DIRECTORY, files, user_directory
from cdi_hpc.config.files import MAX_BYTES, Places, Trust, read_named
from cdi_hpc.errors import CdiError
from cdi_hpc.witness import AbsentState, Recorder

ALIAS = "aliases: {{gpu: nvidia.com/gpu={}}}\n"


def refused(top: Path, found: Places | None = None) -> str:
    """Why the configuration of a directory is not read."""
    with pytest.raises(CdiError) as caught:
        config.load({}, ME, where=found or places(top))
    return str(caught.value)


def test_no_configuration_is_the_default_one(tmp_path):
    loaded = config.load({}, ME, where=places(tmp_path))
    assert loaded == config.Loaded()
    assert loaded.configuration == config.Configuration()


def test_files_count_in_their_order_and_the_users_comes_last(tmp_path):
    files = {
        "site/config.yaml": ALIAS.format(0) + "spec-directories: [/a]\nall-means: openable",
        "site/config.d/20-b.yaml": ALIAS.format(2),
        "site/config.d/10-a.yaml": ALIAS.format(1) + "spec-directories: [/b]",
        "user/config.yaml": ALIAS.format(3),
    }
    loaded = load(tmp_path, files)
    assert [path.removeprefix(f"{tmp_path}/") for path in loaded.files] == [
        "site/config.yaml",
        "site/config.d/10-a.yaml",
        "site/config.d/20-b.yaml",
        "user/config.yaml",
    ]
    assert loaded.configuration.aliases["gpu"].stands_for == ("nvidia.com/gpu=3",)
    assert loaded.configuration.spec_directories == ("/b",)
    assert loaded.configuration.all_means == "openable"


def test_other_files_of_the_directory_are_not_looked_at(tmp_path):
    others = ("10.yaml.dpkg-new", ".10.yaml", ".10.yml", "README", "10.yaml~", "10.yaml.off")
    above = ("launches", "config.yaml.rpmnew", "schema.json")
    files = [*(f"site/config.d/{name}" for name in others), *(f"site/{name}" for name in above)]
    loaded = load(tmp_path, dict.fromkeys(files, "}{"))
    assert loaded.files == ()


@pytest.mark.parametrize(
    "name",
    [
        "config.yml",
        "config.json",
        "CONFIG.YAML",
        "policy.yaml",
        *map("config.d/10{}".format, (".yml", ".json", ".YAML")),
    ],
)
def test_a_site_file_that_would_not_be_read_because_of_its_name_stops_everything(tmp_path, name):
    write(tmp_path, {"site/config.yaml": "strict: true", f"site/{name}": "policy: {kinds: {default: deny}}"})
    assert f"site/{name}: not read because of its name: /etc/cdi-hpc has config.yaml" in refused(tmp_path)


@pytest.mark.parametrize("end", ["---\n", "...\n---\n", "--- # rules\n"])
@pytest.mark.parametrize("first", ["strict: true\n", '{"strict": true}\n'])
def test_a_second_document_is_not_lost(tmp_path, first, end):
    write(tmp_path, {"site/config.yaml": f"{first}{end}policy: {{kinds: {{default: deny}}}}\n"})
    line = 1 + first.count("\n") + end.count("\n") - 1
    assert f"site/config.yaml:{line}:1: a second document begins here" in refused(tmp_path)


def test_an_empty_file_sets_nothing(tmp_path):
    loaded = load(tmp_path, {"site/config.yaml": "", "user/config.yaml": "# nothing\n"})
    assert loaded.configuration == config.Configuration()


# Whose files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o602, 0o620])
def test_a_site_file_that_others_can_write_to_stops_everything(tmp_path, mode):
    write(tmp_path, {"site/config.yaml": "strict: true"})
    (tmp_path / "site/config.yaml").chmod(mode)
    assert f"site/config.yaml: not believed: others can write to it (mode {mode:o}) (chmod go-w" in refused(tmp_path)


@pytest.mark.parametrize("directory", ["site", "site/config.d"])
def test_a_site_directory_that_others_can_write_to_stops_everything(tmp_path, directory):
    write(tmp_path, {"site/config.d/10.yaml": "strict: true"})
    (tmp_path / directory).chmod(0o777)
    assert f"{directory}: not believed: others can write to it" in refused(tmp_path)


@pytest.mark.parametrize("name", ["site", "user"])
def test_a_file_of_somebody_else_stops_everything(tmp_path, name):
    other = Trust(frozenset({ME + 1}), 0o022)
    found = write(tmp_path, {f"{name}/config.yaml": "strict: true"})
    trusted = Places(found.site, found.user, other, found.user_trust)
    if name == "user":
        trusted = Places(found.site, found.user, found.site_trust, Trust(frozenset({ME + 1}), 0o002, own=True))
    assert f"{name}: not believed: it belongs to user {ME}, not to" in refused(tmp_path, trusted)


def test_a_users_file_may_be_writable_by_his_group_but_not_by_everybody(tmp_path):
    found = write(tmp_path, {"user/config.yaml": "strict: true"})
    (tmp_path / "user/config.yaml").chmod(0o664)
    assert config.load({}, ME, where=found).configuration.strict
    (tmp_path / "user/config.yaml").chmod(0o666)
    assert "user/config.yaml: not believed: others can write to it (mode 666) (chmod o-w" in refused(tmp_path)


@pytest.mark.parametrize("link", ["site", "site/config.yaml", "site/config.d", "site/config.d/10.yaml"])
def test_no_link_is_followed_to_a_site_file(tmp_path, link):
    write(tmp_path, {"site/config.yaml": "strict: true", "site/config.d/10.yaml": "strict: true"})
    path = tmp_path / link
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert f"{link}: a link is not followed here" in refused(tmp_path)


@pytest.mark.parametrize("link", ["site", "site/config.yaml", "site/config.d"])
def test_a_link_of_the_site_that_leads_nowhere_is_no_way_to_lose_its_rules(tmp_path, link):
    write(tmp_path, {"site/config.d/10.yaml": "strict: true", "site/config.yaml": ""})
    path = tmp_path / link
    path.rename(tmp_path / "gone")
    path.symlink_to("nowhere")
    assert f"{link}: a link is not followed here" in refused(tmp_path)


def test_a_users_file_may_be_a_link(tmp_path):
    found = write(tmp_path, {"user/config.yaml": ""})
    (tmp_path / "dotfile").write_text("strict: true")
    (tmp_path / "dotfile").chmod(0o644)
    (tmp_path / "user/config.yaml").unlink()
    (tmp_path / "user/config.yaml").symlink_to("../dotfile")
    assert config.load({}, ME, where=found).configuration.strict
    (tmp_path / "dotfile").unlink()
    assert "user/config.yaml: the link leads nowhere" in refused(tmp_path)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    found = write(tmp_path, {"site/config.yaml": ""})
    path = tmp_path / "site/config.yaml"
    path.unlink()
    os.mkfifo(path, 0o644)
    assert "it is no regular file" in refused(tmp_path)
    path.unlink()
    path.mkdir()
    assert "it is no regular file" in refused(tmp_path)
    path.rmdir()
    monkeypatch.chdir(path.parent)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    assert "can't be read" in refused(tmp_path)
    assert found == places(tmp_path)


def test_a_directory_that_is_a_file_is_refused(tmp_path):
    found = write(tmp_path, {})
    (tmp_path / "site/config.d").write_text("")
    assert "config.d: it is no directory" in refused(tmp_path, found)


def test_a_file_that_is_too_long_is_refused(tmp_path):
    write(tmp_path, {"site/config.yaml": "#" * (MAX_BYTES + 1)})
    assert f"more than the {MAX_BYTES} bytes" in refused(tmp_path)


def test_everything_that_is_wrong_with_several_files_is_reported_together(tmp_path):
    write(tmp_path, {"site/config.yaml": "a: 1\nb: 2", "site/config.d/10.yaml": "}", "user/config.yaml": "c: 1"})
    assert len(refused(tmp_path).splitlines()) == 4


# Where a user's files are ---------------------------------------------------------------------------------------

HOMES = [
    ({"HOME": "/home/me"}, "/home/me/.config/cdi-hpc"),
    ({"HOME": "/home/me/"}, "/home/me/.config/cdi-hpc"),
    ({"HOME": "/home/me", "XDG_CONFIG_HOME": "/cfg"}, "/cfg/cdi-hpc"),
    ({"HOME": "/home/me", "XDG_CONFIG_HOME": "cfg"}, "/home/me/.config/cdi-hpc"),
    ({"XDG_CONFIG_HOME": ""}, ""),
    ({"HOME": "here"}, ""),
    ({}, ""),
]


@pytest.mark.parametrize("environ, directory", HOMES)
def test_a_users_directory_is_where_the_base_directory_specification_has_it(environ, directory):
    assert user_directory(environ) == directory


def test_a_home_that_is_a_file_has_no_configuration(tmp_path):
    (tmp_path / "home").write_text("")
    found = files.places({"HOME": str(tmp_path / "home")}, ME)
    assert config.load({}, ME, where=found).files == ()


def test_root_is_believed_on_a_real_machine(tmp_path):
    found = files.places({}, ME)
    assert found.site == SITE_DIRECTORY
    assert 0 in found.site_trust.owners
    assert found.user_trust.owners == {ME, 0}


# What a compiled plan depends on --------------------------------------------------------------------------------


def test_what_is_not_there_is_remembered_as_absent(tmp_path):
    recorder = Recorder()
    found = places(tmp_path)
    config.load({}, ME, recorder, where=found)
    assert recorder.states() == (AbsentState(found.site), AbsentState(found.user))


CHANGES = {
    "a file that is added": lambda top: (top / "site/config.d/20.yaml").write_text(""),
    "a user's first file": lambda top: (top / "user/config.yaml").write_text("strict: true"),
    "a file that is removed": lambda top: (top / "site/config.d/10.yaml").unlink(),
    "a file that is written again": lambda top: (top / "site/config.yaml").write_text("strict: false"),
    "a directory that is removed": lambda top: (top / "user").rename(top / "gone"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_is_stale_after(tmp_path, change):
    found = write(tmp_path, {"site/config.yaml": "strict: true ", "site/config.d/10.yaml": ""})
    before, after = Recorder(), Recorder()
    config.load({}, ME, before, where=found)
    CHANGES[change](tmp_path)
    config.load({}, ME, after, where=found)
    assert set(after.states()) != set(before._states.values())


def test_a_named_file_is_read_whoever_it_belongs_to(tmp_path):
    (tmp_path / "x.yaml").write_text("strict: true")
    (tmp_path / "x.yaml").chmod(0o666)
    assert read_named(str(tmp_path / "x.yaml")).data == b"strict: true"
    with pytest.raises(CdiError, match="No such file"):
        read_named(str(tmp_path / "none.yaml"))
