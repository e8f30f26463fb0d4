"""A plan as bash: a whole script, its environment alone, or its mounts alone.

The text is a function of the plan and nothing else, so that a site can keep a script in its repository and
review what changes. docs/decisions/004-bash-scripts.md says why it is made as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Literal

from cdi_hpc.errors import CdiError, Problem, assert_never, printable
from cdi_hpc.plan import (
    Action,
    Bind,
    CudaCompat,
    Directory,
    MountFilesystem,
    Note,
    Plan,
    RunHook,
    SetEnv,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.spec.model import Origin
from cdi_hpc.translation import describe

#: Names that bash won't let go of: read-only, or set by it whenever it runs a command.
RESERVED_NAMES = frozenset(
    {
        "BASHOPTS",
        "BASH_ARGC",
        "BASH_ARGV",
        "BASH_LINENO",
        "BASH_SOURCE",
        "BASH_VERSINFO",
        "EUID",
        "PIPESTATUS",
        "PPID",
        "SHELLOPTS",
        "SHLVL",
        "UID",
        "_",
    }
)

#: Names whose values bash makes up until they are unset.
DYNAMIC_NAMES = frozenset(
    {
        "BASHPID",
        "BASH_ALIASES",
        "BASH_ARGV0",
        "BASH_CMDS",
        "BASH_COMMAND",
        "BASH_REMATCH",
        "BASH_SUBSHELL",
        "COMP_WORDBREAKS",
        "DIRSTACK",
        "EPOCHREALTIME",
        "EPOCHSECONDS",
        "FUNCNAME",
        "GROUPS",
        "HISTCMD",
        "LINENO",
        "OPTIND",
        "RANDOM",
        "SECONDS",
        "SRANDOM",
    }
)

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

#: mount(8) separates options by commas, and acts itself on those that begin with x- or X-.
_OPTION = re.compile(r"(?![xX]-)[^\s,\\\"'#]+")

_MODE = 0o7777

_SHORT_ESCAPES = {"\\": r"\\", "'": r"\'", "\n": r"\n", "\t": r"\t"}


def script(plan: Plan, *, only: Literal["env", "mounts"] | None = None, header: tuple[str, ...] = ()) -> str:
    """The plan as text for bash 4.2 or newer.

    Args:
        plan: what to do.
        only: ``env``, exports to be sourced in a native job; ``mounts``, a function ``cdi_mounts ROOT``;
            None, a script ``bash SCRIPT [--stage=...] IMAGE COMMAND...``.
        header: lines for the comment at the top.

    Raises:
        CdiError: a value can't be carried by bash, such as a NUL byte.

    """
    if only == "env":
        return _text(_env_script(plan, header))
    if only == "mounts":
        return _text(_mounts_script(plan, header))
    return _text(_whole_script(plan, header))


def quote(text: str, where: str = "") -> str:
    r"""One word of bash that means exactly ``text``, on one line of printable characters.

    shlex.quote does for printable text. Control characters, bytes that are not UTF-8 and what a terminal would
    hide become ``$'\ooo'``: a script is reviewed by people.
    """
    data = _bytes(text, where)
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(character) for character in data.decode("utf-8", "surrogateescape")) + "'"


def _escaped(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if character.isprintable():
        return character
    # Three octal digits: with \x, the next character could be taken for another digit.
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def _bytes(text: str, where: str) -> bytes:
    if "\0" in text:
        raise CdiError(Problem(where, f"{text!r} holds a NUL byte, which bash can not carry", "correct the spec"))
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        fix = "correct the spec"
        raise CdiError(Problem(where, f"{text!r} is not valid Unicode", fix)) from None


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _comment(text: str, prefix: str = "# ") -> str:
    return (prefix + printable(text)).rstrip()


def _from(origin: Origin) -> str:
    return _comment(f"from {origin}")


def _head(plan: Plan, purpose: tuple[str, ...], header: tuple[str, ...]) -> Iterator[str]:
    yield "#!/usr/bin/env bash"
    yield from map(_comment, purpose)
    for device in plan.devices:
        yield _comment(f"device: {device}")
    # The prefix keeps a line from being a directive of shellcheck.
    yield from (_comment(line, "# | ") for line in header)
    # Values are data: what they hold in single quotes is not meant to be expanded.
    yield "# shellcheck disable=SC2016"
    yield ""


# --- the environment alone ------------------------------------------------------------------------------------


def _env_script(plan: Plan, header: tuple[str, ...]) -> Iterator[str]:
    purpose = (
        "The environment that these devices ask for, made by cdi-hpc: source this file in bash.",
        "Mounts, links and devices of the plan are not in it: a native job sees the host's.",
    )
    yield from _head(plan, purpose, header)
    for action in plan.actions:
        if isinstance(action, SetEnv):
            yield _from(action.origin)
            if action.name in DYNAMIC_NAMES:
                yield f"unset -v {action.name}"
            yield f"export {_name(action)}={quote(action.value, str(action.origin))}"


def _name(action: SetEnv) -> str:
    where = str(action.origin)
    if _IDENTIFIER.fullmatch(action.name) is None:
        raise CdiError(Problem(where, f"{action.name!r} is no name that bash can export", "use cdi-hpc run"))
    if action.name in RESERVED_NAMES:
        raise CdiError(Problem(where, f"bash keeps the variable {action.name!r} to itself", "use cdi-hpc run"))
    return action.name


# --- steps ------------------------------------------------------------------------------------------------------


def _steps(plan: Plan) -> Iterator[str]:
    yield "plan() {"
    yield "  :"
    for action in plan.actions:
        yield f"  {_from(action.origin)}"
        yield from (f"  {line}" for line in _step(action))
    yield "}"


def _step(action: Action) -> Iterator[str]:
    where = str(action.origin)
    if isinstance(action, SetEnv):
        yield f"environment+=({_word(f'{_name(action)}={action.value}', where)})"
    elif isinstance(action, Bind):
        yield _call(where, "bind", action.kind, action.source, action.target, _bind_options(action))
    elif isinstance(action, MountFilesystem):
        yield _filesystem(action)
    elif isinstance(action, Symlink):
        yield _call(where, "link", action.path, action.points_to)
    elif isinstance(action, WriteFile):
        yield _file(action)
    elif isinstance(action, (Directory, RunHook)):
        what = f"{describe.what(action)}: a script is made for any image, and hooks are run for one"
        raise CdiError(Problem(where, what, "use cdi-hpc run"))
    elif isinstance(action, CudaCompat):
        versions = (action.host_driver_version, action.host_cuda_version)
        yield _call(where, "cuda_compat", action.directory, *versions)
    elif isinstance(action, UpdateLdCache):
        yield _call(where, "ldcache", *action.folders)
    elif isinstance(action, (Note, Unsupported)):
        what = "nothing to do for" if isinstance(action, Note) else "not done:"
        yield _comment(f"{what} {action.edit}: {action.reason}")
    else:
        assert_never(action)


def _call(where: str, function: str, *words: str) -> str:
    return " ".join([function, *(_word(word, where) for word in words)])


def _word(text: str, where: str) -> str:
    return quote(text, where)


def _bind_options(action: Bind) -> str:
    words = ["rbind" if action.recursive else "bind"]
    if action.flags:
        words += action.flags
        words += [flag for flag in action.kept if flag not in action.flags]
    words.append(action.propagation)
    return _options(tuple(words), str(action.origin))


def _options(words: tuple[str, ...], where: str) -> str:
    for word in words:
        if _OPTION.fullmatch(word) is None or not word.isprintable():
            raise CdiError(Problem(where, f"{word!r} can not be given to mount(8)", "correct the spec"))
    return ",".join(words)


def _filesystem(action: MountFilesystem) -> str:
    where = str(action.origin)
    options = _options(action.flags + action.data, where)
    return _call(where, "filesystem", action.fstype, action.source, action.target, options)


def _file(action: WriteFile) -> str:
    text = action.content.decode("utf-8", "surrogateescape")
    escaped = text.replace("\\", "\\\\").replace("\0", "\\0000")
    return _call(str(action.origin), "file", action.path, f"{action.mode & _MODE:o}", escaped)


def _refusals(plan: Plan) -> Iterator[str]:
    yield "cdi_hpc_refusals=("
    for action in plan.unsupported():
        if action.fatal:
            yield f"  {quote(printable(f'{action.edit}: {action.reason} ({action.origin})'))}"
    yield ")"


# --- the scripts ------------------------------------------------------------------------------------------------


def _preamble() -> str:
    return resources.files(__package__).joinpath("preamble.bash").read_text(encoding="utf-8").rstrip()


def _whole_script(plan: Plan, header: tuple[str, ...]) -> Iterator[str]:
    purpose = (
        "Runs a command in an image with these devices, as an ordinary user; made by cdi-hpc.",
        "usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]",
        "IMAGE is a directory; / is the host itself. It is not written to. The exit status is the command's;",
        "125 is a failure of this script, 126 and 127 mean that the command can't be run or isn't there.",
        "Needs bash 4.2, util-linux 2.36, coreutils, and ldconfig where libraries are added.",
    )
    yield from _head(plan, purpose, header)
    yield _preamble()
    yield from _plan_section(plan)
    yield "cdi_hpc_next=()"
    yield 'main "$@"'
    yield 'exec -- "${cdi_hpc_next[@]}"'


def _mounts_script(plan: Plan, header: tuple[str, ...]) -> Iterator[str]:
    purpose = (
        "The mounts, links and files of these devices as a function for bash, made by cdi-hpc: source this",
        "file and call cdi_mounts ROOT. It expects to run as root of a mount namespace of its own (unshare",
        "--user --map-root-user --mount will do) with the container's root made at ROOT, its /proc and /dev",
        "mounted, and writable where mount points and links are missing. They stay there. It returns 125 and",
        "says why if something fails. The environment is not set: see --only env.",
    )
    yield from _head(plan, purpose, header)
    yield _preamble()
    yield from _plan_section(plan)
    yield "cdi_mounts() ( # ROOT; a subshell, so that nothing else of the caller changes"
    yield '  main_mounts "$@"'
    yield ")"


def _plan_section(plan: Plan) -> Iterator[str]:
    yield ""
    yield "# " + "=" * 94
    yield "# The plan."
    yield "# " + "=" * 94
    yield ""
    if plan.private_dev:
        yield _comment(f"The container has a /dev of its own: {plan.private_dev}")
    yield f"wants_private_dev() {{ {'true' if plan.private_dev else 'false'}; }}"
    yield ""
    yield "# What stops it: demands of the specs that can't be met."
    yield from _refusals(plan)
    yield ""
    yield from _steps(plan)
    yield ""
