"""How many replicas a run has, by what they have to do: more while they are full, fewer once they have long been half empty.

Integers alone: it knows no Ray and no clock, but is asked once a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

FULL: Final = 0.75
"""Of the units that the replicas could take, the part from which there may be one more, up to the most; at half of that there is one
fewer, down to the least."""

PATIENCE: Final = 30
"""How often in a row the replicas have to be half empty before there is one fewer: loading one again costs more than a lull."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """The least and the most replicas, and the units that each may have at a time."""

    least: int
    most: int
    calls_each: int


class Sizing:
    """Looks at the replicas once a second."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._num_low = 0

    def change(self, num_calls: Sequence[int | None]) -> Literal[-1, 0, 1]:
        """Whether to start one more replica (1), to end one (-1), or neither (0). `num_calls` are
        the units that each has, None for one that has not loaded yet: until all have loaded, none
        is started."""
        counts = [count for count in num_calls if count is not None]
        if not counts:
            return 0
        full = sum(counts) / (len(counts) * self._bounds.calls_each)
        self._num_low = self._num_low + 1 if full < FULL / 2 else 0
        if full >= FULL and len(counts) == len(num_calls) < self._bounds.most:
            return 1
        if self._num_low >= PATIENCE and len(num_calls) > self._bounds.least:
            self._num_low = 0
            return -1
        return 0
