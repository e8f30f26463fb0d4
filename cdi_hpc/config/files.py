"""Reading configuration files, and a site's recipes: only those of whom they speak for, each opened once.

What is checked is what was opened (fstat(2)), and a name is looked up in the directory that was opened (openat(2)), so
that nothing can be exchanged between a check and its use.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cdi_hpc import trusted_program
from cdi_hpc.config import SITE_DIRECTORY, user_directory
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.witness import Witness

#: In any configuration directory; and the site's directory of further files.
FILE = "config.yaml"
MORE = "config.d"
_SUFFIX = ".yaml"

#: What somebody may take for a configuration file where one is looked for: nobody is to lose rules by a name. A schema
#: for editors may lie beside config.yaml.
_LIKE_A_FILE = (".yaml", ".yml", "config.json")
_LIKE_MORE = (".yaml", ".yml", ".json")

#: A file with 1,000 rules has some 50 kB.
MAX_BYTES = 1 << 20

_OTHERS_WRITE = 0o022
_EVERYBODY_WRITES = 0o002


@dataclass(frozen=True)
class Trust:
    """Whose files are believed.

    Attributes:
        owners: user numbers of those they may belong to.
        closed_to: mode bits that nobody may have.
        own: the files are the user's own business: they may be links (what those lead to is checked all the same), and
            a directory that can't be looked into, because HOME is somebody else's, has none.

    """

    owners: frozenset[int]
    closed_to: int
    own: bool = False


@dataclass(frozen=True)
class Places:
    """Where configuration is.

    Attributes:
        site: the administrator's directory.
        user: the user's directory, "" if there is none.
        site_trust: for the one.
        user_trust: for the other.

    """

    site: str
    user: str
    site_trust: Trust
    user_trust: Trust


def places(environ: Mapping[str, str], uid: int) -> Places:
    """Where this process's configuration is.

    Args:
        environ: XDG_CONFIG_HOME and HOME are looked at (XDG Base Directory Specification).
        uid: of the user.

    """
    user_trust = Trust(frozenset({uid, 0}), _EVERYBODY_WRITES, own=True)
    return Places(SITE_DIRECTORY, user_directory(environ), site_trust(), user_trust)


def site_trust() -> Trust:
    """What the administrator's files are held to: root's, and nobody else can write to them."""
    return Trust(trusted_program.roots(), _OTHERS_WRITE)


@dataclass(frozen=True)
class ConfigFile:
    """The bytes of a file, and its path."""

    path: str
    data: bytes


def read_site(places: Places, witness: Witness) -> Iterator[ConfigFile]:
    """The administrator's files in the order in which they count: config.yaml, then config.d by name.

    Raises:
        CdiError: somebody else could have written one, it can't be read, or it has a name that is not looked for.

    """
    directory = _open_directory(places.site, None, places.site_trust, witness)
    if directory is None:
        return
    try:
        _refuse_unread(places.site, directory, (FILE,), _LIKE_A_FILE)
        yield from _read_file(f"{places.site}/{FILE}", directory, places.site_trust, witness)
        yield from _read_more(f"{places.site}/{MORE}", directory, places.site_trust, witness)
    finally:
        os.close(directory)


def read_user(places: Places, witness: Witness) -> Iterator[ConfigFile]:
    """The user's file, if there is one.

    Raises:
        CdiError: somebody else could have written it, or it can't be read.

    """
    directory = _open_directory(places.user, None, places.user_trust, witness) if places.user else None
    if directory is None:
        return
    try:
        yield from _read_file(f"{places.user}/{FILE}", directory, places.user_trust, witness)
    finally:
        os.close(directory)


def read_named(path: str) -> ConfigFile:
    """A file that somebody wants to be checked, whoever it belongs to.

    Raises:
        CdiError: it can't be read.

    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        raise CdiError(_unreadable(path, error)) from None
    return _content(path, descriptor, None)


def read_directory(path: str, suffixes: Sequence[str], trust: Trust | None) -> tuple[ConfigFile, ...] | None:
    """The files of a directory that end in one of some suffixes, by name; None if there is no such directory.

    Args:
        path: of the directory.
        suffixes: of the files that are read; others, and those whose name begins with a dot, are not looked at.
        trust: None: whoever they belong to.

    Raises:
        CdiError: somebody else could have written one, or it can't be read.

    """
    directory = _open_directory(path, None, trust, Witness())
    return None if directory is None else tuple(_files_of(path, directory, suffixes, trust, Witness()))


_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def _read_more(path: str, above: int, trust: Trust, witness: Witness) -> Iterator[ConfigFile]:
    directory = _open_directory(path, above, trust, witness)
    if directory is None:
        return
    try:
        _refuse_unread(path, directory, (_SUFFIX,), _LIKE_MORE)
    except CdiError:
        os.close(directory)
        raise
    yield from _files_of(path, directory, (_SUFFIX,), trust, witness)


