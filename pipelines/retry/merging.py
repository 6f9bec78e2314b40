"""A unit some of whose dead letters were tried again, put together anew: what it had stays as it
was, byte for byte where it has lines and value for value in Parquet, and new results stand in
their rows' places.

    merged(held, tried, finished, format) -> MergedUnit

Which rows have results is not written anywhere: all of a unit that are no dead letters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import OutputError
from pipelines.job import OutputFormat
from pipelines.ledger.receipts import GenerationRows, Receipt
from pipelines.ledger.unit_files import encode_results, encode_table, letter_line, result_table
from pipelines.retry.letters import DeadLetter, lines_of
from pipelines.rows.rows import FinishedUnit, Int64Array, StepCounts
from pipelines.rows.unit import Unit


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldUnit:
    """What a unit holds: its receipt, its results as they are written, and its dead letters by row
    number."""

    receipt: Receipt
    data: bytes
    letters: Sequence[DeadLetter]


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedUnit:
    """What it is to hold: the bytes of its two files, and how many rows each has."""

    data: bytes
    errors: bytes
    num_written: int
    num_failed: int


def merged(held: HeldUnit, tried: Sequence[DeadLetter], finished: FinishedUnit, format: OutputFormat) -> MergedUnit:
    """The unit with what became of the letters that were `tried`, in `finished`.

    Raises:
        OutputError: the results are of other columns than those that are there.
    """
    unit = finished.unit
    failures = {failure.row: failure for failure in finished.failures}
    attempts = {letter.row: letter.attempts for letter in tried}
    assert failures.keys() <= attempts.keys(), "only what was tried can have failed again"
    new_rows = [row for row in attempts if row not in failures]
    assert len(new_rows) == finished.results.num_rows, "every row that was tried has a result, or failed again"
    lines = {letter.row: letter.line for letter in held.letters if letter.row not in attempts}
    lines |= {row: letter_line(unit, each, attempts=attempts[row] + 1) for row, each in failures.items()}
    old_rows = _rows_with_results(unit, held.letters)
    return MergedUnit(
        data=_results(held, old_rows, finished, new_rows, format) if new_rows else held.data,
        errors=b"".join(lines[row] for row in sorted(lines)),
        num_written=len(old_rows) + len(new_rows),
        num_failed=len(lines),
    )


def steps_with(before: Sequence[StepCounts], more: Sequence[StepCounts]) -> tuple[StepCounts, ...]:
    """What each model of a cascade did in all; nothing without one."""
    return tuple(one + other for one, other in zip_longest(before, more, fillvalue=StepCounts()))


def generations_with(
    before: Sequence[GenerationRows], generation: int, rows: Sequence[int]
) -> tuple[GenerationRows, ...]:
    """Which rows are of which later generation, once these are of another."""
    of: dict[int, int] = {row: each.generation for each in before for row in each.rows}
    of |= dict.fromkeys(rows, generation)
    by_generation: dict[int, list[int]] = {}
    for row in sorted(of):
        by_generation.setdefault(of[row], []).append(row)
    return tuple(
        GenerationRows(generation=number, rows=tuple(by_generation[number]))
        for number in sorted(by_generation)
        if number
    )


def _rows_with_results(unit: Unit, letters: Sequence[DeadLetter]) -> list[int]:
    failed = {letter.row for letter in letters}
    return [row for row in range(unit.first_row, unit.first_row + unit.num_rows) if row not in failed]


def _results(
    held: HeldUnit, old_rows: Sequence[int], finished: FinishedUnit, new_rows: Sequence[int], format: OutputFormat
) -> bytes:
    order = np.argsort([*old_rows, *new_rows])
    if format == "parquet":
        new = result_table(finished)
        old = _in_types(pq.ParquetFile(pa.BufferReader(held.data)).read(), new.schema, held)
        return encode_table(_in_order(pa.concat_tables([old, new]), order))
    lines = [*lines_of(held.data), *lines_of(encode_results(finished, format))]
    return b"".join(lines[place] for place in order.tolist())


def _in_order(table: pa.Table, order: Int64Array) -> pa.Table:
    """The rows at these places, for every Arrow type (`Table.take` lacks some)."""
    edges = np.flatnonzero(np.diff(order) != 1) + 1
    slices = [table.slice(int(run[0]), len(run)) for run in np.split(order, edges)]
    return pa.concat_tables(slices)


def _in_types(table: pa.Table, schema: pa.Schema, held: HeldUnit) -> pa.Table:
    """The table as it was before it was written: reading gives some types back in another form."""
    if table.schema.names != schema.names:
        raise _other_columns(held, f"{', '.join(table.schema.names)} -> {', '.join(schema.names)}")
    columns: list[Any] = []
    for field in schema:
        column = table.column(field.name)
        try:
            columns.append(_column_in_type(column, field.type))
        except pa.ArrowException as error:
            raise _other_columns(held, f"{field.name}: {column.type} -> {field.type}") from error
    return pa.Table.from_arrays(columns, schema=schema)


def _column_in_type(column: Any, type_: Any) -> Any:
    if column.type == type_:
        return column
    if isinstance(type_, pa.DictionaryType):
        plain = column.cast(type_.value_type) if isinstance(column.type, pa.DictionaryType) else column
        return plain.cast(type_.value_type).combine_chunks().dictionary_encode().cast(type_)
    return column.cast(type_)


def _other_columns(held: HeldUnit, change: str) -> OutputError:
    return OutputError(
        f"{held.receipt.data.name} has other columns than the new results ({change}); "
        "retry with the task and the model that it was written with, or start a run in a new output folder"
    )
