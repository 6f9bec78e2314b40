"""What a run has done so far, as the driver counts it: sums, one bit per unit, and the units that
could not be read."""

import time
from collections.abc import Callable
from typing import Protocol

from models.engine.memory import MemoryPlan
from pipelines.job import MaxFailed
from pipelines.ledger.ledger import Survey
from pipelines.ledger.progress import Phase, Progress
from pipelines.ledger.receipts import Receipt, Totals, totals_with
from pipelines.rows.unit import UnreadableUnit
from pipelines.units.planning import Plan

MIN_ROWS_OF_A_FRACTION = 1000


class CountsUnits(Protocol):
    """What is told of every unit that comes to its end: a `Tally`, or what counts the dead letters
    that are tried again."""

    @property
    def unreadable(self) -> list[UnreadableUnit]:
        """Units that could not be read."""
        ...

    @property
    def unit_rows(self) -> int:
        """The rows that a unit has at most."""
        ...

    @property
    def num_pending(self) -> int:
        """Units that are not done."""
        ...

    def start_clock(self) -> None:
        """The engines are at work from now on."""
        ...

    def add(self, receipt: Receipt) -> None:
        """Counts a unit that is done; once, however often it is told."""
        ...

    def is_committed(self, unit: int) -> bool:
        """Whether the unit of this number is done."""
        ...

    def is_over(self, allowed: MaxFailed | None) -> bool:
        """Whether more rows have failed than are allowed."""
        ...

    def progress(
        self, phase: Phase, *, rows_in_flight: int = 0, engine_restarts: int = 0, memory: MemoryPlan | None = None
    ) -> Progress:
        """How far all of it is."""
        ...


class Tally:
    """Starts from what earlier runs have committed, which `survey` goes on to tell; `clock` counts seconds."""

    def __init__(self, plan: Plan, survey: Survey, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan, self._clock = plan, clock
        self.survey = survey
        self._is_committed = survey.is_committed.copy()
        self._resumed = self._all = survey.totals
        self._own = Totals()
        self._running_since: float | None = None
        self.unreadable: list[UnreadableUnit] = []

    @property
    def unit_rows(self) -> int:
        """The rows that a unit has at most."""
        return self._plan.unit_rows

    @property
    def num_pending(self) -> int:
        """Units that are not committed."""
        return self._plan.num_units - self._all.num_units

    def start_clock(self) -> None:
        """The engines are at work from now on."""
        if self._running_since is None:
            self._running_since = self._clock()

    def _clock_since(self, began: float) -> None:
        """The engines were at work from then on at the latest."""
        self._running_since = began if self._running_since is None else min(self._running_since, began)

    def add(self, receipt: Receipt) -> None:
        """Counts a committed unit; one that was committed twice over, by a retried task, counts once."""
        if self._is_committed[receipt.unit]:
            return
        self._is_committed[receipt.unit] = True
        self.survey.files.add(receipt)
        self._clock_since(self._clock() - receipt.seconds)  # that an engine is ready is known up to a second late
        self._all, self._own = totals_with(self._all, receipt), totals_with(self._own, receipt)

    def is_committed(self, unit: int) -> bool:
        """Whether the unit of this number is."""
        return bool(self._is_committed[unit])

    def is_over(self, allowed: MaxFailed | None) -> bool:
        """Whether more rows have failed than are allowed; a fraction is one of the rows seen, and counts once these are enough."""
        if allowed is None:
            return False
        if allowed.count is not None:
            return self._all.num_failed > allowed.count
        seen, fraction = self._all.num_rows, allowed.fraction or 0.0
        return seen >= MIN_ROWS_OF_A_FRACTION and self._all.num_failed > fraction * seen

    def progress(
        self, phase: Phase, *, rows_in_flight: int = 0, engine_restarts: int = 0, memory: MemoryPlan | None = None
    ) -> Progress:
        """The run at this moment."""
        return Progress(
            phase=phase,
            rows_done=self._all.num_rows,
            rows_total=self._plan.num_rows,
            rows_in_flight=min(rows_in_flight, self._plan.num_rows - self._all.num_rows),
            rows_failed=self._all.num_failed,
            rows_resumed=self._resumed.num_rows,
            units_done=self._all.num_units,
            units_total=self._plan.num_units,
            units_resumed=self._resumed.num_units,
            units_failed=len(self.unreadable),
            prompt_tokens=self._own.prompt_tokens,
            cached_tokens=self._own.cached_tokens,
            completion_tokens=self._own.completion_tokens,
            seconds=0.0 if self._running_since is None else self._clock() - self._running_since,
            engine_restarts=engine_restarts,
            memory=memory,
        )
