"""Slurm: the plugin and its arguments, what a GRES means, and what this step was allocated.

Nothing here needs root, and nothing asks the controller: a node's health check has to work while that is down.
"""

from __future__ import annotations

import errno
import glob
import os
import posixpath
import pwd
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from cdi_hpc.doctor.checks import Finding, Question, configured
from cdi_hpc.errors import CdiError
from cdi_hpc.host import LiveHost
from cdi_hpc.resolve.lookup import read_registry
from cdi_hpc.site import allocation
from cdi_hpc.site.allocation import GresMap
from cdi_hpc.spec.names import kind_complaint, parse_qualified
from cdi_hpc.spec.registry import Registry
from cdi_hpc.trusted_program import nobodies

PLUGIN = "cdi_spank.so"

#: Where slurm.conf is if SLURM_CONF does not say it; the second is where slurmd keeps a fetched one.
_CONF = ("/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf", "/usr/local/etc/slurm.conf")

#: Where packages put plugins, if slurm.conf has no PluginDir.
_PLUGIN_DIRECTORIES = ("/usr/lib/*/slurm-wlm", "/usr/lib64/slurm", "/usr/lib/slurm", "/usr/local/lib/slurm")

#: Seconds that a program of Slurm's has.
_PATIENCE = 20

_INSTALL = "make -C slurm/spank with this Slurm's headers, and install it (docs/slurm.md)"


# Configuration files --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlurmConf:
    """slurm.conf(5).

    Attributes:
        values: of keys, in small letters; the last one counts.

    """

    path: str
    values: Mapping[str, str]

    def beside(self, name: str) -> str:
        """A file of the same directory, or the path that is given."""
        return name if name.startswith("/") else posixpath.join(posixpath.dirname(self.path), name)

    @property
    def trusted(self) -> frozenset[int]:
        """Whose files slurmd may follow: root's, and those of the user that it runs as."""
        return frozenset((0, self.daemon))

    @property
    def daemon(self) -> int:
        """The user that slurmd runs as."""
        try:
            return pwd.getpwnam(self.values.get("slurmduser", "root").partition("(")[0]).pw_uid
        except KeyError:
            return 0

    def listed(self, key: str, prefix: str = "") -> frozenset[str]:
        """Words of a value with commas between them, each with this before it or without: both mean the same."""
        return frozenset(word.strip().removeprefix(prefix) for word in self.values.get(key, "").split(","))


def find_conf(environ: Mapping[str, str]) -> SlurmConf | None:
    """The slurm.conf that commands would read; None if there is none."""
    named = environ.get("SLURM_CONF")
    path = next((path for path in ((named,) if named else _CONF) if os.path.isfile(path)), None)
    return None if path is None else SlurmConf(path, dict(_keys(path)))


def _keys(path: str) -> Iterator[tuple[str, str]]:
    for line in _lines(path):
        if line.lower().startswith("include "):
            included = posixpath.join(posixpath.dirname(path), line.split(None, 1)[1])
            for name in sorted(glob.glob(included)):
                yield from _keys(name)
            continue
        key, equals, value = line.partition("=")
        if equals:
            yield key.strip().lower(), value.strip()


def _lines(path: str) -> Iterator[str]:
    """Lines less comments; a backslash at the end continues one."""
    text = Path(path).read_text("utf-8", "replace").replace("\\\n", " ")
    return (line for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line)


@dataclass(frozen=True)
class Entry:
    """A line of plugstack.conf."""

    file: str
    word: str
    plugin: str
    arguments: tuple[str, ...]


def entries(path: str, depth: int = 0) -> Iterator[Entry]:
    """Every line of plugstack.conf for our plugin, with what is included (spank(8))."""
    for line in _lines(path):
        try:
            words = shlex.split(line)
        except ValueError:
            words = line.split()
        if words[0] == "include" and words[1:] and depth < 16:  # noqa: PLR2004  # as deep as it may be is not said
            for name in sorted(glob.glob(posixpath.join(posixpath.dirname(path), words[1]))):
                yield from entries(name, depth + 1)
        elif words[0] in ("required", "optional") and words[1:] and posixpath.basename(words[1]) == PLUGIN:
            yield Entry(path, words[0], words[1], tuple(words[2:]))


# The plugin -----------------------------------------------------------------------------------------------------------


