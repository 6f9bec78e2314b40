"""What isolated work may take."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessLimits:
    """Of one worker: `memory_bytes` beyond what it shares with its server; `step_s` seconds on the clock and
    `step_cpu_s` seconds of computing in one step, which is the whole call where the work names no steps (see `step`).
    A limit in seconds that is None does not hold. Of the server: `setup_s` and `setup_memory_bytes` for making the
    context.
    """

    memory_bytes: int
    step_s: float | None = None
    step_cpu_s: float | None = None
    setup_s: float = 120.0
    setup_memory_bytes: int = 8 << 30

    def __post_init__(self) -> None:
        if self.step_s is None and self.step_cpu_s is None:
            raise ValueError("isolated work needs a limit of time: give step_s or step_cpu_s")
