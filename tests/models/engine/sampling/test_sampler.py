"""Draws against exact probabilities and against transformers' own filters; keyed by seed and position alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from models.engine.sampling.sampler import SamplingRow, is_plain_greedy, likeliest, sample, uniform
from models.engine.scheduling.plan import Admission
from models.engine.scheduling.request import SamplingParams

NUM_DRAWS = 8000
VOCAB_SIZE = 24
FILTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hot": {"temperature": 3.0},
    "cold": {"temperature": 0.25},
    "top_k": {"top_k": 5},
    "top_k 1": {"top_k": 1},
    "top_k over the vocabulary": {"top_k": 1000},
    "top_p": {"top_p": 0.8},
    "top_p of nearly nothing": {"top_p": 1e-9},
    "min_p": {"min_p": 0.1},
    "min_p 1": {"min_p": 1.0},
    "top_k, then top_p": {"top_k": 6, "top_p": 0.7},
    "top_p, then min_p": {"top_p": 0.9, "min_p": 0.15},
    "all": {"temperature": 1.7, "top_k": 12, "top_p": 0.85, "min_p": 0.05},
}


def row(seed: int = 0, position: int = 0, **params: Any) -> SamplingRow:
    return SamplingRow(params=SamplingParams(**params), seed=seed, position=position)


def draw(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """One token a row; all rows have these logits [V], or each its own [R, V]."""
    tokens: list[int] = sample(logits.expand(len(rows), -1).clone(), rows).tolist()
    return tokens


def random_logits(seed: int = 0, *, vocab_size: int = VOCAB_SIZE) -> torch.Tensor:
    return 2 * torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed))


def filtered(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The distribution [V] that transformers draws from."""
    warpers: list[Any] = [TemperatureLogitsWarper(params.temperature)]
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p > 0.0:
        warpers.append(MinPLogitsWarper(params.min_p))
    scores = logits[None]
    for warper in warpers:
        scores = warper(torch.zeros(1, 1, dtype=torch.long), scores)
    return torch.softmax(scores.double(), dim=-1)[0]


@pytest.mark.parametrize("name", list(FILTERS))
def test_draws_are_distributed_as_transformers_distributes_them(name: str) -> None:
    logits, params = random_logits(), SamplingParams(**FILTERS[name])
    expected = filtered(logits, params) * NUM_DRAWS
    rows = [row(seed, 3, **FILTERS[name]) for seed in range(NUM_DRAWS)]
    counts = torch.bincount(torch.tensor(draw(logits, rows)), minlength=VOCAB_SIZE)
    assert not counts[expected == 0].any()
    likely = expected > 0
    chi_square = ((counts - expected).square() / expected)[likely].sum().item()
    freedom = int(likely.sum()) - 1
    assert chi_square <= freedom + 4 * (2 * freedom) ** 0.5 + 1e-9


def test_draws_along_the_positions_of_one_sequence_are_distributed_as_those_over_seeds() -> None:
    logits = random_logits(1)
    rows = [row(12345, position) for position in range(NUM_DRAWS)]
    counts = torch.bincount(torch.tensor(draw(logits, rows)), minlength=VOCAB_SIZE)
    distance = (counts / NUM_DRAWS - torch.softmax(logits.double(), dim=-1)).abs().sum() / 2
    assert distance < 0.03


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    temperature=st.floats(0.05, 5.0),
    top_k=st.integers(0, 30),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 0.9),
)
def test_no_draw_is_a_token_that_transformers_filters_out(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    fields: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    logits = random_logits(seed)
    probabilities = filtered(logits, SamplingParams(**fields))
    drawn = draw(logits, [row(number, 7, **fields) for number in range(40)])
    assert (probabilities[drawn] > 0).all()


def test_every_token_in_the_support_can_be_drawn() -> None:
    logits = torch.zeros(7)
    assert set(draw(logits, [row(seed) for seed in range(200)])) == set(range(7))
    assert set(draw(logits, [row(seed, top_k=4) for seed in range(200)])) == {0, 1, 2, 3}


def mixed() -> tuple[torch.Tensor, list[SamplingRow]]:
    """Logits [R, V] and rows of every kind, greedy ones among them."""
    kinds = [{"temperature": 0.0}, *FILTERS.values()]
    rows = [row(seed, 5 + seed, **kinds[seed % len(kinds)]) for seed in range(3 * len(kinds))]
    return torch.stack([random_logits(seed) for seed in range(len(rows))]), rows


def test_a_draw_depends_on_no_other_row_of_the_batch() -> None:
    logits, rows = mixed()
    together = draw(logits, rows)
    assert [draw(logits[index], [each])[0] for index, each in enumerate(rows)] == together
    assert draw(logits.flip(0), rows[::-1]) == together[::-1]


def test_the_same_seed_and_position_draw_the_same_token_again() -> None:
    logits, rows = mixed()
    assert draw(logits, rows) == draw(logits, rows)


def test_another_seed_or_position_draws_for_itself() -> None:
    logits = torch.zeros(1000)
    by_seed = draw(logits, [row(seed, 3) for seed in range(50)])
    by_position = draw(logits, [row(3, position) for position in range(50)])
    assert len(set(by_seed)) > 40
    assert len(set(by_position)) > 40
    assert by_seed != by_position


def test_greedy_rows_take_the_first_of_equals_whatever_they_would_filter() -> None:
    logits = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0])
    assert draw(logits, [row(temperature=0.0), row(temperature=0.0, top_k=2, top_p=0.5), row(top_k=1)]) == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_logits_are_drawn_from_too(dtype: torch.dtype) -> None:
    logits, rows = mixed()
    coarse = logits.to(dtype)
    assert draw(coarse, rows) == draw(coarse.float(), rows)