def release(question: Question) -> Iterator[Finding]:
    """Whether this is a machine with Slurm, and which one."""
    conf, version = find_conf(question.variables), _version()
    if not version:
        yield Finding("problem", "neither slurmd nor srun is installed", "install Slurm, or leave --slurm out")
    elif conf is None:
        yield Finding("problem", f"Slurm {version}, without a slurm.conf", "set SLURM_CONF, or install it")
    else:
        yield Finding("ok", f"Slurm {version}, configured in {conf.path}")


def _version() -> str:
    for name in ("slurmd", "srun"):
        program = _program(name)
        said = _run([program, "-V"]) if program else ""
        found = re.search(r"\b(\d+\.\d+\.\d+)", said)
        if found:
            return found[1]
    return ""


def _program(name: str) -> str | None:
    """Daemons are in directories that users have not got on their PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")


def _run(argv: list[str]) -> str:
    """All that a program says; "" if it can't be run."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _our_entries(conf: SlurmConf) -> list[Entry]:
    path = conf.beside(conf.values.get("plugstackconfig", "plugstack.conf"))
    return [*entries(path)] if os.path.isfile(path) else []


def plugin(question: Question) -> Iterator[Finding]:
    """Whether the plugin is in plugstack.conf, is there, and was built for this Slurm."""
    conf = find_conf(question.variables)
    if conf is None:
        return
    found = _our_entries(conf)
    stack = conf.beside(conf.values.get("plugstackconfig", "plugstack.conf"))
    if not found:
        what = f"{stack} has no {PLUGIN}: --cdi is unknown here, or is ignored without a word"
        yield Finding("problem", what, "add the line of packaging/slurm/plugstack.conf.d/cdi.conf")
        return
    if len(found) > 1:
        yield Finding("problem", f"{PLUGIN} is in {' and in '.join(e.file for e in found)}", "keep one of these lines")
    for entry in found:
        yield from _of_entry(entry, conf)
    prolog = conf.values.get("taskprolog")
    if prolog:
        what = f"TaskProlog={prolog} runs in the image where there is --cdi-image, and tasks end where it can't"
        yield Finding("warning", what, "let it be a program that images have at this path, or tell users")


def _of_entry(entry: Entry, conf: SlurmConf) -> Iterator[Finding]:
    yield from _untrusted(entry.file, conf)
    if entry.word == "optional":
        what = f"{entry.file}: the plugin is optional: if it can't be loaded, --cdi is unknown"
        yield Finding("warning", what, "write 'required'")
    path = _plugin_path(entry.plugin, conf)
    if path is None:
        yield Finding("problem", f"{entry.plugin} is not there", _INSTALL)
        return
    yield from _untrusted(path, conf)
    built, installed = built_for(path), _version()
    if built is None:
        yield Finding("problem", f"{path} is no plugin of Slurm's", _INSTALL)
    elif installed and [f"{number}" for number in built] != [f"{int(n)}" for n in installed.split(".")[:2]]:
        shown = "{}.{:02}".format(*built)
        yield Finding("problem", f"{path} was built for Slurm {shown}, this is {installed}: it is not loaded", _INSTALL)
    else:
        yield Finding("ok", f"{path} was built for Slurm {'{}.{:02}'.format(*built)}, and is {entry.word}")


def _plugin_path(name: str, conf: SlurmConf) -> str | None:
    if name.startswith("/"):
        return name if os.path.isfile(name) else None
    places = conf.values.get("plugindir", "").split(":") if conf.values.get("plugindir") else _PLUGIN_DIRECTORIES
    found = (path for place in places for path in sorted(glob.glob(posixpath.join(place, name))))
    return next(found, None)


