"""Rules over the next token, against transformers' own processors, singly and together; in the
engine, against a loop over transformers' logits; over shards, against one rank."""

import pickle
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
from models.engine import runner
from models.engine.rules.table import PARAMETERS
from models.engine.sampling.sampler import SamplingRow, sample
from models.engine.scheduling.plan import Admission
from models.errors import ParameterError
from tests.helpers.matrix import first_quick
from tests.helpers.models.near_ties import NEAR_TIE
from tests.helpers.models.tiny_engine import OVERLAPS, SHARP, blocks, prompts, tokens
from tests.helpers.models.warm_shards import WarmShards

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
    asked, found = params.values(), LogitsProcessorList()
    if asked["logit_bias"]:
        found.append(SequenceBiasLogitsProcessor([[[token], value] for token, value in asked["logit_bias"].items()]))
    if asked["repetition_penalty"] != 1.0:
        found.append(RepetitionPenaltyLogitsProcessor(asked["repetition_penalty"]))
    found.append(lambda ids, scores: counted(asked, ids, scores, num_prompt))
    if asked["no_repeat_ngram_size"]:
        found.append(NoRepeatNGramLogitsProcessor(asked["no_repeat_ngram_size"]))
    if bad_words:
        found.append(NoBadWordsLogitsProcessor([list(word) for word in bad_words]))
    if asked["min_tokens"]:
        found.append(MinNewTokensLengthLogitsProcessor(num_prompt, asked["min_tokens"], [STOP_ID], device="cpu"))
    if asked["allowed_token_ids"] is not None:
        barred = torch.ones(10_000, dtype=torch.bool)
        barred[list(asked["allowed_token_ids"])] = False
        found.append(lambda _, scores: scores.masked_fill(barred[: scores.shape[1]], -torch.inf))
    return found


def counted(asked: Mapping[str, Any], ids: torch.Tensor, scores: torch.Tensor, num_prompt: int) -> torch.Tensor:
    """OpenAI's formula: mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence."""
    counts = torch.bincount(ids[0, num_prompt:], minlength=scores.shape[1])
    frequency, presence = float(asked["frequency_penalty"]), float(asked["presence_penalty"])
    return scores - counts * frequency - (counts > 0) * presence