def _refuse_unread(path: str, directory: int, ends: tuple[str, ...], like: tuple[str, ...]) -> None:
    """Refuse files with names like those that are read (CdiError). One with a dot in front is hidden."""
    names = (name for name in sorted(os.listdir(directory)) if name.lower().endswith(like) and not name.startswith("."))
    lost = [name for name in names if not name.endswith(ends)]
    if lost:
        what = f"not read because of its name: {SITE_DIRECTORY} has {FILE}, and {MORE} with what ends in {_SUFFIX}"
        raise CdiError(Problem(f"{path}/{name}", what, "rename or remove it") for name in lost)


def _files_of(
    path: str, directory: int, suffixes: Sequence[str], trust: Trust | None, witness: Witness
) -> Iterator[ConfigFile]:
    """The files of a directory that was opened; the descriptor is closed."""
    try:
        # By bytes: a locale must not decide which rule comes first.
        for name in sorted(os.listdir(directory), key=os.fsencode):
            if name.endswith(tuple(suffixes)) and not name.startswith("."):
                yield from _read_file(f"{path}/{name}", directory, trust, witness)
    finally:
        os.close(directory)


def _open_directory(path: str, above: int | None, trust: Trust | None, witness: Witness) -> int | None:
    """A descriptor of a directory that is to be believed; None if it is not there."""
    witness.saw(path, "names")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if _no_links(trust) else 0)
    try:
        descriptor = os.open(path if above is None else os.path.basename(path), flags, dir_fd=above)
    except FileNotFoundError:
        if _is_link(path, above):
            raise CdiError(Problem(path, "the link leads nowhere", "repair or remove it")) from None
        return None
    except OSError as error:
        if trust is not None and trust.own and (error.errno == errno.EACCES or _parent_is_missing(path)):
            return None
        raise CdiError(_unreadable(path, error)) from None
    try:
        if trust is not None:
            _require_trust(path, os.fstat(descriptor), trust)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _no_links(trust: Trust | None) -> bool:
    return trust is not None and not trust.own


def _read_file(path: str, above: int, trust: Trust | None, witness: Witness) -> Iterator[ConfigFile]:
    witness.saw(path, "content")
    flags = _FLAGS | (os.O_NOFOLLOW if _no_links(trust) else 0)
    try:
        descriptor = os.open(os.path.basename(path), flags, dir_fd=above)
    except FileNotFoundError:
        if _is_link(path, above):
            raise CdiError(Problem(path, "the link leads nowhere", "repair or remove it")) from None
        return
    except OSError as error:
        raise CdiError(_unreadable(path, error)) from None
    yield _content(path, descriptor, trust)


def _content(path: str, descriptor: int, trust: Trust | None) -> ConfigFile:
    """The bytes of what was opened; the descriptor is closed."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CdiError(Problem(path, "it is no regular file", "rename or remove what is there"))
        if trust is not None:
            _require_trust(path, status, trust)
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise CdiError(_unreadable(path, error)) from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise CdiError(Problem(path, f"the file has more than the {MAX_BYTES} bytes that it may have"))
    return ConfigFile(path, data)


def _require_trust(path: str, status: os.stat_result, trust: Trust) -> None:
    if status.st_uid not in trust.owners:
        owner = "root" if 0 in trust.owners and trust.closed_to == _OTHERS_WRITE else "you"
        what = f"not believed: it belongs to user {status.st_uid}, not to {owner}"
        raise CdiError(Problem(path, what, f"chown it to {owner}, or remove it"))
    if status.st_mode & trust.closed_to:
        what = f"not believed: others can write to it (mode {stat.S_IMODE(status.st_mode):o})"
        bits = "go-w" if trust.closed_to == _OTHERS_WRITE else "o-w"
        raise CdiError(Problem(path, what, f"chmod {bits} {path}"))


def _is_link(path: str, above: int | None) -> bool:
    try:
        status = os.stat(path if above is None else os.path.basename(path), dir_fd=above, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISLNK(status.st_mode)


def _parent_is_missing(path: str) -> bool:
    """Whether it is something above the directory that is no directory: a home of /dev/null, say."""
    return not os.path.isdir(os.path.dirname(path))


def _unreadable(path: str, error: OSError) -> Problem:
    if error.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.islink(path):
        return Problem(path, "a link is not followed here", "put the file itself there, or a bind mount")
    if error.errno == errno.ENOTDIR:
        return Problem(path, "it is no directory", "rename or remove it")
    if error.errno == errno.EACCES:
        return Problem(path, "Permission denied", f"ask its owner to chmod a+rX {path}: launches have to read it")
    return Problem(path, f"can't be read: {os.strerror(error.errno or errno.EIO)}")
