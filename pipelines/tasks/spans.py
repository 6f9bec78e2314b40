"""Extraction with a token-classification head: a text in overlapping windows of tokens -> its spans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from models.tasks.document import Document
from models.tasks.spans import Span, TaggedTokens, TagScheme, find_spans
from models.text.tokenizer import Encoding, Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.compared import Compared, Said
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.judged import Claim, Judged
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Row, RowEncoder
from pipelines.task_base.task import Counted, Task
from pipelines.tasks.documents import END, SCORE, START, TEXT, document_windows, offsets_of, piece_of
from pipelines.tasks.encoding import TemplateEncoder, TextEncoding, check_head
from pipelines.tasks.windows import WindowSize

SPANS = pa.list_(pa.struct([START, END, pa.field("label", pa.string()), TEXT, SCORE]))


def _claims_in(row: Mapping[str, Any]) -> Sequence[Claim]:
    return [
        Claim(label=span["label"], score=span["score"], place=(span["start"], span["end"])) for span in row["spans"]
    ]


def _said_in(row: Mapping[str, Any]) -> Said:
    spans = [([span["start"], span["end"], span["label"]], span["score"]) for span in row["spans"]]
    return Said(answers=[span for span, _ in spans], numbers={str(span): score for span, score in spans})


@dataclass(frozen=True, kw_only=True, slots=True)
class SpansTask(Task):
    """The spans of a text that a token-classification head finds.

    `window` and `stride` are tokens: the length of a window and the overlap between two neighbours.
    """

    kind: ClassVar = "extract"
    template_keys: ClassVar = ("text",)
    counted: ClassVar = Counted(
        title="Spans by label",
        columns=("spans",),
        labels_in=lambda row: [(span["label"], span["score"]) for span in row["spans"]],
        known=lambda _, class_names: TagScheme.of(class_names).labels,
    )
    judged: ClassVar = Judged(columns=("spans",), form_in=lambda _: "spans", claims_in=_claims_in)
    compared: ClassVar = Compared(what="spans", columns=("spans",), said_in=_said_in)

    text: str
    window: int | None = None
    stride: int | None = None

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        if facts.model.head == "question-answering":
            raise TaskError("task.question", "the checkpoint has a question-answering head, which needs a question")
        check_head(facts, "token-classification", "task.kind", "extract")
        return DocumentEncoder(self, tokenizer, facts)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        del facts
        return [pa.field("spans", SPANS)]

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        tags = facts.model.class_names
        spans = find_spans(_tagged(rows, len(tags)), TagScheme.of(tags), rows.texts)
        return [pa.array([[_span(span) for span in of_row] for of_row in spans], SPANS)]

    def why_no_confidence(self) -> str:
        return "extract without a question gives every span a score, and a text none"


class DocumentEncoder(TemplateEncoder):
    """Rows to the texts of a token-classification head; every token of a text is answered for by one window.

    Raises:
        TaskError: the template or the windows cannot be used.
    """

    def __init__(self, task: SpansTask, tokenizer: Tokenizer, facts: TaskFacts) -> None:
        self._tokenizer = tokenizer
        self._template = self.template(task.text, "task.text")
        self._size = WindowSize.of(window=task.window, stride=task.stride, max_model_len=facts.model.max_model_len)
        room = self._size.window - len(tokenizer.encode(""))
        if room <= self._size.stride:
            raise TaskError(
                "task.window", f"{room} tokens of text in a window are no more than a stride of {self._size.stride}"
            )
        self._encoding = TextEncoding(
            render=self._template.render, encode=self._encode, check=self._windowed, num_chars=len
        )

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        return self._encoding.of_rows(rows, pace)

    def _encode(self, texts: list[str]) -> Sequence[Encoding]:
        return self._tokenizer.encode_with_offsets(texts)

    def _windowed(self, text: str, encoding: Encoding) -> EncodedRow:
        document = Document.of(encoding, sequence=0)
        parts = [document.owned_part(window) for window in document_windows(document, self._size)]
        return EncodedRow(pieces=tuple(map(piece_of, parts)), text=text)


def _tagged(rows: AnsweredRows, num_tags: int) -> TaggedTokens:
    """Every token of every text, once, with its likeliest tag."""
    offsets = np.concatenate([np.empty((0, 2), np.int32), *map(offsets_of, rows.requests)])  # [T, 2] over all requests
    logits = np.concatenate([np.empty((0, num_tags), np.float32), *rows.logits])  # [T, tags]
    lengths = [len(request.token_ids) for request in rows.requests]
    return TaggedTokens.of(np.repeat(rows.rows, lengths), offsets, logits)


def _span(span: Span) -> dict[str, Any]:
    return {"start": span.start, "end": span.end, "label": span.label, "text": span.text, "score": span.score}
