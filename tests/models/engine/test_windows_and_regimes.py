"""Sequences whose layers see only their last keys, or whose rotation depends on their length: what the scheduler gives
back and computes again, and that no way of cutting the work changes a token."""

from itertools import product
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from models import Engine, SamplingParams, Scorer
from models.config.types import RopeRegimes
from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.plan import StepPlan
from models.engine.scheduling.scheduler import Scheduler
from models.engine.scheduling.sequence import Sequence
from tests.helpers.matrix import first_of_each
from tests.helpers.models.near_ties import assert_greedy
from tests.helpers.models.tiny_engine import SHARP, prompts, tokens
from tests.helpers.tiny_families import LONGROPE
from tests.models.conftest import CheckpointMaker
from tests.models.engine.scheduling.test_scheduler import answer, plan_of, request, run

SWITCH = RopeRegimes(kind="switch", limit=10)
MODELS: dict[str, dict[str, Any]] = {
    "every layer slides": {"sliding_window": 6},
    "longrope": {"original_max_position_embeddings": 30, "rope_parameters": LONGROPE},
    "both": {"sliding_window": 6, "original_max_position_embeddings": 30, "rope_parameters": LONGROPE},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "two at a time": {"max_num_seqs": 2},
    "one token a step": {"max_num_batched_tokens": 1},
    "chunks of 7": {"max_num_batched_tokens": 7},
    "blocks of 1": {"block_size": 1},
    "blocks of 5 in chunks of 3": {"block_size": 5, "max_num_batched_tokens": 3},
}
GREEDY = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True)


def make(*, blocks: int = 64, window: int | None = None, rope: RopeRegimes | None = None, budget: int = 8) -> Scheduler:
    return Scheduler(
        BlockPool(blocks, 2), max_num_seqs=4, max_num_batched_tokens=budget, max_model_len=128,
        window=window, regime=None if rope is None else rope.of,
    )  # fmt: skip


def test_blocks_before_every_window_are_given_back() -> None:
    scheduler = make(blocks=8, window=4)
    sequence = scheduler.add(request("long", list(range(1, 60)), max_tokens=40))
    most, places = 0, []
    while scheduler.has_work:
        plan = run_one(scheduler)
        most = max(most, scheduler.pool.num_held)
        places += [place for _, place, _ in plan.new_blocks]
    assert sequence.finish_reason == "length"
    assert most <= 8
    assert places == list(range(49))  # 98 tokens in blocks of 2, each place filled once


def run_one(scheduler: Scheduler) -> StepPlan:
    plan = plan_of(scheduler)
    scheduler.commit(answer(plan))
    scheduler.check_integrity()
    return plan


def test_a_prompt_longer_than_the_cache_is_taken_where_windows_let_it() -> None:
    scheduler = make(blocks=9, window=4)
    scheduler.add(request("long", list(range(1, 100)), max_tokens=4))
    assert max(scheduler_held(scheduler)) <= 9


def scheduler_held(scheduler: Scheduler) -> list[int]:
    held = []
    while scheduler.has_work:
        run_one(scheduler)
        held.append(scheduler.pool.num_held)
    return held


def test_a_shared_prefix_is_found_although_its_beginning_was_given_back() -> None:
    scheduler = make(window=4)
    prompt = list(range(1, 20))
    run_all(scheduler, prompt, "first")
    second = run_all(scheduler, prompt, "second")
    assert second.num_cached == 18


def run_all(scheduler: Scheduler, prompt: list[int], name: str) -> Sequence:
    sequence = scheduler.add(request(name, prompt))
    run(scheduler)
    return sequence


@pytest.mark.parametrize("ahead", [1, 2])
def test_a_sequence_that_outgrows_its_regime_is_computed_again(ahead: int) -> None:
    scheduler = make(rope=SWITCH)
    sequence = scheduler.add(request("a", list(range(1, 9)), max_tokens=6))
    plans = run(scheduler, ahead=ahead)
    computed = [each for plan in plans for each in zip(plan.regimes, plan.starts, plan.counts, strict=True)]
    assert [each for each in computed if each[0] == 0] == [(0, 0, 8), (0, 8, 1), (0, 9, 1)]
    assert [each for each in computed if each[0] == 1] == [(1, 0, 8), (1, 8, 3), (1, 11, 1), (1, 12, 1)]
    assert len(sequence.output_ids) == 6


def test_a_sequence_that_ends_at_the_limit_is_not_computed_again() -> None:
    scheduler = make(rope=SWITCH)
    scheduler.add(request("a", list(range(1, 9)), max_tokens=3))
    assert {regime for plan in run(scheduler) for regime in plan.regimes} == {0}


