"""A table's rows for templates, and the rows of it that are kept."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.errors import RowError
from pipelines.kinds import INVALID_VALUE

# What reading an Arrow value raises: text that is no UTF-8, a date out of Python's range, an unknown time zone, a map's key given twice.
_UNREADABLE = (ValueError, TypeError, ArithmeticError, LookupError, NotImplementedError, ImportError)


def column_values(column: "pa.ChunkedArray[Any]", name: str) -> list[Any]:
    """A column's values as Python's, maps as dicts; a `RowError` stands, unraised, in the place of one that cannot be read."""
    try:
        return column.to_pylist(maps_as_pydicts="strict")
    except _UNREADABLE:
        return [_value_or_error(scalar, name) for scalar in column]


def _value_or_error(scalar: Any, name: str) -> Any:
    try:
        return scalar.as_py(maps_as_pydicts="strict")
    except _UNREADABLE as error:
        return RowError(INVALID_VALUE, f"the value of {name!r} cannot be read: {error}")


def row_or_error(row: dict[str, Any]) -> dict[str, Any] | RowError:
    """The row, or the first of its values that is an error."""
    return next((value for value in row.values() if isinstance(value, RowError)), row)


def kept_rows(table: pa.Table, keep: npt.NDArray[np.bool_]) -> pa.Table:
    """The rows where `keep` [N] is true, in order, for every Arrow type (`Table.filter` lacks some)."""
    if keep.all():
        return table
    edges = np.flatnonzero(np.diff(keep, prepend=False, append=False)).reshape(
        -1, 2
    )  # [runs, 2]: first kept, first dropped after
    slices = [table.slice(start, end - start) for start, end in edges.tolist()]
    return pa.concat_tables(slices).combine_chunks() if slices else table.slice(0, 0)
