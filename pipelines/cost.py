"""What a whole job costs, by what a probe of some rows cost: tokens, how many of them are found in a cache, and time.

A batch is taken to cost so much for each prompt token that is computed, for each step, and for each token generated (see `Speed`). Of a
run all three can be counted beforehand: a step has as many sequences as the engine holds, until the last ones run out.
"""

import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipelines.probe import Probe, ProbedBatch
from pipelines.sample import Sample
from pipelines.units.planning import Plan

START_S: Final = 14.0
"""Seconds from the start of a run to its first unit, beside loading the weights: reading the job, Ray, an engine's process with torch.
Measured by `tests.benchmarks.first_commit` on 2 busy cores; it is less on idle ones."""

END_S: Final = 2.0
"""Seconds from the last answers to the end of a run: they are committed, Ray is ended. By the same benchmark."""

MAX_SIMULATED: Final = 20_000
"""Rows whose generations are laid out one by one; more are steady work all but the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds that one engine takes for a prompt token that it computes, for a step (of a single-pass task: a call), and for a token
    that it generates."""

    prompt_token_s: float
    step_s: float
    completion_token_s: float

    @classmethod
    def of(cls, batches: Sequence[ProbedBatch]) -> "Speed":
        """The costs, none of them negative, with the least squares of relative errors over these batches. The first one is left out where
        there are enough others, as it warms the engine up."""
        counted = batches[1:] if len(batches) > 2 or not batches[-1].lengths else batches
        counted = counted or batches
        counts = np.array([_counts(batch) for batch in counted], np.float64)
        seconds = np.array([batch.seconds for batch in counted])
        prompt_token_s, step_s, completion_token_s = _fitted(counts / seconds[:, None])
        return cls(prompt_token_s=prompt_token_s, step_s=step_s, completion_token_s=completion_token_s)

    def seconds(self, work: "CountedWork") -> float:
        return (
            work.prompt_tokens * self.prompt_token_s
            + work.steps * self.step_s
            + work.completion_tokens * self.completion_token_s
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedWork:
    """What one engine computes: prompt tokens that are not cached, steps, tokens generated."""

    prompt_tokens: float
    steps: float
    completion_tokens: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The whole job: its tokens, of which `cached_tokens` are found in a cache; its time on one engine; and the tokens that a kill would
    have computed again.

    `start_s` are the seconds before the first unit and after the last, loading included. `compute_s` are those between, and
    `other_compute_s` the same by the last batch's speed alone: where the two differ, the probe was too short for what the run does.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    start_s: float
    compute_s: float
    other_compute_s: float
    tokens_at_risk: int

    @property
    def is_uncertain(self) -> bool:
        """Whether the two differ by more than a tenth."""
        return abs(self.other_compute_s - self.compute_s) > 0.1 * self.seconds

    @property
    def seconds(self) -> float:
        """From the start of the run to its end."""
        return self.start_s + self.compute_s


def cost_of(plan: Plan, sample: Sample, probe: Probe, *, max_num_seqs: int, units_in_flight: int) -> Cost:
    """Sampled means times the rows there are; an engine generates for `max_num_seqs` sequences at a time."""
    good = len(sample.rows) / sample.num_rows if sample.num_rows else 0.0
    num_good = good * plan.num_rows
    completion = probe.completion_tokens_per_row
    prompt_tokens = sample.mean_prompt_tokens * plan.num_rows
    cached_tokens = min(probe.cached_share * prompt_tokens, prompt_tokens)
    work = CountedWork(
        prompt_tokens=prompt_tokens - cached_tokens,
        steps=num_steps(probe.lengths, round(num_good), max_num_seqs) if probe.lengths else plan.num_units,
        completion_tokens=completion * num_good,
    )
    rows_at_risk = min(plan.num_rows, units_in_flight * plan.unit_rows)
    row_tokens = sample.mean_prompt_tokens + good * completion
    return Cost(
        prompt_tokens=round(prompt_tokens),
        cached_tokens=round(cached_tokens),
        completion_tokens=round(work.completion_tokens),
        start_s=START_S + probe.load_s + END_S,
        compute_s=Speed.of(probe.batches).seconds(work),
        other_compute_s=(work.prompt_tokens + work.completion_tokens) / probe.tokens_per_s,
        tokens_at_risk=round(rows_at_risk * row_tokens),
    )


def num_steps(lengths: Sequence[int], num_rows: int, max_num_seqs: int) -> float:
    """The steps of an engine that generates for `num_rows` rows, `max_num_seqs` at a time: a sequence that ends makes room for the next,
    and at the end ever fewer are left. Rows have these lengths, over and over."""
    if not num_rows:
        return 0.0
    simulated = min(num_rows, MAX_SIMULATED)
    ends: list[int] = []
    for length in itertools.islice(itertools.cycle(lengths), simulated):
        start = heapq.heappop(ends) if len(ends) == max_num_seqs else 0
        heapq.heappush(ends, start + length)
    steady = (num_rows - simulated) * sum(lengths) / len(lengths) / max_num_seqs
    return max(ends) + steady


def _counts(batch: ProbedBatch) -> tuple[int, int, int]:
    return batch.computed_prompt_tokens, batch.num_steps, batch.completion_tokens


def _fitted(counts: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> list[float]:
    """The x >= 0 [3] with the least |counts x - 1|: that of the best of all choices of columns, which are few, where it has no negative
    value. Of equals the one with the fewest columns is taken, which comes first."""
    best, least = np.zeros(counts.shape[1]), np.inf
    for columns in _choices(counts.shape[1]):
        found = np.linalg.lstsq(counts[:, columns], np.ones(len(counts)), rcond=None)[0]
        error = float(np.square(counts[:, columns] @ found - 1).sum())
        if found.min() >= 0 and error < least - 1e-9:
            best, least = np.zeros(counts.shape[1]), error
            best[columns] = found
    return [float(value) for value in best]


def _choices(num_columns: int) -> Iterable[list[int]]:
    for size in range(1, num_columns + 1):
        yield from (list(columns) for columns in itertools.combinations(range(num_columns), size))
