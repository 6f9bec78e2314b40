"""Texts and conversations of requests -> token ids, in the model's own processes, once their characters have been counted."""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from actors.http.bodies.schema import ChatMessage
from actors.http.errors import ApiError, too_long
from actors.http.limits import CHARS_PER_TOKEN, RequestLimits, max_text_chars
from actors.http.served import ServedModel
from actors.http.texts import text_work
from actors.http.texts.text_pool import Lane
from actors.online.model import ModelCard
from models.errors import TemplateError
from models.text.tokenizer_files import SPECIAL_TOKEN_NAMES

_RESERVED = frozenset(
    {"self", "messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "now", "strftime_now"}
) | frozenset(SPECIAL_TOKEN_NAMES)

Input = str | list[int]
Int32Array = npt.NDArray[np.int32]

Item = TypeVar("Item")
Result = TypeVar("Result")

PIECE_BYTES = 1 << 18
"""Of texts that are tokenized at a time: it takes up to 300 bytes of memory for each, and a second where a machine is busy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextWay:
    """How texts become token ids: a function of `text_work` that takes texts and then `arguments`, in which lane, and the bytes that
    stand around each text."""

    function: Callable[..., list[Int32Array]]
    arguments: tuple[Any, ...]
    lane: Lane = "text"
    around_bytes: int = 0


PLAIN = TextWay(function=text_work.encode_texts, arguments=(True,))
"""Each text by itself, with special tokens added."""


def inputs_of(given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> list[Input]:
    """The single prompts of a text, texts, token ids or lists of them."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [[token for token in given if isinstance(token, int)]]
    return [one if isinstance(one, str) else list(one) for one in given if not isinstance(one, int)]


async def encode_inputs(
    inputs: Sequence[Input], served: ServedModel, limits: RequestLimits, *, param: str, how: TextWay = PLAIN
) -> list[Int32Array]:
    """Token ids of each input; texts are encoded as `how` says.

    Raises:
        ApiError: 400, an input has no tokens, ids that are not tokens of this model, or more than
            could fit; all have too many tokens.
        RequestError: a text cannot be encoded.
    """
    texts = [one for one in inputs if isinstance(one, str)]
    given = [np.array(one, np.int32) for one in inputs if not isinstance(one, str)]
    check_num_tokens(given, limits, param=param)
    check_num_chars(texts, max_text_chars(served.card.facts.max_model_len), limits, param=param)
    from_texts = iter(await _encode(texts, served, limits, how, param=param))
    from_ids = iter(given)
    found = [next(from_texts if isinstance(one, str) else from_ids) for one in inputs]
    for index, ids in enumerate(found):
        if not len(ids):
            raise ApiError(400, f"{param}[{index}] has no tokens", param=param)
        check_vocabulary(ids, served.card, param=param)
    check_num_tokens(found, limits, param=param)
    return found


async def encode_text(
    text: str, served: ServedModel, limits: RequestLimits, *, param: str, add_special_tokens: bool
) -> Int32Array:
    """Token ids of one text; none of an empty one.

    Raises:
        ApiError: 400, it is longer than could fit.
        RequestError: it cannot be encoded.
    """
    (ids,) = await encode_texts([text], served, limits, param=param, add_special_tokens=add_special_tokens)
    return ids


async def encode_texts(
    texts: Sequence[str], served: ServedModel, limits: RequestLimits, *, param: str, add_special_tokens: bool
) -> list[Int32Array]:
    """Token ids of each text; none of an empty one.

    Raises:
        ApiError: 400, one is longer than could fit.
        RequestError: one cannot be encoded.
    """
    check_num_chars(texts, max_text_chars(served.card.facts.max_model_len), limits, param=param)
    how = TextWay(function=text_work.encode_texts, arguments=(add_special_tokens,))
    return await _encode(texts, served, limits, how, param=param)


async def encode_chat(
    messages: Sequence[ChatMessage],
    served: ServedModel,
    variables: Mapping[str, Any],
    *,
    now: dt.datetime,
    add_generation_prompt: bool = True,
) -> Int32Array:
    """Token ids of the chat template over these messages, which is told that it is `now`.

    Raises:
        ApiError: 400, a name in `variables` that a template may not be given, more characters than
            could fit, no chat template, or one that refuses these messages, would lose them, or
            takes too long over them.
        RequestError: a text cannot be encoded.
    """
    found: Int32Array = await chat_work(
        messages, served, variables, text_work.encode_messages, add_generation_prompt, now
    )
    return found


async def chat_work(
    messages: Sequence[ChatMessage],
    served: ServedModel,
    variables: Mapping[str, Any],
    function: Callable[..., Result],
    *arguments: Any,
) -> Result:
    """What a function of the model's processes makes of a conversation; it is given the messages, the variables, `arguments`, and how
    many characters the prompt may have.

    Raises:
        ApiError: as `encode_chat` does.
        RequestError: a text cannot be encoded.
    """
    for name in variables:
        if name in _RESERVED or not name.isidentifier():
            raise ApiError(400, f"chat_template_kwargs: {name} cannot be set", param="chat_template_kwargs")
    most = max_text_chars(served.card.facts.max_model_len)
    shown = [{"role": _role(message), "content": _content(message)} for message in messages]
    check_all_chars(_texts_of(messages), most, param="messages")
    given = [text for item in variables.items() for text in item if isinstance(text, str)]
    check_all_chars(given, most, param="chat_template_kwargs")
    shared = (shown, dict(variables), *arguments, most)
    try:
        return await served.texts.run("template", function, *shared, param="messages")
    except TemplateError as error:
        raise ApiError(400, f"messages: {error}", param="messages") from error


async def decode(token_ids: Int32Array, served: ServedModel, *, param: str) -> str:
    """The text of token ids, special tokens as their strings."""
    return await served.texts.run("text", text_work.decode, token_ids, param=param)


def check_vocabulary(token_ids: Int32Array, card: ModelCard, *, param: str) -> None:
    """Refuses ids that are not tokens of the model."""
    if not len(token_ids):
        return
    lowest, highest = int(token_ids.min()), int(token_ids.max())
    if not 0 <= lowest <= highest < card.facts.vocab_size:
        raise ApiError(
            400,
            f"{param} holds token ids from {lowest} to {highest}; the vocabulary has 0 to {card.facts.vocab_size - 1}",
            param=param,
        )


def check_num_inputs(inputs: Sequence[Input], limits: RequestLimits, *, param: str) -> None:
    """Refuses more inputs than a request may have."""
    if len(inputs) > limits.max_inputs:
        raise ApiError(400, f"{param} has {len(inputs)} inputs; at most {limits.max_inputs} are possible", param=param)


def check_num_chars(texts: Sequence[str], most: int, limits: RequestLimits, *, param: str) -> None:
    """Refuses a text of more than `most` characters, and more than all of a request could have, before anything reads them."""
    for index, text in enumerate(texts):
        if len(text) > most:
            raise too_many_chars(f"{param}[{index}]" if len(texts) > 1 else param, len(text), most, param)
    check_all_chars(texts, CHARS_PER_TOKEN * limits.max_request_tokens, param=param)


def check_all_chars(texts: Sequence[str], most: int, *, param: str) -> None:
    """Refuses texts that together have more than `most` characters."""
    total = sum(map(len, texts))
    if total > most:
        raise too_many_chars(f"all of {param}" if len(texts) > 1 else param, total, most, param)


def check_num_tokens(token_ids: Sequence[Sequence[int] | Int32Array], limits: RequestLimits, *, param: str) -> None:
    """Refuses more tokens in all than a request may have."""
    total = sum(map(len, token_ids))
    if total > limits.max_request_tokens:
        raise too_long(f"all of {param} has", total, limits.max_request_tokens, param)


def pieces(texts: Sequence[str], max_bytes: int = PIECE_BYTES, *, around_bytes: int = 0) -> Iterator[list[str]]:
    """Neighbouring texts of at most `max_bytes` together, `around_bytes` added to each; a longer
    text alone."""
    return cut_by_bytes(texts, [num_utf8_bytes(text) + around_bytes for text in texts], max_bytes)


def cut_by_bytes(items: Sequence[Item], sizes: Sequence[int], max_bytes: int = PIECE_BYTES) -> Iterator[list[Item]]:
    """Neighbouring items of at most `max_bytes` together, by the `sizes` of each; a larger item
    alone."""
    piece: list[Item] = []
    num_bytes = 0
    for item, size in zip(items, sizes, strict=True):
        if piece and num_bytes + size > max_bytes:
            yield piece
            piece, num_bytes = [], 0
        piece.append(item)
        num_bytes += size
    if piece:
        yield piece


def num_utf8_bytes(text: str) -> int:
    """Bytes that a text has for a tokenizer."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


async def _encode(
    texts: Sequence[str], served: ServedModel, limits: RequestLimits, how: TextWay, *, param: str
) -> list[Int32Array]:
    """Token ids of texts, piece by piece, as long as there are not too many."""
    found: list[Int32Array] = []
    for piece in pieces(texts, around_bytes=how.around_bytes):
        found += await served.texts.run(how.lane, how.function, piece, *how.arguments, param=param)
        check_num_tokens(found, limits, param=param)
    return found


def too_many_chars(what: str, num_chars: int, most: int, param: str) -> ApiError:
    """The answer to a text that is refused before it is read."""
    return ApiError(
        400,
        f"{what} has {num_chars} characters; at most {most} are possible: shorten it",
        param=param,
        code="context_length_exceeded",
    )


def _role(message: ChatMessage) -> str:
    return "system" if message.role == "developer" else message.role


def _content(message: ChatMessage) -> str | list[dict[str, str]]:
    if isinstance(message.content, str):
        return message.content
    return [{"type": part.type, "text": part.text} for part in message.content]


def _texts_of(messages: Sequence[ChatMessage]) -> list[str]:
    contents = [message.content for message in messages]
    return [
        text
        for content in contents
        for text in ([content] if isinstance(content, str) else [part.text for part in content])
    ]
