"""How far a run is, and how it ended: what the driver tells its caller.

Plain numbers, taken from receipts; how they are shown is the caller's affair.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from models.engine.memory import MemoryPlan
from pipelines.units.listing import PassedOver

Phase = Literal["planning", "starting", "running", "draining"]
ExitStatus = Literal[0, 1, 3, 130]

MIN_WINDOW_S = 1.0
"""A speed over less time than this says more of when units happened to end than of the engines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A run at one moment. A row is done when its unit is committed, as a result or as a dead
    letter.

    `rows_total` and `units_total` are None while the inputs are still being planned. `rows_done`,
    `rows_failed` and `units_done` include the `rows_resumed` and `units_resumed` that an earlier
    run had committed; the tokens are this run's own (`cached_tokens` those of them that nothing
    was computed for), and so are the `seconds`, which count from when the first engine was at
    work. `memory` is what an engine has done with its memory, once one has loaded. `passed_over`
    are the input's files that do not count for their endings, while it is being planned.

    `rows_in_flight` are answered, in units that are not committed: they are not done, and a kill
    loses them. Where rows have several requests each, they are about as many.
    """

    phase: Phase
    rows_done: int = 0
    rows_total: int | None = None
    rows_in_flight: int = 0
    rows_failed: int = 0
    rows_resumed: int = 0
    units_done: int = 0
    units_total: int | None = None
    units_resumed: int = 0
    units_failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    engine_restarts: int = 0
    memory: MemoryPlan | None = None
    passed_over: PassedOver = field(default_factory=PassedOver)

    @property
    def tokens_per_s(self) -> float | None:
        """Prompt and completion tokens that this run computed a second; None before there is
        anything to measure."""
        return self._per_s(self.prompt_tokens + self.completion_tokens - self.cached_tokens)

    @property
    def cached_tokens_per_s(self) -> float | None:
        """Those that were cached a second; None where there are none, or nothing to measure
        yet."""
        return self._per_s(self.cached_tokens)

    @property
    def rows_per_s(self) -> float | None:
        """Rows committed by this run a second; None before there is anything to measure."""
        return self._per_s(self.rows_done - self.rows_resumed)

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the average speed so far, that of rows in flight included; None while
        there is no speed or no total."""
        answered = self.rows_done + self.rows_in_flight
        speed = self._per_s(answered - self.rows_resumed)
        if self.rows_total is None or speed is None:
            return None
        return (self.rows_total - answered) / speed

    def _per_s(self, count: int) -> float | None:
        """What a second brings, told from a window that is long enough to say."""
        return count / self.seconds if count > 0 and self.seconds >= MIN_WINDOW_S else None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """How a run ended: `exit_status` as the command returns it, one sentence for people, and the last numbers.

    0 every unit is committed (dead letters allowed); 1 the run failed, what is committed stays; 3 `max_failed` was crossed;
    130 interrupted. The message names the cause of anything but 0.
    """

    exit_status: ExitStatus
    message: str
    output: str
    progress: Progress


ShowProgress = Callable[[Progress], None]


def show_nothing(progress: Progress) -> None:
    """For callers that do not want to know."""
    del progress
