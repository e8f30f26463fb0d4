"""The text of a spec file as a plain Python value, and where in the text each part of it stands. No I/O.

JSON and YAML are told apart by content, not by the file's name. Scalars mean what they mean to the reference
library, which reads everything as YAML 1.1 with a few rules of its own (``yes`` is a boolean, ``0660`` is octal,
``2001-01-01`` is text). PyYAML is used for its events only: its own constructor knows other rules, recurses in C
without a limit, and expands aliases without one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, NoReturn, Union

from cdi_hpc.errors import CdiError, Problem

FieldPath = tuple[Union[str, int], ...]

#: Limits on a hostile file. The largest known real spec (2,048 IMEX channels) has some 20,000 values.
MAX_BYTES = 16 << 20
MAX_VALUES = 500_000  # counted with every alias expanded
MAX_DEPTH = 100


#: Among the notes of a text with several documents: what is in the others is lost.
ONLY_THE_FIRST = "only the first document of the file is read"


class Position(NamedTuple):
    """A place in a text, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """A decoded text.

    Attributes:
        path: the file's name, for messages.
        value: mappings with text keys, lists, text, int, float, bool and None.
        notes: what is worth a warning about the text itself.
        second: where another document begins, which is not read; None if there is none.

    """

    path: str
    text: bytes = field(repr=False)
    value: Any
    notes: tuple[str, ...] = ()
    second: Position | None = None

    def where(self, at: FieldPath) -> str:
        """``FILE:LINE:COLUMN: FIELD``, as far as it is known; the position of the nearest part that exists."""
        place = self.position(at)
        prefix = f"{self.path}:{place.line}:{place.column}" if place else self.path
        return f"{prefix}: {field_text(at)}" if at else prefix

    def position(self, at: FieldPath) -> Position | None:
        """Where a field stands; where it is missing, the place of what should hold it."""
        for length in range(len(at), -1, -1):
            if at[:length] in self._positions:
                return self._positions[at[:length]]
        return None

    @cached_property
    def _positions(self) -> Mapping[FieldPath, Position]:
        # Only an error asks for positions, so they cost a second pass instead of slowing every launch.
        builder = _Builder(track=True)
        with contextlib.suppress(_UnreadableError):  # JSON that is not YAML: what was seen up to there is still right
            builder.build(_events(self.text))
        return builder.positions


def field_text(at: FieldPath) -> str:
    """A field path as one writes it: ``devices[2].containerEdits.mounts[0].hostPath``."""
    text = ""
    for part in at:
        if isinstance(part, str) and re.fullmatch(r"\w+", part, re.ASCII):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def parse(data: bytes, path: str, *, strict: bool = False) -> Document:
    """Decode a text.

    Args:
        data: the bytes of the file.
        path: its name, for messages.
        strict: read JSON through the YAML parser too, as the reference library does.

    Raises:
        CdiError: it is neither JSON nor YAML, or over a limit; says where.

    """
    _require_utf8(data, path)
    json_error: json.JSONDecodeError | None = None
    looks_like_json = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
    if looks_like_json:
        try:
            value = _parse_json(data)
            if not strict:
                return Document(path, data, value, (_SURROGATES,) if _SURROGATE.search(data) else ())
        except json.JSONDecodeError as error:
            json_error = error
        except (ValueError, RecursionError):
            pass  # a duplicate key, a number too long, NaN: the YAML parser says so with its position
    builder = _Builder(yaml_1_1=strict)
    try:
        value = builder.build(_events(data))
    except _UnreadableError as error:
        raise _refusal(path, error, json_error) from None
    return Document(path, data, value, tuple(builder.notes), builder.second)


_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
_SURROGATES = "characters written as surrogate pairs (\\ud83d\\ude00); the CDI reference library refuses them"


def _require_utf8(data: bytes, path: str) -> None:
    if len(data) > MAX_BYTES:
        raise CdiError(Problem(path, f"the file has {len(data)} bytes, more than the {MAX_BYTES} that a spec may have"))
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        what = f"not valid UTF-8: byte 0x{data[error.start]:02x}"
        raise CdiError(Problem(f"{path}:{line}:{column}", what, "save the file as UTF-8")) from None


