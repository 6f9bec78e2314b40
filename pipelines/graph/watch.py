"""Engine deaths: how many, without a new committed unit between them, and of what.

Ray restarts engines and tries their units again without end. The journal of engine starts tells the driver that it happens; for a process
that could not say what killed it, the cluster's own table of workers is asked.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable

from models.engine.memory import MemoryPlan
from pipelines.cluster.ray_private import dead_workers
from pipelines.errors import FleetError, OutputError
from pipelines.ledger.attempts import Attempts, EngineStart

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
POLL_S = 1.0


class EngineWatch:
    """Looks at the journal now and then. Every start of a replica beyond its first is a death before it."""

    def __init__(self, attempts: Attempts, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._attempts, self._clock = attempts, clock
        self._starts: list[EngineStart] = []
        self._deaths_at_commit = 0
        self._next_look = clock()

    @property
    def num_deaths(self) -> int:
        starts = Counter(start.replica for start in self._starts)
        failures = Counter(start.replica for start in self._starts if start.cause is not None)
        return sum(max(count - 1, failures[replica]) for replica, count in starts.items())

    @property
    def is_any_ready(self) -> bool:
        """Whether an engine has ever loaded."""
        return any(start.is_ready for start in self._starts)

    @property
    def memory(self) -> MemoryPlan | None:
        """What the first engine that has loaded did with its memory."""
        return next((start.memory for start in self._starts if start.is_ready), None)

    def on_commit(self) -> None:
        """A unit was committed: what died before is forgiven."""
        self._deaths_at_commit = self.num_deaths

    def look(self) -> None:
        """Reads the journal if that was not done in the last second.

        Raises:
            FleetError: `MAX_DEATHS` engines died since the last unit was committed.
        """
        if self._clock() < self._next_look:
            return
        self._next_look = self._clock() + POLL_S
        before = self.num_deaths
        self._read_journal()
        if self.num_deaths > before:
            logger.warning("engine death %d: %s", self.num_deaths, self.last_cause())
        if self.num_deaths - self._deaths_at_commit >= MAX_DEATHS:
            raise FleetError(
                f"{self.num_deaths - self._deaths_at_commit} engines died without a new committed unit; the last cause: {self.last_cause()}"
            )

    def last_cause(self) -> str | None:
        """Why an engine died last, None if none is known to have died."""
        self._read_journal()
        causes = [start.cause for start in self._starts if start.cause is not None]
        return causes[-1] if causes else self._exit_of_last()

    def _read_journal(self) -> None:
        try:
            self._starts = self._attempts.all()
        except OutputError as error:  # only a matter of knowing later: what cannot be committed ends the run
            logger.warning("the journal of engine starts cannot be read: %s", error)

    def _exit_of_last(self) -> str | None:
        """What the cluster says of the end of the engine process that died last."""
        engines = {(start.node, start.pid) for start in self._starts}
        ends = [worker for worker in dead_workers() if (worker.worker_address.node_id.hex(), worker.pid) in engines]
        if not ends:
            return None
        last = max(ends, key=lambda worker: worker.end_time_ms)
        said = last.exit_detail.partition(" Some common causes")[0]
        return f"process {last.pid} ended without a word, killed from outside (for its memory?) or crashed: {said}"
