"""Attention with a compiled kernel (`models.layers.native`): one way for all queries of a step, those that continue a cache and
those of whole prompts, so that what is computed for a token depends on its sequence alone."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from models.layers.attention.attention import AttentionBackend, IntArray, KvCache, KvSpec, Layout
from models.layers.native.library import NativeLibrary, Pages, Steps

BLOCK_SIZE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class NativePlan:
    """One step; `tables` [S, W] None: nothing is cached."""

    steps: Steps
    tables: torch.Tensor | None
    block_size: int


def backend(library: NativeLibrary) -> AttentionBackend:
    """What computes a model by this library."""
    return AttentionBackend(
        name="native",
        block_size=BLOCK_SIZE,
        reads_whole_blocks=False,
        cache_shape=cache_shape,
        plan=plan,
        attend=partial(attend, library),
    )


def cache_shape(spec: KvSpec, num_blocks: int, block_size: int) -> tuple[int, ...]:
    """[N, K, B * D]: a block of a head's keys is [D, B], one of its values [B, D]."""
    return (num_blocks, spec.num_kv_heads, block_size * spec.head_dim)


def plan(layout: Layout, device: torch.device, window: int | None = None) -> NativePlan:
    """The integers as the kernel takes them."""
    del device
    counts, starts = map(_int64, (layout.counts, layout.starts))
    return NativePlan(
        steps=Steps(counts=counts, starts=starts, window=window or 0),
        tables=None if layout.tables is None else _int64(layout.tables),
        block_size=layout.block_size,
    )


def _int64(numbers: IntArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64))


def attend(
    library: NativeLibrary,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: KvCache | None,
    plan: NativePlan,
    scale: float,
) -> torch.Tensor:
    """Q [T, Q, D], k and v [T, K, D] -> [T, Q, D]; writes k and v to the cache first."""
    pages = None
    if cache is not None and plan.tables is not None:
        pages = Pages(k=cache.k, v=cache.v, tables=plan.tables, block_size=plan.block_size)
    return library.attention(q, k, v, pages, plan.steps, scale)
