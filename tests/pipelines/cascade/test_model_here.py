"""A model of a cascade in this process: what a task asks before all rows is asked of it, and places come back one for one."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.cascade.model_here import AT_ONCE, ModelHere
from pipelines.job import Job, ModelSpec
from pipelines.rows.rows import UnitRows
from pipelines.tasks.labels.task import LabelsTask
from pipelines.unit_steps.found_model import FoundModel
from pipelines.unit_steps.steps import SureRows
from tests.helpers.pipelines.making import make_job, make_rows

LABELS = ("refund", "late", "broken")


def said(job: Job, places: list[UnitRows]) -> tuple[Job, list[SureRows]]:
    """What the model says of each place, and the job that knows what it was told before."""
    with closing(FoundModel.of(job).preparer(job)) as preparer, ModelHere.loaded(job, preparer) as model:
        return model.job, list(model.sure(places))


def scores_of(sure: list[SureRows]) -> np.ndarray:
    rows = [row for each in sure for row in each.finished.results.to_pylist()]
    return np.array([[dict(row["scores"])[label] for label in LABELS] for row in rows])


def test_scores_are_those_over_the_prior_that_was_asked_for(tiny_checkpoint: Callable[..., Path]) -> None:
    task = LabelsTask(text="{{ body }}", labels=LABELS)
    plain = replace(make_job(task), model=ModelSpec(path=str(tiny_checkpoint()), dtype="float32"))
    places = [make_rows(pa.table({"body": [f"order {row} is late"] * 3})) for row in range(2)]
    calibrated, sure = said(replace(plain, task=replace(task, calibrate="prior")), places)
    assert isinstance(calibrated.task, LabelsTask)
    assert calibrated.task.log_prior is not None
    _, bare = said(plain, places)
    odds = scores_of(bare) / np.exp(calibrated.task.log_prior)
    expected = odds / odds.sum(axis=1, keepdims=True)
    assert scores_of(sure) == pytest.approx(expected, abs=1e-5)
    confidences = np.concatenate([each.confidences for each in sure])
    assert confidences == pytest.approx(expected.max(axis=1), abs=1e-5)


def test_every_place_has_its_answers_also_one_without_rows(tiny_checkpoint: Callable[..., Path]) -> None:
    """More rows than are computed together, in places of all sizes."""
    task = LabelsTask(text="{{ body }}", labels=LABELS)
    job = replace(make_job(task), model=ModelSpec(path=str(tiny_checkpoint()), dtype="float32"))
    sizes = [0, AT_ONCE - 1, 3, 0, 5, 0]
    places = [make_rows(pa.table({"body": pa.array(["late"] * size, pa.string())}), first_row=10) for size in sizes]
    _, sure = said(job, places)
    assert [each.row_numbers.tolist() for each in sure] == [list(range(10, 10 + size)) for size in sizes]
    assert [len(each.confidences) for each in sure] == sizes
