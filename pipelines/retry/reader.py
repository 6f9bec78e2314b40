"""Reading units for their dead letters alone: the rows are read from the input again, as the run
read them, and the others left out.

The input of a dead letter is no row: it is JSON, without the types of the run's schema, and may be
one that could not be shown. What is read is checked against the plan, so a row is the one that
failed. A unit that this run has committed already has nothing to read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.errors import OutputError
from pipelines.ledger.commit import Committer
from pipelines.ledger.receipts import read_receipt
from pipelines.retry.letters import letters_of
from pipelines.retry.selection import Selection
from pipelines.rows.rows import UnitRows
from pipelines.rows.set_apart import kept_rows_of
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.units.reading import ReadsUnits


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryReader:
    """Reads with `reader` the rows of `selection`, of units in the output that `committer` writes
    to. Picklable."""

    reader: ReadsUnits
    committer: Committer
    selection: Selection

    def read_units(self, units: Iterable[Unit]) -> Iterator[UnitRows | UnreadableUnit]:
        """Reads units in order; see `UnitReader.read_units`."""
        for found in self.reader.read_units(units):
            yield found if isinstance(found, UnreadableUnit) else self._of_letters(found)

    def _of_letters(self, found: UnitRows) -> UnitRows | UnreadableUnit:
        try:
            rows = self._rows_of(found.unit)
        except OutputError as error:
            return UnreadableUnit(unit=found.unit, message=str(error))
        kept = kept_rows_of(found, np.isin(found.row_numbers, sorted(rows)))
        return UnitRows(
            unit=found.unit,
            rows=kept.rows,
            row_numbers=kept.row_numbers,
            failures=tuple(failure for failure in found.failures if failure.row in rows),
        )

    def _rows_of(self, unit: Unit) -> set[int]:
        """The rows to be tried, by number."""
        store = self.committer.store
        receipt = read_receipt(store, unit.index, self.committer.format)
        if receipt.epoch == self.committer.token.epoch:
            return set()
        return {letter.row for letter in self.selection.of(unit.index, letters_of(store, receipt))}
