"""Making a table fit the run's schema, and finding the rows that do not.

Columns are cast as a whole; only where that fails is the column cast row by row. Nothing is rounded or cut: a cast that would lose
something is refused. Text that is not valid UTF-8 is found the same way, and a date so far away that no text can show it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import RowError
from pipelines.formats.schema import decoded
from pipelines.formats.times import beyond_text, has_dates, parse_timestamps
from pipelines.kinds import INVALID_VALUE

_BEYOND_TEXT = (
    "column {!r} holds a {} beyond the years that can be written; leave it out of input.columns, or give it the type int64 in "
    "input.schema (int32 for dates), which keeps its number"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conformed:
    """The rows that fit, their positions in the table that was given, and why each of the others does not."""

    table: pa.Table
    positions: list[int]
    misfits: dict[int, RowError]


def conform(table: pa.Table, schema: pa.Schema) -> Conformed:
    """Gives `table` the columns and types of `schema`; a column that it lacks is null."""
    misfits: dict[int, RowError] = {}
    columns = []
    for field in schema:
        if field.name in table.column_names:
            columns.append(_fitted(table.column(field.name), field, misfits))
        else:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
    whole = pa.Table.from_arrays(columns, schema=schema)
    positions = [row for row in range(table.num_rows) if row not in misfits]
    return Conformed(
        table=whole.take(pa.array(positions, pa.int64())) if misfits else whole, positions=positions, misfits=misfits
    )


def _fitted(
    column: "pa.ChunkedArray[Any]", field: "pa.Field[Any]", misfits: dict[int, RowError]
) -> "pa.ChunkedArray[Any]":
    """The column in the field's type, null in the rows it adds to `misfits`."""
    if has_text(column.type) and not _is_valid(column):
        column = column.cast(decoded(column.type))
        for row in (row for row in range(len(column)) if not _is_valid(column.take(pa.array([row])))):
            misfits.setdefault(
                row, RowError("invalid_utf8", f"column {field.name!r} holds text that is not valid UTF-8")
            )
    if has_dates(field.type):
        for row in _rows_beyond_text(column):
            misfits.setdefault(row, RowError(INVALID_VALUE, _BEYOND_TEXT.format(field.name, field.type)))
    if misfits:
        column = _with_nulls(column, misfits)
    if column.type == field.type:
        return column
    try:
        return cast_column(column, field.type)
    except pa.ArrowException:
        return _cast_by_row(column, field, misfits)


def cast_column(column: "pa.ChunkedArray[Any]", type: pa.DataType) -> "pa.ChunkedArray[Any]":
    """The column as `type`; text becomes timestamps as `pipelines.formats.times` reads them.

    Raises:
        pa.ArrowException: a value does not fit.
    """
    if isinstance(type, pa.TimestampType) and has_text(column.type):
        parsed: pa.ChunkedArray[Any] = parse_timestamps(column, type)
        return parsed
    return column.cast(type)


def _rows_beyond_text(column: "pa.ChunkedArray[Any]") -> list[int]:
    chunks = [beyond_text(chunk) for chunk in column.chunks]
    return np.flatnonzero(np.concatenate(chunks)).tolist() if chunks else []


def _cast_by_row(
    column: "pa.ChunkedArray[Any]", field: "pa.Field[Any]", misfits: dict[int, RowError]
) -> "pa.ChunkedArray[Any]":
    fitted: list[pa.Array[Any]] = []
    for row in range(len(column)):
        try:
            fitted += cast_column(column.slice(row, 1), field.type).chunks
        except pa.ArrowException as error:
            fitted.append(pa.nulls(1, field.type))
            text = f"column {field.name!r} is {field.type} in this run, and the value does not fit: {error}"
            misfits.setdefault(row, RowError("schema_mismatch", text))
    return pa.chunked_array(fitted, type=field.type)


def _with_nulls(column: "pa.ChunkedArray[Any]", misfits: dict[int, RowError]) -> "pa.ChunkedArray[Any]":
    positions = np.arange(len(column))
    kept: Any = pa.array(positions, mask=np.isin(positions, list(misfits)))
    return column.take(kept)


def has_text(type: pa.DataType) -> bool:
    """Whether values of this type hold text anywhere."""
    if pa.types.is_dictionary(type):
        return has_text(type.value_type)
    if pa.types.is_nested(type):
        return any(has_text(type.field(index).type) for index in range(type.num_fields))
    return pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type)


def _is_valid(column: "pa.ChunkedArray[Any]") -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
