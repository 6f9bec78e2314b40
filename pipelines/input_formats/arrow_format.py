"""Arrow IPC as an input: units are rows of neighbouring record batches. Decoding is `pipelines.formats.arrow_ipc`.

A unit has the place of the batch in which it starts as its `row_group`, and its first row in there. Of a stream that is
read in order it has no such place, and its first row in the file. So the units that start in one batch, and those of one
such stream, are read in one pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from pipelines.errors import PlanError
from pipelines.formats.arrow_ipc import Batches, iter_row_ranges, read_batches, read_names
from pipelines.formats.hive import with_folders
from pipelines.formats.records import MAX_UNIT_BYTES
from pipelines.formats.schema import Columns
from pipelines.input_formats.input_format import (
    ColumnsAtHead,
    InputFormat,
    RowsWanted,
    Stretch,
    UnitsFound,
    UnitsWanted,
    pass_of_place,
)
from pipelines.input_formats.layout import why_unreadable
from pipelines.input_formats.saved_dataset import files_of_dataset
from pipelines.input_formats.tables import table_content
from pipelines.io.inputs import Storage
from pipelines.rows.read_guard import UnitContent
from pipelines.rows.unit import NO_ROW_GROUP, Unit


def _columns_at_head(storage: Storage, path: str) -> ColumnsAtHead:
    return ColumnsAtHead(names=read_names(storage, path), is_all=True)


def _scan(wanted: UnitsWanted, stretch: Stretch) -> UnitsFound:
    found = read_batches(wanted.storage, stretch.path, wanted.columns)
    _check_types(found.schema, wanted.columns, stretch.path)
    groups, offsets, sizes, rows = np.array(_places(found, wanted.unit_rows), dtype=np.int64).reshape(-1, 4).T
    schema = with_folders(found.schema, stretch.path)
    return UnitsFound(row_groups=groups, offsets=offsets, num_bytes=sizes, num_rows=rows, schema=schema)


def _check_types(schema: pa.Schema, columns: Columns, path: str) -> None:
    for column in schema:
        if columns.is_needed(column.name) and _has_no_column(column.type):
            raise PlanError(
                f"column {column.name!r} of {path} is {column.type}, which is not read; leave it out of input.columns, "
                "or write it as another type"
            )


def _has_no_column(type: pa.DataType) -> bool:
    """Whether values of this type, anywhere in it, fit no column of an output: unions, and intervals of months, days and seconds."""
    if pa.types.is_union(type) or pa.types.is_interval(type):
        return True
    return pa.types.is_nested(type) and any(_has_no_column(type.field(index).type) for index in range(type.num_fields))


@dataclass(slots=True)
class _Places:
    """Cuts batches that come in turn into units of at most `max_rows` rows and, as if all rows of a batch were equally long, about
    `MAX_UNIT_BYTES` bytes."""

    max_rows: int
    units: list[tuple[int, int, int, int]] = field(default_factory=list)
    _start: tuple[int, int] = (0, 0)
    _rows: int = 0
    _bytes: int = 0

    def add(self, place: int, first: int, num_rows: int, row_bytes: float) -> None:
        """Adds rows of the batch at a place, from row `first` on."""
        while num_rows:
            if not self._rows:
                self._start = place, first
            fitting = int((MAX_UNIT_BYTES - self._bytes) / row_bytes) if row_bytes else num_rows
            taken = min(num_rows, self.max_rows - self._rows, max(fitting, 0 if self._rows else 1))
            self._rows, self._bytes = self._rows + taken, self._bytes + round(taken * row_bytes)
            first, num_rows = first + taken, num_rows - taken
            if num_rows or self._rows == self.max_rows:
                self.finish()

    def finish(self) -> None:
        """Ends the unit that rows are being added to."""
        if self._rows:
            self.units.append((*self._start, self._bytes, self._rows))
        self._rows = self._bytes = 0


def _places(found: Batches, unit_rows: int) -> list[tuple[int, int, int, int]]:
    """Place of the batch, first row, bytes and rows of each unit."""
    places, before = _Places(unit_rows), 0
    for batch, (num_rows, num_bytes) in enumerate(zip(found.num_rows, found.num_bytes, strict=True)):
        place, first = (NO_ROW_GROUP, before) if found.places is None else (found.places[batch], 0)
        places.add(place, first, num_rows, num_bytes / max(num_rows, 1))
        before += num_rows
    places.finish()
    return places.units


def _read(wanted: RowsWanted, units: Sequence[Unit]) -> Iterator[UnitContent]:
    first, ranges = units[0], [(unit.offset, unit.num_rows) for unit in units]
    place = None if first.row_group == NO_ROW_GROUP else first.row_group
    tables = iter_row_ranges(wanted.storage, first.path, place, wanted.schema.names, ranges)
    for unit, table in zip(units, tables, strict=True):
        yield table_content(unit, table, wanted.schema)


ARROW = InputFormat(
    name="arrow",
    title="Arrow",
    endings=(".arrow", ".arrows", ".ipc", ".feather"),
    has_frame=True,
    columns_at_head=_columns_at_head,
    scan=_scan,
    read=_read,
    pass_of=pass_of_place,
    fault=partial(why_unreadable, kind="Arrow"),
    files_of=files_of_dataset,
)
