"""System calls that Python's standard library lacks on 3.9, as thin wrappers that raise OSError with the path."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MNT_DETACH = 2

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

#: mount(8) flag names to mount(2) bits.
FLAG_BITS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
    "strictatime": MS_STRICTATIME,
    "nosymfollow": MS_NOSYMFOLLOW,
}

PROPAGATION_BITS = {
    "private": MS_PRIVATE,
    "slave": MS_SLAVE,
    "shared": MS_SHARED,
    "unbindable": MS_UNBINDABLE,
}

CAP_DAC_OVERRIDE = 1
CAP_SYS_CHROOT = 18
CAP_SYS_ADMIN = 21

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_IN_CREATE = 0x100
_IN_MOVED_TO = 0x80
_EVENT = struct.calcsize("iIII")  # inotify(7)

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1

# openat2 and the calls of the new mount API have one number on every architecture (syscalls(2)).
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "ppc64le": 203, "s390x": 217, "riscv64": 41}
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, path: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2); an empty string is passed as NULL for ``fstype`` and ``data``."""
    arguments = [os.fsencode(text) if text else None for text in (source, target, fstype)]
    _check(_libc.mount(*arguments, flags, os.fsencode(data) if data else None), target)


def make_read_only(path: str) -> None:
    """Make the mount at a path and all below it read-only: mount_setattr(2), Linux 5.12; no file system is asked."""
    _mount_setattr(path, _AT_RECURSIVE, struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0))


def make_writable(path: str) -> None:
    """Undo that for the mount at a path, which has to be one of our own namespace's."""
    _mount_setattr(path, 0, struct.pack("=QQQQ", 0, _MOUNT_ATTR_RDONLY, 0, 0))


def _mount_setattr(path: str, flags: int, attributes: bytes) -> None:
    number, size = ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_size_t(len(attributes))
    _check(_libc.syscall(number, _AT_FDCWD, os.fsencode(path), flags, attributes, size), path)


def umount(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    number = _SYS_PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(ctypes.c_long(number), os.fsencode(new_root), os.fsencode(put_old)), new_root)


def prctl(option: int, argument: int = 0, second: int = 0) -> int:
    """prctl(2) with up to two arguments."""
    zero = ctypes.c_ulong(0)
    arguments = ctypes.c_ulong(argument), ctypes.c_ulong(second), zero, zero
    return _check(_libc.prctl(option, *arguments), f"prctl {option}")


def watch_new_names(directory: str) -> int:
    """A descriptor that tells of every new name in a directory; read it by :func:`new_names`."""
    watch = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify")
    try:
        _check(_libc.inotify_add_watch(watch, os.fsencode(directory), _IN_CREATE | _IN_MOVED_TO), directory)
    except OSError:
        os.close(watch)
        raise
    return watch


def new_names(watch: int) -> frozenset[str]:
    """Names that were made since the last time."""
    names: set[str] = set()
    try:
        while data := os.read(watch, 1 << 16):
            at = 0
            while at < len(data):
                length = struct.unpack_from("iIII", data, at)[3]
                start = at + _EVENT
                names.add(os.fsdecode(data[start : start + length].rstrip(b"\0")))
                at = start + length
    except BlockingIOError:
        pass
    return frozenset(names)


def raise_ambient(capability: int) -> None:
    """Keep a capability that is permitted across execve(2) by a user who is not root (capabilities(7))."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, sets), "capget")
    # Two 32-bit halves of effective, permitted, inheritable.
    words = list(struct.unpack("=6I", sets.raw))
    words[(capability // 32) * 3 + 2] |= 1 << (capability % 32)
    _check(_libc.capset(header, struct.pack("=6I", *words)), "capset")
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def keep_capabilities(capabilities: tuple[int, ...]) -> None:
    """Have these capabilities and no others, now and after execve(2), also by a user who is not root."""
    bits = sum(1 << capability for capability in capabilities)
    halves = [bits & 0xFFFFFFFF] * 3 + [bits >> 32] * 3
    _drop_bounding_set(capabilities)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, struct.pack("=6I", *halves)), "capset")
    for capability in capabilities:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _drop_bounding_set(but: tuple[int, ...]) -> None:
    for capability in range(64):
        try:
            if capability not in but:
                prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:  # one past the last that this kernel has
                return
            raise


_openat2_works = True


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return _check(
        _libc.syscall(ctypes.c_long(_SYS_OPENAT2), directory, os.fsencode(path), how, ctypes.c_size_t(len(how))), path
    )


def open_beneath(directory: int, path: str, flags: int = os.O_PATH) -> int:
    """Open a relative path that must lead nowhere but down and hold no link.

    With openat2(2) (Linux 5.6), or component by component where the kernel lacks it or a seccomp filter hides it.

    Raises:
        OSError: ELOOP for a link on the way or at the end, EXDEV for an absolute path and for any ``..``.

    """
    global _openat2_works  # noqa: PLW0603 - what the kernel has does not change while we run
    _components(path)  # openat2 would follow a ".." that stays beneath
    if _openat2_works:
        resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
        try:
            return _openat2(directory, path or ".", flags, resolve)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
            _openat2_works = False
    return walk_beneath(directory, path, flags)


def walk_beneath(directory: int, path: str, flags: int = os.O_PATH) -> int:
    """What :func:`open_beneath` does, without openat2(2)."""
    parts = _components(path)
    current = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        how = flags if last else os.O_PATH | os.O_DIRECTORY
        try:
            found = os.open(part, how | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
        except NotADirectoryError:
            # O_DIRECTORY with O_NOFOLLOW says ENOTDIR of a link; openat2 says ELOOP.
            code = errno.ELOOP if _is_link(part, current) else errno.ENOTDIR
            raise OSError(code, os.strerror(code), path) from None
        finally:
            os.close(current)
        if last and flags & os.O_PATH and _is_link("", found):
            os.close(found)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        current = found
    return current


def _components(path: str) -> list[str]:
    """Components of a path that leads down. A slash at the end is a final ``.``, which only a directory has."""
    parts = path.split("/")
    if ".." in parts or path.startswith("/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    down = [part for part in parts if part not in ("", ".")]
    return [*down, "."] if parts[-1] in ("", ".") else down


def _is_link(name: str, directory: int) -> bool:
    try:
        os.readlink(name, dir_fd=directory)
    except OSError:
        return False
    return True


def flag_bits(flags: tuple[str, ...]) -> int:
    """mount(2) bits of mount(8) flag names."""
    bits = 0
    for flag in flags:
        bits |= FLAG_BITS[flag]
    return bits
