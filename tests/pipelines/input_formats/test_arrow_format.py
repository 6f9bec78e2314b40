"""Arrow IPC as an input: pyarrow wrote the files, and its own reading of them is what has to come back."""

import io
import os
import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from pipelines.errors import PlanError, SourceError
from pipelines.formats.schema import Columns
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import UnreadableUnit
from pipelines.units.reading import group_units
from tests.pipelines.formats.test_plain_arrays import arrays
from tests.pipelines.units.test_reading import Corpus, no_sleep

_ARROW: Any = pa
_COMPUTE: Any = pc
FORMS: tuple[Any, ...] = (ipc.new_file, ipc.new_stream)
every_form = pytest.mark.parametrize("make", FORMS, ids=["file", "stream"])
TABLE = pa.table({"id": list(range(100)), "text": [f"row {number}" for number in range(100)]})


def write(path: Path, make: Any, *batches: Any, **options: Any) -> Path:
    with make(path, batches[0].schema, options=ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write(batch)
    return path


def content(make: Any, table: pa.Table = TABLE) -> bytes:
    buffer = io.BytesIO()
    with make(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    return buffer.getvalue()


@every_form
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("sizes", [(1,) * 100, (100,), (30, 0, 33, 0, 37), (0, 99, 1)], ids=str)
@pytest.mark.parametrize("unit_rows", [1, 7, 1000])
def test_batches_of_any_size_are_the_same_rows(
    tmp_path: Path, make: Any, compression: str | None, sizes: tuple[int, ...], unit_rows: int
) -> None:
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    batches = [TABLE.slice(start, size).to_batches() for start, size in zip(starts, sizes, strict=True)]
    whole = [some[0] if some else TABLE.schema.empty_table().to_batches()[0:1] for some in batches]
    kept = [batch for batch in whole if isinstance(batch, pa.RecordBatch)]
    corpus = Corpus(write(tmp_path / "in.arrow", make, *kept, compression=compression), unit_rows=unit_rows)
    assert corpus.rows() == TABLE.to_pylist()
    assert [unit.num_rows for unit in corpus.units[:-1]] == [unit_rows] * (len(corpus.units) - 1)
    assert [unit.first_row for unit in corpus.units] == list(range(0, 100, unit_rows))


def test_columns_of_every_type_survive(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "decimal": pa.array([Decimal("1.50"), None], pa.decimal128(38, 2)),
        "wide": pa.array([Decimal(10**70), None], pa.decimal256(76, 0)),
        "narrow": pa.array([Decimal("1.50"), None], _ARROW.decimal32(5, 2)),
        "at": pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")),
        "day": pa.array([1, None], pa.date32()),
        "time": pa.array([1, None], pa.time64("us")),
        "lasts": pa.array([1, None], pa.duration("s")),
        "category": pa.array(["x", None]).dictionary_encode(),
        "runs": _COMPUTE.run_end_encode(pa.array(["x", None])),
        "view": pa.array(["x" * 50, None], pa.string_view()),
        "views": pa.array([["x" * 50, None], None], pa.list_view(pa.string_view())),
        "binary": pa.array([b"\xff", None]),
        "fixed": pa.array([b"ab", None], pa.binary(2)),
        "large": pa.array(["ä" * 1000, None], pa.large_string()),
        "half": pa.array([1.5, None], pa.float16()),
        "map": pa.array([[("k", 1.5)], None], pa.map_(pa.string(), pa.float32())),
        "nested": pa.array([{"a": [{"b": [1]}, None]}, None]),
        "null": pa.nulls(2),
        "uuid": pa.array([b"0123456789abcdef", None], pa.uuid()),
        "json": pa.array(['{"a": 1}', None], pa.json_(pa.string())),
        "flag": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
        "tensor": pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
        "in lists": pa.ListArray.from_arrays(
            pa.array([0, 1, 1], pa.int32()),
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16))),
        ),
    }
    table = pa.table(columns)
    for make in FORMS:
        corpus = Corpus(write(tmp_path / "in.arrow", make, *table.to_batches()), unit_rows=1)
        read = pa.concat_tables([rows.rows.as_arrow().table for rows in corpus.read()])
        assert read.to_pylist() == table.to_pylist()
        pq.write_table(read, tmp_path / "out.parquet")
        assert pq.read_table(tmp_path / "out.parquet").to_pylist() == table.to_pylist()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=st.integers(1, 5).flatmap(lambda length: arrays(length, 2)), make=st.sampled_from(FORMS))
