"""Attention with torch's own operators: the CPU backend, and the reference the others are tested
against.

Sequences that add one token to a cache (decoding) and sequences that add many (prefill) are
computed apart.

Decoding never gathers the cache. The used part of the block pool is itself the batch of one
product: every block meets the query of the sequence that owns it, and the partial softmaxes of a
sequence's blocks are put together afterwards (the split of Flash-Decoding, Dao et al. 2023).
Blocks that several sequences begin with are visited by all of them at once (`shared_visits`); one
that they share otherwise is visited once more for each further sequence.

Prefill pads: sequences of similar length form a group, which is one call of torch's fused
attention.

Where a layout names families, the blocks that all of a family begin with are the keys of one
product with the queries of all of them (Hydragen, Juravsky et al. 2024): they are neither gathered
nor read once per sequence.
"""

import functools
from functools import partial

import torch

from models.layers.attention.attention import AttentionBackend, KvCache, KvSpec
from models.layers.attention.cpu_plan import CpuPlan, Group, Visits, plan
from models.layers.attention.shared_visits import visit_shared
from models.layers.kernels import attention_kernels
from models.layers.kernels.attention_kernels import FusedAttention

BLOCK_SIZE = 32
TILE = 64  # queries of one tile of prefill in bfloat16


def backend(dtype: torch.dtype, device: torch.device) -> AttentionBackend:
    """What computes a model of this dtype there."""
    return AttentionBackend(
        name="cpu",
        block_size=BLOCK_SIZE,
        reads_whole_blocks=True,
        cache_shape=cache_shape,
        plan=plan,
        attend=partial(attend, attention_kernels.fused_attention(dtype, device.type)),
    )


def cache_shape(spec: KvSpec, num_blocks: int, block_size: int) -> tuple[int, ...]:
    """[N, K, B, D]: a block's tokens of one head lie together, so that a block is a matrix as it stands."""
    return (num_blocks, spec.num_kv_heads, block_size, spec.head_dim)


def attend(
    fused: FusedAttention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: KvCache | None,
    plan: CpuPlan,
    scale: float,
) -> torch.Tensor:
    """Q [T, Q, D], k and v [T, K, D] -> [T, Q, D]; writes k and v to the cache first."""
    if cache is not None:
        _write(cache, k, v, plan)
    if plan.num_decodes == q.shape[0]:
        assert cache is not None
        return _decode(q, cache, plan, scale)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if plan.num_decodes:
        assert cache is not None
        out[: plan.num_decodes] = _decode(q[: plan.num_decodes], cache, plan, scale)
    for group in plan.groups:
        if group.prefix is None:
            found = _prefill(fused, q, k, v, cache, group, scale)
        else:
            assert cache is not None
            found = _behind_prefix(q, cache, group, scale)
        out.index_copy_(0, group.tokens, found)
    return out


def _write(cache: KvCache, k: torch.Tensor, v: torch.Tensor, plan: CpuPlan) -> None:
    assert plan.blocks is not None
    assert plan.offsets is not None
    cache.k[plan.blocks, :, plan.offsets] = k
    cache.v[plan.blocks, :, plan.offsets] = v


