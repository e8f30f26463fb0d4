"""Variables of the spec as the launcher takes them: ``APPTAINERENV_NAME=VALUE`` in its own environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cdi_hpc.backend import Variable
from cdi_hpc.backends.singularity.settings import Settings
from cdi_hpc.plan import SetEnv, Unsupported

#: Names go into a shell's ``export`` in the container unquoted (injectEnvHandler); it would run any other.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

#: What the launcher does not let anybody set, or sets itself afterwards.
_RESERVED = frozenset(
    {
        "HOME",
        "UID",
        "GID",
        "APPTAINER_SHELL",
        "APPTAINER_APPNAME",
        "SINGULARITY_SHELL",
        "SINGULARITY_APPNAME",
        "PREPEND_PATH",
        "APPEND_PATH",
    }
)

#: What a shell makes something of between double quotes. The quotes themselves the launcher escapes.
_ACTIVE = re.compile(r"([\\$`])")


def variables(settings: Settings, planned: Iterable[SetEnv]) -> tuple[list[Variable], list[Unsupported]]:
    """Variables for the launcher's environment, and those of the spec that it can't be given."""
    made: list[Variable] = []
    lacks: list[Unsupported] = []
    prefix, *others = settings.prefixes
    for action in planned:
        reason = refusal(settings.name, action)
        if reason:
            lacks.append(Unsupported(f"env {action.name}", reason, action.origin))
        elif not _is_set(action.name, others, settings.environ):
            made.append(Variable(f"{prefix}ENV_{action.name}", _escaped(settings, action.value), default=True))
    return made, lacks


def _is_set(name: str, prefixes: Iterable[str], environ: Mapping[str, str]) -> bool:
    """Whether the user has set it by a name that counts less than ours: his wins all the same."""
    return any(f"{prefix}ENV_{name}" in environ for prefix in prefixes)


def refusal(launcher: str, action: SetEnv) -> str:
    """Why a launcher can't be given a variable, or ""."""
    if not _NAME.match(action.name):
        return f"{launcher} sets variables by a shell, and {action.name!r} is no name to it"
    if action.name in _RESERVED:
        return f"{launcher} lets nobody set it"
    try:
        action.value.encode("utf-8")
    except UnicodeEncodeError:
        return f"{launcher} passes values on as JSON, and {action.value!r} is not UTF-8"
    return ""


def _escaped(settings: Settings, value: str) -> str:
    return escaped(value) if settings.evaluates else value


def escaped(value: str) -> str:
    """A value that a shell evaluates to this one."""
    return _ACTIVE.sub(r"\\\1", value)
