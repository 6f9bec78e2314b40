"""`tasks` of a job spec: several tasks for every row, in the place of `task`."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from jobs.spec.document.places import Places
from pipelines.job import Job
from pipelines.task_base.yaml import TASK_NAME, TaskYaml
from pipelines.tasks.several.partial import Partial
from pipelines.tasks.several.task import SeveralTask

TaskName = Annotated[str, Field(pattern=TASK_NAME)]


def is_several(values: Mapping[str, Any]) -> bool:
    """Whether a document has several tasks, whatever else it says."""
    return values.get("tasks") is not None


def no_single_task(value: Any) -> None:
    """Refuses a task beside several."""
    del value
    raise ValueError(
        "stands beside tasks, which are all that is asked of a row; write it as one more of these, or leave it out"
    )


def several_of(tasks: Mapping[str, TaskYaml], partial: Partial) -> SeveralTask:
    """The tasks as one."""
    return SeveralTask(tasks={name: task.to_task() for name, task in tasks.items()}, partial=partial)


def several_problems(job: Job, places: Places) -> list[str]:
    """One line for each thing about several tasks that cannot be, or that goes with nothing else."""
    if not isinstance(job.task, SeveralTask):
        only = "goes with tasks, or with task.questions: a row of one task has an answer or is a dead letter"
        return [places.problem(("partial",), only)] if places.has(("partial",)) else []
    within = [name for name, task in job.task.tasks.items() if isinstance(task, SeveralTask)]
    return [places.problem(("tasks", name), "has questions; write each of them as one of tasks") for name in within]
