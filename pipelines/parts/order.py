"""The order of parts that leaves least text to compute, where rows with the same beginnings share them.

    sample = PartSample.of([("acme", "acme", "zeta"), ("x", "y", "y")], lengths)
    best_order(sample) -> (0, 1)

Rows whose first parts are the same have those computed once. So an order costs, at each of its places, the lengths of the part there
over the different values that the parts up to there have together. Which values those are depends on the set of these parts and not on
their order, so the cheapest order of all follows from those of its subsets (Held and Karp, 1962): 2^P sets in the place of P! orders.

After GGR, which orders the fields of a table by what their values share: Liu et al. 2024, "Optimizing LLM Queries in Relational
Workloads" (arXiv:2403.05821). That has an order for each group of rows; here all rows have one, which a template can be written in.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Order = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSample:
    """Rows as their parts have them: the number of each part's value [P, N], equal where the values are, and its length in characters
    [P, N], equal where the numbers are."""

    values: Int64Array
    lengths: Int64Array

    @classmethod
    def of(cls, values: Sequence[Sequence[Hashable]], lengths: Sequence[Sequence[int]]) -> "PartSample":
        """From the value of each part in each row."""
        return cls(values=np.stack([_numbered(each) for each in values]), lengths=np.array(lengths, np.int64))

    @property
    def num_parts(self) -> int:
        return len(self.values)

    @property
    def num_rows(self) -> int:
        return len(self.values[0])


def best_order(sample: PartSample) -> Order:
    """The order of the parts that costs least; of several the one that comes first by the parts' numbers, place by place."""
    num_parts = sample.num_parts
    added = _costs(sample)  # [2^P, P]
    every = len(added) - 1
    left = np.zeros(len(added), np.int64)  # the least that the parts which are not in a set cost behind it
    for placed in range(every - 1, -1, -1):
        left[placed] = min(_behind(placed, part, added, left) for part in _others(placed, num_parts))
    order: list[int] = []
    placed = 0
    while placed != every:
        part = next(part for part in _others(placed, num_parts) if _behind(placed, part, added, left) == left[placed])
        order.append(part)
        placed |= 1 << part
    return tuple(order)


def shared_in(sample: PartSample, order: Sequence[int]) -> float:
    """The share of all text of the parts that need not be computed in this order, as rows before have it: from 0 to 1."""
    total = int(sample.lengths.sum())
    values, cost = np.zeros(sample.num_rows, np.int64), 0
    for part in order:
        values, first = _together(values, sample.values[part])
        cost += int(sample.lengths[part, first].sum())
    return 1.0 - cost / total if total else 0.0


def _behind(placed: int, part: int, added: Int64Array, left: Int64Array) -> int:
    """What it costs to place this part behind a set of others, and all that are left behind it."""
    with_it = placed | 1 << part
    return int(added[with_it, part] + left[with_it])


def _others(placed: int, num_parts: int) -> list[int]:
    return [part for part in range(num_parts) if not placed >> part & 1]


def _costs(sample: PartSample) -> Int64Array:
    """Of every set of parts, a bit each, what each costs as its last one [2^P, P]."""
    num_sets = 1 << sample.num_parts
    costs = np.zeros((num_sets, sample.num_parts), np.int64)
    values = np.zeros((num_sets, sample.num_rows), np.int64)
    for placed in range(1, num_sets):
        last = placed.bit_length() - 1
        values[placed], first = _together(values[placed ^ 1 << last], sample.values[last])
        costs[placed] = sample.lengths[:, first].sum(axis=1)
    return costs


def _together(values: Int64Array, others: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Numbers of the values that two parts have together [N], and the first row of each of these."""
    pairs = values * (others.max(initial=0) + 1) + others
    _, first, numbers = np.unique(pairs, return_index=True, return_inverse=True)
    return numbers.astype(np.int64), first


def _numbered(values: Sequence[Hashable]) -> Int64Array:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
