"""Directories that we use: whose they are, and what they lie on."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from cdi_hpc.compiled.cache_place import CacheError, user_directory
from cdi_hpc.compiled.plan_cache import user_cache
from cdi_hpc.doctor.checks import Finding, Question, configured
from cdi_hpc.mountinfo import mount_types

#: File systems that nodes share, by the type that proc_pid_mountinfo(5) shows.
_SHARED = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.ceph",
    "cifs",
    "smb3",
    "panfs",
    "wekafs",
    "afs",
    "9p",
)


def plan_cache(question: Question) -> Iterator[Finding]:
    """Whether compiled plans can be kept."""
    configuration = configured(question)
    if configuration is None:
        return  # it may name the directory
    directory, is_chosen = user_directory(question.variables, os.geteuid(), configuration)
    try:
        user_cache(question.variables, configuration)
    except CacheError as error:
        for problem in error.problems:
            yield Finding("warning", f"no plans are kept: {problem.where}: {problem.what}", problem.fix)
        return
    kind = file_system(directory)
    if kind in _SHARED:
        what = f"plans are kept in {directory}, on {kind}: nodes that share it make each other's plans stale"
        fix = "set TMPDIR or XDG_RUNTIME_DIR to a directory of the node's own"
        if is_chosen:
            fix = (
                "let cache.directory or CDI_HPC_CACHE_DIRECTORY name a directory of the node's own, or one with {host}"
            )
        yield Finding("warning", what, fix)
    else:
        yield Finding("ok", f"plans are kept in {directory} ({kind})")


def temporary_directory(question: Question) -> Iterator[Finding]:
    """Whether TMPDIR leads somewhere."""
    named = question.variables.get("TMPDIR")
    if not named:
        return
    if not named.startswith("/") or not os.path.isdir(named):
        yield Finding("warning", f"TMPDIR={named} is not the absolute path of a directory", "unset TMPDIR")
    elif not os.access(named, os.W_OK | os.X_OK):
        yield Finding("warning", f"TMPDIR={named} can't be written to", "unset TMPDIR, or make the directory yours")
    else:
        yield Finding("ok", f"TMPDIR={named} ({file_system(named)})")


def file_system(path: str) -> str:
    """Type of the file system that a path is on."""
    types = mount_types()
    here = os.path.realpath(path)
    while here not in types:
        if here == "/":
            return "unknown"
        here = posixpath.dirname(here)
    return types[here]
