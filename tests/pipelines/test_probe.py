"""A probe's batches: how many there are, and what they count."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from actors.work import Asked, EngineSettings
from models import SamplingParams
from pipelines.probe import ProbedBatch, probe_engine, within_budget
from pipelines.task_base.requests import ModelRequest

CheckpointMaker = Callable[..., Path]


def rows_of(lengths: list[int], first: int = 1) -> list[list[ModelRequest]]:
    return [
        [ModelRequest(row=0, token_ids=np.arange(length, dtype=np.int32) + first + n)]
        for n, length in enumerate(lengths)
    ]


def batches(*seconds: float) -> Iterator[ProbedBatch]:
    for each in seconds:
        yield ProbedBatch(num_rows=1, seconds=each, prompt_tokens=1)


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        ((0.1, 0.2, 1.0, 3.0), 3),  # four times the third would be over
        ((30.0, 1.0), 1),  # the first took more than half
        ((0.5, 1.9, 1.0), 2),  # a second one is asked for all the same
        ((0.1, 0.1), 2),
    ],
)
def test_probe_stops_before_a_batch_that_would_take_too_long(seconds: tuple[float, ...], count: int) -> None:
    assert len(within_budget(batches(*seconds), budget_s=5.0)) == count


def test_probe_generates_with_the_engine_of_a_run(tiny_checkpoint: CheckpointMaker) -> None:
    sampling = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    settings = EngineSettings(path=str(tiny_checkpoint()), asked=Asked(sampling=sampling), max_num_seqs=8)
    probe = probe_engine(settings, rows_of([5] * 8 + [7] * 9), budget_s=600.0)
    assert probe is not None
    assert [(batch.num_rows, batch.prompt_tokens, batch.lengths) for batch in probe.batches] == [
        (8, 40, (8,) * 8),
        (9, 63, (8,) * 9),
    ]
    assert probe.completion_tokens_per_row == 8
    assert probe.last.num_steps == 8
    assert probe.tokens_per_s > 0


def test_probe_of_a_single_pass_head_counts_prompts_alone(tiny_checkpoint: CheckpointMaker) -> None:
    settings = EngineSettings(path=str(tiny_checkpoint("sequence-classification")))
    probe = probe_engine(settings, rows_of([5, 7]), budget_s=600.0)
    assert probe is not None
    assert [(batch.num_rows, batch.prompt_tokens, batch.lengths) for batch in probe.batches] == [(2, 12, ())]
    assert probe.completion_tokens_per_row == 0


def test_what_rows_share_is_found_by_the_batches_after_the_first(tiny_checkpoint: CheckpointMaker) -> None:
    """64 tokens in front of every row, and 5 of its own; no row is computed twice."""
    shared = np.arange(64, dtype=np.int32) + 1
    rows = [
        [ModelRequest(row=0, token_ids=np.append(shared, np.int32(70 + n) + np.arange(5, dtype=np.int32)))]
        for n in range(40)
    ]
    probe = probe_engine(EngineSettings(path=str(tiny_checkpoint("sequence-classification"))), rows, budget_s=600.0)
    assert probe is not None
    assert [batch.num_rows for batch in probe.batches] == [8, 32]
    assert probe.batches[0].cached_tokens == 7 * 64
    assert probe.last.cached_tokens == 32 * 64
    assert probe.cached_share == pytest.approx(64 / 69)


def test_without_a_good_row_there_is_no_probe() -> None:
    assert probe_engine(EngineSettings(path="nowhere"), [], budget_s=1.0) is None