def likeliest(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    found: list[int] = sample(logits, rows).tolist()
    return found


def row(params: SamplingParams, history: list[int], num_prompt: int, bad_words: Sequence[Sequence[int]]) -> SamplingRow:
    """A sequence at its next token; each of the bad words is these tokens wherever it stands."""
    fitted = params.with_tokens([ids for ids in bad_words for _ in ("at the beginning", "behind a blank")])
    admission = Admission(slot=0, num_prompt=num_prompt, params=fitted, seed=0, stop_ids=(STOP_ID,))
    return SamplingRow.of(admission, torch.device("cpu")).at(len(history), torch.tensor(history))


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
        params = SamplingParams(temperature=0.0, max_tokens=9, min_tokens=least, bad_words=("x",) * len(words), **rules)
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


def test_steps_of_greedy_rows_without_rules_come_nowhere_near_them(
    tiny_checkpoint: CheckpointMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a row is such a one is settled when its sequence takes a slot; a step looks at a flag."""
    engine, asked = Engine.from_pretrained(tiny_checkpoint()), list[int]()

    def counted_sample(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
        asked.append(len(rows))
        return sample(logits, rows)

    monkeypatch.setattr(runner, "sample", counted_sample)
    greedy = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)
    engine.generate(prompts((5, 17)), greedy)
    assert asked == []
    engine.generate(prompts((5, 17)), [greedy, greedy.changed(min_tokens=3)])
    assert asked == [2] * 6


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
    first_quick([{}, {"max_num_batched_tokens": 16}, {"max_num_seqs": 3}, blocks(12, 16)]),
)
def test_greedy_tokens_of_a_batch_of_rules_are_those_of_transformers(
    folder: Path, options: dict[str, Any], overlap: str
) -> None:
    """In chunks, in turns, and with a cache so small that sequences are preempted and begin
    again."""
    params, given_ids = asked(), prompts((5, 17, 40) * 4)[: len(asked())]
    with OVERLAPS[overlap]():
        engine = Engine.from_pretrained(folder, **options)
    outputs = engine.generate(given_ids, params)
    if "cache_bytes" in options:
        assert engine.stats.num_preemptions > 0
    oracle: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for ids, each, output in zip(given_ids, params, outputs, strict=True):
        whole = torch.tensor([[*ids, *output.token_ids]])
        rules = processors(each, (), len(ids))
        with torch.no_grad():
            scores = oracle(whole).logits.float()  # [1, T, V]; what comes after a token changes nothing at it
        for place, token in enumerate(output.token_ids, start=len(ids)):
            left = rules(whole[:, :place], scores[:, place - 1].clone())[0]  # type: ignore[arg-type]
            assert left.max() - left[token] < NEAR_TIE
        assert len(output.token_ids) == 64 or output.token_ids[-1] == STOP_ID


def test_bad_words_are_never_said(tiny_checkpoint: CheckpointMaker) -> None:
    """A word is barred as the tokens that the checkpoint's tokenizer makes of it, at the
    beginning and behind a blank."""
    engine = Engine.from_pretrained(tiny_checkpoint("causal"))
    assert engine.tokenizer is not None
    plain = SamplingParams(max_tokens=30, temperature=0.0, ignore_eos=True)
    [free] = engine.generate(["hello"], plain)
    forms = {word: engine.tokenizer.encode(word, add_special_tokens=False) for word in ("it", " it", "x y")}
    assert forms["it"] != forms[" it"]
    assert len(forms["x y"]) > 1
    said = (engine.tokenizer.decode([token]) for token in free.token_ids)
    bad = next(word for word in said if word.isascii() and word.strip())
    [held] = engine.generate(["hello"], plain.changed(bad_words=(bad, "it", "x y")))
    assert held.token_ids != free.token_ids
    for word in (bad, *forms):
        ids = engine.tokenizer.encode(word, add_special_tokens=False)
        assert all(held.token_ids[place : place + len(ids)] != ids for place in range(30))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"repetition_penalty": 0.0}, "repetition_penalty was 0.0; it must be a number over 0 and at most 100"),
        ({"presence_penalty": 2.1}, "presence_penalty was 2.1; it must be a number from -2 to 2"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty was nan; it must be a number from -2 to 2"),
        ({"logit_bias": {3: 101.0}}, r"logit_bias\[3\] was 101.0; it must be .* numbers from -100 to 100"),
        ({"logit_bias": {3: 1.0, -2: 1.0}}, r"logit_bias\[-2\] was -2; it must be a mapping from token ids"),
        ({"logit_bias": {3: 1.0, "3": 2.0}}, r"logit_bias\[3\] was '3'; it must be"),
        ({"logit_bias": {"\u0663": 1.0}}, "logit_bias.* was '\u0663'; it must be"),
        ({"logit_bias": {True: 1.0}}, r"logit_bias\[True\] was True"),
        ({"logit_bias": {"9" * 5000: 1.0}}, "it must be a mapping"),
        ({"allowed_token_ids": ()}, r"allowed_token_ids was \(\); it must be a list of at least one token id"),
        ({"allowed_token_ids": (4, 1.5)}, r"allowed_token_ids\[1\] was 1.5; it must be a list of at least one"),
        ({"bad_words": ("x", "")}, r"bad_words\[1\] was ''; it must be a list of texts of 1 to 256"),
        ({"bad_words": ("x" * 257,)}, r"bad_words\[0\] was 'xxx.*\.\.\. \(259 characters\)"),
        ({"bad_words": "no"}, "bad_words was 'no'; it must be a list of texts"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size was -1; it must be a whole number from 0 to 100"),
        ({"no_repeat_ngram_size": True}, "no_repeat_ngram_size was True"),
        ({"min_tokens": 17}, "min_tokens was 17; it must be from 0 to max_tokens"),
        ({"repetition_penality": 1.2}, "repetition_penality is not known; did you mean repetition_penalty"),
        ({"max_tokns": 9}, "max_tokns is not known; did you mean max_tokens"),
    ],
)
def test_values_out_of_range_are_named(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said) as raised:
        SamplingParams(**rules)
    assert raised.value.name in rules
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@pytest.mark.parametrize(
    "rules", [{"logit_bias": {96: 1.0}}, {"allowed_token_ids": (1, 96)}, {"stop_token_ids": (1, 96)}]
)
def test_tokens_that_the_vocabulary_lacks_are_refused(folder: Path, rules: dict[str, Any]) -> None:
    engine = Engine.from_pretrained(folder)
    with pytest.raises(ParameterError, match=r"holds token ids from .* to 96; the vocabulary has 0 to 95"):
        engine.generate([[5]], SamplingParams(**rules))


def test_texts_of_rules_need_a_tokenizer(folder: Path) -> None:
    with pytest.raises(ParameterError, match=r"bad_words needs a tokenizer, and the checkpoint has no tokenizer\.json"):
        Engine.from_pretrained(folder).generate([[5]], SamplingParams(bad_words=("x",)))


def test_words_whose_tokens_the_model_lacks_are_refused(tiny_checkpoint: CheckpointMaker) -> None:
    """The tokenizer has 512 tokens."""
    engine = Engine.from_pretrained(tiny_checkpoint(vocab_size=300))
    assert engine.tokenizer is not None
    word = next(word for token in range(300, 512) if (word := engine.tokenizer.decode([token])).isalpha())
    with pytest.raises(ParameterError, match=r"bad_words holds token ids .*; the vocabulary has 0 to 299"):
        engine.generate([[5]], SamplingParams(bad_words=(word,)))


def test_a_word_without_tokens_is_refused() -> None:
    with pytest.raises(ParameterError, match="bad_words holds 'y', of which the tokenizer makes no tokens"):
        SamplingParams(bad_words=("x", "y")).with_tokens([[1], [2], [], []])


def test_what_asks_for_nothing_is_no_rule() -> None:
    nothing = {name: each.default for name, each in PARAMETERS.items()}
    assert SamplingParams(**nothing).rules == SamplingParams().rules == ()


def test_parameters_stay_through_copies_and_processes() -> None:
    asked: dict[str, Any] = {"repetition_penalty": 1.2, "logit_bias": {5: 1.0}, "min_tokens": 3, "bad_words": ("x",)}
    params = SamplingParams(max_tokens=9, **asked)
    copies = (pickle.loads(pickle.dumps(params)), params.changed(min_tokens=0).changed(min_tokens=3))
    for copy in (*copies, SamplingParams(**params.values())):
        assert copy == params
        assert copy.values() | {"max_tokens": 9} | asked == copy.values()
    other = params.changed(logit_bias={}, presence_penalty=1.0)
    names = [type(rule).__name__ for rule in other.rules]
    assert names == ["RepetitionPenalty", "CountPenalties", "BadWords", "MinTokens"]
    assert other.changed(frequency_penalty=0.5).values()["presence_penalty"] == 1.0


@pytest.mark.slow
def test_rules_over_shards_are_those_over_one_rank(tiny_checkpoint: CheckpointMaker) -> None:
    """Each by itself and all together, greedy and drawn, with fewer slots than requests."""
    model = tiny_checkpoint(num_attention_heads=4, **SHARP)
    plain = SamplingParams(max_tokens=64, temperature=0.0, ignore_eos=True)
    together = replace(plain, **RULES["all"] | {"allowed_token_ids": tuple(range(4, 400)), "bad_words": ("a", "it is")})
    asked = [replace(plain, **rules) for rules in ENGINE_RULES.values()] + [together]
    asked += [replace(each, temperature=0.8, seed=7) for each in asked]
    given_ids = prompts((5, 17, 40) * 9)[: len(asked)]
    options: dict[str, Any] = {"cache_bytes": 2**22, "device": "cpu", "max_num_seqs": 5}
    with Engine.from_pretrained(model, **options) as engine:
        expected = engine.generate(given_ids, asked)
        free = engine.generate(given_ids, plain)
    with Engine.from_pretrained(model, tensor_parallel_size=2, start=WarmShards, **options) as engine:
        found = engine.generate(given_ids, asked)
    assert tokens(found) == tokens(expected)
    are_others = [one != other for one, other in zip(tokens(expected), tokens(free), strict=True)]
    assert sum(are_others) > len(asked) // 2