def built_for(path: str) -> tuple[int, int] | None:
    """Major and minor release that a plugin was built for, which is what Slurm compares; None if it is no plugin."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    try:
        with open(path, "rb") as stream:
            elf = ELFFile(stream)
            symbols = elf.get_section_by_name(".dynsym")
            found = symbols.get_symbol_by_name("plugin_version") if isinstance(symbols, SymbolTableSection) else None
            if not found:
                return None
            offset = next(iter(elf.address_offsets(found[0]["st_value"], 4)), None)
            if offset is None:
                return None
            stream.seek(offset)
            number = int.from_bytes(stream.read(4), "little" if elf.little_endian else "big")
    except ELFError:
        return None
    return number >> 16 & 0xFF, number >> 8 & 0xFF


def _untrusted(path: str, conf: SlurmConf) -> Iterator[Finding]:
    """A file that somebody else than slurmd's user could exchange runs as slurmd's user."""
    for each in (path, posixpath.dirname(os.path.realpath(path))):
        status = os.stat(each)
        if status.st_uid not in conf.trusted or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield Finding(
                "problem", f"{each} can be changed by others than root", f"chown root {each}; chmod go-w {each}"
            )


# Arguments ------------------------------------------------------------------------------------------------------------


def _absolute(value: str) -> bool:
    return value.startswith("/") and len(os.fsencode(value)) < 4096  # noqa: PLR2004  # PATH_MAX of Linux


def _devices(value: str) -> bool:
    """As --cdi: kinds and devices with commas between them, or none."""
    return value == "none" or all(
        not kind_complaint(text) if "=" not in text else not isinstance(parse_qualified(text), str)
        for text in value.split(",")
    )


#: Arguments in plugstack.conf -> whether a value can be one (slurm/spank/site.c).
ARGUMENTS: Mapping[str, Callable[[str], bool]] = {
    "cdi-hpc": _absolute,
    "cdi-hpc-run": _absolute,
    "cache": _absolute,
    "cdi-dir": _absolute,
    "default": _devices,
    "mode": lambda value: value in ("handoff", "mounts"),
    "gpus": lambda value: value in ("allocated", "shared"),
    "timeout": lambda value: value.isascii() and value.isdigit() and 1 <= int(value) <= 3600,  # noqa: PLR2004
}

#: Programs that it calls, where the arguments name no other.
_PROGRAMS = {"cdi-hpc": "/usr/bin/cdi-hpc", "cdi-hpc-run": "/usr/bin/cdi-hpc-run"}


#: As many as the plugin takes (slurm/spank/site.h).
MOST_DIRS = 16


def arguments(question: Question) -> Iterator[Finding]:
    """Whether the plugin understands its arguments, and what they name is there."""
    conf = find_conf(question.variables)
    if conf is None:
        return
    for entry in _our_entries(conf):
        given = {name: value for name, _, value in (argument.partition("=") for argument in entry.arguments)}
        found = [*_understood(entry), *_programs(given), *(_cache(given["cache"], conf) if "cache" in given else ())]
        if "cache" not in given and _has_rules(question):
            what = f"{entry.file}: the site has rules, and without 'cache=' steps take plans that users have changed"
            found.append(Finding("warning", what, "write cache=/var/cache/cdi-hpc-steps"))
        yield from found or [Finding("ok", f"{entry.file}: the plugin's arguments are right")]


def _understood(entry: Entry) -> Iterator[Finding]:
    """What the plugin would complain of, and directories of specs."""
    directories = 0
    for argument in entry.arguments:
        name, _, value = argument.partition("=")
        known = ARGUMENTS.get(name)
        directories += name == "cdi-dir"
        if known is None or not known(value):
            reason = "it can't have this value" if known else "there is no such argument"
            yield Finding(
                "problem", f"{entry.file}: {argument!r}: {reason}", f"correct it; there are {', '.join(ARGUMENTS)}"
            )
        elif name == "cdi-dir" and not os.path.isdir(value):
            yield Finding("problem", f"{entry.file}: {argument!r}: not a directory", "make it, or leave it out")
    if directories > MOST_DIRS:
        what = f"{entry.file}: 'cdi-dir=' is there {directories} times, and the plugin takes {MOST_DIRS}"
        yield Finding("problem", what, "put specs into fewer directories")


def _programs(given: Mapping[str, str]) -> Iterator[Finding]:
    for name, path in {**_PROGRAMS, **{name: given[name] for name in _PROGRAMS if name in given}}.items():
        if not os.access(path, os.X_OK):
            fix = f"install cdi-hpc on this node, or write {name}=PATH"
            yield Finding("problem", f"{path} can't be executed, and the plugin calls it", fix)


#: With less than this, a plan of some size can't be kept.
_LEAST_BYTES, _LEAST_FILES = 1 << 20, 100

_OTHER_PLACE = "cache=/var/cache/cdi-hpc-steps, or a file system of its own (docs/slurm.md, room for plans)"


def _cache(path: str, conf: SlurmConf) -> Iterator[Finding]:
    """Whether each user can be given a directory there: the plugin's own conditions (slurm/spank/compiler.c)."""
    if not _absolute(path):
        return  # said already
    parent = posixpath.dirname(path.rstrip("/")) or "/"
    try:
        status, there = os.lstat(path), path
    except FileNotFoundError:
        if not os.path.isdir(parent):
            yield Finding("problem", f"cache={path} can't be made: {parent} is not there", f"make {parent}")
            return
        status, there = None, parent  # the plugin makes it
    except OSError as error:
        yield Finding("problem", f"cache={path}: {error.strerror}", _OTHER_PLACE)
        return
    if status is not None and not stat.S_ISDIR(status.st_mode):
        yield Finding("problem", f"cache={path} is a link, or no directory", "name the directory itself")
        return
    if status is not None:
        yield from _not_the_daemons(path, status, conf)
    yield from _room(path, there)


