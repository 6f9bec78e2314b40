"""Whether the answers of a cascade's models go into the same columns: what can only be told once the task is fitted to each."""

from collections.abc import Sequence

import numpy as np

from pipelines.errors import TaskError
from pipelines.job import Job
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.facts import TaskFacts

_NO_ROWS = AnsweredRows(num_rows=0, rows=np.empty(0, np.int64), requests=(), results=(), texts=())


def check_steps(job: Job, facts: Sequence[TaskFacts]) -> None:
    """Compares the steps of a job; one without a cascade passes.

    Raises:
        TaskError: a model's answers have no confidence, or are of another form or other classes than the first one's.
    """
    if not job.cascade:
        return
    first = facts[0]
    for number, other in enumerate(facts):
        job.task.confidences(other, _NO_ROWS)
        place, names = f"cascade[{number}].model", (first.model.class_names, other.model.class_names)
        is_alike = other.model.head == "causal" or set(names[0]) == set(names[1])
        if not is_alike:
            theirs = " and ".join(", ".join(each) for each in names)
            raise TaskError(
                place,
                f"the classes of the first model and of this one differ: {theirs}; give models of the same classes",
            )
        if job.task.fields(first) != job.task.fields(other):
            raise TaskError(
                place, "its answers have another form than the first model's; give models of the same problem_type"
            )
