"""A recurrent network's prompts that begin alike go on from states that were kept: a hit gives
what a miss gives, however the work is cut, and whoever gives way. What is computed on its own in
an engine that keeps no state is the truth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import Engine, Output, SamplingParams
from models.engine.options import EngineOptions
from models.layers.state import StateCache
from models.loading.load import LoadedModel
from tests.helpers.matrix import first_quick
from tests.helpers.models.tiny_engine import OVERLAPS, MakeEngine, drain, logprobs, prompts, tokens

GREEDY = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True, logprobs=2)
JOB, LENGTHS = 140, (1, 9, 33, 60, 77)  # tokens that all have in common, and each one's own; a chunk has 64
STATE_BYTES = 7 * 4 * (8 * 8 * 16 + 3 * (64 + 32))
TOKEN_BYTES = 2 * 4 * 2 * 64
WAYS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "blocks of 4": {"block_size": 4, "state_stride": 16},
    "blocks of 128": {"block_size": 128},
    "a state each chunk": {"block_size": 16, "state_stride": 1},
    "one at a time": {"max_num_seqs": 1},
    "chunks of 100": {"max_num_batched_tokens": 100},
    "chunks of 50": {"max_num_batched_tokens": 50, "block_size": 16, "state_stride": 4},
    "three slots, few blocks": {
        "max_num_seqs": 3,
        "block_size": 16,
        "state_stride": 4,
        "cache_bytes": 3 * STATE_BYTES + 23 * 16 * TOKEN_BYTES,
    },
}


def job() -> list[list[int]]:
    """Prompts of one job."""
    [common] = prompts([JOB], seed=5)
    return [common + tail for tail in prompts(LENGTHS, seed=6)]


@pytest.fixture(scope="session")
def alone(hybrid: LoadedModel) -> list[Output]:
    outputs: list[Output] = []
    for prompt in job():
        options = EngineOptions(cache_bytes=2**22, max_num_seqs=1, state_stride=0)
        with Engine(hybrid, tokenizer=None, options=options) as engine:
            outputs += engine.generate([prompt], GREEDY)
    return outputs


def assert_same(outputs: list[Output], expected: list[Output]) -> None:
    assert tokens(outputs) == tokens(expected)
    for output, reference in zip(outputs, expected, strict=True):
        assert logprobs(output) == pytest.approx(logprobs(reference), abs=1e-5)


def test_the_truth_is_worth_comparing_with(alone: list[Output]) -> None:
    assert all(len(set(output.token_ids)) >= 4 for output in alone)
    assert {output.num_cached_tokens for output in alone} == {0}


@pytest.mark.parametrize("overlap", first_quick(OVERLAPS))
@pytest.mark.parametrize("way", list(WAYS))
def test_a_hit_gives_what_a_miss_gives(
    hybrid: LoadedModel, make_engine: MakeEngine, alone: list[Output], way: str, overlap: str
) -> None:
    with OVERLAPS[overlap]():
        engine = make_engine(hybrid, **WAYS[way])
    for _ in range(2):
        outputs = engine.generate(job(), GREEDY)
        assert_same(outputs, alone)
    assert sum(output.num_cached_tokens for output in outputs) >= 4 * 96


def test_the_first_of_a_job_is_computed_and_the_others_go_on_from_its_common_beginning(
    hybrid: LoadedModel, make_engine: MakeEngine, alone: list[Output]
) -> None:
    engine = make_engine(hybrid)
    outputs = engine.generate(job(), GREEDY)
    assert_same(outputs, alone)
    assert sorted(output.num_cached_tokens for output in outputs) == [0, 128, 128, 128, 128]


def test_sequences_that_give_way_go_on_from_states_too(
    hybrid: LoadedModel, make_engine: MakeEngine, alone: list[Output]
) -> None:
    engine = make_engine(hybrid, **WAYS["three slots, few blocks"])
    assert_same(engine.generate(job(), GREEDY), alone)
    assert engine.stats.num_preemptions > 0


def test_rows_full_of_garbage_change_nothing(hybrid: LoadedModel, make_engine: MakeEngine, alone: list[Output]) -> None:
    engine = make_engine(hybrid)
    for cache in engine._runner._caches:
        if isinstance(cache, StateCache):
            cache.conv.fill_(torch.nan)
            cache.scan.fill_(torch.inf)
    assert_same(engine.generate(job(), GREEDY), alone)


def test_what_was_generated_is_computed_again_when_it_is_given(hybrid: LoadedModel, make_engine: MakeEngine) -> None:
    """Its step sizes have their floor then, so that neither its states nor its keys are those of
    an answer."""
    params = SamplingParams(max_tokens=70, temperature=0.0, ignore_eos=True, logprobs=2)
    engine = make_engine(hybrid, block_size=4, state_stride=1)
    [first] = engine.generate([job()[0]], params)
    longer = job()[0] + first.token_ids
    [hit] = engine.generate([longer], GREEDY)
    [miss] = make_engine(hybrid, state_stride=0).generate([longer], GREEDY)
    assert (hit.num_cached_tokens, miss.num_cached_tokens) == (128, 0)
    assert_same([hit], [miss])


def test_a_job_is_not_disturbed_by_requests_that_are_given_up(
    hybrid: LoadedModel, make_engine: MakeEngine, alone: list[Output]
) -> None:
    engine = make_engine(hybrid, max_num_batched_tokens=100)
    for index, prompt in enumerate(job()):
        engine.add(f"given up {index}", prompt, GREEDY)
        engine.add(str(index), prompt, GREEDY)
        engine.step()
        engine.abort(f"given up {index}")
    found = drain(engine)
    assert_same([found[str(index)] for index in range(len(job()))], alone)


@pytest.mark.slow
def test_two_shards_give_what_one_gives(zamba2_checkpoint: Callable[..., Path], alone: list[Output]) -> None:
    with Engine.from_pretrained(zamba2_checkpoint(), tensor_parallel_size=2, cache_bytes=2**22) as engine:
        for _ in range(2):
            outputs = engine.generate(job(), GREEDY)
            assert tokens(outputs) == tokens(alone)
        assert [output.num_cached_tokens for output in outputs] == [128] * 5


def test_the_memory_plan_counts_what_is_kept(hybrid: LoadedModel, make_engine: MakeEngine) -> None:
    engine = make_engine(hybrid, max_num_seqs=2, block_size=16, state_stride=8)
    memory = engine.memory
    assert memory.num_snapshots == 2 * (1 + 256 // 128) == 6
    assert memory.cache_bytes == (2 + 6) * STATE_BYTES + memory.num_tokens * TOKEN_BYTES
    scans = [cache.scan.shape[0] for cache in engine._runner._caches if isinstance(cache, StateCache)]
    assert scans == [8] * 7


def test_no_room_for_a_state_is_said_and_nothing_is_shared(
    hybrid: LoadedModel, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(hybrid, max_num_seqs=2, block_size=4, cache_bytes=6 * STATE_BYTES - 1)
    assert "has no room to keep the state of a prefix" in caplog.text
    assert engine.memory.num_snapshots == 0
    outputs = [engine.generate([job()[0][:100]], GREEDY)[0] for _ in range(2)]
    assert [output.num_cached_tokens for output in outputs] == [0, 0]


def test_with_a_stride_of_0_nothing_is_kept_or_said(
    hybrid: LoadedModel, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(hybrid, max_num_seqs=4, state_stride=0)
    assert (engine.memory.num_snapshots, caplog.text) == (0, "")
