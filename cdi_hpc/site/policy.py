"""A site's rules about what specs may ask for, and about their hooks. Pure.

Each :class:`Rules` is a list of which the first rule that matches decides; where none does, its default. What a rule
is held against is a :class:`Subject`, which may have several spellings: the path in the spec, and the real one that it
leads to. A rule that allows has to match all of them, a rule that denies any of them. So a link gains nothing.

A rule that denies also matches what *contains* something it denies: with ``/etc/shadow`` denied, ``/etc`` can't be
mounted either, unless an earlier rule allows just that.

Where this is enforced, and where it is only advice, is said in docs/configuration.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Callable, Literal

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.plan import Action, Bind, Covered, Plan, SetEnv, UpdateLdCache, container_path
from cdi_hpc.site.globs import PathPattern, TextPattern
from cdi_hpc.spec.model import Hook, Origin, ResolvedEdits

Verdict = Literal["allow", "deny"]
Category = Literal["kinds", "devices", "specs", "mount-sources", "mount-targets", "environment"]
HookVerdict = Literal["translate", "warn", "fail", "skip", "run"]

#: What rules are about, and what the patterns of each match.
CATEGORIES: dict[Category, str] = {
    "kinds": "kind",
    "devices": "device",
    "specs": "spec file",
    "mount-sources": "host path",
    "mount-targets": "container path",
    "environment": "variable",
}


#: What a hook that updates the loader's cache writes in any image.
LOADER_CACHE = "/etc/ld.so.cache"


@dataclass(frozen=True)
class Identity:
    """Whom rules are asked about.

    Attributes:
        uid: the user's.
        gids: all groups of the user.
        uid_of: the number of a user's name, None if there is no such user.
        gid_of: the number of a group's name, None if there is no such group.

    """

    uid: int
    gids: frozenset[int]
    uid_of: Callable[[str], int | None] = field(compare=False)
    gid_of: Callable[[str], int | None] = field(compare=False)


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        patterns: it matches what one of these describes.
        users: names or numbers; with ``groups`` empty as well, it is for everybody.
        groups: names or numbers; a rule with both is for either.
        because: the site's words for whoever is refused.
        where: file, line and field of the rule; only its text is used.

    """

    verdict: Verdict
    patterns: tuple[PathPattern | TextPattern, ...]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    because: str = ""
    where: object = ""

    def __str__(self) -> str:
        """``deny '/etc/**'``, as it was written."""
        return f"{self.verdict} {', '.join(repr(pattern.text) for pattern in self.patterns)}"


@dataclass(frozen=True)
class Rules:
    """The rules about one thing, in order.

    Attributes:
        default: what holds where no rule matches.
        where: file, line and field of the default.

    """

    rules: tuple[Rule, ...] = ()
    default: Verdict = "allow"
    where: object = ""


@dataclass(frozen=True)
class HookRule:
    """What is done about a hook: the first rule that matches decides.

    Attributes:
        path: for the hook's path; a text pattern is for its last part. A rule that has a hook run is for the path
            without links, too.
        arguments: these have to be among the hook's arguments.
        timeout: seconds that a hook may run.
        is_fatal: a hook that fails stops the launch.
        env: names of variables of the hook that it is given; one with others is not run.

    """

    verdict: HookVerdict
    path: PathPattern | TextPattern
    arguments: tuple[str, ...] = ()
    because: str = ""
    where: object = ""
    timeout: int = 10
    is_fatal: bool = True
    env: tuple[TextPattern, ...] = ()


@dataclass(frozen=True)
class Policy:
    """All rules of a site."""

    rules: Mapping[Category, Rules] = field(default_factory=dict)
    hooks: tuple[HookRule, ...] = ()

    def runs_hooks(self) -> bool:
        """Whether there is a rule that has hooks run."""
        return any(rule.verdict == "run" for rule in self.hooks)

    def is_empty(self) -> bool:
        """Whether nothing can be refused."""
        return not any(rules.rules or rules.default == "deny" for rules in self.rules.values())


@dataclass(frozen=True)
class Subject:
    """Something that a rule may allow or deny.

    Attributes:
        spellings: all names by which it goes, the one to be shown first.
        origin: where it was asked for.
        contains: paths below it come with it.

    """

    category: Category
    spellings: tuple[str, ...]
    origin: object
    contains: bool = False


