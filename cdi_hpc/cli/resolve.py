"""``cdi-hpc resolve``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from cdi_hpc.cli.options import Reporter, cdi_dir, output_format, strict, verbosity, visible_devices
from cdi_hpc.cli.output import print_json, print_table
from cdi_hpc.resolve.lookup import resolve_devices
from cdi_hpc.spec.encode import resolved_to_json
from cdi_hpc.spec.model import ResolvedEdits


@click.command("resolve")
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE...")
@cdi_dir
@strict
@visible_devices
@output_format
@verbosity
def command(
    devices: tuple[str, ...],
    cdi_dirs: tuple[str, ...],
    strict: bool,
    visible: tuple[str, ...],
    output_format: str,
    verbose: int,
    quiet: int,
) -> None:
    """Show the merged edits of DEVICEs, as the specs have them.

    Order and merging are those of the CDI reference library. What becomes of the edits here is shown by 'plan'.
    """
    reporter = Reporter(verbose + quiet)
    resolved = resolve_devices(devices, cdi_dirs, os.environ, reporter, strict=strict, visible=visible).edits
    if output_format == "json":
        print_json(resolved_to_json(resolved))
    else:
        print_table(("EDIT", "VALUE", "FROM"), _rows(resolved))


def _rows(resolved: ResolvedEdits) -> Iterator[tuple[str, str, str]]:
    for env in resolved.env:
        yield ("env", env.value, str(env.origin))
    for node in resolved.device_nodes:
        source = f"{node.value.host_path} -> " if node.value.host_path else ""
        yield ("deviceNodes", source + node.value.path, str(node.origin))
    for device in resolved.net_devices:
        yield ("netDevices", f"{device.value.host_interface_name} -> {device.value.name}", str(device.origin))
    for mount in resolved.mounts:
        options = f" ({','.join(mount.value.options)})" if mount.value.options else ""
        value = f"{mount.value.host_path} -> {mount.value.container_path}{options}"
        yield ("mounts", value, str(mount.origin))
    for hook in resolved.hooks:
        yield ("hooks", f"{hook.value.hook_name}: {' '.join(hook.value.args or (hook.value.path,))}", str(hook.origin))
    for gid in resolved.additional_gids:
        yield ("additionalGids", str(gid.value), str(gid.origin))
    if resolved.intel_rdt is not None:
        yield ("intelRdt", resolved.intel_rdt.value.clos_id, str(resolved.intel_rdt.origin))
