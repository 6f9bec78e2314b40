"""One rank's part of a step: plans of integers in, tokens out."""

from dataclasses import replace

import pytest
import torch

from models import SamplingParams
from models.engine.options import EngineOptions
from models.engine.runner import Runner
from models.engine.scheduling.plan import LAST_TOKEN, Admission, StepPlan
from models.engine.scheduling.scheduler import StepResult
from models.errors import ConfigError
from models.layers.attention import cuda as attention_cuda
from models.loading.load import LoadedModel
from tests.helpers.models.tiny_engine import GREEDY, prompts

PROMPT = prompts()[2]


@pytest.fixture
def runner(sharp: LoadedModel) -> Runner:
    return Runner(sharp, EngineOptions(cache_bytes=2**20, block_size=4, max_num_seqs=4))


def admission(slot: int, params: SamplingParams = GREEDY) -> Admission:
    return Admission(slot=slot, num_prompt=len(PROMPT), params=params, seed=0, stop_ids=())


def prefill(slot: int, blocks: list[int], params: SamplingParams = GREEDY) -> StepPlan:
    """The whole prompt into these blocks."""
    return StepPlan(
        slots=[slot],
        starts=[0],
        counts=[len(PROMPT)],
        is_sampling=[True],
        token_ids=list(PROMPT),
        admitted=[admission(slot, params)],
        new_blocks=[(slot, place, block) for place, block in enumerate(blocks)],
    )


def decode(slot: int, position: int, token: int = LAST_TOKEN) -> StepPlan:
    """One more token."""
    return StepPlan(slots=[slot], starts=[position], counts=[1], is_sampling=[True], token_ids=[token])


def run(runner: Runner, *plans: StepPlan) -> list[StepResult]:
    return [runner.launch(plan).result() for plan in plans]


def test_the_last_token_of_a_slot_is_the_one_it_sampled(runner: Runner) -> None:
    first, second = run(runner, prefill(2, [3, 0]), decode(2, 7))
    [known] = first.tokens
    named = run(runner, prefill(1, [5, 6]), decode(1, 7, known[0]))[1]
    assert named.tokens == second.tokens


def test_plans_may_be_launched_before_the_results_of_earlier_ones_are_read(runner: Runner) -> None:
    expected = run(runner, prefill(0, [0, 1]), decode(0, 7))
    launched = [runner.launch(plan) for plan in (prefill(1, [2, 3]), decode(1, 7))]
    assert [step.result().tokens for step in reversed(launched)] == [step.tokens for step in reversed(expected)]


def test_blocks_are_copied_before_the_step_in_every_layer(runner: Runner) -> None:
    undisturbed = run(runner, prefill(0, [0, 1]), decode(0, 7))
    first = run(runner, prefill(1, [2, 3]))[0]
    moved = replace(decode(1, 7), new_blocks=[(1, 0, 8), (1, 1, 9)], copies=[(2, 8), (3, 9)])
    assert [first.tokens, run(runner, moved)[0].tokens] == [step.tokens for step in undisturbed]


def test_a_chunk_that_samples_nothing_has_no_tokens(runner: Runner) -> None:
    plan = replace(prefill(0, [0, 1]), is_sampling=[False])
    assert run(runner, plan) == [StepResult(tokens=[])]


def test_a_slot_is_sampled_as_its_latest_owner_asked(runner: Runner) -> None:
    hot = SamplingParams(temperature=5.0, logprobs=1)
    [greedy, drawn, again] = run(runner, prefill(0, [0, 1]), prefill(0, [2, 3], hot), prefill(0, [4, 5]))
    assert greedy.tokens == again.tokens
    assert [step.logprobs == {} for step in (greedy, drawn, again)] == [False, False, False]
    assert [len(step.logprobs[0][0].top) for step in (greedy, drawn, again)] == [2, 1, 2]


def test_log_probabilities_are_named_by_their_place_among_the_sequences_that_ask(runner: Runner) -> None:
    silent = replace(GREEDY, logprobs=None)
    scored = replace(silent, prompt_logprobs=1)
    plan = StepPlan(
        slots=[0, 1, 2],
        starts=[0, 0, 0],
        counts=[7, 3, 7],
        is_sampling=[True, False, True],
        token_ids=PROMPT + PROMPT[:3] + PROMPT,
        admitted=[admission(0, silent), admission(1, scored), admission(2)],
        new_blocks=[(0, 0, 0), (0, 1, 1), (1, 0, 2), (2, 0, 3), (2, 1, 4)],
        targets={1: PROMPT[1:4]},
    )
    [result] = run(runner, plan)
    assert len(result.tokens) == 2
    assert list(result.logprobs) == [1]  # the second of those that sample
    assert list(result.prompt_logprobs) == [1]  # the second of all
    assert [entry.token_id for entry in result.prompt_logprobs[1]] == PROMPT[1:4]


def test_prompt_log_probabilities_are_computed_piece_by_piece(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(prefill(0, [0, 1], replace(GREEDY, prompt_logprobs=2)), targets={0: PROMPT[1:]}, is_sampling=[False])
    [whole] = run(runner, plan)
    monkeypatch.setattr("models.engine.runner.LOGIT_ROWS", 4)
    [pieces] = run(runner, plan)
    for one, other in zip(pieces.prompt_logprobs[0], whole.prompt_logprobs[0], strict=True):
        assert (one.token_id, one.rank, list(one.top)) == (other.token_id, other.rank, list(other.top))
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


def test_a_block_size_that_the_kernel_cannot_walk_is_refused(sharp: LoadedModel) -> None:
    paged = replace(sharp, backend=attention_cuda.paged_backend(torch.nn.Identity()))
    with pytest.raises(ConfigError, match="block_size was 128; the flash-attn backend takes positive multiples of 256"):
        Runner(paged, EngineOptions(block_size=128, cache_bytes=2**20))
    assert Runner(paged, EngineOptions(block_size=512, cache_bytes=2**20)).block_size == 512
