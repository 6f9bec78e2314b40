"""`report.truth` before a run: whether the task's results can be held against a column, and which one the input must have."""

from collections.abc import Iterator, Mapping

from jobs.errors import shown
from jobs.spec.document.key_paths import KeyPath
from jobs.spec.document.places import Places
from pipelines.job import Job
from pipelines.task_base.judged import why_not_judged
from pipelines.task_base.task import Task

TRUTH: KeyPath = ("report", "truth")


def truth_problems(job: Job, places: Places) -> list[str]:
    """One line for each truth that the results of its task cannot be held against."""
    parts = job.task.parts()
    if isinstance(job.truth, str) and "" not in parts:
        what = f"write which column is the truth of which: {{{next(iter(parts))}: COLUMN, ...}}"
        return [places.problem(TRUTH, f"was {shown(job.truth)}; a row has several tasks here: {what}")]
    if isinstance(job.truth, Mapping) and "" in parts:
        return [places.problem(TRUTH, "was a mapping; a row has one task here: give the name of a column")]
    return [
        places.problem(path, f"was {shown(column)}; {_why_not(name, parts)}")
        for path, name, column in _truths(job)
        if name not in parts or parts[name].judged is None
    ]


def truth_columns(job: Job) -> Iterator[tuple[KeyPath, str]]:
    """The columns that the input must have for the truth, with their keys."""
    return ((path, column) for path, _, column in _truths(job))


def _why_not(name: str, parts: Mapping[str, Task]) -> str:
    return why_not_judged(parts[name].kind) if name in parts else f"no task has this name; they are {', '.join(parts)}"


def _truths(job: Job) -> Iterator[tuple[KeyPath, str, str]]:
    """The key of each truth, its task's name, and its column."""
    if isinstance(job.truth, Mapping):
        yield from (((*TRUTH, name), name, column) for name, column in job.truth.items())
    elif job.truth is not None:
        yield TRUTH, "", job.truth
