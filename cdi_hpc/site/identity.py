"""Whom a site's rules are asked about: this process's user."""

from __future__ import annotations

import grp
import os
import pwd

from cdi_hpc.site.policy import Identity


def this_user() -> Identity:
    """Whom this process runs for. Names are looked up only for rules that have some: a directory service takes time."""
    return Identity(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}), _uid_of, _gid_of)


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
