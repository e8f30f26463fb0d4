"""An explanation: a request, and what each launcher would make of it.

Nothing is done. An image that only a launcher can find is looked for, and fetched if it does that, as for a plan.
"""

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
    image, unread = _image(wanted)
    request = Request(wanted, devices, merged, edits, configuration, image, host, environ, unread)
    views = tuple(own.view(n, request) if n in own.NAMES else through.view(n, request) for n in wanted.launchers)
    if unread and not any(_knows_image(view, wanted) for view in views):
        raise CdiError(unread)
    return Explanation(merged.devices, wanted.image, edits, views)


def _image(wanted: Wanted) -> tuple[Image | None, tuple[Problem, ...]]:
    """The image, and why launchers of ours can't read it: others may know one that we don't."""
    path = wanted.image
    if path is None or not set(wanted.launchers) & {*own.NAMES}:
        return None, ()
    try:
        image = read_image(path)
    except CdiError as error:
        return None, error.problems
    if image.files is None and not image.mountable:
        return None, (Problem(f"image {path}", image.reason, image.fix),)
    return image, ()


def _knows_image(view: View, wanted: Wanted) -> bool:
    """Whether somebody else's launcher is here and has found it."""
    is_unknown = any(stop.startswith(f"image {wanted.image}:") for stop in view.stops)
    return view.launcher not in own.NAMES and view.installed and not is_unknown
