"""Attention on a GPU with variable-length flash attention (Dao 2023), decodes and prefill alike.

Where flash-attn is installed its kernel walks the paged cache through a block table: one call a
layer. Otherwise torch's own variable-length kernel runs over keys and values gathered from the
pages, so many sequences at a time that what is gathered stays bounded; and so does flash-attn's
where each block is one token. Both align a sequence's last query with its last key. The kernels
are passed in, so that everything around them runs on the CPU too.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from models.layers.attention.attention import AttentionBackend, IntArray, KvCache, KvSpec, Layout
from models.layers.kernels import attention_kernels
from models.layers.kernels.attention_kernels import GatheredKernel, PagedKernel, WindowSize

logger = logging.getLogger(__name__)

GATHERED_BLOCK_SIZE = 32
GATHERED_TOKENS = 1 << 16
"""Tokens whose keys and values are gathered at a time, in one layer; a longer sequence goes alone. With 8 key heads of
128 channels in half precision that is 256 MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelCall:
    """Successive sequences that one call computes: their packed tokens, boundaries and longest lengths of queries and
    keys, and how the cache is walked."""

    tokens: slice
    cu_queries: torch.Tensor  # [S + 1] int32
    cu_keys: torch.Tensor  # [S + 1] int32
    max_queries: int
    max_keys: int
    tables: torch.Tensor | None  # [S, blocks] int32, for the paged kernel
    keys: torch.Tensor | None  # [Tk] cache place of every key that is seen, for the gathered one


@dataclass(frozen=True, kw_only=True, slots=True)
class CudaPlan:
    """One step: where new keys go, and its pieces."""

    slots: torch.Tensor | None  # [T] cache place of each new token
    pieces: tuple[KernelCall, ...]
    window_size: WindowSize


def choose(dtype: torch.dtype, device: torch.device, *, slides: bool) -> AttentionBackend | None:
    """The best kernel that is installed and right, for a model with sliding windows or without; None where there is
    none."""
    paged = attention_kernels.paged_attention(dtype, device.type)
    if paged is not None:
        return paged_backend(paged)
    if slides and not attention_kernels.has_windows():
        logger.warning("torch %s has no flash attention with sliding windows; using plain operators", torch.__version__)
        return None
    gathered = attention_kernels.gathered_attention(dtype, device.type)
    return None if gathered is None else gathered_backend(gathered)


def paged_backend(kernel: PagedKernel) -> AttentionBackend:
    """Flash attention through a block table."""
    return AttentionBackend(
        name="flash-attn",
        block_size=attention_kernels.PAGE,
        reads_whole_blocks=False,
        cache_shape=cache_shape,
        plan=_plan_paged,
        attend=partial(_attend_paged, kernel),
    )


def gathered_backend(kernel: GatheredKernel) -> AttentionBackend:
    """Flash attention over keys and values copied out of their pages."""
    return AttentionBackend(
        name="torch-varlen",
        block_size=GATHERED_BLOCK_SIZE,
        reads_whole_blocks=False,
        cache_shape=cache_shape,
        plan=partial(_plan, is_paged=False),
        attend=partial(_attend_gathered, kernel),
    )


def cache_shape(spec: KvSpec, num_blocks: int, block_size: int) -> tuple[int, ...]:
    """[N, B, K, D], as flash-attn wants it."""
    return (num_blocks, block_size, spec.num_kv_heads, spec.head_dim)


def _plan_paged(layout: Layout, device: torch.device, window: int | None = None) -> CudaPlan:
    """The kernel walks blocks of `attention_kernels.PAGE` tokens and their multiples; those of one token are
    gathered for it."""
    return _plan(layout, device, window, is_paged=layout.block_size > 1)


def _plan(layout: Layout, device: torch.device, window: int | None = None, *, is_paged: bool) -> CudaPlan:
    lengths = layout.starts + layout.counts
    first_key = np.zeros_like(lengths)
    is_gathered = layout.tables is not None and not is_paged
    if window is not None and is_gathered:
        first_key = np.maximum(layout.starts - window + 1, 0)
    cuts = _cuts(lengths - first_key, GATHERED_TOKENS) if is_gathered else [slice(0, lengths.size)]
    return CudaPlan(
        slots=None if layout.tables is None else _places(layout, layout.starts, layout.counts).to(device),
        pieces=tuple(_piece(layout, first_key, cut, device, is_paged=is_paged) for cut in cuts),
        window_size=(-1, 0) if window is None else (window - 1, 0),
    )


