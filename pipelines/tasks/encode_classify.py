"""Classification: a text -> the requests of a sequence-classification head, or of a causal model that is asked for one of its labels.

A text that is longer than the model is a bad row, unless the task puts windows of it together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.tasks.labels import DEFAULT_QUESTION, fault_of_labels, label_prompt, label_token_ids
from models.tasks.windows import cut_windows
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.job import ClassifyTask
from pipelines.kinds import EMPTY_TEXT
from pipelines.tasks.encoding import (
    EncodedRow,
    Int32Array,
    Piece,
    Row,
    TextEncoding,
    of_tokens,
    protected,
    too_long,
)
from pipelines.tasks.facts import ModelFacts
from pipelines.tasks.pace import Pace
from pipelines.tasks.windows import WindowSize
from pipelines.templates.templates import RowTemplate

_REMEDY = "shorten it, set task.windows to mean or max, or raise engine.max_model_len"


class TextEncoder:
    """Rows to the texts of a sequence-classification head, special tokens included; windows keep the special tokens at their ends.

    Raises:
        TaskError: the template or the windows cannot be used.
    """

    def __init__(self, task: ClassifyTask, tokenizer: Tokenizer, facts: ModelFacts) -> None:
        self._task = task
        self._tokenizer = tokenizer
        self._template = RowTemplate(task.text, place="task.text")
        self._size = window_size(task, facts)
        self._limit = facts.max_model_len if self._size is None else self._size.window
        self._num_before, self._num_after = _num_special_tokens(tokenizer)
        self._room = self._limit - self._num_before - self._num_after
        if self._size is not None and self._room <= self._size.stride:
            raise TaskError(
                "task.window",
                f"{self._room} tokens of text in a window are no more than a stride of {self._size.stride}",
            )
        self.columns = self._template.columns
        self.required_columns = self._template.required_columns
        self.reads_all = self._template.reads_all
        self._encoding = TextEncoding(render=self._rendered, encode=self._encode, check=self._checked, num_chars=len)

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        return self._encoding.of_rows(rows, pace)

    def _rendered(self, row: Row) -> str:
        return self._template.render(row if self._task.allow_special_tokens else protected(row, self._tokenizer))

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self._tokenizer.encode_batch(texts)

    def _checked(self, text: str, token_ids: list[int]) -> EncodedRow:
        del text
        if len(token_ids) <= self._num_before + self._num_after:
            raise RowError(EMPTY_TEXT, "the text has no tokens to classify")
        if len(token_ids) <= self._limit:
            return of_tokens(token_ids)
        if self._size is None:
            raise too_long(f"the text has {len(token_ids)} tokens", self._limit, _REMEDY)
        return self._windowed(np.array(token_ids, np.int32), self._size.stride)

    def _windowed(self, token_ids: Int32Array, overlap: int) -> EncodedRow:
        after = len(token_ids) - self._num_after
        before, text, rest = np.split(token_ids, [self._num_before, after])
        windows = cut_windows(len(text), room=self._room, overlap=overlap)
        return EncodedRow(
            pieces=tuple(
                Piece(token_ids=np.concatenate([before, text[window.start : window.end], rest])) for window in windows
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A row with its question and the prompt for its whole text."""

    row: Row
    question: str
    prompt: str


