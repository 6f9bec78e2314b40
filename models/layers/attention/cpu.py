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
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from models.layers.attention.attention import AttentionBackend, IntArray, KvCache, KvSpec, Layout
from models.layers.attention.shared_visits import SharedVisits, shared_blocks, visit_shared, visits_to
from models.layers.kernels import kernels
from models.layers.kernels.kernels import FusedAttention

BLOCK_SIZE = 32
MIN_DENSITY = 0.4  # of the pool's used part; below it gathering the blocks is cheaper than visiting the others in vain
TILE = 64  # queries of one tile of prefill in bfloat16
GROUP_RATIO = 0.7  # shortest to longest sequence of one padded group
CONTEXT_RATIO = 0.5  # shortest to longest context of one group that looks keys up in the cache
CONTEXT_STEP = 64  # tokens; contexts within the same are alike
GATHERED_TOKENS = 1 << 15  # whose keys and values one group gathers; a sequence with more goes alone
MAX_SCORES = 1 << 21  # of the queries of a group with what they share, in each head; a sequence with more goes alone
MIN_VISITED = 4  # tokens of a block: to visit smaller ones costs more than to gather them


@dataclass(frozen=True, kw_only=True, slots=True)
class Visits:
    """(block, sequence) pairs that one product computes. `blocks` None: the first E blocks of the pool, in place.

    `owner` [E] is the number of the decoding sequence that a block belongs to (their count: the
    block belongs to none); `mask` [E, 1, B] is 0 on the tokens it sees and -inf elsewhere.
    """

    blocks: torch.Tensor | None
    owner: torch.Tensor
    query: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Prefill sequences padded to one length. `queries` [b * Tq] are packed token numbers, a
    sequence's last one repeated as padding; `rows` are the padded places that are real and
    `tokens` their packed numbers. With a cached prefix, `tables` [b * blocks] lists the cache
    blocks that are seen and `mask` [b, 1, Tq, Tk] what each query sees of them; without one both
    are None. `window` is how many keys a query of a fresh sequence sees, None if it sees all of
    them."""

    size: int
    queries: torch.Tensor
    rows: torch.Tensor
    tokens: torch.Tensor
    tables: torch.Tensor | None
    mask: torch.Tensor | None
    window: int | None
    prefix: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuPlan:
    """One step's attention: where the new keys and values go, what decodes visit, and the prefill groups. `num_decodes` is 0 where
    the layout names families, or has small blocks: groups hold all then."""

    num_decodes: int
    blocks: torch.Tensor | None  # [T] cache block of each token
    offsets: torch.Tensor | None  # [T] its place in that block
    visits: tuple[Visits, ...]
    shared: tuple[SharedVisits, ...]
    groups: tuple[Group, ...]


def backend(dtype: torch.dtype, device: torch.device) -> AttentionBackend:
    """What computes a model of this dtype there."""
    return AttentionBackend(
        name="cpu",
        block_size=BLOCK_SIZE,
        reads_whole_blocks=True,
        cache_shape=cache_shape,
        plan=plan,
        attend=partial(attend, kernels.fused_attention(dtype, device.type)),
    )


def cache_shape(spec: KvSpec, num_blocks: int, block_size: int) -> tuple[int, ...]:
    """[N, K, B, D]: a block's tokens of one head lie together, so that a block is a matrix as it stands."""
    return (num_blocks, spec.num_kv_heads, block_size, spec.head_dim)


def plan(layout: Layout, device: torch.device, window: int | None = None) -> CpuPlan:
    """The tensors of one step, the same for every layer with this window."""
    families = layout.families if window is None else ()  # a window may begin in what they share
    num_decodes = 0 if families or layout.block_size < MIN_VISITED else layout.num_decodes
    groups = [group for family in families for group in _family(layout, *family, device)]
    in_family = [np.arange(first, after) for first, after, _ in families]
    others = np.setdiff1d(np.arange(num_decodes, layout.counts.size), np.concatenate([*in_family, []]))
    for members in _similar(layout, others):
        is_cached = bool(layout.starts[members].any())
        groups.append(_group(layout, members, window, device, is_cached=is_cached))
    blocks, offsets = _places(layout)
    visits, shared = _visits(layout, num_decodes, window, device) if num_decodes else ((), ())
    return CpuPlan(
        num_decodes=num_decodes,
        blocks=None if blocks is None else torch.from_numpy(blocks).to(device),
        offsets=None if offsets is None else torch.from_numpy(offsets).to(device),
        visits=visits,
        shared=shared,
        groups=tuple(groups),
    )


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


