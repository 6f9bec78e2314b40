"""What the CPU backend makes of a step's layout before any layer computes: which cache blocks
decoding visits, and how prefill is grouped. Integers, and the tensors made of them.

Where a layout names families, their sequences stand in groups whose `prefix` is what all begin
with. See `models.layers.attention.cpu`, which computes by this.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from models.layers.attention.attention import IntArray, Layout
from models.layers.attention.shared_visits import SharedVisits, shared_blocks, visits_to

MIN_DENSITY = 0.4  # of the pool's used part; below it gathering the blocks is cheaper than visiting the others in vain
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
