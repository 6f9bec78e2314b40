"""Parquet from the field, whole: planned, read, and what templates and outputs hold of it."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.formats.schema import Columns
from tests.pipelines.units.test_reading import Corpus

CASES = Path("tests/cases").resolve()


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


def test_columns_that_cannot_be_decoded_are_no_matter_to_a_job_that_leaves_them_out(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"a": ["x", "y"], "b": [f"text {number}" for number in range(2)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content[column.data_page_offset : column.data_page_offset + 8] = bytes(8)
    path.write_bytes(content)
    assert Corpus(path, columns=Columns(carried=("a",))).rows() == [{"a": "x"}, {"a": "y"}]
