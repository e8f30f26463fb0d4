"""An explanation: a request, and what each launcher would make of it. Nothing is done, and no image is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdi_hpc.config import Configuration
from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.explain import own, through
from cdi_hpc.explain.request import Request, Wanted
from cdi_hpc.explain.rows import Edit, rows
from cdi_hpc.explain.views import View
from cdi_hpc.host import Host
from cdi_hpc.launch.image import Image, read_image
from cdi_hpc.planning import load_configuration
from cdi_hpc.resolve.lookup import Report, resolve_devices


@dataclass(frozen=True)
class Explanation:
    """What becomes of a request.

    Attributes:
        devices: qualified names.
        image: its path, None if it was taken to be empty.
        edits: of all devices, in order of application.
        views: one for each launcher, in the order asked for.

    """

    devices: tuple[str, ...]
    image: str | None
    edits: tuple[Edit, ...]
    views: tuple[View, ...]


def launchers() -> tuple[str, ...]:
    """Every launcher that can be explained, one of each kind."""
    first, *rest = own.NAMES
    return (first, *through.names(), *rest)


def explain(
    wanted: Wanted,
    environ: Mapping[str, str],
    host: Host,
    report: Report,
    configuration: Configuration | None = None,
) -> Explanation:
    """What becomes of every edit of a request on each launcher.

    Args:
        wanted: the request.
        environ: the environment.
        host: the machine.
        report: is told of what is unusual about the spec files.
        configuration: default: that of this process.

    Raises:
        CdiError: something can't be resolved, the configuration is wrong, or there is no such image.

    """
    if configuration is None:
        configuration = load_configuration(environ)
    resolved = resolve_devices(
        wanted.devices,
        wanted.cdi_dirs,
        environ,
        report,
        strict=wanted.strict,
        configuration=configuration,
        host=host,
        visible=wanted.visible,
    )
    devices, merged = resolved.devices, resolved.edits
    edits = rows(devices, merged)
    request = Request(wanted, devices, merged, edits, configuration, _image(wanted.image), host, environ)
    views = (own.view(n, request) if n in own.NAMES else through.view(n, request) for n in wanted.launchers)
    return Explanation(merged.devices, wanted.image, edits, tuple(views))


def _image(path: str | None) -> Image | None:
    if path is None:
        return None
    image = read_image(path)
    if image.files is None and not image.mountable:
        raise CdiError(Problem(f"image {path}", image.reason, image.fix))
    return image