@dataclass(frozen=True)
class Judgement:
    """What became of a subject.

    Attributes:
        by: the rule that decided, or the rules whose default did.

    """

    subject: Subject
    verdict: Verdict
    by: Rule | Rules


class RefusedError(CdiError):
    """Rules of the site's refuse what was asked for."""


def enforce(
    policy: Policy,
    edits: ResolvedEdits,
    plan: Plan,
    identity: Identity | None,
    spec_paths: Mapping[str, str] | None = None,
) -> None:
    """Refuse a plan that breaks a rule.

    Args:
        policy: the site's rules.
        edits: what the plan was made from.
        plan: with everything that is to be mounted, linked and set.
        identity: who asks; None for everybody at once: then a rule that denies for some denies, one that allows
            for some does not allow.
        spec_paths: real path of each spec file, as far as it differs from the one it was read by.

    Raises:
        RefusedError: with one problem for each refusal, which names rule, file and line.
        CdiError: as :func:`judge`.

    """
    if not policy.is_empty():
        _refuse(policy, subjects(edits, plan, spec_paths or {}), identity)


def enforce_in_image(policy: Policy, plan: Plan, covered: Iterable[Covered], identity: Identity | None) -> None:
    """Refuse a plan that breaks a rule in its image, where links may lead to other paths than it has.

    Args:
        policy: the site's rules.
        plan: it has been held against the rules by itself.
        covered: what everything covers that is put into the image, the launcher's own files and mounts included: no
            rule is about those.
        identity: as in :func:`enforce`.

    Raises:
        CdiError: as there.

    """
    if not policy.is_empty():
        _refuse(policy, subjects_in_image(plan, covered), identity)


def _refuse(policy: Policy, asked: Iterable[Subject], identity: Identity | None) -> None:
    found = [judge(policy, subject, identity) for subject in asked]
    problems = [refusal(judgement) for judgement in found if judgement.verdict == "deny"]
    if problems:
        raise RefusedError(dict.fromkeys(problems))


def judge(policy: Policy, subject: Subject, identity: Identity | None) -> Judgement:
    """Which rule decides about a subject, and how.

    Raises:
        CdiError: a rule that denies names a user or group that this machine does not know, so that nobody can say
            whether it is to be applied.

    """
    rules = policy.rules.get(subject.category, Rules())
    for rule in rules.rules:
        if matches(rule, subject) and _is_for(rule, identity):
            return Judgement(subject, rule.verdict, rule)
    return Judgement(subject, rules.default, rules)


def refusal(judgement: Judgement) -> Problem:
    """What is said to whoever is refused."""
    subject, by = judgement.subject, judgement.by
    names = ", which is ".join(repr(spelling) for spelling in subject.spellings)
    what = f"the site does not allow the {CATEGORIES[subject.category]} {names}"
    if isinstance(by, Rules):
        return Problem(str(subject.origin), f"{what}: no rule allows it, and the default is to deny ({by.where})")
    because = f": {by.because}" if by.because else ""
    return Problem(str(subject.origin), f"{what}{because}; rule {str(by)!r} in {by.where}")


def hook_rule(policy: Policy, hook: Hook, real_path: str = "") -> HookRule | None:
    """The rule about a hook, None if there is none.

    Args:
        policy: the site's rules.
        hook: the hook.
        real_path: its path without links, where that is known: a rule may be about either. Whoever has a program run
            makes sure that the rule is about this one.

    """
    paths = [posixpath.normpath(path) for path in (hook.path, real_path) if path]
    for rule in policy.hooks:
        names = paths if isinstance(rule.path, PathPattern) else map(posixpath.basename, paths)
        if any(map(rule.path.matches, names)) and set(rule.arguments) <= set(hook.args):
            return rule
    return None


# What rules are asked about -------------------------------------------------------------------------------------


