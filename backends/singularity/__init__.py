"""Apptainer and Singularity: ``apptainer`` and ``singularity``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cdi_hpc.backend import Dressing, Invocation, Located, Profile, Ways
from cdi_hpc.backends.singularity import dressing, images, probe
from cdi_hpc.backends.singularity.fetch import fetch
from cdi_hpc.host import Host
from cdi_hpc.plan import Plan
from cdi_hpc.witness import Witness

__all__ = ["Singularity"]


class Singularity:
    """Containers by ``apptainer`` (1.1 and later) or ``singularity`` (SingularityCE 3.9 and later)."""

    name = "singularity"
    commands: tuple[str, ...] = ("apptainer", "singularity")
    ways = Ways(
        variable="variable APPTAINERENV_NAME",
        node="seen in the host's /dev, which the launcher binds",
        mount="--mount",
        filesystem="new mount in a mount namespace of ours, and --mount",
        link="link in a layer over the image (--overlay)",
        file="file in a layer over the image (--overlay)",
        loader_cache="ld.so.cache merged in a layer over the image (--overlay)",
    )

    def probe(self, program: str) -> Profile:
        """See :class:`cdi_hpc.backend.Backend`."""
        return probe.probe(self.name, program)

    def locate(self, invocation: Invocation, profile: Profile, environ: Mapping[str, str], image_place: str) -> Located:
        """See :class:`cdi_hpc.backend.Backend`. An image that the launcher would fetch is fetched."""
        if images.is_instance(invocation.image):
            return Located(None, "instance", place=image_place, reason="it is a container already")
        if images.is_reference(invocation.image):
            path = fetch(dressing.settings_of(invocation, profile, environ, Witness()))
            found = images.locate_file(path, image_place)
            return replace(found, kind="reference")
        return images.locate_file(invocation.image, image_place)

    def adapt(
        self,
        plan: Plan,
        invocation: Invocation,
        profile: Profile,
        located: Located,
        host: Host,
        environ: Mapping[str, str],
        witness: Witness,
    ) -> Dressing:
        """See :class:`cdi_hpc.backend.Backend`."""
        return dressing.dress(plan, invocation, profile, located, host, environ, witness)
