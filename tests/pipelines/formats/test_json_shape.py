"""Which Arrow type a JSON column gets: one that gives every value back, or JSON text with a reason."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.json_shape import MAX_KEYS, MAX_TYPE_DEPTH, RowShape, shape_of_lines
from pipelines.formats.schema import Columns, json_reason, select_columns
from tests.helpers.pipelines.json_corpora import corpora


def infer(lines: list[bytes]) -> RowShape:
    return shape_of_lines(lines, lambda name: True)


def field_of(*values: Any) -> "pa.Field[Any]":
    schema = infer([json.dumps({"a": value}).encode() for value in values]).to_schema()
    return select_columns(schema, Columns()).field("a")


@pytest.mark.parametrize(
    ("values", "type"),
    [
        ((None, None), pa.null()),
        (("x", None, "2024-01-01T00:00:00Z"), pa.string()),
        ((True, None, False), pa.bool_()),
        ((1, -(2**63), 2**63 - 1), pa.int64()),
        ((1, 2**63), pa.decimal128(38, 0)),
        ((1, -(10**38) + 1), pa.decimal128(38, 0)),
        ((1, 10**38), pa.decimal256(76, 0)),
        ((1.5, float("nan"), float("-inf")), pa.float64()),
        ((1, 2.5, 2**53, -(2**53)), pa.float64()),
        (([], None), pa.list_(pa.string())),
        (([None],), pa.list_(pa.string())),
        (([1, None], []), pa.list_(pa.int64())),
        (({"x": 1, "y": None}, {"y": "z", "x": 2}), pa.struct([("x", pa.int64()), ("y", pa.string())])),
        (([{"x": []}],), pa.list_(pa.struct([("x", pa.list_(pa.string()))]))),
    ],
)
def test_a_column_of_one_kind_has_the_type_that_holds_it(values: tuple[Any, ...], type: pa.DataType) -> None:
    assert field_of(*values) == pa.field("a", type)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((1, "x"), "integers beside texts"),
        ((1, True), "booleans beside integers"),
        (({"x": 1}, [1], 1.5), "arrays beside floats beside objects"),
        ((2**53 + 1, 1.5), "integers over 2**53 beside floats"),
        ((10**76,), "integers of over 76 digits"),
        (({},), "objects without keys"),
        (({"x": 1}, {"y": 1}), "objects that do not all have the same keys"),
        (({"x": 1}, {"x": 1, "y": None}), "objects that do not all have the same keys"),
        (({str(number): 1 for number in range(MAX_KEYS + 1)},), "objects that do not all have the same keys"),
        (([{"x": 1}, {}],), "objects that do not all have the same keys"),
        (([1, "x"],), "integers beside texts"),
        (({"x": {"y": [1, "x"]}},), "integers beside texts"),
        (("\ud800", "x"), "text with half of a surrogate pair"),
        (({"\ud800": 1},), "objects that do not all have the same keys"),
        ((json.loads("[" * MAX_TYPE_DEPTH + "1" + "]" * MAX_TYPE_DEPTH),), f"values nested over {MAX_TYPE_DEPTH} deep"),
    ],
)
def test_a_column_without_an_exact_type_is_json_text_that_says_why(values: tuple[Any, ...], reason: str) -> None:
    assert field_of(*values).type == pa.string()
    assert (json_reason(field_of(*values)) or "").startswith(reason)


@settings(max_examples=100)
@given(lines=corpora(num_rows=12), size=st.integers(1, 12))
def test_the_schema_does_not_depend_on_who_saw_which_row(lines: list[bytes], size: int) -> None:
    merged = RowShape()
    for start in range(0, len(lines), size):
        merged.merge(infer(lines[start : start + size]))
    assert merged.to_schema().equals(infer(lines).to_schema(), check_metadata=True)


def test_columns_that_nobody_reads_are_known_by_name_only() -> None:
    shape = shape_of_lines([b'{"a": 1, "b": {"x": 1}}', b'{"c": 1, "b": 2}'], lambda name: name == "a")
    assert [(name, seen is None) for name, seen in shape.columns.items()] == [("a", False), ("b", True), ("c", True)]