def _places(layout: Layout) -> tuple[IntArray | None, IntArray | None]:
    """The cache block of every token of the step and its place in it."""
    if layout.tables is None:
        return None, None
    sequence, within = _tokens(layout.counts)
    position = layout.starts[sequence] + within
    return layout.tables[sequence, position // layout.block_size], position % layout.block_size


def _tokens(counts: IntArray) -> tuple[IntArray, IntArray]:
    """Of every packed token: its sequence, and its number within it."""
    sequence = np.repeat(np.arange(counts.size), counts)
    return sequence, np.arange(sequence.size) - np.repeat(np.cumsum(counts) - counts, counts)


def _visits(
    layout: Layout, num_decodes: int, window: int | None, device: torch.device
) -> tuple[tuple[Visits, ...], tuple[SharedVisits, ...]]:
    """The visits of one sequence each, and those of several to what they begin with."""
    assert layout.tables is not None
    size, tables = layout.block_size, layout.tables[:num_decodes]
    begun_alike = [] if window is not None else list(shared_blocks(tables, layout.starts[:num_decodes] // size))
    shared = tuple(visits for each in begun_alike for visits in visits_to(each, tables, size, device))
    num_shared = np.zeros(num_decodes, dtype=np.int64)
    for each in begun_alike:
        num_shared[each.members] = each.num_blocks
    return _visits_of_one(layout, num_shared, window, device), shared


def _visits_of_one(
    layout: Layout, num_shared: IntArray, window: int | None, device: torch.device
) -> tuple[Visits, ...]:
    """The visits of decoding sequences to blocks behind so many that they share."""
    assert layout.tables is not None
    num_decodes = num_shared.size
    size, context = layout.block_size, layout.starts[:num_decodes] + 1
    first_seen = np.maximum(_first_seen(layout.starts[:num_decodes], window), num_shared * size)
    first_block = first_seen // size
    owner, order = _tokens(-(-context // size) - first_block)
    order += first_block[owner]
    blocks = layout.tables[owner, order]
    seen = np.stack([np.maximum(first_seen[owner] - order * size, 0), np.minimum(context[owner] - order * size, size)])
    extent = int(blocks.max()) + 1
    if blocks.size < MIN_DENSITY * extent:
        return (_visit_plan(blocks, owner, seen, size, device),)
    pool_owner, pool_seen = np.full(extent, num_decodes), np.zeros((2, extent), dtype=np.int64)
    pool_owner[blocks], pool_seen[:, blocks] = owner, seen
    in_place = _visit_plan(None, pool_owner, pool_seen, size, device)
    shared = pool_owner[blocks] != owner  # another sequence took the block's place in the pool's own pass
    if not shared.any():
        return (in_place,)
    return in_place, _visit_plan(blocks[shared], owner[shared], seen[:, shared], size, device)


def _first_seen(positions: IntArray, window: int | None) -> IntArray:
    """The first key that a query at each position sees."""
    return np.zeros_like(positions) if window is None else np.maximum(positions - window + 1, 0)


def _visit_plan(
    blocks: IntArray | None, owner: IntArray, seen: IntArray, block_size: int, device: torch.device
) -> Visits:
    """`seen` [2, E] are the first seen token of each block and the one after the last."""
    place = np.arange(block_size)
    is_seen = (place >= seen[0, :, None]) & (place < seen[1, :, None])
    mask = np.where(is_seen, np.float32(0.0), np.float32(-np.inf))[:, None]
    query = np.where(seen[1] > 0, owner, 0)
    return Visits(
        blocks=None if blocks is None else torch.from_numpy(blocks).to(device),
        owner=torch.from_numpy(owner).to(device),
        query=torch.from_numpy(query).to(device),
        mask=torch.from_numpy(mask).to(device),
    )


def _similar(layout: Layout, members: IntArray) -> list[IntArray]:
    """Sequences, grouped so that little is padded: fresh ones apart from continued ones, then by
    length; continued ones by their context too, of which a group gathers a bounded number of
    tokens."""
    starts, counts = layout.starts, layout.counts
    is_continued = starts > 0
    sizes = np.where(is_continued, np.floor(np.log(counts) / -np.log(GROUP_RATIO)), 0)  # alike where they are equal
    contexts = np.where(is_continued, -(-(starts + counts) // CONTEXT_STEP) * CONTEXT_STEP, 0)
    order = members[np.lexsort([each[members] for each in (counts, contexts, sizes, is_continued)])]

    def is_alike(group: list[int], index: int) -> bool:
        first = group[0]
        if not is_continued[index]:
            return bool(counts[first] >= GROUP_RATIO * counts[index])
        is_near = contexts[first] >= CONTEXT_RATIO * contexts[index] and sizes[first] == sizes[index]
        return bool(is_continued[first] and is_near and (len(group) + 1) * contexts[index] <= GATHERED_TOKENS)

    groups: list[list[int]] = []
    for index in order.tolist():
        if groups and is_alike(groups[-1], index):
            groups[-1].append(index)
        else:
            groups.append([index])
    return [np.array(group) for group in groups]


def _family(layout: Layout, first: int, after: int, num_shared: int, device: torch.device) -> list[Group]:
    """The groups of a family: what they share, and the rest of each sequence as if it began behind that."""
    assert layout.tables is not None
    prefix = torch.from_numpy(layout.tables[first, :num_shared].copy()).to(device)
    behind = replace(
        layout, starts=layout.starts - num_shared * layout.block_size, tables=layout.tables[:, num_shared:]
    )
    groups = []
    for alike in _similar(behind, np.arange(first, after)):
        most = max(1, MAX_SCORES // (int(layout.counts[alike].max()) * num_shared * layout.block_size))
        groups += [alike[start : start + most] for start in range(0, alike.size, most)]
    return [replace(_group(behind, members, None, device, is_cached=True), prefix=prefix) for members in groups]


def _group(layout: Layout, members: IntArray, window: int | None, device: torch.device, *, is_cached: bool) -> Group:
    """`is_cached` says that its keys are looked up in the cache, those of this step as well."""
    counts, starts = layout.counts[members], layout.starts[members]
    first = (np.cumsum(layout.counts) - layout.counts)[members]
    width = int(counts.max())
    place = np.arange(width)
    queries = first[:, None] + np.minimum(place, counts[:, None] - 1)
    is_real = place < counts[:, None]
    tables, mask = None, None
    if is_cached:
        assert layout.tables is not None
        size, first_block = layout.block_size, _first_seen(starts, window) // layout.block_size
        last_block = (starts + counts - 1) // size
        reach = np.arange(int((last_block - first_block).max()) + 1)
        tables = layout.tables[members[:, None], np.minimum(first_block[:, None] + reach, last_block[:, None])]
        position = (starts[:, None] + np.minimum(place, counts[:, None] - 1))[..., None]  # [b, Tq, 1]
        key = (first_block[:, None] * size + np.arange(reach.size * size))[:, None]  # [b, 1, Tk]
        is_seen = (key <= position) & (key >= _first_seen(position, window))
        mask = np.where(is_seen, np.float32(0.0), np.float32(-np.inf))
    return Group(
        size=members.size,
        queries=torch.from_numpy(queries.ravel()).to(device),
        rows=torch.from_numpy(np.flatnonzero(is_real)).to(device),
        tokens=torch.from_numpy(queries[is_real]).to(device),
        tables=None if tables is None else torch.from_numpy(np.ascontiguousarray(tables).ravel()).to(device),
        mask=None if mask is None else torch.from_numpy(mask[:, None]).to(device),
        window=window if window is not None and window < width else None,
    )
