"""Texts that a causal model is asked to label -> built-in prompts and labels as token ids. What all texts share is looked at once, and
first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.http.errors import ApiError, too_long
from actors.http.limits import RequestLimits, max_text_chars
from actors.http.routes.prompts import (
    Int32Array,
    check_all_chars,
    check_num_chars,
    num_utf8_bytes,
    pieces,
    too_many_chars,
)
from actors.http.routes.scoring import check_lengths
from actors.http.served import ServedModel
from actors.http.texts import label_work
from actors.http.texts.label_work import AskedLabels, LabelQuestion, OwnLabels
from models.errors import RequestError
from models.tasks.label_tokens import LabelIds, num_computed

Result = TypeVar("Result")

_JOINED_TOKENS = 64
"""Tokens that a prompt can have less than the prompt around an empty text: where the two meet, they may join."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedLabels:
    """Prompts, and what each label is behind each of them."""

    prompts: Sequence[Int32Array]
    labels: Sequence[LabelIds]


async def encode_labels(
    texts: Sequence[str], question: LabelQuestion, served: ServedModel, limits: RequestLimits
) -> AskedLabels:
    """The labels that are asked for behind each text, and what is around these, which are only counted.

    Raises:
        ApiError: 400, more characters than could fit, labels that cannot be told from each other, or around which no text fits, or
            not so many.
    """
    most = max_text_chars(served.card.facts.max_model_len)
    check_chars_of_labels(question.own, most)
    _check_chars_around(question, most)
    check_num_chars(texts, most, limits, param="input")
    arguments = (question, served.card.facts.eos_token_ids, most)
    found: AskedLabels = await run_about(served, "labels", label_work.encode_labels, *arguments)
    if found.fault is not None:
        raise ApiError(400, f"labels: {found.fault}", param="labels")
    _check_room(question, found, len(texts), served, limits)
    return found


async def encode_asked(
    texts: Sequence[str], question: LabelQuestion, found: AskedLabels, served: ServedModel, limits: RequestLimits
) -> EncodedLabels:
    """The prompts of texts, of which `found` is what they share.

    Raises:
        ApiError: 400, more tokens than could fit.
        RequestError: a text cannot be encoded.
    """
    most = max_text_chars(served.card.facts.max_model_len)
    prompts: list[Int32Array] = []
    shared = (question, found.num_dropped, most)
    for piece in pieces(texts, around_bytes=_num_bytes_around(question)):
        prompts += await served.texts.run("text", label_work.encode_label_prompts, piece, *shared, param="input")
        check_all_tokens(prompts, num_computed(found.token_ids) * len(prompts), limits, param="input")
    check_lengths(prompts, served.card.facts.max_model_len - longest_of(found.token_ids))
    return EncodedLabels(prompts=prompts, labels=[found.token_ids] * len(prompts))


def longest_of(labels: LabelIds) -> int:
    """Tokens of the longest label."""
    return max(map(len, labels))


async def run_about(served: ServedModel, param: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """What the model's processes make of what is called `param`.

    Raises:
        ApiError: 400, of `param`: a text cannot be encoded, or whatever else a RequestError says.
    """
    try:
        return await served.texts.run("text", function, *arguments, param=param)
    except RequestError as error:
        raise ApiError(400, f"{param}: {error}", param=param) from error


def check_chars_of_labels(own: OwnLabels, most: int) -> None:
    """Refuses labels, or what is scored for them, of more than `most` characters."""
    check_all_chars(own.labels, most, param="labels")
    check_all_chars([*own.label_texts.values()], most, param="label_texts")


def check_all_tokens(prompts: Sequence[Int32Array], num_of_labels: int, limits: RequestLimits, *, param: str) -> None:
    """Refuses more tokens than a request may have: those of prompts, and those of labels that are computed behind all of them."""
    total = sum(map(len, prompts)) + num_of_labels
    if total > limits.max_request_tokens:
        raise too_long(f"all of {param} with its labels has", total, limits.max_request_tokens, param)


def _texts_around(question: LabelQuestion) -> dict[str, list[str]]:
    """What stands around each text, by the key of the request that brings it. Examples are asked the same question."""
    asked, label_texts = question.question or "", question.own.label_texts
    return {
        "question": [asked],
        "labels": [text for pair in question.descriptions.items() for text in pair],
        "examples": [
            text for each in question.examples for text in (asked, each.text, label_texts.get(each.label, each.label))
        ],
    }


def _num_bytes_around(question: LabelQuestion) -> int:
    return sum(num_utf8_bytes(text) for texts in _texts_around(question).values() for text in texts)


def _chars_around(question: LabelQuestion) -> dict[str, int]:
    return {param: sum(map(len, texts)) for param, texts in _texts_around(question).items()}


def _check_chars_around(question: LabelQuestion, most: int) -> None:
    for param, num_chars in _chars_around(question).items():
        if num_chars > most:
            raise too_many_chars(param, num_chars, most, param)


def _check_room(
    question: LabelQuestion, found: AskedLabels, num_texts: int, served: ServedModel, limits: RequestLimits
) -> None:
    """Refuses a question and labels around which no text fits, or not so many, before the texts are tokenized."""
    num_longest, num_around = longest_of(found.token_ids), found.num_around - _JOINED_TOKENS
    if num_around + num_longest > served.card.facts.max_model_len:
        chars = _chars_around(question)
        longer = max(chars, key=lambda param: chars[param]) if found.num_around > num_longest else "labels"
        what = (
            "the question, the labels and the examples have"
            if question.examples
            else "the question and the labels have"
        )
        raise too_long(what, found.num_around + num_longest, served.card.facts.max_model_len, longer)
    num_labels = num_computed(found.token_ids)
    if (num_around + num_labels) * num_texts > limits.max_request_tokens:
        num_tokens = (found.num_around + num_labels) * num_texts
        raise too_long("all of input with its question and labels has", num_tokens, limits.max_request_tokens, "input")