def _refusal(path: str, error: _UnreadableError, json_error: json.JSONDecodeError | None) -> CdiError:
    if json_error is not None:
        where = f"{path}:{json_error.lineno}:{json_error.colno}"
        return CdiError(Problem(where, f"not valid JSON: {json_error.msg[:1].lower()}{json_error.msg[1:]}"))
    where = f"{path}:{error.position.line}:{error.position.column}" if error.position else path
    return CdiError(Problem(where, error.what, error.fix))


def _parse_json(data: bytes) -> Any:
    text = data.decode("utf-8-sig")
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("duplicate key")
    return mapping


def _finite(digits: str) -> float:
    """A number too large for a float is a text to YAML, and so to the reference."""
    value = float(digits)
    if math.isinf(value):
        raise ValueError(digits)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


class _UnreadableError(Exception):
    def __init__(self, what: str, mark: Any = None, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.position = Position(mark.line + 1, mark.column + 1) if mark is not None else None


def _events(data: bytes) -> Iterator[Any]:
    # Imported here because it costs 30 ms, and a JSON spec needs none of it.
    import yaml
    from yaml.reader import ReaderError

    try:
        yield from yaml.parse(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise _UnreadableError(f"not valid YAML: {reason}", error.problem_mark or error.context_mark) from None
    except ReaderError as error:
        raise _UnreadableError(f"not valid YAML: {error.reason}") from None


@dataclass
class _Frame:
    """A collection that is being filled."""

    container: list[Any] | dict[str, Any]
    anchor: str | None
    values_before: int
    key: str | None = None
    merging: bool = False

    @property
    def wants_key(self) -> bool:
        return isinstance(self.container, dict) and self.key is None

    def step(self) -> str | int:
        if isinstance(self.container, list):
            return len(self.container)
        return self.key or ""


class _Builder:
    """Fills a value from YAML events without recursion, counting what aliases expand to."""

    def __init__(self, *, track: bool = False, yaml_1_1: bool = False) -> None:
        self.positions: dict[FieldPath, Position] = {}
        self.notes: list[str] = []
        self.second: Position | None = None
        self._track = track
        self._yaml_1_1 = yaml_1_1
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._open_anchors: set[str] = set()
        self._values = 0
        self._root: Any = None

    def build(self, events: Iterable[Any]) -> Any:
        """The first document's value; None for an empty stream."""
        handlers = {
            "DocumentStartEvent": self._version,
            "ScalarEvent": self._scalar,
            "AliasEvent": self._alias,
            "SequenceStartEvent": self._open,
            "MappingStartEvent": self._open,
            "SequenceEndEvent": self._close,
            "MappingEndEvent": self._close,
        }
        stream = iter(events)
        for event in stream:
            name = type(event).__name__
            if name == "DocumentEndEvent":
                break
            if name in handlers:
                handlers[name](event)
        self._note_rest(stream)
        return self._root

    def _note_rest(self, stream: Iterator[Any]) -> None:
        """Say that there are more documents; refuse what follows and is none.

        The reference stops reading here, and so do we where it is the measure. But a JSON file with a brace too many
        loses half of itself that way, and nobody would know.
        """
        try:
            event = next(stream, None)
            if type(event).__name__ == "DocumentStartEvent":
                mark = event.start_mark  # type: ignore[union-attr]  # the name says that it is one
                self.second = Position(mark.line + 1, mark.column + 1)
                self.notes.append(ONLY_THE_FIRST)
        except _UnreadableError as error:
            if not self._yaml_1_1:
                raise
            line = f" from line {error.position.line}" if error.position else ""
            self.notes.append(f"the rest of the file{line} is ignored: {error.what}")

    def _version(self, event: Any) -> None:
        if event.version in (None, (1, 1)):
            return
        what = "the CDI reference library reads YAML 1.1 only"
        if self._yaml_1_1:
            raise _UnreadableError(what, event.start_mark)
        self.notes.append(f"read as YAML 1.1; {what}, and refuses the file")

    def _scalar(self, event: Any) -> None:
        value = _scalar_value(event)
        if self._frames and self._frames[-1].wants_key:
            self._key(value, event, merge=event.value == "<<" and event.implicit[0])
            return
        self._count(1, event)
        self._mark(event)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._add(value, event)

    def _alias(self, event: Any) -> None:
        if event.anchor in self._open_anchors:
            raise _UnreadableError(f"the anchor {event.anchor!r} contains itself", event.start_mark)
        if event.anchor not in self._anchors:
            raise _UnreadableError(f"unknown anchor {event.anchor!r}", event.start_mark)
        value, size = self._anchors[event.anchor]
        if self._frames and self._frames[-1].wants_key:
            self._key(value, event, merge=False)
            return
        self._count(size, event)
        self._mark(event)
        self._add(value, event)

    def _open(self, event: Any) -> None:
        if self._frames and self._frames[-1].wants_key:
            raise _UnreadableError("the key of a mapping must be text", event.start_mark)
        if len(self._frames) >= MAX_DEPTH:
            raise _UnreadableError(f"nested more than {MAX_DEPTH} deep", event.start_mark)
        self._count(1, event)
        self._mark(event)
        if event.anchor:
            self._open_anchors.add(event.anchor)
        container: list[Any] | dict[str, Any] = {} if type(event).__name__ == "MappingStartEvent" else []
        self._frames.append(_Frame(container, event.anchor, self._values - 1))

    def _close(self, event: Any) -> None:
        frame = self._frames.pop()
        if frame.anchor:
            self._open_anchors.discard(frame.anchor)
            self._anchors[frame.anchor] = (frame.container, self._values - frame.values_before)
        self._add(frame.container, event)

    def _key(self, value: Any, event: Any, *, merge: bool) -> None:
        frame = self._frames[-1]
        if value is None or isinstance(value, (list, dict)):
            raise _UnreadableError("the key of a mapping must be text", event.start_mark)
        frame.key = scalar_text(value)
        frame.merging = merge
        self._mark(event)  # a field stands where its key does: its value may only begin on a later line

    def _add(self, value: Any, event: Any) -> None:
        if not self._frames:
            self._root = value
            return
        frame = self._frames[-1]
        if isinstance(frame.container, list):
            frame.container.append(value)
            return
        key, frame.key = frame.key or "", None
        if frame.merging:
            frame.merging = False
            self._merge(frame.container, value, event)
        else:
            self._set(frame.container, key, value, event)

    def _set(self, mapping: dict[str, Any], key: str, value: Any, event: Any) -> None:
        if key in mapping:
            raise _UnreadableError(f"the key {key!r} is there twice", event.start_mark, "remove one of the two")
        mapping[key] = value

    def _merge(self, mapping: dict[str, Any], value: Any, event: Any) -> None:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise _UnreadableError("'<<' wants a mapping or a list of mappings", event.start_mark)
            for key, merged in part.items():
                self._set(mapping, key, merged, event)

    def _count(self, values: int, event: Any) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _UnreadableError(f"more than {MAX_VALUES} values, aliases expanded", event.start_mark)

    def _mark(self, event: Any) -> None:
        if self._track:
            at = tuple(frame.step() for frame in self._frames)
            self.positions.setdefault(at, Position(event.start_mark.line + 1, event.start_mark.column + 1))


_TAGS = "tag:yaml.org,2002:"

_BOOLEANS = {
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], True),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], False),
}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_SPECIAL_FLOATS = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][+-]?[0-9]+)?")
_BASES = {"x": 16, "o": 8, "b": 2}
_DIGITS_MAX = 66  # a 64-bit number in binary, with its prefix
_INT64_MIN, _UINT64_MAX = -(1 << 63), (1 << 64) - 1


