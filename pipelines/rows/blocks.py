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

OUTCOME = "outcome"
"""What became of the unit: a `pipelines.graph.outcomes.Outcome`."""


def block_of(**values: Any) -> pa.Table:
    """One row with a column for each value; None stays null."""
    return pa.table({name: pa.array([_packed(value)], pa.large_binary()) for name, value in values.items()})


def with_value(block: pa.Table, old: str, new: str, value: Any) -> pa.Table:
    """The same row with column `old` replaced by a column `new`; the other columns are not touched."""
    return block.drop_columns([old]).append_column(new, pa.array([_packed(value)], pa.large_binary()))


def value_in(block: pa.Table, column: str) -> Any:
    """The value of a column, None where it is null."""
    if block.num_rows != 1:
        raise AssertionError(f"a block holds one unit, this one holds {block.num_rows}")
    scalar = block.column(column)[0]
    return pickle.loads(scalar.as_buffer()) if scalar.is_valid else None  # noqa: S301 - written by this run's own processes


def _packed(value: Any) -> bytes | None:
    return None if value is None else pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
