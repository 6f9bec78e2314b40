"""Bounds for a cascade, found on labelled rows: each model in turn answers those that all before it have passed on.

    calibrate(job, preparers, sources, truth="team", wanted=Wanted(accuracy=0.95, confidence=0.95), num_rows=1000)

The accuracy asked is that of the answers that a model keeps. A bound is found on rows of its own (`pipelines.cascade.bounds`), so
with several bounds the rows are dealt out among them, and so is what is left of certainty: all bounds hold together with the
confidence asked. When all are found, the last model answers what is left, which tells how good the whole is: an estimate, made on the
same rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from pipelines.cascade.bounds import BoolArray, FloatArray, Search, find_bound
from pipelines.cascade.model_here import ModelHere
from pipelines.cascade.sample import LabelledRows, RowAt, Truths, draw_places, labelled, only, truths_of
from pipelines.errors import PlanError, TaskError
from pipelines.formats.json_values import json_rows
from pipelines.job import Job, OutputSpec
from pipelines.task_base.judged import Form, Judged
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.units.listing import Sources


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What share of the answers that are kept is to be right, and how sure that must be."""

    accuracy: float
    confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFound:
    """What a model was asked and did: `num_asked` rows, of which it could answer `num_answered`, and kept `num_kept`, `num_right` of them
    right; the `prompt_tokens` it read. `search` is how its bound was found; None for the last, which keeps all. Where no bound was found
    it has kept none."""

    name: str
    num_asked: int
    num_answered: int
    num_kept: int
    num_right: int
    prompt_tokens: int
    search: Search | None

    @property
    def bound(self) -> float | None:
        """The score from which its answers are kept."""
        passed = None if self.search is None else self.search.passed
        return None if passed is None else passed.bound


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What came of it: the models up to the first without a bound, or all. `rows` are those that were drawn, `truths` what is known of
    them."""

    wanted: Wanted
    rows: LabelledRows
    truths: Truths
    steps: tuple[StepFound, ...]
    is_complete: bool

    @property
    def accuracy(self) -> float:
        """Of the whole cascade: the share of the answers that count which is right."""
        return sum(step.num_right for step in self.steps) / max(1, sum(step.num_kept for step in self.steps))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Graded:
    """The answers to some rows: which rows, how sure each is [N], and whether it is right [N]; and the tokens that were read for them."""

    at: Sequence[RowAt]
    scores: FloatArray
    is_right: BoolArray
    prompt_tokens: int


def calibrate(
    job: Job, preparers: Sequence[IsolatedPreparer], sources: Sources, *, truth: str, wanted: Wanted, num_rows: int
) -> Calibration:
    """Finds the bounds of `job`, whose own do not count; `preparers` are of its models.

    Raises:
        PlanError: the input cannot be planned, has no column `truth`, or that says nothing of any row.
        TaskError: the results have no labels.
        SourceError: the input cannot be read.
        ModelError: a model cannot be loaded, or fails.
    """
    job = replace(job, output=OutputSpec(path=job.output.path))  # results by their own names
    columns = preparers[0].fitted.columns
    with_truth = replace(columns, required=columns.required | {truth})
    rows = labelled(draw_places(job, sources, with_truth, num_rows=num_rows), truth)
    truths: Truths | None = None
    left: Collection[RowAt] = ()
    steps: list[StepFound] = []
    for number, (step, preparer) in enumerate(zip(job.steps, preparers, strict=True)):
        with ModelHere.loaded(step, preparer) as model:
            if truths is None:
                truths = _known(rows, _form(model, rows), truth)
                left = [*truths.items]
            graded = _graded(model, rows, truths, left)
        search = _search(job, wanted, graded, number) if number < len(job.cascade) else None
        is_kept = graded.scores >= _bound_of(search)
        steps.append(_step(job.step_names[number], len(left), graded, is_kept, search))
        if search is not None and search.passed is None:
            break
        left = frozenset(left).difference(at for at, is_in in zip(graded.at, is_kept.tolist(), strict=True) if is_in)
    assert truths is not None, "there is a first step"
    return Calibration(
        wanted=wanted, rows=rows, truths=truths, steps=tuple(steps), is_complete=len(steps) == len(job.steps)
    )


def _form(model: ModelHere, rows: LabelledRows) -> Form:
    """The form of the results, from the first that the model gives."""
    judged = _judged(model)
    for sure in model.sure(rows.places):
        if sure.finished.results.num_rows:
            try:
                return judged.form_in(json_rows(sure.finished.results.slice(0, 1))[0])
            except ValueError as error:
                raise TaskError("task", f"cannot be calibrated: {error}") from error
    raise PlanError(f"the model {model.job.model.path} can answer none of the {rows.num_rows:,} rows that were drawn")


def _judged(model: ModelHere) -> Judged:
    judged = model.job.task.judged
    assert judged is not None, "a task without labels is refused before"
    return judged


def _known(rows: LabelledRows, form: Form, truth: str) -> Truths:
    found = truths_of(rows, form)
    if not found.items:
        what = found.unusable or "it is null, empty or missing in every row"
        raise PlanError(f"none of {rows.num_rows:,} rows can be held against the column {truth!r}: {what}")
    return found


def _graded(model: ModelHere, rows: LabelledRows, truths: Truths, left: Collection[RowAt]) -> _Graded:
    """What the model says of the rows that are left, and whether it is right."""
    judged = _judged(model)
    at: list[RowAt] = []
    scores, is_right, prompt_tokens = [np.empty(0, np.float32)], [], 0
    for index, sure in enumerate(model.sure(only(rows.places, left))):
        numbers = [(index, number) for number in sure.row_numbers.tolist()]
        at += numbers
        scores.append(sure.confidences)
        prompt_tokens += sure.finished.prompt_tokens
        for each, row in zip(numbers, json_rows(sure.finished.results), strict=True):
            made = {claim.item for claim in judged.claims_in(row) if claim.is_made}
            is_right.append(made == truths.items[each])
    return _Graded(
        at=at,
        scores=np.concatenate(scores),
        is_right=np.array(is_right, np.bool_),
        prompt_tokens=prompt_tokens,
    )


def _search(job: Job, wanted: Wanted, graded: _Graded, number: int) -> Search:
    """The bound of step `number`, found on the rows that are dealt to it."""
    num_bounds = len(job.cascade)
    is_own = np.array([_part_of(at, num_bounds) == number for at in graded.at], np.bool_)
    return find_bound(
        graded.scores[is_own],
        graded.is_right[is_own],
        accuracy=wanted.accuracy,
        confidence=1.0 - (1.0 - wanted.confidence) / num_bounds,
        seed=job.seed,
    )


def _part_of(at: RowAt, num_parts: int) -> int:
    """Which bound a row is dealt to, whatever is in it."""
    return crc32(repr(at).encode()) % num_parts


def _bound_of(search: Search | None) -> np.float32:
    """The score from which answers are kept: any, without a search; none, where it has found nothing."""
    if search is None:
        return np.float32(-np.inf)
    return np.float32(np.inf if search.passed is None else search.passed.bound)


def _step(name: str, num_asked: int, graded: _Graded, is_kept: BoolArray, search: Search | None) -> StepFound:
    return StepFound(
        name=name,
        num_asked=num_asked,
        num_answered=len(graded.at),
        num_kept=int(is_kept.sum()),
        num_right=int((is_kept & graded.is_right).sum()),
        prompt_tokens=graded.prompt_tokens,
        search=search,
    )
