"""What is done with the texts of requests, in processes of their own (`actors.http.texts.text_pool`): functions of a tokenizer.

They are given plain values and give back plain values: token ids are int32 arrays. Text that spells special tokens stays text.
"""

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import RequestError
from models.isolation import step
from models.tasks.document import Document
from models.tasks.embedding import EmbeddingConfig
from models.tasks.rerank import Pair, Reranking
from models.text.tokenizer import Tokenizer

Int32Array = npt.NDArray[np.int32]
Message = Mapping[str, Any]

CHARS_PER_S = 200_000
"""Characters for which a worker has a second beside its limit: a fifth of what published tokenizers encode on one core."""


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The context of a pool: a checkpoint's tokenizer with all that workers are to share."""
    tokenizer = Tokenizer.from_pretrained(folder)
    tokenizer.prepare()
    return tokenizer


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], add_special_tokens: bool) -> list[Int32Array]:
    """Token ids of each text."""
    begin(sum(map(len, texts)))
    return _encoded(tokenizer, [tokenizer.protect(text) for text in texts], add_special_tokens=add_special_tokens)


def encode_messages(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    add_generation_prompt: bool,
    now: dt.datetime,
    max_chars: int,
) -> Int32Array:
    """Token ids of the chat template over these messages.

    Raises:
        TemplateError: there is no template, or it refuses these messages, or would lose them.
        RequestError: the prompt has more than `max_chars` characters, or is not Unicode.
    """
    prompt = chat_prompt(tokenizer, messages, variables, add_generation_prompt, now, max_chars)
    begin(len(prompt))
    return _encoded(tokenizer, [prompt], add_special_tokens=False)[0]


def chat_prompt(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    add_generation_prompt: bool,
    now: dt.datetime,
    max_chars: int,
) -> str:
    """The text of the chat template over these messages, to be encoded without special tokens.

    Raises:
        TemplateError: there is no template, or it refuses these messages, or would lose them.
        RequestError: it has more than `max_chars` characters.
    """
    protected = [{**message, "content": _protected(message["content"], tokenizer)} for message in messages]
    fitted = tokenizer.chat_content().fit(protected)
    shown: dict[str, Any] = {
        name: tokenizer.protect(value) if isinstance(value, str) else value for name, value in variables.items()
    }
    prompt = tokenizer.render_chat(fitted, add_generation_prompt=add_generation_prompt, now=now, **shown)
    check_chars([prompt], max_chars)
    return prompt


def encode_embedded(
    tokenizer: Tokenizer, texts: Sequence[str], embedding: EmbeddingConfig, prompt: str
) -> list[Int32Array]:
    """Token ids of each text behind a prompt, as its vector is made of them.

    Raises:
        TemplateError: the chat template failed, or leaves out a text.
        RequestError: a text is not Unicode.
    """
    begin(sum(map(len, texts)) + len(prompt) * len(texts))
    return arrays(embedding.token_ids(tokenizer, texts, prompt=prompt))


def count_skipped(tokenizer: Tokenizer, embedding: EmbeddingConfig, prompt: str) -> int:
    """How many tokens of a prompt are not pooled."""
    begin(len(prompt))
    return embedding.num_skipped(tokenizer, prompt)


def encode_reranked(
    tokenizer: Tokenizer, pairs: Sequence[Pair], reranking: Reranking, instruction: str | None
) -> list[Int32Array]:
    """Token ids of each pair, as it is scored.

    Raises:
        TemplateError: the chat template failed, or leaves out a text.
        RequestError: a text is not Unicode.
    """
    num_around = len(instruction or reranking.prompt)
    begin(sum(len(pair.query) + len(pair.document) + num_around for pair in pairs))
    return arrays(reranking.token_ids(tokenizer, pairs, instruction=instruction))


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str], has_question: bool) -> list[Document]:
    """The texts as documents; where a question is asked of them, without what stands around them then (`encode_question`)."""
    begin(sum(map(len, texts)))
    if not has_question:
        return [Document.of(encoding, sequence=0) for encoding in tokenizer.encode_with_offsets(texts)]
    nothing = np.empty(0, np.int32)
    pairs = tokenizer.encode_with_offsets([_ANY_TEXT] * len(texts), texts)
    found = (Document.of(encoding, sequence=1) for encoding in pairs)
    return [Document(before=nothing, token_ids=each.token_ids, after=nothing, offsets=each.offsets) for each in found]


def encode_question(tokenizer: Tokenizer, question: str) -> Document:
    """A document of some text that the question is asked of: what stands around it stands around every other."""
    begin(len(question))
    (encoding,) = tokenizer.encode_with_offsets([question], [_ANY_TEXT])
    return Document.of(encoding, sequence=1)


def decode(tokenizer: Tokenizer, token_ids: Int32Array) -> str:
    """The text of token ids, special tokens as their strings."""
    begin(len(token_ids))
    return tokenizer.decode(token_ids.tolist(), skip_special_tokens=False)


# Two texts of a pair are encoded each by itself, and special tokens put around both.
_ANY_TEXT = "a"


def begin(num_chars: int) -> None:
    """A part of the work begins that takes time by its size; to be called before any of it."""
    step(0, num_chars / CHARS_PER_S)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every thread of the library takes memory of its own


def check_chars(prompts: Sequence[str], max_chars: int) -> None:
    """Raises RequestError if a prompt is longer."""
    longest = max(map(len, prompts), default=0)
    if longest > max_chars:
        raise RequestError(f"the prompt has {longest} characters; at most {max_chars} are possible: shorten it")


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], *, add_special_tokens: bool) -> list[Int32Array]:
    return arrays(tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens))


def arrays(token_ids: Sequence[Sequence[int]]) -> list[Int32Array]:
    """Token ids as they are given back."""
    return [np.array(ids, np.int32) for ids in token_ids]


def _protected(content: str | Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> str | list[dict[str, str]]:
    """A message's text, or its parts, protected."""
    if isinstance(content, str):
        return tokenizer.protect(content)
    return [{**part, "text": tokenizer.protect(part["text"])} for part in content]
