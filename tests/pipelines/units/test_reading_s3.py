"""Inputs in an object store: listed, planned, read and watched for changes like files."""

import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from pipelines.errors import PlanError, SourceChangedError, SourceError
from pipelines.formats.schema import Columns
from pipelines.io.inputs import Storage
from pipelines.job import InputSpec
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import Unit
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader

LINES = b"".join(b'{"a": %d}\n' % number for number in range(100))


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(100))}), buffer, row_group_size=40)
    return buffer.getvalue()


def arrow(make: Any) -> bytes:
    buffer, table = io.BytesIO(), pa.table({"a": list(range(100))})
    with make(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=40)
    return buffer.getvalue()


CONTENTS = {
    "in.jsonl": LINES,
    "in.jsonl.gz": gzip.compress(LINES),
    "in.parquet": parquet(),
    "in.arrow": arrow(ipc.new_file),
    "in.arrows": arrow(ipc.new_stream),
    "in.csv": b"a\n" + b"".join(b"%d\n" % number for number in range(100)),
}


@pytest.fixture
def folder(s3_options: dict[str, Any], tmp_path: Path) -> str:
    url = f"s3://bucket/reading/{tmp_path.name}"
    for name, content in CONTENTS.items():
        put(f"{url}/{name}", content, s3_options)
    return url


def put(url: str, content: bytes, options: dict[str, Any]) -> None:
    file_system, key = Storage(options).resolve(url)
    file_system.pipe_file(key, content)


def planned(url: str, options: dict[str, Any]) -> tuple[UnitReader, list[Unit]]:
    units: list[Unit] = []
    spec = InputSpec(paths=(url,), storage_options=options, schema={"a": "int64"})
    plan = plan_units(list_sources(spec), spec, Columns(), unit_rows=30, sink=units.extend)
    return UnitReader(schema=plan.schema, declared=frozenset({"a"}), storage=Storage(options)), units


@pytest.mark.parametrize("name", CONTENTS)
def test_every_format_is_read_from_s3(folder: str, s3_options: dict[str, Any], name: str) -> None:
    reader, units = planned(f"{folder}/{name}", s3_options)
    read = list(reader.read_units(units))
    assert [row["a"] for rows in read if isinstance(rows, UnitRows) for row in rows.rows.as_json()] == list(range(100))
    assert [row for unit in units for row in reader.read_unit(unit).row_numbers.tolist()] == list(range(100))


@pytest.mark.parametrize("name", CONTENTS)
def test_an_object_that_was_written_again_is_a_changed_source(
    folder: str, s3_options: dict[str, Any], name: str
) -> None:
    reader, units = planned(f"{folder}/{name}", s3_options)
    put(f"{folder}/{name}", CONTENTS[name][::-1], s3_options)
    with pytest.raises(SourceChangedError):
        reader.read_unit(units[-1])


def test_objects_are_listed_by_pattern_folder_and_name(folder: str, s3_options: dict[str, Any]) -> None:
    def names(path: str) -> list[str]:
        return [file.relative_path for file in list_sources(InputSpec(paths=(path,), storage_options=s3_options))]

    assert names(f"{folder}/*.jsonl*") == ["in.jsonl", "in.jsonl.gz"]
    assert names(f"{folder}/in.csv") == ["in.csv"]
    put(f"{folder}/only/sub/b.csv", b"a\n", s3_options)
    put(f"{folder}/only/a.csv", b"a\n", s3_options)
    assert names(f"{folder}/only") == ["a.csv", "sub/b.csv"]


def test_a_missing_object_or_bucket_is_told(folder: str, s3_options: dict[str, Any]) -> None:
    for url in (f"{folder}/none.csv", "s3://no-such-bucket/*.csv"):
        with pytest.raises(PlanError, match="matches no"):
            list_sources(InputSpec(paths=(url,), storage_options=s3_options))
    with pytest.raises(SourceError, match=r"cannot read s3://.*none\.csv"):
        Storage(s3_options).stat(f"{folder}/none.csv")


def test_a_range_beyond_the_end_is_told(folder: str, s3_options: dict[str, Any]) -> None:
    size = len(LINES)
    assert Storage(s3_options).read(f"{folder}/in.jsonl", size - 3, 3) == LINES[-3:]
    with pytest.raises(SourceError, match="it ends at byte"):
        Storage(s3_options).read(f"{folder}/in.jsonl", size - 3, 4)


def test_secrets_are_not_shown(s3_options: dict[str, Any]) -> None:
    assert repr(Storage({"secret": "hush"})) == "Storage()"
