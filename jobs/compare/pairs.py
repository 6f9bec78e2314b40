"""The rows of two runs side by side: by file and row number, in bounded memory, or by the value of a carried column."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from jobs.compare.sides import Side, SideRow, Sides
from jobs.errors import UsageError
from pipelines.formats.batch_lines import BATCH_FORMAT
from pipelines.formats.json_values import dump_json
from pipelines.formats.schema import shown_names


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPair:
    """One row in both runs; None where one does not have it at all."""

    a: SideRow | None
    b: SideRow | None


def pairs_by_place(sides: Sides) -> Iterator[RowPair]:
    """The rows of every file of either run, those of both together."""
    for file in dict.fromkeys((*sides.a.files, *sides.b.files)):
        tagged = (
            ((row.number, "a", row) for row in sides.a.rows(file)),
            ((row.number, "b", row) for row in sides.b.rows(file)),
        )
        merged = heapq.merge(*tagged, key=lambda entry: entry[:2])
        for _, entries in groupby(merged, key=lambda entry: entry[0]):
            found = {side: row for _, side, row in entries}
            yield RowPair(a=found.get("a"), b=found.get("b"))


def pairs_by_column(sides: Sides, column: str) -> Iterator[RowPair]:
    """The rows of the second run with those of the first that have the same value in `column`, then what is left of the first. Holds the
    first run's results. Dead letters carry nothing, so they have no partner.

    Raises:
        UsageError: the column is not carried, or a value is null or not the only one.
    """
    left: dict[bytes, SideRow] = {}
    for key, row in _keyed(sides.a, column):
        if key is None:
            yield RowPair(a=row, b=None)
        else:
            left[key] = row
    for key, row in _keyed(sides.b, column):
        yield RowPair(a=None if key is None else left.pop(key, None), b=row)
    yield from (RowPair(a=row, b=None) for row in left.values())


def _keyed(side: Side, column: str) -> Iterator[tuple[bytes | None, SideRow]]:
    """Every row with its value, None for a dead letter."""
    output = side.output
    carried = output.carried | ({"custom_id"} if output.record.format == BATCH_FORMAT else set())
    if column not in carried:
        raise UsageError(
            f"--by {column}: {side.name} carries no such column; it carries {shown_names(sorted(carried)) or 'none'}"
        )
    seen: set[bytes] = set()
    for file in side.files:
        for row in side.rows(file, column):
            if row.result is None:
                yield None, row
                continue
            at = f"--by {column}: row {row.number} of {row.path} in {side.name}"
            value = row.carried.get(column)
            if value is None:
                raise UsageError(f"{at} has no value there; give a column that tells rows apart")
            key = dump_json(value)
            if key in seen:
                raise UsageError(
                    f"{at} has {key.decode(errors='replace')[:80]}, as a row before; give a column that tells rows apart"
                )
            seen.add(key)
            yield key, row
