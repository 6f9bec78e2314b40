"""Columns that folders give, in every format; pyarrow's own hive partitioning is the judge of names and values."""

import datetime as dt
import gzip
import json
from pathlib import Path
from urllib.parse import quote

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from pipelines.errors import PlanError
from pipelines.formats.hive import folder_values
from pipelines.formats.schema import Columns
from pipelines.units.listing import list_sources
from tests.pipelines.units.test_reading import Corpus

FORMATS = ("parquet", "jsonl", "csv", "jsonl.gz")


def write(folder: Path, format: str, rows: list[dict[str, object]], name: str = "part-0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{format}"
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif format == "csv":
        names = list(rows[0])
        path.write_text("\n".join([",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]))
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if format.endswith("gz") else text)
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_folders_give_text_columns(tmp_path: Path, format: str) -> None:
    write(tmp_path / "date=2026-01-01" / "region=eu%2Fwest", format, [{"a": "x"}, {"a": "y"}])
    write(tmp_path / "date=2026-01-02" / "region=__HIVE_DEFAULT_PARTITION__", format, [{"a": "z"}])
    right = [
        {"a": "x", "date": "2026-01-01", "region": "eu/west"},
        {"a": "y", "date": "2026-01-01", "region": "eu/west"},
        {"a": "z", "date": "2026-01-02", "region": None},
    ]
    assert Corpus(tmp_path).rows() == right
    assert Corpus(tmp_path / "*" / "*" / f"*.{format}").rows() == right
    assert Corpus(tmp_path / "date=2026-01-01").rows() == right[:2]


@given(
    st.lists(
        st.tuples(st.text("ab_%=é", min_size=1, max_size=3), st.text(" ab07/%é=", min_size=1, max_size=4)), max_size=3
    )
)
def test_names_and_values_are_pyarrows(pairs: list[tuple[str, str]]) -> None:
    pairs = list(dict(pairs).items())
    path = "/".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    schema = pa.schema([(name, pa.string()) for name, _ in pairs])
    parsed = ds.get_partition_keys(ds.HivePartitioning(schema).parse(f"{path}/part-0.parquet"))
    assert list(folder_values(f"/data/{path}/part-0.parquet").values()) == [parsed[name] for name in schema.names]
    assert folder_values(f"/data/{path}/part-0.parquet") == dict(pairs)


@pytest.mark.parametrize("format", FORMATS)
def test_a_declared_type_is_the_columns_and_zeros_stay_without_one(tmp_path: Path, format: str) -> None:
    write(tmp_path / "date=2026-01-01" / "month=01", format, [{"a": "x"}])
    assert Corpus(tmp_path).rows()[0]["month"] == "01"
    typed = Corpus(tmp_path, schema={"date": "date32", "month": "int32"}).rows()
    assert typed == [{"a": "x", "date": "2026-01-01", "month": 1}]
    (rows,) = Corpus(tmp_path, schema={"date": "date32", "month": "int32"}).read()
    right = {"a": "x", "date": dt.date(2026, 1, 1), "month": 1}
    assert rows.rows.as_arrow().table.to_pylist() == rows.rows.values(None) == [right]


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_that_does_not_fit_its_declared_type_is_refused(tmp_path: Path, format: str) -> None:
    write(tmp_path / "date=soon", format, [{"a": "x"}])
    with pytest.raises(PlanError, match=r"folder date=soon of .*part-0.* cannot become the date32"):
        Corpus(tmp_path, schema={"date": "date32"})


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("schema", [None, {"date": "string"}])
def test_a_column_of_the_file_wins_over_its_folder(tmp_path: Path, format: str, schema: dict[str, str] | None) -> None:
    write(tmp_path / "date=2026-01-01", format, [{"a": "x", "date": "own"}])
    assert Corpus(tmp_path, schema=schema).rows() == [{"a": "x", "date": "own"}]


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_a_file_without_the_column_has_its_folders(tmp_path: Path, format: str) -> None:
    write(tmp_path / "date=2026-01-01", format, [{"a": "x", "date": "own"}])
    write(tmp_path / "date=2026-01-02", format, [{"a": "y"}])
    assert Corpus(tmp_path).rows() == [{"a": "x", "date": "own"}, {"a": "y", "date": "2026-01-02"}]


def test_lines_of_any_file_give_the_column_to_jsonl(tmp_path: Path) -> None:
    write(tmp_path / "date=2026-01-01", "jsonl", [{"a": "x", "date": "own"}, {"a": "w"}])
    write(tmp_path / "date=2026-01-02", "jsonl", [{"a": "y"}])
    assert Corpus(tmp_path).rows() == [{"a": "x", "date": "own"}, {"a": "w"}, {"a": "y"}]


@pytest.mark.parametrize("format", FORMATS)
def test_only_wanted_folders_are_read(tmp_path: Path, format: str) -> None:
    write(tmp_path / "date=2026-01-01" / "region=eu", format, [{"a": "x"}])
    columns = Columns(carried=("region",), required=frozenset({"a"}))
    assert Corpus(tmp_path, columns=columns).rows() == [{"region": "eu", "a": "x"}]


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_outside_of_the_folders_has_null(tmp_path: Path, format: str) -> None:
    write(tmp_path / "date=2026-01-01", format, [{"a": "x"}])
    write(tmp_path / "late", format, [{"a": "y"}])
    assert [row.get("date") for row in Corpus(tmp_path).rows()] == ["2026-01-01", None]
    tables = [rows.rows.as_arrow().table.to_pylist() for rows in Corpus(tmp_path).read()]
    assert [row for rows in tables for row in rows] == [{"a": "x", "date": "2026-01-01"}, {"a": "y", "date": None}]


def test_an_underscored_column_is_no_hidden_folder(tmp_path: Path) -> None:
    write(tmp_path / "_day=1", "jsonl", [{"a": "x"}])
    assert len(list_sources(Corpus(tmp_path).spec)) == 1
