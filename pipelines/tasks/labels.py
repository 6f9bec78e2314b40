"""Classification by a causal model that is asked for one of the labels given: a text -> a probability for each label.

A text that is longer than the model is a bad row, unless the task puts windows of it together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from actors.work import Asked
from models.tasks.labels import DEFAULT_QUESTION, fault_of_labels, label_prompt, label_token_ids
from models.tasks.windows import cut_windows
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.kinds import EMPTY_TEXT
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Piece, Row, RowEncoder
from pipelines.task_base.task import Task
from pipelines.tasks.class_columns import COUNTED, class_columns, class_fields
from pipelines.tasks.encoding import TemplateEncoder, TextEncoding, check_head, protected, too_long
from pipelines.tasks.windows import REMEDY, Merging, merged_window_size


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsTask(Task):
    """One of `labels` with the probability of each, from a causal model that is asked `question` of every text.

    `windows` says how the probabilities of a text too long for the model are put together; None makes such a text a bad row.
    """

    kind: ClassVar = "classify"
    counted: ClassVar = COUNTED

    text: str
    labels: tuple[str, ...]
    question: str | None = None
    windows: Merging | None = None
    window: int | None = None
    stride: int | None = None
    allow_special_tokens: bool = False

    @property
    def uses_chat_template(self) -> bool:
        return True

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "task.text", self.text
        if self.question is not None:
            yield "task.question", self.question

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        check_head(facts, "causal", "task.labels", "classify with labels of one's own")
        return LabelEncoder(self, tokenizer, facts)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        del facts
        return class_fields("single_label")

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        del facts
        return class_columns("single_label", self.labels, rows, self.windows)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A row with its question and the prompt for its whole text."""

    row: Row
    question: str
    prompt: str


class LabelEncoder(TemplateEncoder):
    """Rows to prompts after which a causal model's answer is one of the task's labels; `asked` has the labels' tokens.

    A text in windows is cut at the text's own tokens, and each part asked about in a prompt of its own.

    Raises:
        TaskError: templates, labels or windows cannot be used.
    """

    def __init__(self, task: LabelsTask, tokenizer: Tokenizer, facts: TaskFacts) -> None:
        self._task = task
        self._labels = labels = task.labels
        self._tokenizer = tokenizer
        self._text = self.template(task.text, "task.text")
        self._question = self.template(task.question or DEFAULT_QUESTION, "task.question")
        self._label_ids = label_token_ids(tokenizer, labels, eos_token_ids=facts.model.eos_token_ids)
        _check_labels(labels, self._label_ids)
        self.asked = Asked(labels=self._label_ids)
        self._size = merged_window_size(task.windows, task.window, task.stride, facts)
        self._max_prompt = facts.model.max_model_len - max(map(len, self._label_ids))
        self._limit = self._max_prompt if self._size is None else min(self._max_prompt, self._size.window)

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
            return EncodedRow.of_tokens(token_ids)
        if self._size is None:
            num_label_tokens = max(map(len, self._label_ids))
            what = f"the text with its question has {len(token_ids)} tokens and the longest label {num_label_tokens}"
            raise too_long(what, self._max_prompt + num_label_tokens, REMEDY)
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


def _check_labels(labels: Sequence[str], label_ids: Sequence[tuple[int, ...]]) -> None:
    fault = fault_of_labels(labels, label_ids)
    if fault is not None:
        raise TaskError("task.labels", f"was {list(labels)}; {fault}")
