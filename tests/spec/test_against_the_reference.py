"""Generated spec directories and requests, answered by the reference library and by us.

CDI_HPC_EXAMPLES sets how many; the suite's own number is small.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from spec_directories import cases

from cdi_hpc.errors import CdiError
from cdi_hpc.spec import edits, names, version
from cdi_hpc.spec.registry import SpecDirectory, load_registry
from cdi_hpc.spec.request import resolve

EXAMPLES = settings(
    max_examples=int(os.environ.get("CDI_HPC_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@given(data=st.data())
@EXAMPLES
def test_generated_directories_and_requests_get_the_answers_of_the_reference(oracle, data):
    newest = not version.is_older(oracle.version, "1.1.0")
    case = data.draw(cases(newest=newest))
    with tempfile.TemporaryDirectory() as root:
        directories = _write(case, Path(root))
        strict = load_registry(directories, strict=True)
        tolerant = load_registry(directories)
        known = list(strict.devices)
        request = [
            *case.request,
            *data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=4) if known else st.just([])),
        ]
        answer = oracle.ask([directory.path for directory in directories], request)
        if answer["panic"]:
            event("the reference panics")
            assert strict.errors
            return
        _assert_same_registry(strict, answer)
        _assert_only_tolerant(strict, tolerant)
        _assert_same_edits(strict, request, answer, filled_modes=newest)


def _write(case, root):
    directories = []
    for index, content in enumerate(case.directories):
        directory = root / f"d{index}"
        directory.mkdir()
        for name, text in content.items():
            if text is None:
                (directory / name).mkdir()
            elif text == "->":
                (directory / name).symlink_to("absent")
            else:
                (directory / name).write_text(text, encoding="utf-8", newline="")
    directories = [SpecDirectory(str(root / f"d{index}")) for index in case.order]
    return tuple(directories)


def _assert_same_registry(registry, answer):
    event(f"{min(len(registry.specs), 3)} good files, {min(len(registry.errors), 3)} with errors")
    assert list(registry.devices) == (answer["devices"] or [])
    assert list(registry.vendors()) == (answer["vendors"] or [])
    assert list(registry.classes()) == (answer["classes"] or [])
    assert sorted(registry.errors) == sorted(answer["errors"])
    for name in registry.conflicts:
        event("conflict")
        assert any(name in error for errors in answer["errors"].values() for error in errors)
    for _ in registry.shadowed[:1]:
        event("shadowed")


def _assert_only_tolerant(strict, tolerant):
    """What strict mode accepts the default does, but for half a spec (docs/tolerance.md); its own has a warning."""
    for loaded in strict.specs:
        if loaded not in tolerant.specs:
            event("half a spec")
            said = [problem.what for problem in strict.warnings if loaded.path in problem.where]
            ignored = [what.partition(" is ignored: ")[2] for what in said if " is ignored: " in what]
            assert len(ignored) == 1
            (error,) = tolerant.errors[loaded.path]
            looks_like_json = Path(loaded.path).read_text(encoding="utf-8-sig").lstrip().startswith("{")
            assert error.what in ignored or (looks_like_json and error.what.startswith("not valid JSON: "))
    strictly_good = {loaded.path for loaded in strict.specs}
    for loaded in tolerant.specs:
        if loaded.path not in strictly_good:
            event("tolerated")
            assert any(problem.where.startswith(loaded.path) for problem in tolerant.warnings)


def _assert_same_edits(registry, request, answer, *, filled_modes):
    unresolved = [name for name in request if name not in registry.devices]
    assert unresolved == (answer["unresolved"] or [])
    # Ours knows more: VENDOR/CLASS=all without such a device, and commas. It knows no less.
    for name in unresolved:
        parsed = names.parse_qualified(name)
        if isinstance(parsed, str) or parsed.device != "all":
            with pytest.raises(CdiError):
                resolve([name], registry, strict=True)
    if unresolved or not request:
        event("unresolved" if unresolved else "no request")
        return
    devices = resolve(request, registry, strict=True).devices
    if any(_cannot_be_filled(node) for node in _applied_nodes(devices)):
        event("a host device is missing")
        assert answer["injection"].startswith("failed to inject devices")
        return
    assert answer["injection"] == ""
    event("edits compared")
    assert _as_oci(edits.merge(devices), filled_modes=filled_modes) == _normal(answer["spec"])


def _applied_nodes(devices):
    for registered in devices:
        yield from registered.spec.container_edits.device_nodes
        yield from registered.device.container_edits.device_nodes


# What the reference asks the host for; we leave that to the plan, so the comparison does it.


def _host_node(node):
    """Type, major, minor and mode of the host's node, or None."""
    try:
        status = os.lstat(node.host_path or node.path)
    except OSError:
        return None
    types = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}
    kind = types.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return kind, os.major(status.st_rdev), os.minor(status.st_rdev), stat.S_IMODE(status.st_mode)


