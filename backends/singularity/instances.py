"""Instances: a process that joins one sees what the instance was started with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable

from cdi_hpc.backend import BegunWithoutError
from cdi_hpc.backends.singularity.images import INSTANCE
from cdi_hpc.backends.singularity.settings import Settings
from cdi_hpc.container.tree import ContainerTree, StagedFile
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.images.image_files import open_regular
from cdi_hpc.witness import Witness

#: Where an instance holds the names of its devices, one a line. The launcher's own files are beside it.
RECORD = "/.singularity.d/cdi-hpc-devices"

_LIMIT = 1 << 20


def record(tree: ContainerTree, devices: Iterable[str]) -> None:
    """Have the instance know which devices it was started with."""
    real_path = tree.resolve(RECORD)
    tree.make_directory(real_path.rpartition("/")[0])
    tree.put(real_path, StagedFile("".join(f"{device}\n" for device in devices).encode("utf-8", "surrogateescape")))


def check(settings: Settings, devices: Iterable[str], witness: Witness) -> None:
    """Refuse devices that the instance was not started with (BegunWithoutError)."""
    image = settings.invocation.image
    recorded = _recorded(settings, image, witness)
    missing = [device for device in devices if device not in recorded]
    if missing:
        what = f"was started without {', '.join(map(repr, missing))}, and what a container sees is decided then"
        raise BegunWithoutError(Problem(image, what, f"give --device to '{settings.name} instance start'"))


def _recorded(settings: Settings, image: str, witness: Witness) -> frozenset[str]:
    pid = _pid(settings, image[len(INSTANCE) :])
    witness.saw(f"/proc/{pid}/ns/mnt", "link")  # it may be stopped, and another one of its name begun
    try:
        with open_regular(f"/proc/{pid}/root{RECORD}") as stream:
            text = stream.read(_LIMIT).decode("utf-8", "surrogateescape")
    except PermissionError:  # a set-user-ID installation has made the container as root
        text = _said_inside(settings, image)
    except OSError:
        return frozenset()
    return frozenset(text.splitlines())


def _said_inside(settings: Settings, image: str) -> str:
    """The record as a process in the container reads it, by the shell that the launcher needs there anyway."""
    read = f'while IFS= read -r line; do echo "$line"; done <{RECORD}'
    command = [settings.profile.program, "-q", "exec", image, "/bin/sh", "-c", read]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=dict(settings.environ)
    )
    return done.stdout[:_LIMIT].decode("utf-8", "surrogateescape")


def _pid(settings: Settings, name: str) -> int:
    """Process of an instance, as the launcher knows it."""
    command = [settings.profile.program, "instance", "list", "--json", name]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=dict(settings.environ)
    )
    try:
        found = {instance["instance"]: int(instance["pid"]) for instance in json.loads(done.stdout)["instances"]}
        return found[name]
    except (ValueError, KeyError, TypeError):
        what = "there is no such instance of yours on this machine"
        raise CdiError(Problem(f"{INSTANCE}{name}", what, f"see '{settings.name} instance list'")) from None
