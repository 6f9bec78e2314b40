"""No result column has the name of a carried one. A file of JSON lines may show a column only far behind its head, so a plan is asked."""

from collections.abc import Sequence

from pipelines.errors import TaskError
from pipelines.job import Job
from pipelines.task_base.facts import TaskFacts
from pipelines.unit_steps.finish import result_columns


def check_names(job: Job, facts: TaskFacts, columns: Sequence[str]) -> None:
    """Compares the columns of the input that are carried with those that the task writes.

    Raises:
        TaskError: two have one name.
    """
    written = {field.name for field in result_columns(job, facts)}
    taken = [name for name in (columns if job.input.columns is None else job.input.columns) if name in written]
    if taken:
        raise TaskError(
            "output.prefix" if job.output.prefix else "output",
            f"the input's column {', '.join(taken)} has the name of a result column; set output.prefix, such as prefix: out_",
        )
