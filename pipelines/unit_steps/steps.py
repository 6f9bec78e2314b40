"""The steps of a cascade over one unit: which answers of a model are kept, which rows go on to the next, and the unit put together again.

    kept = kept_rows(job, facts, prepared, answers, until=0.9)     # behind every step but the last
    left = left_of(rows, [kept])                                   # what the next step is given
    merged(job, names, rows, [kept], prepared, finished)           # behind the last, whose answers all count

A row goes on whose answer is not sure enough, and one that a step cannot answer at all: its error may be another model's answer.
Rows that could not be read are no step's. Only the last step makes dead letters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.job import Job
from pipelines.rows.rows import Answers, FinishedUnit, Int64Array, PreparedUnit, StepCounts, UnitRows
from pipelines.rows.set_apart import kept_rows_of
from pipelines.task_base.facts import TaskFacts
from pipelines.unit_steps.finish import MODEL_FIELD, answered_rows, carried_rows, finish


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptRows:
    """What one model has answered for good: the numbers of the rows [N] in their file, ascending, and their result columns, without the
    column `model`. `prompt` is what it read for the unit's first row, of a unit that is to be shown."""

    row_numbers: Int64Array
    results: pa.Table
    counts: StepCounts
    seconds: float
    prompt: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SureRows:
    """The rows of a unit that a model has answered: `finished` as if it was the only one, their numbers [N], and how sure the model is
    of each [N] (`Task.confidences`)."""

    finished: FinishedUnit
    row_numbers: Int64Array
    confidences: npt.NDArray[np.float32]


def sure_rows(job: Job, facts: TaskFacts, prepared: PreparedUnit, answers: Answers) -> SureRows:
    """What a model has said of a unit's rows; `job` is the one of its step."""
    finished = finish(job, facts, prepared, answers)
    is_bad = np.isin(prepared.row_numbers, [failure.row for failure in finished.failures])
    confidences = job.task.confidences(facts, answered_rows(prepared, answers).without(is_bad))
    return SureRows(finished=finished, row_numbers=prepared.row_numbers[~is_bad], confidences=confidences)


def kept_rows(sure: SureRows, num_asked: int, *, until: float) -> KeptRows:
    """The answers of a step to `num_asked` rows that are kept: those with a confidence of at least `until`."""
    is_kept = sure.confidences >= np.float32(until)
    finished = sure.finished
    return KeptRows(
        row_numbers=sure.row_numbers[is_kept],
        results=finished.results.filter(pa.array(is_kept)),
        counts=_counts(finished, num_asked, num_kept=int(np.count_nonzero(is_kept))),
        seconds=finished.seconds,
        prompt=finished.prompt,
    )


def num_left(rows: UnitRows, kept: Sequence[KeptRows]) -> int:
    """How many rows of a unit, as it was read, no step has answered for good."""
    return rows.rows.num_rows - sum(step.counts.num_kept for step in kept)


def left_of(rows: UnitRows, kept: Sequence[KeptRows]) -> UnitRows:
    """The rows of a unit, as it was read, that no step has answered for good; without those that could not be read."""
    return kept_rows_of(rows, ~np.isin(rows.row_numbers, _numbers(kept)))


def merged(
    job: Job,
    names: Sequence[str],
    rows: UnitRows,
    kept: Sequence[KeptRows],
    prepared: PreparedUnit,
    last: FinishedUnit,
) -> FinishedUnit:
    """A unit as it is committed: the rows that earlier steps have kept, and what the `last` made of those in `prepared`, in the order of
    `rows`. `names` are what the models are called in the column `model`."""
    is_failed = np.isin(prepared.row_numbers, [failure.row for failure in last.failures])
    of_last = KeptRows(
        row_numbers=prepared.row_numbers[~is_failed],
        results=last.results,
        counts=_counts(last, num_left(rows, kept), num_kept=last.results.num_rows),
        seconds=last.seconds,
    )
    steps = [*kept, of_last]
    numbers = _numbers(steps)
    field = MODEL_FIELD.with_name(job.output.prefix + MODEL_FIELD.name)
    tables = [
        step.results.append_column(field, pa.array([name] * step.results.num_rows, field.type))
        for step, name in zip(steps, names, strict=True)
    ]
    counts = tuple(step.counts for step in steps)
    return replace(
        last,
        carried=carried_rows(job, rows.rows.kept(np.isin(rows.row_numbers, numbers)))[0],
        results=pa.concat_tables(tables).take(np.argsort(numbers)).combine_chunks(),
        failures=tuple(sorted((*rows.failures, *last.failures), key=lambda failure: failure.row)),
        prompt_tokens=sum(each.prompt_tokens for each in counts),
        cached_tokens=sum(each.cached_tokens for each in counts),
        seconds=sum(step.seconds for step in steps),
        prompt=kept[0].prompt,
        steps=counts,
    )


def _numbers(steps: Sequence[KeptRows]) -> Int64Array:
    return np.concatenate([np.empty(0, np.int64), *(step.row_numbers for step in steps)])


def _counts(finished: FinishedUnit, num_asked: int, *, num_kept: int) -> StepCounts:
    return StepCounts(
        num_asked=num_asked,
        num_kept=num_kept,
        prompt_tokens=finished.prompt_tokens,
        cached_tokens=finished.cached_tokens,
    )
