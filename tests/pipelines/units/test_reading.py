"""Planning and reading together: what is in the files is what comes out, once, in order."""

import gzip
import json
import os
import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import zstandard

from pipelines.errors import SourceChangedError, SourceError
from pipelines.formats.schema import Columns
from pipelines.io.inputs import Content, Storage
from pipelines.job import InputSpec
from pipelines.rows.rows import RowFailure, UnitRows
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.units.listing import list_sources
from pipelines.units.planning import Plan, plan_units
from pipelines.units.reading import UnitReader, group_units

ROWS = [{"id": number, "text": f"row {number}\nwith ünicode", "tags": ["a"] * (number % 3)} for number in range(1000)]
JSONL = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS)
CSV = b"id,text\r\n" + b"".join(f'{row["id"]},"{row["text"]}"\r\n'.encode() for row in ROWS)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=333)


def write_arrow(path: Path, make: Any, compression: Any) -> None:
    table = pa.Table.from_pylist(ROWS)
    with make(path, table.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=333)


WRITERS: dict[str, Callable[[Path], object]] = {
    "in.parquet": write_parquet,
    "in.arrow": lambda path: write_arrow(path, ipc.new_file, None),
    "in.feather": lambda path: write_arrow(path, ipc.new_file, "zstd"),
    "in.ipc": lambda path: write_arrow(path, ipc.new_stream, None),
    "in.arrows": lambda path: write_arrow(path, ipc.new_stream, "lz4"),
    "in.jsonl": lambda path: path.write_bytes(JSONL),
    "in.jsonl.gz": lambda path: path.write_bytes(gzip.compress(JSONL[:30_000]) + gzip.compress(JSONL[30_000:])),
    "in.jsonl.zst": lambda path: path.write_bytes(
        zstandard.compress(JSONL[:30_000]) + zstandard.compress(JSONL[30_000:])
    ),
    "in.csv": lambda path: path.write_bytes(CSV),
    "in.csv.gz": lambda path: path.write_bytes(gzip.compress(CSV)),
    "in.csv.zst": lambda path: path.write_bytes(zstandard.compress(CSV)),
}
every_format = pytest.mark.parametrize("name", WRITERS)


class Corpus:
    """A planned input."""

    def __init__(self, *paths: Path | str, unit_rows: int = 100, columns: Columns | None = None, **spec: Any) -> None:
        self.spec = InputSpec(paths=tuple(map(str, paths)), **spec)
        self.units: list[Unit] = []
        self.plan: Plan = plan_units(
            list_sources(self.spec), self.spec, columns or Columns(), unit_rows=unit_rows, sink=self.units.extend
        )
        self.reader = UnitReader(
            schema=self.plan.schema,
            declared=frozenset(self.spec.schema or ()),
            storage=Storage(self.spec.storage_options),
        )

    def read(self) -> list[UnitRows]:
        read = list(self.reader.read_units(self.units, sleep=no_sleep))
        assert not any(isinstance(rows, UnreadableUnit) for rows in read)
        return cast("list[UnitRows]", read)

    def rows(self) -> list[dict[str, Any]]:
        return [row for rows in self.read() for row in rows.rows.as_json()]

    def failures(self) -> list[RowFailure]:
        return [failure for rows in self.read() for failure in rows.failures]


def no_sleep(seconds: float) -> None:
    pass


