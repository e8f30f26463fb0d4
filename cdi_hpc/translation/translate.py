"""From the merged edits of a request to a plan: pure, with the host passed in.

One function per kind of edit. Each yields the actions for one edit; nothing is dropped: what needs no action is
a Note, what can't be done is Unsupported with a reason that says what to do.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from cdi_hpc.errors import assert_never
from cdi_hpc.host import ACCESS_TIME_FLAGS, Host, HostNode
from cdi_hpc.plan import (
    Action,
    Bind,
    CudaCompat,
    MountFilesystem,
    Note,
    Plan,
    SetEnv,
    SourceKind,
    Symlink,
    Unsupported,
    UpdateLdCache,
    WriteFile,
)
from cdi_hpc.spec import mount_options
from cdi_hpc.spec.model import DeviceNode, Hook, IntelRdt, Mount, NetDevice, Origin, ResolvedEdits, Sourced
from cdi_hpc.translation import hooks as hook_table
from cdi_hpc.translation import nvidia

if TYPE_CHECKING:
    from cdi_hpc.site.policy import Policy

#: File systems whose instances a process may mount with only a user and a mount namespace of its own (FS_USERNS_MOUNT
#: in the kernel, less those that ask for a PID, network or IPC namespace as well).
_MOUNTABLE = frozenset({"tmpfs", "ramfs", "devpts"})

BIND_KINDS: dict[str, SourceKind] = {
    "file": "file",
    "directory": "directory",
    "character": "device",
    "block": "device",
    "fifo": "file",
    "socket": "socket",
}
_TYPE_LETTERS = {"character": "cu", "block": "b", "fifo": "p"}
_TYPE_WORDS = {"c": "character", "u": "character", "b": "block", "p": "fifo"}

#: Directories that daemons make when they run, and that specs mount as if they were sockets (NVIDIA MPS).
_DAEMON_DIRECTORIES = frozenset({"/tmp/nvidia-mps"})  # noqa: S108  # the path that specs name

UnknownHooks = Literal["warn", "fail"]


def translate(
    edits: ResolvedEdits, host: Host, *, unknown_hooks: UnknownHooks = "warn", site: Policy | None = None
) -> Plan:
    """Turn merged edits into a plan for this host.

    Order: environment, device nodes, mounts, hooks (as an OCI runtime has it: mounts are there when hooks run),
    then what only has to be reported.

    Args:
        edits: the request's merged edits.
        host: the machine that the container will run on.
        unknown_hooks: whether a hook that can't be interpreted stops a launch.
        site: rules about single hooks; the others are held against the plan (:mod:`cdi_hpc.site.policy`).

    Raises:
        OSError: the host refused to say what a path is, other than by "not there" or "permission denied".

    """
    actions: list[Action] = [_environment(entry) for entry in edits.env]
    for node in edits.device_nodes:
        actions += _device_node(node.value, node.origin, host)
    for mount in edits.mounts:
        actions += _mount(mount.value, mount.origin, host)
    gpus = _gpu_minors(edits.device_nodes, host)
    for hook in edits.hooks:
        by_rule = _by_rule(hook.value, hook.origin, site, host) if site is not None else None
        actions += [by_rule] if by_rule else _hook(hook.value, hook.origin, host, gpus, unknown_hooks)
    actions += (_net_device(entry) for entry in edits.net_devices)
    actions += (_group(entry, host) for entry in edits.additional_gids)
    if edits.intel_rdt is not None:
        actions.append(_intel_rdt(edits.intel_rdt))
    return Plan(edits.devices, tuple(actions), _private_dev_reason(actions, host))


def container_path(path: str) -> str:
    """A container path as a plan holds it: absolute below the container's root, without ``.``, ``..`` or ``//``."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _environment(entry: Sourced[str]) -> SetEnv:
    name, _, value = entry.value.partition("=")
    return SetEnv(name, value, entry.origin)


# Device nodes ---------------------------------------------------------------------------------------------------


def _device_node(node: DeviceNode, origin: Origin, host: Host) -> Iterator[Action]:
    source = node.host_path or node.path
    edit = f"deviceNodes {node.path}"
    if not source.startswith("/"):
        yield Unsupported(edit, f"{source!r} is not an absolute path; correct the spec", origin, fatal=True)
        return
    found, problem = _look(source, host)
    if found is None:
        reason = problem or _missing_device(node, source)
        yield Unsupported(edit, reason, origin, fatal=True)
        return
    if found.kind not in _TYPE_LETTERS:
        reason = f"{source} is a {found.kind} on this host, not a device node"
        yield Unsupported(edit, reason, origin, fatal=True)
        return
    if node.type and node.type not in _TYPE_LETTERS[found.kind]:
        reason = (
            f"the spec says type {node.type!r} ({_TYPE_WORDS[node.type]}), {source} is a {found.kind} device; "
            "generate the spec again"
        )
        yield Unsupported(edit, reason, origin, fatal=True)
        return
    kind: SourceKind = "device"
    yield Bind(
        source=found.real_path,
        target=container_path(node.path),
        kind=kind,
        origin=origin,
        kept=found.mount_flags,
        recursive=False,
    )
    yield from _device_differences(node, found, source, edit, origin, host)


