"""Hooks that a site has run: what launches show of them, through every launcher, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdi_hpc.compiled import wire

RUNNER = Path(__file__).parents[2] / "native/build/cdi-hpc-run"
OURS = "".join(
    f"{{{variable}}}\n"
    for variable in (
        "HOME=/nonexistent",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONNOUSERSITE=1",
    )
)
ASK = ("-d", "site.org/tool=one")
RULE = "/etc/cdi-hpc/config.d/10.yaml:1:17: hooks.rules[0]"

#: A hook as vendors write them: the root from the bundle that the state names.
SETUP = """#!/bin/sh
bundle=$(sed 's/.*"bundle": "\\([^"]*\\)".*/\\1/')
root=$(sed 's/.*"path": "\\([^"]*\\)".*/\\1/' "$bundle/config.json")
mkdir -p "$root/opt/site"
echo "$0 $* $COLOUR" >"$root/opt/site/made"
ln -sf made "$root/opt/site/link"
echo replaced >"$root/etc/new" && mv "$root/etc/new" "$root/etc/hostname"
"""

PROGRAM = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv, char **envp)
{
    char state[4096] = "";
    if (read(0, state, sizeof state - 1) <= 0 || strstr(state, "\\"status\\": \\"creating\\"") == NULL)
        return 3;
    FILE *out = fopen("rootfs/etc/arguments", "w");
    for (int i = 0; i < argc; i++)
        fprintf(out, "[%s]\\n", argv[i]);
    for (; *envp != NULL; envp++)
        fprintf(out, "{%s}\\n", *envp);
    return fclose(out);
}
"""


@pytest.fixture
def vendor(site) -> Path:
    """The directory /srv/bin of the machine, which is root's there."""
    directory = site.top / "vendor/bin"
    directory.mkdir(parents=True)
    for path in (site.top / "vendor", directory):
        path.chmod(0o755)
    site.mounts.append(f"mount --bind {site.top}/vendor /srv")
    script(directory / "setup", SETUP)
    return directory


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def hook(name: str, *arguments: str, **more: object) -> dict[str, object]:
    return {"hookName": "createContainer", "path": f"/srv/bin/{name}", "args": [name, *arguments], **more}


def allow(site, path: str = "/srv/bin/*", **more: object) -> None:
    rule = json.dumps({"path": path, "action": "run", **more})
    site.configure(f"hooks: {{rules: [{rule}]}}", "config.d/10.yaml")


SHOW = "cat /opt/site/made /opt/site/link /etc/hostname; ls -ld /opt/site"


@pytest.mark.parametrize("runner", ["auto", "python"])
def test_what_a_hook_writes_is_seen_and_the_image_is_as_it_was(site, vendor, runner):
    allow(site, env=["COL*"])
    site.spec(hooks=[hook("setup", "one two", "$(id)", "", env=["COLOUR=blue;red"])])
    done = site.run(f"--runner={runner}", *ASK, command=SHOW)
    assert done.returncode == 0, done.stderr
    made = "/srv/bin/setup one two $(id)  blue;red\n"
    assert done.stdout.startswith(made + made + "replaced\ndrwxr-xr-x")
    assert not (site.image / "opt/site").exists()
    assert done.stderr == ""


def test_a_later_launch_shows_the_same_and_runs_nothing(site, vendor):
    allow(site)
    script(vendor / "setup", "#!/bin/sh\ndate +%s%N >rootfs/etc/made\n")
    site.spec(hooks=[hook("setup")])
    warm = f"CDI_HPC_PYTHON_FRONT=/bin/false {RUNNER} {' '.join(ASK)} {site.image} cat /etc/made"
    done = site.play(f"cdi-hpc run {' '.join(ASK)} {site.image} cat /etc/made; {warm}; {warm}")
    first, *later = done.stdout.splitlines()
    assert later == [first, first], done.stderr


@pytest.mark.parametrize("name", ["empty", "full"])
def test_what_a_hook_wrote_is_not_another_if_somebody_changes_it_where_it_is_kept(site, vendor, name):
    allow(site)
    script(vendor / "setup", "#!/bin/sh\n: >rootfs/etc/empty; echo x >rootfs/etc/full\n")
    site.spec(hooks=[hook("setup")], mounts=[{"hostPath": "/etc/hostname", "containerPath": "/opt/hostname"}])
    words = f"{' '.join(ASK)} {site.image} cat /etc/empty /etc/full"
    launch, warm = f"cdi-hpc run {words}", f"CDI_HPC_PYTHON_FRONT=/bin/false {RUNNER} {words}"
    change = f"echo changed >$(find {site.top}/run/cdi-hpc -path '*/etc/{name}')"
    done = site.play(f"{launch}; {warm}; {change}; {warm} || echo stale; {launch}")
    assert done.stdout.splitlines() == ["x", "x", "stale", "x"], done.stderr


