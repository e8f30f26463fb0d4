"""Which edits a site's rules refuse, and by which rule: the questions of :mod:`cdi_hpc.site.policy`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from cdi_hpc.explain.rows import Edit
from cdi_hpc.plan import Covered, Plan
from cdi_hpc.site import identity, policy
from cdi_hpc.site.policy import HookRule, Judgement, Policy, Subject
from cdi_hpc.spec.model import Hook, Origin, ResolvedEdits
from cdi_hpc.spec.registry import RegisteredDevice


def refused(
    rules: Policy,
    edits: Sequence[Edit],
    merged: ResolvedEdits,
    plan: Plan,
    devices: Sequence[RegisteredDevice],
    covered: Iterable[Covered] = (),
) -> tuple[dict[Origin, str], tuple[str, ...]]:
    """The edits that rules refuse, each with the rule, its file and its line; and why a launch stops for that.

    An edit is refused by what is said of itself, or of the device, the kind or the file that it belongs to.

    Args:
        rules: the site's.
        edits: each of the request.
        merged: the same, together.
        plan: what they ask for.
        devices: whose they are.
        covered: what is covered in the image, where that is known.

    Raises:
        CdiError: a rule can't be asked (:func:`cdi_hpc.site.policy.judge`).

    """
    found = dict(_hooks(rules, edits))
    stops: list[str] = []
    who = identity.this_user()
    paths = {path: os.path.realpath(path) for path in policy.specs(merged)}
    for subject in (*policy.subjects(merged, plan, paths), *policy.subjects_in_image(plan, covered)):
        judgement = policy.judge(rules, subject, who)
        if judgement.verdict == "deny":
            stops.append(str(policy.refusal(judgement)))
            for edit in edits:
                if _concerns(subject, edit, devices):
                    found.setdefault(edit.origin, _reason(judgement))
    return found, tuple(dict.fromkeys(stops))


def _reason(judgement: Judgement) -> str:
    return policy.refusal(judgement).what


def _hooks(rules: Policy, edits: Sequence[Edit]) -> Iterator[tuple[Origin, str]]:
    for edit in edits:
        rule = _hook_rule(rules, edit.value) if isinstance(edit.value, Hook) else None
        if rule is not None and rule.verdict not in ("translate", "run"):
            because = f": {rule.because}" if rule.because else ""
            yield edit.origin, f"the site leaves this hook out{because}; rule {rule.verdict!r} in {rule.where}"


def _hook_rule(rules: Policy, hook: Hook) -> HookRule | None:
    return policy.hook_rule(rules, hook, os.path.realpath(hook.path) if rules.runs_hooks() else "")


def _concerns(subject: Subject, edit: Edit, devices: Sequence[RegisteredDevice]) -> bool:
    if isinstance(subject.origin, Origin):
        return subject.origin == edit.origin
    if subject.category == "specs":
        return subject.origin == edit.origin.spec
    # The edits of a spec itself are every device's of it.
    names = [edit.origin.device] if edit.origin.device else [d.name for d in devices if d.spec.path == edit.origin.spec]
    wanted = subject.spellings[0]
    return any(wanted in (name, name.partition("=")[0], f"{name}=") for name in names)
