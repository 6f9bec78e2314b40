"""How much of a job each model of its cascade will be given: measured on some rows, that go through all models but the last."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.cascade.model_here import ModelHere
from pipelines.cascade.sample import draw_places
from pipelines.job import Job
from pipelines.rows.rows import UnitRows
from pipelines.rows.set_apart import kept_rows_of
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.units.listing import Sources


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """What reaches a model: of `num_sampled` rows the share that does, and that share's part of the prompt tokens which all rows would
    have there."""

    num_sampled: int
    rows: float
    tokens: float


def reaches(job: Job, preparers: Sequence[IsolatedPreparer], sources: Sources, *, num_rows: int) -> tuple[Reach, ...]:
    """What reaches each model of the job, from about `num_rows` rows.

    Raises:
        PlanError: the input cannot be planned.
        SourceError: the input cannot be read.
        ModelError: a model cannot be loaded, or fails.
    """
    whole = draw_places(job, sources, preparers[0].fitted.columns, num_rows=num_rows)
    num_sampled = _num_rows(whole)
    found = [Reach(num_sampled=num_sampled, rows=1.0, tokens=1.0)]
    left: Sequence[UnitRows] = whole
    for step, preparer, following, bound in zip(job.steps, preparers, preparers[1:], job.bounds, strict=False):
        with ModelHere.loaded(step, preparer) as model:
            sure = list(model.sure(left))
        kept = [each.row_numbers[each.confidences >= np.float32(bound)] for each in sure]
        left = [
            kept_rows_of(place, ~np.isin(place.row_numbers, numbers)) for place, numbers in zip(left, kept, strict=True)
        ]
        found.append(
            Reach(
                num_sampled=num_sampled,
                rows=_num_rows(left) / max(1, num_sampled),
                tokens=_num_tokens(following, left) / max(1, _num_tokens(following, whole)),
            )
        )
    return tuple(found)


def _num_rows(places: Sequence[UnitRows]) -> int:
    return sum(place.rows.num_rows for place in places)


def _num_tokens(preparer: IsolatedPreparer, places: Sequence[UnitRows]) -> int:
    prepared = (preparer.prepare(place) for place in places)
    return sum(len(request.token_ids) for each in prepared for request in each.requests)
