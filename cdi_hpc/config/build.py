"""From settings to values: the rules that a schema can't say. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from cdi_hpc.config.settings import Place, Setting, VariablePlace
from cdi_hpc.config.values import PLACEHOLDERS, Configuration, LauncherDefaults, bind_words
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.site import aliases as alias_rules
from cdi_hpc.site import hook_environment
from cdi_hpc.site.aliases import Alias
from cdi_hpc.site.allocation import GresMap
from cdi_hpc.site.globs import PathPattern, PatternError, TextPattern, path_pattern, text_pattern
from cdi_hpc.site.policy import CATEGORIES, Category, HookRule, Policy, Rule, Rules
from cdi_hpc.spec import names
from cdi_hpc.spec.decode import shorten

_IN_BRACES = re.compile(r"\{([^{}]*)\}")

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def build(joined: Mapping[tuple[str, ...], tuple[Setting, ...]]) -> Configuration:
    """The configuration that the settings make.

    Raises:
        CdiError: with everything that is wrong with them.

    """
    builder = _Builder()
    for path, settings in joined.items():
        builder.add(path, settings)
    problems = [*builder.problems, *alias_rules.problems(builder.aliases)]
    if problems:
        raise CdiError(dict.fromkeys(problems))
    return builder.finish()


@dataclass
class _Builder:
    """The configuration while settings are being added; what is wrong is collected."""

    configuration: Configuration = field(default_factory=Configuration)
    aliases: dict[str, Alias] = field(default_factory=dict)
    launchers: dict[str, LauncherDefaults] = field(default_factory=dict)
    rules: dict[Category, Rules] = field(default_factory=dict)
    hooks: tuple[HookRule, ...] = ()
    gres: dict[str, GresMap] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: tuple[str, ...], settings: tuple[Setting, ...]) -> None:
        """Take in what one key was set to."""
        handlers: dict[str, Callable[[tuple[str, ...], tuple[Setting, ...]], None]] = {
            "aliases": self._alias,
            "launchers": self._launcher,
            "policy": self._policy,
            "slurm": self._slurm,
            "cache": self._cache,
            "hooks": self._hooks,
        }
        handlers.get(path[0], self._plain)(path, settings)

    def finish(self) -> Configuration:
        """Everything that was added."""
        policy = Policy(self.rules, self.hooks) if self.rules or self.hooks else None
        return self.configuration._replace(
            aliases=self.aliases, launchers=self.launchers, policy=policy, gres=self.gres
        )

    def _set(self, **values: Any) -> None:
        self.configuration = self.configuration._replace(**values)

    def _plain(self, path: tuple[str, ...], settings: tuple[Setting, ...]) -> None:
        value = settings[-1].value
        self._set(**{path[0].replace("-", "_"): tuple(value) if isinstance(value, list) else value})

    def _alias(self, path: tuple[str, ...], settings: tuple[Setting, ...]) -> None:
        where = settings[-1].where
        complaint = alias_rules.name_complaint(path[1])
        if complaint:
            self.problems.append(Problem(str(where), complaint, "take another name"))
        else:
            self.aliases[path[1]] = Alias(path[1], _texts(settings[-1].value), where)

    def _launcher(self, path: tuple[str, ...], settings: tuple[Setting, ...]) -> None:
        _, launcher, name = path
        value: Any = settings[-1].value
        value = _texts(value) if name in ("devices", "binds") else value
        if name == "binds":
            where = settings[-1].where
            wrong = [number for number, text in enumerate(value) if bind_words(text) is None]
            fix = "write SRC[:DST[:ro]]"
            self.problems += (Problem(str(where.below(n)), f"{shorten(value[n])} is no bind", fix) for n in wrong)
        change: dict[str, Any] = {name.replace("-", "_"): value}
        self.launchers[launcher] = self.launchers.get(launcher, LauncherDefaults())._replace(**change)

    def _cache(self, path: tuple[str, ...], settings: tuple[Setting, ...]) -> None:
        value, where = settings[-1].value, settings[-1].where
        if path[1] == "directory":
            complaint, fix = _directory_complaint(value, is_variable=isinstance(where, VariablePlace))
            if complaint:
                self.problems.append(Problem(str(where), complaint, fix))
            self._set(cache_directory=value)
            return
        number = _size(value) if path[1] == "max-size" else int(value)
        self._set(cache=self.configuration.cache._replace(**{path[1].replace("-", "_"): number}))

    # Rules

    def _policy(self, path: tuple[str, ...], settings: tuple[Setting, ...]) -> None:
        category: Any = path[1]
        before = self.rules.get(category, Rules())
        if path[2] == "default":
            self.rules[category] = replace(before, default=settings[-1].value, where=settings[-1].where)
            return
        found = (
            self._rule(category, value, setting.where.below(index))
            for setting in settings
            for index, value in enumerate(setting.value)
        )
        self.rules[category] = replace(before, rules=tuple(rule for rule in found if rule is not None))

    def _rule(self, category: Category, value: Mapping[str, Any], where: Place | VariablePlace) -> Rule | None:
        verdicts = [name for name in ("allow", "deny") if name in value]
        if len(verdicts) != 1:
            what = "both 'allow' and 'deny'" if verdicts else "neither 'allow' nor 'deny'"
            self.problems.append(Problem(str(where), f"the rule has {what}", "a rule has one of them"))
            return None
        verdict: Any = verdicts[0]
        patterns = [self._pattern(category, text, where.below(verdict)) for text in _texts(value[verdict])]
        return Rule(
            verdict,
            tuple(pattern for pattern in patterns if pattern is not None),
            users=_texts(value.get("users", [])),
            groups=_texts(value.get("groups", [])),
            because=value.get("because", ""),
            where=where,
        )

    def _pattern(self, category: Category, text: str, where: Place | VariablePlace) -> PathPattern | TextPattern | None:
        complaint, fix = _COMPLAINTS[category](text)
        if complaint:
            self.problems.append(Problem(str(where), complaint, fix))
            return None
        return self._compiled(text, where, text_pattern if category == "environment" else path_pattern)

    def _compiled(
        self, text: str, where: Place | VariablePlace, compile_: Callable[[str], PathPattern | TextPattern]
    ) -> PathPattern | TextPattern | None:
        try:
            return compile_(text)
        except PatternError as error:
            self.problems.append(Problem(str(where), str(error)))
            return None

    def _hooks(self, path: tuple[str, ...], settings: tuple[Setting, ...]) -> None:
        if path[1] == "unknown":
            self._set(unknown_hooks=settings[-1].value)
            return
        found = (
            self._hook_rule(value, setting.where.below(index))
            for setting in settings
            for index, value in enumerate(setting.value)
        )
        self.hooks = tuple(rule for rule in found if rule is not None)

    def _hook_rule(self, value: Mapping[str, Any], where: Place | VariablePlace) -> HookRule | None:
        text = value["path"]
        if "/" in text and not text.startswith("/"):
            what = f"the pattern {text!r} never matches: hooks have absolute paths"
            self.problems.append(Problem(str(where.below("path")), what, "begin it with '/', or write only a name"))
            return None
        pattern = self._compiled(text, where.below("path"), path_pattern if "/" in text else text_pattern)
        if pattern is None:
            return None
        for complaint in _run_complaints(value):
            self.problems.append(Problem(str(where), *complaint))
        return HookRule(
            value["action"],
            pattern,
            _texts(value.get("arguments", [])),
            value.get("because", ""),
            where,
            int(value.get("timeout", HookRule.timeout)),
            value.get("on-failure", "fail") == "fail",
            self._variable_patterns(_texts(value.get("env", [])), where.below("env")),
        )

    def _variable_patterns(self, texts: tuple[str, ...], where: Place | VariablePlace) -> tuple[TextPattern, ...]:
        patterns: list[TextPattern] = []
        for text in texts:
            complaint = _hook_variable_complaint(text)
            if complaint:
                self.problems.append(Problem(str(where), *complaint))
                continue
            try:
                patterns.append(text_pattern(text))
            except PatternError as error:
                self.problems.append(Problem(str(where), str(error)))
        return tuple(patterns)

    # Slurm

    def _slurm(self, path: tuple[str, ...], settings: tuple[Setting, ...]) -> None:
        value, where = settings[-1].value, settings[-1].where
        if path[1] == "unmapped":
            self._set(unmapped=value)
            return
        node = value.get("node")
        by = value.get("by", "index")
        self.problems += _gres_problems(value, where)
        pattern: Any = self._compiled(node, where.below("node"), path_pattern) if node else None
        table = {_index(index): name for index, name in value.get("table", {}).items()}
        self.gres[path[2]] = GresMap(value["kind"], by, table, pattern, where)


def _run_complaints(value: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What is wrong with a rule as one that has hooks run."""
    if value["action"] != "run":
        for name in ("timeout", "on-failure", "env"):
            if name in value:
                yield f"{name!r} is for hooks that are run, and 'action' is {value['action']!r}", "leave it out"
    elif "/" not in value["path"]:
        fix = "write the whole path: a program of that name can be anywhere"
        yield f"'run' allows a program by its path, and {value['path']!r} is only a name", fix


