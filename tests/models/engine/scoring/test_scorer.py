"""Single-pass heads: packed as it may be, every sequence gets the logits it gets alone, in the order given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from models import Scorer
from models.engine import caches
from models.engine.scoring.batch import packs
from models.errors import CheckpointError, ConfigError, RequestError
from models.layers.attention import cpu_plan
from models.loading.load import LoadedModel, load_model
from tests.helpers.models.tiny_engine import SHARP, prompts

HEADS = ["causal", "sequence-classification", "token-classification", "question-answering"]
LABELS = [[5], [7, 8], [7, 9, 11], [7, 9], [20, 21, 22, 23]]


@pytest.fixture(scope="module")
def heads(qwen3_checkpoint: Callable[..., Path]) -> dict[str, LoadedModel]:
    """A sharp model for every task head."""
    return {head: load_model(qwen3_checkpoint(head, num_labels=5, pad_token_id=0, **SHARP)) for head in HEADS}


@pytest.fixture(scope="module")
def score_alone(heads: dict[str, LoadedModel]) -> dict[str, list[torch.Tensor]]:
    return {head: [Scorer(loaded).score([ids])[0] for ids in prompts()] for head, loaded in heads.items()}


def assert_alike(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("budget", [1, 8, 64, 100, 4096])
def test_packed_sequences_get_what_each_gets_alone(
    heads: dict[str, LoadedModel], score_alone: dict[str, list[torch.Tensor]], head: str, budget: int
) -> None:
    assert_alike(Scorer(heads[head], max_num_batched_tokens=budget).score(prompts()), score_alone[head])


@pytest.mark.parametrize("head", HEADS)
def test_scores_come_in_the_order_given(
    heads: dict[str, LoadedModel], score_alone: dict[str, list[torch.Tensor]], head: str
) -> None:
    order = [3, 0, 5, 1, 4, 2, 3]
    found = Scorer(heads[head]).score([prompts()[index] for index in order])
    assert_alike(found, [score_alone[head][index] for index in order])


@pytest.mark.parametrize(("head", "widths"), [("causal", 96), ("token-classification", 5), ("question-answering", 2)])
def test_heads_over_tokens_give_a_row_a_token(heads: dict[str, LoadedModel], head: str, widths: int) -> None:
    scores = Scorer(heads[head]).score(prompts())
    assert [tuple(score.shape) for score in scores] == [(len(ids), widths) for ids in prompts()]
    assert {(score.dtype, score.device.type) for score in scores} == {(torch.float32, "cpu")}


def test_a_sequence_head_looks_at_the_last_token(heads: dict[str, LoadedModel]) -> None:
    scorer = Scorer(heads["sequence-classification"])
    assert [tuple(score.shape) for score in scorer.score(prompts())] == [(5,)] * 6
    whole, shorter, other = scorer.score([prompts()[4], prompts()[4][:-1], [*prompts()[4][:-1], 5]])
    assert (whole - shorter).abs().max() > 1e-3
    assert (whole - other).abs().max() > 1e-3


def test_a_sequence_head_passes_over_pad_tokens_at_the_end_as_transformers_does(
    qwen3_checkpoint: Callable[..., Path], heads: dict[str, LoadedModel]
) -> None:
    """Where a text ends with an end-of-sequence token that is the pad token too, the head was trained on the one before."""
    folder = qwen3_checkpoint("sequence-classification", num_labels=5, pad_token_id=0, **SHARP)
    oracle: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    sequences = [[5, 6, 7, 0], [5, 0, 6], [5, 0, 0], [0, 5], [0, 0]]
    for ids, found in zip(sequences, Scorer(heads["sequence-classification"]).score(sequences), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(found, oracle(torch.tensor([ids])).logits[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", HEADS)
def test_the_same_list_gives_the_same_bytes_again(heads: dict[str, LoadedModel], head: str) -> None:
    first, again = (Scorer(heads[head], max_num_batched_tokens=70).score(prompts()) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=30), budget=st.integers(1, 80))
def test_packs_hold_every_sequence_once_within_the_budget(lengths: list[int], budget: int) -> None:
    found = list(packs(lengths, budget))
    assert sorted(index for pack in found for index in pack) == list(range(len(lengths)))
    assert all(len(pack) == 1 or sum(lengths[index] for index in pack) <= budget for pack in found)
    flat = [lengths[index] for pack in found for index in pack]
    assert flat == sorted(flat, reverse=True)


def test_no_sequences_give_no_scores(heads: dict[str, LoadedModel]) -> None:
    assert Scorer(heads["causal"]).score([]) == []
    assert Scorer(heads["causal"]).score_labels([], LABELS).shape == (0, 5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "sequence 1 has 0 tokens; it must have from 1 to 128"),
        ([5] * 129, "sequence 1 has 129 tokens"),
        ([5, 96], "sequence 1 holds token ids from 5 to 96; the vocabulary has 0 to 95"),
        ([-1, 5], "token ids from -1 to 5"),
    ],
)
def test_a_sequence_that_cannot_be_scored_is_refused(
    heads: dict[str, LoadedModel], score_alone: dict[str, list[torch.Tensor]], bad: list[int], message: str
) -> None:
    scorer = Scorer(heads["causal"])
    with pytest.raises(RequestError, match=message):
        scorer.score([prompts()[1], bad])
    assert_alike(scorer.score(prompts()), score_alone["causal"])


def test_a_sequence_may_fill_the_model(heads: dict[str, LoadedModel]) -> None:
    assert Scorer(heads["causal"]).score([[5] * 128])[0].shape == (128, 96)


def expected_labels(loaded: LoadedModel, sequences: list[list[int]], labels: list[list[int]]) -> torch.Tensor:
    """Log p(label | prompt) from one forward pass a pair."""
    scorer, rows = Scorer(loaded), []
    for ids in sequences:
        row = []
        for label in labels:
            logprobs = torch.log_softmax(scorer.score([ids + label])[0], dim=-1)
            places = torch.arange(len(ids) - 1, len(ids) - 1 + len(label))
            row.append(float(logprobs[places, label].sum()))
        rows.append(row)
    return torch.tensor(rows)


LABEL_SETS: dict[str, list[list[int]]] = {
    "of every length": LABELS,
    "of one token": [[5], [6], [7]],
    "one label of one token": [[5]],
    "one label of many tokens": [[5, 6, 7, 8]],
    "the same one twice": [[5, 6], [5, 6]],
    "longer than a block": [list(range(3, 40)), [5, 6]],
}


@pytest.mark.parametrize("labels", list(LABEL_SETS))
@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_label_scores_are_those_of_a_forward_pass_a_pair(
    heads: dict[str, LoadedModel], labels: str, budget: int
) -> None:
    sequences = prompts((1, 2, 31, 32, 33, 64, 80))  # before, at and after the end of a block
    found = Scorer(heads["causal"], max_num_batched_tokens=budget).score_labels(sequences, LABEL_SETS[labels])
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, expected_labels(heads["causal"], sequences, LABEL_SETS[labels]), atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("name", ["GATHERED_TOKENS", "MAX_SCORES"])
@pytest.mark.parametrize("bound", [1, 90, 4000])
def test_labels_that_attention_looks_at_in_parts_score_the_same(
    heads: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    sequences = prompts((2, 33, 64, 80))
    expected = expected_labels(heads["causal"], sequences, LABELS)
    monkeypatch.setattr(cpu_plan, name, bound)
    found = Scorer(heads["causal"]).score_labels(sequences, LABELS)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_label_scores_of_the_same_list_are_the_same_bytes(heads: dict[str, LoadedModel]) -> None:
    first, again = (Scorer(heads["causal"]).score_labels(prompts(), LABELS) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("prompt", "labels", "message"),
    [
        ([5], [], "at least one list of token ids"),
        ([5], [[5], []], "none of them empty"),
        ([5], [[5], [96]], "label 1 holds token ids from 96 to 96; the vocabulary has 0 to 95"),
        ([5], [[-1]], "label 0 holds token ids from -1 to -1"),
        ([], LABELS, "has 0 tokens; it must have from 1 to 124"),
        ([5] * 125, LABELS, "has 125 tokens; it must have from 1 to 124"),
    ],
)
def test_labels_and_prompts_that_cannot_be_scored_are_refused(
    heads: dict[str, LoadedModel], prompt: list[int], labels: list[list[int]], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        Scorer(heads["causal"]).score_labels([prompt], labels)


def test_labels_are_scored_by_a_causal_head_alone(heads: dict[str, LoadedModel]) -> None:
    with pytest.raises(RequestError, match="question-answering head"):
        Scorer(heads["question-answering"]).score_labels([[5]], LABELS)


@pytest.mark.parametrize(("longest", "num_prompts"), [(1, 100), (2, 100), (40, 10)])
def test_memory_for_labels_is_bounded_by_the_budget_however_many_there_are(
    heads: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch, longest: int, num_prompts: int
) -> None:
    reserved: list[int] = []
    allocate = caches.allocate

    def counted(*args: Any, **sizes: Any) -> Any:
        reserved.append(sizes["num_blocks"] * sizes["block_size"])
        return allocate(*args, **sizes)

    monkeypatch.setattr(caches, "allocate", counted)
    labels = [[3 + number % 20] * longest for number in range(200)]
    sequences = prompts((4,) * num_prompts)
    Scorer(heads["causal"], max_num_batched_tokens=256).score_labels(sequences, labels)
    assert max(reserved, default=0) <= 2 * 4 * 256  # as much for labels as for prompts


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_that_holds_no_token_is_refused(qwen3_checkpoint: Callable[..., Path], budget: int) -> None:
    with pytest.raises(ConfigError, match=f"max_num_batched_tokens was {budget}; it must be at least 1"):
        Scorer.from_pretrained(qwen3_checkpoint("causal"), max_num_batched_tokens=budget)


def test_another_head_than_the_checkpoints_own_may_be_asked_for(qwen3_checkpoint: Callable[..., Path]) -> None:
    folder = qwen3_checkpoint("sequence-classification", num_labels=5)
    with pytest.raises(CheckpointError, match="missing"):
        Scorer.from_pretrained(folder, head="token-classification")  # its bias is not there
    with pytest.raises(ConfigError, match="head was 'regression'; it must be 'auto' or one of"):
        Scorer.from_pretrained(folder, head="regression")


def test_scores_can_be_changed_and_stand_on_their_own(heads: dict[str, LoadedModel]) -> None:
    for head in HEADS:
        first, second = Scorer(heads[head]).score([[5, 6], [7, 8]])
        kept = second.clone()
        first += 1.0
        assert torch.equal(second, kept)
    labels = Scorer(heads["causal"]).score_labels([[5, 6]], LABELS)
    labels += 1.0
