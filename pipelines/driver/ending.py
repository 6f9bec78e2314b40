"""How a run ends, and in one sentence why."""

from dataclasses import dataclass

from pipelines.formats.batch_lines import BATCH_FORMAT
from pipelines.job import Job
from pipelines.ledger.batch_files import write_batch_files
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.progress import ExitStatus
from pipelines.ledger.tally import Tally
from pipelines.ledger.unreadable import UNREADABLE


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """The exit status of a run, and the sentence."""

    exit_status: ExitStatus
    message: str


def without_computing(job: Job, ledger: Ledger, tally: Tally) -> Ending | None:
    """How a run ends that earlier runs have left nothing to do, or too many dead letters; None if there is something to do."""
    if tally.is_over(job.max_failed):
        return crossed(tally)
    return None if tally.num_pending else concluded(job, ledger, tally)


def concluded(job: Job, ledger: Ledger, tally: Tally, *, is_over: bool = False) -> Ending:
    """How a run ends whose graph has come to its end, `is_over` if before it had to. The output is swept."""
    ledger.sweep(tally.survey)
    ledger.write_unreadable(tally.unreadable)
    if is_over or tally.is_over(job.max_failed):
        return crossed(tally)
    rows = _rows_in(tally)
    if tally.unreadable:
        place = f"{job.output.path}/{UNREADABLE}"
        first = tally.unreadable[0].message
        return Ending(
            exit_status=1,
            message=f"{len(tally.unreadable):,} units could not be read, the first because {first}; all are listed in {place}; {rows}",
        )
    if tally.num_pending:
        return Ending(exit_status=1, message=f"{tally.num_pending:,} units were not computed; run again; {rows}")
    if job.output.format == BATCH_FORMAT:
        assert ledger.record is not None, "what is done was planned"
        write_batch_files(ledger.store, ledger.record, ledger.lease.check)
    return Ending(exit_status=0, message=rows)


def crossed(tally: Tally) -> Ending:
    """How a run ends that has more dead letters than it may have, whether it computed anything itself or not."""
    return Ending(exit_status=3, message=f"max_failed was crossed: {_rows_in(tally)}; raise max_failed to go on")


def _rows_in(tally: Tally) -> str:
    done = tally.progress("running")
    rows = f"{done.rows_done:,} of {done.rows_total:,} rows committed, {done.rows_failed:,} of them as dead letters"
    if not done.cached_tokens:
        return rows
    computed = done.prompt_tokens + done.completion_tokens - done.cached_tokens
    return f"{rows}; {computed:,} tokens computed, {done.cached_tokens:,} cached"