def _cuts(num_keys: IntArray, most: int) -> list[slice]:
    """Successive sequences with at most so many keys together, or one that has more."""
    cuts, first, total = [], 0, 0
    for index, count in enumerate(num_keys.tolist()):
        if index > first and total + count > most:
            cuts.append(slice(first, index))
            first, total = index, 0
        total += count
    return [*cuts, slice(first, num_keys.size)]


def _piece(layout: Layout, first_key: IntArray, cut: slice, device: torch.device, *, is_paged: bool) -> KernelCall:
    counts, first = layout.counts[cut], first_key[cut]
    num_keys = layout.starts[cut] + counts - first
    start = int(layout.counts[: cut.start].sum())
    tables = keys = None
    if layout.tables is not None:
        own = layout.tables[cut]
        if is_paged:
            width = -(-int(num_keys.max()) // layout.block_size)
            tables = torch.from_numpy(own[:, :width].astype(np.int32)).to(device)
        else:
            keys = _places(replace(layout, tables=own), first, num_keys).to(device)
    return KernelCall(
        tokens=slice(start, start + int(counts.sum())),
        cu_queries=_boundaries(counts).to(device),
        cu_keys=_boundaries(num_keys).to(device),
        max_queries=int(counts.max()),
        max_keys=int(num_keys.max()),
        tables=tables,
        keys=keys,
    )


def _boundaries(counts: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))


def _places(layout: Layout, starts: np.ndarray, counts: np.ndarray) -> torch.Tensor:
    """The cache place, block * B + offset, of tokens start .. start + count of every sequence, in packed order."""
    assert layout.tables is not None
    sequence = np.repeat(np.arange(counts.size), counts)
    position = starts[sequence] + np.arange(sequence.size) - np.repeat(np.cumsum(counts) - counts, counts)
    blocks = layout.tables[sequence, position // layout.block_size]
    return torch.from_numpy(blocks * layout.block_size + position % layout.block_size)


def _write(cache: KvCache, k: torch.Tensor, v: torch.Tensor, plan: CudaPlan) -> None:
    assert plan.slots is not None
    cache.k.flatten(0, 1).index_copy_(0, plan.slots, k)
    cache.v.flatten(0, 1).index_copy_(0, plan.slots, v)


def _attend_paged(
    kernel: PagedKernel,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: KvCache | None,
    plan: CudaPlan,
    scale: float,
) -> torch.Tensor:
    if cache is not None:
        _write(cache, k, v, plan)
    parts = []
    for piece in plan.pieces:
        keys, values = (k, v) if cache is None else _seen(cache, piece)
        parts.append(
            kernel(
                q[piece.tokens],
                keys,
                values,
                piece.cu_queries,
                piece.cu_keys,
                piece.max_queries,
                piece.max_keys,
                softmax_scale=scale,
                causal=True,
                window_size=plan.window_size,
                block_table=piece.tables,
            )
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _seen(cache: KvCache, piece: KernelCall) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys and values of a piece: all pages where its kernel walks them, else its own [Tk, K,
    D]."""
    if piece.keys is None:
        return cache.k, cache.v
    keys, values = (pages.flatten(0, 1).index_select(0, piece.keys) for pages in (cache.k, cache.v))
    return keys, values


def _attend_gathered(
    kernel: GatheredKernel,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: KvCache | None,
    plan: CudaPlan,
    scale: float,
) -> torch.Tensor:
    if cache is not None:
        _write(cache, k, v, plan)
    parts = [_attend_piece(kernel, q[piece.tokens], k, v, cache, piece, plan, scale) for piece in plan.pieces]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend_piece(
    kernel: GatheredKernel,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: KvCache | None,
    piece: KernelCall,
    plan: CudaPlan,
    scale: float,
) -> torch.Tensor:
    """The outputs of one piece's queries. Without a cache k and v are the step's own."""
    if cache is not None:
        k, v = _seen(cache, piece)
    return kernel(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        piece.cu_queries,
        piece.cu_keys,
        piece.max_queries,
        piece.max_keys,
        scale,
        plan.window_size,
    )
