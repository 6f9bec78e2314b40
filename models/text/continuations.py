"""The tokens with which texts go on from a prompt, in time that grows with the texts: each is encoded behind a short end of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import tokenizers

from models.errors import RequestError
from models.text.cuts import Cuts

Encode = Callable[[Sequence[str]], list[list[int]]]

BATCH_CHARS = 1 << 16
"""Characters that are encoded at a time: the library's encodings take hundreds of bytes for each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What texts are put behind: its text, the library's encoding of it without special tokens around it, and where it
    may be cut; None: nowhere."""

    text: str
    encoding: tokenizers.Encoding
    cuts: Cuts | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuations:
    """How several texts go on from one prompt. `tail` is an end of the prompt that stands for all of it, and `tail_ids`
    are its tokens. All but the last `num_dropped` of these are the beginning of prompt and text together, whichever
    text it is; `added` are the tokens from there on, one list a text."""

    tail: str
    tail_ids: tuple[int, ...]
    num_dropped: int
    added: tuple[tuple[int, ...], ...]


def continuations(
    encode: Encode, prompt: Prompt, texts: Sequence[str], *, max_chars: int | None = None
) -> Continuations:
    """How texts, of which there is one at least, go on from a prompt when `encode` reads both together.

    `encode` makes token ids without special tokens around them. Where no end of the prompt is known to stand for all of it, the whole is
    encoded with every text, of together at most `max_chars`.

    Raises:
        RequestError: that would be more.
    """
    tail = _tail(encode, prompt)
    num_chars = len(tail) * len(texts)
    if max_chars is not None and num_chars > max_chars:
        raise RequestError(
            f"{len(texts)} texts behind a prompt of {len(tail)} characters are {num_chars} characters for this tokenizer, which "
            f"has to read the prompt again with each; at most {max_chars} are possible: give fewer or shorter ones"
        )
    (before,) = encode([tail])
    together = [ids for batch in batches(tail + text for text in texts) for ids in encode(batch)]
    num_common = min(_num_common(before, ids) for ids in together)
    return Continuations(
        tail=tail,
        tail_ids=tuple(before),
        num_dropped=len(before) - num_common,
        added=tuple(tuple(ids[num_common:]) for ids in together),
    )


def _num_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def batches(texts: Iterable[str], max_chars: int = BATCH_CHARS) -> Iterator[list[str]]:
    """Neighbouring texts of together at most so many characters, or a longer one alone."""
    batch: list[str] = []
    num_chars = 0
    for text in texts:
        if batch and num_chars + len(text) > max_chars:
            yield batch
            batch, num_chars = [], 0
        batch.append(text)
        num_chars += len(text)
    if batch:
        yield batch


def _tail(encode: Encode, prompt: Prompt) -> str:
    """The shortest known end of a prompt that stands for it, perhaps all of it."""
    if prompt.cuts is None:
        return prompt.text
    tail = prompt.cuts.tail(prompt.text, prompt.encoding)
    if tail is not None:
        return tail
    tail = prompt.cuts.pair_tail(prompt.text, prompt.encoding)
    if tail is None:
        return prompt.text
    of_tail, of_all = encode([tail, prompt.text])
    # BPE joins two neighbours or not whatever stands further off: what comes after the same token is the same.
    return tail if of_tail[-1:] == of_all[-1:] else prompt.text
