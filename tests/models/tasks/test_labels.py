import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.config.types import ProblemType
from models.tasks.labels import (
    class_probabilities,
    independent_probabilities,
    merge_windows,
    outcome_of,
    outcome_text,
)

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
