"""How a retry ends, and in one sentence why."""

from pipelines.driver.ending import Ending
from pipelines.formats.batch_lines import BATCH_FORMAT
from pipelines.ledger.batch_files import write_batch_files
from pipelines.ledger.ledger import Ledger, Survey
from pipelines.retry.tally import RetryTally


def concluded(ledger: Ledger, survey: Survey, tally: RetryTally) -> Ending:
    """How a retry ends whose graph has come to its end, or that had nothing to do. The output is
    swept; the whole files of a batch are put together anew."""
    assert ledger.record is not None, "only a run that is planned has dead letters"
    ledger.sweep(survey)
    plan = ledger.record.plan
    is_complete = survey.totals.num_units == plan.num_units
    if is_complete and ledger.record.format == BATCH_FORMAT:
        write_batch_files(ledger.store, ledger.record, ledger.lease.check)
    done = tally.progress("running")
    total = done.rows_total or 0
    left = f"{tally.num_dead:,} dead letters are left"
    if not is_complete:
        num_missing = plan.num_rows - survey.totals.num_rows
        left = f"{left}, and {num_missing:,} rows are not computed at all: run the job to go on"
    if not total:
        return Ending(exit_status=0, message=f"no dead letter is one that was asked for; {left}")
    told = (
        f"{done.rows_done:,} of {total:,} dead letters tried again, {tally.num_with_results:,} have results now; {left}"
    )
    if tally.unreadable:
        first = tally.unreadable[0].message
        return Ending(
            exit_status=1,
            message=f"{len(tally.unreadable):,} units could not be read, the first because {first}; {told}",
        )
    if tally.num_pending:
        return Ending(exit_status=1, message=f"{tally.num_pending:,} units were not tried; retry again; {told}")
    return Ending(exit_status=0, message=told)