def test_a_changed_program_is_run_again(site, vendor):
    allow(site)
    script(vendor / "setup", "#!/bin/sh\necho old >rootfs/etc/made\n")
    site.spec(hooks=[hook("setup")])
    launch = f"cdi-hpc run {' '.join(ASK)} {site.image} cat /etc/made"
    done = site.play(f"{launch}; sed -i s/old/new/ /srv/bin/setup; {launch}")
    assert done.stdout.splitlines() == ["old", "new"], done.stderr


def test_a_compiled_program_gets_its_words_its_variables_and_the_state(site, vendor):
    allow(site, path="/srv/bin/program", env="*")
    (site.top / "program.c").write_text(PROGRAM)
    subprocess.run(["cc", "-o", vendor / "program", site.top / "program.c"], check=True)
    (vendor / "program").chmod(0o755)
    site.spec(hooks=[hook("program", "--x=`id`", "a\nb", env=["A=1", "EMPTY="])])
    done = site.run(*ASK, command="cat /etc/arguments", LD_DEBUG="no")
    assert done.stdout == f"[program]\n[--x=`id`]\n[a\nb]\n{OURS}{{A=1}}\n{{EMPTY=}}\n", done.stderr


def test_code_of_the_specs_author_is_not_loaded_by_an_allowed_interpreter(site, vendor):
    version = "{}.{}".format(*sys.version_info[:2])
    home = site.top / "vendor/author"
    packages = home / f".local/lib/python{version}/site-packages"
    packages.mkdir(parents=True)
    (packages / "usercustomize.py").write_text("open('rootfs/etc/made', 'a').write('code of the author\\n')\n")
    script(vendor / "setup", f"#!/usr/bin/python{version}\nopen('rootfs/etc/made', 'a').write('setup\\n')\n")
    for rule in ({}, {"env": "*"}):
        allow(site, **rule)
        site.spec(hooks=[hook("setup", env=["HOME=/srv/author"])])
        assert "the variable 'HOME' would choose what the program loads" in site.refusal(*ASK)
    site.spec(hooks=[hook("setup", env=["HOMER=/srv/author"])])
    assert site.run(*ASK, command="cat /etc/made").stdout == "setup\n"


def test_the_users_own_modules_are_not_loaded_either(site, vendor):
    allow(site)
    script(
        vendor / "setup",
        "#!/usr/bin/python3\nimport site\nassert not site.ENABLE_USER_SITE, site.getusersitepackages()\n",
    )
    site.spec(hooks=[hook("setup")])
    done = site.run(*ASK, command="echo fine")
    assert done.stdout == "fine\n", done.stderr


FAILURES = [
    ("exit 7", {}, "/srv/bin/setup failed with exit status 7"),
    ("echo reason >&2; exit 1", {}, "/srv/bin/setup failed with exit status 1: reason"),
    ("kill -9 $$", {}, "/srv/bin/setup was ended by signal 9"),
    ("sleep 60", {"timeout": 1}, "/srv/bin/setup has not ended in 1 s, and was killed"),
    ("trap '' TERM; while :; do :; done", {"timeout": 1}, "has not ended in 1 s, and was killed"),
    ("yes", {"timeout": 1}, "has not ended in 1 s, and was killed: y"),
    ("exec >&- 2>&-; sleep 60", {"timeout": 1}, "has not ended in 1 s, and was killed"),
    ("rm rootfs/etc/hostname", {}, "it removes '/etc/hostname' from the image, which can't be shown"),
    ("rm -r rootfs/usr/share && mkdir rootfs/usr/share", {}, "which can't be shown"),
    ("chmod 700 rootfs/usr", {}, "it changes the mode of '/usr' to 700, which can't be shown"),
    ("mkfifo rootfs/etc/pipe", {}, "it makes '/etc/pipe', which is neither a file, a link nor a directory"),
    ("mknod rootfs/etc/null c 1 3", {}, "Operation not permitted"),
    ("mount -t tmpfs none rootfs/opt", {}, "/srv/bin/setup failed with exit status"),
    ("echo x >rootfs/dev/made", {}, "Read-only file system"),
    ("head -c 100M /dev/zero >rootfs/etc/large", {}, "No space left on device"),
    ("exec truncate -s 3G rootfs/etc/large", {}, "/srv/bin/setup was ended: a file may have 64 MiB"),
    ("for i in 1 2 3; do truncate -s 30M rootfs/etc/large$i; done", {}, "can't be shown: it writes more than 64 MiB"),
    (
        "mkdir rootfs/etc/many; cd rootfs/etc/many; seq 10001 | xargs touch",
        {},
        "can't be shown: it makes more than 10000 files and directories",
    ),
    (
        "cd rootfs/etc; n=$(printf %0200d 0); for i in 1 2 3 4 5 6 7 8 9 10 11; do mkdir $n; cd $n; done",
        {},
        "00000...', a path of more than 2048 bytes",
    ),
    ("cd rootfs/etc; n=$(printf %0200d 0); mkdir $n; cd $n; mkfifo pipe", {}, "...', which is neither a file, a link"),
    ("echo 1 >/proc/sys/kernel/panic", {}, "/srv/bin/setup failed with exit status"),
]


