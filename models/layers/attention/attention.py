"""Causal self-attention over a packed step, and the seam between it and the kernels that compute it.

A backend is a handful of functions with one signature, chosen once when the model is built:
`models.layers.attention.cpu` (torch operators; the reference) and `models.layers.attention.cuda` (flash attention).
Caches belong to the call site: the engine allocates one for every `KvSpec` a model lists and passes them to
`forward`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.layers.linear import RowLinear
from models.layers.norm import HeadNorm
from models.layers.rotary.rotation import Rotation, rotate

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class KvSpec:
    """One call site that needs a key/value cache, with this rank's number of heads."""

    num_kv_heads: int
    head_dim: int

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """Bytes one cached token takes at this call site, keys and values."""
        return 2 * self.num_kv_heads * self.head_dim * dtype.itemsize


@dataclass(frozen=True, kw_only=True, slots=True)
class KvCache:
    """Paged keys and values of one call site, in the shape its backend asks for; written by `attend`."""

    k: torch.Tensor
    v: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which sequences share a step, as integers: they stand packed one after the other, single
    tokens that continue a cache first.

    `counts` [S] tokens of each sequence in this step; `starts` [S] its tokens that are in the
    cache already; `tables` [S, max blocks] the cache blocks that hold it, in order. `tables` None:
    nothing is cached, every sequence is whole. `slots` [S] are the rows of its states in layers
    that keep any; None where nothing is cached. `num_given` [S] of its tokens were given, the
    later ones generated; None: all are given. A sequence may look at tokens of this very step,
    those of a sequence whose blocks its table begins with: backends write keys and values before
    they look at any. `families` are runs of sequences (first, one after the last, n), in their
    order, whose tables begin with the same n blocks, which are full and which no sequence of the
    run writes to: a backend may look at these blocks once for all of a run. Runs do not overlap;
    empty: nothing is said. `kept` are (sequence, n, row): layers with states copy what stands
    after the first n of a sequence's tokens in this step to that row. n is a multiple of the
    chunks that such layers compute, and less than the sequence's count.
    """

    counts: IntArray
    starts: IntArray
    tables: IntArray | None = None
    block_size: int = 0
    slots: IntArray | None = None
    num_given: IntArray | None = None
    families: tuple[tuple[int, int, int], ...] = ()
    kept: tuple[tuple[int, int, int], ...] = ()

    @property
    def num_decodes(self) -> int:
        """Leading sequences that compute one token over a cache."""
        if self.tables is None:
            return 0
        single = (self.counts == 1) & (self.starts > 0)
        return int(single.size if single.all() else single.argmin())


Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "KvCache | None", Any, float], torch.Tensor]


class PlanAttention(Protocol):
    """How a backend prepares a step; see `AttentionBackend`."""

    def __call__(self, layout: Layout, device: torch.device, window: int | None = None) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionBackend:
    """How attention is computed on one kind of device.

    `cache_shape(spec, num_blocks, block_size)` is the shape of one `KvCache` tensor. `plan(layout, device, window)` turns
    a step's layout into whatever `attend(q [T, Q, D], k [T, K, D], v [T, K, D], cache, plan, scale) -> [T, Q, D]`
    needs, once for all layers whose queries see the same number of keys, their own included (`window`; None: all);
    `attend` first writes k and v to the cache.

    `reads_whole_blocks` says that attention multiplies whole blocks, masked places by 0: the used part of the pool
    should be dense, and what a block held before has to be cleared, because 0 times an overflow is no number.
    """

    name: str
    block_size: int
    reads_whole_blocks: bool
    cache_shape: Callable[[KvSpec, int, int], tuple[int, ...]]
    plan: PlanAttention
    attend: Attend


class Attention(nn.Module):
    """The attention block of a decoder: fused projection, optional head norms, rotation where there is one, attention;
    `o_proj` is applied apart. `window` is how many keys a query sees, None all; `scale` multiplies the scores and is
    1 / sqrt(head_dim) by default."""

    def __init__(
        self,
        *,
        qkv_proj: nn.Module,
        o_proj: RowLinear,
        head_norm: HeadNorm | None,
        num_query_heads: int,
        num_kv_heads: int,
        head_dim: int,
        attend: Attend,
        window: int | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.qkv_proj, self.o_proj, self.head_norm = qkv_proj, o_proj, head_norm
        self.num_query_heads, self.num_kv_heads, self.head_dim = num_query_heads, num_kv_heads, head_dim
        self.window, self.scale = window, head_dim**-0.5 if scale is None else scale
        self.attend = attend

    @property
    def cache_spec(self) -> KvSpec:
        return KvSpec(num_kv_heads=self.num_kv_heads, head_dim=self.head_dim)

    def forward(
        self, x: torch.Tensor, rotation: Rotation | None, cache: KvCache | None, plans: Mapping[int | None, Any]
    ) -> torch.Tensor:
        """X [T, H] -> the heads' outputs side by side [T, Q * D], before `o_proj`. `plans` has one per window."""
        heads = self.qkv_proj(x).view(x.shape[0], -1, self.head_dim)  # [T, Q + 2K, D]
        qk, v = heads.split([self.num_query_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        if self.head_norm is not None:
            qk = self.head_norm(qk)
        if rotation is not None:
            qk = rotate(qk, rotation)
        q, k = qk.split([self.num_query_heads, self.num_kv_heads], dim=1)
        return self.attend(q, k, v, cache, plans[self.window], self.scale).flatten(1)  # [T, Q * D]
