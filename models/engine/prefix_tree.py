"""What sequences begin with in common, as a tree: which beginnings it pays to compute once for all
that have them.

    root = prefix_tree_of(prompts)      of no tokens, with others and whole prompts beneath it

Integers alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

GRID = 16
"""Beginnings end at multiples of this many tokens, so that they seldom differ by what a few rows
have in common by chance."""
MIN_SAVED = 64
"""Tokens that a beginning has to save: each is a pass of its own."""


@dataclass(kw_only=True, slots=True)
class PrefixNode:
    """The first `length` tokens of all sequences beneath it, of which `first` is one. `leaves` are
    the sequences that have nothing more in common with others."""

    length: int = 0
    first: int = -1
    leaves: list[int] = field(default_factory=list)
    children: list["PrefixNode"] = field(default_factory=list)


def prefix_tree_of(
    sequences: Sequence[IntArray], *, max_depth: int | None = None, grid: int = GRID, min_saved: int = MIN_SAVED
) -> PrefixNode:
    """The tree over sequences of at least one token. Every sequence is a leaf once, and at least
    its last token is in no beginning, since what follows it is asked for. At most `max_depth`
    beginnings lie within each other; they end at multiples of `grid` tokens, and each saves at
    least `min_saved`."""
    tokens = [ids[:-1] for ids in sequences]
    order = _sorted(tokens)
    common = np.zeros(len(order), dtype=np.int64)  # [i]: of sequences i - 1 and i in that order
    for place, (one, other) in enumerate(pairwise(order)):
        common[place + 1] = _common(tokens[one], tokens[other])
    common -= common % grid
    root = PrefixNode()
    ranges = [(0, len(order), root, 0)] if order else []
    while ranges:
        first, after, node, depth = ranges.pop()
        if after - first == 1:
            node.leaves.append(order[first])
            continue
        length = int(common[first + 1 : after].min())
        is_worth_it = (after - first - 1) * (length - node.length) >= min_saved
        if is_worth_it and (max_depth is None or depth < max_depth):
            child = PrefixNode(length=length, first=order[first])
            node.children.append(child)
            node, depth = child, depth + 1
        cuts = [first, *(first + 1 + np.flatnonzero(common[first + 1 : after] == length)).tolist(), after]
        ranges.extend((start, stop, node, depth) for start, stop in pairwise(cuts))
    return root


def num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many of their tokens two sequences have computed once, if they are alone in a call."""
    common = _common(np.array(one[:-1]), np.array(other[:-1]))
    return common - common % GRID if common - common % GRID >= MIN_SAVED else 0


def _sorted(sequences: Sequence[IntArray]) -> list[int]:
    """The order in which those that begin alike are neighbours: that of their tokens as bytes, the
    highest first."""
    keys = [ids.astype(">u4").tobytes() for ids in sequences]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _common(one: IntArray, other: IntArray) -> int:
    size = min(one.size, other.size)
    differs = one[:size] != other[:size]
    first = int(differs.argmax()) if size else 0
    return first if size and differs[first] else size
