"""Whole sequences packed into steps, for work that needs no scheduler: which go together, and their tensors."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from models.layers.attention.attention import IntArray, Layout
from models.loading.load import LoadedModel
from models.networks.decoder import Batch


def packs(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices that are computed together, longest first: at most `budget` tokens, or one sequence that is longer
    than that."""
    pack: list[int] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if pack and used + lengths[index] > budget:
            yield pack
            pack, used = [], 0
        pack.append(index)
        used += lengths[index]
    if pack:
        yield pack


def batch_of(
    loaded: LoadedModel,
    token_ids: Sequence[Sequence[int] | IntArray],
    layout: Layout,
    rows: IntArray | None,
    regimes: IntArray | None = None,
) -> Batch:
    """The step in which sequence i computes `token_ids[i]` after `layout.starts[i]` cached tokens;
    `rows` are the packed tokens whose output is wanted. `regimes` are the rope regimes of the
    sequences, None: those of whole ones."""
    device, rope = loaded.device, loaded.config.rope.regimes
    if regimes is None:
        regimes = np.array([rope.of(length, length) for length in layout.counts.tolist()])
    flat = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in token_ids])
    firsts = np.cumsum(layout.counts) - layout.counts
    positions = np.arange(flat.size) + np.repeat(layout.starts - firsts, layout.counts)
    return Batch(
        token_ids=torch.from_numpy(flat).to(device),
        positions=torch.from_numpy(positions).to(device),
        attention=loaded.plan_attention(layout),
        rows=None if rows is None else torch.from_numpy(rows).to(device),
        regimes=None if rope.kind == "fixed" else torch.from_numpy(np.repeat(regimes, layout.counts)).to(device),
        mamba=loaded.plan_mamba(layout),
    )
