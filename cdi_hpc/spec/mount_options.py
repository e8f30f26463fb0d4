"""The strings of ``mounts[].options`` and ``mounts[].type``: which flag, which propagation, which kind of mount.

The vocabulary is that of mount(8) and of the OCI runtime specification (config.md, "Linux mount options").
"""

from __future__ import annotations

from dataclasses import dataclass

#: option -> (flag, set or clear); a later option overrides an earlier one, as in mount(8).
_FLAG_OPTIONS: dict[str, tuple[str, bool]] = {
    "ro": ("ro", True),
    "rw": ("ro", False),
    "nosuid": ("nosuid", True),
    "suid": ("nosuid", False),
    "nodev": ("nodev", True),
    "dev": ("nodev", False),
    "noexec": ("noexec", True),
    "exec": ("noexec", False),
    "noatime": ("noatime", True),
    "atime": ("noatime", False),
    "nodiratime": ("nodiratime", True),
    "diratime": ("nodiratime", False),
    "relatime": ("relatime", True),
    "norelatime": ("relatime", False),
    "strictatime": ("strictatime", True),
    "nostrictatime": ("strictatime", False),
    "nosymfollow": ("nosymfollow", True),
    "symfollow": ("nosymfollow", False),
}

#: Flags for a whole tree (``rro``): the top mount gets them; see translate.
_RECURSIVE_FLAGS = {"r" + name: value for name, value in _FLAG_OPTIONS.items()}

_PROPAGATION = frozenset(prefix + name for name in ("private", "slave", "shared", "unbindable") for prefix in ("", "r"))

#: Options that say what is the case anyway, or that mean nothing to a bind in one's own namespace.
_SILENT = frozenset({"defaults", "async", "nofail", "_netdev", "auto", "noauto", "user", "nouser", "silent", "loud"})

#: File system types that an OCI runtime would mount; any other word in ``type`` (``-``, ``l``, ``none``) means
#: a bind, because that is what the generators which write such words mean.
FILESYSTEM_TYPES = frozenset(
    (
        "autofs",
        "bpf",
        "btrfs",
        "ceph",
        "cgroup",
        "cgroup2",
        "cifs",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "erofs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "fuse",
        "fuse.sshfs",
        "fusectl",
        "glusterfs",
        "hugetlbfs",
        "iso9660",
        "lustre",
        "mqueue",
        "nfs",
        "nfs4",
        "overlay",
        "overlayfs",
        "proc",
        "pstore",
        "ramfs",
        "rpc_pipefs",
        "securityfs",
        "squashfs",
        "sysfs",
        "tmpfs",
        "tracefs",
        "udf",
        "vfat",
        "virtiofs",
        "xfs",
        "zfs",
        "9p",
        "binfmt_misc",
    )
)


@dataclass(frozen=True)
class MountOptions:
    """Options understood.

    Attributes:
        flags: mount flags that are on, sorted.
        bind: ``bind`` or ``rbind`` was among them.
        propagation: the last propagation given, or "".
        data: options that are left for the file system, in order.
        whole_tree: options such as ``rro`` that ask for the flag on every mount below as well.

    """

    flags: tuple[str, ...]
    bind: bool
    propagation: str
    data: tuple[str, ...]
    whole_tree: tuple[str, ...]


def parse(options: tuple[str, ...]) -> MountOptions:
    """Sort options into flags, propagation and file-system data; comma lists inside one option are split."""
    flags: dict[str, bool] = {}
    bind, propagation = False, ""
    data: list[str] = []
    whole_tree: list[str] = []
    for option in (word for text in options for word in text.split(",") if word):
        if option in ("bind", "rbind"):
            bind = True
        elif option in _FLAG_OPTIONS:
            flags.update([_FLAG_OPTIONS[option]])
        elif option in _RECURSIVE_FLAGS:
            flags.update([_RECURSIVE_FLAGS[option]])
            whole_tree.append(option)
        elif option in _PROPAGATION:
            propagation = option
        elif option not in _SILENT:
            data.append(option)
    on = tuple(sorted(name for name, value in flags.items() if value))
    return MountOptions(on, bind, propagation, tuple(data), tuple(whole_tree))


def is_bind(type_name: str, options: MountOptions) -> bool:
    """Whether a CDI mount is a bind: said so, or no file system of this name exists."""
    return options.bind or type_name not in FILESYSTEM_TYPES
