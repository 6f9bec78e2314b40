"""Labels as what a causal model would have to write: their tokens behind a prompt.

Prompt and label are tokenized together. The tokens with which all labels of a prompt begin alike, as far as they are the
prompt's own, are what is computed once; the rest of each label is scored. So a blank at a prompt's end belongs to the
labels where the vocabulary has them with one, and a label that changes the prompt's last token is scored from there on,
and with it all others.

A label may be followed by the token that the model stops with. It is where one label begins another, whose tokens could
never be likelier than its own: then all are compared as whole answers. Elsewhere it labels worse (docs/labelling.md), since a
model that goes on with a sentence behind the label is no less sure of the label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, Self

from models.errors import RequestError, TemplateError
from models.text.continuations import Continuations
from models.text.tokenizer import Tokenizer

LabelIds = tuple[tuple[int, ...], ...]
"""The token ids of each label."""

Stops = Literal["always", "never", "where needed"]
"""Whether the stop token follows labels; it is needed where one label begins another."""

_STOPS: Final[Mapping[bool | None, Stops]] = {None: "where needed", True: "always", False: "never"}

KEPT_ENDS: Final = 16
"""Ends of prompts behind which labels' tokens are known: templates have one each, unless a row stands at their end."""

KEPT_CHARS: Final = 1 << 10
"""Characters of an end that is kept: a longer one is hardly another prompt's too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What is computed once for all labels, at least one token, and what each adds to it."""

    prompt: list[int]
    labels: LabelIds