def test_drawn_types_come_back_from_drawn_places(tmp_path: Path, array: Any, make: Any) -> None:
    batch = pa.RecordBatch.from_arrays([array], names=["a"])
    corpus = Corpus(write(tmp_path / "in.arrow", make, batch, batch), unit_rows=2)
    read = pa.concat_tables([rows.rows.as_arrow().table for rows in corpus.read()])
    assert read.column("a").to_pylist() == array.to_pylist() * 2


@pytest.mark.parametrize("options", [{}, {"emit_dictionary_deltas": True}], ids=["replaced", "deltas"])
def test_dictionaries_that_change_within_a_stream(tmp_path: Path, options: dict[str, Any]) -> None:
    texts = [["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]]
    batches = [pa.RecordBatch.from_arrays([pa.array(some).dictionary_encode()], names=["a"]) for some in texts]
    corpus = Corpus(write(tmp_path / "in.arrows", ipc.new_stream, *batches, **options), unit_rows=4)
    assert [row["a"] for row in corpus.rows()] == [text for some in texts for text in some]


@pytest.mark.parametrize(
    ("column", "sizes"),
    [
        (pa.array(["a", "b"] * 50), [10] * 10),
        (pa.array(["a", "b"] * 50).dictionary_encode(), [100]),
        (pa.array([{"a": ["x"]}] * 100, _ARROW.struct({"a": pa.list_(pa.dictionary(pa.int32(), pa.string()))})), [100]),
    ],
    ids=["plain", "dictionary", "nested"],
)
def test_a_stream_is_read_in_one_pass_where_batches_need_those_before(
    tmp_path: Path, column: Any, sizes: list[int]
) -> None:
    batches = pa.table({"a": column}).to_batches(max_chunksize=10)
    corpus = Corpus(write(tmp_path / "in.arrow", ipc.new_stream, *batches), unit_rows=1)
    assert [len(group) for group in group_units(corpus.units)] == sizes
    assert corpus.reader.read_unit(corpus.units[77]).rows.as_json() == [{"a": column[77].as_py()}]


@every_form
def test_a_batch_is_read_without_those_before_it(tmp_path: Path, make: Any) -> None:
    path = write(tmp_path / "in.arrow", make, *TABLE.to_batches(max_chunksize=50))
    corpus, stat, damaged = Corpus(path, unit_rows=50), path.stat(), bytearray(path.read_bytes())
    first_text = damaged.index(b"row 0row 1")
    damaged[first_text - 256 : first_text] = b"\xff" * 256  # the offsets of the first batch
    path.write_bytes(damaged)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    with pytest.raises(SourceError):
        corpus.reader.read_unit(corpus.units[0])
    assert corpus.reader.read_unit(corpus.units[1]).rows.as_json() == TABLE.slice(50).to_pylist()


@every_form
def test_a_unit_holds_its_rows_and_no_more(tmp_path: Path, make: Any) -> None:
    """Neither the batch it was cut from, nor the dictionary of a column."""
    texts = pa.array([f"text {number:06d}" for number in range(50_000)])
    batch = pa.RecordBatch.from_arrays(
        [texts, texts.dictionary_encode(), pa.array([[text] for text in texts.to_pylist()])], names=["a", "b", "c"]
    )
    corpus = Corpus(write(tmp_path / "in.arrow", make, batch), unit_rows=10)
    rows = corpus.reader.read_unit(corpus.units[4000])
    assert rows.rows.as_json()[0] == {"a": "text 040000", "b": "text 040000", "c": ["text 040000"]}
    assert len(pickle.dumps(rows)) < 10_000


@every_form
def test_of_a_mapped_batch_only_the_rows_of_a_unit_are_in_memory(tmp_path: Path, make: Any) -> None:
    """A batch of 64 MB, planned and read in units: Arrow never allocates a hundredth of it at once."""
    batch = pa.RecordBatch.from_arrays([pa.array(["x" * 64] * 1_000_000)], names=["a"])
    write(tmp_path / "in.arrow", make, batch)
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        corpus = Corpus(tmp_path / "in.arrow", unit_rows=4096)
        num_rows = sum(
            rows.rows.num_rows for rows in corpus.reader.read_units(corpus.units) if isinstance(rows, UnitRows)
        )
    finally:
        pa.set_memory_pool(before)
    assert num_rows == 1_000_000
    assert (pool.max_memory() or 0) < batch.nbytes / 50


@every_form
def test_only_needed_columns_count_and_are_read(tmp_path: Path, make: Any) -> None:
    images = pa.array([b"x" * (1 << 20)] * 40)
    table = pa.table({"image": images, "text": [f"row {number}" for number in range(40)]})
    path = write(tmp_path / "in.arrow", make, *table.to_batches())
    corpus = Corpus(path, columns=Columns(carried=("text",)))
    assert corpus.plan.schema.names == ["text"]
    assert [unit.num_rows for unit in corpus.units] == [40]
    assert [unit.num_rows for unit in Corpus(path).units] == [7, 7, 7, 7, 7, 5]


def test_columns_of_folders_are_added(tmp_path: Path) -> None:
    (tmp_path / "day=1").mkdir()
    write(tmp_path / "day=1" / "in.arrow", ipc.new_file, *TABLE.slice(0, 2).to_batches())
    corpus = Corpus(tmp_path)
    assert corpus.rows() == [row | {"day": "1"} for row in TABLE.slice(0, 2).to_pylist()]
    only = Corpus(tmp_path, columns=Columns(carried=("day",)))
    assert only.rows() == [{"day": "1"}, {"day": "1"}]


def test_text_that_is_no_utf8_is_a_failure_of_its_row(tmp_path: Path) -> None:
    raw = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff\xfe", b"c"]).buffers())
    corpus = Corpus(write(tmp_path / "in.arrow", ipc.new_stream, pa.RecordBatch.from_arrays([raw], names=["a"])))
    assert corpus.rows() == [{"a": "a"}, {"a": "c"}]
    (failure,) = corpus.failures()
    assert (failure.row, failure.kind, failure.input) == (1, "invalid_utf8", {"a": {"_raw_base64": "//4="}})


def test_feather_and_old_streams_are_arrow(tmp_path: Path) -> None:
    feather.write_feather(TABLE, str(tmp_path / "in.feather"))
    assert Corpus(tmp_path / "in.feather").rows() == TABLE.to_pylist()
    write(tmp_path / "in.arrow", ipc.new_stream, *TABLE.to_batches(), use_legacy_format=True)
    assert Corpus(tmp_path / "in.arrow").rows() == TABLE.to_pylist()


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (
            pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])]),
            "is sparse_union<.*which is not read",
        ),
        (pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), "is month_day_nano_interval, which is not read"),
        (pa.array([[(1, 2, 3)], None], pa.list_(pa.month_day_nano_interval())), "which is not read"),
    ],
    ids=["union", "interval", "nested"],
)
def test_a_type_that_fits_no_output_is_refused_unless_it_is_left_out(tmp_path: Path, column: Any, told: str) -> None:
    batch = pa.RecordBatch.from_arrays([column, pa.array(["x", "y"])], names=["odd", "text"])
    write(tmp_path / "in.arrow", ipc.new_file, batch)
    with pytest.raises(PlanError, match=f"column 'odd' of .*{told}"):
        Corpus(tmp_path / "in.arrow")
    assert Corpus(tmp_path / "in.arrow", columns=Columns(carried=("text",))).rows() == [{"text": "x"}, {"text": "y"}]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "in.arrow", ipc.new_file, pa.RecordBatch.from_arrays([pa.array([1])] * 2, names=["a", "a"]))
    with pytest.raises(PlanError, match="two columns called 'a'"):
        Corpus(tmp_path / "in.arrow")


