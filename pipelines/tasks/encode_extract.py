"""Extraction: documents in overlapping windows of tokens, with the characters that each token stands for.

Special-token strings are always text here, in templates too, so that offsets count the characters of the rendered text.
"""

from collections.abc import Sequence

from models.tasks.document import Document, DocumentPart
from models.tasks.windows import Window
from models.text.tokenizer import Encoding, Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.job import ExtractTask
from pipelines.kinds import EMPTY_TEXT
from pipelines.tasks.encoding import EncodedRow, Piece, Row, TextEncoding, too_long
from pipelines.tasks.facts import ModelFacts
from pipelines.tasks.pace import Pace
from pipelines.tasks.windows import WindowSize
from pipelines.templates.templates import RowTemplate

_REMEDY = "shorten the question, raise task.window or lower task.stride"


class DocumentEncoder:
    """Rows to the texts of a token-classification head; every token of a text is answered for by one window.

    Raises:
        TaskError: the template or the windows cannot be used.
    """

    def __init__(self, task: ExtractTask, tokenizer: Tokenizer, facts: ModelFacts) -> None:
        self._tokenizer = tokenizer
        self._template = RowTemplate(task.text, place="task.text")
        self._size = WindowSize.of(window=task.window, stride=task.stride, max_model_len=facts.max_model_len)
        room = self._size.window - len(tokenizer.encode(""))
        if room <= self._size.stride:
            raise TaskError(
                "task.window", f"{room} tokens of text in a window are no more than a stride of {self._size.stride}"
            )
        self.columns = self._template.columns
        self.required_columns = self._template.required_columns
        self.reads_all = self._template.reads_all
        self._encoding = TextEncoding(
            render=self._template.render, encode=self._encode, check=self._windowed, num_chars=len
        )

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        return self._encoding.of_rows(rows, pace)

    def _encode(self, texts: list[str]) -> Sequence[Encoding]:
        return self._tokenizer.encode_with_offsets(texts)

    def _windowed(self, text: str, encoding: Encoding) -> EncodedRow:
        document = Document.of(encoding, sequence=0)
        parts = [document.owned_part(window) for window in _windows(document, self._size)]
        return EncodedRow(pieces=tuple(map(_piece, parts)), text=text)


class QuestionEncoder:
    """Rows to question and text for a question-answering head, the question whole in every window, as `AutoTokenizer(question, text)`.

    Raises:
        TaskError: templates or windows cannot be used.
    """

    def __init__(self, task: ExtractTask, question: str, tokenizer: Tokenizer, facts: ModelFacts) -> None:
        self._tokenizer = tokenizer
        self._text = RowTemplate(task.text, place="task.text")
        self._question = RowTemplate(question, place="task.question")
        self._size = WindowSize.of(window=task.window, stride=task.stride, max_model_len=facts.max_model_len)
        self.columns = self._text.columns | self._question.columns
        self.required_columns = self._text.required_columns | self._question.required_columns
        self.reads_all = self._text.reads_all or self._question.reads_all
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
        parts = [document.part(window) for window in _windows(document, self._size)]
        return EncodedRow(pieces=tuple(map(_piece, parts)), text=text)


def _num_chars(asked: tuple[str, str]) -> int:
    return len(asked[0]) + len(asked[1])


def _windows(document: Document, size: WindowSize) -> list[Window]:
    """The windows of a text, none if it has no tokens.

    Raises:
        RowError: what stands around the text leaves no room for it.
    """
    room = document.room(size.window)
    if document.num_tokens <= room or room > size.stride:
        return document.cut(room=room, overlap=size.stride)
    what = f"the question leaves {max(room, 0)} tokens of a window to the text, which is not more than the stride"
    raise too_long(what, size.window, _REMEDY)


def _piece(part: DocumentPart) -> Piece:
    return Piece(token_ids=part.token_ids, offsets=part.offsets)