class LabelTokens:
    """The tokens of `texts`, which is what of each label is written, behind any prompt. `stop` follows each of them,
    `stops` says where. `max_chars` bounds what is encoded behind a prompt that the tokenizer has to read again with each label, and
    what is behind all prompts of ends that are not known, together; None: nothing does."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        *,
        stop: tuple[int, ...],
        stops: Stops = "where needed",
        max_chars: int | None = None,
    ) -> None:
        self._tokenizer, self._texts, self._max_chars = tokenizer, texts, max_chars
        self._stop, self._stops = stop, stops
        self._num_chars = 0  # that were encoded for prompts whose ends were not known
        self._known: list[_KnownEnd] = []

    @classmethod
    def asked(
        cls,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        *,
        label_stop: bool | None,
        eos_token_ids: Sequence[int],
        is_chat: bool,
        max_chars: int | None = None,
    ) -> Self:
        """With the stop token that `label_stop` asks for: behind each label, behind none, or (None) where one is needed."""
        stop = () if label_stop is False else stop_tokens(tokenizer, eos_token_ids, is_chat=is_chat)
        return cls(tokenizer, texts, stop=stop, stops=_STOPS[label_stop], max_chars=max_chars)

    def behind(self, prompt: str, token_ids: Sequence[int]) -> Scored:
        """The labels behind a prompt of these token ids (`prompt_tokens`).

        Raises:
            RequestError: nothing of the prompt is there before the labels, or more than `max_chars` characters would have to
                be encoded for this prompt, or for those before it and this one, together.
        """
        known = next((end.labels for end in self._known if end.is_of(prompt, token_ids)), None)
        return (known or self._new(prompt, token_ids)).behind(token_ids)

    def always_behind(self, prompt: str) -> "LabelsBehind":
        """The labels behind every prompt that ends as this one does.

        Raises:
            RequestError: with this tokenizer more than `max_chars` characters would have to be encoded.
        """
        return self._found(self._tokenizer.encode_continued(prompt, self._texts, max_chars=self._max_chars))

    def _new(self, prompt: str, token_ids: Sequence[int]) -> "LabelsBehind":
        continued = self._tokenizer.encode_continued(prompt, self._texts, max_chars=self._max_chars)
        self._count(len(continued.tail) * len(self._texts) + sum(map(len, self._texts)))
        labels = self._found(continued)
        end = _KnownEnd.of(continued, token_ids, labels)
        if end.token_ids and len(end.text) <= KEPT_CHARS:
            self._known = [end, *self._known[: KEPT_ENDS - 1]]
        return labels

    def _count(self, num_chars: int) -> None:
        """Raises RequestError once all prompts that end differently have taken more than `max_chars` characters."""
        self._num_chars += num_chars
        if self._max_chars is not None and self._num_chars > self._max_chars:
            raise RequestError(
                f"{len(self._texts)} labels behind prompts that end differently are {self._num_chars} characters or more to tokenize; "
                f"at most {self._max_chars} are possible: end the prompts alike, or give fewer of them"
            )

    def _found(self, continued: Continuations) -> "LabelsBehind":
        stop = self._stop if self._is_stopped(continued.added) else ()
        return LabelsBehind(num_dropped=continued.num_dropped, labels=tuple((*ids, *stop) for ids in continued.added))

    def _is_stopped(self, labels: LabelIds) -> bool:
        return self._stops == "always" or (self._stops == "where needed" and one_begins_another(labels))


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsBehind:
    """The labels behind prompts of one end; the last `num_dropped` tokens of these are others with a label behind them."""

    num_dropped: int
    labels: LabelIds

    def behind(self, token_ids: Sequence[int]) -> Scored:
        """Raises RequestError if there is nothing before the labels."""
        num_kept = len(token_ids) - self.num_dropped
        if num_kept < 1:
            raise RequestError("the prompt has no token before the labels; write something before them")
        return Scored(prompt=list(token_ids[:num_kept]), labels=self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class _KnownEnd:
    """An end of prompts behind which the labels are known: its text, and as many of its tokens as are a prompt's own. Where the text
    begins they may be others: a tokenizer can treat the first character of a text in a way of its own."""

    text: str
    token_ids: tuple[int, ...]
    labels: LabelsBehind

    @classmethod
    def of(cls, continued: Continuations, token_ids: Sequence[int], labels: LabelsBehind) -> "_KnownEnd":
        """The end of a prompt of these tokens."""
        pairs = enumerate(zip(reversed(continued.tail_ids), reversed(token_ids), strict=False))
        longest = min(len(continued.tail_ids), len(token_ids))
        num_same = next((place for place, (one, other) in pairs if one != other), longest)
        own = continued.tail_ids[len(continued.tail_ids) - num_same :]
        return cls(text=continued.tail, token_ids=own, labels=labels)

    def is_of(self, prompt: str, token_ids: Sequence[int]) -> bool:
        num_own = len(self.token_ids)
        return prompt.endswith(self.text) and tuple(token_ids[max(0, len(token_ids) - num_own) :]) == self.token_ids


def num_computed(labels: LabelIds) -> int:
    """How many tokens of labels are computed behind a prompt, at most: the last of each is scored alone."""
    return sum(len(ids) - 1 for ids in labels)


def one_begins_another(labels: LabelIds) -> bool:
    """Whether a label has the tokens with which another, longer one begins."""
    ordered = sorted(labels)  # where one begins any, it begins its neighbour
    return any(len(one) < len(other) and other[: len(one)] == one for one, other in pairwise(ordered))


def fault_of_labels(labels: Sequence[str], label_ids: LabelIds) -> str | None:
    """Why labels cannot be told from each other, None if they can."""
    if len(set(labels)) < len(labels):
        return "a label can stand there only once"
    if len(set(label_ids)) < len(labels) or not all(labels) or not all(label_ids):
        return "every label needs text that the model can tell from the others'"
    return None


def stop_tokens(tokenizer: Tokenizer, eos_token_ids: Sequence[int], *, is_chat: bool) -> tuple[int, ...]:
    """The token that the model stops with behind an answer, none if it has none."""
    return _chat_stop(tokenizer, eos_token_ids) if is_chat else _plain_stop(tokenizer, eos_token_ids)


def _plain_stop(tokenizer: Tokenizer, eos_token_ids: Sequence[int]) -> tuple[int, ...]:
    if tokenizer.eos_token_id is not None and (not eos_token_ids or tokenizer.eos_token_id in eos_token_ids):
        return (tokenizer.eos_token_id,)
    return tuple(eos_token_ids[:1])


def _chat_stop(tokenizer: Tokenizer, eos_token_ids: Sequence[int]) -> tuple[int, ...]:
    """The stop token that the chat template itself writes after an answer: of several, the first is often another one. A template
    that takes no answers has none of its own."""
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "this"}]
    try:
        text = tokenizer.render_chat(messages, add_generation_prompt=False, enable_thinking=False)
    except TemplateError:
        return _plain_stop(tokenizer, eos_token_ids)
    written = tokenizer.encode(text, add_special_tokens=False)
    stops = [token_id for token_id in written if token_id in eos_token_ids]
    return (stops[-1],) if stops else _plain_stop(tokenizer, eos_token_ids)


def prompt_tokens(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts that are no chat, as the tokenizer begins a text. Special tokens that it puts behind one would stand
    before the label, and are left out.

    Raises:
        RequestError: a prompt is not Unicode.
    """
    _, num_after = tokenizer.num_special_around
    return [ids[: len(ids) - num_after] for ids in tokenizer.encode_batch(prompts)]
