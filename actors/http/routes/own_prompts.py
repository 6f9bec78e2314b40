"""Whole prompts, or a conversation, to which a label is the answer -> what of them is computed once, and the labels behind it, as token
ids."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from actors.http.bodies.schema import ChatMessage
from actors.http.errors import ApiError, too_long
from actors.http.limits import RequestLimits, max_text_chars
from actors.http.routes.label_prompts import (
    EncodedLabels,
    check_all_tokens,
    check_chars_of_labels,
    longest_of,
    run_about,
)
from actors.http.routes.prompts import chat_work, check_num_chars, num_utf8_bytes, pieces
from actors.http.served import ServedModel
from actors.http.texts import label_work
from actors.http.texts.label_work import LabelledPrompt, OwnLabels
from models.errors import RequestError
from models.tasks.label_tokens import num_computed

MAX_PAIRS: Final = 1 << 15
"""Of a prompt and a label: prompts that end differently have the tokens of each label looked for behind each of them."""

_LABEL_BYTES = 16
"""Beside its own, which a label takes the time of: it is tokenized behind each prompt by itself."""


async def encode_prompts(
    prompts: Sequence[str], own: OwnLabels, served: ServedModel, limits: RequestLimits
) -> EncodedLabels:
    """Whole prompts, and the labels behind each.

    Raises:
        ApiError: 400, a prompt cannot be encoded or ends where no label can be scored, labels cannot be told from each other behind
            it, or there are more characters or tokens than could fit.
    """
    most = max_text_chars(served.card.facts.max_model_len)
    check_chars_of_labels(own, most)
    check_num_chars(prompts, most, limits, param="prompt")
    _check_num_pairs(len(prompts), len(own.labels))
    found: list[LabelledPrompt] = []
    shared = (own, served.card.facts.eos_token_ids, most)
    for piece in pieces(prompts, around_bytes=_num_bytes_of(own)):
        found += await run_about(served, "prompt", label_work.encode_own_prompts, piece, *shared)
        _check_all(found, limits, param="prompt")
    return _fitting(found, served, [f"prompt[{index}]" for index in range(len(found))], param="prompt")


async def encode_conversation(
    messages: Sequence[ChatMessage],
    variables: Mapping[str, Any],
    own: OwnLabels,
    served: ServedModel,
    limits: RequestLimits,
    *,
    now: dt.datetime,
) -> EncodedLabels:
    """A conversation to which a label is the answer.

    Raises:
        ApiError: as `encode_prompts` does, and what `routes.prompts.encode_chat` raises.
    """
    check_chars_of_labels(own, max_text_chars(served.card.facts.max_model_len))
    arguments = (now, own, served.card.facts.eos_token_ids)
    try:
        found = await chat_work(messages, served, variables, label_work.encode_labelled_messages, *arguments)
    except RequestError as error:
        raise ApiError(400, f"messages: {error}", param="messages") from error
    _check_all([found], limits, param="messages")
    return _fitting([found], served, ["messages"], param="messages")


def _check_num_pairs(num_prompts: int, num_labels: int) -> None:
    if num_prompts * num_labels > MAX_PAIRS:
        found = f"{num_prompts} prompts to {num_labels} labels are {num_prompts * num_labels} pairs"
        raise ApiError(400, f"prompt: {found}; at most {MAX_PAIRS} are possible: send fewer at once", param="prompt")


def _check_all(found: Sequence[LabelledPrompt], limits: RequestLimits, *, param: str) -> None:
    num_of_labels = sum(num_computed(one.labels) for one in found)
    check_all_tokens([one.token_ids for one in found], num_of_labels, limits, param=param)


def _fitting(
    found: Sequence[LabelledPrompt], served: ServedModel, names: Sequence[str], *, param: str
) -> EncodedLabels:
    """The prompts, once none is too long for the model and all have labels that can be told apart."""
    for name, one in zip(names, found, strict=True):
        if one.fault is not None:
            remedy = "end the prompt with a space or a line break"
            raise ApiError(400, f"{name}: behind it {one.fault}; {remedy}", param=param)
        limit = served.card.facts.max_model_len - longest_of(one.labels)
        if len(one.token_ids) > limit:
            raise too_long(f"{name} has", len(one.token_ids), limit, param)
    return EncodedLabels(prompts=[one.token_ids for one in found], labels=[one.labels for one in found])


def _num_bytes_of(own: OwnLabels) -> int:
    """Of labels that are tokenized behind a prompt; a short one takes as long as some characters."""
    return sum(_LABEL_BYTES + num_utf8_bytes(own.label_texts.get(label, label)) for label in own.labels)