@every_format
def test_every_row_comes_back_once_in_order(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    corpus = Corpus(tmp_path / name)
    expected = [{"id": str(row["id"]), "text": row["text"]} for row in ROWS] if "csv" in name else ROWS
    assert corpus.rows() == expected
    assert np.concatenate([rows.row_numbers for rows in corpus.read()]).tolist() == list(range(1000))
    assert corpus.plan.num_rows == 1000
    assert all(0 < unit.num_rows <= 100 for unit in corpus.units)
    assert [unit.index for unit in corpus.units] == list(range(len(corpus.units)))


@every_format
def test_a_unit_alone_is_the_unit_in_a_pass_with_others(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    corpus = Corpus(tmp_path / name)
    reader = pickle.loads(pickle.dumps(corpus.reader))
    for unit, rows in list(zip(corpus.units, corpus.read(), strict=True))[::3]:
        assert reader.read_unit(unit).rows.as_json() == rows.rows.as_json()


@every_format
def test_units_that_are_left_out_are_skipped(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    corpus = Corpus(tmp_path / name)
    some = corpus.units[1::2]
    read = [cast("UnitRows", rows) for rows in corpus.reader.read_units(some)]
    assert [rows.unit for rows in read] == some
    numbers = [number for rows in read for number in rows.row_numbers.tolist()]
    assert numbers == [number for unit in some for number in range(unit.first_row, unit.first_row + unit.num_rows)]


def test_what_is_read_in_one_pass_stays_together(tmp_path: Path) -> None:
    sizes = {}
    for name in ("in.parquet", "in.arrow", "in.ipc", "in.jsonl", "in.jsonl.gz"):
        WRITERS[name](tmp_path / name)
        sizes[name] = [len(group) for group in group_units(Corpus(tmp_path / name).units)]
    assert sizes == {
        "in.parquet": [4, 4, 4, 1],
        "in.arrow": [4, 3, 3],
        "in.ipc": [4, 3, 3],
        "in.jsonl": [1] * 10,
        "in.jsonl.gz": [10],
    }


def test_blank_lines_crlf_and_a_missing_last_newline_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf\r\n{"a": 1}\r\n\n  \n{"a": 2}\r\n\n{"a": 3}')
    corpus = Corpus(tmp_path / "in.jsonl", unit_rows=2)
    assert corpus.rows() == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [(unit.first_row, unit.num_rows) for unit in corpus.units] == [(0, 2), (2, 1)]


def test_bad_lines_are_failures_with_their_number_and_input(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(
        b'{"a": 1}\n\n{"a": \n{"a": "\xff"}\n{"a": "x", "b": 12345678901234567890}\n{"a": 2}\n'
    )
    corpus = Corpus(tmp_path / "in.jsonl", unit_rows=2, schema={"a": "int64"})
    assert [(failure.row, failure.kind, failure.input) for failure in corpus.failures()] == [
        (1, "malformed_json", {"_raw_base64": "eyJhIjog"}),
        (2, "invalid_utf8", {"_raw_base64": "eyJhIjogIv8ifQ=="}),
        (3, "schema_mismatch", b'{"a": "x", "b": 12345678901234567890}'),
    ]
    assert [row["a"] for row in corpus.rows()] == [1, 2]


def test_bad_csv_records_are_failures_with_their_number_and_input(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'id,text\n1,"two\nlines"\n2\nthree,x\n4,\xff\n5,y\n')
    corpus = Corpus(tmp_path / "in.csv", unit_rows=2, schema={"id": "int64"})
    assert [(failure.row, failure.kind, failure.input) for failure in corpus.failures()] == [
        (1, "malformed_csv", {"_raw_base64": "Mg=="}),
        (2, "schema_mismatch", {"id": "three", "text": "x"}),
        (3, "invalid_utf8", {"_raw_base64": "NCz/"}),
    ]
    assert corpus.rows() == [{"id": 1, "text": "two\nlines"}, {"id": 5, "text": "y"}]


def test_parquet_text_that_is_no_utf8_is_a_failure_of_its_row(tmp_path: Path) -> None:
    raw = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff\xfe", b"c"]).buffers())
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), raw.take(pa.array([0, 2, 1])))
    pq.write_table(pa.table({"id": [1, 2, 3], "text": raw, "nested": nested}), tmp_path / "in.parquet")
    corpus = Corpus(tmp_path / "in.parquet")
    assert corpus.rows() == [{"id": 1, "text": "a", "nested": ["a"]}]
    assert [(failure.row, failure.kind, failure.input) for failure in corpus.failures()] == [
        (1, "invalid_utf8", {"id": 2, "text": {"_raw_base64": "//4="}, "nested": ["c"]}),
        (2, "invalid_utf8", {"id": 3, "text": "c", "nested": [{"_raw_base64": "//4="}]}),
    ]


def test_parquet_types_survive(tmp_path: Path) -> None:
    columns: dict[str, pa.Array[Any]] = {
        "decimal": pa.array([Decimal("1.50"), None], pa.decimal128(38, 2)),
        "wide": pa.array([Decimal(10**70), None], pa.decimal256(76, 0)),
        "at": pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")),
        "day": pa.array([1, None], pa.date32()),
        "time": pa.array([1, None], pa.time64("us")),
        "category": pa.array(["x", None]).dictionary_encode(),
        "binary": pa.array([b"\xff", None]),
        "fixed": pa.array([b"ab", None], pa.binary(2)),
        "large": pa.array(["ä" * 1000, None], pa.large_string()),
        "small": pa.array([1, None], pa.int8()),
        "half": pa.array([1.5, None], pa.float32()),
        "map": pa.array([[("k", 1.5)], None], pa.map_(pa.string(), pa.float32())),
        "nested": pa.array([{"a": [{"b": [1]}, None]}, None]),
        "null": pa.nulls(2),
        "dotted.name": pa.array(["d", None]),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "in.parquet")
    corpus = Corpus(tmp_path / "in.parquet", unit_rows=1)
    read = pa.concat_tables([rows.rows.as_arrow().table for rows in corpus.read()])
    assert corpus.plan.schema == table.schema
    assert read.to_pylist() == table.to_pylist()


def test_only_needed_columns_are_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in.parquet")
    corpus = Corpus(tmp_path / "in.parquet", columns=Columns(carried=("id",), required=frozenset({"text"})))
    assert corpus.plan.schema.names == ["id", "text"]
    assert corpus.rows() == [{"id": row["id"], "text": row["text"]} for row in ROWS]


def test_parquet_files_with_compatible_schemas_share_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1], pa.int32()), "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(
        pa.table({"b": pa.array(["y"]).dictionary_encode(), "a": [2**40], "c": [1.5]}), tmp_path / "2.parquet"
    )
    corpus = Corpus(tmp_path)
    assert corpus.rows() == [{"a": 1, "b": "x", "c": None}, {"a": 2**40, "b": "y", "c": 1.5}]


