"""Apply mount steps in a new user and mount namespace (the Python runner)."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Sequence
from typing import Callable

from cdi_hpc.container.steps import (
    BindHost,
    BindStaged,
    MakeDirectory,
    MakeFile,
    MakeLink,
    MountNew,
    MountOverlay,
    Restrict,
    Step,
)
from cdi_hpc.errors import CdiError, Problem, assert_never
from cdi_hpc.launch import inheritance, kernel

#: Where the host's root is once the workspace has become the root directory.
HOST_PREFIX = "/host"

#: Where paths of steps begin.
STEPS_PREFIX = "/work"

#: Directories that the workspace may cover in our own namespace; the first that exists is taken.
_WORKSPACE_PLACES = ("/tmp", "/var/tmp", "/mnt", "/run")  # noqa: S108 - covered, never written to


class OverlayRefusedError(Exception):
    """The kernel does not allow the overlay; the steps so far are worthless."""

    def __init__(self, error: OSError) -> None:
        """Keep the kernel's answer."""
        super().__init__(str(error))
        self.error = error


def enter_namespaces() -> None:
    """A new user namespace in which uid and gid are what they were, and a new mount namespace.

    Host mounts still arrive (propagation slave) but nothing goes back.

    Raises:
        CdiError: the kernel refuses user namespaces, with which setting does.

    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    except OSError as error:
        raise CdiError(_no_user_namespace(error)) from None
    try:
        kernel.mount("", "/", "", kernel.MS_SLAVE | kernel.MS_REC)
    except OSError as error:
        raise CdiError(_no_mounts(error)) from None


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)


#: Settings that forbid user namespaces: file, value that forbids, what to ask for.
_USER_NAMESPACE_SETTINGS = (
    ("/proc/sys/user/max_user_namespaces", "0", "ask the administrator for sysctl user.max_user_namespaces=15000"),
    ("/proc/sys/user/max_mnt_namespaces", "0", "ask the administrator for sysctl user.max_mnt_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "ask for sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "ask for an AppArmor profile that allows userns, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


def _no_user_namespace(error: OSError) -> Problem:
    what = f"a user and mount namespace can't be made: {os.strerror(error.errno or 0)}"
    for path, forbidding, fix in _USER_NAMESPACE_SETTINGS:
        if _setting(path) == forbidding:
            return Problem(path, f"{what}: it is {forbidding}", fix)
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        return Problem("/proc/sys/user/max_user_namespaces", f"{what}: the limit is reached", "ask for a higher limit")
    return Problem(
        "kernel",
        what,
        "a seccomp filter (container, batch system) or a chroot forbids it; run it outside of that",
    )


def _no_mounts(error: OSError) -> Problem:
    what = f"mounts are forbidden in the new user namespace: {os.strerror(error.errno or 0)}"
    path, _, fix = _USER_NAMESPACE_SETTINGS[-1]
    if _setting(path) == "1":
        return Problem(path, what, fix)
    return Problem("kernel", what, "a security module (AppArmor, SELinux) forbids it; ask the administrator")


def _setting(path: str) -> str:
    try:
        with open(path, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def overlay_is_refused(steps: Sequence[Step]) -> bool:
    """Whether the kernel refuses an overlay among these steps: tried in a child process, nothing else is judged."""
    if not any(isinstance(step, MountOverlay) for step in steps):
        return False
    with inheritance.children_of_ours():
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    refused = False
    try:
        inheritance.let_go()
        enter_namespaces()
        os.umask(0)
        Workspace().apply(steps)
    except OverlayRefusedError:
        refused = True
    finally:
        # Whatever else happened, the launch itself will say it.
        os._exit(refused)


class Workspace:
    """A private tmpfs that has become the root directory, with the host's root at HOST_PREFIX."""

    def __init__(self) -> None:
        """Mount the tmpfs over a directory of the host, in our namespace only, and make it the root.

        Raises:
            CdiError: the kernel refuses it.

        """
        place = next((path for path in _WORKSPACE_PLACES if os.path.isdir(path)), None)
        if place is None:
            raise CdiError(Problem("/tmp", "not there, and a place for private mounts is needed", "make the directory"))  # noqa: S108
        try:
            kernel.mount("cdi-hpc", place, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
            os.mkdir(place + HOST_PREFIX, 0o755)
            _exchange_root(place, place + HOST_PREFIX)
            self._host = os.open(HOST_PREFIX, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._fresh()
        except OSError as error:
            raise CdiError(Problem(place, f"can't become a workspace for mounts: {error.strerror}")) from None

    def _fresh(self) -> None:
        """A second tmpfs for the steps, so that a try can be thrown away whole."""
        os.makedirs(STEPS_PREFIX, exist_ok=True)
        kernel.mount("cdi-hpc", STEPS_PREFIX, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
        self._top = os.open(STEPS_PREFIX, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def discard(self) -> None:
        """Throw away everything that steps made."""
        os.close(self._top)
        kernel.umount(STEPS_PREFIX, kernel.MNT_DETACH)
        self._fresh()

    def apply(self, steps: Sequence[Step], tell: Callable[[Step], None] | None = None) -> None:
        """Do the steps in order.

        Args:
            steps: of :mod:`cdi_hpc.container.compose`.
            tell: is called before each of them.

        Raises:
            OverlayRefusedError: the kernel refused the first overlay, for a reason that an underlay avoids.
            CdiError: a step failed; the whole launch must.

        """
        for step in steps:
            if tell is not None:
                tell(step)
            try:
                self._do(step)
            except OSError as error:
                if isinstance(step, MountOverlay):
                    raise OverlayRefusedError(error) from None
                raise CdiError(_failed(step, error)) from None

    def open_directory(self, path: str) -> int:
        """A descriptor of a directory of the workspace, which is good after the workspace was left, too."""
        return self._open(path, os.O_RDONLY | os.O_DIRECTORY)

    def become_root(self, path: str) -> None:
        """Make a directory of the workspace the root directory, and let go of everything else."""
        fd = self._open(path)
        os.fchdir(fd)
        os.close(fd)
        self._leave("the container's root can't be entered")

    def put_into_host(self, path: str, place: str, moves: Sequence[tuple[str, str]]) -> None:
        """Put a tree of the workspace over a directory of the host, in our namespace only, and return to the host's.

        Args:
            path: top of the tree, a mount.
            place: real path of the host's directory.
            moves: pairs of a place in the tree where something is mounted and a real path of the host, to which that
                mount is moved before; so a ``place`` below such a path is looked for in what is mounted there now.

        Raises:
            CdiError: the kernel refuses it, or one of the paths has changed.

        """
        try:
            for source, target in moves:
                self._move(f"{path}/{source.strip('/')}", target)
            self._move(path, place)
            os.fchdir(self._host)
        except OSError as error:
            raise CdiError(Problem(place, f"can't be covered by the container's tree: {error.strerror}")) from None
        self._leave("the host's root can't be entered again")

    def _move(self, path: str, host_path: str) -> None:
        with _Opened(self._open(path)) as mounted, _Opened(kernel.open_beneath(self._host, host_path[1:])) as target:
            kernel.mount(_fd_path(mounted), _fd_path(target), "", kernel.MS_MOVE)

    def _leave(self, problem: str) -> None:
        """Make the working directory the root, and let go of everything else."""
        os.close(self._host)
        os.close(self._top)
        # The old root is stacked on the new one, then detached: no place in the image is needed for it.
        try:
            kernel.pivot_root(".", ".")
            kernel.umount(".", kernel.MNT_DETACH)
            os.chdir("/")
        except OSError as error:
            raise CdiError(Problem("/", f"{problem}: {error.strerror}")) from None

    def _do(self, step: Step) -> None:
        if isinstance(step, MakeDirectory):
            with _Opened(self._open(posixpath.dirname(step.path))) as parent:
                name = posixpath.basename(step.path)
                os.mkdir(name, dir_fd=parent)
                _chmod(name, step.mode, parent)
        elif isinstance(step, MakeFile):
            self._make_file(step)
        elif isinstance(step, MakeLink):
            with _Opened(self._open(posixpath.dirname(step.path))) as parent:
                os.symlink(step.points_to, posixpath.basename(step.path), dir_fd=parent)
        elif isinstance(step, BindHost):
            with _Opened(kernel.open_beneath(self._host, step.source[1:])) as source:
                self._bind(source, step.path, step.flags, recursive=step.recursive, propagation=step.propagation)
        elif isinstance(step, BindStaged):
            with _Opened(self._open(step.source)) as source:
                self._bind(source, step.path, step.flags, recursive=False)
        elif isinstance(step, MountOverlay):
            self._overlay(step)
        elif isinstance(step, MountNew):
            with _Opened(self._open(step.path)) as target:
                flags = kernel.flag_bits(step.flags)
                kernel.mount(step.source, _fd_path(target), step.fstype, flags, ",".join(step.data))
        elif isinstance(step, Restrict):
            self._remount(step.path, step.flags)
        else:
            assert_never(step)

    def _open(self, path: str, flags: int = os.O_PATH) -> int:
        return kernel.open_beneath(self._top, path or ".", flags)

    def _make_file(self, step: MakeFile) -> None:
        with _Opened(self._open(posixpath.dirname(step.path))) as parent:
            how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(posixpath.basename(step.path), how, 0o600, dir_fd=parent)
            with os.fdopen(fd, "wb") as stream:
                stream.write(step.content)
                os.fchmod(fd, step.mode)

    def _bind(self, source: int, path: str, flags: tuple[str, ...], *, recursive: bool, propagation: str = "") -> None:
        with _Opened(self._open(path)) as target:
            how = kernel.MS_BIND | (kernel.MS_REC if recursive else 0)
            kernel.mount(_fd_path(source), _fd_path(target), "", how)
        if flags:
            self._remount(path, flags)
        if propagation:
            whole = propagation.startswith("r")
            with _Opened(self._open(path)) as mounted:
                bits = kernel.PROPAGATION_BITS[propagation[1:] if whole else propagation]
                kernel.mount("", _fd_path(mounted), "", bits | (kernel.MS_REC if whole else 0))

    def _remount(self, path: str, flags: tuple[str, ...]) -> None:
        # Opened again: a file descriptor from before the mount would name what is underneath.
        with _Opened(self._open(path)) as mounted:
            how = kernel.MS_BIND | kernel.MS_REMOUNT | kernel.flag_bits(flags)
            kernel.mount("", _fd_path(mounted), "", how)

    def _overlay(self, step: MountOverlay) -> None:
        # Paths of the workspace have no colon or comma in them; image paths may, and would need escapes.
        data = "lowerdir=" + ":".join(f"{STEPS_PREFIX}/{layer}" for layer in step.layers)
        if step.writable:
            written = f"{STEPS_PREFIX}/{step.writable}"
            data += f",upperdir={written}/upper,workdir={written}/work,userxattr"
        with _Opened(self._open(step.path)) as target:
            kernel.mount("overlay", _fd_path(target), "overlay", kernel.flag_bits(step.flags), data)


def _exchange_root(new_root: str, put_old: str) -> None:
    """pivot_root(2), also where the root is the kernel's own rootfs (a diskless node that never left its initramfs).

    That one can't be moved: it is seen at ``put_old`` by a bind, and the new root is moved over it. chroot(2) to a
    mount on top of the root does not count as being in a chroot, so user namespaces can still be made inside.
    """
    try:
        kernel.pivot_root(new_root, put_old)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        kernel.mount("/", put_old, "", kernel.MS_BIND | kernel.MS_REC)
        os.chdir(new_root)
        kernel.mount(new_root, "/", "", kernel.MS_MOVE)
        os.chroot(".")
        # The bind has taken along the new root, which covers what the host has there.
        kernel.umount(HOST_PREFIX + new_root, kernel.MNT_DETACH)
    os.chdir("/")


class _Opened:
    """A file descriptor that is closed at the end of a with block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _fd_path(fd: int) -> str:
    """A path that leads to what a descriptor has open, whatever its name: mount(2) takes no descriptors."""
    return f"{HOST_PREFIX}/proc/self/fd/{fd}"


def _chmod(name: str, mode: int, parent: int) -> None:
    os.chmod(name, stat.S_IMODE(mode), dir_fd=parent)


def _failed(step: Step, error: OSError) -> Problem:
    said = os.strerror(error.errno or errno.EIO)
    if isinstance(step, BindHost):
        return Problem(_container_path(step.path), f"{step.source} can't be bound there: {said}")
    if isinstance(step, MountNew):
        return Problem(_container_path(step.path), f"{step.fstype} can't be mounted there: {said}")
    return Problem(_container_path(step.path), f"{type(step).__name__}: {said}")


def _container_path(path: str) -> str:
    first, _, rest = path.partition("/")
    return "/" + (rest if first == "root" else path)
