"""Classification with a sequence-classification head: a text -> a score for each of the checkpoint's own classes.

A text that is longer than the model is a bad row, unless the task puts windows of it together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from models.tasks.labels import outcome_text
from models.tasks.windows import cut_windows
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.kinds import EMPTY_TEXT
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Int32Array, Piece, Row, RowEncoder
from pipelines.task_base.task import Task
from pipelines.tasks.class_columns import (
    COMPARED,
    COUNTED,
    JUDGED,
    Float64Array,
    FloatArray,
    class_columns,
    class_confidences,
    class_fields,
    row_values,
    stacked,
)
from pipelines.tasks.encoding import TemplateEncoder, TextEncoding, check_head, protected, too_long
from pipelines.tasks.windows import REMEDY, Merging, merged_window_size


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifyTask(Task):
    """A label with every class's probability, from a classification head.

    `windows` says how the probabilities of a text too long for the model are put together; None makes such a text a bad row.
    """

    kind: ClassVar = "classify"
    template_keys: ClassVar = ("text",)
    counted: ClassVar = COUNTED
    judged: ClassVar = JUDGED
    compared: ClassVar = COMPARED

    text: str
    windows: Merging | None = None
    window: int | None = None
    stride: int | None = None
    allow_special_tokens: bool = False

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        if facts.model.head == "causal":
            raise TaskError("task.labels", "the checkpoint is a causal model, which needs the labels to choose from")
        check_head(facts, "sequence-classification", "task.kind", "classify")
        return TextEncoder(self, tokenizer, facts)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        return class_fields(facts.model.outcome)

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        return class_columns(facts.model.outcome, facts.model.class_names, self._values(facts, rows))

    def why_no_confidence(self) -> str | None:
        return None

    def confidences(self, facts: TaskFacts, rows: AnsweredRows) -> FloatArray:
        return class_confidences(facts.model.outcome, self._values(facts, rows))

    def _values(self, facts: TaskFacts, rows: AnsweredRows) -> Float64Array:
        logits = stacked(rows, len(facts.model.class_names))
        return row_values(facts.model.outcome, logits, rows, self.windows)

    def meaning_of_scores(self, facts: TaskFacts) -> str:
        return outcome_text(facts.model.outcome, facts.model.class_names)

    def caution(self, facts: TaskFacts) -> str | None:
        return self.meaning_of_scores(facts) if facts.model.outcome == "regression" else None


class TextEncoder(TemplateEncoder):
    """Rows to the texts of a sequence-classification head, special tokens included; windows keep the special tokens at their ends.

    Raises:
        TaskError: the template or the windows cannot be used.
    """

    def __init__(self, task: ClassifyTask, tokenizer: Tokenizer, facts: TaskFacts) -> None:
        self._task = task
        self._tokenizer = tokenizer
        self._template = self.template(task.text, "task.text")
        self._size = merged_window_size(task.windows, task.window, task.stride, facts)
        self._limit = facts.model.max_model_len if self._size is None else self._size.window
        self._num_before, self._num_after = tokenizer.num_special_around
        self._room = self._limit - self._num_before - self._num_after
        if self._size is not None and self._room <= self._size.stride:
            raise TaskError(
                "task.window",
                f"{self._room} tokens of text in a window are no more than a stride of {self._size.stride}",
            )
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
            return EncodedRow.of_tokens(token_ids)
        if self._size is None:
            raise too_long(f"the text has {len(token_ids)} tokens", self._limit, REMEDY)
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
