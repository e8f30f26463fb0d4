"""What the launcher itself mounts in a container: the plan's edits may lie in it, or below it."""

from __future__ import annotations

import os
import posixpath
import pwd
from collections.abc import Iterator

from cdi_hpc.backends.singularity.binds import user_binds
from cdi_hpc.backends.singularity.settings import Settings
from cdi_hpc.container.tree import ContainerTree, host_path
from cdi_hpc.errors import CdiError
from cdi_hpc.host import Host
from cdi_hpc.plan import COMMAND_LINE, THE_LAUNCHER, Action, Bind, MountFilesystem
from cdi_hpc.spec.model import Origin
from cdi_hpc.translation.translate import BIND_KINDS

ORIGIN = Origin(THE_LAUNCHER, "", "its own mounts")
_WORKING_DIRECTORY = Origin(THE_LAUNCHER, "", "the launcher's mount of the working directory")

#: Working directories that it leaves alone, and those below which it does (container_linux.go, "Not mounting CWD").
_NEVER = frozenset({"/", "/bin", "/etc", "/lib", "/lib64", "/mnt", "/opt", "/sbin", "/usr", "/var"})
_NEVER_BELOW = ("/dev", "/proc", "/sys")

_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  # names in the container


def own_mounts(settings: Settings, host: Host, tree: ContainerTree) -> list[Action]:
    """The launcher's mounts in its order (its mount_linux.go, authorizedTags), where the image has a place for them.

    Args:
        settings: of the launch.
        host: the machine.
        tree: the image, to look for these places in; it is changed.

    """
    own: list[Action] = [action for action in _all(settings, host) if _takes_place(action, tree)]
    own += (
        bind for bind in working_directory(settings, host) if not _is_shown(bind, tree) and _takes_place(bind, tree)
    )
    return own


def is_own(action: object) -> bool:
    """Whether a mount is the launcher's or the user's, not the plan's."""
    return isinstance(action, (Bind, MountFilesystem)) and action.origin.spec in (THE_LAUNCHER, COMMAND_LINE)


def is_working_directory(action: object) -> bool:
    """Whether it is the last of the launcher's mounts, which covers what a plan has below it."""
    return isinstance(action, Bind) and action.origin == _WORKING_DIRECTORY


def working_directory(settings: Settings, host: Host) -> Iterator[Bind]:
    """The launcher's bind of the working directory."""
    if settings.is_contained or "cwd" in settings.without:
        return
    path = current_directory(settings, host)
    if not path:
        return
    real = os.path.realpath(path)
    if {path, real} & _NEVER or path.startswith(_NEVER_BELOW) or real.startswith(_NEVER_BELOW):
        return
    yield from _bind(path, path, host, _WORKING_DIRECTORY)


def current_directory(settings: Settings, host: Host) -> str:
    """By the name that the shell has for it, if that leads there (Go's os.Getwd); "" if it was removed."""
    try:
        real = os.getcwd()
    except OSError:
        return ""
    named = settings.environ.get("PWD", "")
    return named if named.startswith("/") and _leads_to(named, real, host) else real


def _leads_to(path: str, real: str, host: Host) -> bool:
    try:
        node = host.node(path)
    except OSError:
        return False
    return node is not None and node.real_path == real


def _is_shown(bind: Bind, tree: ContainerTree) -> bool:
    """Whether one of the mounts before shows it already: then it is not mounted again."""
    try:
        real_path = tree.resolve(bind.target)
    except CdiError:
        return False
    region = tree.regions[tree.region_of(real_path)]
    return region.source is not None and host_path(region, real_path) == bind.source


def _all(settings: Settings, host: Host) -> Iterator[Bind | MountFilesystem]:
    configuration, without = settings.configuration, settings.without
    if "bind-paths" not in without:
        for value in configuration.all("bind path"):
            source, _, target = value.partition(":")
            if source not in without:
                origin = Origin(THE_LAUNCHER, "", f"'bind path = {value}' of {configuration.path}")
                yield from _bind(source, target.partition(":")[0] or source, host, origin)
    for name in ("proc", "sys"):
        if name not in without and configuration.says(f"mount {name}") == "yes":
            yield from _bind(f"/{name}", f"/{name}", host, _own(f"/{name}"))
    yield from _home(settings, host)
    if "tmp" not in without and configuration.says("mount tmp") == "yes":
        for path in _TEMPORARY:
            yield from (_tmpfs(path) if settings.is_contained else _bind(path, path, host, _own(path)))
    for bind in user_binds(settings):
        origin = Origin(COMMAND_LINE, "", bind.given)
        yield from _bind(bind.source, bind.target, host, origin, read_only=bind.read_only)


def _own(target: str) -> Origin:
    return Origin(THE_LAUNCHER, "", f"the launcher's own mount of {target}")


def _bind(source: str, target: str, host: Host, origin: Origin, *, read_only: bool = False) -> Iterator[Bind]:
    try:
        node = host.node(source)
    except OSError:
        return  # the launcher will say it
    if node is not None:
        flags = ("ro",) if read_only else ()
        yield Bind(node.real_path, posixpath.normpath(target), BIND_KINDS[node.kind], origin, flags, node.mount_flags)


def _tmpfs(target: str) -> Iterator[MountFilesystem]:
    yield MountFilesystem("tmpfs", "tmpfs", target, _own(target))


def _home(settings: Settings, host: Host) -> Iterator[Bind | MountFilesystem]:
    given = settings.values("home")
    if not given and (settings.is_on("no-home") or "home" in settings.without):
        return
    if not given and settings.configuration.says("mount home") != "yes":
        return
    source, _, target = (given[-1] if given else _account_home()).partition(":")
    if not source.startswith("/"):
        return
    if settings.is_contained and not given:
        yield from _tmpfs(source)
    else:
        yield from _bind(source, target or source, host, _own(target or source))


def _account_home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def _takes_place(action: Bind | MountFilesystem, tree: ContainerTree) -> bool:
    """Whether the launcher will mount it: it skips what has no place, and says so itself."""
    try:
        target = tree.resolve(action.target)
        entry = tree.entry(target)
    except CdiError:
        return False
    wants_directory = isinstance(action, MountFilesystem) or action.kind == "directory"
    if target == "/" or (entry is not None and (entry.kind == "directory") != wants_directory):
        return False
    tree.mount(target, action.source if isinstance(action, Bind) else None)
    return True
