"""Sequences that begin with the same blocks look at them together while they decode: the result is
that of each alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.layers.attention import shared_visits
from models.layers.attention.cpu_plan import CpuPlan
from models.layers.attention.shared_visits import shared_blocks
from tests.helpers.models.paged import BACKEND, Shape, make_step

TABLES = np.array([[5, 6, 7, 1], [9, 2, 3, 4], [5, 6, 8, 1], [5, 6, 7, 0], [9, 2, 4, 3], [8, 0, 0, 0]])


@pytest.fixture(autouse=True)
def any_sharing_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_visits, "MIN_SAVED", 1)


def found(num_full: list[int]) -> list[tuple[list[int], int]]:
    return [(each.members.tolist(), each.num_blocks) for each in shared_blocks(TABLES, np.array(num_full))]


def test_sequences_are_put_together_by_what_they_all_begin_with() -> None:
    assert found([4] * 6) == [([0, 2, 3], 2), ([1, 4], 2)]


def test_blocks_that_are_not_full_are_not_looked_at_together() -> None:
    assert found([4, 1, 3, 1, 4, 4]) == [([0, 2, 3], 1), ([1, 4], 1)]
    assert found([0, 4, 4, 4, 0, 4]) == []


def test_a_little_that_is_shared_is_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_visits, "MIN_SAVED", 4)
    assert found([4] * 6) == [([0, 2, 3], 2)]


@settings(max_examples=60, deadline=None)
@given(
    more=st.lists(st.integers(0, 20), min_size=1, max_size=9),
    others=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), max_size=3),
    num_shared=st.integers(1, 5),
    block_size=st.integers(1, 6),
    heads=st.sampled_from([(4, 2), (3, 3), (4, 1)]),
    sparsity=st.integers(1, 5),
    most=st.sampled_from([1, 40, 1 << 18]),
    seed=st.integers(0, 5),
)
def test_attention_is_one_softmax_over_what_is_shared_and_the_rest(
    more: list[int],
    others: list[tuple[int, int]],
    num_shared: int,
    block_size: int,
    heads: tuple[int, int],
    sparsity: int,
    most: int,
    seed: int,
) -> None:
    step = make_step(
        Shape(
            sequences=[*((num_shared * block_size + each, 1) for each in more), *others],
            block_size=block_size,
            num_query_heads=heads[0],
            num_kv_heads=heads[1],
            num_shared=num_shared,
            sparsity=sparsity,
            seed=seed,
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_visits, "MAX_SCORES", most)
        torch.testing.assert_close(step.run(BACKEND).double(), step.expected(), atol=1e-5, rtol=1e-4)


def test_what_is_shared_is_visited_once_and_by_all() -> None:
    step = make_step(Shape(sequences=[(num, 1) for num in (33, 34, 40, 37)], num_shared=8))
    plan = BACKEND.plan(step.layout, torch.device("cpu"), None)
    assert isinstance(plan, CpuPlan)
    [shared] = plan.shared
    assert (shared.owner.tolist(), shared.blocks.numel()) == ([0, 1, 2, 3], 8)
    own = [int((visits.owner < 4).sum()) for visits in plan.visits]
    assert own == [1 + 1 + 3 + 2]


def test_in_a_window_every_sequence_looks_for_itself() -> None:
    step = make_step(Shape(sequences=[(num, 1) for num in (33, 34, 40, 37)], num_shared=8, window=9))
    plan = BACKEND.plan(step.layout, torch.device("cpu"), 9)
    assert isinstance(plan, CpuPlan)
    assert plan.shared == ()
    torch.testing.assert_close(step.run(BACKEND).double(), step.expected(), atol=1e-5, rtol=1e-4)
