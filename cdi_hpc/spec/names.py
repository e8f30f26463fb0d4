"""The grammar of CDI names: ``vendor/class=name``. No I/O.

The rules are those of the specification ("Kind" and "device name") as the reference library applies them. What
every function here shares: a *complaint* is a phrase that says what is wrong with a name, or "" if it is right.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

_VENDOR_OR_CLASS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")

#: Annotation keys are Kubernetes' "qualified names": an optional DNS subdomain and '/', then a name.
_ANNOTATION_NAME = re.compile(r"(?:[a-z0-9][a-z0-9_.-]*)?[a-z0-9]")
_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_DNS_SUBDOMAIN = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
_ANNOTATION_NAME_MAX = 63
_DNS_SUBDOMAIN_MAX = 253

_COMPARED_MAX = 256  # characters; comparing takes time by the square

#: How the name of a lock file ends (:mod:`cdi_hpc.resolve.lock`), which stands for the devices in it.
LOCK_SUFFIX = ".lock"

#: A path that begins so is no device's name, whatever follows.
PATHS = ("/", "./", "../")


def is_lock_file(wanted: str) -> bool:
    """Whether a part of a request names a lock file. ``native/launcher_options.c`` has the same."""
    return wanted.endswith(LOCK_SUFFIX) and ("=" not in wanted or wanted.startswith(PATHS))


def lock_complaint(wanted: str) -> str:
    """What is wrong with the name of a lock file."""
    return "" if is_lock_file(wanted) else f"{wanted!r} is not the name of a lock file, which ends in {LOCK_SUFFIX!r}"


@dataclass(frozen=True)
class QualifiedName:
    """A device's full name; ``str()`` gives ``vendor/class=name``."""

    vendor: str
    class_: str
    device: str

    @property
    def kind(self) -> str:
        """``vendor/class``."""
        return f"{self.vendor}/{self.class_}"

    def __str__(self) -> str:
        """``vendor/class=name``."""
        return f"{self.kind}={self.device}"


def split_kind(kind: str) -> tuple[str, str]:
    """The vendor and the class of a kind; the vendor is "" if the text isn't ``VENDOR/CLASS`` at all."""
    vendor, slash, class_ = kind.partition("/")
    if not (vendor and slash and class_):
        return "", kind
    return vendor, class_


def kind_complaint(kind: str) -> str:
    """What is wrong with a kind, or ""."""
    vendor, class_ = split_kind(kind)
    if not vendor:
        return f"{kind!r} is not a kind of the form 'VENDOR/CLASS'"
    for role, name in (("vendor", vendor), ("class", class_)):
        if not _VENDOR_OR_CLASS.fullmatch(name):
            return f"invalid {role} {name!r}: {_rule(name, first='a letter', inner='_-.')}"
    return ""


def device_complaint(name: str) -> str:
    """What is wrong with the name of a device within its kind, or ""."""
    if not name:
        return "the device name is empty"
    if not _DEVICE.fullmatch(name):
        return f"invalid device name {name!r}: {_rule(name, first='a letter or digit', inner='_-.:')}"
    return ""


def parse_qualified(text: str) -> QualifiedName | str:
    """The parts of ``vendor/class=name``, or a complaint."""
    kind, equals, device = text.partition("=")
    if not equals:
        return f"{text!r} is not a qualified device name of the form 'VENDOR/CLASS=NAME'"
    complaint = kind_complaint(kind) or device_complaint(device)
    if complaint:
        return complaint
    vendor, class_ = split_kind(kind)
    return QualifiedName(vendor, class_, device)


def annotation_key_complaint(key: str) -> str:
    """What is wrong with an annotation's key, or ""; case doesn't matter (SPEC.md refers to Kubernetes)."""
    prefix, slash, name = key.lower().rpartition("/")
    if slash and (len(prefix) > _DNS_SUBDOMAIN_MAX or not _DNS_SUBDOMAIN.fullmatch(prefix)):
        return f"the part before '/' of {key!r} is not a DNS subdomain of at most {_DNS_SUBDOMAIN_MAX} characters"
    if len(name) > _ANNOTATION_NAME_MAX:
        return f"the name {key!r} is longer than {_ANNOTATION_NAME_MAX} characters"
    if not _ANNOTATION_NAME.fullmatch(name):
        return f"{key!r}: {_rule(name, first='a letter or digit', inner='_-.')}"
    return ""


def near_misses(text: str, known: Iterable[str], *, at_most: int = 1) -> list[str]:
    """The known names that look most like a wrong one, best first."""
    return difflib.get_close_matches(text, known, n=at_most) if len(text) <= _COMPARED_MAX else []


def _rule(name: str, *, first: str, inner: str) -> str:
    if not name:
        return "it is empty"
    return f"it must start with {first}, end with a letter or digit, and hold only those and {' '.join(inner)}"
