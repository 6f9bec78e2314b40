"""The frame of whatever a driver does: interrupts end it, and so does its cluster, which it leaves
in any case; what came of it is told with how far it got."""

import contextlib
from collections.abc import Callable, Sequence

from ray.exceptions import RayError

from pipelines.cluster.interrupts import INTERRUPTED, interrupts
from pipelines.cluster.last_resort import LastResort
from pipelines.driver.cluster import RunCluster
from pipelines.driver.ending import Ending
from pipelines.job import EngineSpec, Job
from pipelines.ledger.progress import Progress, RunSummary
from pipelines.ledger.tally import CountsUnits


def driven(
    job: Job,
    address: str | None,
    last_resort: LastResort,
    work: Callable[[RunCluster], Ending],
    tally: Callable[[], CountsUnits | None],
) -> RunSummary:
    """What comes of `work`, which is given a cluster with room for the job's engines at `address`; it
    connects when it first needs it. `tally` is what work counts with, None before it does."""
    ending = _ending(job.engines, address, last_resort, work)
    counted = tally()
    progress = Progress(phase="planning") if counted is None else counted.progress("running")
    return RunSummary(exit_status=ending.exit_status, message=ending.message, output=job.output.path, progress=progress)


def _ending(
    engines: Sequence[EngineSpec], address: str | None, last_resort: LastResort, work: Callable[[RunCluster], Ending]
) -> Ending:
    with interrupts(last_resort) as take_signals:
        cluster = RunCluster(engines, address, last_resort, take_signals)
        try:
            with contextlib.closing(cluster):
                return work(cluster)
        except (KeyboardInterrupt, SystemExit):  # the second is Ray's answer to a SIGTERM while it connects
            return Ending(exit_status=130, message=INTERRUPTED)
        except RayError as error:
            return Ending(exit_status=1, message=f"the Ray cluster failed: {str(error).splitlines()[0]}")
