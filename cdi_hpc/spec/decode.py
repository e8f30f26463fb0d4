"""From a decoded document to the model: field names, types and nothing else. No I/O.

Every object of the specification is a row of the tables below. What is wrong is collected as findings, all of it; a
field that can't be read keeps its default, so that the rules of :mod:`cdi_hpc.spec.validate` can still look at the
rest. Where text is wanted, numbers and booleans are taken as the reference library takes them (see ``scalar_text``),
and null stands for an absent field, as it does there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from cdi_hpc.spec import names
from cdi_hpc.spec.document import Document, FieldPath, scalar_text
from cdi_hpc.spec.model import ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec


@dataclass(frozen=True)
class Finding:
    """Something about one field that is wrong, or only worth a warning."""

    at: FieldPath
    what: str
    fix: str = ""
    warning: bool = False


@dataclass
class Findings:
    """What was found so far; ``strict`` turns what only newer or laxer files have into errors."""

    strict: bool = False
    found: list[Finding] = field(default_factory=list)

    def error(self, at: FieldPath, what: str, fix: str = "") -> None:
        """The field can't be used."""
        self.found.append(Finding(at, what, fix))

    def warn(self, at: FieldPath, what: str, fix: str = "") -> None:
        """The field is read, and still worth a word."""
        self.found.append(Finding(at, what, fix, warning=True))

    def tolerate(self, at: FieldPath, what: str, fix: str = "") -> None:
        """A warning, or an error if strict."""
        self.found.append(Finding(at, what, fix, warning=not self.strict))


def decode(document: Document, findings: Findings) -> Spec | None:
    """The spec that a document holds, as far as it can be read; None if it holds no mapping at all."""
    if document.value is None:
        findings.error((), "there is no spec in the file: it is empty")
        return None
    if not isinstance(document.value, dict):
        findings.error((), f"a spec is a mapping, found {describe(document.value)}")
        return None
    spec: Spec = _object(_SPEC, document.value, (), findings, path=document.path)
    return spec


def describe(value: Any) -> str:
    """A decoded value for a message, in the words of JSON and YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {scalar_text(value)}"
    if isinstance(value, (int, float)):
        return f"the number {scalar_text(value)}"
    if isinstance(value, str):
        return f"the text {shorten(value)}"
    return "a mapping" if isinstance(value, dict) else "a list"


def shorten(text: str) -> str:
    """A quoted text of bearable length."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


_SHOWN = 80

_Reader = Callable[[Any, FieldPath, Findings], Any]


@dataclass(frozen=True)
class _Shape:
    """An object of the specification: what it is called, what it becomes, and CDI name -> (attribute, reader)."""

    called: str
    make: Callable[..., Any]
    fields: Mapping[str, tuple[str, _Reader]]
    blank: Mapping[str, str] = field(default_factory=dict)  # attributes without a default


def _object(shape: _Shape, value: Any, at: FieldPath, findings: Findings, **more: str) -> Any:
    attributes: dict[str, Any] = {**shape.blank, **more}
    if not isinstance(value, dict):
        findings.error(at, f"expected a mapping ({shape.called}), found {describe(value)}")
        return shape.make(**attributes)
    seen: dict[str, str] = {}
    for key, item in value.items():
        name = key if key in shape.fields else _known_field(shape, key, (*at, key), findings)
        if name is None:
            continue
        if name in seen:
            findings.error(
                (*at, key), f"the field {name!r} is there twice, also as {seen[name]!r}", "remove one of the two"
            )
            continue
        seen[name] = key
        attribute, reader = shape.fields[name]
        if item is not None:
            attributes[attribute] = reader(item, (*at, key), findings)
    return shape.make(**attributes)


def _known_field(shape: _Shape, key: str, at: FieldPath, findings: Findings) -> str | None:
    """The field that a key of unusual capitals means (Go's encoding/json ignores case), or None if none."""
    folded = _fold(key)
    for name in shape.fields:
        if _fold(name) == folded:
            findings.warn(at, f"the field {key!r} is read as {name!r}", f"write {name!r}")
            return name
    near = names.near_misses(key, shape.fields)
    fix = f"did you mean {near[0]!r}?" if near else ""
    findings.tolerate(at, f"unknown field {shorten(key)} in {shape.called}", fix)
    return None


def _fold(name: str) -> str:
    # Not str.casefold(): Go folds one letter to one letter, so that a sharp s is not two.
    return name.replace("\u017f", "s").lower()


def _text(value: Any, at: FieldPath, findings: Findings) -> str:
    if isinstance(value, (dict, list)):
        findings.error(at, f"expected text, found {describe(value)}")
        return ""
    text = value if isinstance(value, str) else "" if value is None else scalar_text(value)
    if "\0" in text:
        findings.error(at, "the text holds a NUL character, which no path, argument or variable can")
    elif not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        findings.error(at, "the text holds half of a surrogate pair, which is no character")
    return text