def _hook_variable_complaint(text: str) -> tuple[str, str] | None:
    """Why a pattern lets no variable of a hook through; None if it may."""
    if "=" in text:
        return f"{text!r} is no pattern for a variable's name", "leave out '=' and what follows: values are the spec's"
    if hook_environment.chooses_code(text):
        return f"{text!r} chooses what a program loads, and is never let through", "have the program set it itself"
    return None


def _texts(value: Any) -> tuple[str, ...]:
    """One text or number, or a list of them."""
    return tuple(str(item) for item in (value if isinstance(value, list) else [value]))


def _size(value: str | float) -> int:
    if not isinstance(value, str):
        return int(value)
    return int(value.rstrip("KMG")) * _UNITS.get(value[-1], 1)


def _directory_complaint(text: str, *, is_variable: bool) -> tuple[str, str]:
    """What is wrong with a directory for plans, and what to do; empty if nothing is."""
    if "{" in text and is_variable:  # the native runner reads it, and asks nobody for a name
        return f"{shorten(text)} has a brace", "write the path itself; a shell knows $HOME and $USER"
    parts = _IN_BRACES.split(text)
    unknown = [name for name in parts[1::2] if name not in PLACEHOLDERS]
    if unknown or any(brace in part for part in parts[::2] for brace in "{}"):
        what = f"{{{unknown[0]}}} stands for nothing" if unknown else f"{shorten(text)} has a single brace"
        return what, f"there is {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}"
    if ".." in text.split("/"):
        return f"{shorten(text)} has '..'", "write the path without it"
    return "", ""


