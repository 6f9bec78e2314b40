"""A unit of JSON lines: what gets through, what fails, and that neighbours do not matter."""

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.json_line import MAX_DEPTH, is_encodable
from pipelines.formats.json_values import dump_json
from pipelines.formats.records import jsonl_records
from pipelines.rows.jsonl import LinesRead, read_jsonl
from tests.helpers.pipelines.json_corpora import LINES

# Text that is almost JSON: what one parser might take for something else than another does.
TOKENS = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "null",
        "1",
        "1.5",
        "1e400",
        "NaN",
        '"a"',
        '"b"',
        " ",
        "\r",
        '"x',
        '{"a":1}',
        "true",
        "\x00",
        '"\\ud800"',
    ]
)
NEARLY = st.lists(st.lists(TOKENS, max_size=8).map(lambda tokens: ("{" + "".join(tokens) + "}").encode()), max_size=6)


def split(text: bytes) -> list[bytes]:
    return [text[start:end] for start, end in jsonl_records(text, True).bounds()]


def read(text: bytes, schema: pa.Schema | None = None, *declared: str) -> LinesRead:
    return read_jsonl(split(text), schema or pa.schema([]), frozenset(declared))


def one(value: str, type: pa.DataType) -> Any:
    """The value that a column declared as `type` gets from the JSON text `value`, or the kind of its failure."""
    rows = read(b'{"a": ' + value.encode() + b"}\n", pa.schema([("a", type)]), "a")
    return rows.failures[0].kind if rows.failures else rows.rows.declared["a"][0].as_py()


def test_bad_lines_fail_by_kind_and_the_rest_goes_on() -> None:
    lines = {
        b'{"a": 1}': None,
        b'{"a": ': "malformed_json",
        b"[1, 2]": "not_an_object",
        b"null": "not_an_object",
        b'{"a": "\xff"}': "invalid_utf8",
        b'{"a": "text"}': "schema_mismatch",
        b'{"a": 2}{"a": 3}': "malformed_json",
        b'{"a": 1' + b"0" * 5000 + b"}": "malformed_json",
        b'{"b": ' + b"[" * 100_000: "malformed_json",
        b'{"b": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}": "malformed_json",
        b'{"b\\ud800": 1}': "invalid_utf8",
        b'  {"a": 4}  ': None,
    }
    read_lines = read(b"\n".join(lines), pa.schema([("a", pa.int64())]), "a")
    assert read_lines.rows.values(None) == [{"a": 1}, {"a": 4}]
    assert read_lines.positions == [0, 11]
    assert {position: error.kind for position, error in read_lines.failures.items()} == {
        position: kind for position, kind in enumerate(lines.values()) if kind
    }


def test_the_deepest_row_gets_through_whole() -> None:
    line = b'{"a": ' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    rows = read(line).rows
    assert rows.values(None) == [json.loads(line)]
    assert json.loads(dump_json(rows.as_json()[0])) == json.loads(line)


def test_a_line_nested_deep_is_told_as_that() -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        for depth in (MAX_DEPTH, 500, 50_000):
            text = b'{"a":' + opening * depth + b"1" + closing * depth + b"}"
            assert f"nested over {MAX_DEPTH} deep" in read(text).failures[0].message


def test_a_value_of_20_mib_is_read() -> None:
    value = "ä" * (10 << 20)
    text = json.dumps({"a": value}, ensure_ascii=False).encode() + b'\n{"a": "b"}\n'
    assert read(text).rows.values(frozenset("a")) == [{"a": value}, {"a": "b"}]


def test_columns_that_are_not_asked_for_are_left_out_and_missing_ones_stay_missing() -> None:
    rows = read(b'{"a": null, "b": 2}\n{"b": 3, "c": 4}\n').rows
    assert rows.values(frozenset({"a", "c"})) == [{"a": None}, {"c": 4}]
    assert rows.carried(("c", "a")).as_json() == [{"a": None}, {"c": 4}]
    assert rows.carried(()).as_json() == [{}, {}]
    assert rows.carried(None).as_json() == [{"a": None, "b": 2}, {"b": 3, "c": 4}]


