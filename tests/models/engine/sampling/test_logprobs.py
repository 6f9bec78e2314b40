"""Log probabilities: of the model's own distribution, one entry a token, however the work was cut."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from models import Output, SamplingParams, Scorer
from models.engine.sampling.logprobs import logprob_table
from models.loading.load import LoadedModel
from tests.helpers.models.tiny_engine import GREEDY, MakeEngine, blocks, prompts

ASKING = replace(GREEDY, logprobs=3, prompt_logprobs=2)
WAYS: dict[str, dict[str, Any]] = {
    "at once": {},
    "chunks of 1": {"max_num_batched_tokens": 1},
    "chunks of 7": {"max_num_batched_tokens": 7},
    "small blocks": {"block_size": 3},
    "preempted": blocks(30, 4),
    "preempted in chunks": {**blocks(30, 4), "max_num_batched_tokens": 9},
}


@pytest.fixture(scope="module")
def distributions(sharp: LoadedModel) -> list[torch.Tensor]:
    """The log probabilities after every token of each prompt and of what it gives greedily, from single forward passes."""
    scorer = Scorer(sharp)
    sequences = prompts()
    for _ in range(ASKING.max_tokens):
        logits = scorer.score(sequences)
        sequences = [[*ids, int(rows[-1].argmax())] for ids, rows in zip(sequences, logits, strict=True)]
    return [torch.log_softmax(rows, dim=-1) for rows in scorer.score(sequences)]


def check_entry(entry: Any, expected: torch.Tensor, num_top: int) -> None:
    best = expected.topk(num_top)
    assert entry.logprob == pytest.approx(expected[entry.token_id].item(), abs=1e-4)
    assert entry.rank == 1 + int((expected > expected[entry.token_id]).sum())
    assert list(entry.top) == best.indices.tolist()
    assert list(entry.top.values()) == pytest.approx(best.values.tolist(), abs=1e-4)


def check(output: Output, prompt: list[int], expected: torch.Tensor) -> None:
    """Every entry of the prompt and of the output against the distribution it was drawn from."""
    assert output.num_prompt_tokens == len(prompt)
    assert output.logprobs is not None
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert [entry.token_id for entry in output.prompt_logprobs[1:] if entry is not None] == prompt[1:]
    assert [entry.token_id for entry in output.logprobs] == output.token_ids
    for place, entry in enumerate(output.prompt_logprobs[1:]):
        check_entry(entry, expected[place], 2)
    for place, entry in enumerate(output.logprobs):
        check_entry(entry, expected[len(prompt) - 1 + place], 3)


@pytest.mark.parametrize("way", list(WAYS))
def test_log_probabilities_are_those_of_a_single_forward_pass(
    make_engine: MakeEngine, distributions: list[torch.Tensor], way: str
) -> None:
    engine = make_engine(**WAYS[way])
    for output, prompt, expected in zip(engine.generate(prompts(), ASKING), prompts(), distributions, strict=True):
        check(output, prompt, expected)
    assert (engine.stats.num_preemptions > 0) == way.startswith("preempted")


def test_a_prompt_whose_log_probabilities_are_wanted_is_computed_though_its_prefix_is_cached(
    make_engine: MakeEngine, distributions: list[torch.Tensor]
) -> None:
    engine = make_engine(block_size=4)
    engine.generate([prompts()[5]], GREEDY)
    [output] = engine.generate([prompts()[5]], ASKING)
    assert output.num_cached_tokens == 0
    check(output, prompts()[5], distributions[5])


def test_a_batch_in_which_only_some_ask_gives_each_what_it_asked_for(
    make_engine: MakeEngine, distributions: list[torch.Tensor]
) -> None:
    silent = replace(ASKING, logprobs=None, prompt_logprobs=None)
    params = [ASKING, silent, replace(silent, logprobs=0), replace(silent, prompt_logprobs=0), ASKING, silent]
    outputs = make_engine().generate(prompts(), params)
    for index in (0, 4):
        check(outputs[index], prompts()[index], distributions[index])
    assert [output.logprobs is None for output in outputs] == [False, True, False, True, False, True]
    assert [output.prompt_logprobs is None for output in outputs] == [False, True, True, False, False, True]
    chosen, scored = outputs[2].logprobs, outputs[3].prompt_logprobs
    assert chosen is not None
    assert scored is not None
    assert [dict(entry.top) for entry in chosen] == [{}] * 20
    assert [entry.top for entry in scored[1:] if entry is not None] == [{}] * 32


def test_a_prompt_of_one_token_has_nothing_to_score(make_engine: MakeEngine) -> None:
    [output] = make_engine().generate([[5]], ASKING)
    assert output.prompt_logprobs == [None]


def test_temperature_filters_and_barred_tokens_do_not_change_the_log_probabilities(
    make_engine: MakeEngine, sharp: LoadedModel
) -> None:
    barred = tuple(range(3, 90))
    params = SamplingParams(
        max_tokens=8, min_tokens=8, stop_token_ids=barred, temperature=3.0, top_k=20, seed=1, logprobs=2
    )
    [output] = make_engine().generate([prompts()[3]], params)
    assert not set(output.token_ids) & set(barred)
    [logits] = Scorer(sharp).score([prompts()[3] + output.token_ids])
    expected = torch.log_softmax(logits, dim=-1)
    assert output.logprobs is not None
    for place, entry in enumerate(output.logprobs):
        check_entry(entry, expected[32 + place], 2)


def test_the_token_that_stopped_a_sequence_has_its_log_probability_too(make_engine: MakeEngine) -> None:
    [free] = make_engine().generate([prompts()[3]], GREEDY)
    stop = free.token_ids[5]
    [output] = make_engine().generate([prompts()[3]], replace(GREEDY, stop_token_ids=(stop,)))
    assert output.logprobs is not None
    assert [entry.token_id for entry in output.logprobs] == output.token_ids
    assert output.token_ids[-1] == stop


def test_a_table_ranks_equals_alike() -> None:
    table = logprob_table(torch.tensor([[1.0, 2.0, 2.0, 0.0]] * 4), torch.tensor([0, 1, 2, 3]), 2)
    entries = table.entries()
    assert [entry.rank for entry in entries] == [3, 1, 1, 4]
    assert [set(entry.top) for entry in entries] == [{1, 2}] * 4
    assert sum(torch.tensor([entry.logprob for entry in entries]).exp().tolist()) == pytest.approx(1.0)