def test_what_is_cached_in_one_regime_is_not_used_in_another() -> None:
    scheduler = make(rope=SWITCH, budget=64)
    short, long = list(range(1, 8)), list(range(1, 30))
    assert run_all(scheduler, short, "short").num_cached == 0
    assert run_all(scheduler, long, "long").num_cached == 0
    assert run_all(scheduler, short, "short again").num_cached == 6
    assert run_all(scheduler, long, "long again").num_cached == 28


def test_prompts_scale_a_dynamic_rotation_by_their_length() -> None:
    regimes = RopeRegimes(kind="prompt", limit=10)
    assert [regimes.of(prompt, total) for prompt, total in ((10, 90), (11, 11), (11, 90))] == [0, 11, 11]


@pytest.mark.parametrize(("model", "layout"), first_of_each(product(MODELS, LAYOUTS), kind=lambda case: case[0]))
def test_tokens_do_not_depend_on_how_the_work_is_cut(
    family_checkpoint: CheckpointMaker, model: str, layout: str
) -> None:
    folder = family_checkpoint("phi3", "causal", **SHARP | MODELS[model])
    asked = prompts((1, 5, 17, 29, 30, 31, 60))
    with Engine.from_pretrained(folder, cache_bytes=2**22) as engine:
        expected = [engine.generate([prompt], GREEDY)[0] for prompt in asked]
    with Engine.from_pretrained(folder, **{"cache_bytes": 2**22} | LAYOUTS[layout]) as engine:
        assert tokens(engine.generate(asked, GREEDY)) == tokens(expected)


@pytest.mark.parametrize("model", list(MODELS))
def test_preempted_sequences_give_the_same_tokens(family_checkpoint: CheckpointMaker, model: str) -> None:
    folder = family_checkpoint("phi3", "causal", **SHARP | MODELS[model])
    asked = prompts((5, 17, 29, 30, 31, 60))
    with Engine.from_pretrained(folder, cache_bytes=2**22) as engine:
        expected = [engine.generate([prompt], GREEDY)[0] for prompt in asked]
    token_bytes = 2 * 2 * 2 * 8 * 4
    num_tokens = 100 if "rope_parameters" in MODELS[model] and "sliding_window" not in MODELS[model] else 56
    options: dict[str, Any] = {"cache_bytes": num_tokens * token_bytes, "block_size": 4, "max_num_batched_tokens": 20}
    with Engine.from_pretrained(folder, **options) as engine:
        outputs = engine.generate(asked, GREEDY)
        assert engine.stats.num_preemptions > 0
    assert tokens(outputs) == tokens(expected)


@pytest.mark.parametrize("family", ["qwen3", "smollm3"])
def test_a_dynamic_rotation_is_that_of_transformers_with_one_sequence(
    family_checkpoint: CheckpointMaker, family: str
) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    folder = family_checkpoint(family, "causal", **SHARP, max_position_embeddings=32, rope_parameters=rope)
    asked = prompts((3, 20, 31, 32, 33, 60))
    params = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True)
    with Engine.from_pretrained(folder, cache_bytes=2**22, max_model_len=128, max_num_batched_tokens=16) as engine:
        outputs = engine.generate(asked, params)
    scores = Scorer.from_pretrained(folder, max_model_len=128).score(asked)
    for prompt, output, logits in zip(asked, outputs, scores, strict=True):
        oracle: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # keeps the longest base it saw
        oracle.generation_config.eos_token_id = None
        with torch.no_grad():
            torch.testing.assert_close(logits, oracle(torch.tensor([prompt])).logits[0], atol=1e-3, rtol=1e-4)
        assert len(output.token_ids) == 40
        assert_greedy(oracle, prompt, output.token_ids)


def test_labels_after_a_long_prompt_are_those_of_a_full_forward(family_checkpoint: CheckpointMaker) -> None:
    folder = family_checkpoint("phi3", "causal", **MODELS["both"])
    labels, asked = [[7, 8], [7, 9]], prompts((10, 29, 40))
    scores = Scorer.from_pretrained(folder).score_labels(asked, labels)
    oracle: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for prompt, row in zip(asked, scores, strict=True):
        for label, score in zip(labels, row.tolist(), strict=True):
            with torch.no_grad():
                logits = oracle(torch.tensor([prompt + label[:-1]])).logits[0]
            logprobs = torch.log_softmax(logits, dim=-1)
            expected = sum(logprobs[len(prompt) - 1 + place, token].item() for place, token in enumerate(label))
            assert score == pytest.approx(expected, abs=1e-4)