def subjects(edits: ResolvedEdits, plan: Plan, spec_paths: Mapping[str, str]) -> Iterator[Subject]:
    """Everything of a plan that a rule may be about.

    What was asked for, by which alias, from which directory, does not matter: it is what the edits and the plan have
    that counts.
    """
    for device in edits.devices:
        origin = f"device {device!r}"
        kind, _, name = device.partition("=")
        yield Subject("kinds", (kind,), origin)
        # The edits of a spec without devices are like those of a device without a name.
        yield Subject("devices", (f"{kind}={name}",), origin)
    for spec in specs(edits):
        yield Subject("specs", _spellings(spec, spec_paths.get(spec, spec)), spec)
    written = {mount.origin: mount.value.host_path for mount in edits.mounts}
    written.update({node.origin: node.value.host_path or node.value.path for node in edits.device_nodes})
    for action in plan.actions:
        yield from _of_action(action, written)


def subjects_in_image(plan: Plan, covered: Iterable[Covered]) -> Iterator[Subject]:
    """Of what is covered in an image, what the plan covers: each path as it is written, and as it is there."""
    theirs = {action.origin for action in plan.actions}
    for origin, path, real_path in covered:
        if origin in theirs:
            yield Subject("mount-targets", _spellings(path, real_path), origin, contains=True)


def specs(edits: ResolvedEdits) -> tuple[str, ...]:
    """The files that edits come from, each once."""
    return tuple(dict.fromkeys(origin.spec for origin in _origins(edits)))


def _origins(edits: ResolvedEdits) -> Iterator[Origin]:
    for entries in (edits.env, edits.device_nodes, edits.net_devices, edits.mounts, edits.hooks, edits.additional_gids):
        yield from (entry.origin for entry in entries)
    if edits.intel_rdt is not None:
        yield edits.intel_rdt.origin


def _of_action(action: Action, written: Mapping[Origin, str]) -> Iterator[Subject]:
    origin = action.origin
    if isinstance(action, SetEnv):
        yield Subject("environment", (f"{action.name}={action.value}",), origin)
    elif isinstance(action, Bind):
        spellings = _spellings(written.get(origin, action.source), action.source)
        yield Subject("mount-sources", spellings, origin, contains=action.kind == "directory")
    # What else a hook for the loader's cache writes depends on the image.
    path = LOADER_CACHE if isinstance(action, UpdateLdCache) else container_path(action)
    if path:
        yield Subject("mount-targets", (path,), origin, contains=True)


def _spellings(written: str, real: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((normal_path(written), normal_path(real))))


def normal_path(path: str) -> str:
    """An absolute path without ``.``, ``..`` and ``//``, links not looked at."""
    return posixpath.normpath("/" + path.lstrip("/"))


# Matching -------------------------------------------------------------------------------------------------------


def matches(rule: Rule, subject: Subject) -> bool:
    """Whether a rule is about a subject, whoever asks."""
    if rule.verdict == "allow":
        return all(any(_describes(p, text, subject) for p in rule.patterns) for text in subject.spellings)
    return any(
        _describes(pattern, text, subject) or (subject.contains and _reaches_below(pattern, text))
        for text in subject.spellings
        for pattern in rule.patterns
    )


def _describes(pattern: PathPattern | TextPattern, text: str, subject: Subject) -> bool:
    if subject.category == "environment" and "=" not in pattern.text:
        text = text.partition("=")[0]
    return pattern.matches(text)


def _reaches_below(pattern: PathPattern | TextPattern, path: str) -> bool:
    return isinstance(pattern, PathPattern) and pattern.matches_below(path)


def _is_for(rule: Rule, identity: Identity | None) -> bool:
    if not rule.users and not rule.groups:
        return True
    if identity is None:
        return rule.verdict == "deny"
    users = (_number(name, identity.uid_of, "user", rule) for name in rule.users)
    groups = (_number(name, identity.gid_of, "group", rule) for name in rule.groups)
    return identity.uid in users or any(group in identity.gids for group in groups)


def _number(name: str, number_of: Callable[[str], int | None], what: str, rule: Rule) -> int:
    """The number of a user or group; -1, which nobody has, where an unknown name only means that nothing is allowed."""
    number = int(name) if name.isascii() and name.isdigit() else number_of(name)
    if number is None and rule.verdict == "deny":
        fix = "correct the name, or remove the rule"
        raise CdiError(Problem(str(rule.where), f"the rule names the {what} {name!r}, which nobody here knows", fix))
    return -1 if number is None else number
