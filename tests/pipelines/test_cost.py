"""What a whole job costs, by what some of its rows did."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipelines.cost import END_S, START_S, CountedWork, Speed, cost_of, num_steps
from pipelines.probe import Probe, ProbedBatch
from pipelines.sample import Sample
from pipelines.task_base.requests import ModelRequest
from pipelines.units.planning import Plan

PLAN = Plan(schema=pa.schema([]), unit_rows=256, num_files=1, num_units=4, num_rows=1000, num_bytes=1)
SAMPLE = Sample(
    prompt_tokens=np.array([30, 10]),
    failures={"bad": 2},
    rows=[[ModelRequest(row=0, token_ids=np.arange(length, dtype=np.int32) + 1)] for length in (30, 10)],
)
"""Prompts of 20 tokens for the good half of all rows."""


def generated(num_rows: int, *, length: int = 10, prompt: int = 20, seconds: float = 0.0) -> ProbedBatch:
    """A batch on an engine that takes 1 ms for a prompt token, 20 ms for a step and 3 ms for a token generated, if no time is given."""
    took = num_rows * prompt * 0.001 + length * 0.02 + num_rows * length * 0.003
    return ProbedBatch(
        num_rows=num_rows, seconds=seconds or took, prompt_tokens=num_rows * prompt, lengths=(length,) * num_rows
    )


def test_time_is_that_of_an_engine_with_fixed_costs() -> None:
    """The first batch is slow, as it warms the engine up."""
    batches = [generated(8, seconds=9.0), generated(32), generated(128, length=7), generated(64, length=20, prompt=5)]
    speed = Speed.of(batches)
    assert (speed.prompt_token_s, speed.step_s, speed.completion_token_s) == pytest.approx((0.001, 0.02, 0.003))
    assert speed.seconds(CountedWork(prompt_tokens=100, steps=10, completion_tokens=50)) == pytest.approx(0.45)


def test_two_batches_of_a_kind_tell_what_more_rows_of_it_take() -> None:
    speed = Speed.of([generated(8), generated(32)])
    more = generated(256)
    work = CountedWork(prompt_tokens=more.prompt_tokens, steps=more.num_steps, completion_tokens=more.completion_tokens)
    assert speed.seconds(work) == pytest.approx(more.seconds)


def test_no_cost_is_negative_whatever_was_measured() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        speed = Speed.of([generated(size, seconds=float(draw.uniform(0.1, 5))) for size in (8, 32, 128)])
        assert min(speed.prompt_token_s, speed.step_s, speed.completion_token_s) >= 0
        assert speed != Speed(prompt_token_s=0, step_s=0, completion_token_s=0)


@pytest.mark.parametrize(
    ("lengths", "num_rows", "max_num_seqs", "steps"),
    [
        ([10], 8, 8, 10),  # all at once
        ([10], 12, 8, 20),  # four begin when the first eight end
        ([2, 10], 4, 2, 14),  # the third takes the first's place until step 4, the fourth the third's
        ([5], 0, 8, 0),
    ],
)
def test_steps_are_those_until_the_last_sequence_ends(
    lengths: list[int], num_rows: int, max_num_seqs: int, steps: int
) -> None:
    assert num_steps(lengths, num_rows, max_num_seqs) == steps


def test_many_rows_are_steady_work_but_for_the_end() -> None:
    assert num_steps([10, 30], 1_000_000, 100) == pytest.approx(1_000_000 * 20 / 100, rel=1e-3)


def test_cost_is_the_samples_mean_times_all_rows() -> None:
    """Calls of 32 and 128 rows at 2 ms a computed token; 75 of 100 tokens were cached."""
    batches = tuple(
        ProbedBatch(num_rows=rows, seconds=rows * 0.05, prompt_tokens=rows * 100, cached_tokens=rows * 75)
        for rows in (8, 32, 128)
    )
    probe = Probe(batches=batches, load_s=3.0)
    cost = cost_of(PLAN, SAMPLE, probe, max_num_seqs=8, units_in_flight=2)
    assert (cost.prompt_tokens, cost.cached_tokens, cost.completion_tokens) == (10_000, 7_500, 0)
    assert cost.compute_s == pytest.approx(5.0)
    assert not cost.is_uncertain
    assert cost.seconds == pytest.approx(START_S + 3.0 + END_S + 5.0)
    assert cost.tokens_at_risk == 5_120  # 2 units of 256 rows


def test_a_generation_counts_its_last_sequences() -> None:
    """500 good rows of 10 tokens, 400 at a time: two rounds of steps."""
    probe = Probe(batches=(generated(8), generated(32)), load_s=0.0)
    cost = cost_of(PLAN, SAMPLE, probe, max_num_seqs=400, units_in_flight=2)
    assert cost.completion_tokens == 5_000
    assert cost.compute_s == pytest.approx(500 * 20 * 0.001 + 20 * 0.02 + 5_000 * 0.003)
    small = cost_of(replace(PLAN, num_rows=0), SAMPLE, probe, max_num_seqs=400, units_in_flight=2)
    assert small.compute_s == 0
