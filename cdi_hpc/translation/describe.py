"""A plan in words: what each action is, and how a launcher does it."""

from __future__ import annotations

from typing import Any, Callable, Literal

from cdi_hpc.errors import assert_never
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

Launcher = Literal["embedded", "bash"]

#: What is done for each kind of action, by launcher.
_HOW: dict[Launcher, dict[type, str]] = {
    "embedded": {
        SetEnv: "set in the command's environment",
        Bind: "bind mount",
        MountFilesystem: "new mount",
        Symlink: "link in a layer over the image",
        WriteFile: "file in a layer over the image",
        Directory: "directory in a layer over the image",
        RunHook: "run once for the image; what it writes is a layer over it",
        CudaCompat: "decided by the image's libcuda",
        UpdateLdCache: "ld.so.cache merged in a layer over the image",
    },
    "bash": {
        SetEnv: "export",
        Bind: "mount --bind",
        MountFilesystem: "mount -t",
        Symlink: "ln -s in a layer over the image",
        WriteFile: "file in a layer over the image",
        Directory: "directory in a layer over the image",
        RunHook: "stops the script: it is made for any image, and hooks are run for one",
        CudaCompat: "decided by the image's libcuda when the script runs",
        UpdateLdCache: "the host's ldconfig, run on the merged image when the script runs",
    },
}


def what(action: Action) -> str:
    """The action in one line."""
    if isinstance(action, SetEnv):
        return f"env {action.name}={action.value}"
    if isinstance(action, Bind):
        source = action.target if action.source == action.target else f"{action.source} -> {action.target}"
        flags = f" ({','.join(action.flags)})" if action.flags else ""
        return f"{action.kind} {source}{flags}"
    if isinstance(action, MountFilesystem):
        options = ",".join((*action.flags, *action.data))
        return f"{action.fstype} {action.target}" + (f" ({options})" if options else "")
    if isinstance(action, Symlink):
        return f"link {action.path} -> {action.points_to}"
    if isinstance(action, (WriteFile, Directory)):
        return _made(action)
    if isinstance(action, RunHook):
        return f"{action.edit} ({' '.join(action.args)})"
    if isinstance(action, CudaCompat):
        return f"CUDA compatibility libraries {action.directory}"
    if isinstance(action, UpdateLdCache):
        return f"ld.so.cache {' '.join(action.folders)}".rstrip()
    if isinstance(action, (Note, Unsupported)):
        return action.edit
    return assert_never(action)


def _made(action: WriteFile | Directory) -> str:
    if isinstance(action, Directory):
        return f"directory {action.path}"
    return f"file {action.path} ({len(action.content)} bytes)"


def how(action: Action, launcher: Launcher) -> str:
    """What the launcher does for it, or why nothing."""
    if isinstance(action, Unsupported):
        return f"{'stops the launch' if action.fatal else 'not done'}: {action.reason}"
    if isinstance(action, Note):
        return f"note: {action.reason}"
    return _HOW[launcher][type(action)]


def plan_document(plan: Plan, launcher: Launcher) -> dict[str, Any]:
    """The plan for programs (``plan --format json``)."""
    return document(plan, launcher, lambda action: how(action, launcher))


def document(plan: Plan, launcher: str, how_by: Callable[[Action], str]) -> dict[str, Any]:
    """The same for any launcher.

    Args:
        plan: the plan.
        launcher: its name.
        how_by: how it does an action, or why not.

    """
    return {
        "devices": list(plan.devices),
        "launcher": launcher,
        "privateDev": plan.private_dev,
        "actions": [_action_document(action, how_by(action)) for action in plan.actions],
    }


def _action_document(action: Action, how_it_is_done: str) -> dict[str, Any]:
    fields = {_camel_case(name): _plain(value) for name, value in vars(action).items() if name != "origin"}
    origin = action.origin
    return {
        "action": type(action).__name__,
        **fields,
        "what": what(action),
        "how": how_it_is_done,
        "origin": {"spec": origin.spec, "device": origin.device, "field": origin.field},
    }


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _camel_case(name: str) -> str:
    """CDI's own way of writing names in JSON."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))
