"""``cdi-hpc shims``."""

from __future__ import annotations

import os
import posixpath
import secrets
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click

from cdi_hpc import backends
from cdi_hpc.backend import Profile
from cdi_hpc.cli import find_runner
from cdi_hpc.cli.options import Reporter, output_format, verbosity
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.cli.progress import progress
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.launch import profile
from cdi_hpc.launch.profile import PROFILES, SCRIPT_HEAD

#: Where modulefiles go below the directory: what to hand to ``module use``.
MODULEFILES = "modulefiles"

#: In every modulefile of ours: what lacks it is somebody else's.
_MARK = "written by 'cdi-hpc shims'"

#: This program.
_FRONT = "cdi-hpc"

_WHATIS = "Launchers of containers take devices: --device, --cdi"
_MODULE_HELP = """\
Puts drop-ins for container launchers before the launchers themselves. They take all
options of the launcher, and CDI devices: see the end of its --help."""


@dataclass(frozen=True)
class _DropIn:
    """A drop-in to be written.

    Attributes:
        launcher: the launcher that is installed here, or None.
        known: its profile, or None.

    """

    command: str
    path: str
    launcher: profile.Launcher | None
    known: Profile | None

    @property
    def profile_path(self) -> str | None:
        """Where the profile goes."""
        if self.known is None:
            return None
        name = profile.file_name(self.command, self.known.program)
        return f"{posixpath.dirname(self.path)}/{PROFILES}/{name}"


@click.command("shims")
@click.argument("directory", metavar="DIR")
@click.argument("launchers", nargs=-1, metavar="[LAUNCHER...]")
@output_format
@verbosity
def command(directory: str, launchers: tuple[str, ...], output_format: str, verbose: int, quiet: int) -> None:
    """Write drop-ins for container launchers to DIR.

    With DIR at the front of the PATH, 'ch-run', 'apptainer' and 'singularity' take --device and --cdi. They are the
    launchers that come next on the PATH, with all of their own options, and nothing else where no device is asked for
    and none is configured for such launches.

    DIR also gets 'cdi-hpc', modulefiles for Lmod and for Environment Modules, and what is known of the launchers that
    are installed here. All of it is written again if it is there; files of somebody else are not touched. Without
    LAUNCHERs, there is a drop-in for every launcher that there is a backend for.
    """
    reporter = Reporter(verbose + quiet)
    top = _directory(directory)
    names = [*dict.fromkeys(launchers or backends.commands())]
    for problem in backends.misnamed():
        reporter.warn(problem)
    drop_ins = []
    with progress("asking launchers what they can do", wanted=output_format == "table" and reporter.level >= 0) as say:
        for number, name in enumerate(names):
            say(f"asking {name} what it can do", number, len(names))
            drop_ins.append(_drop_in(top, name, reporter))
    modulefiles = {f"{top}/{MODULEFILES}/{name}": text for name, text in modulefiles_for(top)}
    _refuse_foreign(top, drop_ins, modulefiles)
    runner = find_runner(os.environ)
    front = _front()
    if front is not None and os.path.realpath(f"{top}/{_FRONT}") != front:
        _link(f"{top}/{_FRONT}", front)
    for each in drop_ins:
        _write_drop_in(each, runner)
    for path, text in modulefiles.items():
        _write(path, text, 0o644)
    if output_format == "json":
        print_json(_document(top, drop_ins, modulefiles, runner))
    else:
        _explain(top, drop_ins)


def _directory(path: str) -> str:
    """DIR as an absolute path that can be on a PATH."""
    top = posixpath.abspath(path)
    if ":" in top or "\n" in top:
        raise CdiError(Problem(path, "a directory with a colon or a line break can't be on the PATH", "take another"))
    return top


def _drop_in(top: str, name: str, reporter: Reporter) -> _DropIn:
    if "/" in name:
        raise CdiError(Problem(f"launcher {name!r}", "is a path", "name the command; the PATH says which one it is"))
    try:
        backend = backends.for_command(name)
        found = profile.find_launcher(name, os.environ)
        known = profile.checked(backend.probe(found.path), backend.name, os.path.realpath(found.path))
    except profile.NotFoundError:
        return _DropIn(name, f"{top}/{name}", None, None)
    except CdiError as error:
        if name not in backends.commands():
            raise
        reporter.warn(error)  # one launcher that can't be asked is no reason to have none
        return _DropIn(name, f"{top}/{name}", None, None)
    return _DropIn(name, f"{top}/{name}", found, known)


# Writing --------------------------------------------------------------------------------------------------------------