def _missing_device(node: DeviceNode, source: str) -> str:
    if node.type and node.major:
        return (
            f"{source} is not on this host, and a user namespace can't make a device node "
            f"({node.type} {node.major}:{node.minor}); load the driver or have the administrator make it"
        )
    return f"{source} is not on this host; is the driver loaded, and the spec from this machine?"


def _device_differences(
    node: DeviceNode, found: HostNode, source: str, edit: str, origin: Origin, host: Host
) -> Iterator[Action]:
    """What a bind of the host's node can't give: other numbers, owner, mode or cgroup rules than the host's."""
    if node.type in ("b", "c", "u") and node.major and (node.major, node.minor) != (found.major, found.minor):
        yield Note(
            edit,
            f"the spec says {node.major}:{node.minor}, the host's node is {found.major}:{found.minor} and is the "
            "one bound; generate the spec again if the driver was reloaded",
            origin,
        )
    if node.permissions == "none" or (node.permissions and not {"r", "w"} <= set(node.permissions)):
        yield Unsupported(
            f"{edit} permissions {node.permissions}",
            "device cgroup rules need privilege; the host node's owner and mode decide",
            origin,
        )
    elif node.permissions and "m" not in node.permissions:
        yield Note(f"{edit} permissions {node.permissions}", "nobody makes device nodes in a user namespace", origin)
    wanted = {"fileMode": node.file_mode, "uid": node.uid, "gid": node.gid}
    actual = {"fileMode": found.mode, "uid": found.uid, "gid": found.gid}
    differing = [
        f"{name} {_number(name, value)} (host's {_number(name, actual[name])})"
        for name, value in wanted.items()
        if value is not None and (value & 0o7777 if name == "fileMode" else value) != actual[name]
    ]
    if differing:
        yield Note(edit, f"a bind keeps the host's owner and mode: not {', '.join(differing)}", origin)
    write = node.permissions in ("", "none") or "w" in node.permissions
    code = host.open_error(source, write=write)
    if code in (errno.EACCES, errno.EPERM):
        yield Unsupported(f"{edit} access", _no_access(source, found, code, host), origin)


def _number(name: str, value: int) -> str:
    return f"{value & 0o7777:o}" if name == "fileMode" else str(value)


def _no_access(source: str, found: HostNode, code: int, host: Host) -> str:
    error = os.strerror(code)
    if code == errno.EPERM:
        return f"{source} can't be opened ({error}): the job's device cgroup does not allow it"
    if found.mode & 0o060 and found.gid != 0:
        group = host.group_name(found.gid)
        return (
            f"{source} can't be opened ({error}): it needs membership of group {group}, which a user "
            "namespace can't add; ask the administrator to add you to it"
        )
    # Root's own group is nobody's to be in.
    return (
        f"{source} can't be opened ({error}): mode {found.mode:o}, owner {found.uid}; "
        "ask the administrator for a udev rule that gives the node a group of yours"
    )


def _gpu_minors(nodes: Iterable[Sourced[DeviceNode]], host: Host) -> tuple[int, ...]:
    minors = []
    for entry in nodes:
        if not nvidia.is_gpu_node(container_path(entry.value.path)):
            continue
        found, _ = _look(entry.value.host_path or entry.value.path, host)
        if found is not None and found.kind == "character":
            minors.append(found.minor)
    return tuple(minors)


# Mounts ---------------------------------------------------------------------------------------------------------


def _mount(mount: Mount, origin: Origin, host: Host) -> Iterator[Action]:
    options = mount_options.parse(mount.options)
    target = container_path(mount.container_path)
    edit = f"mounts {mount.container_path}"
    if target == "/":
        yield Unsupported(edit, "a mount can't replace the container's root", origin, fatal=True)
    elif mount_options.is_bind(mount.type, options):
        yield from _bind(mount, target, edit, options, origin, host)
    elif mount.type in _MOUNTABLE:
        data = options.data
        yield MountFilesystem(mount.type, mount.host_path or mount.type, target, origin, options.flags, data)
        if options.propagation not in ("", "private", "rprivate"):
            reason = f"option {options.propagation!r} means nothing to a mount of the container's own"
            yield Note(edit, reason, origin)
    else:
        reason = f"a user namespace can't mount file system type {mount.type!r}; ask for a bind of one that is mounted"
        yield Unsupported(edit, reason, origin, fatal=True)


