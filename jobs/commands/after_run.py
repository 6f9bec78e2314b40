"""What follows a run, and a retry: the report of its output."""

import logging
from typing import TYPE_CHECKING

from jobs.boundary import complain

if TYPE_CHECKING:
    from pipelines.job import Job

logger = logging.getLogger(__name__)


def report_after(job: "Job") -> None:
    """Writes the report of a run that has ended, which nothing that goes wrong here changes any
    more."""
    try:
        # plots take half a second to import; nobody waits at the start
        from jobs.report.report import is_planned, write_report

        if is_planned(job.output):
            written = write_report(job.output, input_options=job.input.storage_options, truth=job.truth)
            complain(f"report: {written.page}")
            for problem in written.truth_problems:
                complain(problem)
    except Exception as error:
        logger.debug("the report failed", exc_info=True)
        complain(
            f"the report could not be written ({type(error).__name__}: {error}); the results are as the run has said, and "
            f"`millrace report {job.output.path}` writes it anew"
        )
