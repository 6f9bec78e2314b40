"""The tables that carry units from one operator to the next: one row is one unit, one block is one row.

Columns hold pickled values, so that an operator unpacks what it works on and hands the rest on as bytes. The pickles live between the
processes of one run only.
"""

import pickle
from typing import Any

import pyarrow as pa

PREPARED = "prepared"
"""What reading made of a unit: a `PreparedUnit`, or an outcome if there is nothing to compute."""

WORK = "work"
"""What the engine computes of it: `EngineWork`; null if there is nothing to compute."""

ANSWERS = "answers"
"""What the engine made of the work: `Answers`; null if nothing was computed."""

ROWS = "rows"
"""Of a cascade: the unit as it was read, `UnitRows`, which every step takes its rows from; null if there is nothing to compute."""

KEPT = "kept"
"""Of a cascade: what the steps so far have answered for good, a tuple of `KeptRows`; null before the first has."""

OUTCOME = "outcome"
"""What became of the unit: a `pipelines.graph.outcomes.UnitOutcome`."""


def block_of(**values: Any) -> pa.Table:
    """One row with a column for each value; None stays null."""
    return pa.table({name: _column(None if value is None else packed(value)) for name, value in values.items()})


def with_packed(block: pa.Table, old: str, new: str, value: bytes | None) -> pa.Table:
    """The same row with column `old` replaced by a column `new` of what `packed` gave; the other columns are not touched."""
    return block.drop_columns([old]).append_column(new, _column(value))


def value_in(block: pa.Table, column: str) -> Any:
    """The value of a column, None if it is null."""
    found = _scalar(block, column)
    return unpacked(found.as_buffer()) if found.is_valid else None


def packed_in(block: pa.Table, column: str) -> bytes | None:
    """What `packed` gave for the value of a column, None if it is null."""
    found: bytes | None = _scalar(block, column).as_py()
    return found


def packed(value: Any) -> bytes:
    """How a value stands in a column."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def unpacked(value: bytes | pa.Buffer) -> Any:
    """The value that `packed` gave this for."""
    return pickle.loads(value)  # noqa: S301 - written by this run's own processes


def _column(value: bytes | None) -> "pa.Array[Any]":
    return pa.array([value], pa.large_binary())


def _scalar(block: pa.Table, column: str) -> Any:
    if block.num_rows != 1:
        raise AssertionError(f"a block holds one unit, this one holds {block.num_rows}")
    return block.column(column)[0]
