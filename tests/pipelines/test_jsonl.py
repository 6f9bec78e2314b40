"""A unit of JSON lines: what gets through, what fails, and that neighbours do not matter."""

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cutting import jsonl_records
from pipelines.inference import Shape, shape_of_lines
from pipelines.jsonl import read_jsonl
from pipelines.rows_read import RowsRead
from pipelines.schema import Columns, select_columns

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.just("2024-01-01"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
LINES = st.lists(
    st.dictionaries(st.sampled_from("abc"), JSON, max_size=3).map(lambda row: json.dumps(row).encode()), max_size=8
)
# Text that is almost JSON: what a parser in C++ might take for something else than one in Python does.
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


def read(text: bytes, schema: pa.Schema, *declared: str) -> RowsRead:
    return read_jsonl(text, split(text), schema, frozenset(declared))


def infer(text: bytes) -> Shape:
    return shape_of_lines(text, split(text), lambda name: True)


def inferred(text: bytes) -> pa.Schema:
    return select_columns(infer(text).to_schema(), Columns())


def one(value: str, type: pa.DataType, *declared: str) -> Any:
    """The value that a column of `type` gets from the JSON text `value`, or the kind of its failure."""
    rows = read(b'{"a": ' + value.encode() + b"}\n", pa.schema([("a", type)]), *declared)
    return rows.failures[0].kind if rows.failures else rows.in_order()["a"][0].as_py()


def test_values_of_every_kind_survive() -> None:
    lines = [
        {
            "s": "grüße 😀 \x00",
            "i": -(2**63),
            "f": 1e300,
            "b": True,
            "n": None,
            "l": [1, None],
            "o": {"x": {"y": ["z"]}},
        },
        {"s": "", "i": 2**63 - 1, "f": 1, "b": None, "n": None, "l": [], "o": None},
    ]
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    rows = read(text, inferred(text))
    assert rows.in_order().to_pylist() == lines
    assert not rows.failures


def test_text_that_looks_like_a_time_stays_text() -> None:
    text = b'{"day": "2024-01-01", "at": ["2024-01-01T00:00:00Z"]}\n'
    assert read(text, inferred(text)).in_order().to_pylist() == [{"day": "2024-01-01", "at": ["2024-01-01T00:00:00Z"]}]


def test_integers_over_64_bits_keep_their_digits() -> None:
    text = b'{"a": 12345678901234567890123}\n{"a": -1}\n{"a": null}\n'
    schema = inferred(text)
    assert schema.field("a").type == pa.decimal128(38, 0)
    assert read(text, schema).in_order()["a"].to_pylist() == [Decimal("12345678901234567890123"), Decimal(-1), None]


def test_integers_and_floats_become_floats() -> None:
    text = b'{"a": 1}\n{"a": 2.5}\n{"a": NaN}\n{"a": -Infinity}\n'
    values = read(text, inferred(text)).in_order()["a"].to_pylist()
    assert values[:2] == [1.0, 2.5]
    assert [str(value) for value in values[2:]] == ["nan", "-inf"]


def test_lone_surrogates_become_replacement_characters() -> None:
    text = b'{"a": "x\\ud800y"}\n{"a": "\\ud83d\\ude00"}\n{"a": "\\udc00"}\n'
    assert read(text, inferred(text)).in_order()["a"].to_pylist() == ["x\ufffdy", "😀", "\ufffd"]


def test_of_a_name_given_twice_the_last_value_counts() -> None:
    text = b'{"a": 1, "a": 2}\n'
    assert read(text, inferred(text)).in_order()["a"].to_pylist() == [2]


def test_a_value_of_20_mib_is_read() -> None:
    value = "ä" * (10 << 20)
    text = json.dumps({"a": value}, ensure_ascii=False).encode() + b'\n{"a": "b"}\n'
    assert read(text, inferred(text)).in_order()["a"].to_pylist() == [value, "b"]


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
        b'  {"a": 4}  ': None,
    }
    rows = read(b"\n".join(lines), pa.schema([("a", pa.int64())]))
    assert rows.in_order()["a"].to_pylist() == [1, 4]
    assert rows.positions == [0, 9]
    assert {position: error.kind for position, error in rows.failures.items()} == {
        position: kind for position, kind in enumerate(lines.values()) if kind
    }


@pytest.mark.parametrize("first", [b"null", b"nullnull", b"[null]", b"", b"\x00"])
def test_text_that_crashes_arrow_is_kept_from_it(first: bytes) -> None:
    rows = read(first + b'\n{"a": 1}\n', pa.schema([("a", pa.int64())]))
    assert rows.in_order()["a"].to_pylist() == [1]


def test_deep_nesting_does_not_crash_inference() -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        text = b'{"a":' + opening * 50_000 + b"1" + closing * 50_000 + b"}\n" + b'{"b": 1}\n'
        assert infer(text).fields.keys() == {"b"}


