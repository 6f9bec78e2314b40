"""Rows from places of an input: from how many, whether they are the input's, and how little is read for them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from pipelines.errors import PlanError
from pipelines.formats.schema import Columns
from pipelines.io.inputs import Storage
from pipelines.job import InputSpec
from pipelines.units.listing import list_sources
from pipelines.units.places import MAX_FILES, NEIGHBOURS, PLACES, rows_at_places

NUM_ROWS = 40_000
COLUMNS = Columns(carried=(), optional=frozenset({"n", "text"}))


def table(first: int = 0, num_rows: int = NUM_ROWS) -> pa.Table:
    numbers = range(first, first + num_rows)
    return pa.table(
        {"n": [*map(str, numbers)], "text": [f'"{n}",\n{"x" * 30}' for n in numbers], "other": [0] * num_rows}
    )


def lines(rows: pa.Table) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows.to_pylist())


def write_stream(rows: pa.Table, path: Path) -> None:
    with ipc.new_stream(str(path), rows.schema) as writer:
        writer.write_table(rows, max_chunksize=1000)


WRITERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "in.parquet": lambda rows, path: pq.write_table(rows, path, row_group_size=1000),
    "one-group.parquet": lambda rows, path: pq.write_table(rows, path, row_group_size=NUM_ROWS),
    "in.arrows": write_stream,
    "in.csv": pc.write_csv,
    "in.jsonl": lambda rows, path: path.write_bytes(lines(rows)),
    "in.jsonl.gz": lambda rows, path: path.write_bytes(gzip.compress(lines(rows), 1)),
}
SPREAD = {"in.parquet", "in.arrows", "in.jsonl"}
"""Those of which any place can be read at once."""


def rows_of(*paths: Path, seed: int = 0, columns: Columns = COLUMNS, **spec: Any) -> list[dict[str, Any]]:
    given = InputSpec(paths=tuple(map(str, paths)), **spec)
    return [dict(row) for row in rows_at_places(list_sources(given), given, columns, seed=seed)]


@pytest.mark.parametrize("name", WRITERS)
def test_rows_of_a_large_file_are_its_own(tmp_path: Path, name: str) -> None:
    WRITERS[name](table(), tmp_path / name)
    found = rows_of(tmp_path / name)
    assert len(found) == PLACES * NEIGHBOURS
    numbers = [int(row["n"]) for row in found]
    assert [row["text"] for row in found] == table()["text"].take(pa.array(numbers)).to_pylist()
    assert all(row.keys() == {"n", "text"} for row in found)
    assert found == rows_of(tmp_path / name)
    places = {number // (NUM_ROWS // PLACES) for number in numbers}
    assert (len(places) > PLACES // 3) == (name in SPREAD)


def test_rows_come_from_a_few_of_many_files(tmp_path: Path) -> None:
    for number in range(20):
        pq.write_table(table(100 * number, 100), tmp_path / f"{number:02}.parquet")
    found = rows_of(tmp_path)
    files = {int(row["n"]) // 100 for row in found}
    assert len(files) == MAX_FILES
    assert len(found) == PLACES * NEIGHBOURS
    assert {int(row["n"]) // 100 for row in rows_of(tmp_path, seed=1)} != files


def test_a_small_input_is_taken_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(table(0, 5)))
    (tmp_path / "b.jsonl").write_bytes(b"")
    (tmp_path / "c.jsonl").write_bytes(lines(table(5, 5)))
    assert [row["n"] for row in rows_of(tmp_path)] == [*map(str, range(10))]


def test_bad_rows_and_missing_columns_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\nnot json\n{"text": "x"}\n{"n": null, "text": 3}\n')
    assert rows_of(tmp_path / "a.jsonl") == [{"n": 1}, {"text": "x"}, {"n": None, "text": 3}]
    (tmp_path / "b.jsonl").write_text('{"other": 1}\n')
    assert rows_of(tmp_path / "b.jsonl") == []


def test_columns_of_folders_and_declared_types_are_there(tmp_path: Path) -> None:
    for shop in ("a", "b"):
        (tmp_path / f"shop={shop}").mkdir()
        (tmp_path / f"shop={shop}" / "in.jsonl").write_text('{"n": "7"}\n')
    columns = Columns(carried=(), optional=frozenset({"shop", "n"}))
    found = rows_of(tmp_path, columns=columns, schema={"n": "string"})
    assert found == [{"n": "7", "shop": "a"}, {"n": "7", "shop": "b"}]
    whole = Columns(carried=(), reads_all=True)
    assert rows_of(tmp_path, columns=whole)[0] == {"n": "7", "shop": "a"}


def test_little_of_a_large_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with a hole of a hundred GB in it, which takes no room on a disk."""
    path, line = tmp_path / "in.jsonl", b'{"n": 1}\n'
    with path.open("wb") as file:
        file.write(line * 100)
        file.truncate(100 << 30)
    num_read = 0
    read = Storage.read

    def counted(self: Storage, path: str, offset: int, length: int) -> bytes:
        nonlocal num_read
        num_read += length
        return read(self, path, offset, length) if offset < len(line) * 100 else line * (length // len(line) + 1)

    def cut(self: Storage, path: str, offset: int, length: int) -> bytes:
        return counted(self, path, offset, length)[:length]

    monkeypatch.setattr(Storage, "read", cut)
    assert len(rows_of(path)) > PLACES
    assert num_read < 100 << 20


def test_what_is_no_file_of_its_format_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(PlanError, match=r"a\.parquet"):
        rows_of(tmp_path / "a.parquet")
