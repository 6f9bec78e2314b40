"""Texts that a causal model is asked to label -> prompts and labels as token ids. What all texts share is looked at once, and first."""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.http.errors import ApiError, too_long
from actors.http.limits import Limits, max_text_chars
from actors.http.routes.prompts import (
    Int32Array,
    check_all_chars,
    check_num_chars,
    check_num_tokens,
    num_utf8_bytes,
    pieces,
)
from actors.http.routes.scoring import check_lengths
from actors.http.served import ServedModel
from actors.http.texts import text_work
from models.errors import RequestError
from models.tasks.label_tokens import LabelIds

_JOINED_TOKENS = 64
"""Tokens that a prompt can have less than the prompt around an empty text: where the two meet, they may join."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelQuestion:
    """What every text of a request is asked."""

    question: str | None
    labels: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedLabels:
    """A prompt for each text, and what each label is behind it."""

    prompts: list[Int32Array]
    label_ids: LabelIds


async def encode_asked(
    texts: Sequence[str], asked: LabelQuestion, served: ServedModel, limits: Limits
) -> EncodedLabels:
    """The prompts and labels of a request.

    Raises:
        ApiError: 400, labels that cannot be told from each other, or more characters or tokens than could fit.
        RequestError: a text cannot be encoded.
    """
    most = max_text_chars(served.card.facts.max_model_len)
    check_all_chars(asked.labels, most, param="labels")
    check_num_chars([asked.question or ""], most, limits, param="question")
    check_num_chars(texts, most, limits, param="input")
    labels, eos_token_ids = list(asked.labels), served.card.facts.eos_token_ids
    try:
        found = await served.texts.run(
            "text", text_work.encode_labels, labels, asked.question, eos_token_ids, most, param="labels"
        )
    except RequestError as error:
        raise ApiError(400, f"labels: {error}", param="labels") from error
    if found.fault is not None:
        raise ApiError(400, f"labels: {found.fault}", param="labels")
    _check_room(found, len(texts), served, limits)
    room = served.card.facts.max_model_len - max(map(len, found.token_ids))
    prompts: list[Int32Array] = []
    for piece in pieces(texts, around_bytes=num_utf8_bytes(asked.question or "")):
        shared = (asked.question, found.num_dropped, most)
        prompts += await served.texts.run("text", text_work.encode_label_prompts, piece, *shared, param="input")
        check_num_tokens([*prompts, *found.token_ids], limits, param="input")
    check_lengths(prompts, room)
    return EncodedLabels(prompts=prompts, label_ids=found.token_ids)


def _check_room(found: text_work.AskedLabels, num_texts: int, served: ServedModel, limits: Limits) -> None:
    """Refuses a question and labels around which no text fits, or not so many, before the texts are tokenized."""
    num_longest, num_around = max(map(len, found.token_ids)), found.num_around - _JOINED_TOKENS
    if num_around + num_longest > served.card.facts.max_model_len:
        num_tokens = found.num_around + num_longest
        longer = "question" if found.num_around > num_longest else "labels"
        raise too_long("the question and the labels have", num_tokens, served.card.facts.max_model_len, longer)
    if num_around * num_texts > limits.max_request_tokens:
        num_tokens = found.num_around * num_texts
        raise too_long("all of input with its question and labels has", num_tokens, limits.max_request_tokens, "input")
