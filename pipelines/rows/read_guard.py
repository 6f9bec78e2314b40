"""Reading the rows of one unit under `pipelines.rows.row_guard`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.errors import RowError
from pipelines.rows.row_guard import guarded
from pipelines.rows.rows import BoolArray, JsonRow, RowFailure, UnitRows
from pipelines.rows.set_apart import unshown
from pipelines.rows.unit import Unit


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitContent:
    """A unit that is in memory: `parse` makes rows of those at some positions, as if they were the whole unit, and `given` shows the one
    at a position as it is in the file."""

    unit: Unit
    parse: Callable[[Sequence[int]], UnitRows]
    given: Callable[[int], JsonRow]


def read_guarded(content: UnitContent) -> UnitRows:
    """A unit's rows.

    Raises:
        Exception: what `parse` raised, where no row alone is the cause.
    """
    unit, parse = content.unit, content.parse

    def attempt(faulty: Mapping[int, RowError]) -> UnitRows:
        positions = [row for row in range(unit.num_rows) if row not in faulty]
        rows = parse(positions)
        return _in_place(unit, rows, positions, faulty, content.given) if faulty else rows

    def probe(keep: BoolArray) -> None:
        parse(np.flatnonzero(keep).tolist())

    return guarded(unit.num_rows, attempt, probe)


def _in_place(
    unit: Unit,
    rows: UnitRows,
    positions: Sequence[int],
    faulty: Mapping[int, RowError],
    given: Callable[[int], JsonRow],
) -> UnitRows:
    """The rows with the numbers that they have in the file, and the others as failures."""
    numbers = np.array(positions, np.int64) + unit.first_row
    moved = [replace(failure, row=int(numbers[failure.row - unit.first_row])) for failure in rows.failures]
    apart = [
        RowFailure(row=unit.first_row + row, kind=error.kind, message=error.message, input=_given_or_reason(given, row))
        for row, error in faulty.items()
    ]
    failures = sorted((*moved, *apart), key=lambda failure: failure.row)
    return replace(rows, row_numbers=numbers[rows.row_numbers - unit.first_row], failures=tuple(failures))


def _given_or_reason(given: Callable[[int], JsonRow], row: int) -> JsonRow:
    try:
        return given(row)
    except Exception as error:  # noqa: BLE001 - the row boundary: the letter says where the row is
        return unshown(error)
