"""What a retry has done so far: a `pipelines.ledger.tally.CountsUnits` of dead letters, and what
the output holds then."""

import time
from collections.abc import Callable
from dataclasses import replace

from models.engine.memory import MemoryPlan
from pipelines.job import MaxFailed
from pipelines.ledger.ledger import Survey
from pipelines.ledger.progress import Phase, Progress
from pipelines.ledger.receipts import Receipt
from pipelines.retry.choice import Choice
from pipelines.rows.unit import UnreadableUnit
from pipelines.units.planning import Plan


class RetryTally:
    """Rows are the letters that are tried: done once their unit is committed anew, failed if they
    are dead letters still. `survey` is the output's from before; `clock` counts seconds."""

    def __init__(
        self, plan: Plan, survey: Survey, choice: Choice, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan, self._survey, self._choice, self._clock = plan, survey, choice, clock
        self._done: set[int] = set()
        self._own = Progress(phase="starting", rows_total=choice.num_rows, units_total=len(choice.units))
        self._running_since: float | None = None
        self.unreadable: list[UnreadableUnit] = []

    @property
    def unit_rows(self) -> int:
        return self._plan.unit_rows

    @property
    def num_pending(self) -> int:
        return len(self._choice.units) - len(self._done)

    @property
    def num_with_results(self) -> int:
        """Letters that have become rows."""
        return self._own.rows_done - self._own.rows_failed

    @property
    def num_dead(self) -> int:
        """Dead letters that the output has now, tried or not."""
        return self._survey.totals.num_failed - self.num_with_results

    def start_clock(self) -> None:
        if self._running_since is None:
            self._running_since = self._clock()

    def add(self, receipt: Receipt) -> None:
        if receipt.unit in self._done:
            return
        self._done.add(receipt.unit)
        self._survey.files.add(receipt)
        self.start_clock()
        before, own = self._choice.units[receipt.unit], self._own
        num_failed = receipt.num_failed - (before.num_failed - before.num_tried)
        self._own = replace(
            own,
            rows_done=own.rows_done + before.num_tried,
            rows_failed=own.rows_failed + num_failed,
            units_done=own.units_done + 1,
            prompt_tokens=own.prompt_tokens + receipt.prompt_tokens - before.prompt_tokens,
            cached_tokens=own.cached_tokens + receipt.cached_tokens - before.cached_tokens,
            completion_tokens=own.completion_tokens + receipt.completion_tokens - before.completion_tokens,
        )

    def is_committed(self, unit: int) -> bool:
        return unit in self._done

    def is_over(self, allowed: MaxFailed | None) -> bool:
        """Never: a retry makes no dead letters."""
        del allowed
        return False

    def progress(
        self, phase: Phase, *, rows_in_flight: int = 0, engine_restarts: int = 0, memory: MemoryPlan | None = None
    ) -> Progress:
        return replace(
            self._own,
            phase=phase,
            rows_in_flight=min(rows_in_flight, self._choice.num_rows - self._own.rows_done),
            units_failed=len(self.unreadable),
            seconds=0.0 if self._running_since is None else self._clock() - self._running_since,
            engine_restarts=engine_restarts,
            memory=memory,
        )
