"""A site's rules hold for what a step is given: ways around them, each tried by an ordinary user on a real cluster."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import policy_ways
import pytest
from policy_ways import KIND, MARK, MODES, WAYS, Way
from slurm_site import ConfiguredSite, Done

#: Where a user runs the daemons, he may write what they believe.
pytestmark = pytest.mark.root

#: What a task has been given: of variables, and of files where the specs' mounts are.
PROBE = """#!/bin/sh
echo RAN
env
cat /mnt/* /usr/local/lib/* /usr/lib/given-by-the-spec/* 2> /dev/null
exit 0
"""

#: Writes the file that its first argument names if a process of the user's can be debugged that plans for a step of the
#: cluster in the directory that its second one names. Others of the same machine may have other rules.
ATTACH = """
import ctypes, os, pathlib, sys, time
libc = ctypes.CDLL(None, use_errno=True)
attach, detach, end = 16, 17, time.monotonic() + 3
while time.monotonic() < end:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"/cdi-slurm-" in words and os.fsencode(sys.argv[2]) not in words:
            continue
        if b"cdi-hpc" in words.split(b" ")[0] and b"--gres=gpu=" in words and libc.ptrace(attach, int(pid), 0, 0) == 0:
            os.waitpid(int(pid), 0x40000000)  # __WALL
            # A child that tries mounts in a namespace can be reached, and has nothing to tell the step with.
            theirs, own = (os.stat(f"/proc/{each}/ns/user") for each in (pid, "self"))
            if os.path.samestat(theirs, own) or os.readlink(f"/proc/{pid}/fd/1") != "/dev/null":
                pathlib.Path(sys.argv[1]).write_bytes(words)
            libc.ptrace(detach, int(pid), 0, 0)
"""

#: Puts into plans what the rules deny.
FORGER = f"""
import pathlib, re, sys
for path in map(pathlib.Path, sys.argv[1:]):
    data = path.read_bytes()
    variable = re.compile(rb"(env|default)\\0((?:[A-Z]+ENV_)?)OPEN=1\\0")
    data = variable.sub(rb"\\g<0>\\g<1>\\0\\g<2>VAULT={MARK}\\0", data)
    data = re.sub(rb"bind\\0([^\\0]*)/home/shared\\0", rb"bind\\0\\g<1>/{MARK}\\0", data)
    path.write_bytes(data)
"""

#: A library that acts in programs that plan for a step, and in no other.
LIBRARY = r"""
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
unsigned int la_version(unsigned int version) { return version; }
__attribute__((constructor)) static void begin(void)
{
    char words[4096] = "";
    FILE *line = fopen("/proc/self/cmdline", "r"), *mark;
    size_t count = line != NULL ? fread(words, 1, sizeof words - 1, line) : 0;
    for (size_t i = 0; i < count; i++)
        if (words[i] == '\0')
            words[i] = ' ';
    bool plans = strstr(words, "cdi-hpc") != NULL && strstr(words, "--gres=gpu=") != NULL;
    if (plans && (mark = fopen(EXECUTED, "w")) != NULL)
        fputs(words, mark);
}
"""

#: The same as PROBE in an image that has no shell.
PROBE_IN_IMAGE = r"""
#include <dirent.h>
#include <stdio.h>
extern char **environ;
int main(void)
{
    puts("RAN");
    for (char **entry = environ; *entry != NULL; entry++)
        puts(*entry);
    DIR *directory = opendir("/mnt");
    for (struct dirent *found; directory != NULL && (found = readdir(directory)) != NULL;) {
        char path[512], text[512] = "";
        snprintf(path, sizeof path, "/mnt/%s", found->d_name);
        FILE *stream = fopen(path, "r");
        if (stream != NULL && fgets(text, sizeof text, stream) != NULL)
            puts(text);
    }
}
"""

MODULE = """
import pathlib, sys
if "--gres=gpu=" in " ".join(getattr(sys, "orig_argv", sys.argv)):
    pathlib.Path({executed!r}).write_text(__file__)
"""

#: A plugin for srun that registers the option and takes every value: what is checked there is the user's to leave out.
PLUGIN = r"""
#include <slurm/spank.h>
#include <stddef.h>
SPANK_PLUGIN(cdi, 1)
static int take(int number, const char *value, int remote) { (void)number; (void)value; (void)remote; return 0; }
static struct spank_option option = {"cdi", "ANYTHING", "anything", 1, 0, take};
int slurm_spank_init(spank_t spank, int count, char **arguments)
{
    (void)count;
    (void)arguments;
    return spank_option_register(spank, &option) == ESPANK_SUCCESS ? 0 : -1;
}
"""


class RuledSite(ConfiguredSite):
    """A cluster whose nodes have a site's configuration."""

    @property
    def home(self) -> Path:
        return self.top / "home"

    @property
    def executed(self) -> Path:
        """Written by what the user has planted, if it is executed where a step is planned."""
        return self.home / "executed"

    def text(self, text: str, mode: str = "") -> str:
        """With the names of places in it."""
        places = {"site": self.top, "home": self.home, "planted": self.home / "planted", "cache": self.cache}
        return text.format(**places, mode=mode, probe=self.top / "probe")

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """A file of the site's."""
        place = self.top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place

    def write_spec(self, path: str, kind: str, devices: Mapping[str, object]) -> None:
        listed = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
        spec = {"cdiVersion": "0.6.0", "kind": kind, "devices": listed}
        self.write(path, json.dumps(in_all(self, spec)))

    def script(self, text: str, env: Mapping[str, str] | None = None) -> Done:
        """A shell script of the user's."""
        return self.run("sh", "-c", text, env=env)


def in_all(site: RuledSite, value: object) -> object:
    """A JSON value with names of places in every text."""
    if isinstance(value, dict):
        return {key: in_all(site, item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_all(site, item) for item in value]
    return site.text(value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def ruled(built, lab) -> Iterator[RuledSite]:
    """Two nodes with the site's rules, and a user who has prepared himself."""
    site = RuledSite(Path(tempfile.mkdtemp(prefix="cdi-slurm-", dir="/tmp")), *built)
    site.top.chmod(0o755)
    site.configure()
    site.start()
    site.configure_nodes(site.text(policy_ways.RULES))
    furnish(site)
    plant(site)
    yield site
    site.stop()
    shutil.rmtree(site.top)


def furnish(site: RuledSite) -> None:
    """What root has: specs, rules, and what the specs show."""
    site.write("probe", PROBE, 0o755)
    site.write(f"{MARK}/secret", f"{MARK}\n")
    site.write("open/file", f"{MARK}\n")
    site.write_spec("specs/tool.json", KIND, policy_ways.DEVICES)
    site.write_spec("specs/secret.json", "secret.org/vault", {"x": {"env": [f"VAULT={MARK}"]}})


def plant(site: RuledSite) -> None:
    """What the user has: all of it is his."""
    for number, (kind, devices) in enumerate(policy_ways.PLANTED_DEVICES.items()):
        site.write_spec(f"home/planted/specs/{number}.json", kind, devices)
    for name, text in policy_ways.PLANTED_CONFIGURATIONS.items():
        site.write(f"home/planted/{name}/cdi-hpc/config.yaml", site.text(text))
    executes = f"#!/bin/sh\necho $0 $* > {site.executed}\n"
    for name in ("cdi-hpc", "cdi-hpc-run", "python3", "ldconfig", "nvidia-smi"):
        site.write(f"home/planted/bin/{name}", executes, 0o755)
    module = MODULE.format(executed=str(site.executed))
    for name in ("python/sitecustomize.py", "python/cdi_hpc/__init__.py", "python/click.py"):
        site.write(f"home/planted/{name}", module)
    site.write("home/planted/job.lock", "{}")
    for name in ("planted/tool.json", "mine.example/tool=x.json"):
        shutil.copy(site.home / "planted/specs/1.json", site.write(f"home/{name}", ""))
    site.write("home/planted/forge.py", FORGER)
    site.write("home/planted/attach.py", ATTACH)
    site.write("home/planted/etc/config.yaml", f"spec-directories: ['{site.top}/specs']\n")
    plant_image(site)
    plant_libraries(site)
    plant_plugstack(site)
    for path in (site.home, *site.home.rglob("*")):
        os.chown(path, site.user.pw_uid, site.user.pw_gid, follow_symlinks=False)


def plant_image(site: RuledSite) -> None:
    """One whose links lead to what is denied, as far as its maker can."""
    image = site.home / "planted/image"
    for name in ("etc/cdi-hpc", "proc", "dev", "sys", "tmp", "usr"):
        (image / name).mkdir(parents=True)
    (image / "etc/cdi-hpc/config.yaml").write_text("policy: {devices: {default: allow}}\n")
    (image / "through").symlink_to("usr/local/lib")
    (image / "mnt").symlink_to(f"../../../..{site.top}/{MARK}")
    build(PROBE_IN_IMAGE, image / "probe", "-static")
    subprocess.run(
        ["mksquashfs", image, f"{image}.sqfs", "-quiet", "-no-progress"], check=True, stdout=subprocess.DEVNULL
    )
    (site.home / "planted/machine").symlink_to("/")


def plant_libraries(site: RuledSite) -> None:
    library, plugin = site.home / "planted/lib/forge.so", site.home / "planted/slurm/cdi.so"
    for place in (library, plugin):
        place.parent.mkdir()
    build(LIBRARY, library, "-shared", "-fPIC", f'-DEXECUTED="{site.executed}"')
    shutil.copy(library, library.with_name("libexpat.so.1"))
    build(PLUGIN, plugin, "-shared", "-fPIC")


def build(text: str, place: Path, *words: str) -> None:
    subprocess.run(["cc", "-x", "c", "-o", str(place), *words, "-"], input=text, text=True, check=True)


def plant_plugstack(site: RuledSite) -> None:
    """What srun reads if the user says so; the nodes have their own."""
    conf = (site.lab / "etc/slurm.conf").read_text()
    for name, line in (
        ("slurm", f"required {site.home}/planted/slurm/cdi.so"),
        ("arguments", f"required {site.plugin} cdi-dir={site.home}/planted/specs cache={site.home}/planted/run"),
    ):
        site.write(f"home/planted/slurm/{name}.plugstack", f"{line}\n")
        place = f"{site.home}/planted/slurm/{name}.plugstack"
        site.write(f"home/planted/slurm/{name}.conf", conf.replace(f"{site.top}/plugstack.conf", place))


@pytest.fixture
def clean(ruled) -> Iterator[RuledSite]:
    """The site as it is installed, without plans. Afterwards every node is in service."""
    ruled.configure()
    ruled.script("rm -rf executed shared 1 said job planted/run planted/run2 planted/tmp; mkdir shared planted/run")
    shutil.rmtree(ruled.cache, ignore_errors=True)
    ruled.cache.unlink(missing_ok=True)
    yield ruled
    assert not {state for state in ruled.node_states() if "drain" in state or "down" in state}


def interfering(program: str | Path, script: str) -> str:
    """What runs a program of ours and then a script, before its answer is used."""
    return f'said=$({program} "$@") || exit $?\n(\n{script}\n) > /dev/null 2>&1\necho "$said"\n'


def attempt(site: RuledSite, way: Way, mode: str) -> Done:
    """Try a way around."""
    programs = {
        "cdi_hpc_run": way.found and site.finder(interfering(site.runner, site.text(way.found, mode))),
        "cdi_hpc": way.compiled
        and site.program("#!/bin/sh\n" + interfering(site.compiler, site.text(way.compiled, mode))),
    }
    words = [f"--cdi={site.text(way.ask)}", *([f"--cdi-mode={mode}"] if mode else []), *map(site.text, way.words)]
    last = way.instead or f"srun --quiet {shlex.join(words)} {{probe}}".replace("{probe}", str(site.top / "probe"))
    before = site.text(way.before, mode)
    if before:
        site.script(f"{before}\nwait" if "&" not in before else before)
    site.configure(**{name: program for name, program in programs.items() if program})
    env = {name: site.text(value) for name, value in way.env.items()}
    return site.script(site.text(way.instead, mode) if way.instead else last, env)


ATTEMPTS = [
    pytest.param(way, mode, id=f"{name}{mode and ', '}{mode}") for name, way in WAYS.items() for mode in way.modes
]


@pytest.mark.parametrize(("way", "mode"), ATTEMPTS)
def test_a_way_around_the_rules_leads_nowhere(clean, way, mode):
    done = attempt(clean, way, mode)
    assert MARK not in done.stdout, done.stdout
    assert not clean.executed.exists(), clean.executed.read_text()
    if way.said:
        assert way.said in done.stdout + done.stderr
        assert "RAN" not in done.stdout
    else:
        assert (done.returncode, done.stdout.partition("\n")[0]) == (0, "RAN"), done.stderr


def test_there_are_many_ways():
    assert len(WAYS) >= 40


@pytest.fixture
def without_rules(clean) -> Iterator[RuledSite]:
    clean.configure_nodes(clean.text(policy_ways.RULES).partition("policy:")[0])
    yield clean
    clean.configure_nodes(clean.text(policy_ways.RULES))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["vault", "token", "source"])
def test_without_rules_all_that_is_had(without_rules, mode, name):
    """Else nothing above would show anything."""
    done = without_rules.srun(f"--cdi={KIND}={name}", f"--cdi-mode={mode}", str(without_rules.top / "probe"))
    assert MARK in done.stdout, done.stderr