@pytest.mark.parametrize("vocab_size", [1, 2, 96, 127, 128, 129, 255, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_likeliest_token_is_the_first_of_the_largest(vocab_size: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn(64, vocab_size, generator=generator)
    logits[:16] = logits[:16].round()  # many equals
    logits[16:24] = -torch.inf
    logits[20:24, -1] = -1e30
    logits = logits.to(dtype)
    assert likeliest(logits).tolist() == np.argmax(logits.float().numpy(), axis=1).tolist()


def test_uniform_numbers_are_in_range_and_spread_evenly() -> None:
    for rows in (
        [row(seed, 9) for seed in range(20000)],
        [row(9, position) for position in range(20000)],
        [row(2**63 - 1 - number, number % 7) for number in range(20000)],
    ):
        numbers = uniform(rows)
        assert numbers.dtype == torch.float64
        assert 0.0 <= numbers.min() <= numbers.max() < 1.0
        ordered = numbers.sort().values
        even = torch.arange(20000, dtype=torch.float64) / 20000
        assert (ordered - even).abs().max() < 1.63 / 20000**0.5  # Kolmogorov-Smirnov at 1%
        assert len(set(numbers.tolist())) == 20000


def test_uniform_numbers_of_neighbouring_seeds_and_positions_are_not_related() -> None:
    table = torch.stack([uniform([row(seed, position) for position in range(200)]) for seed in range(100)]) - 0.5
    for one, other in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1]), (table[1:, :-1], table[:-1, 1:])):
        correlation = (one * other).mean() / (1 / 12)
        assert correlation.abs() < 4 / one.numel() ** 0.5


def test_barred_tokens_are_not_drawn_before_their_position_and_may_be_from_there_on() -> None:
    logits = torch.tensor([0.0, 9.0, 1.0, 9.0])
    admission = Admission(
        slot=0, num_prompt=10, params=SamplingParams(min_tokens=3, temperature=0.0), seed=0, stop_ids=(1, 3)
    )
    rows = [SamplingRow.of(admission, torch.device("cpu")).at(position) for position in (10, 12, 13)]
    assert draw(logits, rows) == [2, 2, 1]
    sampled = replace(admission, params=SamplingParams(min_tokens=3))
    drawn = [SamplingRow.of(replace(sampled, seed=seed), torch.device("cpu")).at(12) for seed in range(50)]
    assert set(draw(logits, drawn)) == {0, 2}


def test_barring_one_row_leaves_the_others_alone() -> None:
    logits = torch.tensor([[0.0, 9.0], [0.0, 9.0]])
    params = SamplingParams(temperature=0.0, min_tokens=1)
    barred = SamplingRow.of(Admission(slot=0, num_prompt=0, params=params, seed=0, stop_ids=(1,)), torch.device("cpu"))
    assert draw(logits, [barred, row(temperature=0.0)]) == [0, 1]


@pytest.mark.parametrize(
    ("fields", "is_plain"),
    [
        ({}, True),
        ({"top_k": 3, "seed": 1}, True),
        ({"temperature": 1.0}, False),
        ({"logprobs": 0}, False),
        ({"min_tokens": 1}, False),
        ({"presence_penalty": 1.0}, False),
        ({"logit_bias": {1: 1.0}}, False),
    ],
)
def test_plain_greedy_rows_need_nothing_but_the_likeliest_token(fields: dict[str, Any], is_plain: bool) -> None:
    assert is_plain_greedy(SamplingParams(**{"temperature": 0.0, **fields})) == is_plain


@pytest.mark.parametrize("temperature", [1e-40, 1e-46])
@pytest.mark.parametrize("fields", [{}, {"top_k": 5}])
def test_the_coldest_temperatures_are_nearly_greedy(temperature: float, fields: dict[str, Any]) -> None:
    logits = random_logits()
    rows = [row(seed, temperature=temperature, **fields) for seed in range(5)]
    assert draw(logits, rows) == [int(logits.argmax())] * 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("fields", [{}, {"top_p": 0.9}])
def test_a_row_of_broken_logits_draws_some_token_of_the_vocabulary(value: float, fields: dict[str, Any]) -> None:
    broken = torch.stack([random_logits(), random_logits().fill_(value), random_logits()])
    tokens = draw(broken, [row(seed, **fields) for seed in range(3)])
    assert all(0 <= token < VOCAB_SIZE for token in tokens)
    assert tokens[::2] == [draw(random_logits(), [row(seed, **fields)])[0] for seed in (0, 2)]
