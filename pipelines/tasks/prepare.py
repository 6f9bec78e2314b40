"""Rows -> model requests: templates rendered, texts tokenized, lengths checked. What is wrong with a row makes it a dead letter.

Nothing here depends on which rows share a unit. The kinds of failure are in `pipelines.kinds`.
"""

import numpy as np

from models.config.model_config import TWO_WAY
from models.config.types import Head
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.formats.schema import Columns
from pipelines.job import ClassifyTask, ExtractTask, GenerateTask, Job, Task
from pipelines.rows.rows import ModelRequest, PreparedUnit, RowFailure, UnitRows
from pipelines.tasks.encode_classify import LabelEncoder, TextEncoder
from pipelines.tasks.encode_extract import DocumentEncoder, QuestionEncoder
from pipelines.tasks.encode_generate import PromptEncoder, TokenIdsEncoder
from pipelines.tasks.encoding import EncodedRow, RowEncoder
from pipelines.tasks.facts import ModelFacts
from pipelines.tasks.pace import SLICE_CHARS, Pace
from pipelines.tasks.seeds import row_seed


class Preparer:
    """Prepares the units of one job, one at a time.

    `columns` is what the job needs of its input. `label_ids` are the tokens of a causal model's labels, and empty for any other task.

    Raises:
        TaskError: the task cannot be run on this checkpoint; `place` is the key of the spec.
    """

    def __init__(self, job: Job, tokenizer: Tokenizer, facts: ModelFacts) -> None:
        self._encoder = encoder = _encoder(job.task, tokenizer, facts)
        self._seed = _seed(job)
        self._has_texts = isinstance(job.task, ExtractTask)
        self.columns = Columns(
            carried=job.input.columns,
            required=encoder.required_columns,
            optional=encoder.columns - encoder.required_columns,
            reads_all=encoder.reads_all,
        )
        self.label_ids = encoder.label_ids if isinstance(encoder, LabelEncoder) else ()

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
        seeds = [row_seed(self._seed, relative_path, number) for number in row_numbers.tolist()]
        failures = (*rows.failures, *_failures(rows, encoded, ~is_good))
        return PreparedUnit(
            unit=rows.unit,
            rows=rows.rows.kept(is_good),
            row_numbers=row_numbers,
            failures=tuple(sorted(failures, key=lambda failure: failure.row)),
            requests=tuple(
                ModelRequest(row=position, token_ids=piece.token_ids, offsets=piece.offsets, seed=seed)
                for position, (row, seed) in enumerate(zip(good, seeds, strict=True))
                for piece in row.pieces
            ),
            texts=tuple(row.text or "" for row in good) if self._has_texts else None,
        )


def _encoder(task: Task, tokenizer: Tokenizer, facts: ModelFacts) -> RowEncoder:
    match task:
        case GenerateTask():
            return _generate_encoder(task, tokenizer, facts)
        case ClassifyTask():
            return _classify_encoder(task, tokenizer, facts)
        case ExtractTask():
            return _extract_encoder(task, tokenizer, facts)


def _generate_encoder(task: GenerateTask, tokenizer: Tokenizer, facts: ModelFacts) -> RowEncoder:
    _check_head(facts, "causal", "task.kind", "generate")
    if task.prompt_token_ids is not None:
        return TokenIdsEncoder(task, task.prompt_token_ids, facts)
    return PromptEncoder(task, tokenizer, facts)


def _classify_encoder(task: ClassifyTask, tokenizer: Tokenizer, facts: ModelFacts) -> RowEncoder:
    if task.labels is not None:
        _check_head(facts, "causal", "task.labels", "classify with labels of one's own")
        return LabelEncoder(task, task.labels, tokenizer, facts)
    if facts.head == "causal":
        raise TaskError("task.labels", "the checkpoint is a causal model, which needs the labels to choose from")
    _check_head(facts, "sequence-classification", "task.kind", "classify")
    return TextEncoder(task, tokenizer, facts)


def _extract_encoder(task: ExtractTask, tokenizer: Tokenizer, facts: ModelFacts) -> RowEncoder:
    if task.question is not None:
        _check_head(facts, "question-answering", "task.question", "extract with a question")
        return QuestionEncoder(task, task.question, tokenizer, facts)
    if facts.head == "question-answering":
        raise TaskError("task.question", "the checkpoint has a question-answering head, which needs a question")
    _check_head(facts, "token-classification", "task.kind", "extract")
    return DocumentEncoder(task, tokenizer, facts)


def _check_head(facts: ModelFacts, head: Head, place: str, what: str) -> None:
    if facts.head == "embedding":
        raise TaskError("model.path", f"{what} needs a checkpoint with a {head} head; this one has none: {TWO_WAY}")
    if facts.head != head:
        raise TaskError(place, f"{what} needs a checkpoint with a {head} head; this one has a {facts.head} head")


def _seed(job: Job) -> int:
    """What all rows' seeds are derived from: the job's seed, unless the sampling parameters have one of their own."""
    own = job.task.sampling.seed if isinstance(job.task, GenerateTask) else None
    return job.seed if own is None else own


def _failures(rows: UnitRows, encoded: list[EncodedRow | RowError], is_bad: np.ndarray) -> list[RowFailure]:
    errors = [row for row in encoded if isinstance(row, RowError)]
    numbers = rows.row_numbers[is_bad].tolist()
    return [
        RowFailure(row=number, kind=error.kind, message=error.message, input=values)
        for number, error, values in zip(numbers, errors, rows.rows.kept(is_bad).as_given(), strict=True)
    ]