class LabelEncoder:
    """Rows to prompts after which a causal model's answer is one of the task's labels; `label_ids` are the labels' tokens.

    A text in windows is cut at the text's own tokens, and each part asked about in a prompt of its own.

    Raises:
        TaskError: templates, labels or windows cannot be used.
    """

    def __init__(self, task: ClassifyTask, labels: tuple[str, ...], tokenizer: Tokenizer, facts: ModelFacts) -> None:
        self._task = task
        self._labels = labels
        self._tokenizer = tokenizer
        self._text = RowTemplate(task.text, place="task.text")
        self._question = RowTemplate(task.question or DEFAULT_QUESTION, place="task.question")
        self.label_ids = label_token_ids(tokenizer, labels, eos_token_ids=facts.eos_token_ids)
        _check_labels(labels, self.label_ids)
        self._size = window_size(task, facts)
        self._max_prompt = facts.max_model_len - max(map(len, self.label_ids))
        self._limit = self._max_prompt if self._size is None else min(self._max_prompt, self._size.window)
        self.columns = self._text.columns | self._question.columns
        self.required_columns = self._text.required_columns | self._question.required_columns
        self.reads_all = self._text.reads_all or self._question.reads_all

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        encoding = TextEncoding(
            render=self._ask,
            encode=self._encode,
            check=lambda asked, token_ids: self._checked(asked, token_ids, pace),
            num_chars=lambda asked: len(asked.prompt),
        )
        return encoding.of_rows(rows, pace)

    def _ask(self, row: Row) -> _Asked:
        shown = row if self._task.allow_special_tokens else protected(row, self._tokenizer)
        text = self._text.render(shown)
        if not text:
            raise RowError(EMPTY_TEXT, "the text is empty")
        question = self._question.render(shown)
        return _Asked(row=row, question=question, prompt=self._prompt(text, question))

    def _prompt(self, text: str, question: str) -> str:
        return label_prompt(self._tokenizer, text=text, question=question, labels=self._labels)

    def _encode(self, asked: list[_Asked]) -> list[list[int]]:
        return self._encode_prompts([one.prompt for one in asked])

    def _encode_prompts(self, prompts: list[str]) -> list[list[int]]:
        return self._tokenizer.encode_batch(prompts, add_special_tokens=self._tokenizer.chat_template is None)

    def _checked(self, asked: _Asked, token_ids: list[int], pace: Pace) -> EncodedRow:
        if len(token_ids) <= self._limit:
            return of_tokens(token_ids)
        if self._size is None:
            num_label_tokens = max(map(len, self.label_ids))
            what = f"the text with its question has {len(token_ids)} tokens and the longest label {num_label_tokens}"
            raise too_long(what, self._max_prompt + num_label_tokens, _REMEDY)
        return self._windowed(asked, self._size.stride, pace)

    def _windowed(self, asked: _Asked, overlap: int, pace: Pace) -> EncodedRow:
        text = self._text.render(asked.row)
        offsets = self._text_offsets(text)
        room = self._limit - len(self._encode_prompts([self._prompt("", asked.question)])[0])
        while room > overlap:
            windows = cut_windows(len(offsets), room=room, overlap=overlap)
            parts = [text[offsets[window.start][0] : offsets[window.end - 1][1]] for window in windows]
            pace.at_more_text(len(parts) * len(asked.prompt))
            prompts = self._encode_prompts([self._prompt(self._shown(part), asked.question) for part in parts])
            excess = max(map(len, prompts)) - self._limit
            if excess <= 0:
                return EncodedRow(pieces=tuple(Piece(token_ids=np.array(prompt, np.int32)) for prompt in prompts))
            room -= excess  # a part can have a token more beside its neighbours in the prompt than in the text
        raise too_long(
            f"the question and the labels leave {max(room, 0)} tokens of a window to the text, which is not more than the stride",
            self._limit,
            "shorten the question, raise task.window or lower task.stride",
        )

    def _shown(self, part: str) -> str:
        return part if self._task.allow_special_tokens else self._tokenizer.protect(part)

    def _text_offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters of each token of the text on its own [T]."""
        encoding = self._tokenizer.encode_with_offsets([text])[0]
        pairs = zip(encoding.offsets, encoding.sequence_ids, strict=True)
        return [offset for offset, sequence in pairs if sequence is not None]


def window_size(task: ClassifyTask, facts: ModelFacts) -> WindowSize | None:
    """The windows a classification asks for, or None.

    Raises:
        TaskError: a size that cannot be used, or one without `windows`.
    """
    if task.windows is not None:
        return WindowSize.of(window=task.window, stride=task.stride, max_model_len=facts.max_model_len)
    for name in ("window", "stride"):
        if getattr(task, name) is not None:
            raise TaskError(f"task.{name}", "needs task.windows, mean or max: how a text's windows are put together")
    return None


def _num_special_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    """How many special tokens the tokenizer puts before a text, and after it."""
    bare, whole = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    num_special = len(whole) - len(bare)
    before = next(start for start in range(num_special + 1) if whole[start : start + len(bare)] == bare)
    return before, num_special - before


def _check_labels(labels: Sequence[str], label_ids: Sequence[tuple[int, ...]]) -> None:
    fault = fault_of_labels(labels, label_ids)
    if fault is not None:
        raise TaskError("task.labels", f"was {list(labels)}; {fault}")
