"""Rows of a job's input, labelled or not: a fair draw from all of it, whole, with what their column of truths says.

Rows are drawn from as many places as there are rows wanted, each of a few neighbours, so that a sorted file does no harm.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.errors import SourceError
from pipelines.formats.schema import Columns
from pipelines.io.inputs import Storage
from pipelines.job import Job
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import UnreadableUnit
from pipelines.sample import UnitPicker, thinned
from pipelines.task_base.judged import Form, Item, truth_of
from pipelines.units.listing import Sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader

NEIGHBOURS = 32
"""Rows of one place, of which one is drawn where there are many places."""

RowAt = tuple[int, int]
"""A row: the index of its place among those that were drawn, and its number in its file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledRows:
    """Rows in places, each a unit with some of its rows, and the JSON value of each row's truth. `num_unreadable` were drawn besides."""

    places: tuple[UnitRows, ...]
    values: Mapping[RowAt, Any]
    num_unreadable: int

    @property
    def num_rows(self) -> int:
        """Rows that could be read."""
        return len(self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Truths:
    """What is right of each row whose column says so; how many say nothing, how many something that is no truth, and of one of these
    what it is instead."""

    items: Mapping[RowAt, frozenset[Item]]
    num_unknown: int
    num_unusable: int
    unusable: str


def draw_places(job: Job, sources: Sources, columns: Columns, *, num_rows: int) -> tuple[UnitRows, ...]:
    """Draws about `num_rows` rows of the input with these columns.

    Raises:
        PlanError: the input cannot be planned, or lacks a column.
        SourceError: it cannot be read.
    """
    picker = UnitPicker(num_units=num_rows, seed=job.seed)
    plan = plan_units(sources.files, job.input, columns, unit_rows=NEIGHBOURS, limit=job.limit, sink=picker)
    reader = UnitReader(schema=plan.schema, declared=frozenset(job.input.schema or ()), storage=Storage.of(job.input))
    units = picker.units
    total = sum(unit.num_rows for unit in units)
    places: list[UnitRows] = []
    for read in reader.read_units(units):
        if isinstance(read, UnreadableUnit):
            raise SourceError(read.message)
        places.append(thinned(read, max(1, round(num_rows * read.unit.num_rows / total))))
    return tuple(places)


def labelled(places: Sequence[UnitRows], truth: str) -> LabelledRows:
    """Rows that were drawn with the values of their column `truth`."""
    values = {
        (index, number): row.get(truth)
        for index, place in enumerate(places)
        for number, row in zip(place.row_numbers.tolist(), place.rows.as_json(), strict=True)
    }
    return LabelledRows(
        places=tuple(places), values=values, num_unreadable=sum(len(place.failures) for place in places)
    )


def truths_of(rows: LabelledRows, form: Form) -> Truths:
    """What the rows' column says, for results of a form."""
    items: dict[RowAt, frozenset[Item]] = {}
    num_unknown = num_unusable = 0
    unusable = ""
    for at, value in rows.values.items():
        try:
            truth = truth_of(value, form)
        except ValueError as error:
            num_unusable += 1
            unusable = unusable or f"the truth of row {at[1]} of {rows.places[at[0]].unit.relative_path} {error}"
            continue
        if truth is None:
            num_unknown += 1
        else:
            items[at] = truth
    return Truths(items=items, num_unknown=num_unknown, num_unusable=num_unusable, unusable=unusable)


def only(places: Sequence[UnitRows], rows: Collection[RowAt]) -> tuple[UnitRows, ...]:
    """The places with those of their rows that are among `rows`, and without what could not be read."""
    wanted = frozenset(rows)
    return tuple(
        UnitRows(
            unit=place.unit,
            rows=place.rows.kept(keep),
            row_numbers=place.row_numbers[keep],
            failures=(),
        )
        for index, place in enumerate(places)
        for keep in [np.array([(index, number) in wanted for number in place.row_numbers.tolist()], np.bool_)]
    )