def _texts(value: Any, at: FieldPath, findings: Findings) -> tuple[str, ...]:
    if not isinstance(value, list):
        findings.error(at, f"expected a list of texts, found {describe(value)}")
        return ()
    return tuple(_text(item, (*at, index), findings) for index, item in enumerate(value))


def _boolean(value: Any, at: FieldPath, findings: Findings) -> bool:
    if isinstance(value, bool):
        return value
    findings.error(at, f"expected true or false, found {describe(value)}")
    return False


def _integer(low: int, high: int) -> _Reader:
    def read(value: Any, at: FieldPath, findings: Findings) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            findings.error(at, f"expected a number, found {describe(value)}")
            return 0
        if isinstance(value, float) and not value.is_integer():
            findings.error(at, f"expected a whole number, found {describe(value)}")
            return 0
        if not low <= value <= high:
            findings.error(at, f"expected a number from {low} to {high}, found {describe(value)}")
            return 0
        return int(value)

    return read


_uint32 = _integer(0, (1 << 32) - 1)
_int64 = _integer(-(1 << 63), (1 << 63) - 1)


def _uint32s(value: Any, at: FieldPath, findings: Findings) -> tuple[int, ...]:
    if not isinstance(value, list):
        findings.error(at, f"expected a list of numbers, found {describe(value)}")
        return ()
    return tuple(0 if item is None else _uint32(item, (*at, index), findings) for index, item in enumerate(value))


def _annotations(value: Any, at: FieldPath, findings: Findings) -> dict[str, str]:
    if not isinstance(value, dict):
        findings.error(at, f"expected a mapping of texts, found {describe(value)}")
        return {}
    return {key: _text(item, (*at, key), findings) for key, item in value.items()}


def _one(shape: _Shape) -> _Reader:
    return lambda value, at, findings: _object(shape, value, at, findings)


def _many(shape: _Shape) -> _Reader:
    def read(value: Any, at: FieldPath, findings: Findings) -> tuple[Any, ...]:
        if not isinstance(value, list):
            findings.error(at, f"expected a list, found {describe(value)}")
            return ()
        return tuple(_object(shape, item, (*at, index), findings) for index, item in enumerate(value))

    return read


_DEVICE_NODE = _Shape(
    "a device node",
    DeviceNode,
    {
        "path": ("path", _text),
        "hostPath": ("host_path", _text),
        "type": ("type", _text),
        "major": ("major", _int64),
        "minor": ("minor", _int64),
        "fileMode": ("file_mode", _uint32),
        "permissions": ("permissions", _text),
        "uid": ("uid", _uint32),
        "gid": ("gid", _uint32),
    },
    {"path": ""},
)
_MOUNT = _Shape(
    "a mount",
    Mount,
    {
        "hostPath": ("host_path", _text),
        "containerPath": ("container_path", _text),
        "options": ("options", _texts),
        "type": ("type", _text),
    },
    {"host_path": "", "container_path": ""},
)
_HOOK = _Shape(
    "a hook",
    Hook,
    {
        "hookName": ("hook_name", _text),
        "path": ("path", _text),
        "args": ("args", _texts),
        "env": ("env", _texts),
        "timeout": ("timeout", _int64),
    },
    {"hook_name": "", "path": ""},
)
_NET_DEVICE = _Shape(
    "a net device",
    NetDevice,
    {"hostInterfaceName": ("host_interface_name", _text), "name": ("name", _text)},
    {"host_interface_name": "", "name": ""},
)
_INTEL_RDT = _Shape(
    "intelRdt",
    IntelRdt,
    {
        "closID": ("clos_id", _text),
        "l3CacheSchema": ("l3_cache_schema", _text),
        "memBwSchema": ("mem_bw_schema", _text),
        "schemata": ("schemata", _texts),
        "enableMonitoring": ("enable_monitoring", _boolean),
        "enableCMT": ("enable_cmt", _boolean),
        "enableMBM": ("enable_mbm", _boolean),
    },
)
_CONTAINER_EDITS = _Shape(
    "containerEdits",
    ContainerEdits,
    {
        "env": ("env", _texts),
        "deviceNodes": ("device_nodes", _many(_DEVICE_NODE)),
        "netDevices": ("net_devices", _many(_NET_DEVICE)),
        "mounts": ("mounts", _many(_MOUNT)),
        "hooks": ("hooks", _many(_HOOK)),
        "additionalGids": ("additional_gids", _uint32s),
        "intelRdt": ("intel_rdt", _one(_INTEL_RDT)),
    },
)
_DEVICE = _Shape(
    "a device",
    Device,
    {
        "name": ("name", _text),
        "annotations": ("annotations", _annotations),
        "containerEdits": ("container_edits", _one(_CONTAINER_EDITS)),
    },
    {"name": ""},
)
_SPEC = _Shape(
    "a spec",
    Spec,
    {
        "cdiVersion": ("cdi_version", _text),
        "kind": ("kind", _text),
        "annotations": ("annotations", _annotations),
        "devices": ("devices", _many(_DEVICE)),
        "containerEdits": ("container_edits", _one(_CONTAINER_EDITS)),
    },
    {"cdi_version": "", "kind": ""},
)
