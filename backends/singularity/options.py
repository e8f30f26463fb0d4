"""Apptainer's and Singularity's options: their table, asked of the launcher, and what those that matter mean to us."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cdi_hpc.backend import Arity, Option, Use

#: Subcommands that begin a container, or a process in one.
SUBCOMMANDS = (("exec",), ("run",), ("shell",), ("test",), ("instance", "start"), ("instance", "run"))

#: Ours, in every one of these. ``--device`` and ``--cdi-dirs`` are spelled as Apptainer 1.5 and SingularityCE 4 do.
OURS = (
    Option(("--device", "--lock"), "required", "device"),
    Option(("--cdi",), "optional", "device"),
    Option(("--cdi-dirs",), "required", "cdi-dirs"),
)

HELP = """\
Devices (Container Device Interface, by cdi-hpc):
      --device string[,string...]     add a CDI device, for example nvidia.com/gpu=0; may be repeated
      --cdi[=string]                  the same; without a value, all devices of every known kind
      --lock string                   the devices of a lock file (cdi-hpc lock), if they still mean the same
      --cdi-dirs string[,string...]   look for CDI specs in these directories
"""

#: What an option means to us, where it is not ``plan``: nothing that the plan is made from depends on these.
_USES: dict[str, Use] = {
    **dict.fromkeys(
        (
            "--add-caps",
            "--allow-setuid",
            "--app",
            "--apply-cgroups",
            "--blkio-weight",
            "--blkio-weight-device",
            "--cpu-shares",
            "--cpus",
            "--cpuset-cpus",
            "--cpuset-mems",
            "--cwd",
            "--debug",
            "--dns",
            "--drop-caps",
            "--env",
            "--env-file",
            "--hostname",
            "--keep-privs",
            "--memory",
            "--memory-reservation",
            "--memory-swap",
            "--network",
            "--network-args",
            "--no-init",
            "--no-privs",
            "--no-umask",
            "--nocolor",
            "--oom-kill-disable",
            "--pid-file",
            "--pids-limit",
            "--pwd",
            "--quiet",
            "--shell",
            "--silent",
            "--verbose",
        ),
        "keep",
    ),
    "--help": "help",
    "--version": "leave",
}

#: Options that a release may have without showing them. Whether it has them, and with a value, the launcher says.
HIDDEN = (
    "--pwd",
    "--containlibs",
    "--tmpdir",
    "--no-nv",
    "--no-rocm",
    "--underlay",
    "--ignore-subuid",
    "--ignore-fakeroot-command",
    "--ignore-userns",
    "--docker-username",
    "--docker-password",
)

#: A line of pflag's usage: ``  -B, --bind stringArray   a user-bind path ...``. A switch has no type; an option that
#: may stand alone shows what it means then: ``--cdi string[="all"]``.
_LINE = re.compile(
    r"^ {2,6}(?:-(?P<short>\w), )?(?P<long>--[\w-]+)(?: (?P<type>[\w:<>-]+))?(?P<alone>\[=.*?\])?(?:\s{2,}.*)?$"
)

_NEEDS_VALUE = "flag needs an argument"
_UNKNOWN = "unknown flag"


def parse_help(text: str) -> tuple[Option, ...]:
    """Options in the help of a command, in its order (spf13/pflag, FlagUsages)."""
    matches = (_LINE.match(line) for line in text.splitlines())
    return tuple(_option(match) for match in matches if match)


def _option(match: re.Match[str]) -> Option:
    short, name = match["short"], match["long"]
    arity: Arity = "none" if match["type"] is None else "required"
    if match["alone"]:
        arity = "optional"
    names = (f"-{short}", name) if short else (name,)
    return Option(names, arity, _USES.get(name, "plan"))


def hidden_option(name: str, answer: str) -> Option | None:
    """An option that is not in the help, from what the launcher says when it is given alone; None if it has none."""
    if _UNKNOWN in answer:
        return None
    return Option((name,), "required" if _NEEDS_VALUE in answer else "none", _USES.get(name, "plan"))


def with_ours(options: Iterable[Option]) -> tuple[Option, ...]:
    """Options with ours in the place of the launcher's own of the same name: ours give the whole view."""
    ours = {name for option in OURS for name in option.names}
    return (*(option for option in options if ours.isdisjoint(option.names)), *OURS)


def names(options: Iterable[Option]) -> Iterator[str]:
    """Every name of every option."""
    return (name for option in options for name in option.names)
