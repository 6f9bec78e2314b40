"""The CPU backend against one softmax a token, over every mix of decodes, fresh prefill and continued chunks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.layers.attention.attention import Layout
from tests.helpers.models.paged import BACKEND, Shape, make_step

MIXED = [(7, 1), (1, 1), (30, 1), (0, 5), (0, 1), (3, 6), (12, 2), (0, 17), (8, 8), (4, 1)]
SHAPES: dict[str, Shape] = {
    "mixed": Shape(sequences=MIXED),
    "one decode": Shape(sequences=[(9, 1)]),
    "decodes only": Shape(sequences=[(start, 1) for start in (1, 3, 4, 5, 31, 8)]),
    "fresh only": Shape(sequences=[(0, count) for count in (1, 2, 9, 33, 8, 70)]),
    "continued only": Shape(sequences=[(4, 3), (1, 9), (17, 5), (2, 4)]),
    "first tokens only": Shape(sequences=[(0, 1)] * 3),
    "one kv head": Shape(sequences=MIXED, num_query_heads=6, num_kv_heads=1),
    "as many kv heads": Shape(sequences=MIXED, num_query_heads=3, num_kv_heads=3),
    "blocks of one token": Shape(sequences=MIXED, block_size=1),
    "blocks larger than a sequence": Shape(sequences=MIXED, block_size=64),
    "blocks of an odd size": Shape(sequences=MIXED, block_size=5),
    "a sparse pool": Shape(sequences=MIXED, sparsity=7),
    "shared blocks": Shape(sequences=[*MIXED, (21, 1), (22, 1), (8, 1), (9, 4)], num_shared=2),
    "shared blocks in a sparse pool": Shape(sequences=[*MIXED, (21, 1), (22, 1), (8, 1)], num_shared=2, sparsity=6),
    "a head of 80": Shape(sequences=MIXED, head_dim=80),
    "a window": Shape(sequences=[*MIXED, (0, 150), (40, 30)], window=6),
    "a window of one": Shape(sequences=MIXED, window=1),
    "a window of a block": Shape(sequences=MIXED, window=4),
    "a window wider than all": Shape(sequences=MIXED, window=64),
    "a window in shared blocks": Shape(sequences=[*MIXED, (21, 1), (22, 1), (8, 1), (9, 4)], num_shared=2, window=9),
    "a window in a sparse pool": Shape(sequences=MIXED, sparsity=7, window=5),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_attention_is_one_softmax_over_all_earlier_tokens(name: str) -> None:
    step = make_step(SHAPES[name])
    torch.testing.assert_close(step.run(BACKEND).double(), step.expected(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["mixed", "fresh only", "shared blocks", "a sparse pool", "a head of 80"])
def test_in_bfloat16_attention_is_the_same_but_for_rounding(name: str) -> None:
    step = make_step(replace(SHAPES[name], dtype=torch.bfloat16))
    found = step.run(BACKEND)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), step.expected(), atol=4e-2, rtol=0)


@settings(max_examples=80, deadline=None)
@given(
    sequences=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=8),
    decodes=st.lists(st.integers(1, 40), max_size=8),
    block_size=st.sampled_from([1, 2, 4, 7, 16]),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2), (6, 3), (4, 4)]),
    num_shared=st.integers(0, 3),
    sparsity=st.sampled_from([1, 2, 3, 9]),
    window=st.sampled_from([None, 1, 2, 5, 16]),
    seed=st.integers(0, 1000),
)
def test_attention_is_exact_for_any_step(
    sequences: list[tuple[int, int]],
    decodes: list[int],
    block_size: int,
    heads: tuple[int, int],
    num_shared: int,
    sparsity: int,
    window: int | None,
    seed: int,
) -> None:
    shape = Shape(
        sequences=[*sequences, *((start, 1) for start in decodes)],
        block_size=block_size,
        num_query_heads=heads[0],
        num_kv_heads=heads[1],
        num_shared=num_shared,
        sparsity=sparsity,
        window=window,
        seed=seed,
    )
    step = make_step(shape)
    torch.testing.assert_close(step.run(BACKEND).double(), step.expected(), atol=2e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    sequences=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=12),
    block_size=st.sampled_from([1, 2, 4, 7]),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2), (6, 3)]),
    num_shared=st.integers(1, 4),
    window=st.sampled_from([None, None, 1, 5]),
    seed=st.integers(0, 1000),
)
def test_a_family_looks_at_what_it_shares_and_at_its_own(
    sequences: list[tuple[int, int]],
    block_size: int,
    heads: tuple[int, int],
    num_shared: int,
    window: int | None,
    seed: int,
) -> None:
    shape = Shape(
        sequences=[(num_shared * block_size + more, count) for more, count in sequences],
        block_size=block_size,
        num_query_heads=heads[0],
        num_kv_heads=heads[1],
        num_shared=num_shared,
        window=window,
        seed=seed,
    )
    step = make_step(shape)
    halves = _halves(len(sequences), num_shared)
    for families in ((), ((0, len(sequences), num_shared),), halves, halves[:1], halves[1:]):
        told = replace(step, layout=replace(step.layout, families=families))
        torch.testing.assert_close(told.run(BACKEND).double(), step.expected(), atol=2e-5, rtol=0)


def _halves(size: int, num_shared: int) -> tuple[tuple[int, int, int], ...]:
    """Two families that know of less."""
    return tuple(
        (first, after, max(1, num_shared - 1)) for first, after in ((0, size // 2), (size // 2, size)) if after > first
    )


@pytest.mark.parametrize("name", list(SHAPES))
def test_new_keys_and_values_are_written_to_their_places_and_nowhere_else(name: str) -> None:
    step = make_step(SHAPES[name])
    cache, before = step.cache(BACKEND), step.cache(BACKEND)
    step.run(BACKEND, cache)
    assert step.layout.tables is not None
    for pages, earlier, histories in ((cache.k, before.k, step.keys), (cache.v, before.v, step.values)):
        for table, history, start in zip(step.layout.tables, histories, step.layout.starts, strict=True):
            for position in range(start, history.shape[0]):
                block, offset = table[position // step.layout.block_size], position % step.layout.block_size
                assert torch.equal(pages[block, :, offset], history[position])
                earlier[block, :, offset] = history[position]
        assert torch.equal(pages, earlier)


@pytest.mark.parametrize("sparsity", [1, 2, 9])
def test_blocks_that_are_nobodys_may_hold_anything(sparsity: int) -> None:
    """Not even NaN in them reaches an output: every place of a used block is a number."""
    shape = Shape(sequences=[(7, 1), (15, 1), (0, 8), (4, 4)], sparsity=sparsity, garbage=float("nan"))
    step = make_step(shape)
    cache = step.cache(BACKEND)
    assert step.layout.tables is not None
    used = torch.from_numpy(np.unique(step.layout.tables))
    for pages in (cache.k, cache.v):
        pages[used] = pages[used].nan_to_num(nan=1e4)
    torch.testing.assert_close(step.run(BACKEND, cache).double(), step.expected(), atol=2e-5, rtol=0)


def test_a_block_may_be_shared_with_the_sequence_that_computes_it_in_the_same_step() -> None:
    """A prefix hit on a prompt of the same step: its blocks are written before anybody reads them."""
    owner = make_step(Shape(sequences=[(0, 12)]))
    assert owner.layout.tables is not None
    tables = np.concatenate([owner.layout.tables] * 3)
    tables[1:, 2] = [owner.num_blocks, owner.num_blocks + 1]
    generator = torch.Generator().manual_seed(1)
    more = [torch.randn(4, heads, 8, generator=generator) for heads in (4, 2, 2)]
    # one sequence decodes its ninth token, one computes its ninth to eleventh, over the owner's first eight
    layout = Layout(counts=np.array([1, 12, 3]), starts=np.array([8, 0, 8]), tables=tables[[1, 0, 2]], block_size=4)
    q, k, v = (
        torch.cat([extra[:1], whole, extra[1:]]) for extra, whole in zip(more, (owner.q, owner.k, owner.v), strict=True)
    )
    step = replace(
        owner,
        layout=layout,
        q=q,
        k=k,
        v=v,
        keys=[torch.cat([owner.k[:8], k[:1]]), owner.k, torch.cat([owner.k[:8], k[13:]])],
        values=[torch.cat([owner.v[:8], v[:1]]), owner.v, torch.cat([owner.v[:8], v[13:]])],
        num_blocks=owner.num_blocks + 2,
    )
    torch.testing.assert_close(step.run(BACKEND).double(), step.expected(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("counts", [[1], [5], [3, 1, 9, 70], [64, 65, 1, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_cache_every_sequence_is_whole(counts: list[int], dtype: torch.dtype) -> None:
    step = make_step(Shape(sequences=[(0, count) for count in counts], dtype=dtype))
    layout = Layout(counts=np.array(counts), starts=np.zeros(len(counts), dtype=np.int64))
    plan: Any = BACKEND.plan(layout, torch.device("cpu"))
    found = BACKEND.attend(step.q, step.k, step.v, None, plan, step.scale)
    tolerance = 2e-5 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(found.double(), step.expected(), atol=tolerance, rtol=0)


def test_scores_far_apart_are_as_good_as_a_choice() -> None:
    """Large scores overflow nothing: partial softmaxes are put together relative to the largest."""
    step = make_step(Shape(sequences=MIXED))
    sharp = replace(step, q=step.q * 300)
    assert sharp.run(BACKEND).isfinite().all()
    torch.testing.assert_close(sharp.run(BACKEND).double(), sharp.expected(), atol=2e-3, rtol=0)