@pytest.mark.parametrize(
    ("value", "type", "expected"),
    [
        ("1.0", pa.int64(), 1),
        ("1.5", pa.int64(), "schema_mismatch"),
        ("300", pa.int8(), "schema_mismatch"),
        ("1e400", pa.int64(), "schema_mismatch"),
        ("12345678901234567890", pa.int64(), "schema_mismatch"),
        ("12345678901234567890", pa.uint64(), 12345678901234567890),
        ('"1"', pa.int64(), "schema_mismatch"),
        ("true", pa.int64(), "schema_mismatch"),
        ("1", pa.bool_(), "schema_mismatch"),
        ("1", pa.string(), "schema_mismatch"),
        ("1", pa.null(), "schema_mismatch"),
        ("1.50", pa.decimal128(5, 2), Decimal("1.50")),
        ('"1.555"', pa.decimal128(5, 2), "schema_mismatch"),
        ('"x"', pa.decimal128(5, 2), "schema_mismatch"),
        ('{"x": 1.5, "y": null}', pa.map_(pa.string(), pa.float64()), [("x", 1.5), ("y", None)]),
        ("[1]", pa.map_(pa.string(), pa.float64()), "schema_mismatch"),
        ('["a", null]', pa.list_(pa.string()), ["a", None]),
        ('["a", 1]', pa.list_(pa.string()), "schema_mismatch"),
        ('{"x": 1, "z": 2}', pa.struct([("x", pa.int64())]), {"x": 1}),
        ("[]", pa.struct([("x", pa.int64())]), "schema_mismatch"),
        ('"a"', pa.dictionary(pa.int32(), pa.string()), "a"),
        ('"a"', pa.large_string(), "a"),
        ('"no date"', pa.date32(), "schema_mismatch"),
        ('"no time"', pa.timestamp("us"), "schema_mismatch"),
        ('"YQ"', pa.binary(), b"YQ"),
    ],
)
def test_a_value_fits_a_type_or_is_a_mismatch(value: str, type: pa.DataType, expected: object) -> None:
    assert one(value, type) == expected


@pytest.mark.parametrize("type", [pa.date32(), pa.timestamp("us"), pa.time64("us")])
def test_declared_times_are_read_from_iso_text(type: pa.DataType) -> None:
    text = "12:30:00" if pa.types.is_time(type) else "2024-02-29"
    assert one(f'"{text}"', type).isoformat().startswith(text)


def test_a_column_declared_as_string_takes_any_value_as_json_text() -> None:
    values = ['"text"', "12345678901234567890", "1.5", "true", '{"x": [1, "ä"]}', "null"]
    found = [one(value, pa.string(), "a") for value in values]
    assert found == ["text", "12345678901234567890", "1.5", "true", '{"x":[1,"ä"]}', None]


def test_an_empty_object_survives() -> None:
    text = b'{"a": {}, "l": [{}]}\n{"a": null, "l": []}\n'
    schema = inferred(text)
    assert schema.field("a").type == pa.map_(pa.string(), pa.string())
    assert read(text, schema).in_order().to_pylist() == [{"a": [], "l": [[]]}, {"a": None, "l": []}]


def test_the_mismatch_text_names_column_type_and_value() -> None:
    rows = read(b'{"a": {"x": "long"}}\n', pa.schema([("a", pa.list_(pa.int64()))]))
    assert rows.failures[0].message == (
        'column \'a\' is list<item: int64> in this run, and the value does not fit: {"x":"long"} for list<item: int64>; '
        "input.schema can give the column another type"
    )


@settings(max_examples=150)
@given(lines=LINES | NEARLY)
def test_a_row_has_the_same_fate_alone_and_among_others(lines: list[bytes]) -> None:
    text = b"\n".join(lines)
    schema = inferred(text) if infer(text).fields else pa.schema([("a", pa.int64())])
    together = read(text, schema)
    rows = dict(zip(together.positions, together.in_order().to_pylist(), strict=True))
    for position, line in enumerate(split(text)):
        alone = read(line, schema)
        assert bool(alone.failures) == (position in together.failures)
        if not alone.failures:
            assert repr(alone.in_order().to_pylist()[0]) == repr(rows[position])


@settings(max_examples=150)
@given(lines=LINES)
def test_rows_that_fit_come_back_as_python_parses_them(lines: list[bytes]) -> None:
    text = b"\n".join(lines)
    if not infer(text).fields:
        return
    rows = read(text, pa.schema([(name, pa.string()) for name in infer(text).fields]), *infer(text).fields)
    assert not rows.failures
    for line, row in zip(split(text), rows.in_order().to_pylist(), strict=True):
        for name, value in json.loads(line).items():
            found = value if isinstance(value, str) or value is None else json.loads(row[name])
            assert found == value or row[name] == value


@settings(max_examples=150)
@given(lines=LINES, parts=st.integers(1, 4))
def test_shapes_merge_to_the_same_schema_however_they_are_counted(lines: list[bytes], parts: int) -> None:
    whole = infer(b"\n".join(lines))
    merged = Shape()
    for start in range(0, len(lines), parts):
        merged.merge(infer(b"\n".join(lines[start : start + parts])))
    assert merged.to_schema() == whole.to_schema()


def test_the_most_frequent_type_wins_a_conflict() -> None:
    text = b'{"a": 1}\n{"a": 2.5}\n{"a": "x"}\n{"a": null}\n'
    assert inferred(text).field("a").type == pa.float64()
    assert read(text, inferred(text)).failures.keys() == {2}


def test_text_wins_a_tie() -> None:
    assert inferred(b'{"a": 1}\n{"a": "x"}\n').field("a").type == pa.string()
