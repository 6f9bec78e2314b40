"""Extraction with a question-answering head: a text in overlapping windows of tokens, and a question -> the answer, if it has one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from actors.work import FloatArray
from models.tasks.answers import find_answer
from models.tasks.document import Document
from models.text.tokenizer import Encoding, Tokenizer
from pipelines.errors import RowError
from pipelines.kinds import EMPTY_TEXT
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.compared import Compared, Said
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Row, RowEncoder
from pipelines.task_base.task import Counted, Task
from pipelines.tasks.documents import END, SCORE, START, TEXT, document_windows, offsets_of, piece_of
from pipelines.tasks.encoding import TemplateEncoder, TextEncoding, check_head
from pipelines.tasks.windows import WindowSize

ANSWER = pa.struct([START, END, TEXT, SCORE])


_OUTCOMES = ("answer found", "no answer")


def _found(row: Mapping[str, Any]) -> Iterable[tuple[str, float | None]]:
    answer = row["answer"]
    found, none = _OUTCOMES
    return [(none, None) if answer is None else (found, answer["score"])]


def _said_in(row: Mapping[str, Any]) -> Said:
    answer = row["answer"]
    if answer is None:
        return Said(answers=[])
    return Said(answers=[[answer["start"], answer["end"], answer["text"]]], numbers={"score": answer["score"]})


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerTask(Task):
    """The answer to `question` that a question-answering head finds in a text.

    `window` and `stride` are tokens: the length of a window and the overlap between two neighbours.
    """

    kind: ClassVar = "extract"
    template_keys: ClassVar = ("text", "question")
    counted: ClassVar = Counted(title="Answers", columns=("answer",), labels_in=_found, known=lambda *_: _OUTCOMES)
    compared: ClassVar = Compared(what="answers", columns=("answer",), said_in=_said_in)

    text: str
    question: str
    window: int | None = None
    stride: int | None = None

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        check_head(facts, "question-answering", "task.question", "extract with a question")
        return QuestionEncoder(self, tokenizer, facts)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        del facts
        return [pa.field("answer", ANSWER)]

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        del facts
        return [pa.array(_answers(rows), ANSWER)]

    def why_no_confidence(self) -> str | None:
        return None

    def confidences(self, facts: TaskFacts, rows: AnsweredRows) -> FloatArray:
        """The answer's score; 0 where there is none, which has no score: another model is asked then."""
        del facts
        scores = [0.0 if answer is None else answer["score"] for answer in _answers(rows)]
        return np.array(scores, np.float32)


class QuestionEncoder(TemplateEncoder):
    """Rows to question and text for a question-answering head, the question whole in every window, as `AutoTokenizer(question, text)`.

    Raises:
        TaskError: templates or windows cannot be used.
    """

    def __init__(self, task: AnswerTask, tokenizer: Tokenizer, facts: TaskFacts) -> None:
        self._tokenizer = tokenizer
        self._text = self.template(task.text, "task.text")
        self._question = self.template(task.question, "task.question")
        self._size = WindowSize.of(window=task.window, stride=task.stride, max_model_len=facts.model.max_model_len)
        self._encoding = TextEncoding(
            render=self._rendered, encode=self._encode, check=self._windowed, num_chars=_num_chars
        )

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        return self._encoding.of_rows(rows, pace)

    def _rendered(self, row: Row) -> tuple[str, str]:
        question, text = self._question.render(row), self._text.render(row)
        if not question:
            raise RowError(EMPTY_TEXT, "the question is empty")
        return question, text

    def _encode(self, pairs: list[tuple[str, str]]) -> Sequence[Encoding]:
        return self._tokenizer.encode_with_offsets([question for question, _ in pairs], [text for _, text in pairs])

    def _windowed(self, asked: tuple[str, str], encoding: Encoding) -> EncodedRow:
        text = asked[1]
        document = Document.of(encoding, sequence=1)
        parts = [document.part(window) for window in document_windows(document, self._size)]
        return EncodedRow(pieces=tuple(map(piece_of, parts)), text=text)


def _num_chars(asked: tuple[str, str]) -> int:
    return len(asked[0]) + len(asked[1])


def _answers(rows: AnsweredRows) -> list[dict[str, Any] | None]:
    return [_answer(rows, requests, text) for requests, text in zip(rows.by_row(), rows.texts, strict=True)]


def _answer(rows: AnsweredRows, requests: slice, text: str) -> dict[str, Any] | None:
    windows = zip(rows.logits[requests], map(offsets_of, rows.requests[requests]), strict=True)
    answer = find_answer(windows, text)
    return None if answer is None else asdict(answer)