def _refuse_foreign(top: str, drop_ins: list[_DropIn], modulefiles: dict[str, str]) -> None:
    paths = [each.path for each in drop_ins if os.path.lexists(each.path) and not profile.is_drop_in(each.path)]
    paths += [path for path in modulefiles if os.path.lexists(path) and not _is_marked(path)]
    own = f"{top}/{_FRONT}"
    if os.path.lexists(own) and posixpath.basename(os.path.realpath(own)) != _FRONT:
        paths.append(own)
    if paths:
        fix = "take another directory, or remove it"
        raise CdiError([Problem(path, "is there, and not from 'cdi-hpc shims'", fix) for path in paths])


def _is_marked(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return _MARK.encode() in stream.read(4096)
    except OSError:
        return False


def _write_drop_in(each: _DropIn, runner: str | None) -> None:
    """A link to the native program, or without it a script that starts Python; and what is known of the launcher."""
    if runner is not None:
        _link(each.path, os.path.realpath(runner))
    else:
        program = shlex.quote(_front() or _FRONT)
        _write(each.path, f'{SCRIPT_HEAD}exec {program} exec {each.command} "$@"\n', 0o755)
    if each.known is not None and each.profile_path is not None:
        os.makedirs(posixpath.dirname(each.profile_path), exist_ok=True)
        profile.write(each.known, each.profile_path, 0o644)


def _front() -> str | None:
    """Path of this program, which the native one needs to find; None if it is no command of its own."""
    path = os.path.realpath(sys.argv[0])
    return path if posixpath.basename(path) == _FRONT and os.access(path, os.X_OK) else None


def _write(path: str, text: str, mode: int) -> None:
    new = _new_name(path)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as stream:
        os.fchmod(fd, mode)  # whatever the umask
        stream.write(os.fsencode(text))
    os.rename(new, path)


def _link(path: str, points_to: str) -> None:
    new = _new_name(path)
    os.symlink(points_to, new)
    os.rename(new, path)


def _new_name(path: str) -> str:
    """Beside a path, whose directory is made if it is not there."""
    directory, name = posixpath.split(path)
    os.makedirs(directory, exist_ok=True)
    return f"{directory}/.{name}.{secrets.token_hex(4)}"


# Modulefiles ----------------------------------------------------------------------------------------------------------


def modulefiles_for(top: str) -> Iterator[tuple[str, str]]:
    """Names and texts. Lmod prefers the one that ends in ``.lua``, Environment Modules take the other for one."""
    lua = (
        f"-- {_MARK}",
        f"whatis({_lua(_WHATIS)})",
        f"help({_lua(_MODULE_HELP)})",
        f'prepend_path("PATH", {_lua(top)})',
    )
    tcl = (
        "#%Module1.0",
        f"# {_MARK}",
        f"module-whatis {_tcl(_WHATIS)}",
        "proc ModulesHelp { } {",
        f"    puts stderr {_tcl(_MODULE_HELP)}",
        "}",
        f"prepend-path PATH {_tcl(top)}",
    )
    yield "cdi-hpc.lua", "\n".join((*lua, ""))
    yield "cdi-hpc", "\n".join((*tcl, ""))


def _lua(text: str) -> str:
    """A string of Lua (reference manual, "Lexical Conventions"): escapes by number need no care for what follows."""
    return '"' + "".join(f"\\{ord(c):03d}" if c in '"\\' or ord(c) < ord(" ") else c for c in text) + '"'


def _tcl(text: str) -> str:
    """A word of Tcl (Tcl(n)) in which nothing is replaced."""
    return '"' + "".join(f"\\{c}" if c in '"\\$[]{}' else c for c in text) + '"'


# What to do with it ---------------------------------------------------------------------------------------------------


def _explain(top: str, drop_ins: list[_DropIn]) -> None:
    print_table(("DROP-IN", "LAUNCHER"), [(each.path, _launcher(each)) for each in drop_ins])
    lines = (
        ("by hand", _export(top)),
        ("by module", f"module use {shlex.quote(f'{top}/{MODULEFILES}')} && module load cdi-hpc"),
        ("then", f"{drop_ins[0].command} --help"),
    )
    sys.stdout.write("\n" + "".join(f"{when + ':':11}{what}\n" for when, what in lines))


def _launcher(each: _DropIn) -> str:
    return each.launcher.path if each.launcher else "not installed here"


def _export(top: str) -> str:
    return f"export PATH={shlex.quote(top)}:$PATH"


def _document(top: str, drop_ins: list[_DropIn], modulefiles: dict[str, str], runner: str | None) -> dict[str, object]:
    return {
        "directory": top,
        "native": runner is not None,
        "dropIns": [
            {
                "command": each.command,
                "path": each.path,
                "launcher": each.launcher.path if each.launcher else None,
                "profile": each.profile_path,
            }
            for each in drop_ins
        ],
        "modulefiles": [*modulefiles],
        "use": _export(top),
    }
