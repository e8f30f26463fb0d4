"""A /dev made anew, with everything of the host's in it that neither we nor the plan put there.

Launchers show the host's whole /dev, and a node that the plan renames is no reason to miss the others. The host's
devtmpfs takes no new names from a user, so its entries are brought into a tmpfs one by one.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from cdi_hpc.host import Host
from cdi_hpc.launch.base import ORIGIN
from cdi_hpc.plan import Action, Bind, Symlink
from cdi_hpc.translation.translate import BIND_KINDS
from cdi_hpc.witness import Witness

DEV = "/dev"


def brought_back(taken: frozenset[str], host: Host, witness: Witness, directory: str = DEV) -> Iterator[Action]:
    """Everything of the host's /dev but what is taken, around which its directories are made anew as well.

    Args:
        taken: paths below /dev that others make.
        host: the machine.
        witness: is told of the directories: a node that appears later belongs into the next container.
        directory: where to begin.

    """
    witness.saw(directory, "names")
    for name in sorted(os.listdir(directory)):
        path = posixpath.join(directory, name)
        if path in taken:
            continue
        if any(each.startswith(f"{path}/") for each in taken):
            if os.path.isdir(path):
                yield from brought_back(taken, host, witness, path)
        else:
            yield from _as_it_is(path, host)


def _as_it_is(path: str, host: Host) -> Iterator[Action]:
    text = host.link(path)
    node = host.node(path) if text is None else None
    if text is not None:
        yield Symlink(path, text, ORIGIN)
    elif node is not None:  # or it went away this moment
        kind = BIND_KINDS[node.kind]
        yield Bind(node.real_path, path, kind, ORIGIN, kept=node.mount_flags, recursive=kind == "directory")
