"""Rules over logits, against transformers' own processors, singly and together; in the engine, against a loop over transformers' logits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from models import Engine, SamplingParams
from models.engine.sampling.rules import has_rules
from models.engine.sampling.sampler import SamplingRow, sample
from models.errors import RequestError
from tests.helpers.matrix import first_of_each
from tests.helpers.models.near_ties import NEAR_TIE
from tests.helpers.models.tiny_engine import OVERLAPS, SHARP, blocks, prompts

CheckpointMaker = Callable[..., Path]
VOCAB_SIZE = 12
STOP_ID = 3
RULES: dict[str, dict[str, Any]] = {
    "bias": {"logit_bias": {5: 4.0, 9: -100.0}},
    "repetition": {"repetition_penalty": 1.7},
    "an encouraged repetition": {"repetition_penalty": 0.6},
    "frequency": {"frequency_penalty": 0.7},
    "presence": {"presence_penalty": 1.5},
    "both counts": {"frequency_penalty": -0.4, "presence_penalty": 2.0},
    "no pair twice": {"no_repeat_ngram_size": 2},
    "no token twice": {"no_repeat_ngram_size": 1},
    "no three twice": {"no_repeat_ngram_size": 3},
    "allowed": {"allowed_token_ids": (2, 4, 5, 6, 7, 8, 11)},
    "all": {
        "logit_bias": {4: 2.0}, "repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.2,
        "no_repeat_ngram_size": 3, "allowed_token_ids": (1, 2, 4, 5, 6, 7, 8, 9, 10, 11),
    },
}  # fmt: skip


def processors(params: SamplingParams, bad_words: Sequence[Sequence[int]], num_prompt: int) -> LogitsProcessorList:
    """What transformers' `generate` applies, in its order."""
    found = LogitsProcessorList()
    if params.logit_bias:
        found.append(SequenceBiasLogitsProcessor([[[token], value] for token, value in params.logit_bias.items()]))
    if params.repetition_penalty != 1.0:
        found.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    found.append(lambda ids, scores: counted(params, ids, scores, num_prompt))
    if params.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(params.no_repeat_ngram_size))
    if bad_words:
        found.append(NoBadWordsLogitsProcessor([list(word) for word in bad_words]))
    if params.min_tokens:
        found.append(MinNewTokensLengthLogitsProcessor(num_prompt, params.min_tokens, [STOP_ID], device="cpu"))
    if params.allowed_token_ids is not None:
        barred = torch.ones(10_000, dtype=torch.bool)
        barred[list(params.allowed_token_ids)] = False
        found.append(lambda _, scores: scores.masked_fill(barred[: scores.shape[1]], -torch.inf))
    return found


def counted(params: SamplingParams, ids: torch.Tensor, scores: torch.Tensor, num_prompt: int) -> torch.Tensor:
    """OpenAI's formula: mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence."""
    counts = torch.bincount(ids[0, num_prompt:], minlength=scores.shape[1])
    return scores - counts * params.frequency_penalty - (counts > 0) * params.presence_penalty


def likeliest(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    found: list[int] = sample(logits, rows).tolist()
    return found


def row(params: SamplingParams, history: list[int], num_prompt: int, bad_words: Sequence[Sequence[int]]) -> SamplingRow:
    return SamplingRow(
        params=params,
        seed=0,
        stop_ids=(STOP_ID,),
        bad_words=tuple(torch.tensor(word) for word in bad_words),
        num_prompt=num_prompt,
        position=len(history),
        tokens=torch.tensor(history),
    )


histories = st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=14)
bad_words = st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=3), max_size=3)
fields = st.sampled_from(sorted(RULES)).map(RULES.__getitem__)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(histories, bad_words, fields, st.integers(0, 4)), min_size=1, max_size=5),
    share=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_the_likeliest_tokens_are_those_after_transformers_processors(
    rows: list[tuple[list[int], list[list[int]], dict[str, Any], int]], share: float, seed: int
) -> None:
    """Rows with different rules in one step."""
    logits = 3 * torch.randn(len(rows), VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))
    made, expected = [], []
    for index, (history, words, rules, least) in enumerate(rows):
        num_prompt = max(1, int(share * len(history)))
        params = SamplingParams(
            temperature=0.0, max_tokens=9, min_tokens=least, bad_words=("x",) * bool(words), **rules
        )
        made.append(row(params, history, num_prompt, words))
        scores = logits[index : index + 1].clone()
        after = processors(params, words, num_prompt)(torch.tensor([history]), scores)  # type: ignore[arg-type]
        nothing_is_left = bool(torch.isneginf(after).all())
        expected.append(int((logits[index] if nothing_is_left else after[0]).argmax()))
    assert likeliest(logits, made) == expected