def _is_complete(node):
    return node.type != "" and (node.major != 0 or node.type == "p")


def _cannot_be_filled(node):
    if _is_complete(node):
        return False
    host = _host_node(node)
    return host is None or (node.type not in ("", host[0]))


def _filled(node, *, filled_modes):
    made = {"path": node.path, "type": node.type, "major": node.major, "minor": node.minor}
    mode = node.file_mode
    host = _host_node(node)
    if host is not None:
        if filled_modes and mode is None:
            mode = host[3]
        if not _is_complete(node):
            made["type"] = node.type or host[0]
            if node.major == 0 and made["type"] != "p":
                made.update(major=host[1], minor=host[2])
    optional = {"fileMode": mode, "uid": node.uid, "gid": node.gid}
    return {**made, **{name: value for name, value in optional.items() if value is not None}}


def _as_oci(resolved, *, filled_modes):
    hooks = {}
    for hook in resolved.hooks:
        made = {"path": hook.value.path, "args": list(hook.value.args), "env": list(hook.value.env)}
        hooks.setdefault(hook.value.hook_name, []).append({**made, "timeout": hook.value.timeout})
    rdt = resolved.intel_rdt.value if resolved.intel_rdt else None
    return {
        "env": [variable.value for variable in resolved.env],
        "devices": [_filled(node.value, filled_modes=filled_modes) for node in resolved.device_nodes],
        "net devices": {device.value.host_interface_name: device.value.name for device in resolved.net_devices},
        "mounts": [
            (mount.value.host_path, mount.value.container_path, mount.value.type, mount.value.options)
            for mount in resolved.mounts
        ],
        "hooks": hooks,
        "gids": [gid.value for gid in resolved.additional_gids],
        "rdt": None
        if rdt is None
        else (
            rdt.clos_id,
            rdt.l3_cache_schema,
            rdt.mem_bw_schema,
            rdt.schemata,
            rdt.enable_monitoring,
            rdt.enable_cmt,
            rdt.enable_mbm,
        ),
    }


def _normal(spec):
    """The same facts out of an OCI spec."""
    process, linux = spec.get("process") or {}, spec.get("linux") or {}
    hooks = {}
    for name, listed in (spec.get("hooks") or {}).items():
        for hook in listed:
            made = {"path": hook["path"], "args": hook.get("args", []), "env": hook.get("env", [])}
            made["timeout"] = hook.get("timeout")
            if made not in hooks.setdefault(name, []):
                hooks[name].append(made)
    rdt = linux.get("intelRdt")
    return {
        "env": process.get("env", []),
        "devices": linux.get("devices", []),
        "net devices": {host: made["name"] for host, made in linux.get("netDevices", {}).items()},
        "mounts": [
            (mount.get("source", ""), mount["destination"], mount.get("type", ""), tuple(mount.get("options", ())))
            for mount in spec.get("mounts", [])
        ],
        "hooks": hooks,
        "gids": process.get("user", {}).get("additionalGids", []),
        "rdt": None
        if rdt is None
        else (
            rdt.get("closID", ""),
            rdt.get("l3CacheSchema", ""),
            rdt.get("memBwSchema", ""),
            tuple(rdt.get("schemata", ())),
            rdt.get("enableMonitoring", False),
            rdt.get("enableCMT", False),
            rdt.get("enableMBM", False),
        ),
    }