def _decode(q: torch.Tensor, cache: KvCache, plan: CpuPlan, scale: float) -> torch.Tensor:
    """Q [S, Q, D] -> [S, Q, D]: partial softmaxes by block, then put together by sequence in float32."""
    num_kv_heads, head_dim = cache.k.shape[1], cache.k.shape[3]
    grouped = q.reshape(q.shape[0], num_kv_heads, -1, head_dim)  # [S, K, G, D]
    partials = [_visit(grouped, cache, visits, scale) for visits in plan.visits]
    partials += [visit_shared(grouped, cache, visits, scale) for visits in plan.shared]
    owners = [visits.owner for visits in plan.visits] + [visits.owner for visits in plan.shared]
    owner = torch.cat(owners) if len(owners) > 1 else owners[0]
    weighted, largest, total = (torch.cat(part) if len(part) > 1 else part[0] for part in zip(*partials, strict=True))

    num_rows = q.shape[0] + 1  # one more for the blocks that belong to no sequence
    top = torch.full((num_rows, largest.shape[1]), -torch.inf, device=q.device)
    top.scatter_reduce_(0, owner[:, None].expand_as(largest), largest, "amax")
    scale_of_block = torch.exp(largest - top.index_select(0, owner))  # [E, Q]
    denominator = torch.zeros_like(top).index_add_(0, owner, total * scale_of_block)
    numerator = torch.zeros(num_rows, *weighted.shape[1:], device=q.device)
    numerator.index_add_(0, owner, weighted * scale_of_block[..., None])
    return (numerator / denominator[..., None])[:-1].to(q.dtype)