@pytest.mark.parametrize("text, rule, said", FAILURES)
def test_a_hook_that_fails_stops_the_launch_or_is_a_warning_and_nothing_of_it_stays(site, vendor, text, rule, said):
    allow(site, **rule)
    script(vendor / "setup", f"#!/bin/sh\necho half >rootfs/etc/half\n{text}\n")
    site.spec(hooks=[hook("setup")])
    refusal = site.refusal(*ASK)
    assert said in refusal
    assert f"(rule {RULE})" in refusal
    assert "hooks[0]: hooks setup: " in refusal
    assert refusal.count("error:") == 1
    allow(site, **rule, **{"on-failure": "warn"})
    done = site.run(*ASK, command="ls /etc/half || echo none")
    assert done.stdout == "none\n"
    assert said in done.stderr


def test_what_a_hook_wrote_is_kept_byte_for_byte_up_to_the_limit(site, vendor):
    allow(site)
    data = bytes(range(256)) * 4096
    (vendor / "data").write_bytes(data)
    (vendor / "data").chmod(0o644)
    script(vendor / "setup", "#!/bin/sh\ncp /srv/bin/data rootfs/etc/data; truncate -s 60M rootfs/etc/sparse\n")
    site.spec(hooks=[hook("setup")])
    done = site.run(*ASK, command="sha256sum </etc/data; stat -c %s /etc/sparse")
    assert done.stdout.split() == [hashlib.sha256(data).hexdigest(), "-", str(60 << 20)], done.stderr


def test_what_a_hook_leaves_behind_ends_with_it(site, vendor):
    allow(site)
    name = f"{site.top}/left-behind"
    os.mkfifo(name)
    script(
        vendor / "setup",
        f"#!/bin/sh\nsetsid sh -c 'echo there >{name}; sleep 600' >/dev/null 2>&1 &\nread line\nread there <{name}\n",
    )
    site.spec(hooks=[hook("setup")])
    done = site.play(f"cdi-hpc run {' '.join(ASK)} {site.image} true && pgrep -f 'echo there >{name}' || echo nobody")
    assert done.stdout == "nobody\n", done.stderr


def test_a_hooks_own_timeout_counts_where_it_is_shorter(site, vendor):
    allow(site, timeout=600)
    script(vendor / "setup", "#!/bin/sh\nsleep 60\n")
    site.spec(hooks=[hook("setup", timeout=1)])
    assert "has not ended in 1 s" in site.refusal(*ASK)


REFUSED = [
    ({"hookName": "startContainer"}, "its program is the image's own"),
    ({"hookName": "poststart"}, "hook point 'poststart': it is for a container whose process runs already"),
    ({"path": "/srv/bin/../bin/missing"}, "/srv/bin/missing: No such file or directory"),
    ({"path": "/srv/bin/outside"}, "'/srv/bin/outside' is really '/usr/bin/dash', which '/srv/bin/*' does not match"),
    ({"path": "/srv/bin/writable"}, "others than root can write to /srv/bin/writable (mode 775)"),
    ({"path": "/srv/bin/plain"}, "/srv/bin/plain is no program that you may execute"),
    ({"env": ["LD_PRELOAD=/tmp/x.so"]}, "the variable 'LD_PRELOAD' would choose what the program loads"),
    ({"env": ["SITE=1"]}, "'env' of the rule does not let its variable 'SITE' through"),
    ({"env": ["PATH=/tmp/x:/usr/bin"]}, "its PATH is '/tmp/x:/usr/bin', and may hold /usr/local/sbin"),
    ({"env": ["BASH_FUNC_ls%%=() { id; }"]}, "would choose what the program loads"),
    ({"timeout": 0}, "its timeout 0 is not greater than zero"),
]