def _scalar_value(event: Any) -> Any:
    """A scalar as YAML 1.1 and the reference's parser understand it."""
    tag = event.tag
    if tag is None:
        return _plain_value(event.value) if event.implicit[0] else event.value
    kind = tag[len(_TAGS) :] if tag.startswith(_TAGS) else ""
    if kind == "timestamp":
        raise _UnreadableError("the YAML tag '!!timestamp' has no meaning in a spec", event.start_mark)
    if kind == "binary":
        return _base64_text(event)
    types = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}.get(kind)
    if types is None:
        return event.value
    value = _plain_value(event.value)
    if type(value) not in types:
        raise _UnreadableError(f"{event.value!r} is not of the YAML type '!!{kind}'", event.start_mark)
    return float(value) if kind == "float" else value


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def _base64_text(event: Any) -> str:
    digits = re.sub(r"[\r\n]", "", event.value)
    try:
        # Not b64decode's own check: before Python 3.11 it lets padding pass that pads nothing.
        text = base64.b64decode(digits).decode() if _BASE64.fullmatch(digits) else None
    except ValueError:
        text = None
    if text is None:
        raise _UnreadableError(f"{event.value!r} is not text in base64", event.start_mark)
    return text


def _plain_value(text: str) -> Any:
    if text[:1].isalpha() and text not in _BOOLEANS and text not in _NULLS:
        return text  # the common case
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[text]
    return _number(text)


