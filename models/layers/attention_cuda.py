"""Attention on a GPU with variable-length flash attention (Dao 2023): one call a layer for decodes and prefill alike.

Where flash-attn is installed its kernel walks the paged cache through a block table. Otherwise torch's own
variable-length kernel runs over keys and values gathered from the pages. Both align a sequence's last query with its
last key. The kernels are passed in, so that everything around them runs on the CPU too.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import cast

import numpy as np
import torch

from models.layers.attention import AttentionBackend, KvCache, KvSpec, Layout

PAGED_BLOCK_SIZE = 256  # flash-attn's paged kernel takes multiples of this
GATHERED_BLOCK_SIZE = 32

PagedKernel = Callable[..., torch.Tensor]
"""flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=, causal=,
window_size=, block_table=)."""

GatheredKernel = Callable[..., torch.Tensor]
"""kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, window_size): causal, as many key as
query heads."""

WindowSize = tuple[int, int]
"""How many keys before a query's own it sees, and how many after; -1: all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CudaPlan:
    """One step: packed boundaries and longest lengths of queries and keys, where new keys go, and how the cache is
    walked."""

    cu_queries: torch.Tensor  # [S + 1] int32
    cu_keys: torch.Tensor  # [S + 1] int32
    max_queries: int
    max_keys: int
    slots: torch.Tensor | None  # [T] cache place of each new token
    tables: torch.Tensor | None  # [S, blocks] int32, for the paged kernel
    keys: torch.Tensor | None  # [Tk] cache place of every key that is seen, for the gathered one
    window_size: WindowSize


def choose() -> AttentionBackend:
    """The best kernel that is installed."""
    if find_spec("flash_attn") is not None:
        from flash_attn import flash_attn_varlen_func

        return paged_backend(flash_attn_varlen_func)
    return gathered_backend(_torch_kernel())


def has_windows() -> bool:
    """Whether the kernel that `choose` picks can leave out keys that lie too far back."""
    if find_spec("flash_attn") is not None:
        return True
    from torch.nn.attention import varlen

    return "window_size" in inspect.signature(varlen.varlen_attn).parameters


def paged_backend(kernel: PagedKernel) -> AttentionBackend:
    """Flash attention through a block table."""
    return AttentionBackend(
        name="flash-attn",
        block_size=PAGED_BLOCK_SIZE,
        reads_whole_blocks=False,
        cache_shape=cache_shape,
        plan=partial(_plan, is_paged=True),
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


def _plan(layout: Layout, device: torch.device, window: int | None = None, *, is_paged: bool) -> CudaPlan:
    lengths = layout.starts + layout.counts
    first_key = np.zeros_like(lengths)
    if window is not None and layout.tables is not None and not is_paged:
        first_key = np.maximum(layout.starts - window + 1, 0)
    slots = tables = keys = None
    if layout.tables is not None:
        slots = _places(layout, layout.starts, layout.counts).to(device)
        if is_paged:
            width = -(-int(lengths.max()) // layout.block_size)
            tables = torch.from_numpy(layout.tables[:, :width].astype(np.int32)).to(device)
        else:
            keys = _places(layout, first_key, lengths - first_key).to(device)
    return CudaPlan(
        cu_queries=_boundaries(layout.counts).to(device),
        cu_keys=_boundaries(lengths - first_key).to(device),
        max_queries=int(layout.counts.max()),
        max_keys=int((lengths - first_key).max()),
        slots=slots,
        tables=tables,
        keys=keys,
        window_size=(-1, 0) if window is None else (window - 1, 0),
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
        k, v = cache.k, cache.v
    return kernel(
        q,
        k,
        v,
        plan.cu_queries,
        plan.cu_keys,
        plan.max_queries,
        plan.max_keys,
        softmax_scale=scale,
        causal=True,
        window_size=plan.window_size,
        block_table=plan.tables,
    )


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
        assert plan.keys is not None
        _write(cache, k, v, plan)
        k, v = (pages.flatten(0, 1).index_select(0, plan.keys) for pages in (cache.k, cache.v))
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    return kernel(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        plan.cu_queries,
        plan.cu_keys,
        plan.max_queries,
        plan.max_keys,
        scale,
        plan.window_size,
    )


def _torch_kernel() -> GatheredKernel:
    """Torch's variable-length kernel behind one signature; how it is told to be causal has changed between
    releases."""
    from torch.nn.attention import varlen

    varlen_attn = cast("Callable[..., torch.Tensor]", varlen.varlen_attn)
    parameters = inspect.signature(varlen_attn).parameters

    def kernel(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_q: torch.Tensor,
        cu_k: torch.Tensor,
        max_q: int,
        max_k: int,
        scale: float,
        window_size: WindowSize,
    ) -> torch.Tensor:
        causal: dict[str, object] = {"window_size": window_size} if has_windows() else {"is_causal": True}
        if "scale" not in parameters:  # older kernels always divide by sqrt(D)
            q = q * (scale * q.shape[-1] ** 0.5)
            return varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, **causal)
        return varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, scale=scale, **causal)

    return kernel
