from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_hpc.errors import CdiError
from cdi_hpc.spec import document
from cdi_hpc.spec.document import field_text, parse, scalar_text


def value(text, *, strict=False):
    return parse(text if isinstance(text, bytes) else text.encode(), "spec.yaml", strict=strict).value


def refusal(text, *, strict=False):
    with pytest.raises(CdiError) as refused:
        value(text, strict=strict)
    assert len(refused.value.problems) == 1
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", "abc"),
        ("'0'", "0"),
        ("", None),
        ("~", None),
        ("Null", None),
        ("yes", True),
        ("y", True),
        ("Off", False),
        ("nO", "nO"),
        ("0", 0),
        ("+5", 5),
        ("-1", -1),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("_1", "_1"),
        ("08", 8.0),
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", 18446744073709551616.0),
        ("-9223372036854775809", -9223372036854775808.0),
        ("1.50", 1.5),
        (".5", 0.5),
        (".", "."),
        ("1e3", 1000.0),
        ("1e400", "1e400"),
        ("-.INF", -math.inf),
        ("0x", "0x"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("!custom 5", "5"),
        ("!!binary aGk=", "hi"),
    ],
)
def test_a_yaml_scalar_means_what_it_means_to_the_reference(text, expected):
    found = value(f"key: {text}")["key"]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (True, "true"),
        (7, "7"),
        (1.0, "1"),
        (1.10, "1.1"),
        (1000000.0, "1e+06"),
        (123456.0, "123456"),
        (0.00001, "1e-05"),
        (0.0001, "0.0001"),
        (12345.678, "12345.678"),
        (16777217.0, "1.6777216e+07"),
        (-1.5, "-1.5"),
        (-0.0, "-0"),
        (1e39, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
        (1 << 64, "1.8446744e+19"),
    ],
)
def test_a_number_where_text_is_wanted_is_written_as_the_reference_writes_it(number, text):
    assert scalar_text(number) == text


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(_json)
def test_json_means_what_it_means_to_everybody(made):
    assert value(json.dumps({"key": made})) == {"key": made}


@given(
    st.dictionaries(
        st.text("ab\u00e9 :#{}[]'\",&*-?|\t", max_size=5), st.text("ab\u00e9 :#{}[]'\",&*-?|\t\n", max_size=9)
    )
)
def test_json_read_as_yaml_means_the_same(made):
    text = json.dumps(made, ensure_ascii=False)
    assert value(text, strict=True) == value(text)


def test_yaml_in_a_json_file_and_comments_and_trailing_commas_are_read():
    assert value('{"a": [1, 2,], # two\n}') == {"a": [1, 2]}


def test_a_byte_order_mark_is_no_part_of_the_text():
    assert value('\ufeff{"a": 1}') == {"a": 1}
    assert value("\ufeffa: 1") == {"a": 1}


def test_aliases_and_merged_mappings_are_resolved():
    assert value("a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  l: 2\n") == {"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "l": 2}}


def test_only_the_first_document_is_read_and_that_is_noted():
    read = parse(b"a: 1\n---\nb: 2\n", "spec.yaml")
    assert read.value == {"a": 1}
    assert read.notes == ("only the first document of the file is read",)


def test_what_follows_the_first_document_must_be_yaml_as_well():
    with pytest.raises(CdiError, match=r"spec\.yaml:3:1: not valid YAML: did not find expected <document start>"):
        parse(b"a: 1\n...\n]: [", "spec.yaml")


@pytest.mark.parametrize("strict", [False, True])
def test_a_number_too_large_for_a_float_is_the_text_that_yaml_makes_of_it(strict):
    assert parse(b'{"a": 1e400, "b": -1e400}', "spec.json", strict=strict).value == {"a": "1e400", "b": "-1e400"}


def test_with_strict_it_is_ignored_as_the_reference_does_and_that_is_noted():
    read = parse(b"a: 1\n...\n]: [", "spec.yaml", strict=True)
    assert read.value == {"a": 1}
    assert read.notes == (
        "the rest of the file from line 3 is ignored: not valid YAML: did not find expected <document start>",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: \xff\n", "spec.yaml:1:4: not valid UTF-8: byte 0xff (save the file as UTF-8)"),
        ("a: 1\nb: [1\nc: 2", "spec.yaml:3:2: not valid YAML"),
        ("a: 1\nb: \x01", "not valid YAML"),
        ('{"a": 1\n "b": 2}', "spec.yaml:2:2: not valid JSON: expecting ',' delimiter"),
        ('{"a": 1,\n "a": 2}', "spec.yaml:2:7: the key 'a' is there twice (remove one of the two)"),
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("a: &x {k: 1}\nb: {<<: *x, k: 2}", "spec.yaml:2:16: the key 'k' is there twice"),
        ("a: {<<: 1}", "'<<' wants a mapping"),
        ("a: &x [*x]", "the anchor 'x' contains itself"),
        ("a: *x", "unknown anchor 'x'"),
        ("? [a]\n: 1", "the key of a mapping must be text"),
        ("~: 1", "the key of a mapping must be text"),
        ("a: !!int x", "'x' is not of the YAML type '!!int'"),
        ("a: !!binary =", "is not text in base64"),
        ("[" * 200 + "]" * 200, "nested more than 100 deep"),
        ("[" * 100_000, "nested more than 100 deep"),
        ('{"a":' * 100_000, "nested more than 100 deep"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text, message):
    assert message in refusal(text)


def test_aliases_that_multiply_are_stopped_before_they_fill_the_memory():
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases expanded" in refusal("\n".join(["a0: &a0 [x]", *levels]))


def test_a_file_of_gigabytes_is_not_parsed(monkeypatch):
    monkeypatch.setattr(document, "MAX_BYTES", 10)
    assert "more than the 10 that a spec may have" in refusal("a: 01234567890")


def test_what_only_a_json_parser_reads_is_refused_when_strict():
    smile = '{"a": "\\ud83d\\ude00"}'
    assert value(smile) == {"a": "\U0001f600"}
    assert "surrogate pairs" in parse(smile.encode(), "spec.json").notes[0]
    assert "not valid YAML" in refusal(smile, strict=True)
    assert value("%YAML 1.2\n---\na: 1") == {"a": 1}
    assert "read as YAML 1.1" in parse(b"%YAML 1.2\n---\na: 1", "spec.yaml").notes[0]
    assert "YAML 1.1 only" in refusal("%YAML 1.2\n---\na: 1", strict=True)


@pytest.mark.parametrize(
    ("at", "where"),
    [
        ((), "f:1:1"),
        (("b",), "f:2:1: b"),
        (("b", 1, "c"), "f:4:5: b[1].c"),
        (("b", 1, "missing"), "f:4:5: b[1].missing"),
        (("absent",), "f:1:1: absent"),
    ],
)
def test_a_field_is_found_in_the_text(at, where):
    assert parse(b"a: 1\nb:\n  - x\n  - c: 2\n", "f").where(at) == where


def test_a_field_of_json_is_found_in_the_text_too():
    assert parse(b'{\n\t"a": [\n\t\t{"b": 1}]}', "f").where(("a", 0, "b")) == "f:3:4: a[0].b"


def test_a_field_path_quotes_what_is_no_plain_name():
    assert field_text(("annotations", "org.x/y", 0)) == "annotations['org.x/y'][0]"
