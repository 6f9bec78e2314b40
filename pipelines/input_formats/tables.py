"""What the formats share whose files hold Arrow tables: rows cut into ranges, and a unit's table made to fit the run's schema."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipelines.formats.conform import conform
from pipelines.formats.hive import add_folders
from pipelines.formats.json_values import json_rows
from pipelines.formats.records import MAX_UNIT_BYTES
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.read_guard import UnitContent
from pipelines.rows.rows import RowFailure, UnitRows
from pipelines.rows.unit import Unit


def row_ranges(num_rows: int, num_bytes: int, unit_rows: int) -> Iterator[tuple[int, int]]:
    """Cuts rows into ranges (first, number): by rows, and by bytes as if all were equally long."""
    if num_rows:
        fitting = max(1, MAX_UNIT_BYTES * num_rows // max(num_bytes, 1))
        step = min(unit_rows, fitting)
        yield from ((first, min(step, num_rows - first)) for first in range(0, num_rows, step))


def table_content(unit: Unit, table: pa.Table, schema: pa.Schema) -> UnitContent:
    """A unit's rows as a table in plain types, on the way to `schema`."""
    return UnitContent(
        unit=unit,
        parse=lambda rows: _fit(unit, _rows_of(table, rows), schema),
        given=lambda row: json_rows(_rows_of(table, [row]))[0],
    )


def _fit(unit: Unit, table: pa.Table, schema: pa.Schema) -> UnitRows:
    fitted = conform(add_folders(table, unit.path, schema), schema)
    misfits = sorted(fitted.misfits)
    inputs = dict(zip(misfits, json_rows(_rows_of(table, misfits)), strict=True))
    failures = [RowFailure.of(unit, row, fitted.misfits[row], inputs[row]) for row in inputs]
    return UnitRows.of(unit, ArrowRows(table=fitted.table.combine_chunks()), fitted.positions, failures)


def _rows_of(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """The rows at these positions, which are in order."""
    return table if len(rows) == table.num_rows else table.take(pa.array(rows, pa.int64()))
