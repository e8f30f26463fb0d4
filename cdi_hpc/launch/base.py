"""What every container of the embedded launcher gets besides the plan: /proc, /sys, /dev, /tmp, user and host names."""

from __future__ import annotations

import grp
import os
import posixpath
import pwd

from cdi_hpc.config.values import bind_words
from cdi_hpc.container.tree import ContainerTree
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.host import Host
from cdi_hpc.images.image_files import ImageFiles
from cdi_hpc.plan import COMMAND_LINE, Action, Bind, MountFilesystem, Symlink, WriteFile
from cdi_hpc.spec.model import Origin
from cdi_hpc.translation.translate import BIND_KINDS, container_path
from cdi_hpc.witness import Witness

ORIGIN = Origin("cdi-hpc run", "", "base")

#: Nodes that every program expects (OCI runtime specification, "Default Devices"), and /dev/fuse for nested launchers.
_STANDARD_NODES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")
_STANDARD_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
)

#: Of a uid or gid. Python refuses to convert thousands of digits, which an image may hold.
_MOST_DIGITS = 10


def base_actions(
    image: str,
    host: Host,
    *,
    private_dev: bool,
    contain: bool,
    accounts: bool = True,
    witness: Witness | None = None,
    files: ImageFiles | None = None,
) -> list[Action]:
    """Actions that come before the plan's.

    ``/`` as the image has all of this already; only a private /dev, and with ``contain`` a private /tmp, are new.

    Args:
        image: absolute path of the image's directory.
        host: the machine.
        private_dev: /dev is made anew, not bound.
        contain: /tmp and /dev/shm are made anew as well.
        accounts: the calling user and his groups are added to the image's passwd and group.
        witness: is told of everything that is looked at in the image.
        files: what to read the image by; by default, as a directory of the host.

    """
    actions: list[Action] = []
    if image != "/":
        actions += _binds(("/proc", "/sys"), host)
        actions += [] if private_dev else _binds(("/dev",), host)
    if private_dev:
        actions += _private_dev(host, contain=contain)
    if contain:
        actions.append(MountFilesystem("tmpfs", "tmpfs", "/tmp", ORIGIN, ("nodev", "nosuid"), ("mode=1777",)))  # noqa: S108
    elif image != "/":
        actions += _binds(("/tmp",), host)  # noqa: S108
    if image != "/":
        actions += _binds(("/etc/resolv.conf", "/etc/hosts"), host)
        actions += _accounts(ContainerTree(image, witness, files)) if accounts else []
    return actions


def _binds(paths: tuple[str, ...], host: Host) -> list[Action]:
    found = ((path, host.node(path)) for path in paths)
    return [
        Bind(node.real_path, path, BIND_KINDS[node.kind], ORIGIN, recursive=node.kind == "directory")
        for path, node in found
        if node is not None
    ]


def _private_dev(host: Host, *, contain: bool) -> list[Action]:
    # mode=755: in a sticky world-writable directory the kernel refuses O_CREAT on a node of another owner, so that
    # "echo > /dev/null" would fail (protected_regular, sysctl/fs).
    actions: list[Action] = [MountFilesystem("tmpfs", "dev", "/dev", ORIGIN, ("noexec", "nosuid"), ("mode=755",))]
    actions += _binds(tuple(f"/dev/{name}" for name in _STANDARD_NODES), host)
    # An instance of its own: the host's /dev/ptmx, bound here, would find no devpts beside it, and the ptmx in the
    # host's instance is for nobody (mode 000). So does every container runtime.
    actions.append(
        MountFilesystem(
            "devpts",
            "devpts",
            "/dev/pts",
            ORIGIN,
            ("noexec", "nosuid"),
            ("newinstance", "ptmxmode=0666", "mode=0620"),
        )
    )
    actions += _binds(("/dev/mqueue",), host)
    if contain:
        flags = ("nodev", "noexec", "nosuid")
        actions.append(MountFilesystem("tmpfs", "shm", "/dev/shm", ORIGIN, flags, ("mode=1777",)))  # noqa: S108
    else:
        actions += _binds(("/dev/shm",), host)  # noqa: S108
    actions += [Symlink(path, points_to, ORIGIN) for path, points_to in _STANDARD_LINKS]
    return actions


def _accounts(image: ContainerTree) -> list[Action]:
    """The image's passwd and group with the calling user added where they are missing."""
    actions: list[Action] = []
    for table in ("/etc/passwd", "/etc/group"):
        image.witness.saw(table, "content")  # where the host's names of our ids come from, mostly
    uid, gid = os.getuid(), os.getgid()
    passwd = image.read("/etc/passwd") or b""
    if uid not in _ids(passwd):
        actions.append(WriteFile("/etc/passwd", _with_lines(passwd, [_passwd_line(uid, gid)]), 0o644, ORIGIN))
    group = image.read("/etc/group") or b""
    missing = sorted({gid, *os.getgroups()} - _ids(group))
    if missing:
        actions.append(
            WriteFile("/etc/group", _with_lines(group, [_group_line(gid) for gid in missing]), 0o644, ORIGIN)
        )
    return actions


def _ids(table: bytes) -> set[int]:
    """Numbers in the third field of a passwd(5) or group(5) file."""
    fields = (line.split(b":") for line in table.split(b"\n"))
    numbers = (parts[2] for parts in fields if len(parts) > 2)  # noqa: PLR2004
    return {int(number) for number in numbers if number.isdigit() and len(number) <= _MOST_DIGITS}


def _with_lines(table: bytes, lines: list[str]) -> bytes:
    separator = b"" if not table or table.endswith(b"\n") else b"\n"
    return table + separator + "".join(lines).encode("utf-8", "surrogateescape")


def _passwd_line(uid: int, gid: int) -> str:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return f"user{uid}:x:{uid}:{gid}::/:/bin/sh\n"
    return f"{user.pw_name}:x:{uid}:{gid}:{user.pw_gecos}:{user.pw_dir}:/bin/sh\n"


def _group_line(gid: int) -> str:
    try:
        name = grp.getgrgid(gid).gr_name
    except KeyError:
        name = f"group{gid}"
    return f"{name}:x:{gid}:\n"


def user_binds(specifications: tuple[str, ...], host: Host) -> list[Action]:
    """Actions for ``--bind SOURCE[:TARGET[:ro|rw]]``.

    Raises:
        CdiError: every specification that can't be understood or whose source is not there.

    """
    actions: list[Action] = []
    problems: list[Problem] = []
    for text in specifications:
        try:
            actions.append(_user_bind(text, host))
        except CdiError as error:
            problems += error.problems
    if problems:
        raise CdiError(problems)
    return actions


def _user_bind(text: str, host: Host) -> Bind:
    where = f"--bind {text}"
    words = bind_words(text)
    if words is None:
        raise CdiError(Problem(where, "not understood", "write SOURCE[:TARGET[:ro]]"))
    path = posixpath.abspath(words.source)
    try:
        node = host.node(path)
    except OSError as error:
        raise CdiError(Problem(where, f"{path!r}: {error.strerror}")) from None
    if node is None:
        raise CdiError(Problem(where, f"{path!r} is not there", "make it, or correct the path"))
    directory = node.kind == "directory"
    origin = Origin(COMMAND_LINE, "", where)
    flags = ("ro",) if words.read_only else ()
    kept = node.mount_flags
    where_to = container_path(words.target or path)
    return Bind(node.real_path, where_to, BIND_KINDS[node.kind], origin, flags, kept, recursive=directory)
