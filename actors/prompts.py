"""Texts and conversations of requests -> token ids, away from the event loop. Text that spells special tokens stays text."""

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from actors.limits import Limits
from actors.online import ModelCard
from actors.openai_errors import ApiError, too_long
from actors.openai_schema import ChatMessage
from models.errors import TemplateError
from models.text import Tokenizer
from models.tokenizer_files import SPECIAL_TOKEN_NAMES

_RESERVED = frozenset(
    {"self", "messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "now", "strftime_now"}
) | frozenset(SPECIAL_TOKEN_NAMES)

Input = str | list[int]


def inputs_of(given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> list[Input]:
    """The single prompts of a text, texts, token ids or lists of them."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [[token for token in given if isinstance(token, int)]]
    return [one if isinstance(one, str) else list(one) for one in given if not isinstance(one, int)]


async def encode_inputs(
    inputs: Sequence[Input], tokenizer: Tokenizer, card: ModelCard, *, param: str
) -> list[tuple[int, ...]]:
    """Token ids of each input, special tokens added to texts.

    Raises:
        ApiError: 400, an input has no tokens, or ids that are no tokens of this model.
        RequestError: a text cannot be encoded.
    """
    texts = [one for one in inputs if isinstance(one, str)]
    encoded = iter(await asyncio.to_thread(_encode, tokenizer, texts) if texts else ())
    found = [tuple(next(encoded)) if isinstance(one, str) else tuple(one) for one in inputs]
    for index, ids in enumerate(found):
        if not ids:
            raise ApiError(400, f"{param}[{index}] has no tokens", param=param)
        check_vocabulary(ids, card, param=param)
    return found


async def encode_chat(
    messages: Sequence[ChatMessage],
    tokenizer: Tokenizer,
    variables: Mapping[str, Any],
    *,
    add_generation_prompt: bool = True,
) -> tuple[int, ...]:
    """Token ids of the chat template over these messages.

    Raises:
        ApiError: 400, a variable that is none, no chat template, or one that refuses these messages or would lose them.
        RequestError: a text cannot be encoded.
    """
    for name in variables:
        if name in _RESERVED or not name.isidentifier():
            raise ApiError(400, f"chat_template_kwargs: {name} cannot be set", param="chat_template_kwargs")
    try:
        return await asyncio.to_thread(_render, tokenizer, messages, variables, add_generation_prompt)
    except TemplateError as error:
        raise ApiError(400, f"messages: {error}", param="messages") from error


def check_vocabulary(token_ids: Sequence[int], card: ModelCard, *, param: str) -> None:
    """Refuses ids that are no tokens of the model."""
    if token_ids and not 0 <= min(token_ids) <= max(token_ids) < card.vocab_size:
        raise ApiError(
            400,
            f"{param} holds token ids from {min(token_ids)} to {max(token_ids)}; the vocabulary has 0 to {card.vocab_size - 1}",
            param=param,
        )


def check_num_inputs(inputs: Sequence[Input], limits: Limits, *, param: str) -> None:
    """Refuses more inputs than a request may have."""
    if len(inputs) > limits.max_inputs:
        raise ApiError(400, f"{param} has {len(inputs)} inputs; at most {limits.max_inputs} are possible", param=param)


def check_num_tokens(token_ids: Sequence[Sequence[int]], limits: Limits, *, param: str) -> None:
    """Refuses more tokens in all than a request may have."""
    total = sum(map(len, token_ids))
    if total > limits.max_request_tokens:
        raise too_long(f"all of {param} has", total, limits.max_request_tokens, param)


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return tokenizer.encode_batch([tokenizer.protect(text) for text in texts])


def _role(message: ChatMessage) -> str:
    return "system" if message.role == "developer" else message.role


def _content(message: ChatMessage, tokenizer: Tokenizer) -> str | list[dict[str, str]]:
    """A message's text, or its parts, protected."""
    if isinstance(message.content, str):
        return tokenizer.protect(message.content)
    return [{"type": part.type, "text": tokenizer.protect(part.text)} for part in message.content]


def _render(
    tokenizer: Tokenizer, messages: Sequence[ChatMessage], variables: Mapping[str, Any], add_generation_prompt: bool
) -> tuple[int, ...]:
    protected = [{"role": _role(message), "content": _content(message, tokenizer)} for message in messages]
    fitted = tokenizer.chat_content().fit(protected)
    shown: dict[str, Any] = {
        name: tokenizer.protect(value) if isinstance(value, str) else value for name, value in variables.items()
    }
    now = dt.datetime.now(dt.UTC)  # an online answer is of today; a job's rows are of the job's date
    prompt = tokenizer.render_chat(fitted, add_generation_prompt=add_generation_prompt, now=now, **shown)
    return tuple(tokenizer.encode(prompt, add_special_tokens=False))
