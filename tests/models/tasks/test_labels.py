from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.config.types import ProblemType
from models.tasks.labels import (
    class_probabilities,
    independent_probabilities,
    label_prompt,
    label_token_ids,
    merge_windows,
    outcome_of,
    outcome_text,
)
from models.text.tokenizer import Tokenizer
from tests.helpers.models.tiny_tokenizers import qwen, sentencepiece
from tests.helpers.pipelines.making import word_tokenizer

LABELS = ("hello", "hello world", "user")


@pytest.fixture(scope="module")
def chat_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("qwen")
    qwen(folder)
    return Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def plain_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece(folder)
    return Tokenizer.from_pretrained(folder)


def test_the_prompt_of_a_plain_model(plain_tokenizer: Tokenizer) -> None:
    prompt = label_prompt(plain_tokenizer, text="A text.", question="Which team?", labels=("a", "b", "c"))
    assert prompt == "A text.\n\nQuestion: Which team?\nAnswer with one of: a, b, c.\nAnswer:"


def test_the_prompt_of_a_chat_model_asks_for_the_label_at_once(chat_tokenizer: Tokenizer) -> None:
    prompt = label_prompt(chat_tokenizer, text="A text.", question="Which team?", labels=("a", "b"))
    assert prompt == (
        "<|im_start|>user\nA text.\n\nQuestion: Which team?\nAnswer with one of: a, b.<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


@pytest.mark.parametrize("kind", ["chat_tokenizer", "plain_tokenizer"])
def test_a_label_is_what_it_adds_to_the_prompt_and_the_stop_token(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    assert tokenizer.eos_token_id is not None
    prompt = label_prompt(tokenizer, text="Hello world", question="Which?", labels=LABELS)
    before = tokenizer.encode(prompt, add_special_tokens=False)
    space = "" if tokenizer.chat_template else " "
    for label, ids in zip(
        LABELS, label_token_ids(tokenizer, LABELS, eos_token_ids=(0, tokenizer.eos_token_id)), strict=True
    ):
        assert ids[-1] == tokenizer.eos_token_id
        assert [*before, *ids[:-1]] == tokenizer.encode(prompt + space + label, add_special_tokens=False)


def test_a_chat_model_stops_with_the_token_its_template_writes(chat_tokenizer: Tokenizer) -> None:
    end_of_turn, end_of_text = (chat_tokenizer.encode(text)[0] for text in ("<|im_end|>", "<|endoftext|>"))
    ids = label_token_ids(chat_tokenizer, ("a",), eos_token_ids=(end_of_text, end_of_turn))
    assert ids[0][-1] == end_of_turn


def test_without_any_stop_token_a_label_stands_alone(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path, eos_token=None)
    assert label_token_ids(tokenizer, ("w1", "w2"), eos_token_ids=()) == ((5,), (6,))


logits = st.lists(st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=3), min_size=1, max_size=5)


@given(logits)
def test_class_probabilities_sum_to_one(values: list[list[float]]) -> None:
    probabilities = class_probabilities(np.array(values, np.float32))
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    assert (probabilities >= 0).all()


@given(logits)
def test_independent_probabilities_are_the_logistic_function(values: list[list[float]]) -> None:
    expected = 1 / (1 + np.exp(-np.array(values, np.float32).astype(np.float64)))
    assert independent_probabilities(np.array(values, np.float32)) == pytest.approx(expected, abs=1e-12)


def test_label_log_probabilities_become_shares() -> None:
    logprobs = np.log(np.array([[0.2, 0.1, 0.1]], np.float32))
    assert class_probabilities(logprobs)[0] == pytest.approx([0.5, 0.25, 0.25], abs=1e-6)


def test_windows_are_merged_class_by_class() -> None:
    values = np.array([[0.1, 0.9], [0.5, 0.5], [0.3, 0.7]])
    first = np.array([0, 1])
    assert merge_windows(values, first, "mean").tolist() == [[0.1, 0.9], [0.4, 0.6]]
    assert merge_windows(values, first, "max").tolist() == [[0.1, 0.9], [0.5, 0.7]]
    assert merge_windows(values, np.array([0, 1, 2]), "max") is values


@pytest.mark.parametrize(
    ("names", "problem_type", "said"),
    [
        (("a", "b"), None, "2 classes, one of them a row (softmax)"),
        (("a", "b"), "multi_label_classification", "2 classes, each decided on its own (sigmoid)"),
        (("relevant",), None, "one class, relevant: label is always that, score its probability (sigmoid)"),
        (("relevant",), "single_label_classification", "one class, relevant"),
        (
            ("stars",),
            "regression",
            "a regression (problem_type in config.json): score is the model's value, no probability",
        ),
        (("x", "y"), "regression", "scores are the model's values, no probability"),
    ],
)
def test_what_a_heads_scores_mean_follows_from_its_config(
    names: tuple[str, ...], problem_type: ProblemType | None, said: str
) -> None:
    assert said in outcome_text(outcome_of(problem_type, len(names)), names)