def _bind(
    mount: Mount, target: str, edit: str, options: mount_options.MountOptions, origin: Origin, host: Host
) -> Iterator[Action]:
    if not mount.host_path.startswith("/"):
        reason = f"hostPath {mount.host_path!r} is not absolute; correct the spec"
        yield Unsupported(edit, reason, origin, fatal=True)
        return
    found, problem = _look(mount.host_path, host)
    if found is None and problem is None and _is_optional(mount.host_path):
        yield Note(edit, f"skipped: {mount.host_path} is not there, its daemon does not run on this host", origin)
        return
    if found is None:
        reason = problem or (
            f"{mount.host_path} is not on this host; was the driver changed after the spec was made? "
            "Generate the spec again"
        )
        yield Unsupported(edit, reason, origin, fatal=True)
        return
    locked = [flag for flag in options.flags if flag in ACCESS_TIME_FLAGS and flag not in found.mount_flags]
    yield Bind(
        source=found.real_path,
        target=target,
        kind=BIND_KINDS[found.kind],
        origin=origin,
        flags=tuple(flag for flag in options.flags if flag not in locked),
        kept=found.mount_flags,
        # Always whole: the kernel refuses a partial copy of a tree whose submounts are locked (user_namespaces(7)).
        recursive=found.kind == "directory",
        propagation=options.propagation or "rprivate",
    )
    for option in locked:
        reason = f"option {option!r} is left out: a user namespace can't change how access times are kept"
        yield Note(edit, reason, origin)
    for option in options.data:
        yield Note(edit, f"option {option!r} means nothing to a bind and is left out", origin)
    for option in options.whole_tree if found.kind == "directory" else ():
        yield Note(edit, f"option {option!r} is applied to the mount itself, not to mounts below it", origin)


def _is_optional(path: str) -> bool:
    """Whether a missing source is a daemon's: its socket, or the directory it makes for them."""
    return path in _DAEMON_DIRECTORIES or posixpath.basename(path).endswith((".sock", "socket"))


def _look(path: str, host: Host) -> tuple[HostNode | None, str | None]:
    """The host's node, or why the kernel won't show it."""
    try:
        return host.node(path), None
    except PermissionError:
        reason = (
            f"permission denied on the way to {path}: ask the administrator for search permission on its directories"
        )
        return None, reason
    except OSError as error:
        return None, f"{path}: {os.strerror(error.errno or errno.EIO)}"


# Hooks ----------------------------------------------------------------------------------------------------------


def _hook(hook: Hook, origin: Origin, host: Host, gpus: tuple[int, ...], unknown_hooks: UnknownHooks) -> list[Action]:
    meaning = hook_table.interpret(hook)
    edit = f"hooks {posixpath.basename(hook.path)}"
    if isinstance(meaning, hook_table.CreateSymlinks):
        return [Symlink(container_path(path), points_to, origin) for points_to, path in meaning.links]
    if isinstance(meaning, hook_table.UpdateLdcache):
        return [UpdateLdCache(meaning.folders, origin)]
    if isinstance(meaning, hook_table.EnableCudaCompat):
        return [_cuda_compat(meaning, edit, origin)]
    if isinstance(meaning, hook_table.DisableDeviceNodeModification):
        return [_driver_parameters(edit, origin, host)]
    if isinstance(meaning, hook_table.UpdateApplicationProfile):
        return [_application_profile(edit, origin, gpus)]
    if isinstance(meaning, hook_table.Chmod):
        paths = ", ".join(meaning.paths)
        return [Note(f"{edit} chmod", f"nothing to do for {paths}: a bind keeps the host's mode", origin)]
    if isinstance(meaning, hook_table.NoOperation):
        return [Note(edit, meaning.reason, origin)]
    if isinstance(meaning, hook_table.UnknownHook):
        return [Unsupported(edit, meaning.reason, origin, fatal=unknown_hooks == "fail")]
    return assert_never(meaning)


