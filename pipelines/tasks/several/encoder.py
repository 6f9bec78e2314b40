"""Rows to the requests of several tasks, each request with the number of its task.

What a task can make no request of is an error of that task alone: the others may go on with the row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from actors.work import Asked
from pipelines.errors import RowError
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Piece, Row, RowEncoder, SeveralAsked
from pipelines.tasks.several.partial import Partial, row_error


class SeveralEncoder(RowEncoder):
    """Encodes the rows of several tasks, by the encoders of each."""

    def __init__(self, encoders: Mapping[str, RowEncoder], partial: Partial) -> None:
        self._encoders, self._partial = encoders, partial
        each = list(encoders.values())
        self.columns = frozenset[str]().union(*(encoder.columns for encoder in each))
        self.required_columns = frozenset[str]().union(*(encoder.required_columns for encoder in each))
        self.reads_all = any(encoder.reads_all for encoder in each)
        self.asked = Asked(several=tuple(encoder.asked for encoder in each))
        self.trial = tuple(
            replace(piece, task=number) for number, encoder in enumerate(each) for piece in encoder.trial
        )

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        encoded = [encoder.encode_rows(rows, pace) for encoder in self._encoders.values()]
        return [
            row if isinstance(row, RowError) else self._together(parts)
            for row, *parts in zip(rows, *encoded, strict=True)
        ]

    def _together(self, parts: Sequence[EncodedRow | RowError]) -> EncodedRow | RowError:
        errors = {number: part for number, part in enumerate(parts) if isinstance(part, RowError)}
        error = row_error([*self._encoders], errors, self._partial)
        if error is not None:
            return error
        pieces: list[Piece] = []
        for number, part in enumerate(parts):
            if isinstance(part, EncodedRow):
                pieces += (replace(piece, task=number) for piece in part.pieces)
        texts = tuple(part.text if isinstance(part, EncodedRow) else None for part in parts)
        return EncodedRow(pieces=tuple(pieces), several=SeveralAsked(texts=texts, errors=errors))