def _not_the_daemons(path: str, status: os.stat_result, conf: SlurmConf) -> Iterator[Finding]:
    daemon = conf.daemon
    if status.st_uid not in {daemon, *nobodies()}:
        what = f"cache={path} belongs to user {status.st_uid}, and slurmd is user {daemon}: no plans are kept there"
        yield Finding("problem", what, f"chown {daemon} {path}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding("problem", f"cache={path}: others may write to it: no plans are kept there", f"chmod go-w {path}")
    if not status.st_mode & stat.S_IXOTH:
        yield Finding("problem", f"cache={path}: users can't enter it", f"chmod 755 {path}")


def _room(path: str, there: str) -> Iterator[Finding]:
    """Whether a user can write to the file system, and who suffers when one has filled it."""
    room = os.statvfs(there)
    if room.f_flag & os.ST_RDONLY:
        yield Finding("problem", f"cache={path} is read-only: no plans can be kept there", _OTHER_PLACE)
    elif room.f_bavail * room.f_frsize < _LEAST_BYTES or (room.f_files and room.f_favail < _LEAST_FILES):
        fix = f"make room; 'du -s {path}/*' says whose it is"
        yield Finding("problem", f"cache={path} is full: steps that need a new plan are refused", fix)
    devices = [os.stat(each).st_dev for each in (there, "/run", "/")]
    if devices[0] == devices[1] != devices[2]:
        what = f"cache={path}: users can fill /run there, and root's programs have to write to it"
        yield Finding("warning", what, _OTHER_PLACE)


def _has_rules(question: Question) -> bool:
    configuration = configured(question, everybody=True)
    policy = configuration.policy if configuration else None
    return policy is not None and not policy.is_empty()


#: What open(2) says of a device that is not the caller's; other errors are about drivers.
_REFUSED = frozenset((errno.EACCES, errno.EPERM))


# Devices --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gres:
    """What slurmd knows of a GRES: the files of its devices, by their numbers."""

    name: str
    files: list[str] = field(default_factory=list)


_GRES = re.compile(r"Gres Name=(?P<name>\S+) .*?\bFile=(?P<file>\S+)")


def _gres() -> dict[str, Gres]:
    """By ``slurmd -G``, which also knows what AutoDetect has found."""
    program = _program("slurmd")
    node = os.environ.get("SLURMD_NODENAME")
    found: dict[str, Gres] = {}
    for match in _GRES.finditer(_run([program, "-G", *(["-N", node] if node else [])]) if program else ""):
        gres = found.setdefault(match["name"], Gres(match["name"]))
        gres.files.extend(_expanded(match["file"]))
    return found


def _expanded(text: str) -> Iterator[str]:
    """``/dev/nvidia[0-3,5]`` is five files."""
    before, bracket, rest = text.partition("[")
    if not bracket:
        yield text
        return
    listed, _, after = rest.partition("]")
    yield from (f"{before}{number}{after}" for number in allocation.indices_of(listed))


def _maps(gres: str, question: Question, registry: Registry) -> Iterator[GresMap]:
    configuration = configured(question, everybody=True)
    if configuration is None:
        return
    if configuration.gres:
        yield from (mapped for name, mapped in configuration.gres.items() if name == gres)
    else:
        yield from (GresMap(kind) for kind in registry.kinds() if kind.partition("/")[2] == gres)


def _registry(question: Question) -> Registry:
    conf = find_conf(question.variables)
    named = [
        word.partition("=")[2]
        for entry in (_our_entries(conf) if conf else ())
        for word in entry.arguments
        if word.startswith("cdi-dir=")
    ]
    return read_registry(question.cdi_dirs or tuple(named), {})


def _uuids(host: LiveHost) -> dict[int, str]:
    files = sorted(glob.glob(f"{allocation.GPU_DIRECTORY}/*/information"))
    return allocation.gpu_uuids([host.read(path) or b"" for path in files])


def gres(question: Question) -> Iterator[Finding]:
    """Whether each number of a GRES is a device, and the one that Slurm means."""
    configuration = configured(question, everybody=True)
    if configuration is None:
        return
    registry, host = _registry(question), LiveHost()
    known = _gres()
    for name in configuration.gres:
        if name not in known:
            yield Finding("warning", f"slurm.gres.{name}: this node has no such GRES", "correct it, or gres.conf")
    if _numbers_are_the_users(question):
        what = "Slurm leaves SLURM_STEP_GPUS to the user of a step, who gets the GPUs that he writes there"
        yield Finding("warning", what, "GresTypes=gpu in slurm.conf, or gpus=shared in plugstack.conf, which says so")
    elif "gpu" not in known:
        yield Finding("note", "this node has no GRES 'gpu'", "gres.conf, or gpus=shared in plugstack.conf")
    for name, of_slurm in known.items():
        maps = [*_maps(name, question, registry)]
        if not maps:
            yield Finding("warning", f"no kind of CDI device stands for the GRES {name!r}", "slurm.gres in config.yaml")
        for mapped in maps:
            yield from _of_map(mapped, of_slurm, registry, host)


def _numbers_are_the_users(question: Question) -> bool:
    """Whether the plugin believes a variable that Slurm neither sets nor takes away: it knows nothing of GPUs."""
    conf = find_conf(question.variables)
    if conf is None or "gpu" in conf.listed("grestypes", "gres/"):
        return False
    return any("gpus=shared" not in entry.arguments for entry in _our_entries(conf))


def _of_map(mapped: GresMap, of_slurm: Gres, registry: Registry, host: LiveHost) -> Iterator[Finding]:
    candidates = allocation.members(registry, mapped.kind, host, mapped.node)
    wrong = 0
    for number, file in enumerate(of_slurm.files):
        try:
            (member,) = allocation.granted(mapped, [number], candidates, _uuids(host))
        except CdiError as error:
            wrong += 1
            yield from (
                Finding("problem", f"{p.where}: {p.what}", p.fix or "generate the spec again") for p in error.problems
            )
            continue
        if member.nodes and os.path.realpath(file) not in {os.path.realpath(path) for path in member.nodes}:
            wrong += 1
            what = f"Slurm's {of_slurm.name} {number} is {file}, but {member.device.name} is {member.node}"
            yield Finding("problem", what, "slurm.gres in config.yaml: by minor, uuid or table")
    if not wrong:
        count = len(of_slurm.files)
        yield Finding("ok", f"the {count} {of_slurm.name} of Slurm are devices of {mapped.kind}, by {mapped.by}")


def constrained(question: Question) -> Iterator[Finding]:
    """Whether the kernel keeps jobs from devices that were not given to them."""
    conf = find_conf(question.variables)
    if conf is None:
        return
    path = conf.beside("cgroup.conf")
    values = dict(_keys(path)) if os.path.isfile(path) else {}
    is_on = values.get("constraindevices", "no").lower() in ("yes", "true", "1")
    if is_on and "cgroup" in conf.listed("taskplugin", "task/"):
        yield Finding("ok", "jobs can open the devices that they were given, and no others")
    else:
        what = "jobs can open devices that were not given to them"
        yield Finding("warning", what, "ConstrainDevices=yes in cgroup.conf, TaskPlugin=task/cgroup in slurm.conf")


def step(question: Question) -> Iterator[Finding]:
    """In a step: whether what it was given can be opened."""
    listed = question.variables.get("SLURM_STEP_GPUS", "")
    if not listed:
        return
    registry, host = _registry(question), LiveHost()
    for mapped in _maps("gpu", question, registry):
        candidates = allocation.members(registry, mapped.kind, host, mapped.node)
        given = allocation.granted(mapped, allocation.indices_of(listed), candidates, _uuids(host))
        closed = [m.device.name for m in given if m.node and host.open_error(m.node, write=True) in _REFUSED]
        if closed:
            what = f"this step was given GPUs {listed}, and can't open {', '.join(closed)}"
            yield Finding(
                "problem", what, "gres.conf and slurm.gres have to mean the same devices; see the check slurm-gres"
            )
        else:
            yield Finding("ok", f"this step was given GPUs {listed}: {', '.join(m.device.name for m in given)}")