def test_a_declared_column_has_its_type_in_templates_and_output() -> None:
    rows = read(b'{"a": "2024-02-29", "b": 1}\n{"b": 2}\n', pa.schema([("a", pa.date32())]), "a").rows
    assert rows.values(None) == [{"a": dt.date(2024, 2, 29), "b": 1}, {"b": 2}]
    assert rows.values(frozenset("b")) == [{"b": 1}, {"b": 2}]
    assert rows.as_json() == [{"a": "2024-02-29", "b": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("value", "type", "expected"),
    [
        ("1.0", pa.int64(), 1),
        ("1.5", pa.int64(), "schema_mismatch"),
        ("300", pa.int8(), "schema_mismatch"),
        ("1e400", pa.int64(), "schema_mismatch"),
        ("12345678901234567890", pa.int64(), "schema_mismatch"),
        ("12345678901234567890", pa.uint64(), 12345678901234567890),
        ("9007199254740993", pa.float64(), "schema_mismatch"),
        ("9007199254740992", pa.float64(), 2.0**53),
        ('"1"', pa.int64(), "schema_mismatch"),
        ("true", pa.int64(), "schema_mismatch"),
        ("1", pa.bool_(), "schema_mismatch"),
        ("1", pa.null(), "schema_mismatch"),
        ("1.50", pa.decimal128(5, 2), Decimal("1.50")),
        ('"1.555"', pa.decimal128(5, 2), "schema_mismatch"),
        ('"x"', pa.decimal128(5, 2), "schema_mismatch"),
        ('{"x": 1.5, "y": null}', pa.map_(pa.string(), pa.float64()), [("x", 1.5), ("y", None)]),
        ("[1]", pa.map_(pa.string(), pa.float64()), "schema_mismatch"),
        ('["a", null]', pa.list_(pa.string()), ["a", None]),
        ('["a", 1]', pa.list_(pa.string()), "schema_mismatch"),
        ('{"x": 1}', pa.struct([("x", pa.int64()), ("y", pa.int64())]), {"x": 1, "y": None}),
        ('{"x": 1, "z": 2}', pa.struct([("x", pa.int64())]), "schema_mismatch"),
        ("[]", pa.struct([("x", pa.int64())]), "schema_mismatch"),
        ('"a"', pa.dictionary(pa.int32(), pa.string()), "a"),
        ('"a"', pa.large_string(), "a"),
        ('"\\ud800"', pa.string(), "schema_mismatch"),
        ('"no date"', pa.date32(), "schema_mismatch"),
        ('"no time"', pa.timestamp("us"), "schema_mismatch"),
        ("1", pa.timestamp("us"), "schema_mismatch"),
        ('["no time"]', pa.list_(pa.timestamp("us")), "schema_mismatch"),
    ],
)
def test_a_value_fits_a_declared_type_or_is_a_mismatch(value: str, type: pa.DataType, expected: object) -> None:
    assert one(value, type) == expected


@pytest.mark.parametrize("type", [pa.date32(), pa.timestamp("us"), pa.time64("us")])
def test_declared_times_are_read_from_iso_text(type: pa.DataType) -> None:
    text = "12:30:00" if pa.types.is_time(type) else "2024-02-29"
    assert one(f'"{text}"', type).isoformat().startswith(text)


def test_a_column_declared_as_string_takes_any_value_as_json_text() -> None:
    values = ['"text"', "12345678901234567890", "1.5", "true", '{"x":[1,"ä","\\ud800"]}', "null"]
    found = [one(value, pa.string()) for value in values]
    assert found == ["text", *values[1:-1], None]


def test_the_mismatch_text_names_column_type_and_value() -> None:
    rows = read(b'{"a": {"x": "long"}}\n', pa.schema([("a", pa.list_(pa.int64()))]), "a")
    assert rows.failures[0].message == (
        'column \'a\' is list<item: int64> in this run, and the value does not fit: {"x":"long"} for list<item: int64>; '
        "input.schema can give the column another type"
    )


@settings(max_examples=150)
@given(lines=LINES | NEARLY)
def test_a_row_has_the_same_fate_alone_and_among_others(lines: list[bytes]) -> None:
    text = b"\n".join(lines)
    schema = pa.schema([("a", pa.int64())])
    together = read(text, schema, "a")
    rows = dict(zip(together.positions, together.rows.as_json(), strict=True))
    for position, line in enumerate(split(text)):
        alone = read(line, schema, "a")
        assert bool(alone.failures) == (position in together.failures)
        if not alone.failures:
            assert repr(alone.rows.as_json()[0]) == repr(rows[position])


@settings(max_examples=300)
@given(lines=NEARLY)
def test_a_line_is_what_the_standard_library_makes_of_it(lines: list[bytes]) -> None:
    for line in lines:
        try:
            expected = json.loads(line)
        except ValueError:
            expected = None
        if isinstance(expected, dict) and all(map(is_encodable, expected)):
            rows = read(line).rows
            assert repr(rows.values(None)) == repr([expected])
            assert repr(json.loads(dump_json(rows.as_json()[0]))) == repr(expected)
        else:
            assert list(read(line).failures) == [0]
