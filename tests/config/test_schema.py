"""The schema is JSON Schema, and our reading of it is the one of the package jsonschema."""

from __future__ import annotations

import json

import jsonschema
from hypothesis import assume, given, settings
from random_configurations import CONFIGURATIONS, NEARLY

from cdi_hpc.config import schema


def validator() -> jsonschema.Draft7Validator:
    published = json.loads(schema.text())
    jsonschema.Draft7Validator.check_schema(published)
    return jsonschema.Draft7Validator(published)


VALIDATOR = validator()


def agree(value: object) -> None:
    pruned = schema.without_nulls(value)
    assume("\\u0000" not in json.dumps(pruned))  # JSON Schema has no word for what no path can hold
    assert (not list(schema.check(pruned))) == VALIDATOR.is_valid(pruned)


@settings(max_examples=300)
@given(CONFIGURATIONS)
def test_what_the_schema_allows_we_allow(value):
    agree(value)


@settings(max_examples=300)
@given(NEARLY)
def test_what_the_schema_refuses_we_refuse(value):
    agree(value)


def test_only_words_of_json_schema_that_we_read_are_in_it():
    read = {
        "type", "enum", "pattern", "minLength", "minimum", "maximum", "items", "minItems", "properties", "required",
        "additionalProperties", "minProperties", "maxProperties", "$ref", "default", "description",
        "x-set-by", "x-join", "x-variable", "x-option", "x-name",
    }  # fmt: skip

    def words(part: dict) -> set[str]:
        found = set(part)
        below = [*part.get("properties", {}).values(), part.get("items"), part.get("additionalProperties")]
        return found.union(*(words(each) for each in below if isinstance(each, dict)))

    whole = json.loads(schema.text())
    used = words(whole).union(*map(words, whole["definitions"].values()))
    assert used - {"$schema", "title", "definitions"} <= read


def test_every_default_is_a_value_of_its_key():
    for key in schema.all_keys():
        if key.default is not None:
            assert not list(schema._check(key.default, key.schema, ())), key.shown
