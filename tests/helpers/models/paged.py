"""Steps for attention backends: sequences with a history in scattered cache blocks, and what attention over them should give."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from models.layers.attention import cpu as attention_cpu
from models.layers.attention.attention import AttentionBackend, IntArray, KvCache, KvSpec, Layout

BACKEND = attention_cpu.backend(torch.float32, torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a step. `sequences` are (tokens in the cache, tokens computed now); those that are long enough share their
    first `num_shared` blocks. Of the pool one block in `sparsity` is used. `garbage` stands wherever no token does, and
    with a `window` also in the blocks before it, which were given back."""

    sequences: Sequence[tuple[int, int]]
    block_size: int = 4
    num_query_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 8
    num_shared: int = 0
    window: int | None = None
    sparsity: int = 1
    garbage: float = 1e4
    seed: int = 0
    dtype: torch.dtype = torch.float32

    @property
    def ordered(self) -> list[tuple[int, int]]:
        """Single tokens that continue a cache first, as a layout wants them."""
        return sorted(self.sequences, key=lambda each: not (each[0] > 0 and each[1] == 1))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: its layout, the packed new queries, keys and values, and every sequence's whole keys and values."""

    shape: Shape
    layout: Layout
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    keys: list[torch.Tensor] = field(repr=False)
    values: list[torch.Tensor] = field(repr=False)
    num_blocks: int

    @property
    def scale(self) -> float:
        return float(self.shape.head_dim**-0.5)

    def cache(self, backend: AttentionBackend) -> KvCache:
        """A cache that holds the sequences' earlier tokens, and garbage everywhere else."""
        shape, layout = self.shape, self.layout
        assert layout.tables is not None
        spec = KvSpec(num_kv_heads=shape.num_kv_heads, head_dim=shape.head_dim)
        size = backend.cache_shape(spec, self.num_blocks, shape.block_size)
        pages = [torch.full(size, shape.garbage, dtype=shape.dtype) for _ in range(2)]
        for page, histories in zip(pages, (self.keys, self.values), strict=True):
            for history, table, start in zip(histories, layout.tables, layout.starts, strict=True):
                unseen = 0 if shape.window is None else max(0, start - shape.window + 1) // shape.block_size
                for position in range(unseen * shape.block_size, start):
                    block, offset = table[position // shape.block_size], position % shape.block_size
                    place = (block, slice(None), offset) if backend.name == "cpu" else (block, offset)
                    page[place] = history[position]
        return KvCache(k=pages[0], v=pages[1])

    def run(self, backend: AttentionBackend, cache: KvCache | None = None) -> torch.Tensor:
        """What the backend computes."""
        plan = backend.plan(self.layout, torch.device("cpu"), self.shape.window)
        return backend.attend(self.q, self.k, self.v, cache or self.cache(backend), plan, self.scale)

    def expected(self) -> torch.Tensor:
        """Softmax(QKᵀ)V of each new token over all tokens up to it, in float64."""
        queries = self.q.split(self.layout.counts.tolist())
        window = self.shape.window
        return torch.cat([naive(*sequence, window) for sequence in zip(queries, self.keys, self.values, strict=True)])


def naive(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int | None) -> torch.Tensor:
    """The last queries [count, Q, D] of a sequence over its keys and values [T, K, D] -> [count, Q, D]."""
    group = q.shape[1] // keys.shape[1]
    keys, values = (x.double().repeat_interleave(group, dim=1) for x in (keys, values))
    scores = torch.einsum("sqd,tqd->qst", q.double(), keys) * q.shape[2] ** -0.5
    position = torch.arange(keys.shape[0] - q.shape[0], keys.shape[0])
    place = torch.arange(keys.shape[0])
    scores = scores.masked_fill(place > position[:, None], -torch.inf)
    if window is not None:
        scores = scores.masked_fill(place <= position[:, None] - window, -torch.inf)
    return torch.einsum("qst,tqd->sqd", torch.softmax(scores, dim=-1), values)


def make_step(shape: Shape) -> Step:
    """Random tokens in randomly placed blocks."""
    random, generator = np.random.default_rng(shape.seed), torch.Generator().manual_seed(shape.seed)
    starts, counts = (np.array(column) for column in zip(*shape.ordered, strict=True))
    tables, num_blocks = _tables(starts, counts, shape, random)

    def draw(num_tokens: int, num_heads: int) -> torch.Tensor:
        return torch.randn(num_tokens, num_heads, shape.head_dim, generator=generator).to(shape.dtype)

    keys, values = ([draw(total, shape.num_kv_heads) for total in (starts + counts).tolist()] for _ in range(2))
    for histories in (keys, values):
        _share(histories, tables, shape)
    new = [
        torch.cat([history[start:] for history, start in zip(histories, starts, strict=True)])
        for histories in (keys, values)
    ]
    return Step(
        shape=shape,
        layout=Layout(counts=counts, starts=starts, tables=tables, block_size=shape.block_size),
        q=draw(int(counts.sum()), shape.num_query_heads),
        k=new[0],
        v=new[1],
        keys=keys,
        values=values,
        num_blocks=num_blocks,
    )


def _tables(starts: IntArray, counts: IntArray, shape: Shape, random: np.random.Generator) -> tuple[IntArray, int]:
    """Block tables, filled up with blocks of others, and the size of the pool."""
    widths = -(-(starts + counts) // shape.block_size)
    num_used = int(widths.sum())
    num_blocks = max(1, num_used * shape.sparsity)
    unused = iter(random.permutation(num_blocks)[:num_used].tolist())
    rows = [[next(unused) for _ in range(width)] for width in widths]
    others = [block for row in rows for block in row]
    tables = random.choice(others, size=(len(rows), int(widths.max())))
    for row, blocks in zip(tables, rows, strict=True):
        row[: len(blocks)] = blocks
    sharing = np.flatnonzero(starts >= shape.num_shared * shape.block_size)
    if shape.num_shared and sharing.size:
        tables[sharing, : shape.num_shared] = tables[sharing[0], : shape.num_shared]
    return tables.astype(np.int64), num_blocks


def _share(histories: list[torch.Tensor], tables: IntArray, shape: Shape) -> None:
    """Tokens in a shared block are the same for all who share it."""
    first_with: dict[tuple[int, ...], int] = {}
    num_tokens = shape.num_shared * shape.block_size
    for index, history in enumerate(histories):
        owner = first_with.setdefault(tuple(tables[index, : shape.num_shared].tolist()), index)
        if shape.num_shared and owner != index:
            history[:num_tokens] = histories[owner][:num_tokens]
