"""Hooks that a site has run: which ones may be, and with what environment. Pure.

They are run by :mod:`cdi_hpc.launch.hook_runs`. docs/hooks.md says what a program meets there.
"""

from __future__ import annotations

from dataclasses import replace

from cdi_hpc.plan import Plan, RunHook, Unsupported
from cdi_hpc.site import hook_environment
from cdi_hpc.site.globs import PathPattern
from cdi_hpc.site.policy import HookRule
from cdi_hpc.spec.model import Hook, Origin

#: Hook points at which an OCI runtime runs programs of the host before the container's process (runtime-spec,
#: config.md, "POSIX-platform Hooks"), and why a hook at another point is not run.
_POINTS = {
    "prestart": "",
    "createRuntime": "",
    "createContainer": "",
    "startContainer": "its program is the image's own, which nobody has allowed: use createContainer",
    "poststart": "it is for a container whose process runs already: use createContainer",
    "poststop": "it is for a container that has stopped",
}


def run_hook(
    hook: Hook, rule: HookRule, edit: str, origin: Origin, real_path: str, complaint: str
) -> RunHook | Unsupported:
    """What becomes of a hook that a rule has run.

    Args:
        hook: as the spec has it.
        rule: the rule.
        edit: the hook in CDI's words.
        origin: where it was written.
        real_path: the program's path without links.
        complaint: why it is not believed to be root's, or "".

    """
    reason = _refusal(hook, rule, real_path, complaint)
    if reason:
        return Unsupported(edit, f"not run: {reason} (rule {rule.where})", origin, fatal=rule.is_fatal)
    return RunHook(
        edit=edit,
        path=real_path,
        args=hook.args or (hook.path,),
        env=hook.env,
        timeout=min(rule.timeout, hook.timeout or rule.timeout),
        fatal=rule.is_fatal,
        rule=str(rule.where),
        origin=origin,
    )


def _refusal(hook: Hook, rule: HookRule, real_path: str, complaint: str) -> str:
    """Why a hook is not run, or ""."""
    if not hook.path.startswith("/"):
        return f"{hook.path!r} is not an absolute path"
    obstacle = _POINTS.get(hook.hook_name, "it is not known")
    if obstacle:
        return f"hook point {hook.hook_name!r}: {obstacle}"
    if any("\0" in text for text in (hook.path, *hook.args, *hook.env)):
        return "a NUL byte can't be passed to a program"
    if hook.timeout is not None and hook.timeout <= 0:
        return f"its timeout {hook.timeout} is not greater than zero"
    if complaint:
        return complaint
    if not (isinstance(rule.path, PathPattern) and rule.path.matches(real_path)):
        return f"{hook.path!r} is really {real_path!r}, which {rule.path.text!r} does not match"
    return next((reason for reason in (_variable_refusal(each, rule) for each in hook.env) if reason), "")


def _variable_refusal(assignment: str, rule: HookRule) -> str:
    name, equals, value = assignment.partition("=")
    if not name or not equals:
        return f"{assignment!r} is no variable"
    if hook_environment.chooses_code(name):
        return f"the variable {name!r} would choose what the program loads"
    if not any(pattern.matches(name) for pattern in rule.env):
        return f"'env' of the rule does not let its variable {name!r} through"
    if name == "PATH" and not {*value.split(":")} <= {*hook_environment.SYSTEM_PATH}:
        return f"its PATH is {value!r}, and may hold {hook_environment.ALWAYS_SET['PATH']}"
    return ""


def not_run(hook: RunHook, reason: str) -> Unsupported:
    """What is in the place of a hook that can't be run."""
    return Unsupported(hook.edit, f"not run: {reason} (rule {hook.rule})", hook.origin, hook.fatal)


def left_out(plan: Plan, reason: str) -> Plan:
    """A plan whose hooks can't be run, and why."""
    actions = (not_run(action, reason) if isinstance(action, RunHook) else action for action in plan.actions)
    return replace(plan, actions=tuple(actions))
