"""The bytes of a unit's files: equal rows are equal bytes, and every type comes back."""

import datetime as dt
import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.job import OutputFormat
from pipelines.ledger.unit_files import encode_dead_letters, encode_results
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.rows import FinishedUnit, RowFailure
from pipelines.rows.unit import Unit

TABLE = pa.table(
    {
        "id": pa.array([1, 2, None, 4]),
        "category": pa.array(["b", "a", None, "b"]).dictionary_encode(),
        "scores": pa.array([[("x", 0.5), ("y", 0.25)], None, [], [("x", None)]], pa.map_(pa.string(), pa.float32())),
        "price": pa.array([Decimal("1.50"), None, None, None], pa.decimal128(10, 2)),
        "at": pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None, None, None], pa.timestamp("us", "UTC")),
        "spans": pa.array([[{"start": 0, "end": 2, "text": "ü"}], [], None, None]),
        "raw": pa.array([b"\xff", None, None, None], pa.binary()),
        "nothing": pa.nulls(4),
    }
)


def unit(num_rows: int = 4) -> Unit:
    return Unit(
        index=7,
        path="/in/a.jsonl",
        relative_path="a.jsonl",
        format="jsonl",
        row_group=-1,
        offset=0,
        first_row=100,
        num_rows=num_rows,
        num_bytes=10,
        source_size=10,
        source_tag="1",
        is_cuttable=True,
    )


def encoded(table: pa.Table, format: OutputFormat) -> bytes:
    """The table as a unit's file: its first columns as carried ones, the others as results."""
    carried, results = table.select([0, 1]), table.select(table.column_names[2:])
    finished = FinishedUnit(
        unit=unit(table.num_rows),
        carried=ArrowRows(table=carried),
        results=results,
        failures=(),
        prompt_tokens=0,
        cached_tokens=0,
        completion_tokens=0,
        seconds=0.0,
    )
    return encode_results(finished, format)


def assembled_otherwise(table: pa.Table) -> pa.Table:
    """The same rows, in other chunks, with another dictionary, and metadata."""
    category = table["category"].cast(pa.string())
    dictionary = pa.array(["unused", "a", "b"])
    indices = pa.array([{"a": 1, "b": 2}.get(value.as_py()) for value in category], pa.int32())
    encoded = pa.DictionaryArray.from_arrays(indices, dictionary)
    other = table.set_column(1, table.schema.field("category"), encoded)
    return pa.concat_tables([other.slice(0, 1), other.slice(1, 2), other.slice(3)]).replace_schema_metadata(
        {"by": "me"}
    )


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_equal_rows_are_equal_bytes(format: str) -> None:
    assert format in ("parquet", "jsonl")
    other = assembled_otherwise(TABLE)
    assert other.to_pylist() == TABLE.to_pylist()
    assert encoded(other, format) == encoded(TABLE, format)  # type: ignore[arg-type]


def test_parquet_keeps_types_and_values() -> None:
    read = pq.read_table(io.BytesIO(encoded(TABLE, "parquet")))
    assert read.schema == TABLE.schema
    assert read.to_pylist() == TABLE.to_pylist()


def test_parquet_tells_nothing_of_when_and_where() -> None:
    metadata = pq.read_metadata(io.BytesIO(encoded(TABLE, "parquet"))).metadata
    assert set(metadata or {}) == {b"ARROW:schema"}


def test_json_lines_hold_the_same_names_and_values() -> None:
    lines = [json.loads(line) for line in encoded(TABLE, "jsonl").splitlines()]
    assert lines[0] == {
        "id": 1,
        "category": "b",
        "scores": {"x": 0.5, "y": 0.25},
        "price": 1.5,
        "at": "2024-01-01T00:00:00.000000Z",
        "spans": [{"start": 0, "end": 2, "text": "ü"}],
        "raw": "/w==",
        "nothing": None,
    }
    assert [line["scores"] for line in lines[1:]] == [None, {}, {"x": None}]


def test_a_unit_without_results_has_files_with_no_rows() -> None:
    empty = TABLE.slice(0, 0)
    assert encoded(empty, "jsonl") == b""
    assert pq.read_table(io.BytesIO(encoded(empty, "parquet"))).schema == TABLE.schema


def test_dead_letters_are_in_row_order_and_have_the_keys_of_the_contract() -> None:
    failures = (
        RowFailure(row=102, kind="too_long", message="long", input={"a": Decimal("1.50"), "b": 2**70}),
        RowFailure(row=101, kind="malformed_json", message="bad \ud800", input={"_raw_base64": "eA=="}),
    )
    lines = encode_dead_letters(unit(), failures).splitlines()
    assert [list(json.loads(line)) for line in lines] == [
        ["unit", "path", "row", "kind", "message", "attempts", "input"]
    ] * 2
    assert json.loads(lines[0]) == {
        "unit": 7,
        "path": "/in/a.jsonl",
        "row": 101,
        "kind": "malformed_json",
        "message": "bad \ufffd",
        "attempts": 0,
        "input": {"_raw_base64": "eA=="},
    }
    assert lines[1].endswith(b'"input":{"a":1.50,"b":1180591620717411303424}}')
