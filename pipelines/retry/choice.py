"""Choosing the dead letters of an output that are tried again, by a look at all of them.

    choice = choose(store, record, survey, Selection(kinds=("too_long",)), limit=100)
    choice.num_rows, choice.units          # and choice.selection, by which workers know the same rows

A bounded number of letters is in memory at a time, and a few numbers for each unit that has some
to try.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from pipelines.io.outputs import Store
from pipelines.ledger.ledger import Survey
from pipelines.ledger.planned_units import rows_of_units
from pipelines.ledger.receipts import Receipt, iter_receipts
from pipelines.ledger.run_record import RunRecord
from pipelines.retry.letters import DeadLetter, letters_of
from pipelines.retry.selection import Selection

_READERS = 16
_UNITS_PER_BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class TriedUnit:
    """A unit with letters to try: how many, and what its receipt said before."""

    num_tried: int
    num_failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, num_tried: int, receipt: Receipt) -> Self:
        return cls(
            num_tried=num_tried,
            num_failed=receipt.num_failed,
            prompt_tokens=receipt.prompt_tokens,
            cached_tokens=receipt.cached_tokens,
            completion_tokens=receipt.completion_tokens,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What is tried again: the rule, and the units that it finds letters in."""

    selection: Selection
    units: Mapping[int, TriedUnit]

    @property
    def num_rows(self) -> int:
        """How many letters are."""
        return sum(unit.num_tried for unit in self.units.values())


def choose(store: Store, record: RunRecord, survey: Survey, selection: Selection, *, limit: int | None) -> Choice:
    """The letters of committed units that `selection` means, the first `limit` of them in the
    order of the input.

    Raises:
        DamageError: a file of the output is not what was committed.
        SelectionError: the condition cannot be told of a letter.
        OutputError: the output cannot be read.
    """
    units: dict[int, TriedUnit] = {}
    left = limit
    for receipt, letters in _with_letters(store, record, survey):
        found = selection.of(receipt.unit, letters)[:left]
        if found:
            units[receipt.unit] = TriedUnit.of(len(found), receipt)
        if left is not None:
            left -= len(found)
            if left == 0:
                selection = replace(selection, last=(receipt.unit, found[-1].row))
                break
    return Choice(selection=selection, units=units)


def _with_letters(store: Store, record: RunRecord, survey: Survey) -> Iterator[tuple[Receipt, list[DeadLetter]]]:
    """The units that have dead letters, in order."""
    receipts = iter_receipts(store, record.format, rows_of_units(store, record))
    failed = (each for each in receipts if each.num_failed and survey.is_committed[each.unit])
    in_order = iter(sorted(failed, key=lambda receipt: receipt.unit))
    with ThreadPoolExecutor(_READERS) as readers:
        while batch := list(islice(in_order, _UNITS_PER_BATCH)):
            yield from zip(batch, readers.map(lambda receipt: letters_of(store, receipt), batch), strict=True)
