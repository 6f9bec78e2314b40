"""What a retry is asked for."""

from dataclasses import dataclass, field

from pipelines.job import Job
from pipelines.retry.selection import Selection


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryAsked:
    """Which letters are tried again: of those of `selection` the first `limit`. `planned` is the
    job that the output was planned with; with `allows_changes` the one that computes may be
    another, whose results mean something else."""

    planned: Job
    selection: Selection = field(default_factory=Selection)
    limit: int | None = None
    allows_changes: bool = False
