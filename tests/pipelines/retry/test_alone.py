"""Which jobs have rows that can be tried again by themselves, into the columns that are there."""

from dataclasses import replace

import pytest

from models.engine.scheduling.request import SamplingParams
from pipelines.errors import TaskError
from pipelines.retry.driver import check_alone
from pipelines.task_base.task import Task
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.several.task import SeveralTask
from tests.helpers.pipelines.making import make_facts, make_job

FACTS = make_facts("causal")
GENERATE = GenerateTask(prompt="{{ body }}")
LABELS = LabelsTask(text="{{ body }}", labels=("a", "b"))
BATCH = replace(LABELS, calibrate="batch")


@pytest.mark.parametrize(
    ("planned", "task"),
    [
        (GENERATE, GENERATE),
        (GENERATE, replace(GENERATE, prompt="another {{ body }}", sampling=SamplingParams(max_tokens=99))),
        (LABELS, replace(LABELS, labels=("a", "c", "d"), calibrate="none")),
    ],
)
def test_rows_that_give_the_same_columns_are_tried_again(planned: Task, task: Task) -> None:
    check_alone(make_job(task), make_job(planned), FACTS)


@pytest.mark.parametrize(
    ("planned", "task", "problem"),
    [
        (BATCH, BATCH, "single rows of it cannot be computed again: calibrate: batch compares the rows of a unit"),
        (GENERATE, replace(GENERATE, sampling=SamplingParams(logprobs=1)), "text, finish_reason, .* -> text, logprobs"),
        (GENERATE, LABELS, "use a new output.path"),
        (LABELS, replace(LABELS, label_mass=True), "label_mass"),
    ],
)
def test_others_are_refused(planned: Task, task: Task, problem: str) -> None:
    with pytest.raises(TaskError, match=problem):
        check_alone(make_job(task), make_job(planned), FACTS)


def test_of_several_tasks_the_one_that_compares_rows_is_named() -> None:
    several = SeveralTask(tasks={"one": LABELS, "two": BATCH})
    assert several.why_not_alone() == "task two: calibrate: batch compares the rows of a unit"
    assert SeveralTask(tasks={"one": LABELS, "two": GENERATE}).why_not_alone() is None
