"""A unit of CSV."""

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import PlanError
from pipelines.formats.csv_text import parse_header, read_csv, read_first_record
from pipelines.formats.records import BOM, csv_records
from pipelines.formats.rows_read import RowsRead

CELLS = st.lists(st.sampled_from(["a", "7", '"', ",", "\n", "\r\n", " ", "ä"]), max_size=6).map("".join)


def read(text: bytes, header: tuple[str, ...] = ("x", "y"), schema: pa.Schema | None = None) -> RowsRead:
    records = [text[start:end] for start, end in csv_records(text, True).bounds()]
    return read_csv(text, records, header, schema or pa.schema([(name, pa.string()) for name in header]))


@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=6))
def test_what_a_csv_writer_wrote_comes_back(rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows(rows)
    found = read(buffer.getvalue().encode())
    assert not found.failures
    assert [tuple(row.values()) for row in found.in_order().to_pylist()] == rows


def test_cells_are_text_empty_ones_null_and_empty_quotes_empty_text() -> None:
    found = read(b'007,1e5\n,""\nNA,null\n')
    assert found.in_order().to_pylist() == [{"x": "007", "y": "1e5"}, {"x": None, "y": ""}, {"x": "NA", "y": "null"}]


def test_bad_records_fail_by_kind_and_the_rest_goes_on() -> None:
    records = {
        b"a,b": None,
        b"a,b,c": "malformed_csv",
        b"alone": "malformed_csv",
        b'"quoted"tail,b': "malformed_csv",
        b"bare\rreturn,b": "malformed_csv",
        b"\xff,b": "invalid_utf8",
        b'5" pipe,"two\nlines"': None,
        b'"never closed,b': "malformed_csv",
        b"c,d": None,
    }
    found = read(b"\n".join(records) + b"\n")
    assert found.in_order()["x"].to_pylist() == ["a", '5" pipe', "c"]
    assert {position: error.kind for position, error in found.failures.items()} == {
        position: kind for position, kind in enumerate(records.values()) if kind
    }


def test_the_number_of_cells_is_told() -> None:
    assert read(b"a,b,c\n").failures[0].message == "the record has 3 cells, and the header 2 columns"


def test_declared_types_are_cast_and_what_does_not_fit_fails() -> None:
    schema = pa.schema([("y", pa.int64())]).append(pa.field("x", pa.date32()))
    found = read(b"2024-01-01,1\n2024-01-02,two\nsoon,3\n,\n", schema=schema)
    assert found.in_order()["y"].to_pylist() == [1, None]
    assert {position: error.kind for position, error in found.failures.items()} == {
        1: "schema_mismatch",
        2: "schema_mismatch",
    }


def test_a_column_that_the_file_lacks_is_null() -> None:
    schema = pa.schema([("x", pa.string())]).append(pa.field("z", pa.int64()))
    assert read(b"a,b\n", schema=schema).in_order().to_pylist() == [{"x": "a", "z": None}]


def test_an_empty_line_of_a_one_column_file_is_no_row() -> None:
    assert read(b'a\n\n""\n', ("x",)).in_order()["x"].to_pylist() == ["a", ""]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"a,b\n1,2\n", ("a", "b")),
        (BOM + b'\r\n"a ""b""","c\nd"\r\n', ('a "b"', "c\nd")),
        (b"only", ("only",)),
        (b",x\n", ("", "x")),
    ],
)
def test_the_header_is_the_first_record(text: bytes, names: tuple[str, ...]) -> None:
    assert parse_header(read_first_record(io.BytesIO(text)), "file.csv") == names


@pytest.mark.parametrize("record", [b"a,b,a\n", b"\xff\n", b'"a\n'])
def test_a_header_that_cannot_be_used_is_refused_with_its_file(record: bytes) -> None:
    with pytest.raises(PlanError, match=r"file\.csv"):
        parse_header(record, "file.csv")
