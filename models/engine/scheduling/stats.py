"""The engine's load at a moment and what it did so far, by priority: what a metrics endpoint tells.

Names that begin with `num_` and are no load (waiting, running, blocks) only ever grow. Stats of several
engines are added: `sum(stats, EngineStats())`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from models.engine.scheduling.request import Priority


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorityStats:
    """The requests of one priority.

    `num_finished` ran to their ends, `num_aborted` did not. Prompt tokens are counted when a request first runs, those that
    the prefix cache had in `num_cached_tokens` too. A block that several of these requests hold counts once.
    """

    num_waiting: int = 0
    num_running: int = 0
    num_requests: int = 0
    num_finished: int = 0
    num_aborted: int = 0
    num_preemptions: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_blocks_held: int = 0

    def __add__(self, other: "PriorityStats") -> "PriorityStats":
        return PriorityStats(
            **{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        )

    def without_load(self) -> "PriorityStats":
        """What was done alone."""
        return replace(self, num_waiting=0, num_running=0, num_blocks_held=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats:
    """All of it. `num_blocks_idle` blocks are held by nobody and kept for their prefixes; what keeps no cache has 0 blocks.
    `engine_id` tells whose counters they are, where there are several engines; a sum has none."""

    by_priority: Mapping[Priority, PriorityStats] = field(default_factory=dict)
    num_steps: int = 0
    num_blocks: int = 0
    num_blocks_held: int = 0
    num_blocks_idle: int = 0
    engine_id: str = ""

    @property
    def num_waiting(self) -> int:
        return sum(stats.num_waiting for stats in self.by_priority.values())

    @property
    def num_running(self) -> int:
        return sum(stats.num_running for stats in self.by_priority.values())

    @property
    def num_preemptions(self) -> int:
        return sum(stats.num_preemptions for stats in self.by_priority.values())

    def __add__(self, other: "EngineStats") -> "EngineStats":
        ours, theirs, none = self.by_priority, other.by_priority, PriorityStats()
        return EngineStats(
            by_priority={name: ours.get(name, none) + theirs.get(name, none) for name in {**ours, **theirs}},
            num_steps=self.num_steps + other.num_steps,
            num_blocks=self.num_blocks + other.num_blocks,
            num_blocks_held=self.num_blocks_held + other.num_blocks_held,
            num_blocks_idle=self.num_blocks_idle + other.num_blocks_idle,
        )

    def without_load(self) -> "EngineStats":
        """What was done alone: what stays of an engine that is gone."""
        return EngineStats(
            by_priority={name: stats.without_load() for name, stats in self.by_priority.items()},
            num_steps=self.num_steps,
            engine_id=self.engine_id,
        )
