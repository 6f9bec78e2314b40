"""`millrace run`: a corpus in, labelled rows out."""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.boundary import INTERRUPTED, complain
from jobs.commands.after_run import report_after
from jobs.commands.options import Address, Limit, Overrides, SpecFile, today
from jobs.errors import SpecError, UsageError
from pipelines.cluster.interrupts import interrupts
from pipelines.cluster.last_resort import LastResort

if TYPE_CHECKING:
    from jobs.spec.preflight import Preflight

logger = logging.getLogger(__name__)


def run(spec: SpecFile, limit: Limit = None, overrides: Overrides = None, address: Address = None) -> int:
    """Run a job, or go on with it where it stopped.

    Exit status: 0 done, 1 failed (what is committed stays), 2 the spec is wrong, 3 max_failed was crossed, 130 interrupted.
    """
    with interrupts(LastResort(complain)):
        return _run(spec, limit, overrides or (), address)


def _run(spec: Path, limit: int | None, overrides: Sequence[str], address: str | None) -> int:
    from jobs.serve.record import join_service
    from jobs.spec.job import load_spec

    loaded = load_spec(spec, overrides=overrides, limit=limit)
    logger.info("read %s", spec)
    job, address = loaded.job, address or loaded.cluster or os.environ.get("RAY_ADDRESS")
    if address is None and job.engine.service is not None:
        try:
            address = join_service(job.engine.service)
        except UsageError as error:
            raise SpecError([loaded.places.problem(("engine", "service"), str(error))]) from error

    from jobs.show.progress import progress_display
    from jobs.spec.placed_errors import placed_errors
    from jobs.spec.preflight import SpecCheck

    def warn(found: "Preflight") -> None:
        if found.caution is not None:
            complain(f"{job.model.path} is {found.caution}")
        if found.caution_of_bits is not None:
            complain(f"warning: {found.caution_of_bits}")

    with closing(SpecCheck(loaded, today=today(), on_found=warn)) as check:
        # imports Ray, which reads its settings then; the tokenizer is read meanwhile
        from pipelines.run import run as run_job

        with placed_errors(loaded), progress_display(sys.stderr) as show:
            summary = run_job(job, address=address, on_progress=show, last_words=complain, opening=check)
    complain(summary.message)
    if summary.exit_status != INTERRUPTED:
        report_after(job)
    return summary.exit_status
