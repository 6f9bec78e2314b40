"""`report.truth` before a run: whether the task's results can be held against a column, and which one the input must have."""

from collections.abc import Iterator

from jobs.errors import shown
from jobs.spec.key_paths import KeyPath
from jobs.spec.places import Places
from pipelines.job import Job
from pipelines.task_base.judged import why_not_judged

TRUTH: KeyPath = ("report", "truth")


def truth_problems(job: Job, places: Places) -> list[str]:
    """One line if the spec names a truth, and the task's results have no labels."""
    if job.truth is None or job.task.judged is not None:
        return []
    return [places.problem(TRUTH, f"was {shown(job.truth)}; {why_not_judged(job.task.kind)}")]


def truth_columns(job: Job) -> Iterator[tuple[KeyPath, str]]:
    """The column that the input must have for the truth, with its key."""
    if job.truth is not None:
        yield TRUTH, job.truth
