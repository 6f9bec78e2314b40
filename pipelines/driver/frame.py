"""The frame of whatever a driver does: interrupts end it, and so does its cluster, which it leaves
in any case."""

import contextlib
from collections.abc import Callable, Sequence

from ray.exceptions import RayError

from pipelines.cluster.interrupts import INTERRUPTED, interrupts
from pipelines.cluster.last_resort import LastResort
from pipelines.driver.cluster import RunCluster
from pipelines.driver.ending import Ending
from pipelines.job import EngineSpec


def driven(
    engines: Sequence[EngineSpec], address: str | None, last_resort: LastResort, work: Callable[[RunCluster], Ending]
) -> Ending:
    """How `work` ends, which is given a cluster with room for these engines at `address`; it
    connects when it first needs it."""
    with interrupts(last_resort) as take_signals:
        cluster = RunCluster(engines, address, last_resort, take_signals)
        try:
            with contextlib.closing(cluster):
                return work(cluster)
        except (KeyboardInterrupt, SystemExit):  # the second is Ray's answer to a SIGTERM while it connects
            return Ending(exit_status=130, message=INTERRUPTED)
        except RayError as error:
            return Ending(exit_status=1, message=f"the Ray cluster failed: {str(error).splitlines()[0]}")
