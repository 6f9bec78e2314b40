"""What a spec of a batch file has, and has not: its task is implied, and its output is of the same kind."""

from collections.abc import Mapping
from typing import Any

from jobs.spec.document.key_paths import KeyPath
from jobs.spec.document.places import Places
from pipelines.formats.batch_lines import BATCH_FORMAT
from pipelines.job import Job


def is_batch(values: Mapping[str, Any]) -> bool:
    """Whether a document's input is a batch file, whatever else it says."""
    given = values.get("input")
    return isinstance(given, Mapping) and given.get("format") == BATCH_FORMAT


def no_task(value: Any) -> None:
    """Refuses a task beside a batch file."""
    del value
    raise ValueError(f"stands beside input.format: {BATCH_FORMAT}, whose lines are the requests; leave task out")


def batch_problems(job: Job, places: Places) -> list[str]:
    """One line for each key that does not go with a batch file, or goes with nothing else."""
    if job.input.format != BATCH_FORMAT:
        if job.output.format != BATCH_FORMAT:
            return []
        text = f"was {BATCH_FORMAT}; it is for input.format: {BATCH_FORMAT}, other inputs give parquet or jsonl"
        return [places.problem(("output", "format"), text)]
    found: list[tuple[KeyPath, str]] = []
    if job.output.format != BATCH_FORMAT:
        text = f"was {job.output.format}; the answers to a batch file are written as {BATCH_FORMAT}"
        found.append((("output", "format"), text))
    given = {
        ("input", "columns"): places.has(("input", "columns")),
        ("input", "schema"): job.input.schema is not None,
        ("output", "prefix"): bool(job.output.prefix),
    }
    text = "has no meaning for a batch file, whose keys are OpenAI's; leave it out"
    found += [(path, text) for path, is_given in given.items() if is_given]
    if job.engine.service is not None:
        text = "a batch file is computed by engines of the job's own; leave it out, or send the requests to the service"
        found.append((("engine", "service"), text))
    return [places.problem(path, text) for path, text in found]
