"""Images that the launcher fetches: they are fetched before, by the launcher itself, to be looked into."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

from cdi_hpc.backends.singularity.settings import Settings
from cdi_hpc.errors import CdiError, Problem

#: Options of the launch that say how a registry is reached; ``pull`` has the same.
_PASSED_ON = (
    "authfile",
    "disable-cache",
    "docker-host",
    "docker-login",
    "docker-password",
    "docker-username",
    "no-https",
    "tmpdir",
)
_GLOBAL = ("--config", "--debug", "--nocolor", "--quiet", "--silent", "--verbose")

_PREFIX = "cdi-hpc-image-"

#: Locked for as long as the image is of use.
_LOCK = "lock"

#: A lock of this age has been taken by its launch, or is nobody's any more; seconds.
_SETTLED = 60

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def fetch(settings: Settings) -> str:
    """Have the launcher fetch the image into a file of ours, which is removed when this process has ended.

    That is also the process that the launcher becomes, and the container's: the file is there for as long as either.

    Returns:
        Path of the SIF file.

    Raises:
        CdiError: the launcher failed; its own messages are on standard error.

    """
    image = settings.invocation.image
    top = _directory(settings)
    prefix = _prefix()
    _remove_abandoned(top, prefix)
    directory = tempfile.mkdtemp(prefix=prefix, dir=top)
    _remove_at_end(directory)
    path = f"{directory}/{_file_name(image)}"
    command = [settings.profile.program, *_global_words(settings), "pull", *_pull_words(settings), path, image]
    # Its standard output is the command's to come: a script may read that.
    done = subprocess.run(command, stdout=2, check=False, env=dict(settings.environ))
    if done.returncode != 0:
        what = f"{settings.name} pull failed with exit status {done.returncode}"
        raise CdiError(Problem(f"image {image}", what, "it has said why"))
    return path


def _directory(settings: Settings) -> str:
    """Where the launcher keeps what is temporary (APPTAINER_TMPDIR): images are large, and this has room for them."""
    names = (f"{prefix}_TMPDIR" for prefix in settings.prefixes)
    chosen = next((settings.environ[name] for name in names if settings.environ.get(name)), None)
    return chosen or settings.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # the launcher's own default


def _file_name(image: str) -> str:
    """The container's name, as programs in it see it ($APPTAINER_NAME): ``image_tag.sif``, as ``pull`` names it."""
    last = image.partition(":")[2].rstrip("/").rpartition("/")[2]
    return (re.sub(r"[^A-Za-z0-9._-]", "_", last) or "image")[:100] + ".sif"


def _global_words(settings: Settings) -> Iterator[str]:
    invocation = settings.invocation
    for given in invocation.given:
        if any(name in _GLOBAL for name in given.option.names) and given.index < _first_of_subcommand(settings):
            yield from invocation.words[given.index : given.index + given.count]


def _first_of_subcommand(settings: Settings) -> int:
    words, named = settings.invocation.words, settings.invocation.subcommand
    return next((n for n in range(len(words)) if words[n : n + len(named)] == named), 0)


def _pull_words(settings: Settings) -> Iterator[str]:
    yield "--force"  # the directory is ours and empty; a name that a plugin makes is not asked about
    for option in _PASSED_ON:
        for value in settings.given(option):
            yield f"--{option}={value}"


def _remove_at_end(directory: str) -> None:
    """Leave a process behind that waits for this one's end, whatever this one becomes, and removes the directory."""
    watched, lock = os.pidfd_open(os.getpid()), _locked(directory, os.O_CREAT | os.O_EXCL)
    child = os.fork()
    if child:
        os.close(watched)
        os.close(lock)
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():  # an orphan: the launcher has no child that it does not know
            os._exit(0)
        _wait_and_remove(watched, lock, directory)
    finally:
        os._exit(0)


def _wait_and_remove(watched: int, lock: int, directory: str) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)  # whoever reads our output does not wait for this process
    first, last = sorted((watched, lock))
    for low, high in ((3, first), (first + 1, last), (last + 1, os.sysconf("SC_OPEN_MAX"))):
        os.closerange(low, high)
    select.select([watched], [], [])
    shutil.rmtree(directory, ignore_errors=True)


def _prefix() -> str:
    """How our directories are called on this machine since it was booted: others may be in the same place."""
    with open(_BOOT_ID, encoding="ascii") as stream:
        return f"{_PREFIX}{stream.read().strip()}-"


def _locked(directory: str, flags: int = 0) -> int:
    """Descriptor of a directory's lock, which is ours while it is open.

    Raises:
        BlockingIOError: it is another's.
        OSError: there is no lock.

    """
    fd = os.open(f"{directory}/{_LOCK}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    except OSError:
        if not flags & os.O_CREAT:
            os.close(fd)
            raise  # a file system without locks: then nobody removes what is another's
    return fd


def _remove_abandoned(top: str, prefix: str) -> None:
    """What is left of launches that were killed together with who should have tidied up after them.

    Only this machine's: a lock on a file system that several share may hold on each of them alone. And not by process
    ids, which in a container are others.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(top):
            if entry.name.startswith(prefix) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                _remove_if_abandoned(entry.path)


def _remove_if_abandoned(directory: str) -> None:
    with contextlib.suppress(OSError):
        made = os.stat(f"{directory}/{_LOCK}", follow_symlinks=False).st_mtime
        if time.time() - made < _SETTLED:  # not even tried: whoever has just made it could not take it meanwhile
            return
        lock = _locked(directory)
        try:
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(lock)
