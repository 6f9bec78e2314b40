"""Rows -> model requests: templates rendered, texts tokenized, lengths checked. What is wrong with a row makes it a dead letter.

Nothing here depends on which rows share a unit. The kinds of failure are in `pipelines.kinds`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError
from pipelines.formats.schema import Columns
from pipelines.job import Job
from pipelines.rows.rows import PreparedUnit, RowFailure, UnitRows
from pipelines.rows.seeds import row_seed
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import SLICE_CHARS, Pace
from pipelines.task_base.requests import EncodedRow, ModelRequest, Piece
from pipelines.task_base.task import Task


class Preparer:
    """Prepares the units of one job, one at a time.

    `columns` is what the job needs of its input. `asked` is what engines answer its requests with, `trial` what they are asked before all
    rows.

    Raises:
        TaskError: the task cannot be run on this checkpoint; `place` is the key of the spec.
    """

    def __init__(self, job: Job, tokenizer: Tokenizer, facts: TaskFacts) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder = job.task.encoder(tokenizer, facts)
        self._seeds = [TaskSeed.of(job, name, task) for name, task in job.task.parts().items()]
        self.columns = Columns(
            carried=job.input.columns,
            required=encoder.required_columns,
            optional=encoder.columns - encoder.required_columns,
            reads_all=encoder.reads_all,
        )
        self.asked, self.trial = encoder.asked, encoder.trial

    def prepare(self, rows: UnitRows, *, relative_path: str, slice_chars: int = SLICE_CHARS) -> PreparedUnit:
        """The requests of a unit's good rows, and every failure so far by row number; `relative_path` keys the rows' seeds. Texts are
        tokenized in slices of `slice_chars`, or one by one."""
        pace = Pace(rows.row_numbers.tolist(), slice_chars=slice_chars)
        pace.at_unit(rows.unit.num_bytes)
        encoded = self._encoder.encode_rows(rows.rows.values(self.columns.read), pace)
        pace.at_unit(rows.unit.num_bytes)
        good = [row for row in encoded if isinstance(row, EncodedRow)]
        is_good = np.array([isinstance(row, EncodedRow) for row in encoded], np.bool_)
        row_numbers = rows.row_numbers[is_good]
        failures = (*rows.failures, *_failures(rows, encoded, ~is_good))
        return PreparedUnit(
            unit=rows.unit,
            rows=rows.rows.kept(is_good),
            row_numbers=row_numbers,
            failures=tuple(sorted(failures, key=lambda failure: failure.row)),
            requests=tuple(
                _request(position, piece, self._seeds[piece.task].of_row(relative_path, number))
                for position, (row, number) in enumerate(zip(good, row_numbers.tolist(), strict=True))
                for piece in row.pieces
            ),
            texts=tuple(row.text for row in good if row.text is not None),
            several=tuple(row.several for row in good if row.several is not None),
            prompt=self._prompt([piece for row in good for piece in row.pieces if piece.call is None]),
        )

    def _prompt(self, pieces: Sequence[Piece]) -> str | None:
        """The first prompt of each task, under its name where there are several."""
        firsts = {piece.task: piece for piece in reversed(pieces)}
        texts = [(self._seeds[number].name, self._text_of(firsts[number])) for number in sorted(firsts)]
        return "\n\n".join(f"[{name}]\n{text}" if name else text for name, text in texts) or None

    def _text_of(self, piece: Piece) -> str:
        return self._tokenizer.decode(piece.token_ids.tolist(), skip_special_tokens=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSeed:
    """What the seeds of a task's rows are derived from; `name` tells it from others of its job."""

    name: str
    seed: int

    @classmethod
    def of(cls, job: Job, name: str, task: Task) -> Self:
        own = None if task.sampling is None else task.sampling.seed
        return cls(name=name, seed=job.seed if own is None else own)

    def of_row(self, relative_path: str, number: int) -> int:
        return row_seed(self.seed, f"{relative_path}\0{self.name}" if self.name else relative_path, number)


def _request(row: int, piece: Piece, seed: int) -> ModelRequest:
    return ModelRequest(
        row=row,
        token_ids=piece.token_ids,
        offsets=piece.offsets,
        seed=seed,
        call=piece.call,
        labels=piece.labels,
        task=piece.task,
    )


def _failures(rows: UnitRows, encoded: list[EncodedRow | RowError], is_bad: np.ndarray) -> list[RowFailure]:
    errors = [row for row in encoded if isinstance(row, RowError)]
    numbers = rows.row_numbers[is_bad].tolist()
    return [
        RowFailure(row=number, kind=error.kind, message=error.message, input=values, tasks=error.tasks)
        for number, error, values in zip(numbers, errors, rows.rows.kept(is_bad).as_given(), strict=True)
    ]
