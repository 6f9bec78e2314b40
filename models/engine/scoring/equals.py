"""Equal sequences put together: each different one is computed once, and what it gave handed to
all that asked for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.layers.attention.attention import IntArray


@dataclass(frozen=True, slots=True)
class Different:
    """The different sequences of a call, in the order in which they came first, what kind each is
    of, and which of them each sequence of the call is [N]."""

    sequences: list[Sequence[int]]
    kinds: list[int]
    numbers: IntArray

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], kinds: Sequence[int] | None = None) -> "Different":
        """Those among `sequences`; ones of different `kinds` are not equal."""
        pairs = zip(kinds or [0] * len(sequences), map(tuple, sequences), strict=True)
        found: dict[tuple[int, tuple[int, ...]], int] = {}
        numbers = [found.setdefault(pair, len(found)) for pair in pairs]
        return cls([ids for _, ids in found], [kind for kind, _ in found], np.array(numbers, dtype=np.int64))

    def to_each(self, found: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What was found for each different sequence, for each of the call: a tensor of its
        own."""
        firsts = set(np.unique(self.numbers, return_index=True)[1].tolist())
        return [
            found[number] if place in firsts else found[number].clone()
            for place, number in enumerate(self.numbers.tolist())
        ]

    def num_cached(self, num_cached: IntArray) -> IntArray:
        """How many tokens of each sequence of the call were not computed for it, from those of the
        different ones: of one that came before, all of them."""
        lengths = np.array([len(ids) for ids in self.sequences], dtype=np.int64)
        counts = lengths[self.numbers]
        firsts = np.unique(self.numbers, return_index=True)[1]
        counts[firsts] = num_cached[self.numbers[firsts]]
        return counts