def _by_rule(hook: Hook, origin: Origin, site: Policy, host: Host) -> Action | None:
    """What becomes of a hook that a rule of the site's is about; None if it is translated."""
    from cdi_hpc.site.policy import hook_rule  # most machines have no rules, and their launches should not pay for them

    asks = site.runs_hooks() and hook.path.startswith("/")
    real_path, complaint = host.program(hook.path) if asks else (hook.path, "")
    rule = hook_rule(site, hook, real_path)
    if rule is None or rule.verdict == "translate":
        return None
    edit = f"hooks {posixpath.basename(hook.path)}"
    if rule.verdict == "run":
        from cdi_hpc.translation import running_hooks

        return running_hooks.run_hook(hook, rule, edit, origin, real_path, complaint)
    because = f": {rule.because}" if rule.because else ""
    reason = f"left out by a rule of the site's{because} ({rule.where})"
    if rule.verdict == "skip":
        return Note(edit, reason, origin)
    return Unsupported(edit, reason, origin, fatal=rule.verdict == "fail")


def _cuda_compat(meaning: hook_table.EnableCudaCompat, edit: str, origin: Origin) -> Action:
    if not (meaning.host_driver_version or meaning.host_cuda_version):
        return Note(f"{edit} enable-cuda-compat", "no host version given: the hook does nothing", origin)
    directory = container_path(meaning.directory)
    return CudaCompat(directory, meaning.host_driver_version, meaning.host_cuda_version, origin)


def _driver_parameters(edit: str, origin: Origin, host: Host) -> Action:
    edit = f"{edit} disable-device-node-modification"
    try:
        present = host.read(nvidia.PARAMS_PATH)
    except OSError as error:
        reason = f"{nvidia.PARAMS_PATH} can't be read: {os.strerror(error.errno or errno.EIO)}"
        return Unsupported(edit, reason, origin)
    if present is None:
        return Note(edit, f"nothing to do: this host has no {nvidia.PARAMS_PATH}", origin)
    content = nvidia.params_without_device_modification(present)
    if content is None:
        return Note(edit, f"nothing to do: {nvidia.PARAMS_PATH} does not allow device files to be modified", origin)
    return WriteFile(nvidia.PARAMS_PATH, content, nvidia.FILE_MODE, origin)


def _application_profile(edit: str, origin: Origin, gpus: tuple[int, ...]) -> Action:
    content = nvidia.application_profile(gpus)
    if content is None:
        return Note(f"{edit} update-application-profile", "nothing to do: the request has no GPU device node", origin)
    return WriteFile(nvidia.APPLICATION_PROFILE_PATH, content, nvidia.FILE_MODE, origin)


# What can only be said ------------------------------------------------------------------------------------------


def _net_device(entry: Sourced[NetDevice]) -> Action:
    device = entry.value
    edit = f"netDevices {device.host_interface_name}"
    if device.name == device.host_interface_name:
        return Note(
            edit,
            "the host's network namespace is shared: the interface is there under its own name",
            entry.origin,
        )
    reason = f"moving or renaming an interface needs privilege; it is seen as {device.host_interface_name}"
    return Unsupported(edit, reason, entry.origin)


def _group(entry: Sourced[int], host: Host) -> Action:
    gid = entry.value
    edit = f"additionalGids {gid}"
    if gid in host.groups():
        return Note(edit, "you are a member already, and membership is kept", entry.origin)
    reason = (
        f"a user namespace can't add groups, and you are not a member of {host.group_name(gid)}; "
        "ask the administrator to add you to it"
    )
    return Unsupported(edit, reason, entry.origin)


def _intel_rdt(entry: Sourced[IntelRdt]) -> Action:
    return Unsupported("intelRdt", "resctrl groups need privilege; the host's own apply", entry.origin)


# /dev -----------------------------------------------------------------------------------------------------------


def _private_dev_reason(actions: Iterable[Action], host: Host) -> str | None:
    """Why the host's own /dev, bound whole, would not show what the plan wants; None when it does."""
    reasons = (_against_host_dev(action, host) for action in actions)
    return next((reason for reason in reasons if reason), None)


def _against_host_dev(action: Action, host: Host) -> str | None:
    if isinstance(action, Symlink) and action.path.startswith("/dev/"):
        same = host.link(action.path) == action.points_to
        return None if same else f"the host's /dev has no link {action.path} to {action.points_to}"
    if isinstance(action, WriteFile) and action.path.startswith("/dev/"):
        return f"{action.path} is to be written"
    if not isinstance(action, (Bind, MountFilesystem)) or not action.target.startswith("/dev/"):
        return None
    found, _ = _look(action.target, host)
    if found is None:
        return f"the host's /dev has no {action.target}"
    if found.real_path != action.target:
        return f"{action.target} is a link on the host"
    if isinstance(action, Bind) and action.source != action.target:
        return f"{action.source} is to be seen as {action.target}"
    return None
