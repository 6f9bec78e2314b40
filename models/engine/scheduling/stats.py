"""The engine's load at a moment and what it did so far, by priority: what a metrics endpoint tells.

Names that begin with `num_` and are no load (waiting, running, blocks) only ever grow.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from models.engine.scheduling.request import Priority


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorityStats:
    """The requests of one priority.

    `num_finished` ran to their ends, `num_aborted` did not. Prompt tokens are counted when a request first runs, those that
    the prefix cache had in `num_cached_tokens` too. A block that several of these requests hold counts once.
    """

    num_waiting: int
    num_running: int
    num_requests: int
    num_finished: int
    num_aborted: int
    num_preemptions: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    num_blocks_held: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats:
    """All of it. `num_blocks_idle` blocks are held by nobody and kept for their prefixes."""

    by_priority: Mapping[Priority, PriorityStats]
    num_steps: int
    num_blocks: int
    num_blocks_held: int
    num_blocks_idle: int

    @property
    def num_waiting(self) -> int:
        return sum(stats.num_waiting for stats in self.by_priority.values())

    @property
    def num_running(self) -> int:
        return sum(stats.num_running for stats in self.by_priority.values())

    @property
    def num_preemptions(self) -> int:
        return sum(stats.num_preemptions for stats in self.by_priority.values())