def _index(text: str) -> str:
    """An index as it is looked up: ``007`` is 7."""
    return str(int(text)) if text.isascii() and text.isdigit() else text


# What patterns have to look like -----------------------------------------------------------------------------------
#
# A pattern that can't match anything does no harm in a rule that allows. In one that denies it is a hole.


def _kind_complaint(text: str) -> tuple[str, str]:
    if "=" in text:
        return f"{text!r} is a pattern for a device, not for a kind", "put it under 'devices'"
    if text.count("/") != 1 or "**" in text or text.startswith("/") or text.endswith("/"):
        return f"{text!r} is no pattern for a kind", "a pattern looks like 'VENDOR/CLASS'; '*/*' is every kind"
    return "", ""


def _device_complaint(text: str) -> tuple[str, str]:
    kind, equals, name = text.partition("=")
    if not equals or not name or _kind_complaint(kind)[0] or "/" in name or "**" in name:
        fix = "a pattern looks like 'VENDOR/CLASS=NAME'; '*/*=*' is every device"
        return f"{text!r} is no pattern for a device", fix
    return "", ""


def _path_complaint(text: str) -> tuple[str, str]:
    if not text.startswith("/"):
        return f"the pattern {text!r} never matches: paths are absolute", "begin it with '/'; '/**' is every path"
    return "", ""


def _variable_complaint(text: str) -> tuple[str, str]:
    if text.startswith("="):
        return f"{text!r} is no pattern for a variable", "a pattern looks like 'NAME' or 'NAME=VALUE'"
    return "", ""


_COMPLAINTS: dict[Category, Callable[[str], tuple[str, str]]] = {
    "kinds": _kind_complaint,
    "devices": _device_complaint,
    "specs": _path_complaint,
    "mount-sources": _path_complaint,
    "mount-targets": _path_complaint,
    "environment": _variable_complaint,
}
assert _COMPLAINTS.keys() == CATEGORIES.keys()  # noqa: S101  # a table that lacks a row


def _gres_problems(value: Mapping[str, Any], where: Place | VariablePlace) -> Iterable[Problem]:
    complaint = names.kind_complaint(value["kind"])
    if complaint:
        yield Problem(str(where.below("kind")), complaint, "a kind is 'VENDOR/CLASS'")
    by = value.get("by", "index")
    if (by == "table") != ("table" in value):
        what = "'by: table' needs a 'table'" if by == "table" else f"'by: {by}' has no use for a 'table'"
        yield Problem(str(where), what, "write both or none")
    for index, name in value.get("table", {}).items():
        bad = "" if index.isascii() and index.isdigit() else f"{index!r} is no index: a number from 0"
        complaint = bad or names.device_complaint(name)
        if complaint:
            yield Problem(str(where.below("table", index)), complaint)
    node = value.get("node", "/")
    if not node.startswith("/"):
        yield Problem(str(where.below("node")), *_path_complaint(node))