def test_a_declared_type_that_a_parquet_value_does_not_fit_fails_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["1", "x", None]}), tmp_path / "in.parquet")
    corpus = Corpus(tmp_path / "in.parquet", schema={"a": "int64"})
    assert corpus.rows() == [{"a": 1}, {"a": None}]
    (failure,) = corpus.failures()
    assert (failure.row, failure.kind, failure.input) == (1, "schema_mismatch", {"a": "x"})


def test_one_value_of_20_mib_is_a_unit_alone(tmp_path: Path) -> None:
    long = "x" * (20 << 20)
    (tmp_path / "in.jsonl").write_bytes(b'{"a": "b"}\n{"a": "' + long.encode() + b'"}\n{"a": "c"}\n')
    corpus = Corpus(tmp_path / "in.jsonl")
    assert [unit.num_rows for unit in corpus.units] == [1, 1, 1]
    assert [len(row["a"]) for row in corpus.rows()] == [1, 20 << 20, 1]


@every_format
def test_a_changed_source_is_an_error_of_its_units(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    corpus = Corpus(tmp_path / name)
    os.utime(tmp_path / name, ns=(1, 1))
    with pytest.raises(SourceChangedError, match="has changed since it was planned"):
        corpus.reader.read_unit(corpus.units[0])
    waits: list[float] = []
    read = list(corpus.reader.read_units(corpus.units, sleep=waits.append))
    assert [unread.unit for unread in read if isinstance(unread, UnreadableUnit)] == corpus.units
    assert not waits


@every_format
def test_a_source_that_changes_while_it_is_read_gives_no_rows(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path / name)
    corpus = Corpus(tmp_path / name)
    stat, calls = Storage.stat, iter(range(99))

    def changing(self: Storage, path: str) -> object:
        if next(calls) == 1:
            os.utime(path, ns=(1, 1))
        return stat(self, path)

    monkeypatch.setattr(Storage, "stat", changing)
    with pytest.raises(SourceChangedError):
        corpus.reader.read_unit(corpus.units[0])


def test_a_missing_source_is_tried_again_and_then_listed(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(b'{"a": 1}\n{"a": 2}\n')
    corpus = Corpus(tmp_path, unit_rows=1)
    (tmp_path / "a.jsonl").unlink()
    waits: list[float] = []
    read = list(corpus.reader.read_units(corpus.units, sleep=waits.append))
    unread = [unread for unread in read if isinstance(unread, UnreadableUnit)]
    assert [unread.unit.index for unread in unread] == [0, 1]
    assert unread[0].message == f"cannot read {tmp_path / 'a.jsonl'}: No such file or directory"
    assert waits == [0.5, 1.0, 2.0] * 2
    assert [type(rows) for rows in read] == [UnreadableUnit, UnreadableUnit, UnitRows, UnitRows]


def test_a_source_that_recovers_is_read_on_where_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["in.jsonl.gz"](tmp_path / "in.jsonl.gz")
    corpus = Corpus(tmp_path / "in.jsonl.gz")
    content, faults = Storage.content, iter([20_000, 40_000])

    class Failing:
        def __init__(self, inner: Content, left: int) -> None:
            self.inner, self.left = inner, left

        def read(self, size: int) -> bytes:
            self.left -= size
            if self.left < 0:
                raise OSError("connection lost")
            return self.inner.read(size)

        def close(self) -> None:
            self.inner.close()

    monkeypatch.setattr(Storage, "content", lambda self, path: Failing(content(self, path), next(faults, 1 << 40)))
    assert corpus.rows() == ROWS


def test_damage_in_a_compressed_source_ends_its_units_there(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(JSONL[:30_000]) + gzip.compress(JSONL[30_000:]))
    corpus = Corpus(path)
    stat = path.stat()
    damaged = bytearray(path.read_bytes())
    damaged[-200:-100] = bytes(100)
    path.write_bytes(damaged)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    read = list(corpus.reader.read_units(corpus.units, sleep=no_sleep))
    kinds = [isinstance(rows, UnreadableUnit) for rows in read]
    assert kinds == sorted(kinds)
    assert kinds[0] is False
    assert kinds[-1] is True


def test_parquet_that_is_damaged_is_a_source_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in.parquet")
    corpus = Corpus(tmp_path / "in.parquet")
    stat = (tmp_path / "in.parquet").stat()
    damaged = bytearray((tmp_path / "in.parquet").read_bytes())
    damaged[4:200] = bytes(196)
    (tmp_path / "in.parquet").write_bytes(damaged)
    os.utime(tmp_path / "in.parquet", ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    with pytest.raises(SourceError, match=r"cannot read .*in\.parquet"):
        corpus.reader.read_unit(corpus.units[0])


def test_limit_takes_the_first_rows_of_the_corpus(tmp_path: Path) -> None:
    for name in ("1.jsonl", "2.jsonl"):
        (tmp_path / name).write_bytes(JSONL)
    spec = InputSpec(paths=(str(tmp_path),))
    units: list[Unit] = []
    plan = plan_units(list_sources(spec), spec, Columns(), unit_rows=100, limit=1234, sink=units.extend)
    assert plan.num_rows == sum(unit.num_rows for unit in units) == 1234
    rows = [cast("UnitRows", rows).rows.as_json() for rows in UnitReader(schema=plan.schema).read_units(units)]
    assert [row for some in rows for row in some] == ROWS + ROWS[:234]