@every_form
def test_a_file_without_rows_holds_none(tmp_path: Path, make: Any) -> None:
    (tmp_path / "0.arrow").write_bytes(content(make, TABLE.slice(0, 0)))
    with pytest.raises(PlanError, match="the input has no rows"):
        Corpus(tmp_path)
    (tmp_path / "1.arrow").write_bytes(content(make))
    assert Corpus(tmp_path).rows() == TABLE.to_pylist()


def message_ends(stream: bytes) -> list[int]:
    """Where each message of a stream ends: its schema, then its batches."""
    buffer, ends = pa.BufferReader(stream), []
    for _ in range(5):
        ipc.read_message(buffer)
        ends.append(buffer.tell())
    return ends


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(TABLE, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("in.arrow", parquet(), r"is Parquet, though .* rename it to in\.parquet"),
        ("in.arrow", b'{"a": 1}\n', r"is no Arrow: no magic bytes at its start"),
        ("in.arrow", b"", r"it is empty \(0 bytes\), which no Arrow file is"),
        ("in.feather", b"FEA1" + bytes(50), "is Feather of version 1, though .* convert it"),
        ("in.arrow", content(ipc.new_file)[:-3], "is cut off: an Arrow file ends with b'ARROW1'"),
        ("in.arrow", content(ipc.new_stream)[:-300], r"cannot read .*in\.arrow"),
        ("in.parquet", content(ipc.new_file), r"is an Arrow file, though .* rename it to in\.arrow"),
        ("in.parquet", content(ipc.new_stream), r"is an Arrow stream, though .* rename it to in\.arrow"),
        ("in.jsonl", content(ipc.new_stream), r"is an Arrow stream, though .* rename it to in\.arrow"),
    ],
)
def test_what_is_no_arrow_or_arrow_under_another_name_is_told(
    tmp_path: Path, name: str, given: bytes, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_bytes(given)
    with pytest.raises(PlanError, match=told) as caught:
        Corpus(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "attempt" not in caplog.text


@every_form
def test_a_file_that_is_cut_off_anywhere_is_told(tmp_path: Path, make: Any) -> None:
    """But for a stream that ends with a whole message, which is a stream: its end needs no mark."""
    whole, path = content(make), tmp_path / "in.arrow"
    ends = message_ends(whole) if make is ipc.new_stream else []
    for length in sorted({*range(0, len(whole), 97), *ends[1:]}):
        path.write_bytes(whole[:length])
        if make is ipc.new_stream and length in ends:
            assert Corpus(path).rows() == TABLE.to_pylist()[: 30 * ends.index(length)]
            continue
        with pytest.raises(PlanError, match=str(path)):
            Corpus(path)


def test_a_batch_that_is_damaged_after_planning_ends_its_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "in.arrow", ipc.new_stream, *TABLE.to_batches(max_chunksize=50), compression="lz4")
    corpus, stat = Corpus(path, unit_rows=50), path.stat()
    damaged = bytearray(path.read_bytes())
    damaged[-300:-200] = bytes(100)
    path.write_bytes(damaged)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    first, second = corpus.reader.read_units(corpus.units, sleep=no_sleep)
    assert not isinstance(first, UnreadableUnit)
    assert isinstance(second, UnreadableUnit)
    assert not second.is_fault
    with pytest.raises(SourceError, match=r"cannot read .*in\.arrow"):
        corpus.reader.read_unit(corpus.units[1])


def test_damaged_files_end_no_process() -> None:
    """Offsets, sizes and indices that point outside of a batch are errors, wherever they stand."""
    command = [sys.executable, "-m", "tests.helpers.pipelines.damaged_arrow", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"refused", "unreadable", "read"} <= set(eval(done.stdout))  # noqa: S307 - what the helper printed
