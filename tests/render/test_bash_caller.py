"""Who a script's command is, by number and by name, and what a script asks of its machine."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest
from script_runs import HERE, STAGES, plan, refused, said, start

from cdi_hpc.host import LiveHost
from cdi_hpc.launch.base import base_actions
from cdi_hpc.plan import WriteFile
from cdi_hpc.render.bash import script

BUSYBOX = ("/bin/busybox", "sh", "-c")

TABLES = ("/etc/passwd", "/etc/group")


def tables_of_run(image: Path) -> dict[str, bytes]:
    """What ``cdi-hpc run`` writes over the image's tables, else the image's own."""
    actions = base_actions(str(image), LiveHost(), private_dev=False, contain=False)
    written = {action.path: action.content for action in actions if isinstance(action, WriteFile)}
    return {table: written.get(table) or (image / table[1:]).read_bytes() for table in TABLES}


def tables_of_script(image: Path, tmp_path: Path, stage: str) -> dict[str, bytes]:
    command = [*BUSYBOX, "cat /etc/passwd && echo --- && cat /etc/group"]
    passwd, group = said(start(plan(), tmp_path, image, command, f"--stage={stage}")).split(b"---\n")
    return {"/etc/passwd": passwd, "/etc/group": group}


UID, GID = str(os.getuid()), str(os.getgid())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "passwd",
    [
        "",
        "root:x:0:0:root:/root:/bin/sh\n",
        "no newline at the end:x:0:0:root:/root:/bin/sh",
        f"here:x:{UID}:{GID}::/:/bin/sh\n",
        f"last:x:7:7::/:/bin/sh\nhere:x:{UID}",
        f"zeros:x:00{UID}:{GID}::/:/bin/sh\n",
        f"other field:{UID}:1{UID}:{UID}:{UID}:/:/bin/sh\n{UID}:x:{UID}1\n",
        f"too few fields:{UID}\n\n::\n:::\n",
        "bytes: \xff\xfe $(id) `id` \\ %s:0:::\n",
    ],
)
def test_the_image_gets_the_same_names_as_with_run(image, tmp_path, passwd, stage):
    for table in TABLES:
        (image / table[1:]).write_bytes(passwd.encode("latin-1"))
    assert tables_of_script(image, tmp_path, stage) == tables_of_run(image)


def test_an_image_without_tables_gets_the_callers(image, tmp_path):
    for table in TABLES:
        (image / table[1:]).unlink(missing_ok=True)
    assert tables_of_script(image, tmp_path, "overlay") == tables_of_run(image)


@pytest.mark.parametrize("name", ["debian-root", "bare", "/"])
def test_the_command_knows_the_caller_by_name(lab, tmp_path, name):
    where = name if name == "/" else lab.image(name)
    done = start(plan(), tmp_path, where, ["sh", "-c", "id -un; id -u; id -g; cat /etc/hosts"])
    hosts = Path("/etc/hosts").read_text()
    assert said(done).decode() == f"{pwd.getpwuid(os.getuid()).pw_name}\n{UID}\n{GID}\n{hosts}"


def test_variables_of_the_caller_do_not_change_who_he_is(lab, tmp_path):
    """bash takes these from the environment where they are set."""
    taken = {"UID": "7", "EUID": "7", "GROUPS": "7", "BASH_SOURCE": "/no/such/script", "PPID": "7"}
    command = ["sh", "-c", "id -u; id -g; echo $GROUPS"]
    done = start(plan(), tmp_path, lab.image("debian-root"), command, env={**os.environ, **taken})
    assert said(done).decode().split() == [UID, GID, "7"]


def test_a_plan_may_have_a_table_of_its_own(image, tmp_path):
    actions = (WriteFile("/etc/passwd", b"the plan's\n", 0o644, HERE),)
    done = start(plan(*actions), tmp_path, image, [*BUSYBOX, "cat /etc/passwd"])
    assert said(done) == b"the plan's\n"


def test_an_older_unshare_is_named(lab, tmp_path):
    """busybox's has the options of the first years."""
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "unshare").symlink_to(lab.image("musl") / "bin" / "busybox")
    environment = {**os.environ, "PATH": f"{tmp_path}/older:{os.environ['PATH']}"}
    line = refused(start(plan(), tmp_path, "/", ["true"], env=environment))
    assert line == ("cdi-hpc: the unshare of this machine is too old for --map-user: install util-linux 2.36 or newer")


def test_a_machine_without_pivot_root_is_told_of_the_package_that_has_it(tmp_path):
    """Debian took it out of util-linux in 2025."""
    path = tmp_path / "script.bash"
    path.write_text(script(plan()))
    hide = 'mount --bind /dev/null "$(command -v pivot_root)" && exec bash "$0" / true'
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", hide, path]
    line = refused(subprocess.run(words, capture_output=True, env=environment, check=False))
    fix = "install util-linux, or where that lacks it (Debian 14), util-linux-extra"
    assert line == f"cdi-hpc: pivot_root is not on this machine: {fix}"
