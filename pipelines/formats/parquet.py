"""Parquet files: what their footers tell the planner, and reading row ranges of a row group.

Parquet can only be decoded from the start of a row group, so the units of one row group are best read in one go, forwards:
`iter_row_ranges` decodes each page once, whatever number of units it holds.

Columns come in the plain types of `pipelines.formats.plain_arrays`. Timestamps of the old kind INT96, which Spark writes, are read as
microseconds: as nanoseconds, which Arrow would make of them, they could not go beyond the year 2262, and 9999-12-31 would be 1816.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import LastingSourceError
from pipelines.formats.plain_arrays import plain_batch, plain_schema
from pipelines.formats.row_stream import RowStream
from pipelines.formats.schema import Columns
from pipelines.io.inputs import Storage, is_remote, reading

_LOCAL_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20
_ROWS_PER_BATCH = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Footer:
    """What a Parquet file holds: its schema, and each row group's rows and bytes in memory of the columns that are needed."""

    schema: pa.Schema
    num_rows: tuple[int, ...]
    num_bytes: tuple[int, ...]


def read_footer(storage: Storage, path: str, columns: Columns) -> Footer:
    """Reads a file's footer.

    Raises:
        SourceError: it cannot be read, or is not Parquet.
    """
    with storage.open(path) as file, reading(path):
        opened = _opened(file)
        metadata = opened.metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        return Footer(
            schema=plain_schema(opened.schema_arrow),
            num_rows=tuple(group.num_rows for group in groups),
            num_bytes=tuple(_needed_bytes(group, columns) for group in groups),
        )


def read_names(storage: Storage, path: str) -> tuple[str, ...]:
    """The names of a file's columns.

    Raises:
        SourceError: it cannot be read, or is not Parquet.
    """
    with storage.open(path) as file, reading(path):
        return tuple(_opened(file).schema_arrow.names)


def _needed_bytes(group: Any, columns: Columns) -> int:
    chunks = (group.column(index) for index in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if _is_needed(chunk.path_in_schema, columns))


def _is_needed(path: str, columns: Columns) -> bool:
    """Whether a leaf belongs to a needed column; its path is dotted, and so may be a column's own name."""
    return columns.is_needed(path) or columns.is_needed(path.split(".", 1)[0])


def iter_row_ranges(
    storage: Storage, path: str, row_group: int, names: Sequence[str], ranges: Sequence[tuple[int, int]]
) -> Iterator[pa.Table]:
    """Yields the rows of each range (first row in the row group, number of rows) in turn; the ranges ascend and do not overlap.

    Columns come with the file's own types; those of `names` that the file lacks are left out.

    Raises:
        SourceError: the file cannot be read, or has fewer rows. The text names a column that cannot be decoded.
    """
    buffer_bytes = _REMOTE_BUFFER_BYTES if is_remote(path) else _LOCAL_BUFFER_BYTES
    with storage.open(path) as file:
        with reading(path):
            opened = _opened(file, pre_buffer=False, buffer_size=buffer_bytes)
            present = [name for name in names if name in opened.schema_arrow.names]
            batches = opened.iter_batches(
                batch_size=min(_ROWS_PER_BATCH, max(count for _, count in ranges)),
                row_groups=[row_group],
                columns=present,
                use_threads=False,
            )
        rows = RowStream(map(plain_batch, batches), path)
        try:
            for start, count in ranges:
                rows.skip(start - rows.position)
                yield pa.Table.from_batches(rows.take(count)).select(present)
        except LastingSourceError as error:
            raise _with_column(error, opened, row_group, present) from error.__cause__


def _opened(file: BinaryIO, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(file, coerce_int96_timestamp_unit="us", **options)


def _with_column(
    error: LastingSourceError, opened: pq.ParquetFile, row_group: int, names: Sequence[str]
) -> LastingSourceError:
    """The error, naming the first column that cannot be decoded by itself."""
    for name in names:
        try:
            for batch in opened.iter_batches(
                _ROWS_PER_BATCH, row_groups=[row_group], columns=[name], use_threads=False
            ):
                plain_batch(batch)
        except (pa.ArrowException, OSError):
            return LastingSourceError(
                f"{error} (in column {name!r}; the job can do without it if input.columns leaves it out)"
            )
    return error
