"""The table of units as a Parquet file, written and read in batches so that neither end ever holds all of it.

`write_units(path)` gives a sink for `pipelines.units.planning`; `iter_units(file)` gives the units back, all or from one number on.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.rows.unit import Unit

_UNITS_PER_BATCH = 8192
_REPEATED = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64()),
        pa.field("path", _REPEATED),
        pa.field("relative_path", _REPEATED),
        pa.field("format", _REPEATED),
        pa.field("row_group", pa.int64()),
        pa.field("offset", pa.int64()),
        pa.field("first_row", pa.int64()),
        pa.field("num_rows", pa.int64()),
        pa.field("num_bytes", pa.int64()),
        pa.field("source_size", pa.int64()),
        pa.field("source_tag", _REPEATED),
        pa.field("is_cuttable", pa.bool_()),
        pa.field("source_digest", _REPEATED),
    ]
)


class UnitWriter:
    """Writes a table of units: call it with units to add them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def __call__(self, units: Sequence[Unit]) -> None:
        self._writer.write_table(to_table(units))

    def start_again(self) -> None:
        """Forgets the units so far."""
        self._writer.close()
        self._open()

    def close(self) -> None:
        """Completes the file."""
        self._writer.close()

    def _open(self) -> None:
        self._writer = pq.ParquetWriter(self._path, SCHEMA, compression="zstd")


def write_units(path: Path) -> AbstractContextManager[UnitWriter]:
    """Opens a table of units for writing. The file is complete once the context has closed.

    Raises:
        OSError: the file cannot be written.
    """
    return closing(UnitWriter(path))


def to_table(units: Iterable[Unit]) -> pa.Table:
    """Units as a table, one per row."""
    return pa.Table.from_pylist([asdict(unit) for unit in units], schema=SCHEMA)


def iter_units(file: BinaryIO, *, start: int = 0) -> Iterator[Unit]:
    """The units of a table from number `start` on, in order."""
    table = pq.ParquetFile(file)
    first = 0
    for group in range(table.num_row_groups):
        num_units = table.metadata.row_group(group).num_rows
        if first + num_units > start:
            yield from _units(table, group, max(0, start - first))
        first += num_units


def _units(table: pq.ParquetFile, group: int, skip: int) -> Iterator[Unit]:
    for batch in table.iter_batches(batch_size=_UNITS_PER_BATCH, row_groups=[group], use_threads=False):
        for values in batch.slice(skip).to_pylist():
            yield Unit(**values)
        skip = max(0, skip - batch.num_rows)