@pytest.mark.parametrize("change, said", REFUSED)
def test_a_program_that_is_not_roots_or_would_be_another_one_is_not_run(site, vendor, change, said):
    allow(site, env="PATH")
    (vendor / "outside").symlink_to("/bin/sh")
    for name, mode in (("writable", 0o775), ("plain", 0o644)):
        script(vendor / name, SETUP)
        (vendor / name).chmod(mode)
    site.spec(hooks=[{**hook("setup"), **change}])
    assert said in site.refusal(*ASK)


def test_a_directory_that_others_can_write_to_makes_its_programs_untrusted(site, vendor):
    allow(site)
    site.spec(hooks=[hook("setup")])
    vendor.chmod(0o777)
    assert "others than root can write to /srv/bin (mode 777)" in site.refusal(*ASK)


@pytest.mark.parametrize("path", ["/srv/mine", "/etc/cdi-hpc/mine", "/home/cdilab/mine", "rootfs/escape/mine"])
def test_a_hook_can_write_nowhere_else_even_where_an_image_leads_it_out(site, vendor, path):
    allow(site)
    site.image = site.top / "image"
    for name in ("proc", "sys", "dev", "tmp", "etc", "home"):
        (site.image / name).mkdir(parents=True)
    (site.image / "escape").symlink_to("/home/cdilab")
    script(vendor / "setup", f"#!/bin/sh\necho mine >{path}\n")
    site.spec(hooks=[hook("setup")])
    assert "Read-only file system" in site.refusal(*ASK)
    assert not os.path.lexists("/home/cdilab/mine")


def test_a_users_own_file_can_not_have_hooks_run(site, vendor):
    site.configure_user('hooks: {rules: [{path: "/srv/bin/*", action: run}]}')
    site.spec(hooks=[hook("setup")])
    assert "only the administrator can set this" in site.refusal(*ASK)


def test_the_sites_rules_are_about_what_hooks_write_too(site, vendor):
    allow(site)
    site.configure("policy: {mount-targets: {rules: [{deny: /opt/**}]}}", "config.d/20.yaml")
    site.spec(hooks=[hook("setup")])
    refusal = site.refusal(*ASK)
    assert "the site does not allow the container path '/opt/site'" in refusal


def test_hooks_find_what_the_hooks_before_them_did(site, vendor):
    allow(site, path="/srv/bin/setup")
    script(
        vendor / "setup",
        '#!/bin/sh\ncat rootfs/etc/log >rootfs/etc/new 2>/dev/null\necho "$1" >>rootfs/etc/new\n'
        "readlink rootfs/etc/link >>rootfs/etc/new\nmv rootfs/etc/new rootfs/etc/log\n",
    )
    link = ["nvidia-ctk", "hook", "create-symlinks", "--link", "x::/etc/link"]
    made = {"hookName": "createContainer", "path": "/usr/bin/nvidia-ctk", "args": link}
    site.spec(hooks=[hook("setup", "first"), made, hook("setup", "second")])
    assert site.run(*ASK, command="cat /etc/log").stdout == "first\nsecond\nx\n"


@pytest.mark.parametrize("image", ["/", "debian.sqfs", "musl.sqfs"])
@pytest.mark.parametrize("runner", ["auto", "python"])
def test_hooks_write_into_the_hosts_own_view_and_into_image_files(site, vendor, lab, image, runner):
    allow(site)
    script(vendor / "setup", "#!/bin/sh\necho hook >rootfs/usr/lib/made; ln -s made rootfs/usr/lib/link\n")
    site.spec(hooks=[hook("setup")])
    site.image = Path("/") if image == "/" else lab.image(image)
    done = site.run(f"--runner={runner}", *ASK, command="cat /usr/lib/link")
    assert done.stdout == "hook\n", done.stderr
    assert not os.path.lexists("/usr/lib/made")


def test_a_script_has_no_hooks_run(site, vendor):
    allow(site)
    site.spec(hooks=[hook("setup")])
    done = site.do("cdi-hpc", "script", "site.org/tool=one")
    assert "not run: a script is made for any image, and hooks are run for one" in done.stdout


def test_plan_and_explain_say_so_and_run_nothing(site, vendor):
    allow(site)
    script(vendor / "setup", "#!/bin/sh\necho ran >/srv/ran\n")
    site.spec(hooks=[hook("setup")])
    done = site.play("cdi-hpc plan site.org/tool=one; cdi-hpc explain site.org/tool=one || true; ls /srv")
    assert done.stdout.count("run once for the image; what it writes is a layer over it") >= 2, done.stderr
    assert done.stdout.endswith("bin\n")


