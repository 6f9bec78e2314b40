"""Listening to a graph that runs: outcomes are counted, and whatever must end or drain the run is noticed.

Callers that asked for the state of a run are told it at most every half second.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from actors.engine.load import EngineLoad
from pipelines.cluster.watch import ClusterWatch
from pipelines.errors import FleetError, OutputError
from pipelines.graph.execution import Execution
from pipelines.graph.in_flight import RowsInFlight
from pipelines.graph.outcomes import Committed, Halted, LeftOut, UnitOutcome
from pipelines.graph.watch import EngineWatch
from pipelines.job import MaxFailed
from pipelines.ledger.lease import ensure_owned
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.progress import Phase, Progress
from pipelines.ledger.tally import CountsUnits
from pipelines.rows.blocks import OUTCOME, value_in
from pipelines.rows.row_guard import fault_name
from pipelines.rows.streak import Fault, FaultStreak
from pipelines.rows.unit import UnreadableUnit

WAIT_S = 0.2
SHOW_S = 0.5
_OVERRUN = "overrun"


class OwnsEngines(Protocol):
    """Who has the engines of a run."""

    @property
    def has_lost_one(self) -> bool:
        """Whether an engine is gone that could not be made again."""
        ...

    @property
    def loads(self) -> Sequence[EngineLoad]:
        """What the engines whose answers are for good last said of their calls."""
        ...


class Follower:
    """Follows one execution from its first block to its last."""

    def __init__(
        self,
        ledger: Ledger,
        tally: CountsUnits,
        engines: OwnsEngines,
        watch: EngineWatch,
        cluster: ClusterWatch,
        *,
        max_failed: MaxFailed | None,
        show: Callable[[Progress], None],
    ) -> None:
        self._ledger, self._tally, self._cluster = ledger, tally, cluster
        self._engines, self._watch = engines, watch
        self._max_failed, self._show = max_failed, show
        self._in_flight = RowsInFlight(tally.unit_rows, tally.is_committed)
        self._next_show = 0.0
        self._streak = FaultStreak()
        self.is_draining = False

    def follow(self, execution: Execution) -> None:
        """Returns when every unit of the execution has come to an end.

        Raises:
            FleetError: engines keep dying, or one cannot be started.
            InternalError: unit after unit meets the same fault of ours.
            OverrunsError: unit after unit is given up, as its rows go over the limits of preparing them.
            OutputError: results cannot be written, or the output folder is lost.
            LeaseError: the lease is lost.
            ClusterLostError: the Ray cluster is gone.
            GraphError: Ray gave the graph up.
        """
        self.show_now()
        while not execution.is_finished:
            block = execution.next_block(WAIT_S)
            if block is not None:
                self._take(value_in(block, OUTCOME))
            self._cluster.check()
            self._ledger.lease.check()
            self._watch.look()
            if self._engines.has_lost_one:
                raise FleetError(f"an engine failed: {self._watch.last_cause()}")
            if self._watch.is_any_ready:
                self._tally.start_clock()
            if time.monotonic() >= self._next_show:
                self.show_now()
        # Units of a lost folder end at once, uncomputed: the graph may be over before the next heartbeat notices.
        ensure_owned(self._ledger.store, self._ledger.lease.token)

    def show_now(self) -> None:
        """Tells the state of the run."""
        self._next_show = time.monotonic() + SHOW_S
        self._in_flight.look(self._engines.loads)
        progress = self._tally.progress(
            self._phase,
            rows_in_flight=self._in_flight.num_rows,
            engine_restarts=self._watch.num_deaths,
            memory=self._watch.memory,
        )
        self._show(progress)

    @property
    def _phase(self) -> Phase:
        if self.is_draining:
            return "draining"
        return "running" if self._watch.is_any_ready else "starting"

    def _take(self, outcome: UnitOutcome) -> None:
        match outcome:
            case Committed(receipt=receipt, faults=faults):
                self._tally.add(receipt)
                self._watch.on_commit()
                self._streak.add(faults)
                if not self.is_draining and self._tally.is_over(self._max_failed):
                    self.is_draining = True
                    self._ledger.lease.set_draining()
            case UnreadableUnit():
                self._tally.unreadable.append(outcome)
                self._streak.add(_faults_of(outcome))
            case Halted(message=message):
                raise OutputError(message)
            case LeftOut():
                pass


def _faults_of(failed: UnreadableUnit) -> list[Fault]:
    """The fault of a unit that failed as a whole, if it is ours or its rows'."""
    if not (failed.is_fault or failed.is_overrun):
        return []
    return [
        Fault(
            name=_OVERRUN if failed.is_overrun else fault_name(failed.message),
            message=failed.message,
            path=failed.unit.path,
            row=failed.unit.first_row,
            is_overrun=failed.is_overrun,
        )
    ]
