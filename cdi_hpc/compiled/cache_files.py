"""Files of the cache: stages and plans written so that whoever is killed leaves nothing that looks finished; locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence

from cdi_hpc.compiled import wire
from cdi_hpc.container.steps import MakeDirectory, MakeFile, StageEntry
from cdi_hpc.images.image_files import open_regular

#: For how many seconds a compiler waits for another one of the same plan, and how often it looks.
PATIENCE = 60.0
_LONGEST_PAUSE = 0.16


def wait_for(fd: int) -> None:
    """Get a file's lock, or give up: whoever has it may have been stopped, and two compilers do no harm."""
    pause, end = 0.01, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return


def is_idle(path: str) -> bool:
    """Whether nobody holds a lock file's lock."""
    if not path.endswith(".lock"):
        return True
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def remove(path: str) -> int:
    """Remove a file or a tree, unwritable directories included; returns 1, or 0 if it was gone."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return 1
        os.chmod(path, 0o700)
        for parent, directories, _ in os.walk(path):
            for name in directories:
                if not os.path.islink(f"{parent}/{name}"):
                    os.chmod(f"{parent}/{name}", 0o700)
        shutil.rmtree(path)
    except FileNotFoundError:
        return 0
    return 1


def fill_stage(place: str, stage: Sequence[StageEntry]) -> None:
    """Make a stage's directory and what is in it, parents first, whatever the umask."""
    os.mkdir(place)
    os.chmod(place, 0o755)  # noqa: S103  # whatever the umask; the cache's own mode decides who gets here
    directories: list[tuple[str, int]] = []
    for entry in stage:
        path = f"{place}/{entry.path}"
        if isinstance(entry, MakeDirectory):
            os.mkdir(path)
            os.chmod(path, 0o700)
            directories.append((path, entry.mode))
        elif isinstance(entry, MakeFile):
            with open(path, "xb") as stream:
                stream.write(entry.content)
                os.fchmod(stream.fileno(), entry.mode)
        else:
            os.symlink(entry.points_to, path)
    # Only now: an image may have directories that nobody can write to, and so have the layers over them.
    for path, mode in reversed(directories):
        os.chmod(path, mode)


def stage_origins(place: str, stage: Sequence[StageEntry]) -> Iterator[wire.Origin]:
    """What tells that a stage is whole: its directories, and the files that are more than mount points.

    A file that is empty on purpose is content. A plan has thousands of mount points, which never show.
    """
    covered = {f"{place}/{entry.path}" for entry in stage if isinstance(entry, MakeFile) and entry.is_mount_point}
    for parent, _, names in os.walk(place):
        found = os.lstat(parent)
        yield wire.SameDirectory(parent, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        for name in names:
            path = f"{parent}/{name}"
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and path not in covered:
                times = (found.st_mtime_ns, found.st_ctime_ns)
                yield wire.SameFile(path, found.st_dev, found.st_ino, found.st_size, *times)


def write_synced(path: str, data: bytes, mode: int) -> None:
    """Write a new file, on disk when this returns."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as stream:
        os.fchmod(fd, mode)  # whatever the umask
        stream.write(data)
        stream.flush()
        os.fsync(fd)


def sync_directory(path: str) -> None:
    """Have a directory's entries on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def tree_size(top: str) -> int:
    """Bytes of the files below a directory, as far as they are still there."""
    size = 0
    for parent, _, names in os.walk(top):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(f"{parent}/{name}").st_size
    return size


def stage_of(plan: str) -> str:
    """The stage that a plan names, from its head: header, key and owner come before it."""
    try:
        with open_regular(plan) as stream:
            fields = stream.read(16384).split(b"\0")
    except OSError:
        return ""
    return os.fsdecode(fields[8]) if fields[7:8] == [b"stage"] and len(fields) > 9 else ""  # noqa: PLR2004  # as encoded