def test_a_lock_file_knows_the_program(site, vendor):
    allow(site)
    site.spec(hooks=[hook("setup")])
    lock = site.do("cdi-hpc", "lock", "site.org/tool=one")
    (site.top / "job.lock").write_text(lock.stdout)
    assert list(json.loads(lock.stdout)["programs"]) == ["/srv/bin/setup"]
    ask = ("--lock", str(site.top / "job.lock"))
    assert site.run(*ask, command="true").returncode == 0
    script(vendor / "setup", SETUP + "# changed\n")
    assert "program /srv/bin/setup: locked is " in site.refusal(*ask)
    allow(site, path="/srv/other/*")
    assert "program /srv/bin/setup: locked is " in site.refusal(*ask)


def test_what_a_hook_says_is_a_note_of_every_launch(site, vendor):
    allow(site)
    script(vendor / "setup", "#!/bin/sh\necho 'said \033[31m this'; echo and that >&2; seq 1000\n")
    site.spec(hooks=[hook("setup")])
    for _ in range(2):
        done = site.run("-v", *ASK, command="true")
        assert done.returncode == 0
        assert "/srv/bin/setup: 1000\n" in done.stderr
        assert "\033" not in done.stderr
        assert "hooks setup: /srv/bin/setup was run (rule " in done.stderr
    assert site.run(*ASK, command="true").stderr == ""


#: Has the only plan bind what is nowhere, as its last step.
SPOIL = """
import sys
from pathlib import Path
(path,) = Path(sys.argv[1]).glob("*.plan")
step = Path(sys.argv[2]).read_bytes()
data = path.read_bytes()
at = data.find(b"\\0place\\0") + 1 or len(data) - len(b"end\\0")
path.write_bytes(data[:at] + step + data[at:])
"""


def test_no_hook_is_run_inside_of_the_namespaces_of_a_plan_that_failed(site, vendor):
    """All other owners look like root there, so anybody's program would be taken for root's."""
    allow(site)
    script(vendor / "setup", "#!/bin/sh\necho here >>rootfs/etc/made\n")
    site.spec(hooks=[hook("setup")])
    steps = wire.encode(wire.WirePlan("0" * 64, 0, 0, None, (wire.Bind("/", "/"), wire.Bind("/no/such", "/mnt"))))
    (site.top / "step").write_bytes(steps[steps.rindex(b"bind\0") : -len(b"end\0")])
    (site.top / "spoil.py").write_text(SPOIL)
    launch = f"cdi-hpc run {' '.join(ASK)} {site.image} cat /etc/made"
    spoil = f"{sys.executable} {site.top}/spoil.py {site.top}/run/cdi-hpc {site.top}/step"
    done = site.play(f"{launch}; {spoil}; {launch} || echo failed: $?; {launch}; {launch}")
    assert done.stdout.splitlines() == ["here", "failed: 125", "here", "here"], done.stderr
    said = "not run: the plan that was there could not be applied, and hooks are run before one is: by the next launch"
    assert f"hooks[0]: hooks setup: {said} (rule {RULE})" in done.stderr


def test_a_caller_who_ignores_his_children_gets_the_same(site, vendor):
    allow(site)
    site.spec(hooks=[hook("setup")])
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    done = site.do("python3", "-c", ignoring, "cdi-hpc", "run", *ASK, str(site.image), "cat", "/opt/site/made")
    assert done.stdout.startswith("/srv/bin/setup"), done.stderr


def own_image(site) -> Path:
    """An image of the user's, with what a shell needs from the host."""
    site.image = site.top / "image"
    for name in ("proc", "sys", "dev", "tmp", "etc", "usr", "opt"):
        (site.image / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (site.image / name).symlink_to(f"usr/{name}")
    return site.image


def test_a_change_where_a_hook_wrote_has_it_run_again(site, vendor):
    allow(site)
    image = own_image(site)
    script(vendor / "setup", "#!/bin/sh\nls rootfs/etc/list.d >rootfs/etc/list.d/all\n")
    (image / "etc/list.d").mkdir()
    site.spec(hooks=[hook("setup")])
    launch = f"cdi-hpc run --bind /usr:/usr {' '.join(ASK)} {image} cat /etc/list.d/all"
    done = site.play(f"{launch}; touch {image}/etc/list.d/more; {launch}")
    assert done.stdout.split() == ["all", "all", "more"], done.stderr


def test_an_image_that_can_not_be_a_layer_is_said(site, vendor):
    allow(site)
    image = own_image(site)
    site.mounts.append(f"mount -t tmpfs tmpfs {image}/opt")
    site.spec(hooks=[hook("setup")])
    said = "not run: something is mounted below the image's directories, which can't be a layer then"
    assert said in site.refusal(*ASK)