def _visit(
    grouped: torch.Tensor, cache: KvCache, visits: Visits, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The visited blocks' exp-weighted values [E, Q, D], largest scores [E, Q] and sums of exponentials [E, Q], in
    float32."""
    num_visits = visits.owner.shape[0]
    if visits.blocks is None:
        k, v = cache.k[:num_visits], cache.v[:num_visits]
    else:
        k, v = cache.k.index_select(0, visits.blocks), cache.v.index_select(0, visits.blocks)
    k, v = k.flatten(0, 1), v.flatten(0, 1)  # [E * K, B, D]
    queries = grouped.index_select(0, visits.query).flatten(0, 1)  # [E * K, G, D]
    scores = torch.bmm(queries, k.transpose(1, 2)).view(num_visits, -1, k.shape[1])  # [E, Q, B]
    scores = torch.add(visits.mask, scores, alpha=scale)
    largest = scores.amax(-1)
    weights = scores.sub_(largest[..., None]).exp_()
    values = torch.bmm(weights.to(v.dtype).view(queries.shape[0], -1, v.shape[1]), v)  # [E * K, G, D]
    return values.view(num_visits, -1, v.shape[2]).float(), largest, weights.sum(-1)


def _prefill(
    fused: FusedAttention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: KvCache | None,
    group: Group,
    scale: float,
) -> torch.Tensor:
    """The outputs of one group's real tokens [tokens, Q, D]."""
    if group.tables is not None:
        assert cache is not None
        assert group.mask is not None
        mask = group.mask.to(
            q.dtype
        )  # a boolean one would be turned into this by every call, at several times the cost
        keys = _gathered(cache.k, group.tables, group.size)
        values = _gathered(cache.v, group.tables, group.size)
        heads = fused(padded(q, group), keys, values, mask, scale)  # [b, Q, Tq, D]
    else:
        whole = (padded(q, group), padded(k, group), padded(v, group))
        is_tiled = q.dtype == torch.bfloat16 or group.window is not None
        heads = _causal_in_tiles(*whole, scale, group.window) if is_tiled else fused(*whole, None, scale)
    return heads.transpose(1, 2).flatten(0, 1).index_select(0, group.rows)


def _behind_prefix(q: torch.Tensor, cache: KvCache, group: Group, scale: float) -> torch.Tensor:
    """The outputs of a family's real tokens [tokens, Q, D]: one softmax over the shared keys and the sequence's own. Scores are
    rounded to the model's dtype before it, as in `_causal_in_tiles`."""
    assert group.prefix is not None
    assert group.tables is not None
    assert group.mask is not None
    num_kv_heads = cache.k.shape[1]
    queries = (padded(q, group) * scale).unflatten(1, (num_kv_heads, -1)).transpose(0, 1)  # [K, b, G, Tq, D]
    num_own = group.mask.shape[-1]
    own_keys, own_values = (
        _gathered(pages, group.tables, group.size).transpose(0, 1) for pages in (cache.k, cache.v)
    )  # [K, b, Tk, D]
    keys, values = (
        pages.index_select(0, group.prefix).transpose(0, 1).flatten(1, 2) for pages in (cache.k, cache.v)
    )  # [K, P, D]
    per_sequence = queries.flatten(2, 3)  # [K, b, G * Tq, D]
    of_own = torch.matmul(per_sequence, own_keys.transpose(2, 3)).unflatten(2, queries.shape[2:4])  # [K, b, G, Tq, Tk]
    of_own = of_own + group.mask.to(q.dtype)
    of_prefix = torch.bmm(queries.flatten(1, 3), keys.transpose(1, 2))  # [K, b * G * Tq, P]
    scores = torch.cat([of_prefix, of_own.flatten(1, 3)], dim=-1)
    weights = torch.softmax(scores, dim=-1)
    heads = torch.bmm(weights[..., :-num_own], values).view(queries.shape)
    own_weights = weights[..., -num_own:].reshape(*per_sequence.shape[:3], num_own)
    heads = heads + torch.matmul(own_weights, own_values).view(queries.shape)  # [K, b, G, Tq, D]
    return heads.permute(1, 3, 0, 2, 4).flatten(2, 3).flatten(0, 1).index_select(0, group.rows)


def _causal_in_tiles(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: int | None
) -> torch.Tensor:
    """Whole sequences, q [b, Q, T, D], k and v [b, K, T, D] -> [b, Q, T, D]: `TILE` queries at a time against the keys
    they can see, the last `window` or all.

    In bfloat16 without matrix units this is two to three times as fast as torch's fused kernel. Scores are rounded to the
    model's dtype before the softmax, as transformers' eager attention does.
    """
    num_rows, num_kv_heads, length, head_dim = k.shape
    grouped = (q * scale).unflatten(1, (num_kv_heads, -1))  # [b, K, G, T, D]
    k, v = k.flatten(0, 1), v.flatten(0, 1)  # [b * K, T, D]
    out = torch.empty_like(grouped, memory_format=torch.contiguous_format)
    for start in range(0, length, TILE):
        stop = min(start + TILE, length)
        first = 0 if window is None else max(0, start - window + 1)
        queries = grouped[:, :, :, start:stop].reshape(k.shape[0], -1, head_dim)  # [b * K, G * tile, D]
        scores = torch.bmm(queries, k[:, first:stop].transpose(1, 2)).view(k.shape[0], -1, stop - start, stop - first)
        scores[..., start - first :] += _future(stop - start, q.dtype, q.device)
        if window is not None and stop > window:
            scores += _past(stop - start, stop - first, start - first - window, q.dtype, q.device)
        weights = torch.softmax(scores, dim=-1).view(k.shape[0], -1, stop - first)
        out[:, :, :, start:stop] = torch.bmm(weights, v[:, first:stop]).view(
            num_rows, num_kv_heads, -1, stop - start, head_dim
        )
    return out.flatten(1, 2)


@functools.cache
def _future(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """-inf where a key comes after its query, else 0 [size, size]."""
    return torch.full((size, size), -torch.inf, dtype=dtype, device=device).triu_(1)


@functools.lru_cache(maxsize=256)
def _past(rows: int, columns: int, last: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """-inf in row i up to column i + `last`, which its query no longer sees, else 0 [rows, columns]."""
    return torch.full((rows, columns), -torch.inf, dtype=dtype, device=device).tril_(last)


def padded(x: torch.Tensor, group: Group) -> torch.Tensor:
    """A group's packed rows of x [T, heads, D], padded to one length."""
    return x.index_select(0, group.queries).view(group.size, -1, *x.shape[1:]).transpose(1, 2)  # [b, heads, Tq, D]


def _gathered(pages: torch.Tensor, tables: torch.Tensor, size: int) -> torch.Tensor:
    blocks = pages.index_select(0, tables).view(size, -1, *pages.shape[1:])  # [b, blocks, K, B, D]
    return blocks.transpose(1, 2).flatten(2, 3)  # [b, K, blocks * B, D]
