"""What a valid configuration has that is probably not meant.

Names, directories and devices that this machine does not have, and rules that decide nothing. ``cdi-hpc config check``
and the doctor say it; a launch does not ask.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cdi_hpc import trusted_program
from cdi_hpc.config.settings import Setting
from cdi_hpc.config.values import Configuration
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.site import aliases, identity, policy
from cdi_hpc.site.globs import TextPattern, path_pattern
from cdi_hpc.site.policy import Category, HookRule, Policy, Rule, Rules, Subject
from cdi_hpc.spec import request
from cdi_hpc.spec.decode import shorten
from cdi_hpc.spec.model import Hook
from cdi_hpc.spec.registry import DEFAULT_DIRECTORIES, RegisteredDevice, Registry

Settings = Mapping[tuple[str, ...], Sequence[Setting]]


def doubts(configuration: Configuration, settings: Settings, registry: Registry) -> list[Problem]:
    """Everything in a configuration that is worth a second look.

    Args:
        configuration: without errors.
        settings: what it was made from, with the places.
        registry: of the specs that launches find.

    """
    rules = configuration.policy or Policy()
    found = (
        *_missing_directories(settings),
        *_unknown_names(rules),
        *_idle_rules(rules),
        *_no_variables(rules),
        *_other_names(rules, registry),
        *_idle_hook_rules(rules),
        *_untrusted_programs(rules),
        *_missing_devices(configuration, settings, registry),
    )
    return [*dict.fromkeys(found)]


# What is not there ----------------------------------------------------------------------------------------------------


def _missing_directories(settings: Settings) -> Iterator[Problem]:
    """Of specs; one for plans is made when there is one to be kept."""
    for setting in settings.get(("spec-directories",), ()):
        for index, directory in enumerate(setting.value):
            # Of the default ones, one is made at boot by whoever writes to it.
            if directory not in DEFAULT_DIRECTORIES and not os.path.isdir(directory):
                where = setting.where.below(index)
                yield Problem(str(where), f"there is no directory {directory!r}", "make it, or take it out here")


def _unknown_names(rules: Policy) -> Iterator[Problem]:
    user = identity.this_user()
    for rule in (rule for each in rules.rules.values() for rule in each.rules):
        for what, names, number_of in (("user", rule.users, user.uid_of), ("group", rule.groups, user.gid_of)):
            for name in names:
                if not (name.isascii() and name.isdigit()) and number_of(name) is None:
                    does = "launches that get to it fail" if rule.verdict == "deny" else "it is for nobody of that name"
                    yield Problem(
                        str(rule.where), f"the rule is for the {what} {name!r}, whom nobody here knows: {does}"
                    )


def _missing_devices(configuration: Configuration, settings: Settings, registry: Registry) -> Iterator[Problem]:
    known = configuration.aliases
    for alias in known.values():
        wanted = [each for each in alias.stands_for if each not in known]
        yield from _unresolved(wanted, alias.where, registry)
    for path, found in settings.items():
        if path[0] == "launchers" and path[-1] == "devices":
            defaults = configuration.launchers[path[1]].devices
            wanted = [each for each in aliases.expand(defaults, known) if each not in (*known, "none")]
            yield from _unresolved(wanted, found[-1].where, registry)
    for gres in configuration.gres.values():
        devices = [f"{gres.kind}={name}" for name in gres.table.values()]
        yield from _unresolved(devices or [gres.kind], gres.where, registry)


def _unresolved(devices: Iterable[str], where: object, registry: Registry) -> Iterator[Problem]:
    for device in devices:
        try:
            request.resolve([device], registry)
        except CdiError as error:
            yield from (Problem(str(where), f"{each.where}: {each.what}", each.fix) for each in error.problems)


def _untrusted_programs(rules: Policy) -> Iterator[Problem]:
    """Programs that a rule has run, and that are never run because others could put their own there."""
    for rule in rules.hooks:
        if rule.verdict != "run":
            continue
        for path in _programs(rule.path.text):
            complaint = trusted_program.complaint(os.path.realpath(path))
            if complaint:
                what = f"the rule has {shorten(path)} run, which is refused: {complaint}"
                yield Problem(str(rule.where), what, _TRUST_IT if os.path.exists(path) else _INSTALL_IT)


def _programs(pattern: str) -> list[str]:
    """What a pattern names, or what is there in the one directory that it names. Others may lead all over the disk."""
    directory, _, name = pattern.rpartition("/")
    if set("*?[") & set(directory):
        return []
    if not set("*?[") & set(name):
        return [pattern]
    wanted = path_pattern(pattern)
    with contextlib.suppress(OSError), os.scandir(directory or "/") as entries:
        paths = sorted(f"{directory}/{each.name}" for each in entries if not each.is_dir())
        return [path for path in paths if wanted.matches(path)][:_MOST_PROGRAMS]
    return []


_TRUST_IT = "chown it to root and chmod go-w, or name another program"
_INSTALL_IT = "install it, or correct the path"

#: Programs of a directory that are looked at.
_MOST_PROGRAMS = 100


# Rules that don't do what they seem to -------------------------------------------------------------------------------


def _no_variables(rules: Policy) -> Iterator[Problem]:
    """A spec may set a variable of any name, and nothing reads one of these."""
    for rule in rules.rules.get("environment", Rules()).rules:
        for pattern in rule.patterns:
            name = pattern.text.partition("=")[0]
            if name.startswith("$") or any(letter.isspace() for letter in name):
                what = (
                    f"{shorten(pattern.text)} is for variables with a {'$' if name[0] == '$' else 'blank'} in the name"
                )
                yield Problem(str(rule.where), what, "write the name alone, as in LD_PRELOAD")


def _other_names(rules: Policy, registry: Registry) -> Iterator[Problem]:
    """Devices that no rule denies, with the nodes of one that is denied: ``all``, or the same GPU by its UUID."""
    listed = rules.rules.get("devices", Rules())
    deciding = {name: _first(listed, name) for name in registry.devices}
    for rule in (rule for rule in listed.rules if rule.verdict == "deny"):
        for name in (name for name, decider in deciding.items() if decider is rule):
            others = [other for other in _with_the_nodes_of(name, registry) if _is_allowed(deciding[other], listed)]
            if others:
                shown = " and ".join(repr(other) for other in others[:2]) + (" and others" if others[2:] else "")
                what = f"{str(rule)!r} denies {name!r}, but not {shown}, with the same device nodes"
                yield Problem(str(rule.where), what, "deny the nodes under 'mount-sources', or these names as well")
                break


def _first(rules: Rules, device: str) -> Rule | None:
    subject = Subject("devices", (device,), "")
    return next((rule for rule in rules.rules if policy.matches(rule, subject)), None)


def _is_allowed(decider: Rule | None, rules: Rules) -> bool:
    return (rules.default if decider is None else decider.verdict) == "allow"


def _with_the_nodes_of(name: str, registry: Registry) -> Iterator[str]:
    wanted = _nodes(registry.devices[name])
    kind = name.partition("=")[0]
    for other, device in registry.devices.items():
        if wanted and other != name and other.partition("=")[0] == kind and wanted <= _nodes(device):
            yield other


def _nodes(registered: RegisteredDevice) -> frozenset[str]:
    edits = registered.device.container_edits if registered.device is not None else None
    return frozenset(node.host_path or node.path for node in edits.device_nodes) if edits is not None else frozenset()


# Rules that decide nothing --------------------------------------------------------------------------------------------
#
# A rule decides nothing if an earlier one for the same people matches all that it names. That is tried with examples:
# texts that a pattern describes, with characters in them that nobody writes. What a pattern without these characters
# makes of them, it makes of any text, so an answer is right; where none is found in this way, nothing is said.

#: Of a private-use area: no pattern has it, so only ``*``, ``?`` and ``[!...]`` can match it.
_STRANGE = "\ue000"
_LONG = _STRANGE * 97

#: More stars than this, and not every combination is tried.
_MOST_STARS = 6

_PIECES = re.compile(r"\*\*|[*?]|\[!?.[^]]*\]|.", re.DOTALL)
_ONE_OF_ONE = 3  # characters of "[*]", which is a star


def _idle_rules(rules: Policy) -> Iterator[Problem]:
    for category, each in rules.rules.items():
        for number, rule in enumerate(each.rules):
            before = (earlier for earlier in each.rules[:number] if _is_for_all_of(earlier, rule))
            decider = next((earlier for earlier in before if _decides(earlier, rule, category)), None)
            if decider is not None:
                yield _idle(rule.where, str(rule), str(decider), decider.where)


def _idle(where: object, rule: str, decider: str, its_place: object) -> Problem:
    what = f"{rule!r} decides nothing: {decider!r} comes first, in {its_place}"
    return Problem(str(where), what, "put it before that rule, or remove it")


def _is_for_all_of(earlier: Rule, rule: Rule) -> bool:
    if not earlier.users and not earlier.groups:
        return True
    people, whose = {*rule.users}, {*rule.groups}
    return bool(people or whose) and people <= {*earlier.users} and whose <= {*earlier.groups}


def _decides(earlier: Rule, rule: Rule, category: Category) -> bool:
    negates = any("[!" in pattern.text for pattern in earlier.patterns)
    texts = [text for pattern in rule.patterns for text in _examples(pattern.text, category)]
    return all(
        not (negates and _STRANGE in text) and policy.matches(earlier, Subject(category, (text,), "")) for text in texts
    )


def _examples(pattern: str, category: Category) -> Iterator[str]:
    if category == "environment":
        return _texts(pattern if "=" in pattern else f"{pattern}=*")
    return _paths(pattern)


def _texts(pattern: str) -> Iterator[str]:
    pieces = _PIECES.findall(pattern)
    choices = [_choices(piece) for piece in pieces]
    if sum(len(each) > 1 for each in choices) > _MOST_STARS:
        yield from ("".join(each[0] for each in choices), "".join(each[-1] for each in choices))
    else:
        yield from map("".join, itertools.product(*choices))


def _choices(piece: str) -> tuple[str, ...]:
    if piece == "*":
        return ("", _LONG)
    if piece == "**":
        return ("", f"/{_LONG}/", f"/{_LONG}/{_LONG}/{_LONG}/")
    if piece == "?" or (piece[0] == "[" and len(piece) > _ONE_OF_ONE):
        return (_STRANGE,)
    return (piece[1] if len(piece) == _ONE_OF_ONE else piece,)


def _paths(pattern: str) -> Iterator[str]:
    """As :func:`_texts`; a part that is only a star is never empty."""
    for text in _texts(re.sub(r"(?<![^/])\*(?![^/])", "?*", pattern)):
        yield re.sub("/+", "/", text)


def _idle_hook_rules(rules: Policy) -> Iterator[Problem]:
    for number, rule in enumerate(rules.hooks):
        decider = next((earlier for earlier in rules.hooks[:number] if _decides_hook(earlier, rule)), None)
        if decider is not None:
            yield _idle(rule.where, rule.path.text, decider.path.text, decider.where)


def _decides_hook(earlier: HookRule, rule: HookRule) -> bool:
    pattern = rule.path.text
    whole = [f"/{_STRANGE}/{text}" for text in _texts(pattern)] if isinstance(rule.path, TextPattern) else None
    texts = _paths(pattern) if whole is None else whole
    negates = "[!" in earlier.path.text
    hooks = (Hook("createContainer", text, rule.arguments) for text in texts)
    return all(
        not (negates and _STRANGE in hook.path) and policy.hook_rule(Policy(hooks=(earlier,)), hook) is not None
        for hook in hooks
    )
