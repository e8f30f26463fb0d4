"""The option table of Apptainer and Singularity: read from what pflag prints, and what the options mean together."""

from __future__ import annotations

import pytest

from cdi_hpc.backend import Option
from cdi_hpc.backends.singularity import binds, images, options, probe
from cdi_hpc.backends.singularity.settings import parse_configuration
from cdi_hpc.errors import CdiError


@pytest.mark.parametrize(
    "line, names, arity",
    [
        ("  -B, --bind stringArray              a user-bind path", ("-B", "--bind"), "required"),
        ("      --nv                            enable Nvidia support", ("--nv",), "none"),
        ("  -e, --cleanenv                      clean environment", ("-e", "--cleanenv"), "none"),
        ("      --env stringToString            pass (default [])", ("--env",), "required"),
        ("      --blkio-weight-device strings   Device", ("--blkio-weight-device",), "required"),
        ('      --cdi string[="all"]            may stand alone', ("--cdi",), "optional"),
        ("      --writable", ("--writable",), "none"),
        ("      --memory string", ("--memory",), "required"),
    ],
)
def test_a_line_of_the_help_is_an_option(line, names, arity):
    (option,) = options.parse_help(line)
    assert (option.names, option.arity) == (names, arity)


@pytest.mark.parametrize(
    "line",
    [
        "                                      --containall, --no-init, --no-umask,",
        "  apptainer exec [exec options...] <container> <command>",
        "  $ apptainer exec --nv image command",
        "  exec        Run a command within a container",
        "",
    ],
)
def test_another_line_is_none(line):
    assert options.parse_help(line) == ()


def test_an_option_that_we_do_not_know_may_change_a_plan():
    assert options.parse_help("      --new string   next year's") == (Option(("--new",), "required", "plan"),)


def test_ours_take_the_place_of_those_of_the_same_name():
    table = options.with_ours(options.parse_help("      --device strings   theirs\n      --nv   theirs"))
    assert [option.use for option in table if "--device" in option.names] == ["device"]
    assert [option.names for option in table if option.use == "plan"] == [("--nv",)]


@pytest.mark.parametrize(
    "answer, arity",
    [
        ('Error for command "exec": flag needs an argument: --pwd', "required"),
        ('Error for command "exec": requires at least 2 arg(s), only received 0', "none"),
    ],
)
def test_a_hidden_option_says_itself_whether_it_takes_a_value(answer, arity):
    assert options.hidden_option("--pwd", answer) == Option(("--pwd",), arity, "keep")


def test_an_option_that_there_is_not_is_none():
    assert options.hidden_option("--pwd", 'Error for command "exec": unknown flag: --pwd') is None


def test_a_program_that_is_no_launcher_is_refused():
    with pytest.raises(CdiError, match="no 'exec'"):
        probe.probe("singularity", "/bin/true")
    with pytest.raises(CdiError, match="can't be executed"):
        probe.probe("singularity", "/no/such/program")


# What a launch is told -----------------------------------------------------------------------------------------------


def test_a_configuration_has_comments_and_directives_that_are_repeated():
    text = "# mount dev = no\nmount dev = yes\n  bind path = /etc/localtime\nbind path=/etc/hosts\nimage driver =\n"
    configuration = parse_configuration(text)
    assert configuration.says("mount dev") == "yes"
    assert configuration.all("bind path") == ("/etc/localtime", "/etc/hosts")
    assert configuration.says("image driver", "none") == ""
    assert configuration.says("mount home") == "yes"


@pytest.mark.parametrize(
    "image",
    [
        "docker://ubuntu",
        "library://a/b/c:latest",
        "oras://host/name",
        "oci:/layout",
        "oci-archive:file.tar",
        "docker-archive:file.tar",
        "docker-daemon:image:tag",
        "https://host/image.sif",
        "unknown://whatever",
    ],
)
def test_a_reference_is_fetched(image):
    assert images.is_reference(image)


@pytest.mark.parametrize("image", ["image.sif", "./a:b.sif", "/images/a:b", "a:b", "directory/", "instance", "x.oci"])
def test_a_path_is_not(image):
    assert not images.is_reference(image)


@pytest.mark.parametrize(
    "value, meant",
    [
        ("/a", [("/a", "", [])]),
        ("/a:/b", [("/a", "/b", [])]),
        ("/a:/b:ro", [("/a", "/b", ["ro"])]),
        ("/a:/b:ro,/c", [("/a", "/b", ["ro"]), ("/c", "", [])]),
        ("/a,/c:/d:rw", [("/a", "", []), ("/c", "/d", ["rw"])]),
        ("/a:/b:ro,id=2", [("/a", "/b", ["ro", "id=2"])]),
        (r"/a\,b:/c", [("/a,b", "/c", [])]),
        (r"/a\:b:/c", [("/a:b", "/c", [])]),
        ("", []),
    ],
)
def test_a_users_binds_are_understood_as_the_launcher_does(value, meant):
    assert list(binds._of_bind(value)) == meant


@pytest.mark.parametrize(
    "value, meant",
    [
        ("type=bind,source=/a,destination=/b", [("/a", "/b", False)]),
        ("src=/a,dst=/b,ro", [("/a", "/b", True)]),
        ('"source=/a,1",target=/b', [("/a,1", "/b", False)]),
        ("source=/a,dst=/b\nsource=/c,dst=/d,readonly", [("/a", "/b", False), ("/c", "/d", True)]),
        ("type=bind", []),
    ],
)
def test_so_are_his_mounts(value, meant):
    assert list(binds._of_mount(value)) == meant
