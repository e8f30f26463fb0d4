"""The plan: what a launch does with every edit of a request, in order, and where each step came from.

A plan is a value. It names paths on the host (``source``) and in the container (``target``, ``path``), both
absolute and normalised but not resolved: the image decides where ``/lib64`` really is, and whoever applies the
plan resolves container paths inside the image's root, never out of it. Every edit of a spec is found here as an
action, as a :class:`Note` that says why nothing needs to be done, or as :class:`Unsupported`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Union

from cdi_hpc.errors import assert_never
from cdi_hpc.spec.model import Origin

#: In the place of a spec's path in an origin: what the user asked for by an option or a variable, which is the field.
COMMAND_LINE = "command line"

#: The same for what a launcher does in every container; the field names what decides about it.
THE_LAUNCHER = "the launcher"

#: Mount flags by their mount(8) names. ``ro nosuid nodev noexec`` can only be added, never taken away, in a
#: user namespace (mount_namespaces(7)).
MOUNT_FLAGS = (
    "ro",
    "nosuid",
    "nodev",
    "noexec",
    "noatime",
    "nodiratime",
    "relatime",
    "strictatime",
    "nosymfollow",
)

SourceKind = Literal["file", "directory", "device", "socket"]


@dataclass(frozen=True)
class SetEnv:
    """The variable has this value in the container's process."""

    name: str
    value: str
    origin: Origin


@dataclass(frozen=True)
class Bind:
    """The host's ``source`` is seen at ``target``.

    Attributes:
        kind: what the source is; it decides what a missing mount point is made as.
        flags: flags asked for, from MOUNT_FLAGS.
        kept: flags that the source's own mount has; a remount in a user namespace has to repeat them.
        recursive: mounts below the source come along (``rbind``).
        propagation: ``private``, ``slave``, ``shared``, ``unbindable``, with ``r`` before it for the whole tree.

    """

    source: str
    target: str
    kind: SourceKind
    origin: Origin
    flags: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    recursive: bool = True
    propagation: str = "rprivate"


@dataclass(frozen=True)
class MountFilesystem:
    """A new instance of a file system type that a user namespace may mount (tmpfs, mqueue, ...).

    Attributes:
        fstype: file system type, as in /proc/filesystems.
        source: what mountinfo shows as the source; it has no meaning for these types.
        data: file system's own options, for example ``size=64m`` or ``mode=755``.

    """

    fstype: str
    source: str
    target: str
    origin: Origin
    flags: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class Symlink:
    """``path`` is a symbolic link that holds ``points_to``; whatever else was there is covered."""

    path: str
    points_to: str
    origin: Origin


@dataclass(frozen=True)
class WriteFile:
    """``path`` is a read-only regular file with this content."""

    path: str
    content: bytes
    mode: int
    origin: Origin


@dataclass(frozen=True)
class Directory:
    """``path`` is a directory; one that the image has already stays as it is."""

    path: str
    mode: int
    origin: Origin


@dataclass(frozen=True)
class RunHook:
    """A program of the host that the site has run, once, when the plan is made for an image.

    What it writes into the container takes this action's place (:mod:`cdi_hpc.launch.hook_runs`), so nobody who
    applies a plan meets one.

    Attributes:
        edit: the edit in CDI's words.
        path: of the program, absolute and without links.
        args: its whole argument vector.
        env: its whole environment, ``NAME=VALUE``.
        timeout: seconds.
        fatal: a failure stops the launch.
        rule: where the site says so.

    """

    edit: str
    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    timeout: int
    fatal: bool
    rule: str
    origin: Origin


@dataclass(frozen=True)
class CudaCompat:
    """The image's CUDA forward-compatibility libraries come first in the search order, if the rule says so.

    The rule needs the image: see :mod:`cdi_hpc.container.cuda_compat`. It takes effect with the :class:`UpdateLdCache`
    of the same plan, as the vendor's hook takes effect with its update-ldcache hook.
    """

    directory: str
    host_driver_version: str
    host_cuda_version: str
    origin: Origin


@dataclass(frozen=True)
class UpdateLdCache:
    """The dynamic loader finds libraries in ``folders``, in this order, before the image's configured ones.

    A folder that the image's configuration or the loader itself has already keeps its place.
    """

    folders: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True)
class Note:
    """An edit that needs nothing done here, and why; or one that is done with a difference worth knowing."""

    edit: str
    reason: str
    origin: Origin


@dataclass(frozen=True)
class Unsupported:
    """An edit that can't be done without privilege, and why.

    Attributes:
        edit: the edit in CDI's words, for example ``netDevices eth0``.
        reason: why not, and what to do instead where something can be done.
        fatal: the container would lack something the spec demands; a launch must stop.

    """

    edit: str
    reason: str
    origin: Origin
    fatal: bool = False


Action = Union[
    SetEnv,
    Bind,
    MountFilesystem,
    Symlink,
    WriteFile,
    Directory,
    RunHook,
    CudaCompat,
    UpdateLdCache,
    Note,
    Unsupported,
]


def container_path(action: Action) -> str:
    """The path in the container that an action covers, "" if it names none."""
    if isinstance(action, (Bind, MountFilesystem)):
        return action.target
    if isinstance(action, (Symlink, WriteFile, Directory)):
        return action.path
    if isinstance(action, (SetEnv, RunHook, CudaCompat, UpdateLdCache, Note, Unsupported)):
        return ""
    return assert_never(action)


class Covered(NamedTuple):
    """A path of an image that an action covers: only the image decides which it is.

    Attributes:
        origin: of the action.
        path: as the action has it.
        real_path: without links, seen from inside the container.

    """

    origin: Origin
    path: str
    real_path: str


@dataclass(frozen=True)
class Plan:
    """The ordered actions of one request on this host.

    Attributes:
        devices: qualified names of the devices.
        private_dev: why the container needs a /dev of its own (a node renamed, or absent from the host's), or None.

    """

    devices: tuple[str, ...]
    actions: tuple[Action, ...]
    private_dev: str | None = None

    def runs_hooks(self) -> bool:
        """Whether there are hooks to be run before anybody can apply it."""
        return any(isinstance(action, RunHook) for action in self.actions)

    def unsupported(self) -> Iterator[Unsupported]:
        """What can't be done, in plan order."""
        return (action for action in self.actions if isinstance(action, Unsupported))