def _number(text: str) -> str | int | float:
    # Only a text that starts with a digit or a sign may have '_' between digits.
    digits = text.replace("_", "") if text[0] in "+-0123456789" else text
    found = _INTEGER.fullmatch(digits)
    if found:
        value = _integer(found.group(1), found.group(2))
        if value is not None:
            return value
    if _FLOAT.fullmatch(digits) and not math.isinf(float(digits)):
        return float(digits)
    return text


def _integer(sign: str, digits: str) -> int | None:
    if len(digits) > _DIGITS_MAX:
        return None
    base = _BASES.get(digits[1:2].lower(), 8 if digits[0] == "0" else 10)
    value = int(digits, base)
    value = -value if sign == "-" else value
    # A sign keeps Go from reading beyond the signed range.
    limit = (1 << 63) - 1 if sign else _UINT64_MAX
    return value if _INT64_MIN <= value <= limit else None


def scalar_text(value: str | float) -> str:
    """A scalar where text is wanted, as the reference's parser writes it: ``True`` as "true", 1.10 as "1.1"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and not _INT64_MIN <= value <= _UINT64_MAX:
        return _float_text(float(value))
    return _float_text(value) if isinstance(value, float) else str(value)


def _float_text(value: float) -> str:
    """The shortest text that reads back as the same 32-bit float, with an exponent from 1e+06 or below 1e-4."""
    import struct

    if math.isnan(value):
        return "NaN"
    try:
        (single,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        single = math.copysign(math.inf, value)
    if math.isinf(single):
        return "+Inf" if single > 0 else "-Inf"
    if single == 0:
        return "-0" if math.copysign(1, single) < 0 else "0"
    shortest = next(
        text
        for text in (f"{single:.{precision}e}" for precision in range(9))
        if struct.unpack("f", struct.pack("f", float(text)))[0] == single
    )
    mantissa, exponent_text = shortest.split("e")
    exponent = int(exponent_text)
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.lstrip("-").replace(".", "")
    return sign + _place_point(digits, exponent)


def _place_point(digits: str, exponent: int) -> str:
    if exponent < -4 or exponent >= 6:  # noqa: PLR2004 (Go's strconv.FormatFloat for 'g' and the shortest precision)
        mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
        return f"{mantissa}e{exponent:+03d}"
    if exponent < 0:
        return f"0.{'0' * (-exponent - 1)}{digits}"
    if exponent + 1 >= len(digits):
        return digits + "0" * (exponent + 1 - len(digits))
    return f"{digits[: exponent + 1]}.{digits[exponent + 1 :]}"
