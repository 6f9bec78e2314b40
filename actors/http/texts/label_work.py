"""What is done with texts that are to be labelled, in the processes of `actors.http.texts.text_pool`: prompts, and labels behind them.

As in `text_work` all values are plain, and text that spells special tokens stays text.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.http.texts.text_work import Int32Array, Message, arrays, begin, chat_prompt, check_chars
from models.tasks.calibration import CONTENT_FREE
from models.tasks.label_prompt import BEFORE_LABEL, LabelledText, LabelPrompt, described, written_label
from models.tasks.label_tokens import LabelIds, LabelTokens, fault_of_labels, prompt_tokens
from models.text.tokenizer import Tokenizer

MAX_LABEL_CHARS = 1 << 20
"""Characters that are encoded for the labels of a request, where a tokenizer has to read the prompt again with each, or prompts
end differently."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnLabels:
    """A request's labels, and what of them is scored: `label_texts` where that is not the label, and whether the stop token follows
    (None: where one label begins another)."""

    labels: tuple[str, ...]
    label_texts: Mapping[str, str] = field(default_factory=dict)
    label_stop: bool | None = None

    def tokens(
        self, tokenizer: Tokenizer, eos_token_ids: Sequence[int], *, before: str = BEFORE_LABEL, is_chat: bool = False
    ) -> LabelTokens:
        """Their tokens, with what stands `before` a label that has no text of its own.

        Raises:
            RequestError: one names a special token that cannot be kept from being one.
        """
        written = [tokenizer.protect(written_label(label, self.label_texts, before=before)) for label in self.labels]
        return LabelTokens.asked(
            tokenizer,
            written,
            label_stop=self.label_stop,
            eos_token_ids=eos_token_ids,
            is_chat=is_chat,
            max_chars=MAX_LABEL_CHARS,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelQuestion:
    """What every text of a request is asked with the built-in prompt. An example has one of the labels."""

    own: OwnLabels
    question: str | None = None
    descriptions: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[LabelledText, ...] = ()

    def prompts(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
        """The prompts of texts, which are protected already."""
        protect, label_texts = tokenizer.protect, self.own.label_texts
        asked = None if self.question is None else protect(self.question)
        shown = described(self.descriptions, label_texts)
        prompt = LabelPrompt(descriptions={protect(label): protect(text) for label, text in shown.items()})
        examples = [
            LabelledText(text=protect(each.text), label=protect(written_label(each.label, label_texts)))
            for each in self.examples
        ]
        return [prompt.of(text, asked, examples) for text in texts]


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedLabels:
    """A request's labels as answers: the token ids of each, how many of a prompt's last tokens they change, and how many
    tokens a prompt has around its text."""

    token_ids: LabelIds
    num_dropped: int
    num_around: int
    fault: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledPrompt:
    """A prompt of one's own: what of it is computed once, and the labels behind that; `fault` says why these cannot be told from each
    other."""

    token_ids: Int32Array
    labels: LabelIds
    fault: str | None


def encode_labels(
    tokenizer: Tokenizer, question: LabelQuestion, eos_token_ids: Sequence[int], max_chars: int
) -> AskedLabels:
    """What all texts of a request share; `fault` says why labels cannot be told from each other.

    Raises:
        RequestError: the labels are too much for this tokenizer, what is around a text has more than `max_chars` characters, or
            something is not Unicode.
    """
    labels = question.own.labels
    sample, around_it = question.prompts(tokenizer, ["A text.", ""])
    check_chars([around_it], max_chars)
    again = min(len(sample) * len(labels), MAX_LABEL_CHARS)  # a tokenizer may have to read it with each label
    begin(sum(map(len, labels)) + sum(map(len, question.own.label_texts.values())) + len(sample) + again)
    behind = question.own.tokens(tokenizer, eos_token_ids).always_behind(sample)
    (around,) = encode_label_prompts(tokenizer, [""], question, behind.num_dropped, max_chars)
    return AskedLabels(
        token_ids=behind.labels,
        num_dropped=behind.num_dropped,
        num_around=len(around),
        fault=fault_of_labels(labels, behind.labels),
    )


def encode_label_prompts(
    tokenizer: Tokenizer, texts: Sequence[str], question: LabelQuestion, num_dropped: int, max_chars: int
) -> list[Int32Array]:
    """Token ids of the prompt after which one of the labels is the answer, for each text, without the last `num_dropped`, which are
    others with a label behind them.

    Raises:
        RequestError: a prompt has more than `max_chars` characters, or is not Unicode.
    """
    return _encoded(tokenizer, list(map(tokenizer.protect, texts)), question, num_dropped, max_chars)


def encode_content_free(
    tokenizer: Tokenizer, question: LabelQuestion, num_dropped: int, max_chars: int
) -> list[Int32Array]:
    """The same of the texts that say nothing, as a job's `calibrate: prior` asks about them.

    Raises:
        RequestError: as `encode_label_prompts` does.
    """
    return _encoded(tokenizer, CONTENT_FREE, question, num_dropped, max_chars)


def encode_own_prompts(
    tokenizer: Tokenizer, prompts: Sequence[str], own: OwnLabels, eos_token_ids: Sequence[int], max_chars: int
) -> list[LabelledPrompt]:
    """Prompts of one's own, and the labels where each ends.

    Raises:
        RequestError: a prompt has more than `max_chars` characters, no token before the labels, or is not Unicode; or the labels of
            all are more than `MAX_LABEL_CHARS` characters.
    """
    check_chars(prompts, max_chars)
    begin(sum(map(len, prompts)) + _num_label_chars(own, prompts))
    protected = list(map(tokenizer.protect, prompts))
    tokens = own.tokens(tokenizer, eos_token_ids, before="")
    return [
        _labelled(tokens, own, prompt, ids)
        for prompt, ids in zip(protected, prompt_tokens(tokenizer, protected), strict=True)
    ]


def encode_labelled_messages(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    now: dt.datetime,
    own: OwnLabels,
    eos_token_ids: Sequence[int],
    max_chars: int,
) -> LabelledPrompt:
    """The prompt of messages to which a label is the answer.

    Raises:
        TemplateError: there is no chat template, or it refuses these messages, or would lose them.
        RequestError: as `encode_own_prompts` does.
    """
    prompt = chat_prompt(tokenizer, messages, variables, True, now, max_chars)
    begin(len(prompt) + _num_label_chars(own, [prompt]))
    tokens = own.tokens(tokenizer, eos_token_ids, before="", is_chat=True)
    return _labelled(tokens, own, prompt, tokenizer.encode(prompt, add_special_tokens=False))


def _num_label_chars(own: OwnLabels, prompts: Sequence[str]) -> int:
    """Characters that are encoded for the labels, at most: each is read behind each prompt."""
    num_each = sum(len(written_label(label, own.label_texts, before="")) for label in own.labels)
    return min(MAX_LABEL_CHARS, sum(num_each + len(own.labels) * len(prompt) for prompt in prompts))


def _encoded(
    tokenizer: Tokenizer, protected: Sequence[str], question: LabelQuestion, num_dropped: int, max_chars: int
) -> list[Int32Array]:
    prompts = question.prompts(tokenizer, protected)
    check_chars(prompts, max_chars)
    begin(sum(map(len, prompts)))
    return arrays([ids[: len(ids) - num_dropped] for ids in prompt_tokens(tokenizer, prompts)])


def _labelled(tokens: LabelTokens, own: OwnLabels, prompt: str, token_ids: Sequence[int]) -> LabelledPrompt:
    scored = tokens.behind(prompt, token_ids)
    (ids,) = arrays([scored.prompt])
    return LabelledPrompt(token_ids=ids, labels=scored.labels, fault=fault_of_labels(own.labels, scored.labels))
