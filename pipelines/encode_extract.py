"""Extraction: documents in overlapping windows of tokens, with the characters that each token stands for.

Special-token strings are always text here, in templates too, so that offsets count the characters of the rendered text.
"""

from collections.abc import Sequence

import numpy as np

from models.text import Encoding, Tokenizer
from pipelines.encoding import EncodedRow, Piece, Row, each, together, too_long
from pipelines.errors import RowError, TaskError
from pipelines.facts import ModelFacts
from pipelines.job import ExtractTask
from pipelines.kinds import EMPTY_TEXT
from pipelines.templates import RowTemplate
from pipelines.windows import Window, WindowSize, cut_windows

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

    def encode_rows(self, rows: Sequence[Row | RowError]) -> list[EncodedRow | RowError]:
        return each(self._windowed, together(self._tokenizer.encode_with_offsets, each(self._template.render, rows)))

    def _windowed(self, encoded: tuple[str, Encoding]) -> EncodedRow:
        text, encoding = encoded
        tokens = _TextTokens(encoding, sequence=0)
        windows = tokens.cut(self._size)
        pieces = [tokens.piece(window, window.owned_start, window.owned_end) for window in windows]
        return EncodedRow(pieces=tuple(pieces), text=text)


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

    def encode_rows(self, rows: Sequence[Row | RowError]) -> list[EncodedRow | RowError]:
        return each(self._windowed, together(self._encode, each(self._rendered, rows)))

    def _rendered(self, row: Row) -> tuple[str, str]:
        question, text = self._question.render(row), self._text.render(row)
        if not question:
            raise RowError(EMPTY_TEXT, "the question is empty")
        return question, text

    def _encode(self, pairs: list[tuple[str, str]]) -> Sequence[Encoding]:
        return self._tokenizer.encode_with_offsets([question for question, _ in pairs], [text for _, text in pairs])

    def _windowed(self, encoded: tuple[tuple[str, str], Encoding]) -> EncodedRow:
        (_, text), encoding = encoded
        tokens = _TextTokens(encoding, sequence=1)
        windows = tokens.cut(self._size)
        return EncodedRow(pieces=tuple(tokens.piece(window, window.start, window.end) for window in windows), text=text)


class _TextTokens:
    """The tokens of an encoding: those of the text, which windows cut, between those that every window has."""

    def __init__(self, encoding: Encoding, *, sequence: int) -> None:
        self._token_ids = np.array(encoding.ids, np.int32)
        self._offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
        places = [place for place, of in enumerate(encoding.sequence_ids) if of == sequence]
        self._first, self._after = (places[0], places[-1] + 1) if places else (0, 0)

    def cut(self, size: WindowSize) -> list[Window]:
        """The windows of the text, none if it has no tokens.

        Raises:
            RowError: what stands around the text leaves no room for it.
        """
        num_tokens = self._after - self._first
        room = size.window - (len(self._token_ids) - num_tokens)
        if num_tokens <= room:
            return cut_windows(num_tokens, room=room, overlap=0)
        if room <= size.stride:
            what = (
                f"the question leaves {max(room, 0)} tokens of a window to the text, which is not more than the stride"
            )
            raise too_long(what, size.window, _REMEDY)
        return cut_windows(num_tokens, room=room, overlap=size.stride)

    def piece(self, window: Window, answered_start: int, answered_end: int) -> Piece:
        """A window's tokens with what stands around the text, and offsets on the text's tokens that it answers for."""
        start, end = self._first + window.start, self._first + window.end
        parts = (self._token_ids[: self._first], self._token_ids[start:end], self._token_ids[self._after :])
        token_ids = np.concatenate(parts)
        offsets = np.full((len(token_ids), 2), -1, np.int32)
        shift = self._first - start
        answered = slice(self._first + answered_start, self._first + answered_end)
        offsets[answered.start + shift : answered.stop + shift] = self._offsets[answered]
        return Piece(token_ids=token_ids, offsets=offsets)
