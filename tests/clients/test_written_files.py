"""Files as polars and DuckDB write them, with every type they have: read, carried and written back equal, or refused by name."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.errors import PlanError
from pipelines.rows.unit import UnreadableUnit
from tests.clients.files import DUCKDB_VALUES, duckdb_files, polars_files, polars_series
from tests.helpers.pipelines.carried_values import check_json, check_parquet
from tests.helpers.pipelines.written_files import Written
from tests.pipelines.units.test_reading import Corpus, no_sleep

PLAN_REFUSES = {("polars", "Int128"): "64 bits", ("polars", "UInt128"): "64 bits"}
"""What pyarrow cannot open: the file is named when it is planned."""
READING_REFUSES = {("duckdb", "[1, 2]::INTEGER[2]"): "in column 'a'"}
"""What pyarrow cannot decode: the file and the column are named when it is read."""
DEAD_LETTERS = {
    ("duckdb", "DATE 'infinity'"),
    ("duckdb", "TIMESTAMP 'infinity'"),
    ("duckdb", "TIMESTAMPTZ '-infinity'"),
}
"""What no text can show: rows are told with the column."""

FILES = [*polars_files(), *duckdb_files()]
READ = [file for file in FILES if (file.writer, file.type) not in {*PLAN_REFUSES, *READING_REFUSES, *DEAD_LETTERS}]


@pytest.mark.parametrize("file", READ, ids=str)
def test_values_come_back_in_parquet_as_pyarrow_reads_them(file: Written, tmp_path: Path) -> None:
    check_parquet(file, tmp_path)


@pytest.mark.parametrize("file", READ, ids=str)
def test_values_come_back_in_json(file: Written, tmp_path: Path) -> None:
    check_json(file, tmp_path)


@pytest.mark.parametrize(("writer", "type"), PLAN_REFUSES)
def test_a_file_that_pyarrow_cannot_open_is_named(writer: str, type: str, tmp_path: Path) -> None:
    path = written(writer, type, tmp_path)
    with pytest.raises(PlanError, match=rf"{path}.*{PLAN_REFUSES[writer, type]}"):
        Corpus(path)


@pytest.mark.parametrize(("writer", "type"), READING_REFUSES)
def test_a_column_that_pyarrow_cannot_decode_is_named(writer: str, type: str, tmp_path: Path) -> None:
    path = written(writer, type, tmp_path)
    corpus = Corpus(path)
    (unread,) = corpus.reader.read_units(corpus.units, sleep=no_sleep)
    assert isinstance(unread, UnreadableUnit)
    assert str(path) in unread.message
    assert READING_REFUSES[writer, type] in unread.message


@pytest.mark.parametrize(("writer", "type"), sorted(DEAD_LETTERS))
def test_a_row_that_no_text_can_show_is_a_dead_letter(writer: str, type: str, tmp_path: Path) -> None:
    corpus = Corpus(written(writer, type, tmp_path))
    (failure,) = corpus.failures()
    assert (failure.row, failure.kind) == (0, "invalid_value")
    assert "column 'a'" in failure.message
    assert corpus.rows() == [{"a": None}]


def written(writer: str, type: str, folder: Path) -> Path:
    (file,) = (file for file in FILES if (file.writer, file.type) == (writer, type))
    file.write(folder / "in.parquet")
    return folder / "in.parquet"


def test_there_are_files_of_every_type_of_both_writers() -> None:
    counts = Counter(file.writer for file in FILES)
    assert counts == {"polars": len(polars_series()), "duckdb": len(DUCKDB_VALUES)}
    assert min(counts.values()) > 30
