"""Parquet from the field, whole: planned, read, and what templates and outputs hold of it."""

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.formats.schema import Columns
from tests.pipelines.units.test_reading import Corpus

CASES = Path("tests/cases").resolve()
MICRO = pa.timestamp("us")


def test_string_views_of_polars_are_texts() -> None:
    path = CASES / "string-view-parquet" / "input.parquet"
    corpus = Corpus(path)
    assert {str(field.type) for field in pq.ParquetFile(path).schema_arrow} == {"string_view"}
    assert {str(field.type) for field in corpus.plan.schema} == {"string"}
    assert corpus.rows() == pq.read_table(path).to_pylist()
    assert not corpus.failures()


def test_int96_of_spark_keeps_the_end_of_time() -> None:
    corpus = Corpus(CASES / "int96-out-of-range" / "input.parquet")
    right = [dt.datetime.fromisoformat(day) for day in ("2024-05-01", "9999-12-31", "1500-01-01")]
    (rows,) = corpus.read()
    assert [row["valid_to"] for row in rows.rows.values(frozenset({"valid_to"}))] == right  # type: ignore[index]
    assert [row["valid_to"][:10] for row in corpus.rows()] == ["2024-05-01", "9999-12-31", "1500-01-01"]
    assert rows.rows.as_arrow().table.column("valid_to").to_pylist() == right


DAYS = [dt.datetime.fromisoformat(day) for day in ("2024-05-01", "9999-12-31", "1500-01-01", "2262-04-12")]
"""The last three are no nanoseconds in 64 bits, which INT96 is read as unless one asks."""
INT96_WITHIN: dict[str, tuple[Any, pa.DataType]] = {
    "struct": (
        [{"a": day, "b": 1} for day in DAYS] + [None, {"a": None, "b": 2}],
        pa.struct([("a", MICRO), ("b", pa.int64())]),
    ),
    "list": ([DAYS, [], None, [None, DAYS[1]]], pa.list_(MICRO)),
    "list of structs": ([[{"a": day} for day in DAYS], None], pa.list_(pa.struct([("a", MICRO)]))),
    "map": ([[(f"in {day.year}", day) for day in DAYS], None], pa.map_(pa.string(), MICRO)),
}


@pytest.mark.parametrize("within", list(INT96_WITHIN))
def test_int96_within_other_types_keeps_the_end_of_time(within: str, tmp_path: Path) -> None:
    values, kind = INT96_WITHIN[within]
    path = tmp_path / "in.parquet"
    table = pa.table({"a": pa.array(values, kind)})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert "INT96" in {column.physical_type for column in columns_of(path)}
    right = pq.read_table(path, coerce_int96_timestamp_unit="us").column("a").to_pylist()
    assert right == table.column("a").to_pylist()
    corpus = Corpus(path)
    (rows,) = corpus.read()
    assert rows.rows.as_arrow().table.column("a").to_pylist() == right
    texts = [row["a"] for row in corpus.rows()]
    assert moments(texts) == moments(right)
    assert not corpus.failures()


def columns_of(path: Path) -> list[Any]:
    metadata = pq.ParquetFile(path).metadata
    return [metadata.schema.column(index) for index in range(metadata.num_columns)]


def moments(value: Any) -> list[dt.datetime]:
    """Every moment in a value, in order, texts of ISO 8601 as well."""
    if isinstance(value, dt.datetime):
        return [value]
    if isinstance(value, str) and value[:1].isdigit():
        return [dt.datetime.fromisoformat(value)]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [moment for one in inner for moment in moments(one)]


def test_columns_that_cannot_be_decoded_are_no_matter_to_a_job_that_leaves_them_out(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"a": ["x", "y"], "b": [f"text {number}" for number in range(2)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content[column.data_page_offset : column.data_page_offset + 8] = bytes(8)
    path.write_bytes(content)
    assert Corpus(path, columns=Columns(carried=("a",))).rows() == [{"a": "x"}, {"a": "y"}]
