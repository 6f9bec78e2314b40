"""Attention in which a query sees the keys after it too, for networks that only read: `is_causal: false` in config.json.

Sequences are whole and nothing is cached. They are grouped and padded as in `models.layers.attention.cpu`, and computed by torch's
fused attention on any device. A window counts on both sides, as in transformers: keys at a distance of at most `window`.
"""

from dataclasses import dataclass
from functools import partial

import torch

from models.layers.attention import cpu as attention_cpu
from models.layers.attention import cpu_plan
from models.layers.attention.attention import AttentionBackend, KvCache, Layout
from models.layers.attention.cpu import padded
from models.layers.attention.cpu_plan import Group
from models.layers.kernels import attention_kernels
from models.layers.kernels.attention_kernels import FusedAttention

TILE = 1024  # queries of one call: bounds the scores that kernels without blocks of their own hold at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoWayPlan:
    """The groups of a step, and of each what its queries see: 0 or -inf [b, 1, T, T], or [b, 1, 1, T] if all see the same."""

    groups: tuple[Group, ...]
    masks: tuple[torch.Tensor, ...]


def backend(dtype: torch.dtype, device: torch.device) -> AttentionBackend:
    """What computes a model of this dtype there."""
    return AttentionBackend(
        name="two-way",
        block_size=attention_cpu.BLOCK_SIZE,  # this and the next two concern caches, which are not used here
        reads_whole_blocks=False,
        cache_shape=attention_cpu.cache_shape,
        plan=plan,
        attend=partial(attend, attention_kernels.fused_attention(dtype, device.type)),
    )


def plan(layout: Layout, device: torch.device, window: int | None = None) -> TwoWayPlan:
    """The tensors of one step, the same for every layer with this window."""
    assert layout.tables is None, "two-way attention needs whole sequences"
    groups = cpu_plan.plan(layout, device).groups
    return TwoWayPlan(groups=groups, masks=tuple(_mask(group, window) for group in groups))


def attend(
    fused: FusedAttention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: KvCache | None,
    plan: TwoWayPlan,
    scale: float,
) -> torch.Tensor:
    """Q [T, Q, D], k and v [T, K, D] -> [T, Q, D]."""
    assert cache is None, "two-way attention keeps no cache"
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for group, mask in zip(plan.groups, plan.masks, strict=True):
        heads = _in_tiles(fused, padded(q, group), padded(k, group), padded(v, group), mask, scale)  # [b, Q, T, D]
        out.index_copy_(0, group.tokens, heads.transpose(1, 2).flatten(0, 1).index_select(0, group.rows))
    return out


def _mask(group: Group, window: int | None) -> torch.Tensor:
    device, width = group.queries.device, group.queries.shape[0] // group.size
    is_real = torch.zeros(group.size * width, dtype=torch.bool, device=device).index_fill_(0, group.rows, value=True)
    is_seen = is_real.view(group.size, 1, 1, width)
    if window is not None and window < width - 1:
        place = torch.arange(width, device=device)
        is_seen = is_seen & ((place[:, None] - place).abs() <= window)
    return torch.zeros(is_seen.shape, device=device).masked_fill_(~is_seen, -torch.inf)


def _in_tiles(
    fused: FusedAttention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """Q [b, Q, T, D], k and v [b, K, T, D] -> [b, Q, T, D]. A place of padding that
    sees no key gets no defined value; it is not read."""
    mask = mask.to(q.dtype)
    tiles = []
    for start in range(0, q.shape[2], TILE):
        stop = min(start + TILE, q.shape[2])
        seen = mask if mask.shape[2] == 1 else mask[:, :, start:stop]
        tiles.append(fused(q[:, :, start:stop], k, v, seen, scale))
    return torch.cat(tiles, dim=2)
