"""The schema of configuration files: which keys there are, who may set them, and whether a value is one.

``schema.json`` says everything once: editors and other programs read it as JSON Schema, and this module reads the part
of JSON Schema that it uses. jsonschema itself is not taken: its import costs more than a whole launch, and a message is
to name what was perhaps meant. ``x-set-by``, ``x-join``, ``x-variable``, ``x-option`` and ``x-name`` are ours.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Literal

from cdi_hpc.spec import names
from cdi_hpc.spec.decode import Finding, describe, shorten
from cdi_hpc.spec.document import FieldPath

#: How the values of several files become one. ``replace``: the last one counts. ``append``: one list after the other.
#: ``strictest``: a user's value counts only where it is stricter than the administrator's.
Join = Literal["replace", "append", "strictest"]
SetBy = Literal["anyone", "administrator"]

#: Stands in a key's path for a name that the file chooses.
ANY_NAME = "*"

_PATH = os.path.join(os.path.dirname(__file__), "schema.json")


@dataclass(frozen=True)
class Key:
    """A key that can be set.

    Attributes:
        path: names from the top; ANY_NAME for one that the file chooses.
        shown: the same for people: ``aliases.NAME``.
        description: what it is for.
        schema: its part of the schema, references followed.
        default: the value where nobody sets it, None if there is none.
        variable: the environment variable that sets it, or "".
        option: the option of the command line that sets it, or "".

    """

    path: tuple[str, ...]
    shown: str
    description: str
    schema: Mapping[str, Any]
    default: Any
    set_by: SetBy
    join: Join
    variable: str
    option: str


def text() -> str:
    """The schema as it is published."""
    with open(_PATH, encoding="utf-8") as stream:
        return stream.read()


@lru_cache(maxsize=1)
def all_keys() -> tuple[Key, ...]:
    """Every key, in the order of the schema."""
    return tuple(_keys(_schema(), (), ()))


def check(value: Any, schema: Mapping[str, Any] | None = None) -> Iterator[Finding]:
    """Everything about a decoded document that the schema does not allow.

    Args:
        value: of the document.
        schema: another one than that of configuration files, without references. It may say by ``x-shape`` what a
            regular expression stands for.

    """
    return _check(value, _schema() if schema is None else schema, ())


def without_nulls(value: Any) -> Any:
    """The value less every field that is null: a key whose lines are all commented out is not there."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(text())
    return schema


def _followed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what it refers to; a description beside the reference is more to the point than the one there."""
    if "$ref" not in schema:
        return schema
    name = schema["$ref"].rpartition("/")[2]
    return {**_schema()["definitions"][name], **schema}


def _keys(schema: Mapping[str, Any], path: tuple[str, ...], shown: tuple[str, ...]) -> Iterator[Key]:
    schema = _followed(schema)
    if "x-set-by" not in schema:
        for name, below in schema.get("properties", {}).items():
            yield from _keys(below, (*path, name), (*shown, name))
        return
    named = "x-name" in schema
    yield Key(
        path=(*path, ANY_NAME) if named else path,
        shown=".".join((*shown, schema["x-name"]) if named else shown),
        description=schema.get("description", ""),
        schema=schema,
        default=schema.get("default"),
        set_by=schema["x-set-by"],
        join=schema.get("x-join", "replace"),
        variable=schema.get("x-variable", ""),
        option=schema.get("x-option", ""),
    )


# Checking -------------------------------------------------------------------------------------------------------


def _check(value: Any, schema: Mapping[str, Any], at: FieldPath) -> Iterator[Finding]:
    schema = _followed(schema)
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    found = next((name for name in types if _TYPES[name].holds(value)), None)
    if found is None:
        wanted = " or ".join(_TYPES[name].called for name in types)
        fix = "put it in quotes" if "string" in types and isinstance(value, (bool, int, float)) else ""
        yield Finding(at, f"expected {wanted}, found {describe(value)}", fix)
    else:
        yield from _TYPES[found].check(value, schema, at)


def _check_mapping(value: dict[str, Any], schema: Mapping[str, Any], at: FieldPath) -> Iterator[Finding]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield Finding(at, f"{name!r} is missing")
    if len(value) > schema.get("maxProperties", len(value)):
        yield Finding(at, f"{len(value)} entries, more than the {schema['maxProperties']} that are read")
    if len(value) < schema.get("minProperties", 0):
        yield Finding(at, "it is empty")
    for name, item in value.items():
        below = properties.get(name, others)
        if below is False:
            yield _unknown(name, properties, (*at, name))
        else:
            yield from _check(item, below, (*at, name))


def _unknown(name: str, properties: Mapping[str, Any], at: FieldPath) -> Finding:
    near = names.near_misses(name, properties)
    fix = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, properties))}"
    return Finding(at, f"unknown key {shorten(name)}", fix)


def _check_list(value: list[Any], schema: Mapping[str, Any], at: FieldPath) -> Iterator[Finding]:
    if len(value) < schema.get("minItems", 0):
        yield Finding(at, "the list is empty", "leave the key out")
    for index, item in enumerate(value):
        yield from _check(item, schema["items"], (*at, index))


def _check_text(value: str, schema: Mapping[str, Any], at: FieldPath) -> Iterator[Finding]:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        yield Finding(at, f"{shorten(value)} holds a character that no path, name or variable can")
    elif len(value) < schema.get("minLength", 0):
        yield Finding(at, "the text is empty")
    elif "enum" in schema and value not in schema["enum"]:
        near = names.near_misses(value, schema["enum"])
        fix = f"did you mean {near[0]!r}?" if near else ""
        yield Finding(at, f"expected {' or '.join(map(repr, schema['enum']))}, found {shorten(value)}", fix)
    elif "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value):  # as ECMA 262 has it
        yield Finding(at, f"{shorten(value)} is not {schema.get('x-shape') or SHAPES[schema['pattern']]}")


#: What the regular expressions of the schema stand for.
SHAPES = {
    "^/": "an absolute path",
    "^(/|[{]home[}])": "an absolute path",
    "^[0-9]{1,9}[KMG]?$": "a size: a number, with K, M or G behind it or nothing",
}


def _check_number(value: float, schema: Mapping[str, Any], at: FieldPath) -> Iterator[Finding]:
    if value < schema.get("minimum", value):
        yield Finding(at, f"expected at least {schema['minimum']}, found {describe(value)}")
    if value > schema.get("maximum", value):
        yield Finding(at, f"expected at most {schema['maximum']}, found {describe(value)}")


def _check_boolean(value: bool, schema: Mapping[str, Any], at: FieldPath) -> Iterator[Finding]:  # noqa: FBT001  # a value
    del value, schema, at
    return iter(())


def _is_whole_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


@dataclass(frozen=True)
class _Type:
    """A type of JSON Schema: what it is called, which values are of it, and what else the schema says of them."""

    called: str
    holds: Callable[[Any], bool]
    check: Callable[[Any, Mapping[str, Any], FieldPath], Iterator[Finding]]


_TYPES = {
    "object": _Type("a mapping", lambda value: isinstance(value, dict), _check_mapping),
    "array": _Type("a list", lambda value: isinstance(value, list), _check_list),
    "string": _Type("text", lambda value: isinstance(value, str), _check_text),
    "integer": _Type("a whole number", _is_whole_number, _check_number),
    "boolean": _Type("true or false", lambda value: isinstance(value, bool), _check_boolean),
}
