"""Whether a spec is one: from bytes to a model with everything that is wrong with it. No I/O.

Two layers. The rules of the specification, as the reference library applies them, decide; they need no package but
PyYAML, and a launch runs only them. The JSON Schema in ``schema.json`` is the specification's letter: what it alone
finds (a boolean where text belongs, say) other readers may refuse, so it is worth a warning when a spec is being
checked for its own sake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cdi_hpc.errors import CdiError, Problem
from cdi_hpc.spec import names, version
from cdi_hpc.spec.decode import Finding, Findings, decode, describe, shorten
from cdi_hpc.spec.document import Document, FieldPath, parse
from cdi_hpc.spec.model import ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec

#: OCI runtime specification, "POSIX-platform Hooks".
HOOK_NAMES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

#: Types of device nodes (mknod(1)); "" lets the host's node decide.
DEVICE_TYPES = ("", "b", "c", "u", "p")

#: Kubernetes' limit, which SPEC.md refers to: keys and values of one object together.
ANNOTATIONS_MAX_BYTES = 256 << 10

_PERMISSIONS = re.compile(r"[rwm]*|none")
_CLOS_ID_MAX_BYTES = 4095


@dataclass(frozen=True)
class Checked:
    """What became of one file.

    Attributes:
        path: the file.
        spec: its contents, or None if there are errors.
        errors: all that is wrong, by place in the file.
        warnings: all that is unusual, by place in the file.
        claimed: qualified names of devices that a refused file would have defined, as far as they could be read.

    """

    path: str
    spec: Spec | None
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    claimed: tuple[str, ...] = ()


def check(data: bytes, path: str, *, strict: bool = False, schema: bool = False) -> Checked:
    """Read a spec and say all that is wrong with it.

    Args:
        data: the file's bytes.
        path: the file's name; it becomes the spec's ``path``.
        strict: refuse what the reference library refuses, instead of warning where that is harmless.
        schema: apply the JSON Schema as well, for warnings about what other readers may refuse.

    """
    try:
        document = parse(data, path, strict=strict)
    except CdiError as error:
        return Checked(path, None, errors=error.problems)
    findings = Findings(strict)
    for note in document.notes:
        findings.warn((), note)
    spec = decode(document, findings)
    if spec is not None:
        _add_rules(document, spec, findings)
    if schema and isinstance(document.value, dict):
        _add_schema(document.value, findings)
    return _checked(document, spec, findings.found)


def _checked(document: Document, spec: Spec | None, found: list[Finding]) -> Checked:
    errors = _problems(document, [finding for finding in found if not finding.warning])
    warnings = _problems(document, [finding for finding in found if finding.warning])
    if not errors:
        return Checked(document.path, spec, warnings=warnings)
    return Checked(document.path, None, errors, warnings, _claimed(spec))


def _problems(document: Document, found: Iterable[Finding]) -> tuple[Problem, ...]:
    def place(finding: Finding) -> tuple[int, int]:
        return document.position(finding.at) or (0, 0)

    # sorted() is stable: findings of one place stay in the specification's order of fields.
    return tuple(Problem(document.where(f.at), f.what, f.fix) for f in sorted(found, key=place))


def _claimed(spec: Spec | None) -> tuple[str, ...]:
    if spec is None or names.kind_complaint(spec.kind):
        return ()
    devices = (device.name for device in spec.devices)
    return tuple(f"{spec.kind}={name}" for name in devices if not names.device_complaint(name))


def _add_rules(document: Document, spec: Spec, findings: Findings) -> None:
    """Add what breaks a rule, except where a field that could not be read is the reason."""
    unread = _Places(finding.at for finding in findings.found if not finding.warning)
    rules = _spec_rules(spec, document.value, strict=findings.strict)
    findings.found += [finding for finding in rules if finding.at not in unread]


class _Places:
    """Fields, with all that is in them and all that they are in."""

    def __init__(self, places: Iterable[FieldPath]) -> None:
        self._exact = set(places)
        self._above = {at[:length] for at in self._exact for length in range(len(at))}

    def __contains__(self, at: FieldPath) -> bool:
        return at in self._above or any(at[:length] in self._exact for length in range(len(at) + 1))


def _spec_rules(spec: Spec, fields: Mapping[str, Any], *, strict: bool) -> Iterator[Finding]:
    yield from _version_rules(spec, strict=strict)
    complaint = names.kind_complaint(spec.kind)
    if complaint:
        yield Finding(("kind",), complaint if spec.kind else "the kind is missing", "a kind is 'VENDOR/CLASS'")
    yield from _annotation_rules(spec.annotations, ("annotations",))
    yield from _edits_rules(spec.container_edits, ("containerEdits",))
    for index, device in enumerate(spec.devices):
        yield from _device_rules(device, ("devices", index))
    yield from _unique_devices(spec)
    if not spec.devices:
        yield _no_devices(spec, fields, strict=strict)


def _version_rules(spec: Spec, *, strict: bool) -> Iterator[Finding]:
    at: FieldPath = ("cdiVersion",)
    if version.is_released(spec.cdi_version):
        needed = version.minimum(spec)
        if version.is_older(spec.cdi_version, needed.version):
            reason = f"{needed.field} needs" if needed.field else "any spec needs"
            yield Finding(
                at,
                f"the version is {spec.cdi_version!r}, but {reason} at least {needed.version}",
                f"write cdiVersion: {needed.version!r}",
            )
        elif not version.is_older(spec.cdi_version, "1.1.0"):
            yield from _removed_fields(spec, strict=strict)
    elif version.is_newer(spec.cdi_version):
        what = f"the version {spec.cdi_version!r} is newer than {version.CURRENT}, the newest known here"
        yield Finding(at, what, "fields that it added are not applied", warning=not strict)
    else:
        what = f"unknown version {shorten(spec.cdi_version)}" if spec.cdi_version else "the version is missing"
        yield Finding(at, what, f"the versions are {', '.join(reversed(version.RELEASED))}")


def _removed_fields(spec: Spec, *, strict: bool) -> Iterator[Finding]:
    for at, edits in _all_edits(spec):
        if edits.intel_rdt is None:
            continue
        for name, value in (("enableCMT", edits.intel_rdt.enable_cmt), ("enableMBM", edits.intel_rdt.enable_mbm)):
            if value:
                what = f"CDI 1.1.0 has no field {name!r} any more"
                yield Finding((*at, "intelRdt", name), what, "use 'enableMonitoring'", warning=not strict)


def _all_edits(spec: Spec) -> Iterator[tuple[FieldPath, ContainerEdits]]:
    yield ("containerEdits",), spec.container_edits
    for index, device in enumerate(spec.devices):
        yield ("devices", index, "containerEdits"), device.container_edits


def _no_devices(spec: Spec, fields: Mapping[str, Any], *, strict: bool) -> Finding:
    whole_kind = fields.get("devices") is None and spec.container_edits != ContainerEdits()
    if whole_kind and not strict:
        return Finding(
            ("devices",),
            "the spec has no 'devices'; other CDI readers than Charliecloud refuse it",
            f"request it as the kind {spec.kind!r}",
            warning=True,
        )
    return Finding(("devices",), "the spec has no devices", "a spec must define at least one")


def _annotation_rules(annotations: Mapping[str, str], at: FieldPath) -> Iterator[Finding]:
    # Warnings, strict or not: the reference library has these rules, but its call never reaches them.
    for key in annotations:
        complaint = names.annotation_key_complaint(key)
        if complaint:
            yield Finding((*at, key), f"invalid annotation key: {complaint}", warning=True)
    size = sum(len(text.encode(errors="surrogatepass")) for pair in annotations.items() for text in pair)
    if size > ANNOTATIONS_MAX_BYTES:
        what = f"the annotations have {size} bytes, more than {ANNOTATIONS_MAX_BYTES}"
        yield Finding(at, what, warning=True)


def _device_rules(device: Device, at: FieldPath) -> Iterator[Finding]:
    complaint = names.device_complaint(device.name)
    if complaint:
        yield Finding((*at, "name"), complaint)
    yield from _annotation_rules(device.annotations, (*at, "annotations"))
    if device.container_edits == ContainerEdits():
        what = f"the device {device.name!r} edits nothing"
        yield Finding((*at, "containerEdits"), what, "a device needs at least one edit")
    yield from _edits_rules(device.container_edits, (*at, "containerEdits"))


def _unique_devices(spec: Spec) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, device in enumerate(spec.devices):
        if device.name in first:
            what = f"the device name {device.name!r} is there twice, also as devices[{first[device.name]}]"
            yield Finding(("devices", index, "name"), what, "remove or rename one of the two")
        first.setdefault(device.name, index)


def _edits_rules(edits: ContainerEdits, at: FieldPath) -> Iterator[Finding]:
    yield from _environment_rules(edits.env, (*at, "env"))
    for index, node in enumerate(edits.device_nodes):
        yield from _device_node_rules(node, (*at, "deviceNodes", index))
    for index, hook in enumerate(edits.hooks):
        yield from _hook_rules(hook, (*at, "hooks", index))
    for index, mount in enumerate(edits.mounts):
        yield from _mount_rules(mount, (*at, "mounts", index))
    if edits.intel_rdt is not None:
        yield from _intel_rdt_rules(edits.intel_rdt, (*at, "intelRdt"))
    yield from _net_device_rules(edits.net_devices, (*at, "netDevices"))


def _environment_rules(environment: tuple[str, ...], at: FieldPath) -> Iterator[Finding]:
    for index, variable in enumerate(environment):
        if variable.find("=") <= 0:
            what = f"{shorten(variable)} is not an environment variable of the form 'NAME=VALUE'"
            yield Finding((*at, index), what)


def _device_node_rules(node: DeviceNode, at: FieldPath) -> Iterator[Finding]:
    if not node.path:
        yield Finding((*at, "path"), "the path of the device node is missing or empty")
    if node.type not in DEVICE_TYPES:
        fix = "'b' is a block device, 'c' or 'u' a character device, 'p' a FIFO"
        yield Finding((*at, "type"), f"unknown device type {shorten(node.type)}", fix)
    if not _PERMISSIONS.fullmatch(node.permissions):
        what = f"invalid permissions {shorten(node.permissions)}"
        yield Finding((*at, "permissions"), what, "use any of 'r', 'w' and 'm', or 'none'")


def _hook_rules(hook: Hook, at: FieldPath) -> Iterator[Finding]:
    if hook.hook_name not in HOOK_NAMES:
        near = names.near_misses(hook.hook_name, HOOK_NAMES)
        fix = f"did you mean {near[0]!r}?" if near else f"the names are {', '.join(HOOK_NAMES)}"
        yield Finding((*at, "hookName"), f"unknown hook name {shorten(hook.hook_name)}", fix)
    if not hook.path:
        yield Finding((*at, "path"), "the path of the hook is missing or empty")
    yield from _environment_rules(hook.env, (*at, "env"))


def _mount_rules(mount: Mount, at: FieldPath) -> Iterator[Finding]:
    if not mount.host_path:
        yield Finding((*at, "hostPath"), "the host path of the mount is missing or empty")
    if not mount.container_path:
        yield Finding((*at, "containerPath"), "the container path of the mount is missing or empty")


def _intel_rdt_rules(rdt: IntelRdt, at: FieldPath) -> Iterator[Finding]:
    clos_id = rdt.clos_id
    if clos_id == "/":
        return
    too_long = len(clos_id.encode(errors="surrogatepass")) > _CLOS_ID_MAX_BYTES
    if too_long or clos_id in (".", "..") or "/" in clos_id or "\n" in clos_id:
        yield Finding((*at, "closID"), f"{shorten(clos_id)} is not a file name", "or '/' for the root class")


def _net_device_rules(devices: tuple[NetDevice, ...], at: FieldPath) -> Iterator[Finding]:
    for field, values in (
        ("hostInterfaceName", [device.host_interface_name for device in devices]),
        ("name", [device.name for device in devices]),
    ):
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            if not value:
                yield Finding((*at, index, field), "the name of the interface is missing or empty")
            elif value in first:
                what = f"{shorten(value)} is there twice, also as netDevices[{first[value]}].{field}"
                yield Finding((*at, index, field), what)
            first.setdefault(value, index)


def _add_schema(value: Mapping[str, Any], findings: Findings) -> None:
    known = _Places(finding.at for finding in findings.found if finding.at)
    told = {finding.at: finding for finding in _schema_findings(value) if finding.at not in known}
    findings.found += told.values()


def _schema_findings(value: Mapping[str, Any]) -> Iterator[Finding]:
    for error in _schema_validator().iter_errors(value):
        yield from _schema_finding(error)


def _schema_finding(error: Any) -> Iterator[Finding]:
    """One error of jsonschema as findings: one for each missing or unknown field."""
    at = tuple(error.absolute_path)
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        yield from (Finding((*at, name), "the CDI schema demands this field", warning=True) for name in missing)
    elif error.validator == "additionalProperties":
        extra = [name for name in error.instance if name not in error.schema.get("properties", ())]
        yield from (Finding((*at, name), "the CDI schema has no such field", warning=True) for name in extra)
    else:
        wanted = _SCHEMA_WORDS.get(error.validator, "another value")
        what = f"the CDI schema wants {wanted.format(error.validator_value)}, found {describe(error.instance)}"
        yield Finding(at, what, "other CDI readers may refuse the file", warning=True)


_SCHEMA_WORDS = {
    "type": "the type {0!r}",
    "enum": "one of {0}",
    "pattern": "text of the form {0!r}",
    "minLength": "text that is not empty",
    "maxLength": "at most {0} characters",
    "minItems": "at least {0} element",
    "minProperties": "at least {0} field",
    "minimum": "a number of at least {0}",
    "maximum": "a number of at most {0}",
}


@lru_cache(maxsize=1)
def _schema_validator() -> Any:
    # Imported here because they cost 100 ms, and no launch asks for them.
    import json
    from importlib import resources

    import jsonschema

    schema = json.loads(resources.files(__package__).joinpath("schema.json").read_text("utf-8"))
    return jsonschema.Draft7Validator(schema)
