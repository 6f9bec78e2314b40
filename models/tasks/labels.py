"""Class probabilities, and how a causal model is asked for a label.

The prompt of a text, a question and the allowed labels, for a model without a chat template:

    {text}

    Question: {question}
    Answer with one of: a, b, c.
    Answer:

With one, a user message of the first four lines, then the template's generation prompt (thinking switched off where a template
knows `enable_thinking`: the label is asked for at once).

A label is what the model would have to write: its tokens after that prompt, with a space before it where there is no template, and the
token the model stops with, so that labels that begin alike are compared as whole answers.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.config.types import ProblemType
from models.text.tokenizer import Tokenizer

Outcome = Literal["single_label", "multi_label", "one_class", "regression"]
"""What a sequence-classification head's values mean: one class of several, each class on its own, whether the only class holds, or
numbers."""

MULTI_LABEL_THRESHOLD = 0.5
"""From this score on, a class that is decided on its own is one of the text's labels."""

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

DEFAULT_QUESTION = "Which label fits this text best?"


def label_prompt(tokenizer: Tokenizer, *, text: str, question: str, labels: Sequence[str]) -> str:
    """The prompt after which a label is the answer; to be encoded without special tokens if there is a chat template.

    Raises:
        TemplateError: the chat template failed, or leaves out what is asked.
    """
    asked = f"{text}\n\nQuestion: {question}\nAnswer with one of: {', '.join(labels)}."
    if tokenizer.chat_template is None:
        return f"{asked}\nAnswer:"
    messages = tokenizer.chat_content().fit([{"role": "user", "content": asked}])
    return tokenizer.render_chat(messages, enable_thinking=False)


def label_token_ids(
    tokenizer: Tokenizer, labels: Sequence[str], *, eos_token_ids: Sequence[int], max_chars: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """The token ids of each label as an answer to `label_prompt`, with the model's stop token last if it has one.

    They are the tokens that the label adds to a prompt: on its own some vocabularies would put another space before it.

    Raises:
        TemplateError: the chat template failed, or leaves out what is asked.
        RequestError: a label is not Unicode, or with this tokenizer more than `max_chars` would have to be encoded.
    """
    is_chat = tokenizer.chat_template is not None
    stop = _chat_stop(tokenizer, eos_token_ids) if is_chat else _plain_stop(tokenizer, eos_token_ids)
    prompt = label_prompt(tokenizer, text="A text.", question=DEFAULT_QUESTION, labels=labels)
    written = list(labels) if is_chat else [f" {label}" for label in labels]
    added = tokenizer.encode_added(prompt, written, max_chars=max_chars)
    alone = [label for label, ids in zip(written, added, strict=True) if ids is None]
    others = iter(tokenizer.encode_batch(alone, add_special_tokens=False))
    return tuple((*(next(others) if ids is None else ids), *stop) for ids in added)


def fault_of_labels(labels: Sequence[str], label_ids: Sequence[tuple[int, ...]]) -> str | None:
    """Why labels cannot be told from each other, None if they can."""
    if len(set(labels)) < len(labels):
        return "a label can stand there only once"
    if len(set(label_ids)) < len(labels) or not all(labels) or not all(label_ids):
        return "every label needs text that the model can tell from the others'"
    return None


def _plain_stop(tokenizer: Tokenizer, eos_token_ids: Sequence[int]) -> tuple[int, ...]:
    if tokenizer.eos_token_id is not None and (not eos_token_ids or tokenizer.eos_token_id in eos_token_ids):
        return (tokenizer.eos_token_id,)
    return tuple(eos_token_ids[:1])


def _chat_stop(tokenizer: Tokenizer, eos_token_ids: Sequence[int]) -> tuple[int, ...]:
    """The stop token that the chat template itself writes after an answer: of several, the first is often another one."""
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "this"}]
    written = tokenizer.encode(
        tokenizer.render_chat(messages, add_generation_prompt=False, enable_thinking=False), add_special_tokens=False
    )
    stops = [token_id for token_id in written if token_id in eos_token_ids]
    return (stops[-1],) if stops else _plain_stop(tokenizer, eos_token_ids)


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


def class_values(logits: FloatArray, outcome: Outcome) -> Float64Array:
    """What is shown of each class [N, C]: its probability, of a regression the value itself."""
    if outcome == "regression":
        return logits.astype(np.float64)
    return class_probabilities(logits) if outcome == "single_label" else independent_probabilities(logits)


def class_probabilities(logits: FloatArray) -> Float64Array:
    """Softmax over classes [N, C]; of labels' log probabilities it is their share among the labels."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True).astype(np.float64))
    probabilities: Float64Array = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def independent_probabilities(logits: FloatArray) -> Float64Array:
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
