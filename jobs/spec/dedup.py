"""Whether a job's equal requests may be computed once: where an answer follows from its prompt
alone, in engines of the job's own."""

from collections.abc import Iterator

from jobs.spec.document.places import Places
from pipelines.job import Job


def dedup_problems(job: Job, places: Places) -> list[str]:
    """One line for each reason why a job cannot have `dedup: true`."""
    if not job.dedup:
        return []
    return [places.problem(("dedup",), text) for text in _reasons(job)]


def _reasons(job: Job) -> Iterator[str]:
    if job.task.calls_api:
        yield "was true; it has no meaning for a batch file, whose lines each say how they are answered: leave it out"
    for name, task in job.task.parts().items():
        sampling, key = task.sampling, f"tasks.{name}" if name else "task"
        if sampling is not None and sampling.temperature > 0:
            yield (
                f"was true; rows of equal prompts are to have answers of their own at {key}.sampling.temperature {sampling.temperature:g}: "
                "leave it out, or set the temperature to 0"
            )
    if job.engine.service is not None:
        yield "was true; it is for engines of the job's own, and this job's rows go to engine.service: leave it out"