def test_a_row_without_rules_is_left_alone() -> None:
    logits = torch.randn(2, VOCAB_SIZE, generator=torch.Generator().manual_seed(1))
    before = logits.clone()
    one = row(SamplingParams(temperature=0.0, allowed_token_ids=(0,)), [1], 1, [])
    other = SamplingRow(params=SamplingParams(temperature=0.0), seed=0)
    assert sample(logits, [one, other]).tolist() == [0, int(before[1].argmax())]
    assert torch.equal(logits, before)
    assert not has_rules(SamplingParams())


@pytest.fixture(scope="module")
def folder(family_checkpoint: CheckpointMaker) -> Path:
    return family_checkpoint("qwen3", "causal", eos_token_id=STOP_ID, **SHARP)


ENGINE_RULES: Mapping[str, dict[str, Any]] = {
    **{name: rules for name, rules in RULES.items() if "allowed_token_ids" not in rules and name != "no token twice"},
    "allowed": {"allowed_token_ids": tuple(range(4, 60))},
    "min_tokens": {"min_tokens": 50, "ignore_eos": False},
}


def asked() -> list[SamplingParams]:
    return [
        SamplingParams(**{"max_tokens": 64, "temperature": 0.0, "ignore_eos": True, "logprobs": 2} | rules)
        for rules in ENGINE_RULES.values()
    ]


@pytest.mark.parametrize("overlap", list(OVERLAPS))
@pytest.mark.parametrize(
    "options",
    first_of_each(
        [{}, {"max_num_batched_tokens": 16}, {"max_num_seqs": 3}, blocks(12, 16)], kind=lambda options: "any"
    ),
)
def test_greedy_tokens_of_a_batch_of_rules_are_those_of_transformers(
    folder: Path, options: dict[str, Any], overlap: str
) -> None:
    """In chunks, in turns, and with a cache so small that sequences are preempted and begin again."""
    params, given_ids = asked(), prompts((5, 17, 40) * 4)[: len(asked())]
    with OVERLAPS[overlap]():
        engine = Engine.from_pretrained(folder, **options)
    outputs = engine.generate(given_ids, params)
    if "cache_bytes" in options:
        assert engine.stats.num_preemptions > 0
    oracle: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for ids, each, output in zip(given_ids, params, outputs, strict=True):
        found = list(ids)
        rules = processors(each, (), len(ids))
        for token in output.token_ids:
            with torch.no_grad():
                scores = oracle(torch.tensor([found])).logits[:, -1].float()
            left = rules(torch.tensor([found]), scores)[0]  # type: ignore[arg-type]
            assert left.max() - left[token] < NEAR_TIE
            found.append(token)
        assert len(output.token_ids) == 64 or output.token_ids[-1] == STOP_ID


def test_bad_words_are_never_said(tiny_checkpoint: CheckpointMaker) -> None:
    """A word is barred as the tokens that the checkpoint's tokenizer makes of it, at the beginning and behind a blank."""
    engine = Engine.from_pretrained(tiny_checkpoint("causal"))
    assert engine.tokenizer is not None
    plain = SamplingParams(max_tokens=30, temperature=0.0, ignore_eos=True)
    [free] = engine.generate(["hello"], plain)
    forms = {word: engine.tokenizer.encode(word, add_special_tokens=False) for word in ("it", " it", "x y")}
    assert forms["it"] != forms[" it"]
    assert len(forms["x y"]) > 1
    said = (engine.tokenizer.decode([token]) for token in free.token_ids)
    bad = next(word for word in said if word.isascii() and word.strip())
    [held] = engine.generate(["hello"], replace(plain, bad_words=(bad, "it", "x y")))
    assert held.token_ids != free.token_ids
    for word in (bad, *forms):
        ids = engine.tokenizer.encode(word, add_special_tokens=False)
        assert all(held.token_ids[place : place + len(ids)] != ids for place in range(30))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"repetition_penalty": 0.0}, "repetition_penalty was 0.0; it must be over 0"),
        ({"presence_penalty": 2.1}, "presence_penalty was 2.1; it must be from -2 to 2"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty was nan; it must be from -2 to 2"),
        ({"logit_bias": {3: 101.0}}, "logit_bias was .* numbers from -100 to 100"),
        ({"allowed_token_ids": ()}, "allowed_token_ids was .* at least one token id"),
        ({"bad_words": ("",)}, "bad_words was .* none of them empty"),
        ({"bad_words": "no"}, "bad_words was 'no'; it must be a list of strings"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size was -1; it must be from 0"),
    ],
)
def test_values_out_of_range_are_named(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        SamplingParams(**rules)


@pytest.mark.parametrize("rules", [{"logit_bias": {96: 1.0}}, {"allowed_token_ids": (1, 96)}])
def test_tokens_that_the_vocabulary_lacks_are_refused(folder: Path, rules: dict[str, Any]) -> None:
    engine = Engine.from_pretrained(folder)
    with pytest.raises(RequestError, match=r"holds token ids from .* to 96; the vocabulary has 0 to 95"):
        engine.generate([[5]], SamplingParams(**rules))
