"""The options of ch-run, as the installed one lists them, and what each of them means to us."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cdi_hpc.backend import Arity, Option, Use

#: An option in the output of ``--help`` (argp(3)): ``-b, --bind=SRC[:DST]   mount ...``, ``-d, --cdi[=[KIND]]``.
_LINE = re.compile(
    r" {2,6}(?:(?P<short>-[^\s,-])(?:,\s+|(?=\s|$)))?(?P<long>--[\w-]+)?(?P<value>\[=\S*|=\S+)?(?:\s|$)", re.ASCII
)

#: What argp(3) understands and does not list.
_HIDDEN = (
    Option(("--program-name",), "required", "leave"),
    Option(("--HANG",), "optional", "leave"),
)

#: Ours. Where ch-run has an option of the same name (0.43 and later), it is used as ch-run has it.
_OURS = (
    Option(("-d", "--cdi"), "optional", "device"),
    Option(("--device", "--lock"), "required", "device"),
    Option(("--cdi-dirs",), "required", "cdi-dirs"),
)

#: Options that are passed on and change no step: whether they are given may matter, their value does not.
_KEPT = frozenset(
    (
        "--abort-fatal",
        "--cd",
        "--ch-ssh",
        "--color",
        "--env-no-expand",
        "--fuse-single",
        "--gid",
        "--join",
        "--join-ct",
        "--join-pid",
        "--mount",
        "--no-passwd",
        "--private-tmp",
        "--quiet",
        "--seccomp",
        "--set-env",
        "--set-env0",
        "--uid",
        "--unsafe",
        "--unset-env",
        "--verbose",
        "--write",
    )
)

#: Options with which ch-run starts no container.
_LEAVE = frozenset(("--feature", "--test", "--usage", "--version", "--warnings"))

HELP = """\
cdi-hpc adds, or means by them:
  -d, --cdi[=DEVICE]         inject CDI device(s): KIND, KIND=NAME, KIND=all, a
                             spec FILE, several with commas; all known kinds if
                             none is given (repeatable)
      --cdi-dirs=DIRS        director(y|ies) containing CDI specs
      --device=DEVICE        same as --cdi=DEVICE
      --lock=FILE            the devices of a lock file (cdi-hpc lock), if they
                             still mean the same
"""


def option_table(help_text: str) -> tuple[Option, ...]:
    """Every option of an installed ch-run with ours, from what it prints for ``--help``; () if that lists none."""
    listed = [option for line in help_text.splitlines() for option in _listed(line)]
    if not listed:
        return ()
    ours = {name for option in _OURS for name in option.names}
    theirs = (option for option in (*listed, *_HIDDEN) if not ours.intersection(option.names))
    return (*theirs, *_OURS)


def listed_names(help_text: str) -> frozenset[str]:
    """Names of the options that an installed ch-run has itself."""
    return frozenset(name for line in help_text.splitlines() for option in _listed(line) for name in option.names)


def _listed(line: str) -> Iterator[Option]:
    found = _LINE.match(line)
    if found is None:
        return
    names = tuple(name for name in (found["short"], found["long"]) if name)
    if names:
        yield Option(names, _arity(found["value"]), _use(names[-1]))


def _arity(value: str | None) -> Arity:
    if value is None:
        return "none"
    return "optional" if value.startswith("[") else "required"


def _use(name: str) -> Use:
    if name == "--help":
        return "help"
    if name in _LEAVE:
        return "leave"
    return "keep" if name in _KEPT else "plan"
