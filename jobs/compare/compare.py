"""A comparison of two runs, from their folders to its figures; rows that differ are handed on as they are found."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobs.compare.pairs import RowPair, pairs_by_column, pairs_by_place
from jobs.compare.sides import SideRow, Sides
from jobs.compare.tally import AgreementTally

OnDifference = Callable[["Differing"], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Differing:
    """A row whose results differ (`differs` is answers or numbers), or that one run alone has a result of (`only in a`,
    `only in b`); by which of
    several tasks."""

    differs: str
    pair: RowPair
    task: str = ""

    @property
    def place(self) -> SideRow:
        """The row, of whichever run has it."""
        row = self.pair.a or self.pair.b
        assert row is not None, "a pair has a row"
        return row

    def as_json(self) -> dict[str, Any]:
        """The row with both results, null where there is none."""
        a, b = self.pair.a, self.pair.b
        return {
            **({"task": self.task} if self.task else {}),
            "path": self.place.path,
            "row": self.place.number,
            **self.place.carried,
            "differs": self.differs,
            "a": None if a is None else a.result,
            "b": None if b is None else b.result,
        }


@dataclass(slots=True)
class OnlyIn:
    """Rows that one run alone has a result of: the other has a dead letter there, or has no such row."""

    num_failed: int = 0
    num_absent: int = 0


@dataclass(slots=True)
class Comparison:
    """What came of it."""

    sides: Sides
    by: str | None
    tally: AgreementTally
    only_a: OnlyIn = field(default_factory=OnlyIn)
    only_b: OnlyIn = field(default_factory=OnlyIn)
    num_without: int = 0
    """Rows that have no result in either run, or, matched by a column, dead letters of either."""


def compare_runs(
    sides: Sides, *, by: str | None = None, tolerance: float = 0.0, on_difference: OnDifference
) -> Comparison:
    """Compares every row of two runs. Rows are matched by file and row number, or by the value of the carried column `by`.

    Raises:
        UsageError: the runs' inputs are others, a column does not tell rows apart, or results cannot be compared.
        DamageError: a file of an output is not what was committed.
    """
    if by is None:
        sides.check_files()
    found = Comparison(sides=sides, by=by, tally=AgreementTally(tolerance=tolerance))
    for pair in pairs_by_place(sides) if by is None else pairs_by_column(sides, by):
        differs = _add(found, pair)
        if differs is not None:
            on_difference(Differing(differs=differs, pair=pair, task=sides.a.output.part))
    return found


def _add(found: Comparison, pair: RowPair) -> str | None:
    a, b = (None if row is None else row.result for row in (pair.a, pair.b))
    if a is not None and b is not None:
        return found.tally.add(found.sides.a.said(a), found.sides.b.said(b))
    if a is None and b is None:
        found.num_without += 1
        return None
    only, other = (found.only_a, pair.b) if b is None else (found.only_b, pair.a)
    if other is None:
        only.num_absent += 1
    else:
        only.num_failed += 1
    return "only in a" if b is None else "only in b"
