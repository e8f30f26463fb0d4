"""Configurations by chance: some right, some nearly, some wild."""

from __future__ import annotations

from hypothesis import strategies as st

from cdi_hpc.config.schema import _followed, _schema

ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)

#: Words that mean something somewhere in a configuration.
WORDS = st.sampled_from(
    [
        "gpu",
        "mpi",
        "nvidia.com/gpu=all",
        "nvidia.com/gpu",
        "*/*",
        "*/*=*",
        "/etc/**",
        "/a",
        "LD_*",
        "none",
        "all",
        "[",
        "**",
        "0",
        "root",
    ]
)


def of_schema(part: dict, *, wild: bool) -> st.SearchStrategy:
    """Values that a part of the schema allows; with ``wild``, now and then one that it does not."""
    part = _followed(part)
    types = part["type"] if isinstance(part["type"], list) else [part["type"]]
    values = st.one_of(*(_TYPES[name](part, wild=wild) for name in types))
    return st.one_of(values, values, values, ANY) if wild else values


def _mapping(part: dict, *, wild: bool) -> st.SearchStrategy:
    if "properties" not in part:
        keys = st.one_of(WORDS, st.text(max_size=5)) if wild else WORDS
        return st.dictionaries(keys, of_schema(part["additionalProperties"], wild=wild), max_size=3)
    fields = {name: of_schema(below, wild=wild) for name, below in part["properties"].items()}
    required = {name: fields.pop(name) for name in part.get("required", ())}
    known = st.fixed_dictionaries(required, optional=fields)
    return st.one_of(known, known, st.dictionaries(st.text(max_size=5), ANY, max_size=2)) if wild else known


def _list(part: dict, *, wild: bool) -> st.SearchStrategy:
    return st.lists(of_schema(part["items"], wild=wild), min_size=part.get("minItems", 0), max_size=3)


def _text(part: dict, *, wild: bool) -> st.SearchStrategy:
    if "enum" in part:
        return st.sampled_from(part["enum"])
    if "pattern" in part:
        return st.from_regex(part["pattern"]).filter(lambda text: not text.endswith("\n"))
    return st.one_of(WORDS, st.text(min_size=0 if wild else 1, max_size=8)) if wild else WORDS


def _number(part: dict, *, wild: bool) -> st.SearchStrategy:
    return st.integers(part.get("minimum", 0), part.get("maximum", 100))


_TYPES = {
    "object": _mapping,
    "array": _list,
    "string": _text,
    "integer": _number,
    "boolean": lambda part, *, wild: st.booleans(),
}

CONFIGURATIONS = of_schema(_schema(), wild=False)
NEARLY = of_schema(_schema(), wild=True)
