"""What the installed Apptainer or Singularity can do, asked of itself."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable, Iterator

from cdi_hpc.backend import Option, Profile, Subcommand
from cdi_hpc.backends.singularity import options
from cdi_hpc.backends.singularity.settings import variable_patterns
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.launch.profile import SCRIPTS_VARIABLE, own_refusal

#: Seconds to wait for an answer; a launcher on a slow file system takes long to be read.
_PATIENCE = 60.0

#: What it is asked with.
_VARIABLES = ("PATH", "HOME", "USER", SCRIPTS_VARIABLE)

_APPTAINER, _SINGULARITY = "APPTAINER", "SINGULARITY"


def probe(backend: str, program: str) -> Profile:
    """See :meth:`cdi_hpc.backend.Backend.probe`."""
    common = options.parse_help(_ask(program, "--help"))
    subcommands = tuple(_subcommands(program))
    if not subcommands:
        raise CdiError(Problem(program, "its help knows of no 'exec' with a --bind", "is it Apptainer or Singularity?"))
    build = _build_configuration(program)
    prefixes = _prefixes(build)
    return Profile(
        backend=backend,
        program=os.path.realpath(program),
        style="pflag",
        options=common,
        subcommands=subcommands,
        variables=variable_patterns(prefixes),
        capabilities=tuple(_capabilities(build, prefixes, subcommands)),
        help=options.HELP,
        looked_at=tuple(dict.fromkeys((_starter(build), _configuration(build), *_looked_for(_overlay_drivers(build))))),
    )


def _subcommands(program: str) -> Iterator[Subcommand]:
    hidden = None
    for words in options.SUBCOMMANDS:
        shown = options.parse_help(_ask(program, *words, "--help"))
        # cobra answers for what it does not know with the help of the command before.
        if not {"--bind"} & {*options.names(shown)}:
            continue
        if hidden is None:
            hidden = tuple(_hidden(program, words, shown))
        yield Subcommand(words, options.with_ours((*shown, *hidden)))


def _hidden(program: str, words: Iterable[str], shown: Iterable[Option]) -> Iterator[Option]:
    """Options of the first subcommand that its help does not show; the others have the same."""
    known = {*options.names(shown)}
    for name in options.HIDDEN:
        if name not in known:
            option = options.hidden_option(name, _answer(program, *words, name))
            if option is not None:
                yield option


def _build_configuration(program: str) -> dict[str, str]:
    """What ``buildcfg`` prints: ``NAME=VALUE`` lines."""
    lines = (line.partition("=") for line in _answer(program, "buildcfg").splitlines())
    return {name: value for name, equals, value in lines if equals}


def _prefixes(build: dict[str, str]) -> tuple[str, ...]:
    """Prefixes of its variables, the preferred one first: Apptainer takes Singularity's as well."""
    if any(name.startswith(_APPTAINER) for name in build):
        return (_APPTAINER, _SINGULARITY)
    return (_SINGULARITY,)


def _capabilities(
    build: dict[str, str], prefixes: tuple[str, ...], subcommands: tuple[Subcommand, ...]
) -> Iterator[tuple[str, str]]:
    first = {*options.names(subcommands[0].options)} if subcommands else set()
    yield "prefixes", ",".join(prefixes)
    yield "configuration", _configuration(build)
    yield "setuid", _yes(_is_setuid(build))
    yield "mount", _yes("--mount" in first)
    yield "overlay-driver", _yes(_has_overlay_driver(build, prefixes))


def _configuration(build: dict[str, str]) -> str:
    return _found(build, "CONF_FILE") or f"{build.get('SYSCONFDIR', '/etc')}/singularity/singularity.conf"


def _starter(build: dict[str, str]) -> str:
    return f"{build.get('LIBEXECDIR', '/usr/libexec')}/{build.get('PACKAGE_NAME', 'singularity')}/bin/starter-suid"


def _is_setuid(build: dict[str, str]) -> bool:
    """Whether it is installed with a set-user-ID starter; Singularity does not say how it was built."""
    try:
        found = os.stat(_starter(build))
    except OSError:
        return False
    return bool(found.st_mode & stat.S_ISUID) and found.st_uid == 0


def _has_overlay_driver(build: dict[str, str], prefixes: tuple[str, ...]) -> bool:
    """Whether a set-user-ID installation takes a directory as an overlay: Apptainer with fuse-overlayfs does.

    (addOverlayMount: "only root user can use sandbox as overlay in setuid mode" otherwise.)
    """
    if prefixes[0] != _APPTAINER:
        return False
    return any(map(_is_program, _overlay_drivers(build)))


def _overlay_drivers(build: dict[str, str]) -> list[str]:
    """Where a fuse-overlayfs may be, in order; relative entries of the PATH lead elsewhere tomorrow."""
    own = f"{build.get('LIBEXECDIR', '/usr/libexec')}/{build.get('PACKAGE_NAME', 'singularity')}/bin"
    directories = (own, *os.environ.get("PATH", os.defpath).split(":"))
    return [f"{directory}/fuse-overlayfs" for directory in directories if directory.startswith("/")]


def _looked_for(places: Iterable[str]) -> Iterator[str]:
    """The first of some places that has a program, and those before it."""
    for path in places:
        yield path
        if _is_program(path):
            return


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _found(build: dict[str, str], suffix: str) -> str:
    return next((value for name, value in build.items() if name.endswith(suffix)), "")


def _yes(value: bool) -> str:  # noqa: FBT001  # a word for a truth
    return "yes" if value else "no"


def _ask(program: str, *words: str) -> str:
    done = _run(program, words)
    ours = own_refusal(done.stderr.decode("utf-8", "surrogateescape")) if done.returncode else None
    if ours is not None:
        raise ours
    return done.stdout.decode("utf-8", "surrogateescape")


def _answer(program: str, *words: str) -> str:
    """What it says, on whatever stream."""
    done = _run(program, words)
    return (done.stdout + done.stderr).decode("utf-8", "surrogateescape")


def _run(program: str, words: Iterable[str]) -> subprocess.CompletedProcess[bytes]:
    # Nothing of the user's variables: they change defaults that are shown, and colours.
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    command = [program, *words]
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False, env=environment
        )
    except OSError as error:
        raise CdiError(Problem(program, f"can't be executed: {error.strerror}")) from None
    except subprocess.TimeoutExpired:
        raise CdiError(Problem(program, f"has not answered {' '.join(command[1:])!r} in {_PATIENCE:.0f} s")) from None
