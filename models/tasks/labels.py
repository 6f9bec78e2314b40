"""What the values of a sequence-classification head, or of labels, mean: the classes of a text, with a value for each."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.config.types import ProblemType

Outcome = Literal["single_label", "multi_label", "one_class", "regression"]
"""What a sequence-classification head's values mean: one class of several, each class on its own, whether the only class holds, or
numbers."""

MULTI_LABEL_THRESHOLD = 0.5
"""From this score on, a class that is decided on its own is one of the text's labels."""

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


def outcome_of(problem_type: ProblemType | None, num_labels: int) -> Outcome:
    """What a head's values mean, as transformers' text-classification pipeline reads `problem_type` and the number of classes."""
    if problem_type == "regression":
        return "regression"
    if problem_type == "multi_label_classification":
        return "multi_label"
    return "one_class" if num_labels == 1 else "single_label"


def outcome_text(outcome: Outcome, names: Sequence[str]) -> str:
    """What `label` and `score` mean, for people."""
    match outcome:
        case "single_label":
            return f"{len(names)} classes, one of them a row (softmax)"
        case "multi_label":
            return f"{len(names)} classes, each decided on its own (sigmoid)"
        case "one_class":
            return f"one class, {names[0]}: label is always that, score its probability (sigmoid)"
        case "regression":
            what = "score is the model's value" if len(names) == 1 else "scores are the model's values"
            return f"a regression (problem_type in config.json): {what}, no probability, and label is null"


def class_values(logits: FloatArray | Float64Array, outcome: Outcome) -> Float64Array:
    """What is shown of each class [N, C]: its probability, of a regression the value itself."""
    if outcome == "regression":
        return logits.astype(np.float64)
    return class_probabilities(logits) if outcome == "single_label" else independent_probabilities(logits)


def class_probabilities(logits: FloatArray | Float64Array) -> Float64Array:
    """Softmax over classes [N, C]; of labels' log probabilities it is their share among the labels."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True).astype(np.float64))
    probabilities: Float64Array = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def independent_probabilities(logits: FloatArray | Float64Array) -> Float64Array:
    """Sigmoid of each class [N, C], for texts that may have several labels."""
    probabilities: Float64Array = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
    return probabilities


def merge_windows(values: Float64Array, first: Int64Array, how: Literal["mean", "max"]) -> Float64Array:
    """One row of class values [D, C] a document from one a window [N, C]; `first` [D] is where each document's windows begin.

    The mean, or the highest, of every class on its own; the highest need not sum to 1 over classes.
    """
    if len(first) == len(values):
        return values
    if how == "max":
        highest: Float64Array = np.maximum.reduceat(values, first, axis=0)
        return highest
    counts = np.diff(first, append=len(values))[:, None]
    means: Float64Array = np.add.reduceat(values, first, axis=0) / counts
    return means
