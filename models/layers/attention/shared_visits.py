"""Decoding attention over blocks that several sequences begin with: one product for the queries of
all of them.

It is a part of `models.layers.attention.cpu`, whose pass over the pool meets every block with one
sequence: a block that others share would have to be copied for each of them. What comes out are
partial softmaxes, as of any other visit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from models.layers.attention.attention import IntArray, KvCache

MIN_SAVED = 8  # blocks that are not copied; fewer are not worth the calls
MAX_SCORES = 1 << 18  # of all sequences with the keys of one visit, in each head


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedVisits:
    """`owner` [n] are decoding sequences, whose tables begin with `blocks` [m]."""

    owner: torch.Tensor
    blocks: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedBlocks:
    """The numbers behind it: sequences [n], and how many first blocks they have in common."""

    members: IntArray
    num_blocks: int


def shared_blocks(tables: IntArray, num_full: IntArray) -> Iterator[SharedBlocks]:
    """Sequences that begin with the same blocks, by their tables [S, W] and how many full blocks
    each has [S]. One that begins with a block of its own is in none."""
    _, first = np.unique(tables[:, 0], return_inverse=True)
    order = np.argsort(first, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(first[order])) + 1):
        if members.size > 1:
            common = tables[members, : int(num_full[members].min())]
            is_same = (common == common[0]).all(0)
            num_blocks = int(is_same.size if is_same.all() else is_same.argmin())
            if num_blocks * (members.size - 1) >= MIN_SAVED:
                yield SharedBlocks(members=members, num_blocks=num_blocks)


def visits_to(shared: SharedBlocks, tables: IntArray, block_size: int, device: torch.device) -> Iterator[SharedVisits]:
    """The visits to shared blocks, of which none has more than `MAX_SCORES` scores if it has
    several blocks."""
    owner = torch.from_numpy(shared.members).to(device)
    blocks = torch.from_numpy(tables[shared.members[0], : shared.num_blocks].copy()).to(device)
    most = max(1, MAX_SCORES // (shared.members.size * block_size))
    return (SharedVisits(owner=owner, blocks=part) for part in blocks.split(most))


def visit_shared(
    grouped: torch.Tensor, cache: KvCache, visits: SharedVisits, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries [S, K, G, D] -> of each owner the exp-weighted values of the blocks [n, Q, D],
    largest scores [n, Q] and sums of exponentials [n, Q], in float32."""
    keys, values = (
        pages.index_select(0, visits.blocks).transpose(0, 1).flatten(1, 2) for pages in (cache.k, cache.v)
    )  # [K, m * B, D]
    queries = grouped.index_select(0, visits.owner).transpose(0, 1)  # [K, n, G, D]
    scores = torch.bmm(queries.flatten(1, 2), keys.transpose(1, 2)).float().mul_(scale)  # [K, n * G, m * B]
    largest = scores.amax(-1)
    weights = scores.sub_(largest[..., None]).exp_()
    weighted = torch.bmm(weights.to(values.dtype), values)  # [K, n * G, D]

    def by_owner(x: torch.Tensor) -> torch.Tensor:
        """[K, n * G, ...] -> [n, Q, ...]."""
        split: torch.Tensor = x.unflatten(1, queries.shape[1:3])
        return split.transpose(0, 1).flatten(1, 2)

    return by_owner(weighted.float()), by_owner(largest), by_owner(weights.sum(-1))
